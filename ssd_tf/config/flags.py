"""Settings as command line flags: a flag a field, its default from the field.

No number stands both in a flag and in `ssd_tf.config.net`. Where the port
has the flag, it has the port's name.
"""

import dataclasses
import math
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from absl import flags

from ssd_tf.command import UserError
from ssd_tf.config.flag_tables import BOUNDS, HELP, NAMES
from ssd_tf.config.net import Config, DetectionParams, SSDParams, StartParams
from ssd_tf.config.presets import PRESETS, resized
from ssd_tf.config.training import (
    AUGMENTATIONS,
    CHOICES,
    AugmentParams,
    LossParams,
    TrainParams,
)

Settings = TypeVar(
    "Settings",
    AugmentParams,
    DetectionParams,
    LossParams,
    StartParams,
    TrainParams,
)


def define(flag_values: flags.FlagValues, defaults: Settings) -> None:
    """Defines the flags of one of the dataclasses."""
    for field, text in HELP[type(defaults)].items():
        maker, default, options = _maker(field, getattr(defaults, field))
        name = NAMES.get(field, field)
        maker(name, default, help=text, flag_values=flag_values, **options)


def _maker(field: str, value: Any) -> tuple[Callable, Any, dict[str, Any]]:
    """The function that defines a field's flag, its default and options."""
    if field in CHOICES:
        return flags.DEFINE_enum, value, {"enum_values": CHOICES[field]}
    if isinstance(value, bool):
        return flags.DEFINE_boolean, value, {}
    if isinstance(value, tuple):
        return flags.DEFINE_list, [str(x) for x in value], {}
    if value is None:
        return flags.DEFINE_string, value, {}
    low, high = BOUNDS[field]
    bounds = {"lower_bound": low, "upper_bound": high}
    if isinstance(value, int):
        return flags.DEFINE_integer, value, bounds
    return flags.DEFINE_float, value, bounds


def define_augmentation(flag_values: flags.FlagValues) -> None:
    """Defines --augmentation and a flag for each of its settings."""
    flags.DEFINE_enum(
        "augmentation",
        "ssd",
        list(AUGMENTATIONS),
        "ssd: the paper's; light: its crop, flip and colours; none. The flags "
        "of its parts change single settings.",
        flag_values=flag_values,
    )
    for field, text in HELP[AugmentParams].items():
        value = getattr(AUGMENTATIONS["ssd"], field)
        maker, _, options = _maker(field, value)
        text = f"{text} (default: as --augmentation says)"
        maker(field, None, help=text, flag_values=flag_values, **options)


def read_augmentation(flag_values: flags.FlagValues) -> AugmentParams:
    """What --augmentation says, with what its single settings say.

    Raises:
      UserError: a range that is none.
    """
    given = {
        field: _value(flag_values, field)
        for field in HELP[AugmentParams]
        if flag_values[field].present
    }
    return dataclasses.replace(AUGMENTATIONS[flag_values.augmentation], **given)


def define_dataset(
    flag_values: flags.FlagValues,
    split: str,
    text: str = "Folder that ssd_tf.datasets.convert has written.",
) -> None:
    """Defines the flags of a data set.

    Args:
      flag_values: where they go.
      split: the default.
      text: what --dataset_dir may be.
    """
    flags.DEFINE_string(
        "dataset_dir",
        None,
        text,
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "dataset_split_name", split, "Split of it.", flag_values=flag_values
    )
    flags.DEFINE_enum(
        "unreadable_shards",
        "fatal",
        ["fatal", "skip"],
        "Stop at a damaged TFRecord file, or leave it out.",
        flag_values=flag_values,
    )


def define_run(flag_values: flags.FlagValues) -> None:
    """Defines the flags of a training run that change nothing of the net."""
    flags.DEFINE_string(
        "train_dir",
        None,
        "Where checkpoints, config.json and logs go.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "validation_split_name",
        None,
        "Split to evaluate on every --eval_interval_steps; the best "
        "checkpoint is kept in TRAIN_DIR/best.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "confirm_changes",
        False,
        "Go on with a run although its settings were others.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "overfit_batch",
        False,
        "Only try whether the net learns the first batch by heart.",
        flag_values=flag_values,
    )


