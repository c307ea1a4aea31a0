"""What is taken for what, counted by hand."""

import evaluated
import numpy as np

from ssd_tf.evaluation.metrics import confusion

CAT, DOG = [10, 10, 30, 30], [60, 60, 80, 80]
NEAR_CAT = [11, 10, 31, 30]  # IoU 19 / 21
NOWHERE = [0, 80, 10, 99]
CUTS = np.array([0.5, 0.5, 0.5, 0.5])


def matrix(*images, cuts=CUTS, **options):
    counts = confusion.matrix(
        [evaluated.image(*each, **options) for each in images], cuts
    )
    rows, columns = np.nonzero(counts)
    return {
        (int(i), int(j)): int(counts[i, j])
        for i, j in zip(rows, columns, strict=True)
    }


def test_right_wrong_missed_and_nothing():
    truth = [(CAT, 1), (DOG, 2)]
    found = [(CAT, 0.9, 1), (NOWHERE, 0.8, 3)]
    assert matrix((found, truth)) == {(1, 1): 1, (0, 3): 1, (2, 0): 1}
    assert matrix(([(CAT, 0.9, 2)], truth)) == {(1, 2): 1, (2, 0): 1}


def test_a_second_detection_is_of_nothing():
    found = [(CAT, 0.9, 1), (NEAR_CAT, 0.95, 1)]
    assert matrix((found, [(CAT, 1)])) == {(1, 1): 1, (0, 1): 1}


def test_two_objects_in_one_place_are_not_confused():
    # By overlap alone the cat's box would go to the better placed dog.
    truth = [(CAT, 1), (NEAR_CAT, 2)]
    found = [(CAT, 0.9, 2), (NEAR_CAT, 0.8, 1)]
    assert matrix((found, truth)) == {(1, 1): 1, (2, 2): 1}


def test_the_best_overlap_is_paired_first():
    # Overlaps .94 and .54 with the first, .67 and .31 with the second box. By
    # rising overlap both detections would have a box.
    first, second = [0, 20, 50, 120], [0, 53, 50, 153]
    found = [([0, 23, 50, 123], 0.9, 1), ([0, 0, 50, 100], 0.8, 1)]
    image = found, [(first, 1), (second, 1)]
    assert matrix(image, size=(100, 200)) == {(1, 1): 1, (0, 1): 1, (1, 0): 1}


def test_each_class_has_its_own_cut():
    truth = [(CAT, 1), (DOG, 2)]
    found = [(CAT, 0.4, 1), (DOG, 0.4, 2)]
    assert matrix((found, truth)) == {(1, 0): 1, (2, 0): 1}
    cuts = np.array([0.5, 0.4, 0.41, 0.5])
    assert matrix((found, truth), cuts=cuts) == {(1, 1): 1, (2, 0): 1}


def test_ignored_boxes_count_neither_way():
    image = [(CAT, 0.9, 2)], [(CAT, 1), (DOG, 2)]
    assert matrix(image, difficult=[True, True]) == {}
    assert matrix(image, crowd=[True, False]) == {(2, 0): 1}


def test_nothing_is_held_against_the_parts_of_a_crowd():
    crowd = [0, 0, 50, 100]
    found = [(CAT, 0.9, 1), (CAT, 0.8, 2)]
    # A cat among cats; a dog among cats is of nothing.
    assert matrix((found, [(crowd, 1)]), crowd=[True]) == {(0, 2): 1}


def test_empty_images_and_sums():
    assert matrix(([], []), ([(CAT, 0.9, 1)], []), ([], [(CAT, 3)])) == {
        (0, 1): 1,
        (3, 0): 1,
    }
    images = evaluated.random_images(5, count=40)
    counts = confusion.matrix(images, CUTS)
    labels = np.concatenate([x.truth.labels[~x.truth.ignored] for x in images])
    # Every box is in one cell of its row.
    np.testing.assert_array_equal(
        counts[1:].sum(axis=1), np.bincount(labels, minlength=4)[1:]
    )
    assert counts[0, 0] == 0
