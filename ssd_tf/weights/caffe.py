"""Caffe's .caffemodel files of VGG-16 and of the SSDs on it.

SSD300 and SSD512 of weiliu89/caffe, branch ssd; the classifiers
VGG_ILSVRC_16_layers and VGG_ILSVRC_16_layers_fc_reduced. Layers have the
names that VGGNetBody, AddExtraLayers and CreateMultiBoxHead give them
(python/caffe/model_libs.py and examples/ssd/ssd_pascal.py there). PriorBox
layers are explained by src/caffe/layers/prior_box_layer.cpp.
"""

import dataclasses
import os
import pathlib

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS
from ssd_tf.nets import vgg
from ssd_tf.weights import base, caffe_proto
from ssd_tf.weights.base import Imported, Tensors
from ssd_tf.weights.vgg_dense import reduce_fc

_PRIOR_BOX = "_mbox_priorbox/"
# Caffe keeps sizes in float32, which moves 35.84 by 4e-8 of it.
_TOLERANCE = 1e-6


def read(path: str | os.PathLike) -> Tensors:
    """Reads all numbers of a .caffemodel.

    Args:
      path: a binary NetParameter, of the present or of the V1 layers.

    Returns:
      The blobs as float32 arrays `LAYER/0`, `LAYER/1` in Caffe's layout, and
      the fields of PriorBox layers, such as `LAYER/min_size`, one list each.

    Raises:
      UserError: the file is damaged, of another format or without weights.
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
    """Converts the blobs of a detector or classifier.

    Args:
      tensors: arrays from `read`.
      params: a preset on VGG-16.

    Raises:
      UserError: the file is no VGG-16, or its anchors are not those of
        `params`.
    """
    if params.trunk != "vgg_16":
        presets = base.presets_on(["vgg_16"])
        raise base.misfit("a .caffemodel of VGG-16", params, presets)
    if "conv1_1/0" not in tensors:
        first = next(iter(tensors.arrays)).rpartition("/")[0]
        raise UserError(
            "the .caffemodel is no VGG-16: it begins not with the layer "
            f"conv1_1 but with {first}; name one of SSD300, SSD512 or "
            "VGG_ILSVRC_16_layers_fc_reduced"
        )
    variables = _vgg_16(tensors)
    sources = _sources(params)
    class_head = _head(tensors, sources[0], "conf")
    if class_head is None:
        return base.classifier(variables, params, **base.CAFFE_WHITENING)
    anchors = _take_anchors(tensors, sources)
    steps = _checked_steps(anchors, params) if anchors else params.anchor_steps
    outputs = len(tensors.arrays[f"{class_head}/0"])
    variables |= _extras_and_heads(tensors, params, sources)
    params = dataclasses.replace(
        params,
        num_classes=base.num_classes(class_head, outputs, params),
        anchor_steps=steps,
        anchor_clip="none",
        **base.CAFFE_WHITENING,
    )
    assumed = () if anchors else (base.anchors_assumed(params),)
    return Imported(variables, params, assumed=assumed)


def _vgg_16(tensors: Tensors) -> dict[str, np.ndarray]:
    """Takes the trunk and turns its input from BGR to RGB."""
    layers = {
        f"{scope}/{scope}_{index}": f"{scope}_{index}"
        for scope, number, _ in vgg.BLOCKS
        for index in range(1, number + 1)
    }
    variables = _convolutions(tensors, layers)
    first = variables["conv1/conv1_1/weights"]
    variables["conv1/conv1_1/weights"] = first[:, :, ::-1]
    fc6 = tensors.arrays.get("fc6/0")
    # An InnerProduct has weights [out, in], in V1 [1, 1, out, in].
    if fc6 is not None and (fc6.ndim == 2 or fc6.shape[:2] == (1, 1)):
        return variables | _dense_layers(tensors)
    reduced = {"conv6": "fc6", "conv7": "fc7"}
    return variables | _convolutions(tensors, reduced)


def _dense_layers(tensors: Tensors) -> dict[str, np.ndarray]:
    """Takes conv6 and conv7 of a whole VGG_ILSVRC_16_layers."""
    names = ("fc6/0", "fc6/1", "fc7/0", "fc7/1")
    if any(name not in tensors for name in names):
        return {}
    fc6, fc6_biases, fc7, fc7_biases = (tensors.take(n) for n in names)
    try:
        # Caffe flattens pool5 channels first.
        fc6 = fc6.reshape(-1, 512, 7, 7).transpose(2, 3, 1, 0)
        fc7 = fc7.reshape(fc7.shape[-2:]).T
    except ValueError as error:
        raise UserError(
            f"fc6 and fc7 of the .caffemodel are not VGG-16's ({error}); name "
            "VGG_ILSVRC_16_layers or its fc_reduced"
        ) from error
    return reduce_fc(fc6, fc6_biases.ravel(), fc7, fc7_biases.ravel())


def _convolutions(
    tensors: Tensors, layers: dict[str, str | None]
) -> dict[str, np.ndarray]:
    """Takes those layers that the file has; `layers` maps ours to Caffe's."""
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


