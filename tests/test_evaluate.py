"""Every image once, whatever the batch size, and the right numbers."""

import json

import numpy as np
import pytest
import tensorflow as tf
from processes import error_of, finish, start

from ssd_tf import evaluate, input_pipeline
from ssd_tf.detection import Detections


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
        return Detections(
            truth["boxes"].numpy(),
            scores.astype(np.float32),
            classes.astype(np.int32),
            count.astype(np.int32),
        )

    def detect(self, images, options):
        dtypes = (tf.float32, tf.float32, tf.int32, tf.int32)
        return tf.py_function(self._next, [], dtypes)


def evaluate_truth(trained, batch_size, wrong=False):
    batches = input_pipeline.make_for_eval(
        trained.records("test"), trained.settings.params, batch_size
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
        trained.records("test").take(4), trained.settings.params, 2
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
