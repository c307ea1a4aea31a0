"""Checkpoints of the port, SSD-TensorFlow (balancap): SSD300 and SSD512.

Its variables are named as ours behind the scope of the net (`ssd_300_vgg/`),
shaped as ours, and mean the same: nets/ssd_vgg_300.py and ssd_vgg_512.py
there. Files converted by its caffe_to_tensorflow.py have the same names.
"""

import dataclasses

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import SSD_300_VGG, SSD_512_VGG
from ssd_tf.weights import fitting, tf_checkpoint
from ssd_tf.weights.imported import Imported, Tensors
from ssd_tf.weights.tf_checkpoint import read

__all__ = ["convert", "read"]

# Every net of the port has the first, only SSD512 the second.
_CLASSES = "block4_box/conv_cls/weights"
_ONLY_IN_512 = "block12/conv4x4/weights"


def convert(tensors: Tensors, params: SSDParams, ema: bool = False) -> Imported:
    """The weights of an SSD.

    The file does not tell which anchors it was trained with, only how many a
    cell has: every preset with the same layers is accepted.

    Args:
      tensors: from `read`.
      params: a preset.
      ema: moving averages instead of the last weights, where there are any
        (`--moving_average_decay` of the port's train_ssd_network.py).

    Returns:
      All variables; `params` with the port's number of classes and whitening.

    Raises:
      UserError: no net of the port, another one than `params`, or no moving
        averages.
    """
    scope = _scope(tensors)
    _check_net(tensors, scope, params)
    if ema:
        tf_checkpoint.check_averages(tensors)
    names = [
        name
        for name in tensors.arrays
        if name.startswith(scope)
        and not tf_checkpoint.is_training_state(tensors, name)
    ]
    variables = {
        name.removeprefix(scope): tf_checkpoint.averaged(tensors, name, ema)
        for name in names
    }
    num_classes = _num_classes(variables[_CLASSES].shape, params)
    tf_checkpoint.take_training_state(tensors)
    return Imported(
        variables,
        dataclasses.replace(
            params,
            num_classes=num_classes,
            # `_R_MEAN`, `_G_MEAN` and `_B_MEAN` in preprocessing/
            # ssd_vgg_preprocessing.py.
            image_mean=SSD_300_VGG.image_mean,
            image_scale=(1.0, 1.0, 1.0),
            anchor_clip="none",
        ),
        assumed=(fitting.untold(params),),
    )


def _scope(tensors: Tensors) -> str:
    """What stands before the names; a user's own net may have any scope."""
    scopes = [
        name.removesuffix(_CLASSES)
        for name in tensors.arrays
        if f"/{name}".endswith(f"/{_CLASSES}")
    ]
    if len(scopes) != 1:
        found = ", ".join(scopes) or "none"
        raise UserError(
            "the checkpoint must have one net of the port, with a variable "
            f"SCOPE/{_CLASSES}; scopes found: {found}; look at it with "
            "--inspect"
        )
    return scopes[0]


def _check_net(tensors: Tensors, scope: str, params: SSDParams) -> None:
    """Refuses weights of other layers, of which many would fit by name."""
    in_512 = f"{scope}{_ONLY_IN_512}" in tensors
    source = SSD_512_VGG if in_512 else SSD_300_VGG
    if not fitting.same_layers(source, params):
        names = fitting.with_layers_of(source)
        raise UserError(
            f"the checkpoint's net {scope.rstrip('/')!r} does not fit "
            f"--model_name={params.model_name}; it fits {', '.join(names)}"
        )


def _num_classes(shape: tuple[int, ...], params: SSDParams) -> int:
    """From the first head: it has an output per anchor and class."""
    anchors = params.anchors_per_cell[0]
    if shape[-1] % anchors:
        raise UserError(
            f"{_CLASSES} of the checkpoint has {shape[-1]} outputs, no "
            f"multiple of the {anchors} anchors that a cell has in "
            f"{params.model_name}; no preset has those anchors"
        )
    return shape[-1] // anchors
