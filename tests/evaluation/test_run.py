"""What an evaluation says of the images it has and has not."""

import types

import evaluated
import pytest
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.evaluation import run


def a_truth(*ids):
    """A split of these images, as far as it is asked."""

    def read(with_images=True, only=None):
        assert not with_images and only is None
        return tf.data.Dataset.from_tensor_slices({"source_id": list(ids)})

    return types.SimpleNamespace(read=read, num_images=len(ids))


def foreign(evaluated_ids, split, found):
    images = [
        evaluated.image()._replace(source_id=name) for name in evaluated_ids
    ]
    return run._foreign_images(images, a_truth(*split), found, "d.json")


def test_detections_of_other_images_are_refused():
    with pytest.raises(
        UserError, match=r"d.json: none of its 2 images \(such as 'x'"
    ):
        foreign("abc", "abc", frozenset("xy"))
    assert foreign("abc", "abc", frozenset("ab")) == {}
    assert foreign("abc", "abc", frozenset()) == {}
    assert foreign("abc", "abc", None) == {}
    (words,) = foreign("abc", "abc", frozenset("axy")).values()
    assert words == "2 (x, y)"


def test_in_the_first_images_there_may_be_no_detections():
    (words,) = foreign("ab", "abcdef", frozenset("ef")).values()
    assert words == "2 (e, f)"
    with pytest.raises(UserError, match="among the 6 of the split"):
        foreign("ab", "abcdef", frozenset("xy"))
