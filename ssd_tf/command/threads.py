"""Threads that read ahead, share out work and write behind.

Order is kept everywhere, and whoever is ahead waits, so that no more than a
stated number of items is ever under way. Nothing here knows of images.
"""

import collections
import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

_END, _ABORT = object(), object()
# Items that wait for a function that is behind.
_BEHIND = 4


class AbortedError(Exception):
    """Raised in a consumer whose producer has failed."""


def prefetch(items: Iterable[Item], ahead: int) -> Iterator[Item]:
    """Iterates in a thread, so many items ahead of who asks for them.

    Args:
      items: only that thread asks for them.
      ahead: items that wait, at least 1.

    Yields:
      The items. What their iterator raises, is raised in its turn.
    """
    iterator = iter(items)
    with futures.ThreadPoolExecutor(1) as pool, _cancelled() as pending:
        for _ in range(ahead):
            pending.append(pool.submit(next, iterator, _END))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, iterator, _END))
            yield item


def ordered_map(
    function: Callable[[Item], Value],
    items: Iterable[Item],
    workers: int,
    ahead: int,
) -> Iterator[Value]:
    """Maps a function over items by several threads.

    Args:
      function: called in any of the threads.
      items: asked for in the caller's thread.
      workers: number of threads.
      ahead: items taken before the first value is asked for.

    Yields:
      The values in the order of the items; what the items raise is raised
      after the values of those before.
    """
    error = None
    with futures.ThreadPoolExecutor(workers) as pool, _cancelled() as pending:
        iterator = iter(items)
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                break
            except BaseException as raised:
                error = raised
                break
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    if error:
        raise error


@contextlib.contextmanager
def _cancelled():
    """Yields a queue of futures, of which none is begun any more in the end."""
    pending = collections.deque()
    try:
        yield pending
    finally:
        for future in pending:
            future.cancel()


@contextlib.contextmanager
def pushing(
    consume: Callable[[Iterator[Item]], None],
) -> Iterator[Callable[[Item], None]]:
    """Runs a function of an iterator in a thread, fed item by item.

    Args:
      consume: gets `AbortedError` from its iterator where the block fails, so
        that it leaves nothing half done.

    Yields:
      `push(item)`, which waits for a function that is behind.

    Raises:
      What the function raises, from the next push or at the end.
    """
    waiting, errors = queue.Queue(_BEHIND), []

    def push(item: Item) -> None:
        if errors:
            raise errors[0]
        waiting.put(item)

    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(_consume, consume, _items(waiting), errors)
        try:
            yield push
        except BaseException:
            waiting.put(_ABORT)
            raise
        waiting.put(_END)
    if errors:
        raise errors[0]


def _items(waiting):
    while (item := waiting.get()) is not _END:
        if item is _ABORT:
            raise AbortedError
        yield item


def _consume(consume, items, errors):
    try:
        consume(items)
    except BaseException as error:
        errors.append(error)
    # Who pushes must never wait for a function that has ended.
    with contextlib.suppress(AbortedError):
        collections.deque(items, maxlen=0)
