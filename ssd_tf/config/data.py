"""Settings that name a data set, shared by several commands."""

from typing import Any

from ssd_tf.command.settings import setting


def dataset_dir(
    help: str = "Folder that ssd_tf.datasets.convert has written.",  # noqa: A002
) -> Any:
    """Makes the field `dataset_dir` of a command."""
    return setting(None, help, "data")


def dataset_split_name(default: str, help: str) -> Any:  # noqa: A002
    """Makes the field `dataset_split_name` of a command."""
    return setting(default, help, "data")


def unreadable_shards() -> Any:
    """Makes the field `unreadable_shards` of a command."""
    return setting(
        "fatal",
        "Stop at a damaged TFRecord file (fatal), or leave it out (skip).",
        "data",
        choices=("fatal", "skip"),
    )
