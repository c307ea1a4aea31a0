"""One run in a train_dir, with real processes."""

import errno
import fcntl
import json
import socket

import pytest
from processes import start

from ssd_tf.command import UserError
from ssd_tf.training import run_lock

HOLD = """
import sys, time
from ssd_tf.training import run_lock
with run_lock.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(train_dir, seconds=600):
    """A process that has the lock."""
    process = start("-c", HOLD, train_dir, seconds)
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path):
    train_dir = tmp_path / "new" / "run"
    process = holder(train_dir)
    try:
        for _ in range(2):  # asking changes nothing
            with pytest.raises(UserError) as caught, run_lock.hold(train_dir):
                pass
            message = str(caught.value)
            assert message.startswith(f"{train_dir}: in use by another run, ")
            host = socket.gethostname()
            assert f"process {process.pid} on {host} since 20" in message
            assert "--train_dir" in message and "\n" not in message
        second = start("-c", HOLD, train_dir, 0)
        assert "in use by another run" in second.communicate()[1]
        assert second.returncode == 1
    finally:
        end(process)  # by SIGKILL: nothing of Python's runs any more
    with run_lock.hold(train_dir):
        pass


def test_the_end_of_a_run_frees(tmp_path):
    for _ in range(2):
        with run_lock.hold(tmp_path):
            entry = json.loads((tmp_path / ".lock").read_text())
            assert entry.keys() == {"pid", "host", "started"}
        assert (tmp_path / ".lock").read_text() == ""
    with pytest.raises(ZeroDivisionError), run_lock.hold(tmp_path):
        _ = 1 / 0
    process = holder(tmp_path, seconds=0)
    process.communicate()
    assert process.returncode == 0


def test_a_holder_without_a_name(tmp_path):
    process = holder(tmp_path)
    try:
        (tmp_path / ".lock").write_text("")
        expected = "in use by another run; wait for it"
        with pytest.raises(UserError, match=expected), run_lock.hold(tmp_path):
            pass
    finally:
        end(process)


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]
)
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_lock.hold(tmp_path), run_lock.hold(tmp_path):
        pass
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"{tmp_path}: cannot be locked (")
    assert said[0].endswith("make sure that no other run writes there")


def test_a_folder_for_nothing_is_taken_away(tmp_path):
    with run_lock.hold(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    with run_lock.hold(tmp_path / "kept"):
        (tmp_path / "kept" / "config.json").touch()
    assert (tmp_path / "kept" / "config.json").exists()
    (tmp_path / "empty").mkdir()
    with run_lock.hold(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").exists()
