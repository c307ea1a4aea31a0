"""One run at a time in a train_dir.

The lock is the kernel's, which frees it however the process ends; the file
beside it only tells who holds it.
"""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from ssd_tf.command import UserError, say

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = ".lock"
# flock(2), and what file systems without locks answer.
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def hold(train_dir: str | os.PathLike) -> Iterator[None]:
    """Keeps other runs out of a train_dir, which is made if it is not there.

    A folder that was made and into which nothing came, because the run was
    refused, is taken away again.

    Where the system or the file system has no locks, it says so and goes on.

    Raises:
      UserError: another run is in it, on this machine or one that shares the
        folder.
      OSError: the folder cannot be written.
    """
    train_dir = pathlib.Path(train_dir)
    was_there = train_dir.exists()
    train_dir.mkdir(parents=True, exist_ok=True)
    # Append: who holds the lock must not lose its entry to who asks.
    with (train_dir / LOCK_FILE).open("ab+", buffering=0) as file:
        failed = _try_lock(file)
        if failed in _HELD:
            raise UserError(
                f"{train_dir}: in use by another run{_owner(file)}; wait for "
                "it or stop it, or choose another --train_dir"
            )
        if failed:
            say(
                f"{train_dir}: cannot be locked ({os.strerror(failed)}); see "
                "to it that no other run writes there"
            )
        _write(file, _myself())
        try:
            yield
        finally:
            _write(file, b"")
            if not was_there:
                _remove_if_empty(train_dir)


def _remove_if_empty(train_dir: pathlib.Path) -> None:
    if [path.name for path in train_dir.iterdir()] == [LOCK_FILE]:
        (train_dir / LOCK_FILE).unlink()
        train_dir.rmdir()


def _try_lock(file) -> int:
    """Locks the file; 0, or the number of the error."""
    if fcntl is None:
        return errno.ENOSYS
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno
    return 0


def _myself():
    now = datetime.datetime.now().astimezone()
    entry = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": now.isoformat(timespec="seconds"),
    }
    return json.dumps(entry).encode()


def _write(file, content):
    # On a full disk the lock holds, and only its owner's name is missing.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(content)


def _owner(file):
    """Who holds the lock; nothing in the moment before it has said so."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return (
            f", process {owner['pid']} on {owner['host']} since "
            f"{owner['started']}"
        )
    except (ValueError, KeyError, TypeError):
        return ""
