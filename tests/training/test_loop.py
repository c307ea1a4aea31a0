"""What a run does beside its steps: saves, evaluates, stops, shows."""

import dataclasses
import json

import pytest
import tensorflow as tf
import train_process

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.datasets import catalog, records
from ssd_tf.evaluation import evaluate
from ssd_tf.nets import checkpoint
from ssd_tf.training import train, validation

METRIC = "AP_VOC07/mAP"


def settings_of(dataset_dir, **training):
    made = train_process.settings(
        "mobilenet", catalog.class_names(dataset_dir), 6
    )
    changed = dataclasses.replace(made.training, **training)
    return dataclasses.replace(made, training=changed)


def validation_of(dataset_dir):
    return validation.Validation(
        records.read(dataset_dir, "test").take(2), 2, "test", 2
    )


def run(settings, train_dir, dataset_dir, validation=None, **options):
    reader = records.reader(dataset_dir, "train")
    return train.fit(
        settings, train_dir, reader, 48, validation=validation, **options
    )


def entries(train_dir):
    lines = (train_dir / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def last_saved(train_dir):
    return checkpoint.step_of(checkpoint.find(train_dir))


def test_stops_early_and_stays_so(shapes_data, tmp_path, monkeypatch, capsys):
    found = {METRIC: 0.5, "num_images": 2}
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: found)
    settings = settings_of(
        shapes_data,
        eval_interval_steps=1,
        save_interval_steps=4,
        early_stopping_patience=1,
    )
    run(settings, tmp_path, shapes_data, validation_of(shapes_data))
    # The second evaluation is not better; its step is none to be saved.
    assert "stopped early: 1 evaluations" in capsys.readouterr().out
    assert last_saved(tmp_path) == 2
    run(settings, tmp_path, shapes_data, validation_of(shapes_data))
    assert "stopped early" in capsys.readouterr().out
    assert [x["step"] for x in entries(tmp_path) if "split" not in x] == [1, 2]


def test_a_step_that_was_saved_and_not_evaluated(
    shapes_data, tmp_path, monkeypatch
):
    found = {METRIC: 0.5, "num_images": 2}
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: found)
    settings = settings_of(shapes_data, max_number_of_steps=2)
    run(settings, tmp_path, shapes_data, validation_of(shapes_data))
    lines = entries(tmp_path)
    assert lines[-1] == {"step": 2, "split": "test", METRIC: 0.5}
    text = "".join(f"{json.dumps(line)}\n" for line in lines[:-1])
    (tmp_path / "metrics.jsonl").write_text(text)
    run(settings, tmp_path, shapes_data, validation_of(shapes_data))
    assert entries(tmp_path) == lines


def test_bad_validation_data_are_named_and_no_step_is_lost(
    shapes_data, tmp_path
):
    def broken(record):
        is_first = record["source_id"] == first
        image = tf.where(is_first, "no image", record["image"])
        return {**record, "image": image}

    data = records.read(shapes_data, "test").take(2)
    first = next(iter(data))["source_id"]
    bad = validation.Validation(data.map(broken), 2, "test", 2)
    settings = settings_of(shapes_data, max_number_of_steps=2)
    with pytest.raises(UserError) as caught:
        run(settings, tmp_path, shapes_data, bad)
    message = str(caught.value)
    name = first.numpy().decode()
    assert message.startswith(
        f"split 'test' cannot be evaluated on: image {name}: "
    )
    assert "{{" not in message and "[Op" not in message
    assert last_saved(tmp_path) == 2


def test_pictures_and_curves_need_no_validation(shapes_data, tmp_path):
    settings = settings_of(shapes_data, max_number_of_steps=2)
    run(settings, tmp_path, shapes_data)
    assert (tmp_path / "curves.png").stat().st_size
    [events] = (tmp_path / "train").glob("events*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert {"batch", "loss", "learning_rate"} <= tags


def test_refused_settings_leave_a_run_as_it_was(shapes_data, tmp_path):
    settings = settings_of(shapes_data, max_number_of_steps=2)
    run(settings, tmp_path / "run", shapes_data)
    before = config.load(tmp_path / "run")
    loss = dataclasses.replace(settings.training.loss, mining="batch")
    training = dataclasses.replace(
        settings.training, gradient_accumulation_steps=2, loss=loss
    )
    refused = dataclasses.replace(settings, training=training)
    for name in ("run", "new"):
        with pytest.raises(UserError, match="choose --mining=image"):
            run(refused, tmp_path / name, shapes_data, confirm_changes=True)
    assert config.load(tmp_path / "run") == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer": "adam"}, "optimizer momentum, not adam"),
        ({"ema_decay": 0.9}, r"--ema_decay\) False, not True"),
    ],
)
def test_another_state_is_refused_at_once(trained, changed, message):
    training = dataclasses.replace(trained.settings.training, **changed)
    other = dataclasses.replace(trained.settings, training=training)
    with pytest.raises(UserError, match=f"was trained with .*{message}"):
        train.fit(
            other,
            trained.train_dir,
            trained.reader(),
            48,
            confirm_changes=True,
        )


def test_another_validation_split_is_confirmed(trained, shapes_data):
    with pytest.raises(UserError, match="validation_split None -> test; "):
        run(
            trained.settings,
            trained.train_dir,
            shapes_data,
            validation_of(shapes_data),
        )
