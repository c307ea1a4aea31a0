"""Caffe's .caffemodel of VGG-16 and of the SSDs on it, without Caffe.

SSD300 and SSD512 of weiliu89/caffe, branch ssd; the classifiers
VGG_ILSVRC_16_layers and VGG_ILSVRC_16_layers_fc_reduced. Layers go by the
names that VGGNetBody, AddExtraLayers and CreateMultiBoxHead give them
(python/caffe/model_libs.py and examples/ssd/ssd_pascal.py there).
"""

import dataclasses
import os
import pathlib

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS, SSD_300_VGG
from ssd_tf.nets import vgg
from ssd_tf.weights import caffe_anchors, caffe_proto, fitting
from ssd_tf.weights.imported import Imported, Tensors
from ssd_tf.weights.vgg_dense import reduce_fc

# The mean_value of ssd_pascal.py is 104, 117, 123: BGR.
_WHITENING = {
    "image_mean": SSD_300_VGG.image_mean,
    "image_scale": (1.0, 1.0, 1.0),
}


def read(path: str | os.PathLike) -> Tensors:
    """All numbers of a .caffemodel.

    Args:
      path: a binary NetParameter, of the present or of the V1 layers.

    Returns:
      The blobs as float32 arrays `LAYER/0`, `LAYER/1` in Caffe's layout, and
      what a PriorBox layer says, such as `LAYER/min_size`, a list each.

    Raises:
      UserError: the file is none, cut off or without weights.
    """
    try:
        arrays = caffe_proto.parse(pathlib.Path(path).read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path}: no whole .caffemodel ({error}); fetch it again"
        ) from error
    if not arrays:
        raise UserError(
            f"{path}: has no layers with weights; name a .caffemodel, the "
            ".prototxt is not needed"
        )
    return Tensors(arrays)


def convert(tensors: Tensors, params: SSDParams) -> Imported:
    """A detector's or a classifier's blobs in this package's terms.

    Args:
      tensors: from `read`.
      params: of a preset on VGG-16.

    Raises:
      UserError: it is no VGG-16, or not with the anchors of `params`.
    """
    _check_trunk(tensors, params)
    variables = _vgg_16(tensors)
    sources = caffe_anchors.sources(params)
    if _head(tensors, sources[0], "conf") is None:
        params = dataclasses.replace(params, num_classes=1, **_WHITENING)
        return Imported(variables, params, class_names=(), detector=False)
    anchors = caffe_anchors.take(tensors, sources)
    steps = caffe_anchors.check(anchors, params)
    assumed = () if anchors else (fitting.untold(params),)
    variables |= _convolutions(tensors, _extra_layers(params))
    variables |= _heads(tensors, params, sources)
    params = dataclasses.replace(
        params,
        num_classes=_num_classes(tensors, params, sources[0]),
        anchor_steps=steps,
        anchor_clip="none",
        **_WHITENING,
    )
    return Imported(variables, params, assumed=assumed)


def _check_trunk(tensors: Tensors, params: SSDParams) -> None:
    if params.trunk != "vgg_16":
        names = [n for n, p in PRESETS.items() if p.trunk == "vgg_16"]
        raise UserError(
            f"{params.model_name} is built on {params.trunk}, a .caffemodel "
            f"fits only VGG-16: say --model_name={' or '.join(names)}"
        )
    if "conv1_1/0" not in tensors:
        first = next(iter(tensors.arrays)).rpartition("/")[0]
        raise UserError(
            "the .caffemodel is no VGG-16: it begins not with the layer "
            f"conv1_1 but with {first}; name one of SSD300, SSD512 or "
            "VGG_ILSVRC_16_layers_fc_reduced"
        )


def _vgg_16(tensors: Tensors) -> dict[str, np.ndarray]:
    """The trunk; Caffe's images are BGR, ours are RGB."""
    layers = {
        f"{scope}/{scope}_{index}": f"{scope}_{index}"
        for scope, number, _ in vgg.BLOCKS
        for index in range(1, number + 1)
    }
    dense = "fc6/0" in tensors and _is_dense(tensors.arrays["fc6/0"])
    if not dense:
        layers |= {"conv6": "fc6", "conv7": "fc7"}
    variables = _convolutions(tensors, layers)
    first = variables["conv1/conv1_1/weights"]
    variables["conv1/conv1_1/weights"] = first[:, :, ::-1]
    return variables | (_dense_layers(tensors) if dense else {})


