"""A lock that keeps a second run out of a train_dir.

The kernel frees it however the process ends; the text in the file only tells
who holds it.
"""

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from ssd_tf.command import UserError, say

LOCK_FILE = ".lock"


@contextlib.contextmanager
def hold(train_dir: str | os.PathLike) -> Iterator[None]:
    """Locks a train_dir, which is made if it does not exist.

    A new folder that is still empty at the end, because the run was refused,
    is removed. A file system without locks is reported, and the run goes on.

    Raises:
      UserError: another run holds the train_dir, on this machine or on one
        that shares the folder.
      OSError: the folder cannot be written.
    """
    train_dir = pathlib.Path(train_dir)
    was_there = train_dir.exists()
    train_dir.mkdir(parents=True, exist_ok=True)
    path = train_dir / LOCK_FILE
    path.touch()
    lock = filelock.FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{train_dir}: in use by another run{_owner(path)}; wait for "
            "it or stop it, or choose another --train_dir"
        ) from None
    except OSError as error:
        say(
            f"{train_dir}: cannot be locked ({error.strerror}); make sure "
            "that no other run writes there"
        )
    started = datetime.datetime.now().astimezone()
    entry = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": started.isoformat(timespec="seconds"),
    }
    # On a full disk the lock holds, and only its owner's name is missing.
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(entry), "utf-8")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.write_text("", "utf-8")
        if not was_there and [*train_dir.iterdir()] == [path]:
            path.unlink()
            train_dir.rmdir()
        lock.release()


def _owner(path: pathlib.Path) -> str:
    """Names the holder of the lock; empty before it has written its name."""
    try:
        owner = json.loads(path.read_text("utf-8"))
        return (
            f", process {owner['pid']} on {owner['host']} since "
            f"{owner['started']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""