def define_net(flag_values: flags.FlagValues) -> None:
    """Defines the flags of a net to be built, see `read_net`."""
    flags.DEFINE_enum(
        "model_name",
        "ssd_300_vgg",
        list(PRESETS),
        "The net.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "image_size",
        None,
        "Height and width of the input, such as 300x480, or one number for "
        "both, instead of the net's; anchors keep their share of it.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "trunk",
        None,
        "A model of keras.applications instead of the net's trunk, such as "
        "EfficientNetV2B0; not for VGG.",
        flag_values=flag_values,
    )


def read_net(flag_values: flags.FlagValues) -> SSDParams:
    """What --model_name and --image_size say; --trunk needs TensorFlow.

    Raises:
      UserError: an image size that is none.
    """
    params = PRESETS[flag_values.model_name]
    size = flag_values.image_size
    if size is None:
        return params
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", size):
        raise UserError(
            f"--image_size={size}: expected HEIGHTxWIDTH in pixels, such as "
            "300x480, or one number for both"
        )
    sides = [int(side) for side in size.split("x")]
    return resized(params, (sides[0], sides[-1]))


def define_checkpoint_path(flag_values: flags.FlagValues) -> None:
    """Defines the flag of a trained net."""
    flags.DEFINE_string(
        "checkpoint_path",
        None,
        "A train_dir, for its latest checkpoint, or a checkpoint in one.",
        flag_values=flag_values,
    )


def read(flag_values: flags.FlagValues, defaults: Settings) -> Settings:
    """The dataclass with what the flags say."""
    values = {
        field: _value(flag_values, field) for field in HELP[type(defaults)]
    }
    return dataclasses.replace(defaults, **values)


def read_config(
    flag_values: flags.FlagValues, class_names: tuple[str, ...]
) -> Config:
    """What the flags of a training run say of a data set's classes.

    Raises:
      UserError: a value that is none.
    """
    params = dataclasses.replace(
        read_net(flag_values), num_classes=len(class_names) + 1
    )
    parts = TrainParams(
        loss=read(flag_values, LossParams()),
        augmentation=read_augmentation(flag_values),
    )
    return Config(params, class_names, read(flag_values, parts))


def _value(flag_values, field):
    """A field's value as its flag says it."""
    name = NAMES.get(field, field)
    value = flag_values[name].value
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{name}={value}: expected a finite number")
    if not isinstance(value, list):
        return value
    return (_scopes if field.endswith("_scopes") else _numbers)(field, value)


def given(flag_values: flags.FlagValues, defaults: Settings) -> list[str]:
    """The flags of `define` that stand on the command line."""
    names = [NAMES.get(field, field) for field in HELP[type(defaults)]]
    return [name for name in names if flag_values[name].present]


def _scopes(name, words):
    scopes = tuple(word.strip().strip("/") for word in words)
    if not all(scopes):
        raise UserError(
            f"--{name}={','.join(words)}: expected scopes such as "
            "ssd_300_vgg/conv6, separated by commas"
        )
    return scopes


# List flags of numbers: what they want.
_NUMBERS = {
    "decay_boundaries": "ascending shares of all steps, above 0 and below 1",
    "crop_overlaps": "numbers from 0 to 1",
    "crop_scale": "the least and the largest, above 0 and up to 1",
}


def _numbers(name, words):
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = (math.nan,)
    ascending = list(numbers) == sorted({*numbers})
    if name == "decay_boundaries":
        fits = ascending and numbers and 0 < numbers[0] <= numbers[-1] < 1
    elif name == "crop_overlaps":
        fits = numbers and all(0 <= number <= 1 for number in numbers)
    else:
        most = 1.0 if name == "crop_scale" else sys.float_info.max
        fits = len(numbers) == 2 and 0 < numbers[0] <= numbers[1] <= most
    if not fits:
        wanted = _NUMBERS.get(name, "the least and the largest")
        raise UserError(
            f"--{name}={','.join(words)}: expected {wanted}, separated by "
            "commas"
        )
    return numbers
