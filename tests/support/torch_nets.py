"""PyTorch's nets with random weights, beside ours with the same ones.

Skips the test files that import it where PyTorch is not installed.
"""

import importlib.util
import pathlib
import warnings

import numpy as np
import pytest

from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base, formats
from ssd_tf.weights.base import Tensors

torch = pytest.importorskip("torch")
if importlib.util.find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)


def _import_torchvision():
    """torchvision, also where its C++ operators do not load.

    Returns:
      It, and what keeps the operators declared that its import names.
    """
    folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
    declared = None
    try:
        for library in folder.glob("_C*"):
            torch.ops.load_library(str(library))
    except OSError:
        declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declared.define(
                f"{name}(Tensor dets, Tensor scores, float iou_threshold)"
                " -> Tensor"
            )
    with warnings.catch_warnings():
        # That it reads no JPEG without them.
        warnings.simplefilter("ignore")
        import torchvision
    return torchvision, declared


torchvision, _declared = _import_torchvision()

# Both sides compute in float32 and add in another order: measured, at most
# 5e-6 of a layer's largest value. Another variant of a trunk, whose paddings
# and strides lie elsewhere, is off by 0.17 and more.
TOLERANCE = 1e-4


def randomise(module, seed):
    """Weights that keep the size of activations, and biases that show."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.ndim == 4:
                deviation = (2 / tensor[0].numel()) ** 0.5
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(deviation * noise)
            elif name.endswith("running_var"):
                tensor.copy_(uniform(tensor, 0.5, 4.0))
            elif name.endswith(("scale_weight", "L2Norm.weight")):
                tensor.copy_(uniform(tensor, 10.0, 30.0))
            elif name.endswith("weight"):
                tensor.copy_(uniform(tensor, 0.5, 1.5))
            elif tensor.is_floating_point():
                tensor.copy_(uniform(tensor, -0.5, 0.5))
    return module.eval()


def image(height, width):
    """Smooth random colours, uint8 `[h, w, 3]`."""
    random = np.random.default_rng(height + width)
    coarse = random.uniform(0, 255, (1, 3, 12, 12)).astype(np.float32)
    fine = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), (height, width), mode="bicubic"
    )
    return fine[0].permute(1, 2, 0).clamp(0, 255).round().byte().numpy()


def torch_input(pixels, scale=255.0):
    """`[1, 3, h, w]`, 0..1."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / scale


def our_input(pixels, params):
    mean, scale = np.float32(params.image_mean), np.float32(params.image_scale)
    return (pixels[None].astype(np.float32) - mean) * scale


def imported_net(state, folder, params):
    """A state dict's way through a file into a net.

    Returns:
      The net, the `Report` and the `Imported`.
    """
    path = folder / "weights.pth"
    torch.save(state, path)
    return net_of(formats.load(path, params))


def net_of(imported):
    net = SSDNet(imported.params)
    return net, base.assign(net, imported), imported


def assert_close(ours, theirs):
    """`ours [1, h, w, c]` against `theirs [1, c, h, w]`."""
    ours = np.asarray(ours)
    theirs = theirs.detach().permute(0, 2, 3, 1).numpy()
    assert ours.shape == theirs.shape
    # Else a layer of one value everywhere would hide what is before it.
    assert np.ptp(theirs, axis=(1, 2)).max() > 1e-2 * np.abs(theirs).max()
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error < TOLERANCE


def assert_heads_close(ours, theirs):
    """Layers `[1, h, w, a, v]` against the flat `[1, anchors, v]` of all."""
    theirs, start = theirs.detach().numpy(), 0
    for layer in map(np.asarray, ours):
        flat = layer.reshape(1, -1, layer.shape[-1])
        part = theirs[:, start : start + flat.shape[1]]
        start += flat.shape[1]
        error = np.abs(flat - part).max() / np.abs(part).max()
        assert part.std() > 1e-2 * np.abs(part).max()
        assert error < TOLERANCE
    assert start == theirs.shape[1]


def as_tensors(state):
    return Tensors({name: value.numpy() for name, value in state.items()})
