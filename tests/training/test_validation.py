"""Evaluation inside a run: changes nothing, keeps the best, can be killed."""

import contextlib
import dataclasses
import gc
import json
import pathlib
import random
import resource
import signal
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import start, wait_until
from tensorflow.python.checkpoint import checkpoint_management

from ssd_tf.command import UserError, files
from ssd_tf.config import presets
from ssd_tf.config import run as config
from ssd_tf.config import training as recipe
from ssd_tf.datasets import catalog, records
from ssd_tf.evaluation import evaluate
from ssd_tf.input_pipeline import batches
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import log as metrics_log
from ssd_tf.training import optimizers, validation
from ssd_tf.training import step as train_step

METRIC = "AP_VOC07/mAP"


@pytest.fixture(scope="module")
def settings(shapes_data):
    names = tuple(catalog.class_names(shapes_data))
    params = dataclasses.replace(
        presets.SSD_128_MOBILENET_V2, num_classes=len(names) + 1
    )
    training = recipe.TrainParams(warmup_steps=0, early_stopping_patience=2)
    return config.Config(params, names, training)


@pytest.fixture(scope="module")
def net(settings):
    return SSDNet(settings.params)


def images(shapes_data, count=4, batch_size=8):
    data = records.read(shapes_data, "test").take(count)
    return validation.Validation(data, count, "val", batch_size)


def bits(net):
    return [variable.numpy() for variable in net.model.variables]


def assert_same_bits(ones, others):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other)


def scripted(monkeypatch, values):
    """Evaluations come to these values, one after the other."""
    values = iter(values)
    monkeypatch.setattr(
        evaluate,
        "evaluate",
        lambda *_, **__: {METRIC: next(values), "num_images": 4},
    )


@dataclasses.dataclass
class Doubled:
    """An average whose weights are twice those of the net."""

    net: SSDNet

    @contextlib.contextmanager
    def swapped_in(self):
        before = bits(self.net)
        for variable, value in zip(
            self.net.model.variables, before, strict=True
        ):
            variable.assign(value * 2)
        yield
        for variable, value in zip(
            self.net.model.variables, before, strict=True
        ):
            variable.assign(value)


@pytest.mark.parametrize(
    ("values", "is_best", "stops"),
    [
        ([], True, {1: False}),
        ([0.5], True, {1: False}),
        ([0.5, 0.5], False, {1: True, 2: False}),
        ([0.5, 0.7, 0.6, 0.7], False, {1: True, 2: True, 3: False, 0: False}),
        ([0.5, 0.7, 0.6, 0.71], True, {1: False}),
        ([0.0, 0.0, 0.0], False, {2: True, 3: False}),
    ],
)
def test_what_is_best_and_when_to_stop(values, is_best, stops):
    evaluations = [(100 * k, value) for k, value in enumerate(values, 1)]
    if values:
        assert validation.is_best(evaluations[:-1], values[-1]) == is_best
    for patience, stop in stops.items():
        assert validation.should_stop(evaluations, patience) == stop


def test_without_ground_truth_nothing_is_best():
    assert not validation.is_best([], None)
    line = validation.in_short([(1, 0.5)], 2, "val", METRIC, None)
    assert line == "step 2, val: VOC07 mAP -, no ground truth"


def test_one_line_tells_value_and_best():
    before = [(400, 0.83), (450, 0.8)]
    line = validation.in_short(before, 500, "val", METRIC, 0.8123)
    assert line == "step 500, val: VOC07 mAP 0.812 (best 0.830 at 400)"
    line = validation.in_short(before, 500, "test", "COCO/AP", 0.84)
    assert line == "step 500, test: COCO AP 0.840 (the best so far)"


def test_history_is_that_of_the_split_and_the_log(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, 0)
    assert validation.history(tmp_path, "val", METRIC) == []
    log.write(10, {"loss": 1.0})
    for step, value in ((10, 0.1), (20, None), (30, 0.3)):
        log.write_evaluation(step, {"split": "val", METRIC: value})
    log.write_evaluation(30, {"split": "test", METRIC: 0.9})
    log.write_evaluation(10, {"split": "val", METRIC: 0.2})
    expected = [(10, 0.2), (30, 0.3)]
    assert validation.history(tmp_path, "val", METRIC) == expected
    # A run that goes on from step 20 has not been at 30.
    metrics_log.MetricsLog(tmp_path, 20)
    assert validation.history(tmp_path, "val", METRIC) == expected[:1]


