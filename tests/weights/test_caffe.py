"""Caffe's files: their bytes, their names, their anchors."""

import caffe_model
import numpy as np
import pytest

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS, SSD_300_VGG_VOC, resized
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import caffe
from ssd_tf.weights.base import Tensors


def write(path, arrays, v1=False):
    """A file of layers with the arrays given by name; returns its path."""
    layers = {
        name: caffe_model.blobs(blobs, v1) for name, blobs in arrays.items()
    }
    caffe_model.write(path, layers, v1)
    return path


def read_priors(path, preset, **options):
    """The arrays of a file with nothing but a preset's PriorBox layers."""
    sources = caffe_model.SOURCES[preset]
    caffe_model.write(path, caffe_model.ssd(sources, {}, **options))
    return caffe.read(path).arrays


def hollow(preset, num_classes):
    """All blobs of an SSD by name, all of them zero and without memory."""
    arrays = {"conv4_3_norm/0": np.zeros(512, np.float32)}
    sources = caffe_model.SOURCES[preset]
    for row in caffe_model.convolutions(sources, num_classes):
        name, inputs, outputs, kernel, *_ = row
        shape = (outputs, inputs, kernel, kernel)
        arrays[f"{name}/0"] = np.broadcast_to(np.float32(0), shape)
        arrays[f"{name}/1"] = np.zeros(outputs, np.float32)
    return arrays


def refused(tensors, model_name):
    """The one line with which `convert` refuses."""
    with pytest.raises(UserError) as caught:
        caffe.convert(Tensors(tensors), PRESETS[model_name])
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_of_an_ssd512_of_coco_is_taken(tmp_path):
    preset = PRESETS["ssd_512_vgg"]
    priors = read_priors(tmp_path / "a", "ssd_512_vgg")
    tensors = Tensors(hollow("ssd_512_vgg", 81) | priors)
    imported = caffe.convert(tensors, preset)
    assert tensors.unused == ()
    assert imported.detector
    assert imported.class_names is None
    assert imported.params.num_classes == 81
    assert imported.params.image_mean == (123, 117, 104)
    net = SSDNet(imported.params)
    ours = {
        name: tuple(variable.shape)
        for name, variable in net.variables_by_name().items()
    }
    assert len(ours) == 79
    assert ours == {
        name: array.shape for name, array in imported.variables.items()
    }
    # The steps that the file tells are those that follow from the net.
    assert net.params.anchor_steps == SSDNet(preset).params.anchor_steps


def test_v1_classifier(tmp_path):
    random = np.random.default_rng(0)
    shapes = {
        "conv1_1": (64, 3, 3, 3),
        "conv1_2": (8, 64, 3, 3),
        "fc6": (16, 8, 3, 3),
        "fc7": (5, 16, 1, 1),
        "fc8": (10, 5, 1, 1),
    }
    arrays = {
        name: [
            random.random(shape, np.float32),
            random.random(shape[0], np.float32),
        ]
        for name, shape in shapes.items()
    }
    tensors = caffe.read(write(tmp_path / "vgg", arrays, v1=True))
    # As it is there, biases with three ones in front.
    assert tensors.arrays["conv1_1/1"].shape == (1, 1, 1, 64)
    imported = caffe.convert(tensors, SSD_300_VGG_VOC)
    assert not imported.detector
    assert imported.params.num_classes == 1
    assert imported.class_names == ()
    assert tensors.unused == ("fc8/0", "fc8/1")

    names = {"conv1/conv1_1", "conv1/conv1_2", "conv6", "conv7"}
    assert imported.variables.keys() == {
        f"{name}/{kind}" for name in names for kind in ("weights", "biases")
    }
    there, _ = arrays["fc6"]
    ours = imported.variables["conv6/weights"]
    assert ours.shape == (3, 3, 8, 16)
    assert ours[0, 2, 7, 11] == there[11, 7, 0, 2]
    # Blue is first in Caffe and last here.
    (there, biases), ours = arrays["conv1_1"], imported.variables
    for red_green_blue in range(3):
        np.testing.assert_array_equal(
            ours["conv1/conv1_1/weights"][1, 2, red_green_blue],
            there[:, 2 - red_green_blue, 1, 2],
        )
    np.testing.assert_array_equal(ours["conv1/conv1_1/biases"], biases)


