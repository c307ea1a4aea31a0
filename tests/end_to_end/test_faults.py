"""Faults of a training run: what it says, and what is left.

Real processes, real files, real failures of the disk. What a kill and a
SIGTERM leave is in test_resume.py.
"""

import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from processes import error_of, finish, start, start_training, wait_until

from ssd_tf.nets import checkpoint

SMALL_RUN = (
    "--model_name=ssd_128_mobilenet_v2",
    "--batch_size=4",
    "--max_number_of_steps=4",
    "--log_every_n_steps=1",
    "--save_interval_steps=2",
    "--augmentation=none",
)


def train_command(data, train_dir, *options):
    return (
        "train_ssd.py",
        f"--dataset_dir={data}",
        f"--train_dir={train_dir}",
        *SMALL_RUN,
        *options,
    )


@pytest.fixture
def data(shapes_data, tmp_path):
    """A copy of the data, to be damaged."""
    return shutil.copytree(shapes_data, tmp_path / "data")


def shard_of(data, split="train"):
    (shard,) = data.glob(f"{split}-*.tfrecord")
    return shard


def change_record(shard, number, change):
    """Rewrites one record of a shard, whose checksums stay right."""
    serialized = [x.numpy() for x in tf.data.TFRecordDataset(str(shard))]
    example = tf.train.Example.FromString(serialized[number])
    change(example.features.feature)
    serialized[number] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for each in serialized:
            writer.write(each)
    return example.features.feature["image/source_id"].bytes_list.value[0]


def without_manifest(data):
    """As another tool's data: nothing says what the files should be."""
    (data / "manifest.json").unlink()


def smuggle_nan(features):
    features["image/object/bbox/xmin"].float_list.value[0] = np.nan


@pytest.mark.slow
def test_a_nan_box_of_another_tool_is_refused_before_the_run(data, tmp_path):
    source_id = change_record(shard_of(data), 7, smuggle_nan)
    without_manifest(data)
    error = error_of(*train_command(data, tmp_path / "run"))
    assert source_id.decode() in error and "not a number" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_nan_box_smuggled_in_stops_the_run_and_is_named(data, tmp_path):
    shard = shard_of(data)
    size = shard.stat().st_size
    source_id = change_record(shard, 7, smuggle_nan)
    # The manifest cannot tell: the file has its size.
    assert shard.stat().st_size == size
    error = error_of(
        *train_command(data, tmp_path / "run", "--max_number_of_steps=12")
    )
    assert source_id.decode() in error and "a box is non-finite" in error


@pytest.mark.slow
@pytest.mark.parametrize("manifest", [True, False])
def test_a_truncated_shard_is_named_or_left_out(data, tmp_path, manifest):
    shard = shard_of(data)
    if not manifest:
        without_manifest(data)
    whole = shard.read_bytes()
    second = shard.with_name("train-00001-of-00002.tfrecord")
    second.write_bytes(whole)
    shard = shard.rename(shard.with_name("train-00000-of-00002.tfrecord"))
    shard.write_bytes(whole[: len(whole) // 2])
    if manifest:
        shard.rename(data / "train-00000-of-00001.tfrecord")
        second.unlink()
        shard = shard_of(data)
    command = train_command(data, tmp_path / "run")
    error = error_of(*command)
    assert str(shard) in error and "--unreadable_shards=skip" in error
    if not manifest:
        output = finish(start(*command, "--unreadable_shards=skip"))
        assert f"left out: {shard}" in output
        assert checkpoint.step_of(checkpoint.find(tmp_path / "run")) == 4


def test_a_flipped_bit_found_while_reading_is_named(data, tmp_path):
    shard = shard_of(data)
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    error = error_of(
        *train_command(data, tmp_path / "run", "--max_number_of_steps=12")
    )
    assert str(shard) in error


@pytest.mark.slow
def test_an_image_that_cannot_be_decoded_is_named(data, tmp_path):
    def spoil(features):
        value = features["image/encoded"].bytes_list.value
        value[0] = b"\xff\xd8\xff" + bytes(len(value[0]) - 3)

    source_id = change_record(shard_of(data), 3, spoil)
    error = error_of(
        *train_command(data, tmp_path / "run", "--max_number_of_steps=12")
    )
    assert source_id.decode() in error


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for one checkpoint of the small net."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def limit_files(size):
    """In a child: no file grows beyond so many bytes; writes fail."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_saved(data, small_disk):
    run = small_disk / "run"
    command = train_command(
        data, run, "--max_to_keep=50", "--max_number_of_steps=40"
    )
    error = error_of(*command)
    assert str(run) in error and "No space left on device" in error
    saved = checkpoint.step_of(checkpoint.find(run))
    assert saved % 2 == 0
    # What could not be written whole has been taken away again.
    for path in run.glob("ckpt-*"):
        assert path.is_file() and (run / f"{path.stem}.index").exists()
    reader = tf.train.load_checkpoint(str(checkpoint.find(run)))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)

    for path in run.glob("ckpt-2.*"):  # makes room
        path.unlink()
    error = error_of(*command)
    assert "No space left on device" in error
    assert checkpoint.step_of(checkpoint.find(run)) > saved


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_told_in_one_line(data, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, *train_command(data, run)],
        cwd=pathlib.Path(__file__).parents[2],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: limit_files(1_000_000),
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert f"error: {run}: cannot be written to" in errors
    assert not list(run.glob("ckpt*"))


@pytest.mark.slow
def test_a_kill_during_a_save_leaves_the_checkpoint_before(
    shapes_data, tmp_path
):
    train_dir = tmp_path / "run"
    run = ("one", "vgg", shapes_data, train_dir, 8)
    process = start_training(*run)
    # The second save, at step 8, while its files have temporary names.
    wait_until(lambda: _is_saving(train_dir, 8), process, pause=0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (train_dir / "ckpt-8.index").exists()
    assert checkpoint.step_of(checkpoint.find(train_dir)) == 4
    assert list(train_dir.glob("ckpt-8*"))

    output = finish(start_training(*run))
    assert "going on from step 4" in output
    names = {path.name for path in train_dir.glob("ckpt-*")}
    assert names == {
        f"ckpt-{step}.{kind}"
        for step in (4, 8)
        for kind in ("index", "data-00000-of-00001")
    }


def _is_saving(train_dir, step):
    try:
        names = os.listdir(train_dir)
    except FileNotFoundError:
        return False
    return any(name.startswith(f"ckpt-{step}_temp") for name in names)


@pytest.mark.slow
def test_a_train_dir_in_use_is_refused(shapes_data, tmp_path):
    train_dir = tmp_path / "run"
    command = train_command(
        shapes_data, train_dir, "--max_number_of_steps=100000"
    )
    first = start(*command)
    wait_until((train_dir / "metrics.jsonl").exists, first)
    error = error_of(*command)
    assert f"{train_dir}: in use by another run, process {first.pid}" in error
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=120)
    assert first.returncode == 143
