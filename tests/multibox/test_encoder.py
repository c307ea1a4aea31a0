"""Matching: by hand, against a slow oracle, and what must match nothing."""

import dataclasses

import inputs
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config.presets import SSD_128_MOBILENET_V2, SSD_300_VGG
from ssd_tf.multibox import boxes as geometry
from ssd_tf.multibox import encoder
from ssd_tf.nets.ssd import SSDNet

ANCHORS = SSDNet(SSD_128_MOBILENET_V2).flat_anchors
ANCHORS_300 = SSDNet(SSD_300_VGG).flat_anchors
# Two anchors for numbers by hand, in centre form.
TWO_ANCHORS = np.array([[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.2, 0.2]], "f")
BAD_BOXES = {
    "nan": [0.1, np.nan, 0.5, 0.5],
    "all nan": [np.nan] * 4,
    "infinite": [0.1, 0.1, np.inf, 0.5],
    "inverted": [0.6, 0.6, 0.2, 0.9],
    "inverted twice": [0.9, 0.9, 0.1, 0.1],
    "no height": [0.5, 0.1, 0.5, 0.9],
    "point": [0.5, 0.5, 0.5, 0.5],
}


def encode(labels, boxes, anchors=ANCHORS, num_classes=21, **options):
    labels = np.array(labels, np.int64)
    boxes = np.array(boxes, np.float32).reshape(*labels.shape, 4)
    return encoder.encode(labels, boxes, anchors, num_classes, **options)


def iou_with(boxes, anchors=ANCHORS):
    return geometry.iou_matrix(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.asarray(geometry.to_corners(anchors)),
    )


