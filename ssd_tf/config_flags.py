"""Settings as command line flags: a flag a field, its default from the field.

No number stands both in a flag and in `ssd_tf.config`. Where the port has the
flag, it has the port's name.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from absl import flags

from ssd_tf.command import UserError
from ssd_tf.config import (
    CHOICES,
    DetectionParams,
    LossParams,
    TrainParams,
)

Settings = TypeVar("Settings", DetectionParams, LossParams, TrainParams)

# Field -> (name of its flag if it is another, help).
_FLAGS: dict[type, dict[str, tuple[str | None, str]]] = {
    DetectionParams: {
        "select_threshold": (None, "Smallest score of a detection."),
        "nms_threshold": (
            None,
            "IoU beyond which the lower score of a class goes.",
        ),
        "top_k": ("select_top_k", "Candidates of a class before suppression."),
        "keep_top_k": (None, "Detections of an image, over all classes."),
    },
    LossParams: {
        "match_threshold": (None, "IoU from which an anchor is positive."),
        "negative_ratio": (None, "Mined negatives per positive."),
        "alpha": ("loss_alpha", "Weight of the localisation loss."),
        "label_smoothing": (
            None,
            "Share of the class target spread over all classes.",
        ),
        "mining": (
            None,
            "Hard negatives per `image` (paper, Caffe) or over the `batch` "
            "(SSD-TensorFlow).",
        ),
        "normalizer": (
            None,
            "Divide the loss by the number of `positives` (paper, Caffe) or "
            "the `batch_size` (SSD-TensorFlow).",
        ),
        "min_negatives": (None, "Mined negatives per image at least."),
    },
    TrainParams: {
        "batch_size": (None, "Images of a step, over all devices."),
        "max_number_of_steps": (None, "Length of the training, in steps."),
        "optimizer": (None, "The optimizer."),
        "momentum": (None, "Of --optimizer=momentum."),
        "opt_epsilon": (None, "Of adadelta, adam and rmsprop."),
        "adam_beta1": (None, "Of adam."),
        "adam_beta2": (None, "Of adam."),
        "rmsprop_decay": (None, "Of rmsprop."),
        "rmsprop_momentum": (None, "Of rmsprop."),
        "adadelta_rho": (None, "Of adadelta."),
        "learning_rate": (None, "After the warm-up."),
        "learning_rate_decay_type": (None, "How the rate falls."),
        "learning_rate_decay_factor": (None, "Of step and exponential."),
        "decay_boundaries": (
            None,
            "Of step: where the rate falls, as shares of all steps.",
        ),
        "num_epochs_per_decay": (None, "Of exponential."),
        "end_learning_rate": (None, "Of cosine."),
        "warmup_steps": (None, "Steps of linear rise at the start."),
        "weight_decay": (None, "L2, on convolution kernels only."),
        "augmentation": (None, "light: crop, flip and colours."),
        "ignore_difficult": (
            None,
            "Ignore difficult boxes instead of training on them.",
        ),
        "seed": (None, "Of initial weights, order and augmentation."),
        "precision": (
            None,
            "Of the network; losses are float32 in any.",
        ),
        "save_interval_steps": (None, "Steps between two checkpoints."),
        "log_every_n_steps": (None, "Steps between two log entries."),
        "max_to_keep": (None, "Checkpoints kept, the latest."),
    },
}

# Field -> least and largest value.
_SHARE = (0.0, 1.0)
_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(
        (
            "select_threshold",
            "nms_threshold",
            "match_threshold",
            "label_smoothing",
            "momentum",
            "adam_beta1",
            "adam_beta2",
            "rmsprop_decay",
            "rmsprop_momentum",
            "adadelta_rho",
        ),
        _SHARE,
    ),
    **dict.fromkeys(
        (
            "top_k",
            "keep_top_k",
            "batch_size",
            "max_number_of_steps",
            "save_interval_steps",
            "log_every_n_steps",
            "max_to_keep",
        ),
        (1, None),
    ),
    **dict.fromkeys(
        (
            "negative_ratio",
            "alpha",
            "min_negatives",
            "opt_epsilon",
            "learning_rate_decay_factor",
            "num_epochs_per_decay",
            "end_learning_rate",
            "warmup_steps",
            "weight_decay",
            "seed",
        ),
        (0, None),
    ),
    "learning_rate": (1e-12, None),
}


def define(flag_values: flags.FlagValues, defaults: Settings) -> None:
    """Defines the flags of one of the dataclasses."""
    for field, (name, text) in _FLAGS[type(defaults)].items():
        maker, default, options = _maker(field, getattr(defaults, field))
        maker(
            name or field,
            default,
            help=text,
            flag_values=flag_values,
            **options,
        )


def _maker(field: str, value: Any) -> tuple[Callable, Any, dict[str, Any]]:
    """The function that defines a field's flag, its default and options."""
    if field in CHOICES:
        return flags.DEFINE_enum, value, {"enum_values": CHOICES[field]}
    if isinstance(value, bool):
        return flags.DEFINE_boolean, value, {}
    if isinstance(value, tuple):
        return flags.DEFINE_list, [str(x) for x in value], {}
    low, high = _BOUNDS[field]
    bounds = {"lower_bound": low, "upper_bound": high}
    if isinstance(value, int):
        return flags.DEFINE_integer, value, bounds
    return flags.DEFINE_float, value, bounds


def define_dataset(flag_values: flags.FlagValues, split: str) -> None:
    """Defines the flags of a converted data set; `split` is the default."""
    flags.DEFINE_string(
        "dataset_dir",
        None,
        "Folder that ssd_tf.datasets.convert has written.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "dataset_split_name", split, "Split of it.", flag_values=flag_values
    )


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
    values: dict[str, Any] = {}
    for field, (name, _) in _FLAGS[type(defaults)].items():
        value = flag_values[name or field].value
        if isinstance(value, list):
            value = _ascending_shares(field, value)
        values[field] = value
    return dataclasses.replace(defaults, **values)


def given(flag_values: flags.FlagValues, defaults: Settings) -> list[str]:
    """The flags of `define` that stand on the command line."""
    names = [
        name or field for field, (name, _) in _FLAGS[type(defaults)].items()
    ]
    return [name for name in names if flag_values[name].present]


def _ascending_shares(name, words):
    try:
        shares = tuple(float(word) for word in words)
    except ValueError:
        shares = ()
    if not shares or list(shares) != sorted({*shares}) or shares[0] <= 0:
        raise UserError(
            f"--{name}={','.join(words)}: expected ascending numbers above 0, "
            "separated by commas"
        )
    return shares