def test_dense_classifier_is_reduced():
    # Zeros that are never written take no memory.
    fc6 = np.zeros((1, 1, 4096, 512 * 49), np.float32)
    fc7 = np.zeros((1, 1, 4096, 4096), np.float32)
    # Channel 5, row 3, column 6 of pool5: the second and third tap. Unit 8 is
    # the third that is kept.
    fc6[0, 0, 8, 5 * 49 + 3 * 7 + 6] = 2
    fc7[0, 0, 12, 8] = 3
    biases = np.arange(4096, dtype=np.float32).reshape(1, 1, 1, 4096)
    tensors = Tensors(
        {
            "conv1_1/0": np.zeros((64, 3, 3, 3), np.float32),
            "fc6/0": fc6,
            "fc6/1": biases,
            "fc7/0": fc7,
            "fc7/1": biases,
        }
    )
    ours = caffe.convert(tensors, SSD_300_VGG_VOC).variables
    assert ours["conv6/weights"].shape == (3, 3, 512, 1024)
    assert ours["conv6/weights"][1, 2, 5, 2] == 2
    assert ours["conv6/weights"].sum() == 2
    assert ours["conv7/weights"].shape == (1, 1, 1024, 1024)
    assert ours["conv7/weights"][0, 0, 2, 3] == 3
    np.testing.assert_array_equal(ours["conv7/biases"], np.arange(0, 4096, 4))
    assert tensors.unused == ()


@pytest.mark.parametrize(
    "options", [{}, {"v1": True}, {"dtype": "<f8"}], ids=str
)
def test_ways_to_write_a_blob(tmp_path, options):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 8
    v1 = options.get("v1", False)
    fields = caffe_model.blobs([array, array[0]], **options)
    caffe_model.write(tmp_path / "a", {"conv": fields}, v1)
    arrays = caffe.read(tmp_path / "a").arrays
    assert list(arrays) == ["conv/0", "conv/1"]
    np.testing.assert_array_equal(arrays["conv/0"], array)
    assert arrays["conv/0"].dtype == np.float32
    assert arrays["conv/1"].shape == ((1, 3, 2, 2) if v1 else (3, 2, 2))


def test_prior_box_is_listed(tmp_path):
    arrays = read_priors(tmp_path / "a", "ssd_512_vgg_voc")
    layer = "conv4_3_norm_mbox_priorbox"
    assert arrays[f"{layer}/min_size"] == pytest.approx([35.84], rel=1e-7)
    assert arrays[f"{layer}/aspect_ratio"].tolist() == [2]
    assert arrays[f"{layer}/flip"].tolist() == [True]
    assert arrays[f"{layer}/variance"].size == 4


@pytest.mark.parametrize("held", caffe_model.SOURCES)
@pytest.mark.parametrize("wanted", caffe_model.SOURCES)
def test_anchors_are_refused_by_name(tmp_path, held, wanted):
    tensors = hollow(held, 21) | read_priors(tmp_path / "a", held)
    if held == wanted:
        caffe.convert(Tensors(tensors), PRESETS[wanted])
        return
    assert refused(tensors, wanted) == (
        f"the .caffemodel holds anchors of {held}, not of {wanted}; say "
        f"--model_name={held}"
    )


@pytest.mark.parametrize(
    "options, told",
    [
        ({"clip": True}, "clipped"),
        ({"variances": (0.1, 0.1, 0.1, 0.1)}, "variances 0.1 0.1 0.1 0.1"),
    ],
)
def test_anchors_of_no_preset(tmp_path, options, told):
    name = "ssd_300_vgg"
    priors = read_priors(tmp_path / "a", name, **options)
    message = refused(hollow(name, 21) | priors, name)
    assert "neither ssd_300_vgg nor another preset has" in message
    assert "21-45 (2 0.5), 45-99 (2 0.5 3 0.333)" in message
    assert told in message


