"""Sizes at the network's input, and what the anchors reach there."""

import evaluated
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.evaluation import analysis
from ssd_tf.evaluation.metrics import sizes
from ssd_tf.multibox import boxes, encoder
from ssd_tf.nets import nets_factory

NAMES = evaluated.NAMES
# In an image of 400 x 800, seen at 100 x 100: sides of 10, 20, 40 and 100.
SIZE, INPUT = (400, 800), (100, 100)
TINY, SMALL = [0, 0, 40, 80], [100, 100, 180, 260]
MEDIUM, LARGE = [200, 300, 360, 620], [0, 0, 400, 800]


def image(found=(), truth=(), **options):
    return evaluated.image(found, truth, size=SIZE, **options)


def test_sizes_are_those_of_the_input():
    rows = np.array([TINY, SMALL, MEDIUM, LARGE], float)
    found = sizes.size_of(rows, image(), INPUT)
    np.testing.assert_array_equal(found, [0, 1, 2, 3])
    # 16 and 32 px belong to the larger size; an inverted box has none.
    rows = np.array([[0, 0, 64, 128], [0, 0, 128, 256], [9, 9, 1, 1]], float)
    np.testing.assert_array_equal(
        sizes.size_of(rows, image(), INPUT), [1, 2, 0]
    )


def test_each_size_by_itself():
    truth = [(TINY, 1), (SMALL, 1), (MEDIUM, 1)]
    # The small cat is found, a medium one is seen first where nothing is, and
    # then the right one.
    wrong = [200, 0, 360, 280]
    found = [(wrong, 0.9, 1), (SMALL, 0.8, 1), (MEDIUM, 0.7, 1)]
    result = sizes.average_precisions([image(found, truth)], NAMES, INPUT)
    assert {name: each["cat"] for name, each in result.items()} == {
        "tiny": {"AP": 0.0, "boxes": 1},
        "small": {"AP": 1.0, "boxes": 1},
        "medium": {"AP": 0.5, "boxes": 1},
        "large": {"AP": None, "boxes": 0},
    }
    assert result["small"]["mAP"] == {"AP": 1.0, "boxes": 1}
    assert result["large"]["mAP"] == {"AP": None, "boxes": 0}


def test_what_is_right_counts_whatever_its_own_size():
    # 31 px of the input, found as 33, which is medium.
    box, larger = [0, 0, 124, 248], [0, 0, 132, 264]
    one = image([(larger, 0.9, 1)], [(box, 1)])
    result = sizes.average_precisions([one], NAMES, INPUT)
    assert result["small"]["cat"] == {"AP": 1.0, "boxes": 1}
    assert result["medium"]["cat"] == {"AP": None, "boxes": 0}
    # They overlap by .88.
    result = sizes.average_precisions([one], NAMES, INPUT, iou_threshold=0.9)
    assert result["small"]["cat"] == {"AP": 0.0, "boxes": 1}


def test_difficult_boxes_have_no_size():
    truth = [(SMALL, 1), (MEDIUM, 1)]
    one = image([(SMALL, 0.9, 1)], truth, difficult=[True, False])
    result = sizes.average_precisions([one], NAMES, INPUT)
    assert result["small"]["cat"] == {"AP": None, "boxes": 0}
    assert result["medium"]["cat"] == {"AP": 0.0, "boxes": 1}


def test_no_images():
    result = sizes.average_precisions([], NAMES, INPUT)
    assert result["tiny"]["mAP"] == {"AP": None, "boxes": 0}
    result = analysis.coverage([], NAMES, np.zeros((1, 4)), INPUT)
    assert result["all"]["all"] == {"boxes": 0, "reached": None, "forced": None}


def test_coverage_by_hand():
    anchors = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    # IoU 1 and .64 with the first anchor, and .04 with any.
    rows = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.4, 0.4], [0, 0.9, 0.1, 1.0]])
    reached, forced = analysis.of_boxes(rows, anchors)
    np.testing.assert_array_equal(reached, [True, True, False])
    # The first anchor takes the first box, so the second has none.
    np.testing.assert_array_equal(forced, [False, True, True])


def test_shares_by_class_and_size():
    anchors = np.array([[0, 0, 0.5, 0.5]])
    half, quarter = [0, 0, 200, 400], [200, 400, 400, 800]
    one = image(truth=[(half, 1), (quarter, 1), (half, 2), (TINY, 2)])
    result = analysis.coverage([one], NAMES, anchors, INPUT)
    assert result["per_class"]["cat"]["all"] == {
        "boxes": 2,
        "reached": 0.5,
        "forced": 0.5,
    }
    assert result["per_class"]["dog"]["tiny"] == {
        "boxes": 1,
        "reached": 0.0,
        "forced": 1.0,
    }
    # Of two equal boxes the anchor takes the first.
    assert result["per_class"]["dog"]["medium"] == {
        "boxes": 1,
        "reached": 1.0,
        "forced": 1.0,
    }
    assert result["all"]["all"] == {"boxes": 4, "reached": 0.5, "forced": 0.75}
    crowd = image(truth=[(half, 1), (quarter, 1)], crowd=[True, False])
    result = analysis.coverage([crowd], NAMES, anchors, INPUT)
    assert result["per_class"]["cat"]["all"] == {
        "boxes": 1,
        "reached": 0.0,
        "forced": 1.0,
    }


@pytest.mark.parametrize("seed", range(3))
def test_coverage_is_what_the_encoder_matches(seed):
    net = nets_factory.get_network("ssd_128_mobilenet_v2")()
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.9, (20, 2))
    side = rng.uniform(0.02, 0.5, (20, 2))
    rows = np.concatenate([corner, np.minimum(corner + side, 1)], 1)
    rows = rows.astype(np.float32)
    # Every box has a class of its own, by which its anchors are known.
    targets = encoder.encode(
        tf.range(1, 21), rows, net.flat_anchors, 21, force_match=False
    )
    matched = targets.gclasses.numpy()[targets.gscores.numpy() >= 0.5]
    anchors = boxes.to_corners(np.asarray(net.flat_anchors))
    reached, forced = analysis.of_boxes(rows, anchors)
    np.testing.assert_array_equal(~forced, np.isin(np.arange(1, 21), matched))
    assert (forced | reached).all() and forced.any() and not forced.all()
