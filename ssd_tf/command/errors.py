"""Exceptions that end a command without a traceback."""

import os
import signal


class UserError(Exception):
    """A mistake of the user, told in one line with its remedy."""


class Stopped(Exception):
    """A run that was asked to stop, has saved and ends; no mistake."""

    def __init__(
        self, signal_name: str | None, step: int, train_dir: str | os.PathLike
    ):
        """Tells by which signal the run was stopped and where it goes on.

        Args:
          signal_name: such as "SIGTERM"; None where another process of the
            run received it.
          step: the step that was saved.
          train_dir: the folder that it was saved in.
        """
        by = signal_name or "another process of the run"
        super().__init__(
            f"stopped by {by} after step {step}, which is saved in "
            f"{train_dir}; the same command goes on from there"
        )
        # The exit code that a shell gives a process ended by this signal.
        self.exit_code = 128 + signal.Signals[signal_name or "SIGTERM"]
