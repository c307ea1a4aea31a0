"""Runs that start from weights, by the library and by train_ssd.py."""

import dataclasses

import numpy as np
import pytest
from processes import error_of, finish, start
from started import BEFORE, save, settings_of, values

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.config.run import Config
from ssd_tf.config.training import StartParams
from ssd_tf.nets import checkpoint
from ssd_tf.training import train
from ssd_tf.weights import start as starts


def run(trained, train_dir, path, class_names=BEFORE, scopes=(), **options):
    """Two steps as train_ssd.py makes them; the net and its settings."""
    settings = settings_of("mobilenet", class_names)
    training = dataclasses.replace(settings.training, trainable_scopes=scopes)
    settings, weights = starts.initial_weights(
        Config(settings.params, class_names, training),
        train_dir,
        StartParams(checkpoint_path=str(path), **options),
    )
    return train.fit(settings, train_dir, trained.reader(), 48, start=weights)


def test_what_is_frozen_stays_and_batch_norm_with_it(trained, tmp_path, capsys):
    params = dataclasses.replace(trained.net.params, image_mean=(7.0,) * 3)
    path = tmp_path / "source"
    checkpoint.save_weights(trained.net, path)
    config.save(Config(params, trained.settings.class_names), path)
    heads = [f"{layer}_box" for layer in params.feat_layers]
    part = ("ssd_128_mobilenet_v2/extra2", "extra1", *heads)
    names = trained.settings.class_names
    net = run(trained, tmp_path / "run", path, names, part)
    was, now = values(trained.net), values(net)
    moved = {name for name in now if not np.array_equal(was[name], now[name])}
    scopes_moved = {name.split("/")[0] for name in moved}
    assert scopes_moved == {"extra1", "extra2", *heads}
    assert "extra1/conv1x1/BatchNorm/moving_mean" in moved
    assert "Conv1/weights" not in moved
    saved = config.load(tmp_path / "run")
    assert saved.params == net.params and saved.params.feat_shapes
    assert saved.params.image_mean == (7.0, 7.0, 7.0)
    assert saved.training.trainable_scopes == part

    # The same command again goes on: the whitening is the run's.
    capsys.readouterr()
    again = run(trained, tmp_path / "run", "/nowhere", names, part)
    shown = capsys.readouterr().out
    assert "going on from step 2" in shown
    assert "has a checkpoint; /nowhere is not read" in shown
    assert again.params.image_mean == (7.0, 7.0, 7.0)
    for name, value in values(again).items():
        np.testing.assert_array_equal(value, now[name])


def test_another_trunk_is_refused_before_anything_is_said(trained, capsys):
    params = dataclasses.replace(
        trained.settings.params, trunk="ResNet50", image_mean=(1.0, 2.0, 3.0)
    )
    settings = dataclasses.replace(trained.settings, params=params)
    with pytest.raises(
        UserError, match="trunk MobileNetV2, not ResNet50.* another --train_dir"
    ):
        starts.initial_weights(settings, trained.train_dir, StartParams())
    assert capsys.readouterr().out == ""


def test_an_unknown_trainable_scope_is_refused(trained, tmp_path):
    with pytest.raises(
        UserError,
        match="--trainable_scopes: nothing is under 'extra'; .*Conv1",
    ):
        run(trained, tmp_path / "run", trained.train_dir, BEFORE, ("extra",))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_replicas_start_alike(shapes_data, tmp_path):
    """On two devices every copy has the weights that were read.

    Slow: a fresh process builds two VGG nets.
    """
    script = TRANSFER_ON_TWO_DEVICES
    path = tmp_path / "script.py"
    path.write_text(script)
    output = finish(
        start(path, PYTHONPATH="tests/support:.", OUT=str(tmp_path / "net"))
    )
    assert output.splitlines()[-1] == "2 copies alike"


