"""The parts that commands share: flags, one-line errors, progress, tables.

A mistake of the user is a `UserError`: one line that names the file or flag,
the value and the remedy; the command ends with exit code 1 and no traceback.
Every other exception is a bug and keeps its traceback.

Importing this package imports neither TensorFlow nor Keras.
"""

import importlib
import os
import sys
import tempfile
import types
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from ssd_tf.command.console import print_table, progress, say
from ssd_tf.command.errors import Stopped, UserError
from ssd_tf.command.flags import define, help_of, read

__all__ = [
    "Stopped",
    "UserError",
    "command_line",
    "import_extra",
    "load_tensorflow",
    "print_table",
    "progress",
    "run",
    "say",
]


def run(
    main: Callable[..., None],
    options: type,
    description: str,
    argv: Sequence[str] | None = None,
    takes_arguments: bool = False,
) -> None:
    """Parses the command line and calls `main`; a `UserError` exits with 1.

    Args:
      main: the command; receives the options.
      options: dataclass of settings, one flag per setting.
      description: text above the flags in `--help`.
      argv: program name and arguments; `sys.argv` by default.
      takes_arguments: `main` also receives the list of arguments that are no
        flags; by default there may be none.
    """
    argv = list(sys.argv if argv is None else argv)
    flag_values = absl_flags.FlagValues()
    define(options, flag_values)
    if takes_arguments:
        flag_values.set_gnu_getopt()  # flags may stand behind arguments
    try:
        if any(arg in ("--help", "-help", "-h") for arg in argv[1:]):
            say(f"{description.strip()}\n\n{help_of(flag_values)}")
            return
        rest = flag_values(argv)[1:]
        if rest and not takes_arguments:
            raise UserError(
                f"unexpected argument {rest[0]!r}; "
                "flags are written --name=value, see --help"
            )
        arguments = [rest] if takes_arguments else []
        main(read(options, flag_values), *arguments)
    except absl_flags.Error as error:
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
    """Returns the words that this process was started with."""
    name = os.path.basename(sys.argv[0])
    return [*(["python"] if name.endswith(".py") else []), name, *sys.argv[1:]]


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
