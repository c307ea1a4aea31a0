"""PyTorch state dicts of SSDs and ImageNet classifiers.

torchvision's `ssd300_vgg16`, VGG-16, ResNet-50, -101, -152 and MobileNetV2,
and `ssd300_mAP_77.43_v2.pth` and `vgg16_reducedfc.pth` of ssd.pytorch
(amdegroot). Only `read` needs PyTorch, the extra `[torch]`.
"""

import dataclasses
import os

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import SSD_300_VGG, SSD_300_VGG_VOC
from ssd_tf.nets import resnet
from ssd_tf.weights import base, pytorch_names
from ssd_tf.weights.base import CAFFE_WHITENING, Imported, Tensors
from ssd_tf.weights.pytorch_names import TORCHVISION, TORCHVISION_SSD
from ssd_tf.weights.vgg_dense import reduce_fc

# Shapes of VGG-16's fc6 and fc7: weights and biases of each.
_DENSE_SHAPES = [(4096, 7 * 7 * 512), (4096,), (4096, 4096), (4096,)]


def read(path: str | os.PathLike) -> Tensors:
    """Reads the tensors of a state dict, without running pickled code.

    Args:
      path: a file of `torch.save`: a state dict, or a dict that has one as
        `state_dict` or `model`.

    Returns:
      The arrays as they are there, float32 whatever their precision there.
      Their names lack the `module.` of data parallel training; the counters
      of batch norm are left out.

    Raises:
      UserError: PyTorch is missing, the file is of another format, or a
        tensor is sparse, quantized or complex.
    """
    state = _load(path)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = {
        str(name).removeprefix("module."): _array(path, name, tensor)
        for name, tensor in (state if isinstance(state, dict) else {}).items()
        if hasattr(tensor, "detach")  # a dict may hold other things, too
        and not str(name).endswith("num_batches_tracked")
    }
    if not tensors:
        raise UserError(_no_state_dict(path))
    return Tensors(tensors)


def _load(path: str | os.PathLike) -> object:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: PyTorch is missing: pip install 'ssd-tf[torch]'"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # The unpickler's exceptions depend on the bytes of the file.
        raise UserError(_no_state_dict(path)) from error


def _array(path: str | os.PathLike, name: str, tensor) -> np.ndarray:
    """Returns a tensor's numbers as float32."""
    try:
        if tensor.is_complex():
            raise TypeError("float() takes their real parts only")
        return tensor.detach().float().numpy()
    # Raised for sparse and quantized tensors and for those without data.
    except (TypeError, RuntimeError) as error:
        raise UserError(
            f"{path}: {name} is {tensor.dtype}, {tensor.layout}, not a dense "
            "tensor of real numbers; save the weights of the plain float model"
        ) from error


def _no_state_dict(path: str | os.PathLike) -> str:
    return (
        f"{path}: no PyTorch state dict; write one with "
        "torch.save(model.state_dict(), FILE)"
    )


def convert(tensors: Tensors, params: SSDParams) -> Imported:
    """Converts a known state dict.

    Args:
      tensors: arrays from `read`.
      params: a preset that the weights are to fill.

    Raises:
      UserError: the state dict is unknown or belongs to another preset, or a
        number in it is non-finite.
    """
    for name, importer in _IMPORTERS.items():
        if name in tensors:
            return importer(tensors, params)
    first = ", ".join(list(tensors.arrays)[:3])
    raise UserError(
        f"no known PyTorch net has the names {first}...; known are "
        "torchvision's ssd300_vgg16, vgg16, resnet50 (101, 152) and "
        "mobilenet_v2, and ssd.pytorch's SSD300 and vgg16_reducedfc"
    )


def _torchvision_ssd(tensors: Tensors, params: SSDParams) -> Imported:
    classes = _num_classes(tensors, "head.classification_head.module_list")
    _check_anchors(params, (SSD_300_VGG,), "torchvision's ssd300_vgg16")
    return Imported(
        _take(tensors, pytorch_names.torchvision_ssd(params.feat_layers)),
        dataclasses.replace(params, num_classes=classes, **TORCHVISION_SSD),
        pytorch_names.COCO_90 if classes == 91 else None,
    )


def _ssd_pytorch(tensors: Tensors, params: SSDParams) -> Imported:
    classes = _num_classes(tensors, "conf")
    # Its ssd.py takes VOC's anchors for 21 classes and COCO's for any other
    # number, but users with classes of their own often edit that line: then
    # the file does not tell.
    presets = (SSD_300_VGG_VOC, SSD_300_VGG)
    what = f"ssd.pytorch's SSD300 of {classes} classes"
    _check_anchors(params, presets[: 1 if classes == 21 else 2], what)
    return Imported(
        _take(tensors, pytorch_names.ssd_pytorch(params.feat_layers)),
        # Its PriorBox clamps centres, too.
        dataclasses.replace(
            params, num_classes=classes, anchor_clip="all", **CAFFE_WHITENING
        ),
        assumed=() if classes == 21 else (base.anchors_assumed(params),),
    )


def _classifier(
    tensors: Tensors,
    params: SSDParams,
    trunk: str,
    what: str,
    names: dict[str, str],
    whitening: dict = TORCHVISION,
) -> Imported:
    """Takes the classifier `what` for presets on `trunk`."""
    if params.trunk != trunk:
        raise base.misfit(what, params, base.presets_on([trunk]))
    return base.classifier(_take(tensors, names), params, **whitening)