def test_anchors_without_steps(tmp_path):
    priors = read_priors(tmp_path / "a", "ssd_300_vgg")
    del priors["fc7_mbox_priorbox/step"]
    assert "no step" in refused(
        hollow("ssd_300_vgg", 21) | priors, "ssd_300_vgg"
    )


def test_anchors_unsaid_or_at_another_size(tmp_path):
    tensors = hollow("ssd_300_vgg", 21)
    preset = PRESETS["ssd_300_vgg"]
    assert not caffe.convert(Tensors(tensors), preset).params.anchor_steps
    tensors |= read_priors(tmp_path / "a", "ssd_300_vgg")
    large = resized(preset, (400, 600))
    params = caffe.convert(Tensors(tensors), large).params
    # They follow from the net: 8 pixels are no longer the file's business.
    assert params.anchor_steps == ()
    assert params.anchor_sizes == large.anchor_sizes


def test_steps_at_another_shape_with_the_same_sizes(tmp_path):
    name = "ssd_300_vgg_voc"
    tensors = hollow(name, 21) | read_priors(tmp_path / "a", name)
    wide = resized(PRESETS[name], (300, 450))
    # The shorter side sets the sizes, so these alone fit as they are.
    assert wide.anchor_sizes == PRESETS[name].anchor_sizes
    net = SSDNet(caffe.convert(Tensors(tensors), wide).params)
    # Upper layers of 5x8, 3x6 and 1x4 cells share the image among them.
    assert net.params.anchor_steps == (
        *((step, step) for step in (8, 16, 32)),
        *((64, 56.25), (100, 75), (300, 112.5)),
    )
    # The third layer's 15 columns of 32 pixels reach 15 pixels beyond the
    # border, the last centre 14; 10 rows have theirs 4 beyond, as in Caffe.
    assert net.flat_anchors[:, :2].max(axis=0) == pytest.approx(
        (304 / 300, 464 / 450)
    )


@pytest.mark.parametrize(
    "name, other",
    [
        ("ssd_300_vgg", "ssd_300_vgg_voc"),
        ("ssd_512_vgg_voc", "ssd_512_vgg"),
    ],
)
def test_what_is_taken_for_granted_is_said(tmp_path, name, other):
    tensors = hollow(name, 21)
    assert caffe.convert(Tensors(tensors), PRESETS[name]).assumed == (
        f"the file does not tell its anchors: taken as those of {name}, not "
        f"of {other}, with the same layers",
    )
    tensors |= read_priors(tmp_path / "a", name)
    assert caffe.convert(Tensors(tensors), PRESETS[name]).assumed == ()


def test_heads_may_have_a_postfix():
    tensors = {
        name.replace("_conf/", "_conf_kitti/"): array
        for name, array in hollow("ssd_300_vgg", 4).items()
    }
    imported = caffe.convert(Tensors(tensors), PRESETS["ssd_300_vgg"])
    assert imported.params.num_classes == 4
    weights = imported.variables["block4_box/conv_cls/weights"]
    assert weights.shape == (3, 3, 512, 16)


def test_other_nets_are_refused():
    tensors = hollow("ssd_300_vgg", 21)
    message = refused(tensors, "ssd_300_mobilenet_v2")
    assert "MobileNetV2" in message and "ssd_300_vgg_voc" in message
    other = {"conv0/0": tensors["conv1_1/0"]}
    assert "but with conv0;" in refused(other, "ssd_300_vgg")
    three_anchors = {"conv4_3_norm_mbox_conf/0": np.zeros((63, 512, 3, 3))}
    assert "63 outputs" in refused(tensors | three_anchors, "ssd_300_vgg")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.caffemodel"
    whole = write(path, {"conv": [np.ones((2, 3))]}).read_bytes()
    no_shape = whole.replace(b"\x0a\x02\x02\x03", b"\x0a\x02\x02\x04")
    assert no_shape != whole
    for content, told in (
        (whole[:-1], "no whole .caffemodel"),
        (b'name: "VGG" layer { }', "no whole .caffemodel"),
        (no_shape, "conv/0 of shape [2, 4] has 6 numbers"),
        (b"", "no layers with weights"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            caffe.read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