def _is_dense(weights: np.ndarray) -> bool:
    """An InnerProduct's weights: `[out, in]`, in V1 `[1, 1, out, in]`."""
    return weights.ndim == 2 or weights.shape[:2] == (1, 1)


def _dense_layers(tensors: Tensors) -> dict[str, np.ndarray]:
    """conv6 and conv7 of a whole VGG_ILSVRC_16_layers."""
    names = ("fc6/0", "fc6/1", "fc7/0", "fc7/1")
    if any(name not in tensors for name in names):
        return {}
    fc6, fc6_biases, fc7, fc7_biases = (tensors.take(n) for n in names)
    try:
        # Caffe flattens pool5 channels first.
        fc6 = fc6.reshape(-1, 512, 7, 7).transpose(2, 3, 1, 0)
        fc7 = fc7.reshape(fc7.shape[-2:]).T
        return reduce_fc(fc6, fc6_biases.ravel(), fc7, fc7_biases.ravel())
    except ValueError as error:
        raise UserError(
            f"fc6 and fc7 of the .caffemodel are not VGG-16's ({error}); name "
            "VGG_ILSVRC_16_layers or its fc_reduced"
        ) from error


def _convolutions(
    tensors: Tensors, layers: dict[str, str]
) -> dict[str, np.ndarray]:
    """What the file has of layers; `layers` are ours to Caffe's."""
    variables = {}
    for ours, theirs in layers.items():
        if f"{theirs}/0" in tensors:
            weights = tensors.take(f"{theirs}/0")
            if weights.ndim != 4:
                raise UserError(
                    f"{theirs} of the .caffemodel is no convolution, its "
                    f"weights are {weights.shape}; name VGG-16's own"
                )
            variables[f"{ours}/weights"] = weights.transpose(2, 3, 1, 0)
        if f"{theirs}/1" in tensors:
            variables[f"{ours}/biases"] = tensors.take(f"{theirs}/1").ravel()
    return variables


def _extra_layers(params: SSDParams) -> dict[str, str]:
    """block8's 1x1 and 3x3 convolutions are conv6_1 and conv6_2."""
    layers = {}
    extras = zip(params.extra_layers, params.extra_blocks, strict=True)
    for number, (block, extra) in enumerate(extras, 6):
        layers[f"{block}/conv1x1"] = f"conv{number}_1"
        size = f"conv{extra.kernel}x{extra.kernel}"
        layers[f"{block}/{size}"] = f"conv{number}_2"
    return layers


def _heads(
    tensors: Tensors, params: SSDParams, sources: tuple[str, ...]
) -> dict[str, np.ndarray]:
    layers = {}
    for layer, source in zip(params.feat_layers, sources, strict=True):
        for ours, theirs in (("conv_loc", "loc"), ("conv_cls", "conf")):
            name = _head(tensors, source, theirs)
            if name is not None:
                layers[f"{layer}_box/{ours}"] = name
    variables = _convolutions(tensors, layers)
    if "conv4_3_norm/0" in tensors:
        gamma = tensors.take("conv4_3_norm/0").ravel()
        variables["block4_box/L2Normalization/gamma"] = gamma
    return variables


def _head(tensors: Tensors, source: str, kind: str) -> str | None:
    """A head's layer; CreateMultiBoxHead may put a postfix to its name."""
    start = f"{source}_mbox_{kind}"
    for name in tensors.arrays:
        if name.startswith(start) and name.endswith("/0"):
            return name.removesuffix("/0")
    return None


def _num_classes(tensors: Tensors, params: SSDParams, source: str) -> int:
    """With the background, of the lowest layer's head."""
    name = _head(tensors, source, "conf")
    outputs = len(tensors.arrays[f"{name}/0"])
    anchors = params.anchors_per_cell[0]
    if outputs % anchors:
        raise UserError(
            f"{name} of the .caffemodel has {outputs} outputs, which "
            f"{params.model_name} with {anchors} anchors a cell cannot have; "
            "name an SSD with its anchors"
        )
    return outputs // anchors
