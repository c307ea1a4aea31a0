"""The share of waiting, by a clock that is set by hand."""

import time

import pytest

from ssd_tf.training import loop


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self):
        return self.now


def steps(clock, watch, number, wait, compute):
    for _ in range(number):
        with watch.waiting():
            clock.now += wait
        clock.now += compute
    return watch.share()


def test_the_share_of_each_window():
    clock = Clock()
    watch = loop.InputStall(clock)
    # The first one fills buffers and compiles.
    assert steps(clock, watch, 2, wait=60.0, compute=20.0) == 0.0
    assert steps(clock, watch, 10, wait=1.0, compute=3.0) == 0.25
    assert steps(clock, watch, 3, wait=0.0, compute=1.0) == 0.0
    assert steps(clock, watch, 1, wait=2.0, compute=0.0) == 1.0
    assert watch.share() == 0.0  # no time at all has passed


def test_real_time():
    watch = loop.InputStall()
    watch.share()
    with watch.waiting():
        time.sleep(0.3)
    time.sleep(0.1)
    # A busy machine sleeps longer than told, now here, now there.
    assert 0.3 < watch.share() < 0.95


def test_a_failed_wait_keeps_its_error():
    watch = loop.InputStall()
    with pytest.raises(StopIteration), watch.waiting():
        next(iter([]))


def test_advice():
    assert loop.advice(0.0) is None
    assert loop.advice(loop.INPUT_BOUND) is None
    assert loop.advice(0.434).startswith(
        "the input pipeline, not the device, is the bottleneck: 43% of the "
        "time is spent waiting for data; "
    )
    assert "--augmentation=light" in loop.advice(1.0)
