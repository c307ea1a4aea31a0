"""`config.json`: the net, the classes and the training settings of a run."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from ssd_tf.command import files
from ssd_tf.command.errors import UserError
from ssd_tf.command.settings import nested
from ssd_tf.config.net import ExtraBlock, SSDParams
from ssd_tf.config.training import TrainParams

CONFIG_FILE = "config.json"
FORMAT_VERSION = 3


@dataclasses.dataclass(frozen=True)
class Config:
    """The content of config.json."""

    params: SSDParams
    class_names: tuple[str, ...]  # without the background
    training: TrainParams = TrainParams()
    num_samples: int = 0  # images in a pass; 0 before any training
    # Split on whose metrics the best checkpoint is chosen.
    validation_split: str | None = None
    # Variables that still have initial values, since the imported file lacks
    # them. Such a net is a start for training and cannot detect.
    untrained: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION


def _from_dict(cls: type, values: dict[str, Any]):
    """Builds a dataclass from the JSON of its `dataclasses.asdict`."""
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is not an object")
    names = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"unknown {cls.__name__} setting {unknown[0]!r}")
    parts = dict(nested(cls))
    values = {
        name: _from_dict(parts[name], value)
        if name in parts
        else _tuples(value)
        for name, value in values.items()
    }
    if "extra_blocks" in values:
        values["extra_blocks"] = tuple(
            _from_dict(ExtraBlock, block) for block in values["extra_blocks"]
        )
    return cls(**values)


def _tuples(value):
    """Turns JSON's lists into tuples, at every depth."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def save(config: Config, train_dir: str | os.PathLike) -> None:
    """Writes `config.json` into a train_dir."""
    path = pathlib.Path(train_dir) / CONFIG_FILE
    files.write_json(path, dataclasses.asdict(config))


def load(train_dir: str | os.PathLike) -> Config:
    """Reads the configuration that `save` wrote.

    Raises:
      UserError: the file is missing or is not a configuration.
    """
    path = pathlib.Path(train_dir) / CONFIG_FILE
    if not path.is_file():
        raise UserError(
            f"{path}: not found; name a train_dir that train_ssd.py has made"
        )
    try:
        config = _from_dict(Config, json.loads(path.read_text("utf-8")))
        if config.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version {config.format_version}")
        return config
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: not a configuration of this version ({error}); "
            "train again or take the ssd_tf that wrote it"
        ) from error