def assert_equal(targets, others):
    for name, ours, theirs in zip(
        targets._fields, targets, others, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def assert_close(targets, others):
    """Equal but for the order of float32 operations, see `atol`."""
    np.testing.assert_array_equal(targets.gclasses, others.gclasses)
    np.testing.assert_allclose(targets.gscores, others.gscores, atol=1e-6)
    # 1e-7 of a centre, over .1 of an anchor .1 wide; the log is alike.
    np.testing.assert_allclose(
        targets.glocalisations, others.glocalisations, rtol=1e-5, atol=1e-5
    )


def greedy(iou):
    """Caffe's loop: the largest pair left, first anchor, then first box."""
    iou = iou.copy()
    taken = np.full(iou.shape[1], -1)
    for _ in range(iou.shape[0]):
        if iou.max() <= encoder.MIN_FORCED_IOU:
            break
        pairs = zip(*np.nonzero(iou == iou.max()), strict=True)
        anchor, box = min((anchor, box) for box, anchor in pairs)
        taken[anchor] = box
        iou[box], iou[:, anchor] = 0, 0
    return taken


def scene(tag, number, kind):
    """Random boxes, the last third of them copies of one another."""
    labels, boxes = inputs.scene(tag, number, kind=kind)
    boxes[-(number // 3) :] = boxes[-1]
    return labels, boxes


def test_one_box_by_hand():
    # Inside the first anchor, .5 high and .4 wide: IoU .8. It does not meet
    # the second anchor, which is given the whole image and no class.
    box = [0.25, 0.25, 0.75, 0.65]
    targets = encode([7], [box], TWO_ANCHORS, force_match=False)
    np.testing.assert_array_equal(targets.gclasses, [7, 0])
    np.testing.assert_allclose(targets.gscores, [0.8, 0], rtol=1e-6)
    expected = [
        [(0.45 - 0.5) / 0.5 / 0.1, 0, np.log(0.4 / 0.5) / 0.2, 0],
        [0.4 / 0.2 / 0.1] * 2 + [np.log(1 / 0.2) / 0.2] * 2,
    ]
    np.testing.assert_allclose(
        targets.glocalisations, expected, rtol=1e-5, atol=1e-5
    )


def test_prior_scaling_divides_cx_cy_w_h():
    box = [[0.2, 0.1, 0.8, 0.9]]
    plain = encode([1], box, prior_scaling=(1, 1, 1, 1)).glocalisations
    scaled = encode([1], box, prior_scaling=(0.5, 0.25, 2, 4)).glocalisations
    np.testing.assert_allclose(scaled, plain / [0.5, 0.25, 2, 4], rtol=1e-6)


def test_anchor_takes_the_box_of_best_iou_and_the_first_of_equals():
    boxes = [[0.3, 0.3, 0.8, 0.8], [0.25, 0.25, 0.75, 0.75]]
    targets = encode([1, 2], boxes, TWO_ANCHORS, force_match=False)
    assert targets.gclasses[0] == 2
    boxes = [boxes[0], boxes[0]]
    targets = encode([4, 3], boxes, TWO_ANCHORS, force_match=False)
    assert targets.gclasses[0] == 4


@pytest.mark.parametrize("kind", ["mixed", "tiny", "huge"])
@pytest.mark.parametrize("number", [1, 8, 30])
def test_bipartite_matching_is_caffes_loop(kind, number):
    _, boxes = scene(f"greedy/{number}", number, kind)
    iou = iou_with(boxes, ANCHORS_300)
    forced = encoder._bipartite_match(tf.constant(iou[None]))[0]
    np.testing.assert_array_equal(forced, greedy(iou))


@pytest.mark.parametrize("seed", range(20))
def test_bipartite_matching_with_many_ties(seed):
    # IoUs of few different values, more boxes than anchors, zeros.
    random = np.random.RandomState(seed)
    iou = random.choice([0, 1e-7, 0.25, 0.5, 0.75], (3, 12, 9))
    iou = iou.astype(np.float32)
    forced = encoder._bipartite_match(tf.constant(iou))
    np.testing.assert_array_equal(forced, [greedy(image) for image in iou])


@pytest.mark.parametrize("kind", ["mixed", "tiny", "huge"])
def test_every_box_gets_an_anchor_of_its_own(kind):
    labels, boxes = scene("own", 19, kind)
    labels = np.arange(1, 20)
    targets = encode(labels, boxes)
    plain = encode(labels, boxes, force_match=False)
    forced = greedy(iou_with(boxes))
    is_forced = forced >= 0
    assert sorted(forced[is_forced]) == list(range(19))
    np.testing.assert_array_equal(
        targets.gclasses[is_forced], labels[forced[is_forced]]
    )
    np.testing.assert_array_equal(targets.gscores[is_forced], 1.0)
    decoded = encoder.decode_boxes(targets.glocalisations, ANCHORS)
    # Corners up to 1 in float32, through a log and its exp.
    np.testing.assert_allclose(
        decoded[is_forced], boxes[forced[is_forced]], atol=2e-6
    )
    # All other anchors are as without force_match.
    for ours, theirs in zip(targets, plain, strict=True):
        np.testing.assert_array_equal(ours[~is_forced], theirs[~is_forced])


def test_identical_boxes_get_different_anchors():
    targets = encode([1, 2, 3, 4, 5], [[0.4, 0.4, 0.6, 0.6]] * 5)
    is_forced = targets.gscores.numpy() == 1
    assert sorted(targets.gclasses[is_forced].numpy()) == [1, 2, 3, 4, 5]
    # The first box takes the best anchor.
    best = iou_with([[0.4, 0.4, 0.6, 0.6]])[0].argmax()
    assert targets.gclasses[best] == 1


def test_more_boxes_than_anchors():
    targets = encode([1, 2, 3], [[0.1, 0.1, 0.6, 0.6]] * 3, TWO_ANCHORS)
    np.testing.assert_array_equal(targets.gclasses, [1, 2])
    np.testing.assert_array_equal(targets.gscores, [1, 1])


def test_a_box_away_from_all_anchors_matches_nothing():
    away = [[5, 5, 6, 6]]
    assert_equal(encode([3], away), encode([], []))


@pytest.mark.parametrize("force_match", [True, False])
@pytest.mark.parametrize("boxes", [0, 3])
def test_without_boxes_all_is_background(force_match, boxes):
    labels = np.zeros(boxes, np.int64)  # padding only
    targets = encode(labels, np.zeros([boxes, 4]), force_match=force_match)
    assert targets.gclasses.dtype == tf.int64
    assert not np.any(targets.gclasses) and not np.any(targets.gscores)
    assert np.isfinite(targets.glocalisations).all()


@pytest.mark.parametrize("force_match", [True, False])
@pytest.mark.parametrize("bad", BAD_BOXES.values(), ids=BAD_BOXES)
def test_bad_boxes_match_nothing_and_poison_nothing(bad, force_match):
    labels, boxes = inputs.scene("good", 4)
    with_bad = encode(
        [9, *labels, 9],
        [bad, *boxes, bad],
        force_match=force_match,
        ignored=np.array([False] * 5 + [True]),
    )
    without = encode(labels, boxes, force_match=force_match)
    assert_equal(with_bad, without)
    assert np.isfinite(with_bad.glocalisations).all()


@pytest.mark.parametrize("label", [0, -1, 21, 22, 2**40])
def test_labels_out_of_range_match_nothing(label):
    labels, boxes = inputs.scene("good", 4)
    other = [0.3, 0.3, 0.7, 0.7]
    with_bad = encode([label, *labels], [other, *boxes])
    assert_equal(with_bad, encode(labels, boxes))


def test_ignored_box_marks_what_it_covers_by_more_than_half():
    # Anchors 1 wide that lie .6, .5 and .4 inside the ignored box.
    anchors = np.array([[0.5, x, 1, 1] for x in (0.9, 1, 1.1)], np.float32)
    targets = encode([1], [[0, 0, 1, 1]], anchors, ignored=np.array([True]))
    np.testing.assert_array_equal(targets.gscores, [-1, 0, 0])
    np.testing.assert_array_equal(targets.gclasses, [0, 0, 0])


@pytest.mark.parametrize(("threshold", "score"), [(0.5, -1), (0.3, 1 / 3)])
def test_what_a_box_matches_is_not_ignored(threshold, score):
    # The object has IoU 1/3 with the anchor, the ignored box covers it all.
    anchors = np.array([[0.5, 0.5, 1, 1]], np.float32)
    targets = encode(
        [1, 1],
        [[0, 0.5, 1, 1.5], [0, 0, 1, 1]],
        anchors,
        ignored=np.array([False, True]),
        force_match=False,
        match_threshold=threshold,
    )
    np.testing.assert_allclose(targets.gscores, [score], rtol=1e-6)


@pytest.mark.parametrize("force_match", [True, False])
def test_ignored_boxes_against_the_rule(force_match):
    labels, boxes = inputs.scene("ignored", 12)
    boxes[0] = [0.1, 0.1, 0.9, 0.9]  # a crowd around other boxes
    ignored = np.arange(12) % 3 == 0
    targets = encode(labels, boxes, ignored=ignored, force_match=force_match)
    plain = encode(labels[~ignored], boxes[~ignored], force_match=force_match)
    corners = np.asarray(geometry.to_corners(ANCHORS))
    common = geometry.intersection_matrix(boxes[ignored], corners)
    covered = (common / geometry.area(corners)).max(axis=0) > 0.5
    expected = covered & (plain.gscores.numpy() < 0.5)
    assert expected.sum() > 20 and (covered & ~expected).sum() > 0
    np.testing.assert_array_equal(targets.gscores == -1, expected)
    # Nothing else changes.
    assert_equal(
        targets,
        plain._replace(gscores=np.where(expected, -1, plain.gscores)),
    )


def test_ignored_box_never_hides_a_forced_match():
    box = [0.4, 0.4, 0.43, 0.43]  # best IoU far below .5
    targets = encode(
        [2, 1], [[0, 0, 1, 1], box], ignored=np.array([True, False])
    )
    best = iou_with([box])[0].argmax()
    assert targets.gscores[best] == 1 and targets.gclasses[best] == 1


@pytest.mark.parametrize("force_match", [True, False])
def test_padded_batch_equals_single_images(force_match):
    numbers = (5, 0, 1, 9)
    labels = np.zeros([4, 11], np.int64)
    boxes = np.zeros([4, 11, 4], np.float32)
    ignored = np.zeros([4, 11], bool)
    for row, number in enumerate(numbers):
        labels[row, :number], boxes[row, :number] = inputs.scene(
            f"batch/{row}", number
        )
        ignored[row, :number:4] = True
    options = {"force_match": force_match}
    batch = encode(labels, boxes, ignored=ignored, **options)
    for row, number in enumerate(numbers):
        single = encode(
            labels[row, :number],
            boxes[row, :number],
            ignored=ignored[row, :number],
            **options,
        )
        assert_close(encoder.Targets(*(part[row] for part in batch)), single)


@pytest.mark.parametrize("number", [0, 6])
def test_same_result_however_it_is_run(run_as, number):
    labels, boxes = inputs.scene("ways", number)
    ignored = np.arange(number) == 2

    def function(labels, boxes, ignored):
        return encoder.encode(labels, boxes, ANCHORS, 21, ignored=ignored)

    assert_close(
        run_as(function)(labels, boxes, ignored),
        encode(labels, boxes, ignored=ignored),
    )


def test_decode_inverts_encode():
    random = np.random.RandomState(0)
    center = random.uniform(0, 1, (len(ANCHORS), 2))
    size = np.exp(random.uniform(np.log(0.03), 0, (len(ANCHORS), 2)))
    boxes = geometry.to_corners(np.hstack([center, size]).astype(np.float32))
    offsets = encoder.encode_boxes(boxes, ANCHORS, (0.1, 0.1, 0.2, 0.2))
    # Corners up to 1.5 in float32, through a log and its exp.
    np.testing.assert_allclose(
        encoder.decode_boxes(offsets, ANCHORS), boxes, atol=2e-6
    )


def test_decode_by_hand():
    # 1 right and 2 up by tenths of .5, twice as wide, half as high.
    offsets = [[1, -2, np.log(2) / 0.2, np.log(0.5) / 0.2]]
    box = encoder.decode_boxes(np.array(offsets, "f"), TWO_ANCHORS[:1])
    expected = [[0.4 - 0.125, 0.55 - 0.5, 0.4 + 0.125, 0.55 + 0.5]]
    np.testing.assert_allclose(box, expected, rtol=1e-5)


def test_decoded_sizes_stay_finite():
    offsets = np.array([[0, 0, 1e9, 1e9]] * 2, np.float32)
    boxes = encoder.decode_boxes(offsets, TWO_ANCHORS)
    center = geometry.to_center(boxes)
    np.testing.assert_array_less(center[:, 2:], 63 * TWO_ANCHORS[:, 2:])


@pytest.fixture(scope="module")
def net():
    params = dataclasses.replace(SSD_128_MOBILENET_V2, num_classes=21)
    return SSDNet(params)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_lists_of_layers_are_views_of_the_flat_targets(net, batch):
    labels, boxes = inputs.scene("layers", 6)
    labels = np.broadcast_to(labels, (*batch, 6))
    boxes = np.broadcast_to(boxes, (*batch, 6, 4))
    ignored = np.broadcast_to(np.arange(6) == 1, labels.shape)
    lists = net.bboxes_encode(labels, boxes, net.anchors(), ignored=ignored)
    flat = encode(labels, boxes, ignored=ignored)
    for layers, whole in zip(lists, flat, strict=True):
        item = whole.shape[len(batch) + 1 :]
        for layer, (h, w) in zip(layers, net.params.feat_shapes, strict=True):
            assert layer.shape == (*batch, h, w, 4, *item)
        joined = [np.reshape(layer, (*batch, -1, *item)) for layer in layers]
        np.testing.assert_array_equal(
            np.concatenate(joined, axis=len(batch)), whole
        )


def test_net_encodes_with_its_own_number_of_classes(net):
    boxes = np.array([[0.2, 0.2, 0.8, 0.8]], np.float32)
    for label, found in ((20, 20), (21, 0)):
        gclasses, _, _ = net.bboxes_encode([label], boxes, net.anchors())
        assert max(np.max(layer) for layer in gclasses) == found


def test_net_decodes_what_it_encodes(net):
    labels, boxes = inputs.scene("round", 5)
    gclasses, glocalisations, gscores = net.bboxes_encode(
        labels[None], boxes[None], net.anchors()
    )
    decoded = net.bboxes_decode(glocalisations, net.anchors())
    found = 0
    for boxes_of, scores in zip(decoded, gscores, strict=True):
        matched = np.reshape(boxes_of, [-1, 4])[np.ravel(scores) == 1]
        distance = np.abs(matched[:, None] - boxes).max(axis=-1)
        assert (distance.min(axis=1, initial=np.inf) < 2e-6).all()
        found += len(matched)
    assert found == 5
