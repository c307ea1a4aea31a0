"""SIGTERM and Ctrl-C, sent to real processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from processes import start

from ssd_tf.command import signals

LOOP = """
import time
from ssd_tf.command import signals
with signals.stop_requests() as requests:
    print("ready", flush=True)
    while not requests.received:
        time.sleep(0.01)
    try:
        print("received", requests.received, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
STOPPED = """
import dataclasses, sys
from ssd_tf import command
@dataclasses.dataclass(frozen=True)
class NoOptions:
    pass
def main(options):
    raise command.Stopped(sys.argv[1] or None, 120, "runs/x")
command.run(main, NoOptions, "", ["x"])
"""


@pytest.fixture
def process():
    """A loop that asks for signals and is ready for them."""
    process = start("-c", LOOP)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def send(process, number):
    os.kill(process.pid, number)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_noted_and_the_second_sigterm_ends(process, first):
    send(process, first)
    assert process.stdout.readline() == f"received {first.name}\n"
    send(process, signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_second_ctrl_c_interrupts(process, first):
    send(process, first)
    assert process.stdout.readline() == f"received {first.name}\n"
    send(process, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "interrupted\n"
    assert process.returncode == 0


def test_what_a_shell_ignores_for_its_background_jobs_stays_ignored():
    source = f"import signal\nsignal.signal(2, signal.SIG_IGN)\n{LOOP}"
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    send(process, signal.SIGINT)
    time.sleep(0.5)
    send(process, signal.SIGTERM)
    assert process.stdout.readline() == "received SIGTERM\n"
    process.kill()
    process.communicate()


def test_the_handlers_before_are_there_again_after():
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with signals.stop_requests() as requests:
        assert requests.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.received == "SIGTERM"
    assert [signal.getsignal(number) for number in numbers] == before
    with pytest.raises(ZeroDivisionError), signals.stop_requests():
        _ = 1 / 0
    assert [signal.getsignal(number) for number in numbers] == before


def test_in_another_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def loop():
        with signals.stop_requests() as requests:
            seen.append((requests.received, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


@pytest.mark.parametrize(
    "name, code, by",
    [
        ("SIGTERM", 143, "SIGTERM"),
        ("SIGINT", 130, "SIGINT"),
        ("", 143, "another process of the run"),
    ],
)
def test_a_stopped_command_says_so_and_is_no_error(name, code, by):
    process = start("-c", STOPPED, name)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, "")
    assert errors == (
        f"stopped by {by} after step 120, which is saved in runs/x; the same "
        "command goes on from there\n"
    )
