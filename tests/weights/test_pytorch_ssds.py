"""PyTorch's SSDs, against PyTorch's own nets."""

import dataclasses

import numpy as np
import pytest
from torch_nets import (
    as_tensors,
    assert_close,
    assert_heads_close,
    image,
    imported_net,
    our_input,
    randomise,
    torch,
    torch_input,
    torchvision,
)

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS, resized
from ssd_tf.datasets import labels
from ssd_tf.weights import pytorch
from ssd_tf.weights.base import Tensors


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


@pytest.mark.parametrize("name", ["ssd_300_vgg_voc", "ssd_512_vgg"])
def test_torchvisions_ssd_is_refused_for_other_anchors(ssd300, name):
    tensors = as_tensors(ssd300.state_dict())
    with pytest.raises(UserError) as error:
        pytorch.convert(tensors, PRESETS[name])
    assert f"not the anchors of {name} " in str(error.value)
    assert str(error.value).endswith("--model_name=ssd_300_vgg")


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


def test_other_input_sizes_keep_the_anchors(ssd_pytorch):
    tensors = as_tensors(ssd_pytorch.state_dict())
    params = resized(PRESETS["ssd_300_vgg_voc"], (400, 600))
    imported = pytorch.convert(tensors, params)
    expected = dataclasses.replace(params, anchor_clip="all")
    assert imported.params == expected
