"""Threads: order, bounds, and what becomes of errors."""

import threading
import time

import pytest

from ssd_tf.command import threads as background


def counted(number, taken):
    for value in range(number):
        taken.append(value)
        yield value


def test_prefetch_gives_all_in_order_from_one_other_thread():
    threads = set()

    def items():
        for value in range(100):
            threads.add(threading.current_thread())
            yield value

    assert list(background.prefetch(items(), 3)) == list(range(100))
    assert len(threads) == 1 and threading.current_thread() not in threads


@pytest.mark.parametrize("ahead", [1, 4])
def test_prefetch_is_never_further_ahead(ahead):
    taken = []
    items = background.prefetch(counted(50, taken), ahead)
    for number in range(20):
        assert next(items) == number
        time.sleep(0.002)
        assert len(taken) <= number + 1 + ahead
    items.close()
    assert len(taken) <= 20 + ahead


def test_prefetch_raises_an_error_in_its_turn():
    def items():
        yield 1
        raise ZeroDivisionError

    found = background.prefetch(items(), 4)
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_ordered_map_keeps_the_order_of_slow_items():
    def slow(value):
        time.sleep(0.02 if value % 3 == 0 else 0)
        return value * value

    found = background.ordered_map(slow, range(30), workers=3, ahead=5)
    assert list(found) == [value * value for value in range(30)]


def test_ordered_map_takes_no_more_than_it_may():
    taken = []
    found = background.ordered_map(str, counted(50, taken), 2, 5)
    for number in range(10):
        assert next(found) == str(number)
        assert len(taken) <= number + 1 + 5
    found.close()


def test_ordered_map_raises_an_error_in_its_turn():
    found = background.ordered_map(lambda x: 1 // x, [1, 1, 0, 1], 2, 1)
    assert [next(found), next(found)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_what_is_pushed_arrives_before_the_end():
    got = []
    with background.pushing(got.extend) as push:
        for value in range(100):
            push(value)
    assert got == list(range(100))


def test_the_error_of_a_function_that_is_fed_reaches_who_feeds():
    def consume(items):
        next(items)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        with background.pushing(consume) as push:
            for value in range(1000):
                push(value)


def test_an_error_at_the_very_end_is_not_lost():
    def consume(items):
        list(items)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        with background.pushing(consume) as push:
            push(1)


def test_a_function_that_wants_no_more_stops_nobody():
    with background.pushing(next) as push:
        for value in range(100):
            push(value)


def test_where_the_block_fails_the_function_fails():
    ended = []

    def consume(items):
        try:
            list(items)
        except background.AbortedError:
            ended.append("aborted")
            raise
        ended.append("whole")

    with pytest.raises(ZeroDivisionError):
        with background.pushing(consume) as push:
            push(1)
            raise ZeroDivisionError
    assert ended == ["aborted"]
