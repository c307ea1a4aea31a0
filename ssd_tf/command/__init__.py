"""What every command shares: flags, one-line errors, progress, tables.

A mistake of the user is a `UserError`: one line that names the file or flag,
the value and the remedy; the command ends with exit code 1 and no traceback.
Every other exception is a bug and keeps its traceback.

This module and `ssd_tf.command.files` are the only ones of `ssd_tf` that
`ssd_tf.datasets` may import. Importing it imports neither TensorFlow nor
Keras.
"""

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Sequence

from absl import flags
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


class UserError(Exception):
    """A mistake of the user, told in one line with its remedy."""


class Stopped(Exception):
    """A run that was asked to stop, has saved and ends; no mistake."""

    def __init__(
        self, signal_name: str | None, step: int, train_dir: str | os.PathLike
    ):
        """What came and what was saved.

        Args:
          signal_name: such as "SIGTERM"; None where another process of the
            run got it.
          step: that was saved.
          train_dir: where.
        """
        by = signal_name or "another process of the run"
        super().__init__(
            f"stopped by {by} after step {step}, which is saved in "
            f"{train_dir}; the same command goes on from there"
        )
        # As a shell tells of a process that a signal has ended.
        self.exit_code = 128 + signal.Signals[signal_name or "SIGTERM"]


def run(
    main: Callable[..., None],
    flag_values: flags.FlagValues,
    description: str,
    argv: Sequence[str] | None = None,
    takes_arguments: bool = False,
) -> None:
    """Parses the flags, calls `main` and turns a `UserError` into exit code 1.

    Args:
      main: the command; it reads `flag_values` itself.
      flag_values: the command's own flags (not absl's global ones, so that
        several commands can be imported into one process).
      description: text above the flags in `--help`.
      argv: program name and arguments; `sys.argv` by default.
      takes_arguments: `main` is called with the list of what is no flag; by
        default that is refused.
    """
    argv = list(sys.argv if argv is None else argv)
    try:
        if any(arg in ("--help", "-help", "-h") for arg in argv[1:]):
            say(f"{description.strip()}\n{flag_values.get_help()}")
            return
        rest = flag_values(argv)[1:]
        if rest and not takes_arguments:
            raise UserError(
                f"unexpected argument {rest[0]!r}; "
                "flags are written --name=value, see --help"
            )
        main(*[rest] if takes_arguments else [])
    except flags.Error as error:
        _fail(f"{error}; see --help")
    except UserError as error:
        _fail(str(error))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted")
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain
        # once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A file or folder that cannot be read or written, with its name.
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")


def _fail(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(1)


def command_line() -> list[str]:
    """What this process was started with, as one would type it."""
    name = os.path.basename(sys.argv[0])
    return [*(["python"] if name.endswith(".py") else []), name, *sys.argv[1:]]


def require(flag_values: flags.FlagValues, *names: str) -> None:
    """Refuses flags without a value.

    Raises:
      UserError: one is missing.
    """
    for name in names:
        if not flag_values[name].value:
            raise UserError(f"--{name} is missing: {flag_values[name].help}")


def load_tensorflow() -> None:
    """Imports TensorFlow without what its C++ side says while it loads.

    No environment variable silences all of that, and it would stand above
    every one-line error. A failing import tells everything.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def import_extra(module: str, extra: str) -> types.ModuleType:
    """Imports what an extra of this package installs.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.split(".")[0].replace("_", "-")
        raise UserError(
            f"{name} is not installed; pip install 'ssd-tf[{extra}]'"
        ) from error


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
    """A number, or the dash that stands for a missing one."""
    return cell == "-" or cell[:1].isdigit() or cell[:1] in "+-."


@contextlib.contextmanager
def progress(
    description: str, total: int | None, unit: str = "images"
) -> Iterator[Callable[..., None]]:
    """A progress bar, or a plain line now and then outside a terminal.

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
