"""The flags of an evaluation: what they mean together, and what is none."""

import math

import pytest
from absl import flags

from ssd_tf import eval_flags
from ssd_tf.command import UserError


def parse(*arguments):
    values = flags.FlagValues()
    eval_flags.define(values)
    values(eval_flags.joined_compare(["eval_ssd.py", *arguments]))
    return values


@pytest.mark.parametrize(
    "paths",
    [
        ("a/metrics.json", "b/metrics.json"),
        ("runs/a,b/metrics.json", "runs/c/metrics.json"),
        ('say "so", twice.json', "'x,y'.json"),
    ],
)
def test_two_files_to_compare_whatever_their_names(paths):
    assert parse("--compare", *paths).compare == list(paths)
    assert parse("--compare", *paths, "--seed=3").seed == 3


def test_one_file_is_too_few():
    assert parse("--compare", "a.json").compare == ["a.json"]


@pytest.mark.parametrize("value", ["nan", "NaN"])
def test_a_threshold_that_is_no_number(value):
    with pytest.raises(UserError, match="--matching_threshold=nan: expected"):
        eval_flags.read(parse(f"--matching_threshold={value}"))


def test_thresholds():
    params = eval_flags.read(
        parse("--matching_threshold=0.6", "--coco_iou_thresholds=0.3,0.5")
    )
    assert params.matching_threshold == 0.6
    assert params.iou_thresholds == (0.3, 0.5)
    with pytest.raises(UserError, match="expected rising overlaps"):
        eval_flags.read(parse("--coco_iou_thresholds=nan"))
    assert math.isfinite(eval_flags.read(parse()).matching_threshold)