def _reduced_vgg(tensors: Tensors, params: SSDParams) -> Imported:
    what, names = "ssd.pytorch's vgg16_reducedfc", pytorch_names.vgg_16("")
    # data/config.py and data/voc0712.py subtract Caffe's mean from BGR, which
    # is then turned into RGB.
    return _classifier(tensors, params, "vgg_16", what, names, CAFFE_WHITENING)


def _vgg_16(tensors: Tensors, params: SSDParams) -> Imported:
    names = pytorch_names.vgg_16("features.")
    what = "torchvision's vgg16"
    imported = _classifier(tensors, params, "vgg_16", what, names)
    dense = [tensors.arrays.get(name) for name in pytorch_names.VGG_DENSE]
    # A user's own classifier has dense layers of other shapes, or none.
    if [getattr(array, "shape", None) for array in dense] != _DENSE_SHAPES:
        return imported
    fc6, fc6_biases, fc7, fc7_biases = (
        _finite(tensors, name) for name in pytorch_names.VGG_DENSE
    )
    reduced = reduce_fc(dense_kernel(fc6), fc6_biases, fc7.T, fc7_biases)
    variables = {**imported.variables, **reduced}
    return dataclasses.replace(imported, variables=variables)


def dense_kernel(weights: np.ndarray) -> np.ndarray:
    """Returns fc6 as a kernel over its map of 7x7 cells.

    Args:
      weights: `[outputs, channels * 7 * 7]`, the map flattened channels first.

    Returns:
      A view `[7, 7, channels, outputs]`.
    """
    return weights.reshape(len(weights), -1, 7, 7).transpose(2, 3, 1, 0)


def _resnet(tensors: Tensors, params: SSDParams) -> Imported:
    units = tuple(_units(tensors, block) for block in (1, 2, 3, 4))
    trunks = {known: name for name, known in resnet.UNITS.items()}
    if units not in trunks:
        raise UserError(
            f"a ResNet with {units} units is not known; known are "
            + ", ".join(f"{name} {known}" for known, name in trunks.items())
        )
    what, names = f"torchvision's ResNet {units}", pytorch_names.resnet(units)
    return _classifier(tensors, params, trunks[units], what, names)


def _units(tensors: Tensors, block: int) -> int:
    prefix = f"layer{block}."
    names = (name for name in tensors.arrays if name.startswith(prefix))
    return len({name.split(".")[1] for name in names})


def _mobilenet_v2(tensors: Tensors, params: SSDParams) -> Imported:
    what, names = "torchvision's mobilenet_v2", pytorch_names.mobilenet_v2()
    return _classifier(tensors, params, "MobileNetV2", what, names)


# By a name that only one kind of state dict has.
_IMPORTERS = {
    "backbone.scale_weight": _torchvision_ssd,
    "L2Norm.weight": _ssd_pytorch,
    "33.weight": _reduced_vgg,
    # The place of conv5_2; VGG-13, VGG-19 and those with batch norm have no
    # weights there.
    "features.26.weight": _vgg_16,
    "layer1.0.conv3.weight": _resnet,
    "features.1.conv.0.0.weight": _mobilenet_v2,
}


def _take(tensors: Tensors, names: dict[str, str]) -> dict[str, np.ndarray]:
    """Takes those of `names` that the file has, in our layout."""
    return {
        ours: _our_layout(_finite(tensors, theirs))
        for ours, theirs in names.items()
        if theirs in tensors
    }


def _our_layout(array: np.ndarray) -> np.ndarray:
    """Turns a kernel `[outputs, inputs, h, w]` to `[h, w, inputs, outputs]`."""
    if array.ndim != 4:
        return array
    # One input means depthwise, with one filter per channel: [h, w, c, 1].
    depthwise = array.shape[1] == 1
    return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))


def _finite(tensors: Tensors, name: str) -> np.ndarray:
    array = tensors.take(name)
    if not np.isfinite(array).all():
        # The dense layers of torchvision's VGG16_Weights.IMAGENET1K_FEATURES
        # are NaN, says models/vgg.py.
        raise UserError(
            f"{name} holds numbers that are not finite; take a file of whole "
            "weights, such as vgg16-397923af.pth for VGG-16"
        )
    return array


def _num_classes(tensors: Tensors, head: str) -> int:
    """Returns the number of classes with background, from all heads' biases."""
    anchors = SSD_300_VGG.anchors_per_cell
    names = (f"{head}.{index}.bias" for index in range(len(anchors) + 1))
    outputs = [len(tensors.arrays[n]) for n in names if n in tensors]
    counts = {o / a for o, a in zip(outputs, anchors, strict=False)}
    if len(outputs) != len(anchors) or len(counts) != 1 or counts.pop() % 1:
        raise UserError(
            f"{head}: outputs {outputs} are not those of an SSD300, whose "
            f"layers have {anchors} anchors a cell; import another file"
        )
    return outputs[0] // anchors[0]


def _check_anchors(
    params: SSDParams, presets: tuple[SSDParams, ...], what: str
) -> None:
    """Raises UserError unless a preset with the weights' anchors fits."""
    if any(base.same_heads(preset, params) for preset in presets):
        return
    names = " or ".join(preset.model_name for preset in presets)
    raise UserError(
        f"{what} has not the anchors of {params.model_name} but those of "
        f"{names}: pass --model_name={presets[0].model_name}"
    )
