"""The loop: what it logs, saves, refuses, and goes on with after a kill."""

import dataclasses
import json
import math
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
import train_process
from processes import finish, start_training, wait_until

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.config import training as recipe
from ssd_tf.datasets import catalog, records
from ssd_tf.nets import checkpoint
from ssd_tf.training import log as metrics_log
from ssd_tf.training import optimizers, run_lock, train


def logged_steps(train_dir):
    lines = (train_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_run_logs_saves_and_is_not_repeated(trained, capsys):
    steps = train_process.FIXTURE_STEPS
    assert logged_steps(trained.train_dir) == list(range(1, steps + 1))
    assert checkpoint.step_of(checkpoint.find(trained.train_dir)) == steps
    entry = json.loads(
        (trained.train_dir / "metrics.jsonl").read_text().splitlines()[0]
    )
    assert set(entry) == {
        "step",
        "cross_entropy_pos",
        "cross_entropy_neg",
        "localization",
        "regularization",
        "loss",
        "gradient_norm",
        "learning_rate",
        "data_wait",
    }
    names = (
        "cross_entropy_pos",
        "cross_entropy_neg",
        "localization",
        "regularization",
    )
    parts = [entry[name] for name in names]
    assert math.isclose(sum(parts), entry["loss"], rel_tol=1e-6)
    assert 0 <= entry["data_wait"] <= 1 and entry["gradient_norm"] > 0
    assert list((trained.train_dir / "train").glob("events.*"))

    before = checkpoint.find(trained.train_dir).with_suffix(".index").stat()
    again = train.fit(trained.settings, trained.train_dir, trained.reader(), 48)
    assert f"going on from step {steps}" in capsys.readouterr().out
    after = checkpoint.find(trained.train_dir).with_suffix(".index").stat()
    assert before.st_mtime_ns == after.st_mtime_ns
    for old, new in zip(
        trained.net.model.weights, again.model.weights, strict=True
    ):
        np.testing.assert_array_equal(old.numpy(), new.numpy())


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(shapes_data, tmp_path):
    run = ("one", "mobilenet", shapes_data, tmp_path / "run", 12)
    process = start_training(*run)
    # What is saved is what the folder calls its latest: its files come first.
    wait_until(
        lambda: tf.train.latest_checkpoint(str(tmp_path / "run")), process
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    output = finish(start_training(*run))
    assert "going on from step" in output
    assert logged_steps(tmp_path / "run") == list(range(1, 13))
    saved = tf.train.load_checkpoint(str(checkpoint.find(tmp_path / "run")))
    assert saved.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE") == 12
    iterations = [
        saved.get_tensor(name)
        for name in saved.get_variable_to_shape_map()
        if "iteration" in name
    ]
    assert iterations == [12]


@pytest.mark.slow
def test_an_interrupted_run_saves_first(shapes_data, tmp_path):
    run = ("one", "mobilenet", shapes_data, tmp_path / "run", 100_000)
    process = start_training(*run)
    log = tmp_path / "run" / "metrics.jsonl"
    wait_until(
        lambda: log.exists() and len(logged_steps(log.parent)) >= 6, process
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    step = checkpoint.step_of(checkpoint.find(tmp_path / "run"))
    assert step == logged_steps(tmp_path / "run")[-1]


def test_a_train_dir_of_other_classes_is_refused(trained):
    other = dataclasses.replace(
        trained.settings, class_names=("a", "b", "c", "d")
    )
    with pytest.raises(UserError, match="with class_names .*--train_dir"):
        train.fit(other, trained.train_dir, trained.reader(), 48)


def test_imported_weights_are_not_trained_where_they_are(trained, tmp_path):
    checkpoint.save_weights(trained.net, tmp_path)
    config.save(checkpoint.load_config(trained.train_dir), tmp_path)
    files = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="imported weights; start from them"):
        train.fit(trained.settings, tmp_path, trained.reader(), 48)
    now = sorted(tmp_path.iterdir())
    assert [path for path in now if path.name != run_lock.LOCK_FILE] == files


def test_other_trained_parts_are_refused_when_going_on(trained):
    training = dataclasses.replace(
        trained.settings.training, trainable_scopes=("extra1",)
    )
    other = dataclasses.replace(trained.settings, training=training)
    with pytest.raises(UserError, match=r"trainable_scopes \(\), not \('ext"):
        train.fit(other, trained.train_dir, trained.reader(), 48)


@pytest.mark.parametrize(
    ("first_layer", "reason"),
    [
        ("stride8", "Computed output size would be zero or negative"),
        ("stride2", "the trunk has no end point 'stride2', only stride4"),
    ],
    ids=["pooling", "stride"],
)
def test_a_net_that_cannot_be_built_is_refused(
    trained, tmp_path, first_layer, reason
):
    side = 20 if first_layer == "stride8" else 64
    params = dataclasses.replace(
        trained.settings.params,
        img_shape=(side, side),
        feat_layers=(first_layer, *trained.settings.params.feat_layers[1:]),
        trunk="VGG16",
        width_multiplier=1.0,
    )
    other = dataclasses.replace(trained.settings, params=params)
    with pytest.raises(UserError) as error:
        train.fit(other, tmp_path, trained.reader(), 48)
    assert f"for {side}x{side} pixels: {reason}" in str(error.value)
    assert "choose another --image_size" in str(error.value)


def test_a_loss_that_is_not_finite_stops_the_run_unsaved(shapes_data, tmp_path):
    names = catalog.class_names(shapes_data)
    settings = train_process.settings("mobilenet", names, 8)
    training = dataclasses.replace(
        settings.training, learning_rate=1e30, warmup_steps=0
    )
    with pytest.raises(UserError, match="not finite at step [23]: .*loss"):
        train.fit(
            dataclasses.replace(settings, training=training),
            tmp_path,
            records.reader(shapes_data, "train"),
            48,
        )
    assert not list(tmp_path.glob("ckpt*"))


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(UserError, match="--batch_size=7: .* the 2 devices"):
        train._check_batch_size(recipe.TrainParams(batch_size=7), 2)


def test_weight_decay_counts_kernels_only():
    inputs = keras.Input((4, 4, 1))
    net = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="c")(inputs)
    net = keras.layers.DepthwiseConv2D(2, depthwise_initializer="ones")(net)
    net = keras.layers.BatchNormalization()(net)
    model = keras.Model(inputs, net)
    model.get_layer("c").bias.assign([100.0])
    # Half of (1 + 4 ones squared), times 0.1.
    assert float(optimizers.weight_decay_loss(model, 0.1)) == pytest.approx(
        0.25
    )


def test_lines_after_the_restored_step_are_dropped(tmp_path):
    path = tmp_path / metrics_log.LOG_FILE
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    log = metrics_log.MetricsLog(tmp_path, 2)
    log.write(3, {"loss": 0.5})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n' + (
        '{"step": 3, "loss": 0.5}\n'
    )


