"""A train_dir alone gives the net back."""

import dataclasses
import errno
import os
import shutil

import numpy as np
import pytest

from ssd_tf.command import UserError, files
from ssd_tf.config import presets
from ssd_tf.config import run as config
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import run


def test_load_net_gives_the_trained_net_back(trained):
    images = np.random.RandomState(0).uniform(-1, 1, (2, 128, 128, 3))
    for path in (trained.train_dir, trained.train_dir / "ckpt-4"):
        net = checkpoint.load_net(path)
        # What a reader without TensorFlow needs to make the anchors again.
        assert checkpoint.load_config(path) == dataclasses.replace(
            trained.settings, params=trained.net.params, num_samples=48
        )
        assert net.params.feat_shapes[0] == (16, 16)
        for key, layers in trained.net.model(images).items():
            for mine, theirs in zip(
                net.model(images)[key], layers, strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)


def test_other_anchors_or_classes_are_refused_by_name(trained):
    params = dataclasses.replace(trained.settings.params, num_classes=9)
    with pytest.raises(UserError, match="ssd_128_mobilenet_v2 with 9 classes"):
        checkpoint.restore_weights(
            SSDNet(params), checkpoint.find(trained.train_dir)
        )


@pytest.mark.parametrize(
    "path, message",
    [
        ("", "no checkpoint in it"),
        ("ckpt-4", "neither a train_dir nor a checkpoint"),
    ],
)
def test_nothing_to_load_is_one_line(tmp_path, path, message):
    with pytest.raises(UserError, match=f"{tmp_path / path}: {message}"):
        checkpoint.find(tmp_path / path)


def test_a_checkpoint_without_its_config_is_refused(trained, tmp_path):
    for path in trained.train_dir.glob("ckpt-4*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(UserError, match="config.json: not found"):
        checkpoint.load_net(tmp_path / "ckpt-4")


def test_config_names_what_it_does_not_know(trained, tmp_path):
    path = tmp_path / config.CONFIG_FILE
    text = (trained.train_dir / config.CONFIG_FILE).read_text()
    path.write_text(text.replace('"num_classes"', '"number_of_classes"'))
    with pytest.raises(UserError, match="'number_of_classes'"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"anchor_sizes": presets.SSD_300_MOBILENET_V2.anchor_sizes[:5]},
        {"image_scale": (1.0, 1.0, 1.0)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_weights_that_only_fit_by_their_shapes_are_refused(trained, changed):
    params = dataclasses.replace(trained.settings.params, **changed)
    other = dataclasses.replace(trained.settings, params=params)
    with pytest.raises(UserError, match=f"trained with {next(iter(changed))}"):
        run.check_resumable("run", trained.settings, other, True)


def test_the_order_of_trained_parts_does_not_matter(trained):
    def with_scopes(*scopes):
        training = dataclasses.replace(
            trained.settings.training, trainable_scopes=scopes
        )
        return dataclasses.replace(trained.settings, training=training)

    before = with_scopes("extra1", "stride8_box")
    run.check_resumable(
        "run", before, with_scopes("stride8_box", "extra1", "extra1"), False
    )
    with pytest.raises(UserError, match=r"\('extra1', 'stride8_box'\), not"):
        run.check_resumable("run", before, with_scopes("extra1"), True)


def test_weights_alone_are_no_run_that_could_go_on(trained, tmp_path):
    before = checkpoint.load_config(trained.train_dir)
    assert checkpoint.load_run_config(trained.train_dir) == before
    checkpoint.save_weights(trained.net, tmp_path)
    config.save(before, tmp_path)
    with pytest.raises(UserError) as error:
        checkpoint.load_run_config(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: holds imported weights; start from them by "
        f"--checkpoint_path={tmp_path} and another --train_dir"
    )


def test_a_part_of_a_net_detects_nothing_before_it_is_trained(
    trained, tmp_path
):
    settings = checkpoint.load_config(trained.train_dir)
    part = dataclasses.replace(
        settings, untrained=("extra1/expand1x1/weights", "x")
    )
    checkpoint.save_weights(trained.net, tmp_path)
    config.save(part, tmp_path)
    with pytest.raises(
        UserError, match=r"classifier.*extra1/expand1x1.*--checkpoint_path="
    ):
        checkpoint.load_net(tmp_path)
    net = checkpoint.load_net(tmp_path, allow_untrained=True)
    for old, new in zip(
        trained.net.model.weights, net.model.weights, strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_only_remains_of_saves_are_removed(tmp_path):
    whole = ["ckpt-4.index", "ckpt-4.data-00000-of-00001"]
    remains = [
        "ckpt-8.data-00000-of-00001",
        "ckpt-8.index.tempstate17",
        "ckpt-again-8.data-00000-of-00001",
    ]
    of_the_user = ["ckpt-1.zip", "ckpt-backup.index.txt", "notes"]
    for name in (*whole, *remains, *of_the_user):
        (tmp_path / name).touch()
    for folder in ("ckpt-8_temp", "ckpt-backup"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "part-00000-of-00001").touch()
    run.remove_partial(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*whole, *of_the_user, "ckpt-backup"}
    assert list((tmp_path / "ckpt-backup").iterdir())


def test_a_full_disk_is_told_with_the_files_name(tmp_path):
    with pytest.raises(OSError) as caught:
        with files.replace_file(tmp_path / "x.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())
