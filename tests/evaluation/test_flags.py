"""The flags of an evaluation: what they mean together, and what is none."""

import math

import pytest
from absl import flags

from ssd_tf.command import UserError
from ssd_tf.evaluation import flags as eval_flags


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


def test_a_seed_counts_from_zero():
    with pytest.raises(flags.IllegalFlagValueError, match="seed"):
        parse("--seed=-1")


def test_every_checkpoint_that_is_named_has_a_folder(tmp_path):
    for name in ("ckpt-7", "ckpt-8"):
        (tmp_path / f"{name}.index").touch()
    seven, eight = (str(tmp_path / f"ckpt-{k}") for k in (7, 8))
    flag_values = parse("--dataset_split_name=val")

    def where(asked, evaluated, values=flag_values):
        found = eval_flags.eval_dir(values, asked, evaluated)
        return str(found.relative_to(tmp_path))

    assert where(str(tmp_path), eight) == "eval_val"
    assert where(seven, seven) == "eval_val_ckpt-7"
    model = str(tmp_path / "model.onnx")
    assert where(model, model) == "eval_val_model.onnx"
    given = parse(f"--eval_dir={tmp_path / 'e'}")
    assert where(seven, seven, given) == "e"
    waiting = parse(f"--eval_dir={tmp_path / 'e'}", "--wait_for_checkpoints")
    assert where(seven, seven, waiting) == "e/ckpt-7"


def test_thresholds():
    params = eval_flags.read(
        parse("--matching_threshold=0.6", "--coco_iou_thresholds=0.3,0.5")
    )
    assert params.matching_threshold == 0.6
    assert params.iou_thresholds == (0.3, 0.5)
    with pytest.raises(UserError, match="expected rising overlaps"):
        eval_flags.read(parse("--coco_iou_thresholds=nan"))
    assert math.isfinite(eval_flags.read(parse()).matching_threshold)
