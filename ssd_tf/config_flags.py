"""Settings as command line flags: a flag a field, its default from the field.

No number stands both in a flag and in `ssd_tf.config`. Where the port has the
flag, it has the port's name.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, TypeVar

from absl import flags

from ssd_tf.command import UserError
from ssd_tf.config import (
    CHOICES,
    DetectionParams,
    LossParams,
    SSDParams,
    StartParams,
    TrainParams,
)
from ssd_tf.presets import PRESETS, resized

Settings = TypeVar(
    "Settings", DetectionParams, LossParams, StartParams, TrainParams
)

# Field -> help.
_FLAGS: dict[type, dict[str, str]] = {
    DetectionParams: {
        "select_threshold": "Smallest score of a detection.",
        "nms_threshold": "IoU beyond which the lower score of a class goes.",
        "top_k": "Candidates of a class before suppression.",
        "keep_top_k": "Detections of an image, over all classes.",
    },
    LossParams: {
        "match_threshold": "IoU from which an anchor is positive.",
        "negative_ratio": "Mined negatives per positive.",
        "alpha": "Weight of the localisation loss.",
        "label_smoothing": "Share of the class target spread over all classes.",
        "mining": (
            "Hard negatives per `image` (paper, Caffe) or over the `batch` "
            "(SSD-TensorFlow)."
        ),
        "normalizer": (
            "Divide the loss by the number of `positives` (paper, Caffe) or "
            "the `batch_size` (SSD-TensorFlow)."
        ),
        "min_negatives": "Mined negatives per image at least.",
    },
    TrainParams: {
        "batch_size": "Images of a step, over all devices.",
        "max_number_of_steps": "Length of the training, in steps.",
        "optimizer": "The optimizer.",
        "momentum": "Of --optimizer=momentum.",
        "opt_epsilon": "Of adadelta, adam and rmsprop.",
        "adam_beta1": "Of adam.",
        "adam_beta2": "Of adam.",
        "rmsprop_decay": "Of rmsprop.",
        "rmsprop_momentum": "Of rmsprop.",
        "adadelta_rho": "Of adadelta.",
        "learning_rate": "After the warm-up.",
        "learning_rate_decay_type": "How the rate falls.",
        "learning_rate_decay_factor": "Of step and exponential.",
        "decay_boundaries": "Of step: where it falls, as shares of all steps.",
        "num_epochs_per_decay": "Of exponential.",
        "end_learning_rate": "Of cosine.",
        "warmup_steps": "Steps of linear rise at the start.",
        "weight_decay": "L2, on convolution kernels only.",
        "augmentation": "light: crop, flip and colours.",
        "ignore_difficult": "Ignore difficult boxes, do not train on them.",
        "seed": "Of initial weights, order and augmentation.",
        "precision": "Of the network; losses are float32 in any.",
        "save_interval_steps": "Steps between two checkpoints.",
        "log_every_n_steps": "Steps between two log entries.",
        "max_to_keep": "Checkpoints kept, the latest.",
        "trainable_scopes": (
            "Parts that are trained, such as `ssd_300_vgg/block4_box,conv7`, "
            "in whole layers; all by default."
        ),
    },
    StartParams: {
        "checkpoint_path": (
            "What to start from: a train_dir or a checkpoint in it, or a TF1 "
            "checkpoint. Not read once --train_dir has a checkpoint."
        ),
        "checkpoint_model_scope": (
            "First part of the names in a TF1 checkpoint, such as vgg_16; the "
            "model's by default."
        ),
        "checkpoint_exclude_scopes": (
            "Parts that start fresh, such as `ssd_300_vgg/conv6,block4_box`."
        ),
        "ignore_missing_vars": "Start fresh what the weights do not have.",
        "backbone_weights": (
            "A classifier's or detector's file of Caffe, PyTorch, Keras or "
            "TF-Slim to start from, or `imagenet` for what Keras publishes."
        ),
    },
}
# Field -> its flag, where that has the port's name.
_NAMES = {"top_k": "select_top_k", "alpha": "loss_alpha"}

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
    for field, text in _FLAGS[type(defaults)].items():
        maker, default, options = _maker(field, getattr(defaults, field))
        name = _NAMES.get(field, field)
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
    values: dict[str, Any] = {}
    for field in _FLAGS[type(defaults)]:
        value = flag_values[_NAMES.get(field, field)].value
        if isinstance(value, list):
            scopes = field.endswith("_scopes")
            read_list = _scopes if scopes else _ascending_shares
            value = read_list(field, value)
        values[field] = value
    return dataclasses.replace(defaults, **values)


def given(flag_values: flags.FlagValues, defaults: Settings) -> list[str]:
    """The flags of `define` that stand on the command line."""
    names = [_NAMES.get(field, field) for field in _FLAGS[type(defaults)]]
    return [name for name in names if flag_values[name].present]


def _scopes(name, words):
    scopes = tuple(word.strip().strip("/") for word in words)
    if not all(scopes):
        raise UserError(
            f"--{name}={','.join(words)}: expected scopes such as "
            "ssd_300_vgg/conv6, separated by commas"
        )
    return scopes


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
