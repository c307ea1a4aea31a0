"""The picture of a learning curve: its panels, and runs without a log."""

import numpy as np
import pytest
from PIL import Image
from processes import error_of, finish, start

from ssd_tf.command import UserError
from ssd_tf.training import curves
from ssd_tf.training import log as metrics_log


@pytest.fixture
def train_dir(tmp_path):
    """A run that has logged everything there is."""
    log = metrics_log.MetricsLog(tmp_path, 0)
    for step in range(10, 210, 10):
        log.write(
            step,
            {
                "loss": 100.0 / step,
                "cross_entropy_pos": 50.0 / step,
                "regularization": 0.0,
                "learning_rate": 1e-3,
                "gradient_norm": 3.0,
                "data_wait": 0.1,
            },
        )
        if step % 50 == 0:
            values = {"AP_VOC07/mAP": step / 400, "COCO/AP": None}
            log.write_evaluation(step, {"split": "val", **values})
    return tmp_path


def panels(train_dir):
    """Titles, and the labels and points of the lines."""
    from matplotlib import figure

    sheet = figure.Figure()
    curves._draw_panels(sheet, metrics_log.read(train_dir))
    return {
        panel.get_title(): {
            line.get_label(): tuple(map(list, line.get_data()))
            for line in panel.lines
        }
        for panel in sheet.axes
    }


def test_means_over_a_window():
    values = [0.0, 3.0, 6.0, 9.0, 0.0]
    # At both ends the mean of two, in the middle of three.
    expected = [1.5, 3.0, 6.0, 5.0, 4.5]
    np.testing.assert_allclose(curves.smooth(values, 3), expected, atol=1e-12)
    np.testing.assert_array_equal(curves.smooth(values, 1), values)
    np.testing.assert_allclose(curves.smooth([2.0, 4.0], 9), [3.0, 3.0])


def test_every_panel_shows_what_was_logged(train_dir):
    shown = panels(train_dir)
    assert list(shown) == [
        "loss and its terms",
        "evaluations, the best of each marked",
        "learning rate",
        "norm of the gradients, before clipping",
        "share of time waiting for data",
    ]
    losses = shown["loss and its terms"]
    # One line in twenty is no mean of several.
    assert losses["all"] == (
        list(range(10, 210, 10)),
        [pytest.approx(100 / step) for step in range(10, 210, 10)],
    )
    assert "boxes" not in losses  # not logged
    evaluations = shown["evaluations, the best of each marked"]
    # COCO/AP had no ground truth.
    assert evaluations["val: AP_VOC07/mAP 0.500 at 200"] == (
        [50, 100, 150, 200],
        [0.125, 0.25, 0.375, 0.5],
    )
    assert sum(name.startswith("val") for name in evaluations) == 1


def test_a_run_without_evaluations_has_no_panel_for_them(tmp_path):
    metrics_log.MetricsLog(tmp_path, 0).write(1, {"loss": 1.0})
    assert list(panels(tmp_path)) == ["loss and its terms"]


def test_the_picture_is_whole_and_wide_enough(train_dir):
    path = curves.draw(train_dir)
    assert path == train_dir / "curves.png"
    with Image.open(path) as picture:
        picture.load()
        assert picture.width == 1200 and picture.height > 800
    assert not list(train_dir.glob(".*.tmp"))


def test_without_a_log_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="metrics.jsonl: nothing in it"):
        curves.draw(tmp_path)


def test_the_command_draws_and_says_where(train_dir):
    output = finish(start("-m", "ssd_tf.curves", f"--train_dir={train_dir}"))
    assert output == f"{train_dir / 'curves.png'}\n"


def test_mistakes_are_one_line(tmp_path):
    run = ("-m", "ssd_tf.curves")
    assert "--train_dir is missing" in error_of(*run)
    message = error_of(*run, f"--train_dir={tmp_path}")
    assert f"{tmp_path}/metrics.jsonl: nothing in it" in message
