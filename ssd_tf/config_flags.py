"""Settings as command line flags: a flag a field, its default from the field.

No number stands both in a flag and in `ssd_tf.config`. Where the port has the
flag, it has the port's name.
"""

import dataclasses
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


def define(flag_values: flags.FlagValues, defaults: Settings) -> None:
    """Defines the flags of one of the dataclasses."""
    makers = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_list,
    }
    for field, (name, text) in _FLAGS[type(defaults)].items():
        value = getattr(defaults, field)
        default = [str(x) for x in value] if type(value) is tuple else value
        if field in CHOICES:
            flags.DEFINE_enum(
                field, default, CHOICES[field], text, flag_values=flag_values
            )
        else:
            makers[type(value)](
                name or field, default, text, flag_values=flag_values
            )


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
        values[field] = _numbers(field, value) if type(value) is list else value
    return dataclasses.replace(defaults, **values)


def _numbers(name, words):
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise UserError(
            f"--{name}={','.join(words)}: numbers separated by commas wanted"
        ) from None
