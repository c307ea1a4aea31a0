"""A run that was stopped ends as one that never was, bit for bit."""

import dataclasses
import json
import signal

import pytest
import tensorflow as tf
import train_process
from processes import finish, start_workers, wait_until

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.nets import checkpoint
from ssd_tf.training import train

STEPS = 12
# Neither the model's nor the optimizer's, but TensorFlow's own bookkeeping.
BOOKKEEPING = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter")


def everything(train_dir):
    """All that the last checkpoint of a run holds."""
    reader = tf.train.load_checkpoint(str(checkpoint.find(train_dir)))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(BOOKKEEPING)
    }


def assert_same_bits(train_dir, other_dir):
    ours, theirs = everything(train_dir), everything(other_dir)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert value.tobytes() == theirs[name].tobytes(), name


def entries(train_dir):
    lines = (train_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def logged(train_dir):
    """What was logged of the steps, but for times of the clock."""
    return [
        {key: x for key, x in entry.items() if key != "data_wait"}
        for entry in entries(train_dir)
    ]


def wait_for_step(train_dir, step, process):
    """Until a step is logged, which comes after the save before it."""
    log = train_dir / "metrics.jsonl"
    wait_until(
        lambda: log.exists() and len(log.read_text().splitlines()) >= step,
        process,
    )


@pytest.fixture(scope="module")
def never_stopped(shapes_data, tmp_path_factory):
    """Makes, once for each, the run that nothing has disturbed."""
    made = {}

    def run(number, net):
        if (number, net) not in made:
            train_dir = tmp_path_factory.mktemp(f"{net}{number}")
            for each in start_workers(
                number, net, shapes_data, train_dir, STEPS
            ):
                finish(each)
            made[number, net] = train_dir
        return made[number, net]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "net"), [(1, "dropout"), (1, "mobilenet"), (2, "dropout")]
)
def test_killed(shapes_data, tmp_path, never_stopped, number, net):
    train_dir = tmp_path / "run"
    processes = start_workers(number, net, shapes_data, train_dir, STEPS)
    wait_for_step(train_dir, 6, processes[0])
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    begun_at = checkpoint.step_of(checkpoint.find(train_dir))
    assert begun_at in (4, 8)

    again = start_workers(number, net, shapes_data, train_dir, STEPS)
    outputs = [finish(process) for process in again]
    assert f"going on from step {begun_at}" in outputs[0]
    whole = never_stopped(number, net)
    assert_same_bits(train_dir, whole)
    assert logged(train_dir) == logged(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "told", "signal_number", "code"),
    [
        (1, 0, signal.SIGTERM, 143),
        (1, 0, signal.SIGINT, 130),
        # The chief saves when any of the workers is told to stop.
        (2, 1, signal.SIGTERM, 143),
    ],
)
def test_told_to_stop(
    shapes_data, tmp_path, never_stopped, number, told, signal_number, code
):
    train_dir = tmp_path / "run"
    processes = start_workers(number, "dropout", shapes_data, train_dir, STEPS)
    wait_for_step(train_dir, 5, processes[0])
    processes[told].send_signal(signal_number)
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        assert "saved" in errors and "Traceback" not in errors
    begun_at = checkpoint.step_of(checkpoint.find(train_dir))
    assert begun_at == entries(train_dir)[-1]["step"]  # nothing is lost

    again = start_workers(number, "dropout", shapes_data, train_dir, STEPS)
    outputs = [finish(process) for process in again]
    assert f"going on from step {begun_at}" in outputs[0]
    assert_same_bits(train_dir, never_stopped(number, "dropout"))


def test_changes_are_listed_and_want_to_be_confirmed(trained, tmp_path):
    config.save(trained.settings, tmp_path)
    steps = train_process.FIXTURE_STEPS
    training = trained.settings.training
    loss = dataclasses.replace(training.loss, alpha=2.0)
    changed = dataclasses.replace(training, momentum=0.5, loss=loss)
    settings = dataclasses.replace(trained.settings, training=changed)
    before = config.load(trained.train_dir)
    with pytest.raises(
        UserError,
        match="momentum 0.9 -> 0.5, alpha 1.0 -> 2.0; .*--confirm_changes",
    ):
        train.fit(settings, trained.train_dir, trained.reader(), 48)
    with pytest.raises(UserError, match="num_samples 48 -> 47; "):
        train.fit(trained.settings, trained.train_dir, trained.reader(), 47)
    assert config.load(trained.train_dir) == before
    assert checkpoint.step_of(checkpoint.find(trained.train_dir)) == steps


def test_confirmed_changes_are_said_and_kept(trained, tmp_path, capsys):
    steps = train_process.FIXTURE_STEPS
    train.fit(trained.settings, tmp_path, trained.reader(), 48)
    training = dataclasses.replace(
        trained.settings.training, max_number_of_steps=steps + 1
    )
    longer = dataclasses.replace(trained.settings, training=training)
    train.fit(longer, tmp_path, trained.reader(), 48, confirm_changes=True)
    assert (
        f"other settings: max_number_of_steps {steps} -> {steps + 1}"
        in capsys.readouterr().out
    )
    assert checkpoint.step_of(checkpoint.find(tmp_path)) == steps + 1
    assert config.load(tmp_path).training == training