def test_what_is_no_number_is_null_in_the_log(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 2.0, "gradient_norm": math.inf, "loss_scale": 4.0})
    assert metrics_log.read(tmp_path) == [
        {"step": 1, "loss": 2.0, "gradient_norm": None, "loss_scale": 4.0}
    ]


def test_adam_moves_as_far_as_it_should():
    """The port's epsilon of 1.0 made it 479 times less (B21)."""
    training = recipe.TrainParams(
        optimizer="adam",
        learning_rate=1e-3,
        learning_rate_decay_type="fixed",
        warmup_steps=0,
    )
    optimizer = optimizers.make_optimizer(training, 1.0)
    variable = keras.Variable([0.0])
    optimizer.build([variable])
    for _ in range(100):
        optimizer.apply_gradients([(tf.constant([0.01]), variable)])
    assert float(variable[0]) == pytest.approx(-0.1, rel=1e-3)


def test_one_call_trains_and_returns_the_detector(
    shapes_data, tmp_path, capsys
):
    settings = {
        "model_name": "ssd_128_mobilenet_v2",
        "batch_size": 4,
        "max_number_of_steps": 2,
        "augmentation": "none",
    }
    train_dir = tmp_path / "run"
    detector = train.train(shapes_data, train_dir, **settings)
    assert detector.class_names == tuple(catalog.class_names(shapes_data))
    assert detector.input_size == (128, 128)
    recipe_of_run = config.load(train_dir).training
    assert recipe_of_run.batch_size == 4
    assert recipe_of_run.augmentation == recipe.AUGMENTATIONS["none"]
    assert last_step(train_dir) == 2
    # The same call has nothing left to do.
    train.train(shapes_data, train_dir, **settings)
    assert "going on from step 2" in capsys.readouterr().out
    assert last_step(train_dir) == 2


def last_step(train_dir):
    return checkpoint.step_of(checkpoint.find(train_dir))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sise": 4}, "batch_sise: no such setting; do you mean batch_s"),
        (
            {"batch_size": 0},
            "batch_size=0: expected a whole number of at least",
        ),
    ],
)
def test_a_wrong_setting_is_refused_in_the_words_of_the_call(
    shapes_data, tmp_path, settings, message
):
    with pytest.raises(UserError) as caught:
        train.train(shapes_data, tmp_path / "run", **settings)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()
