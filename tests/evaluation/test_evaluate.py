"""Every image once, whatever the batch size, and the right numbers."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from processes import error_of, finish, start

from ssd_tf.evaluation import evaluate
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.multibox.detection import DetectedBatch


class TellsTheTruth:
    """A net that detects what the next batch of ground truth holds.

    With `wrong`, it calls class 1 class 2.
    """

    def __init__(self, batches, wrong=False):
        self._truth = iter(batches)
        self._wrong = wrong

    def _next(self):
        truth = next(self._truth)
        labels = truth["labels"].numpy()
        classes = np.where(labels == 1, 2, labels) if self._wrong else labels
        count = (labels > 0).sum(axis=1)
        scores = np.where(labels > 0, 0.9, 0.0)
        return DetectedBatch(
            truth["boxes"].numpy(),
            scores.astype(np.float32),
            classes.astype(np.int32),
            count.astype(np.int32),
        )

    def detect(self, images, options):
        dtypes = (tf.float32, tf.float32, tf.int32, tf.int32)
        found = tf.py_function(self._next, [], dtypes)
        return DetectedBatch(*found)


def evaluate_truth(trained, batch_size, wrong=False):
    batches = input_pipeline.make_for_eval(
        trained.records("test"),
        input_pipeline.prepare_for(trained.settings.params),
        batch_size,
    )
    return evaluate.evaluate(
        TellsTheTruth(batches, wrong), batches, trained.settings.class_names
    )


@pytest.mark.parametrize("batch_size", [1, 5, 12, 32])
def test_perfect_detections_are_perfect_at_any_batch_size(trained, batch_size):
    metrics = evaluate_truth(trained, batch_size)
    assert metrics["num_images"] == 12
    for key in ("AP_VOC07/mAP", "AP_VOC12/mAP", "COCO/AP", "COCO/AP75"):
        assert metrics[key] == pytest.approx(1.0), key
    assert metrics["protocol"]["VOC"] and metrics["protocol"]["COCO"]


def test_a_class_that_is_never_found_costs_its_share(trained):
    metrics = evaluate_truth(trained, 4, wrong=True)
    first = trained.settings.class_names[0]
    assert metrics[f"AP_VOC12/{first}"] == 0
    aps = [metrics[f"AP_VOC12/{name}"] for name in trained.settings.class_names]
    assert metrics["AP_VOC12/mAP"] == pytest.approx(np.mean(aps))


def test_the_command_writes_what_it_shows(trained, tmp_path):
    output = finish(
        start(
            "eval_ssd.py",
            f"--dataset_dir={trained.dataset_dir}",
            f"--checkpoint_path={trained.train_dir}",
            f"--eval_dir={tmp_path}",
            "--batch_size=5",
        )
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["num_images"] == 12
    assert metrics["split"] == "test"
    assert metrics["checkpoint"].endswith("ckpt-4")
    for name in (*trained.settings.class_names, "mAP"):
        assert f"AP_VOC07/{name}" in metrics
        assert name in output
    assert set(metrics) >= {
        f"COCO/{name}"
        for name in (
            *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
            "AR100",
        )
    }


def test_one_compiled_function_serves_many_evaluations(trained, capsys):
    batches = input_pipeline.make_for_eval(
        trained.records("test").take(4),
        input_pipeline.prepare_for(trained.settings.params),
        2,
    )
    names = trained.settings.class_names
    detect = evaluate.make_detect(trained.net)
    first, second = (
        evaluate.evaluate(
            trained.net, batches, names, detect=detect, quiet=True
        )
        for _ in range(2)
    )
    assert first == second
    assert detect.experimental_get_tracing_count() == 1
    assert capsys.readouterr().out == ""
    assert first == evaluate.evaluate(trained.net, batches, names)
    assert "evaluating: 2/?" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--dataset_dir=/nowhere", "/nowhere"),
        ("--dataset_split_name=val", "no split 'val'; splits there"),
        ("--checkpoint_path=/nowhere", "neither a train_dir"),
        ("--checkpoint_path=", "--checkpoint_path is missing"),
        ("--no_such_flag=1", "no_such_flag"),
    ],
)
def test_mistakes_are_one_line(trained, flag, message):
    assert message in error_of(
        "eval_ssd.py",
        f"--dataset_dir={trained.dataset_dir}",
        f"--checkpoint_path={trained.train_dir}",
        flag,
    )


def run(trained, eval_dir, *flags, checkpoint=None):
    """Evaluates by the command; its output and what it has written."""
    output = finish(
        start(
            "eval_ssd.py",
            f"--dataset_dir={trained.dataset_dir}",
            f"--checkpoint_path={checkpoint or trained.train_dir}",
            f"--eval_dir={eval_dir}",
            *flags,
        )
    )
    return output, json.loads((eval_dir / "metrics.json").read_text())


def metrics_alone(metrics):
    return {
        key: value
        for key, value in metrics.items()
        if key.startswith(("AP_VOC", "COCO", "num_", "ground_truth"))
    }


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """A folder with all that an evaluation writes, its output and metrics."""
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, *run(trained, folder, "--save_detections", "--bootstrap=200")


def test_all_that_an_evaluation_leaves(evaluated, trained):
    folder, output, metrics = evaluated
    names = {str(x.relative_to(folder)) for x in folder.rglob("*")}
    assert names == {
        "metrics.json",
        "matches.npz",
        "detections.json",
        "labels.txt",
        "report",
        "report/index.html",
    }
    assert str(folder / "report/index.html") in output
    assert "95 % intervals over the images" in output
    page = (folder / "report/index.html").read_text()
    # All twelve have a mistake after four steps, and stand among the worst.
    assert page.count("<img ") == 12
    assert f"--checkpoint_path={trained.train_dir}" in page
    assert metrics["data"]["manifest_sha256"] in page
    assert metrics["bootstrap"]["samples"] == 200
    assert metrics["model"]["model_name"] == trained.settings.params.model_name
    coverage = metrics["anchor_coverage"]["all"]["all"]
    boxes = sum(x["ground_truth"] for x in metrics["per_class"].values())
    assert coverage["boxes"] == boxes > 0
    assert (
        sum(metrics["sizes"][size]["mAP"]["boxes"] for size in metrics["sizes"])
        == boxes
    )


def test_detections_of_a_file_have_the_same_metrics(
    evaluated, trained, tmp_path
):
    folder, _, metrics = evaluated
    _, again = run(trained, tmp_path, checkpoint=folder / "detections.json")
    assert metrics_alone(again) == metrics_alone(metrics)
    assert again["model"]["kind"] == "detections"
    assert again["sizes"] is None and again["anchor_coverage"] is None
    raw = trained.dataset_dir.parent / "raw"
    _, of_tree = run(
        trained,
        tmp_path / "tree",
        f"--dataset_dir={raw}",
        checkpoint=folder / "detections.json",
    )
    # The tree has the images' exact boxes, the records float32 shares of it.
    assert of_tree["data"]["kind"] == "voc"
    assert metrics_alone(of_tree) == metrics_alone(metrics)


def test_only_the_first_batches_and_nothing_but_metrics(trained, tmp_path):
    output, metrics = run(
        trained,
        tmp_path,
        *("--max_num_batches=2", "--batch_size=5", "--noreport"),
        *("--bootstrap=0", "--coco_iou_thresholds=0.3,0.5"),
    )
    assert metrics["num_images"] == 10
    assert metrics["bootstrap"] is None
    assert metrics["COCO_AP_by_iou"]["iou"] == [0.3, 0.5]
    assert metrics["COCO/AP75"] is None
    assert not (tmp_path / "report").exists()
    assert "intervals" not in output


def test_the_command_compares(evaluated):
    metrics = evaluated[0] / "metrics.json"
    output = finish(start("eval_ssd.py", "--compare", metrics, metrics))
    assert "AP_VOC12/mAP" in output and "not told apart" in output
    error = error_of("eval_ssd.py", "--compare", metrics)
    assert "expected two metrics.json" in error
    error = error_of("eval_ssd.py", "--compare", metrics, "/nowhere.json")
    assert "/nowhere.json: cannot be read" in error


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--select_threshold=0.1"],
            "--select_threshold: only for a checkpoint",
        ),
        (["--coco_iou_thresholds=1,0.5"], "expected rising overlaps"),
        (["--dataset_split_name=train"], "none of its .* images"),
    ],
)
def test_mistakes_about_files_are_one_line(evaluated, trained, flags, message):
    error = error_of(
        "eval_ssd.py",
        f"--dataset_dir={trained.dataset_dir}",
        f"--checkpoint_path={evaluated[0] / 'detections.json'}",
        f"--eval_dir={evaluated[0] / 'other'}",
        *flags,
    )
    assert re.search(message, error)
    assert not (evaluated[0] / "other").exists()
