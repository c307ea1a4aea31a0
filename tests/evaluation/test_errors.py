"""Every kind of mistake by hand, what it costs, and TIDE's own counts."""

import evaluated
import numpy as np
import pytest

from ssd_tf.detect.results import Detections
from ssd_tf.evaluation.metrics import errors, inputs
from ssd_tf.evaluation.metrics.outcomes import area_under, precision_recall
from ssd_tf.evaluation.metrics.voc import VOCMetric

# 20 x 20 pixels.
CAT, DOG = [10, 10, 30, 30], [60, 60, 80, 80]
# Moved by 8 of 20 pixels: IoU 12 / 28 = .43; by 18: 2 / 38 = .05.
CAT_OFF, CAT_AWAY, DOG_OFF = (
    [10, 18, 30, 38],
    [10, 28, 30, 48],
    [60, 68, 80, 88],
)
NOWHERE = [0, 80, 10, 99]


def kinds_of(found, truth=((CAT, 1), (DOG, 2)), **options):
    image = evaluated.image(found, truth, **options)
    mistakes = errors.find(image.found, image.truth)
    names = ["right", *errors.KINDS]
    return [names[kind] for kind in mistakes.kind], mistakes


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        (CAT, 1, "right"),
        (CAT_OFF, 1, "localisation"),
        (CAT, 2, "classification"),
        (DOG_OFF, 1, "both"),
        (CAT_AWAY, 1, "background"),
        (NOWHERE, 1, "background"),
        (CAT, 3, "classification"),
    ],
)
def test_kinds_by_hand(box, label, kind):
    kinds, _ = kinds_of([(box, 0.9, label)])
    assert kinds == [kind]


def test_the_second_detection_of_an_object_is_a_duplicate():
    kinds, mistakes = kinds_of([(CAT, 0.9, 1), (CAT, 0.8, 1)])
    assert kinds == ["right", "duplicate"]
    np.testing.assert_array_equal(mistakes.found, [True, False])
    np.testing.assert_array_equal(mistakes.missed, [False, True])


def test_a_box_that_another_mistake_is_about_is_not_missed_too():
    _, mistakes = kinds_of([(CAT_OFF, 0.9, 1), (DOG, 0.8, 1)])
    np.testing.assert_array_equal(mistakes.missed, [False, False])
    np.testing.assert_array_equal(mistakes.target, [0, 1])
    _, mistakes = kinds_of([(DOG_OFF, 0.9, 1)])
    np.testing.assert_array_equal(mistakes.missed, [True, True])


def test_ignored_boxes_are_nobodys_mistake():
    _, mistakes = kinds_of([(DOG, 0.9, 2)], difficult=[True, True])
    np.testing.assert_array_equal(mistakes.skipped, [True])
    np.testing.assert_array_equal(mistakes.kind, [0])
    np.testing.assert_array_equal(mistakes.missed, [False, False])
    # Nor does a wrong detection get the blame for one of them.
    kinds, _ = kinds_of([(DOG, 0.9, 1)], crowd=[False, True])
    assert kinds == ["background"]


def test_the_parts_of_a_crowd_are_no_mistakes():
    crowd = [0, 0, 50, 100]
    found = [(CAT, 0.9, 1), (CAT, 0.8, 2)]
    image = evaluated.image(found, [(crowd, 1)], crowd=[True])
    mistakes = errors.find(image.found, image.truth)
    np.testing.assert_array_equal(mistakes.skipped, [True, False])
    np.testing.assert_array_equal(mistakes.kind, [0, errors.BACKGROUND])
    np.testing.assert_array_equal(mistakes.missed, [False])


@pytest.mark.parametrize("found", [[], [(CAT, 0.9, 1)]])
def test_empty_images(found):
    kinds, mistakes = kinds_of(found, truth=())
    assert kinds == ["background"] * len(found)
    assert len(mistakes.missed) == 0
    image = evaluated.image(found)
    for each in errors.costs([image], evaluated.NAMES).values():
        assert each["cost"] == 0
    assert errors.costs([], evaluated.NAMES)["missed"]["count"] == 0


def cost_of(kind, found, truth=((CAT, 1), (DOG, 2))):
    image = evaluated.image(found, truth)
    result = errors.costs([image], evaluated.NAMES)
    others = [name for name in result if name != kind]
    assert [result[name]["cost"] for name in others] == [0] * len(others)
    return result[kind]


def test_costs_by_hand():
    dog = (DOG, 0.5, 2)
    # The cat is found after one wrong detection: AP 1/2 of one class in two.
    for wrong, kind in ((NOWHERE, "background"), (DOG_OFF, "both")):
        result = cost_of(kind, [(wrong, 0.9, 1), (CAT, 0.8, 1), dog])
        assert result["cost"] == pytest.approx(0.25)
        assert result["per_class"] == {"cat": 1, "dog": 0, "cow": 0}
    # The only detection of the cat is off, or there is none.
    assert cost_of("localisation", [(CAT_OFF, 0.9, 1), dog])["cost"] == 0.5
    assert cost_of("missed", [dog])["cost"] == 0.5


def test_a_missed_box_costs_recall():
    image = evaluated.image([(CAT, 0.9, 1)], [(CAT, 1), (DOG, 1)])
    result = errors.costs([image], evaluated.NAMES)
    assert result["missed"] == {
        "count": 1,
        "cost": pytest.approx(0.5),
        "per_class": {"cat": 1, "dog": 0, "cow": 0},
    }


