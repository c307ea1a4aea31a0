"""Arrays of a file, and how they fit a net's variables."""

import dataclasses

import numpy as np
import pytest

from ssd_tf.config.presets import SSD_128_MOBILENET_V2
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base
from ssd_tf.weights.base import Imported, Tensors

PARAMS = dataclasses.replace(SSD_128_MOBILENET_V2, num_classes=3)


@pytest.fixture(scope="module")
def arrays():
    return {
        name: variable.numpy()
        for name, variable in SSDNet(PARAMS).variables_by_name().items()
    }


def test_tensors_remember_what_was_taken():
    tensors = Tensors({"a": np.zeros(1), "b": np.ones(2), "c": np.ones(3)})
    assert "b" in tensors and "d" not in tensors
    assert tensors.take("b").shape == (2,)
    assert tensors.unused == ("a", "c")
    with pytest.raises(KeyError):
        tensors.take("d")


def test_a_complete_detector_is_taken_whole(arrays):
    target = SSDNet(PARAMS)
    report = base.assign(target, Imported(arrays, PARAMS, unused=("x",)))
    assert report.fits() and set(report.matched) == set(arrays)
    assert report.unused == ("x",) and not report.fresh
    for name, variable in target.variables_by_name().items():
        np.testing.assert_array_equal(variable, arrays[name])


def test_the_report_names_what_did_not_fit(arrays):
    some = dict(arrays, stranger=np.zeros(1))
    gone = "Conv1/weights"
    other = "stride8_box/conv_cls/pointwise/weights"
    some.pop(gone)
    some[other] = some[other][..., 1:]
    target = SSDNet(PARAMS)
    before = target.variables_by_name()[other].numpy()
    report = base.assign(target, Imported(some, PARAMS))
    assert not report.fits(ignore_missing=True)
    assert report.missing == (gone,) and report.unused == ("stranger",)
    assert report.mismatched == (
        (other, arrays[other].shape, some[other].shape),
    )
    np.testing.assert_array_equal(target.variables_by_name()[other], before)


def test_of_a_classifier_only_the_trunk_is_expected(arrays):
    trunk = {
        name: array
        for name, array in arrays.items()
        if base.in_trunk(name, PARAMS)
    }
    report = base.assign(
        SSDNet(PARAMS), Imported(trunk, PARAMS, detector=False)
    )
    assert report.fits()
    scopes = {name.split("/")[0] for name in report.fresh}
    boxes = {f"{name}_box" for name in PARAMS.feat_layers}
    assert scopes == boxes | {"extra1", "extra2"}