TRANSFER_ON_TWO_DEVICES = """
import os
import numpy as np, train_process
from ssd_tf.config.training import StartParams
from ssd_tf.config import run as config
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import start as starts, transfer

strategy = train_process.strategy_of("mirrored")
before = train_process.settings("vgg", ["cat", "dog"], 2)
source = SSDNet(before.params)
checkpoint.save_weights(source, os.environ["OUT"])
config.save(before, os.environ["OUT"])
after = train_process.settings("vgg", ["dog", "cow", "fox"], 2)
after, start = starts.from_checkpoint(
    os.environ["OUT"], after, StartParams()
)
with strategy.scope():
    net = SSDNet(after.params)
    transfer.apply(net, start)
was = source.variables_by_name()
for name, variable in net.variables_by_name().items():
    copies = [each.numpy() for each in variable.value.values]
    assert len(copies) == 2
    np.testing.assert_array_equal(*copies)
    if "conv_cls" not in name:
        np.testing.assert_array_equal(copies[0], was[name].numpy())
    else:
        now = copies[1].reshape(*copies[1].shape[:-1], -1, 4)
        old = was[name].numpy()
        old = old.reshape(*old.shape[:-1], -1, 3)
        np.testing.assert_array_equal(now[..., :2], old[..., [0, 2]])
print("2 copies alike")
"""


@pytest.fixture(scope="module")
def command(trained):
    return (
        "train_ssd.py",
        f"--dataset_dir={trained.dataset_dir}",
        "--model_name=ssd_128_mobilenet_v2",
        "--max_number_of_steps=2",
        "--batch_size=4",
    )


@pytest.mark.slow
def test_the_command_starts_from_a_run_of_other_classes(
    trained, command, tmp_path
):
    # Slow: train_ssd.py runs in a fresh process and builds its graph.
    names = trained.settings.class_names
    other = dataclasses.replace(
        checkpoint.load_config(trained.train_dir),
        class_names=("whale", *names[1:]),
    )
    config.save(other, save(trained.net, other, tmp_path / "source"))
    output = finish(
        start(
            *command,
            f"--train_dir={tmp_path / 'run'}",
            f"--checkpoint_path={tmp_path / 'source'}",
            "--checkpoint_exclude_scopes=extra2,"
            "ssd_128_mobilenet_v2/extra2_box/conv_loc",
            "--trainable_scopes=extra1,extra2,stride8_box,extra2_box",
        )
    )
    table = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in output.splitlines()
        if line.startswith("│")
    ]
    assert ["whale", "dropped"] in table and [names[0], "fresh"] in table
    assert [names[1], "kept"] in table and ["background", "kept"] in table
    parts = {
        (part, how): number for part, number, *rest in table for how in rest
    }
    assert int(parts["extra2", "fresh: excluded"]) == 15
    assert int(parts["extra2_box", "fresh: excluded"]) == 7
    assert int(parts["extra2_box", "loaded"]) == 7
    assert ("trunk", "loaded") in parts
    was = trained.net.variables_by_name()
    now = checkpoint.load_net(tmp_path / "run").variables_by_name()
    for name, same in {
        "Conv1/weights": True,
        "bn_Conv1/moving_mean": True,
        "extra1_box/conv_loc/pointwise/weights": True,
        "extra1/conv1x1/weights": False,
    }.items():
        assert np.array_equal(was[name], now[name]) == same, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_size=300x"], "--image_size=300x: expected HEIGHTxWIDTH"),
        (["--image_size=0"], "--image_size=0: expected"),
        (["--checkpoint_exclude_scopes=a,,b"], "scopes=a,,b: expected scopes"),
        (["--trunk=ResNet5"], "--trunk=ResNet5: "),
        (["--checkpoint_path={train_dir}/ckpt-9"], "ckpt-9: "),
        (["--checkpoint_path=/nowhere"], "/nowhere: "),
        (
            ["--checkpoint_path={train_dir}", "--image_size=64x100"]
            + ["--checkpoint_exclude_scopes=block_1"],
            "nothing is under 'block_1'; scopes are Conv1, bn_Conv1",
        ),
    ],
    ids=lambda value: value[0].split("=")[0] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(trained, command, tmp_path, arguments, message):
    arguments = [word.format(train_dir=trained.train_dir) for word in arguments]
    train_dir = f"--train_dir={tmp_path / 'run'}"
    assert message in error_of(*command, train_dir, *arguments)
    assert not (tmp_path / "run").exists()