def test_a_wrong_class_costs_both_classes():
    # Called a dog, before the dog: the cat has AP 0, the dog 1/2.
    found = [(CAT, 0.9, 2), (DOG, 0.8, 2)]
    result = errors.costs(
        [evaluated.image(found, [(CAT, 1), (DOG, 2)])], evaluated.NAMES
    )
    assert result["classification"]["cost"] == pytest.approx(0.75)
    assert result["classification"]["per_class"]["dog"] == 1


def test_of_two_mistakes_on_one_object_one_is_put_right():
    found = [(CAT_OFF, 0.9, 1), (CAT_OFF, 0.8, 1), (DOG, 0.7, 2)]
    assert cost_of("localisation", found)["cost"] == pytest.approx(0.5)
    # And none where the object is found already.
    found = [(CAT_OFF, 0.9, 1), (CAT, 0.8, 1), (DOG, 0.7, 2)]
    assert cost_of("localisation", found)["cost"] == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(5))
def test_every_wrong_detection_has_one_kind(seed):
    images = evaluated.random_images(seed, count=30)
    result = errors.costs(images, evaluated.NAMES)
    wrong = sum(
        int(np.count_nonzero(errors.find(x.found, x.truth).kind))
        for x in images
    )
    assert sum(result[kind]["count"] for kind in errors.KINDS) == wrong
    for each in result.values():
        assert sum(each["per_class"].values()) == each["count"]
        assert -1e-12 <= each["cost"] <= 1


def mean_of(images):
    metric = VOCMetric(evaluated.NAMES)
    for image in images:
        metric.add(image.found, image.truth)
    return metric.result()["AP_VOC12/mAP"]


def mended(image, kind):
    """The image as it were without mistakes of a kind, box by box."""
    mistakes = errors.find(image.found, image.truth)
    rows, done = [], set()
    columns = zip(image.found, mistakes.kind, mistakes.target, strict=True)
    for (box, score, label, _), what, target in columns:
        if what != kind:
            rows.append((box, score, label))
        elif target >= 0 and not mistakes.found[target] | (target in done):
            # Best first: it is the one that is put right.
            done.add(target)
            truth = image.truth
            rows.append((truth.boxes[target], score, truth.labels[target]))
    boxes, scores, labels = ([row[k] for row in rows] for k in range(3))
    found = Detections(
        np.reshape(boxes, (-1, 4)), np.array(scores), np.array(labels, int)
    )
    return image._replace(found=found)


def test_costs_are_what_the_metric_gains_when_images_are_mended():
    for seed in range(4):
        images = evaluated.random_images(seed, count=25, ties=False)
        result = errors.costs(images, evaluated.NAMES)
        before = mean_of(images)
        for number, kind in enumerate(errors.KINDS, start=1):
            after = mean_of([mended(image, number) for image in images])
            assert result[kind]["cost"] == pytest.approx(
                after - before, abs=1e-12
            ), kind


def test_the_missed_cost_what_the_metric_gains_without_them():
    for seed in range(4):
        images = evaluated.random_images(seed, count=25, ties=False)
        metric, missed = VOCMetric(evaluated.NAMES), np.zeros(4, int)
        for image in images:
            metric.add(image.found, image.truth)
            labels = image.truth.labels
            mistakes = errors.find(image.found, image.truth)
            missed += np.bincount(labels[mistakes.missed], minlength=4)
        averages = []
        for label, of_class in enumerate(metric.outcomes().values(), start=1):
            wanted = of_class.num_ground_truth.sum() - missed[label]
            curve = precision_recall(of_class.hits[0], wanted)
            averages.append(area_under(*curve))
        result = errors.costs(images, evaluated.NAMES)["missed"]
        assert result["count"] == missed.sum() > 0
        assert result["cost"] == pytest.approx(
            np.mean(averages) - mean_of(images), abs=1e-12
        )


def test_counts_are_those_of_tidecv():
    """What tidecv 1.0.1, TIDE's own tool, says of the same 300 images."""
    rng, images = np.random.default_rng(3), []
    for number in range(300):
        m, k = rng.integers(0, 6), rng.integers(0, 12)
        corner = rng.uniform(0, 0.6, (m, 2))
        side = rng.uniform(0.1, 0.4, (m, 2))
        truth = np.concatenate([corner, corner + side], 1)
        labels = rng.integers(1, 4, m)
        if m:
            near = rng.integers(0, m, k)
            boxes = truth[near] + rng.normal(0, 0.04, (k, 4))
            right = rng.random(k) < 0.7
            classes = np.where(right, labels[near], rng.integers(1, 4, k))
        else:
            corner = rng.uniform(0, 0.6, (k, 2))
            boxes = np.concatenate([corner, corner + 0.2], 1)
            classes = rng.integers(1, 4, k)
        boxes = np.concatenate([boxes, [[0.8, 0.8, 0.95, 0.97]]])
        found = inputs.detections(
            boxes, rng.random(k + 1), np.append(classes, 1), 3
        )
        gt = inputs.ground_truth(truth, labels, None, None, 3)
        images.append(inputs.ImageResult(str(number), 100, 100, found, gt))
    result = errors.costs(images, evaluated.NAMES)
    assert {kind: each["count"] for kind, each in result.items()} == {
        "localisation": 325,
        "classification": 187,
        "duplicate": 381,
        "background": 626,
        "both": 65,
        "missed": 220,
    }
