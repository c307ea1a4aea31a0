"""Lines, tables and progress bars that commands print."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# Seconds between two plain progress lines where the output is no terminal.
PLAIN_INTERVAL = 15.0


def say(message: str = "") -> None:
    """Prints one line on standard output at once."""
    print(message, flush=True)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Prints a table; columns of numbers stand to the right."""
    # Text is shown as it is; rich would take "[...]" in a str for its markup.
    table = Table(title=Text(title, "table.title"), title_justify="left")
    cells = [[str(cell) for cell in row] for row in rows]
    for index, column in enumerate(columns):
        numbers = all(_is_number(row[index]) for row in cells)
        table.add_column(Text(column), justify="right" if numbers else "left")
    for row in cells:
        table.add_row(*map(Text, row))
    # A pipe or log file has no width that a row would have to fit.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def _is_number(cell: str) -> bool:
    """Returns a number, or the dash that stands for a missing one."""
    return cell == "-" or cell[:1].isdigit() or cell[:1] in "+-."


@contextlib.contextmanager
def progress(
    description: str, total: int | None, unit: str = "images"
) -> Iterator[Callable[..., None]]:
    """Yields a progress bar, or a plain line now and then outside a terminal.

    Yields:
      `advance(steps=1, units=None, text="")`: counts `steps` of `total`;
      `units` (default: as many as steps) make the speed in `unit`/s; `text`
      is shown behind it.
    """
    show = _bar if sys.stdout.isatty() else _plain_lines
    with show(description, total) as update:
        started, counted = time.monotonic(), 0

        def advance(steps: int = 1, units: int | None = None, text: str = ""):
            nonlocal counted
            counted += steps if units is None else units
            speed = counted / max(time.monotonic() - started, 1e-9)
            update(steps, f"{speed:.1f} {unit}/s {text}".rstrip())

        yield advance


@contextlib.contextmanager
def _bar(description, total):
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(description, total=total, info="")
        yield lambda steps, info: bar.update(task, advance=steps, info=info)


@contextlib.contextmanager
def _plain_lines(description, total):
    started = last = time.monotonic()
    done, latest = 0, ""

    def line():
        seconds = time.monotonic() - started
        left = "?" if not total else f"{seconds * (total / done - 1):.0f}"
        say(f"{description}: {done}/{total or '?'}, ETA {left} s, {latest}")

    def update(steps, info):
        nonlocal done, latest, last
        done, latest = done + steps, info
        if time.monotonic() - last > PLAIN_INTERVAL:
            last = time.monotonic()
            line()

    yield update
    if done:
        line()