def test_evaluation_is_logged_as_it_is(settings, net, shapes_data, tmp_path):
    log = metrics_log.MetricsLog(tmp_path, 0)
    log.write(7, {"loss": 1.0})
    validator = validation.Validator(images(shapes_data), settings, tmp_path)
    metrics = validator.run(net, 7, None, log)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().split("\n")[1])
    assert line.pop("step") == 7 and line.pop("split") == "val"
    names = {*settings.class_names, "mAP"}
    assert {f"AP_{y}/{x}" for y in ("VOC07", "VOC12") for x in names} < {*line}
    assert line == {key: metrics[key] for key in line}
    (events,) = (tmp_path / "eval_val").glob("events.*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert tags == {key for key, value in line.items() if value is not None}


def random_states():
    """What the next random numbers follow from; see also `drawn`."""
    return (
        random.getstate(),
        str(np.random.get_state()),
        tf.random.get_global_generator().state.numpy().tolist(),
    )


def training_batch(shapes_data, params):
    data = records.read(shapes_data, "train").take(2)
    batch = next(
        iter(batches.make_for_eval(data, batches.prepare_for(params), 2))
    )
    batch["ignored"] = batch["crowd"]
    return {key: batch[key] for key in ("image", "boxes", "labels", "ignored")}


def test_evaluations_do_not_change_the_training(
    settings, net, shapes_data, tmp_path
):
    optimizer = optimizers.make_optimizer(settings.training, 1.0)
    optimizer.build(net.model.trainable_variables)
    take_step = train_step.make_train_step(
        net, optimizer, settings.training, tf.distribute.get_strategy()
    )
    batch = training_batch(shapes_data, settings.params)
    validator = validation.Validator(images(shapes_data), settings, tmp_path)
    log = metrics_log.MetricsLog(tmp_path, 0)
    variables = [*net.model.variables, *optimizer.variables]
    begun = [variable.numpy() for variable in variables]

    def train(evaluates):
        """Six steps, with two evaluations between them or none."""
        for variable, value in zip(variables, begun, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(0)
        for step in range(1, 7):
            take_step(batch)
            if evaluates and step in (2, 4):
                states = random_states()
                validator.run(net, step, None, log)
                assert random_states() == states
        # By ops without seeds of their own, which share a hidden counter.
        drawn = tf.random.uniform([4]).numpy()
        return [*(variable.numpy() for variable in variables), drawn]

    alone = train(evaluates=False)
    assert_same_bits(train(evaluates=True), alone)
    assert not np.array_equal(alone[0], begun[0])
    assert validator.has_run(4) and not validator.has_run(3)


def resident():
    """Bytes in memory."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.slow
def test_fifty_evaluations_leave_nothing_in_memory(
    settings, net, shapes_data, tmp_path
):
    validator = validation.Validator(
        images(shapes_data, count=2, batch_size=1), settings, tmp_path
    )
    log = metrics_log.MetricsLog(tmp_path, 0)
    for step in range(50):
        validator.run(net, step, None, log)
        if step == 15:
            gc.collect()
            before = resident()
    assert validator._detect.experimental_get_tracing_count() == 1
    gc.collect()
    # A graph more for each would take 35 times about 3 MB.
    assert resident() - before < 30e6


def weights_of_best(train_dir):
    return bits(checkpoint.load_net(train_dir / "best"))


def test_best_weights_are_kept_apart(
    settings, net, shapes_data, tmp_path, monkeypatch, capsys
):
    validator = validation.Validator(images(shapes_data), settings, tmp_path)
    log = metrics_log.MetricsLog(tmp_path, 0)
    scripted(monkeypatch, [0.3, 0.5, 0.5, None, 0.4])
    begun = bits(net)
    stops = []
    for step, average in ((1, None), (2, Doubled(net)), (3, None), (4, None)):
        validator.run(net, step, average, log)
        stops.append(validator.should_stop())
    validator.run(net, 5, None, log)
    assert_same_bits(bits(net), begun)
    assert_same_bits(weights_of_best(tmp_path), [2 * x for x in begun])
    best = tmp_path / "best"
    assert checkpoint.step_of(checkpoint.find(best)) == 2
    assert len(list(best.glob("ckpt-*"))) == 2  # one checkpoint's files
    metrics = json.loads((best / "metrics.json").read_text())
    assert metrics == {METRIC: 0.5, "num_images": 4, "step": 2, "split": "val"}
    assert checkpoint.load_config(best).class_names == settings.class_names
    assert stops == [False] * 4 and validator.should_stop()
    assert capsys.readouterr().out.splitlines()[-1] == (
        "step 5, val: VOC07 mAP 0.400 (best 0.500 at 2)"
    )


def test_a_run_that_was_set_back_finds_its_best_again(
    settings, net, shapes_data, tmp_path, monkeypatch
):
    """It was killed after step 20 and goes on from 5, now with a new best."""
    scripted(monkeypatch, [0.3, 0.9, 0.5, 0.5])
    for first, steps in ((0, (10, 20)), (5, (10,)), (5, (10,))):
        log = metrics_log.MetricsLog(tmp_path, first)
        validator = validation.Validator(
            images(shapes_data), settings, tmp_path
        )
        for step in steps:
            validator.run(net, step, None, log)
        assert validator.history()[0] == (10, 0.3 if not first else 0.5)
    # Saved at 10, 20, 10 and 10, the last under a name that is not taken.
    assert checkpoint.find(tmp_path / "best").name == "ckpt-again-10"
    assert checkpoint.step_of(checkpoint.find(tmp_path / "best")) == 10
    assert_same_bits(weights_of_best(tmp_path), bits(net))


def killed(*_, **__):
    raise KeyboardInterrupt


def tiny_net():
    """What `save_best` needs of a net; big enough to take a moment."""
    model = keras.Sequential([keras.Input((500,)), keras.layers.Dense(2000)])
    return types.SimpleNamespace(
        model=model, params=dataclasses.replace(presets.SSD_300_VGG)
    )


def tiny_best(train_dir):
    net = tiny_net()
    checkpoint.restore_weights(net, checkpoint.find(train_dir / "best"))
    return bits(net)


@pytest.mark.parametrize(
    ("module", "function", "calls", "kept"),
    [
        (files, "write_json", 0, "old"),  # of config.json
        (checkpoint_management, "update_checkpoint_state_internal", 0, "old"),
        (checkpoint_management, "_delete_file_if_exists", 0, "new"),
        (checkpoint_management, "_delete_file_if_exists", 1, "new"),
        (checkpoint_management, "update_checkpoint_state_internal", 1, "new"),
        (files, "write_json", 1, "new"),  # of metrics.json
    ],
)
@pytest.mark.parametrize("step", [1, 2])
def test_killed_while_it_saves_one_best_is_there(
    settings, tmp_path, monkeypatch, module, function, calls, kept, step
):
    net = tiny_net()
    old = bits(net)
    validation.save_best(net, settings, tmp_path, {"step": 1})
    net.model.variables[0].assign_add(tf.ones(net.model.variables[0].shape))
    new = bits(net)
    real, count = getattr(module, function), iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(
            module,
            function,
            lambda *a, **k: (killed if next(count) == calls else real)(*a, **k),
        )
        with pytest.raises(KeyboardInterrupt):
            validation.save_best(net, settings, tmp_path, {"step": step})
    assert_same_bits(tiny_best(tmp_path), new if kept == "new" else old)
    validation.save_best(net, settings, tmp_path, {"step": 3})
    assert_same_bits(tiny_best(tmp_path), new)
    names = {path.name.split(".")[0] for path in (tmp_path / "best").iterdir()}
    assert names == {"checkpoint", "config", "metrics", "ckpt-3"}


SAVES = """
import itertools, sys
sys.path += ["tests/support", "tests/training"]
import test_validation
from ssd_tf.config import presets
from ssd_tf.config import run as config
from ssd_tf.training import validation
net = test_validation.tiny_net()
settings = config.Config(presets.SSD_300_VGG, ("a",))
for step in itertools.count(1):
    for variable in net.model.variables:
        variable.assign(variable * 0 + step)
    validation.save_best(net, settings, sys.argv[1], {"step": step})
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.03, 0.21, 0.37])
def test_sigkill_leaves_a_whole_best(tmp_path, seconds):
    process = start("-c", SAVES, tmp_path)
    wait_until((tmp_path / "best" / "metrics.json").exists, process)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step = checkpoint.step_of(checkpoint.find(tmp_path / "best"))
    for weights in tiny_best(tmp_path):
        np.testing.assert_array_equal(weights, np.full_like(weights, step))


def test_images_without_boxes_are_no_ground_truth(
    settings, net, without_boxes, tmp_path, capsys
):
    validator = validation.Validator(
        validation.Validation(without_boxes.take(2), 2, "val"),
        settings,
        tmp_path,
    )
    metrics = validator.run(net, 1, None, metrics_log.MetricsLog(tmp_path, 0))
    assert metrics[METRIC] is None and metrics["num_images"] == 2
    assert not (tmp_path / "best").exists()
    assert capsys.readouterr().out == (
        "step 1, val: VOC07 mAP -, no ground truth\n"
    )
    assert validator.has_run(1) and not validator.should_stop()


def test_no_images_are_refused(settings, shapes_data, tmp_path):
    with pytest.raises(UserError, match="'val': no image.*--validation_spl"):
        validation.Validator(images(shapes_data, 0), settings, tmp_path)
