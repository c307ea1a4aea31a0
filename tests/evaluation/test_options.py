"""The options of an evaluation, and their meaning together."""

import pytest
from absl import flags

import eval_ssd
from ssd_tf.command import UserError
from ssd_tf.command.flags import define, read
from ssd_tf.config.evaluation import EvalOptions
from ssd_tf.evaluation.run import results_folder


def parse(*arguments):
    values = flags.FlagValues()
    define(EvalOptions, values)
    values(eval_ssd.joined_compare(["eval_ssd.py", *arguments]))
    return read(EvalOptions, values)


@pytest.mark.parametrize(
    "paths",
    [
        ("a/metrics.json", "b/metrics.json"),
        ("runs/a,b/metrics.json", "runs/c/metrics.json"),
        ('say "so", twice.json', "'x,y'.json"),
    ],
)
def test_two_files_to_compare_whatever_their_names(paths):
    assert parse("--compare", *paths).compare == paths
    assert parse("--compare", *paths, "--seed=3").metrics.seed == 3


def test_one_file_is_too_few():
    assert parse("--compare", "a.json").compare == ("a.json",)


@pytest.mark.parametrize("value", ["nan", "NaN"])
def test_a_threshold_that_is_not_finite(value):
    with pytest.raises(UserError, match="--matching_threshold=nan: expected"):
        parse(f"--matching_threshold={value}")


def test_a_seed_counts_from_zero():
    with pytest.raises(flags.IllegalFlagValueError, match="seed"):
        parse("--seed=-1")


def test_every_checkpoint_that_is_named_has_a_folder(tmp_path):
    for name in ("ckpt-7", "ckpt-8"):
        (tmp_path / f"{name}.index").touch()
    seven, eight = (str(tmp_path / f"ckpt-{k}") for k in (7, 8))
    options = parse("--dataset_split_name=val")

    def where(asked, evaluated, options=options):
        found = results_folder(options, asked, evaluated)
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
    metrics = parse(
        "--matching_threshold=0.6", "--coco_iou_thresholds=0.3,0.5"
    ).metrics
    assert metrics.matching_threshold == 0.6
    assert metrics.iou_thresholds == (0.3, 0.5)
    with pytest.raises(UserError, match="expected rising overlaps"):
        parse("--coco_iou_thresholds=nan")
    assert parse().metrics.matching_threshold == 0.5
