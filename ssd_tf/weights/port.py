"""Checkpoints of the port, SSD-TensorFlow (balancap): SSD300 and SSD512.

Its variables have our names behind the scope of the net (`ssd_300_vgg/`), our
shapes and our meaning: nets/ssd_vgg_300.py and ssd_vgg_512.py there. Files
converted by its caffe_to_tensorflow.py have the same names.
"""

import dataclasses

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import SSD_300_VGG, SSD_512_VGG
from ssd_tf.weights import base, tf_checkpoint
from ssd_tf.weights.base import Imported, Tensors
from ssd_tf.weights.tf_checkpoint import read

__all__ = ["convert", "read"]

# Every net of the port has the first, only SSD512 the second.
_CLASSES = "block4_box/conv_cls/weights"
_ONLY_IN_512 = "block12/conv4x4/weights"


def convert(tensors: Tensors, params: SSDParams, ema: bool = False) -> Imported:
    """Converts the weights of an SSD.

    The file does not tell which anchors it was trained with, only how many a
    cell has: every preset with the same layers is accepted.

    Args:
      tensors: arrays from `read`.
      params: a preset.
      ema: moving averages instead of the last weights, where there are any
        (`--moving_average_decay` of the port's train_ssd_network.py).

    Returns:
      All variables; `params` with the port's number of classes and whitening
      (`_R_MEAN`, `_G_MEAN` and `_B_MEAN` in preprocessing/
      ssd_vgg_preprocessing.py).

    Raises:
      UserError: the file is not of the port or does not fit `params`, or has
        no moving averages.
    """
    scope = _scope(tensors)
    in_512 = f"{scope}{_ONLY_IN_512}" in tensors
    source = SSD_512_VGG if in_512 else SSD_300_VGG
    if not base.same_layers(source, params):
        # Many of the variables would fit by name.
        what = f"the checkpoint's net {scope.rstrip('/')!r}"
        raise base.misfit(what, params, base.presets_with_layers_of(source))
    variables = tf_checkpoint.take_weights(tensors, scope, ema)
    outputs = variables[_CLASSES].shape[-1]
    params = dataclasses.replace(
        params,
        num_classes=base.num_classes(_CLASSES, outputs, params),
        anchor_clip="none",
        **base.CAFFE_WHITENING,
    )
    return Imported(variables, params, assumed=(base.anchors_assumed(params),))


def _scope(tensors: Tensors) -> str:
    """Finds the prefix of the names; a user's own net may have any scope."""
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