def _sources(params: SSDParams) -> tuple[str, ...]:
    """Returns Caffe's names of the layers with heads: block8 is conv6_2."""
    extras = range(6, 6 + len(params.extra_blocks))
    return ("conv4_3_norm", "fc7", *(f"conv{n}_2" for n in extras))


def _extras_and_heads(
    tensors: Tensors, params: SSDParams, sources: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Takes an SSD's layers behind its trunk; block8's are conv6_1, conv6_2."""
    layers = {}
    extras = zip(params.extra_layers, params.extra_blocks, strict=True)
    for number, (block, extra) in enumerate(extras, 6):
        size = f"{extra.kernel}x{extra.kernel}"
        layers[f"{block}/conv1x1"] = f"conv{number}_1"
        layers[f"{block}/conv{size}"] = f"conv{number}_2"
    for layer, source in zip(params.feat_layers, sources, strict=True):
        layers[f"{layer}_box/conv_loc"] = _head(tensors, source, "loc")
        layers[f"{layer}_box/conv_cls"] = _head(tensors, source, "conf")
    variables = _convolutions(tensors, layers)
    if "conv4_3_norm/0" in tensors:
        gamma = tensors.take("conv4_3_norm/0").ravel()
        variables["block4_box/L2Normalization/gamma"] = gamma
    return variables


def _head(tensors: Tensors, source: str, kind: str) -> str | None:
    """Finds a head's layer; CreateMultiBoxHead may add a postfix."""
    start = f"{source}_mbox_{kind}"
    for name in tensors.arrays:
        if name.startswith(start) and name.endswith("/0"):
            return name.removesuffix("/0")
    return None


@dataclasses.dataclass(frozen=True)
class _LayerAnchors:
    """Anchors of one feature layer, in the terms of `SSDParams`."""

    sizes: tuple[float, ...]  # small and next side, pixels
    ratios: tuple[float, ...]
    variances: tuple[float, ...]
    step: tuple[float, float] | None  # y and x, pixels; None: not in the file
    offset: float
    clip: bool


def _take_anchors(
    tensors: Tensors, layers: tuple[str, ...]
) -> list[_LayerAnchors]:
    """Takes the anchors of a file; none if it has no PriorBox layers.

    `layers` sets the order; the file may have fewer, or more, as SSD512 has.
    """
    ending = f"{_PRIOR_BOX}min_size"
    known = {n.removesuffix(ending) for n in tensors.arrays if ending in n}
    ordered = [layer for layer in layers if layer in known]
    ordered += sorted(known - set(layers))
    return [_take_layer(tensors, layer) for layer in ordered]


def _take_layer(tensors: Tensors, layer: str) -> _LayerAnchors:
    prefix = layer + _PRIOR_BOX
    values = {
        name.removeprefix(prefix): tensors.take(name).tolist()
        for name in tensors.arrays
        if name.startswith(prefix)
    }
    # A single variance is that of all four coordinates, by default .1.
    variances = values.get("variance", [0.1])
    step = values.get("step", [0.0])
    step_y, step_x = (values.get(f"step_{x}", step)[-1] for x in "hw")
    flip = values.get("flip", [True])[-1]
    return _LayerAnchors(
        sizes=(*values["min_size"], *values.get("max_size", [0.0])),
        ratios=_ratios(values.get("aspect_ratio", []), flip),
        variances=tuple(variances * (4 if len(variances) == 1 else 1)),
        step=(step_y, step_x) if step_y and step_x else None,
        offset=values.get("offset", [0.5])[-1],
        clip=values.get("clip", [False])[-1],
    )


def _ratios(given: list[float], flip: bool) -> tuple[float, ...]:
    """Returns each ratio and its inverse, without 1 and repetitions."""
    ratios = [1.0]
    for ratio in given:
        if not any(_close((ratio,), (known,)) for known in ratios):
            ratios += [ratio, 1.0 / ratio] if flip else [ratio]
    return tuple(ratios[1:])


def _checked_steps(
    anchors: list[_LayerAnchors], params: SSDParams
) -> tuple[tuple[float, float], ...]:
    """Checks that the file's anchors are those of a net.

    Returns:
      `SSDParams.anchor_steps`: the file's at the image size of the preset that
      has its anchors; empty at other sizes, where they follow from the net.

    Raises:
      UserError: the anchors differ; names the preset that has them, if any.
    """
    presets = [
        preset
        for preset in PRESETS.values()
        if preset.trunk == params.trunk and _fits(anchors, preset)
    ]
    if not _fits(anchors, params) and not any(
        base.same_heads(preset, params) for preset in presets
    ):
        names = " or ".join(preset.model_name for preset in presets)
        raise UserError(
            f"the .caffemodel holds anchors of {names}, not of "
            f"{params.model_name}; say --model_name={names}"
            if presets
            else "the .caffemodel holds anchors that neither "
            f"{params.model_name} nor another preset has "
            f"({_describe(anchors)}); add one with them to "
            "ssd_tf/config/presets.py"
        )
    steps = tuple(layer.step for layer in anchors)
    if None in steps:
        # Caffe then takes image over cells, 7.89 where others have 8.
        raise UserError(
            "the .caffemodel's PriorBox layers have no step, so its anchors "
            "are no preset's; train it on with ssd_pascal.py's steps first"
        )
    shapes = {preset.img_shape for preset in presets}
    return steps if params.img_shape in shapes else ()


def _fits(anchors: list[_LayerAnchors], params: SSDParams) -> bool:
    """Returns True if the file's anchors are those of a net."""
    if len(anchors) != len(params.feat_layers):
        return False
    sides = zip(params.anchor_sizes, params.anchor_ratios, strict=True)
    return all(
        _close(layer.sizes, sizes)
        and _close(layer.ratios, ratios)
        and _close(layer.variances, params.prior_scaling)
        and _close((layer.offset,), (params.anchor_offset,))
        and not layer.clip
        for layer, (sizes, ratios) in zip(anchors, sides, strict=True)
    )


def _describe(anchors: list[_LayerAnchors]) -> str:
    layers = ", ".join(
        f"{'-'.join(f'{size:g}' for size in layer.sizes)} "
        f"({' '.join(f'{ratio:.3g}' for ratio in layer.ratios)})"
        for layer in anchors
    )
    variances = " ".join(f"{value:g}" for value in anchors[0].variances)
    clipped = ", clipped" if any(layer.clip for layer in anchors) else ""
    return (
        f"sizes and ratios {layers}, variances {variances}, offset "
        f"{anchors[0].offset:g}{clipped}"
    )


def _close(ours, theirs) -> bool:
    return len(ours) == len(theirs) and np.allclose(
        ours, theirs, rtol=_TOLERANCE, atol=0
    )
