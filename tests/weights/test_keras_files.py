"""Weights that Keras saved, against the models of Keras that they come from."""

import dataclasses
import functools
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras_saved import (
    classifier,
    picture,
    preprocessed,
    preset,
    randomized,
    save,
    vgg_as_published,
    vgg_without_names,
    write_published,
)

from ssd_tf.command import UserError
from ssd_tf.config.presets import (
    PRESETS,
    SSD_128_MOBILENET_V2,
    SSD_300_VGG,
    SSD_300_VGG_VOC,
)
from ssd_tf.nets.layers import variable_name
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base, formats, keras_files

# As a share of a feature map's largest value. One rounding of the pixels (1e-7)
# makes up to 8e-6 of it behind the last of fifty layers.
TOLERANCE = 1e-5


def imported_net(path, params):
    """A net with a file's weights, and what was imported."""
    imported = keras_files.convert(keras_files.read(path), params)
    net = SSDNet(imported.params)
    report = base.assign(net, imported)
    assert not report.mismatched
    return net, imported, report


# Of some end points of ours, Keras's layers.
SAME = {
    "vgg_16": {"block1": "block1_conv2", "block4": "block4_conv3"}
    | {"block5": "block5_conv3"},
    "resnet_v1_50": {"stride4": "conv2_block3_out"}
    | {"stride8": "conv3_block4_out", "stride16": "conv4_block6_out"}
    | {"stride32": "conv5_block3_out"},
    "MobileNetV2": {"stride8": "block_6_expand_relu"}
    | {"stride16": "block_13_expand_relu", "stride32": "out_relu"},
    "MobileNet": {"stride8": "conv_pw_5_relu", "stride32": "conv_pw_13_relu"},
    "MobileNetV3Large": {"stride32": None},
    "EfficientNetV2B0": {"stride32": "top_activation"},
    "DenseNet121": {"stride8": "pool3_relu", "stride32": "relu"},
    "Xception": {"stride32": None},
}


def features(trunk, side, images):
    """Of Keras's own model, by our end points' names."""
    model = classifier(trunk, side)
    outputs = {
        name: model.get_layer(layer).output if layer else model.output
        for name, layer in SAME[trunk].items()
    }
    inputs = preprocessed(model, images)
    return keras.Model(model.input, outputs)(inputs, training=False)


def end_points(net, images):
    """Of our net, which gets the same pixels."""
    images = (images - net.params.image_mean) * net.params.image_scale
    return net.net(images.astype(np.float32))[3]


def trunk_names(net):
    """Variables that a file without a top has."""
    names = {variable_name(variable) for variable in net.model.weights}
    return {
        name
        for name in names
        if base.in_trunk(name, net.params)
        and not name.startswith(("conv6/", "conv7/"))
    }


def relative(ours, theirs):
    """Largest difference, as a share of the largest value."""
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(
    ("trunk", "side", "kind"),
    [
        ("MobileNetV2", 300, "named"),
        ("MobileNetV2", 300, "unnamed"),
        ("MobileNetV2", 300, "keras"),
        ("MobileNetV2", 300, "published"),
        ("MobileNetV2", 300, "model"),
        ("MobileNet", 224, "published"),
        ("MobileNetV3Large", 224, "keras"),
        ("resnet_v1_50", 224, "published"),
        ("resnet_v1_50", 224, "unnamed"),
        ("vgg_16", 224, "named"),
        ("EfficientNetV2B0", 224, "unnamed"),
        # Slow: Keras builds more than a hundred layers three times over.
        pytest.param("DenseNet121", 224, "keras", marks=pytest.mark.slow),
        # Its layers are numbered on through the whole process. Slow as above.
        pytest.param("Xception", 224, "named", marks=pytest.mark.slow),
        pytest.param("Xception", 224, "published", marks=pytest.mark.slow),
    ],
)
def test_trunk_sees_what_keras_own_model_sees(tmp_path, trunk, side, kind):
    path = save(classifier(trunk, side), tmp_path, kind)
    net, imported, report = imported_net(path, preset(trunk, side))
    assert set(report.matched) == trunk_names(net)
    assert not report.unused
    assert (imported.detector, imported.class_names) == (False, ())
    assert imported.assumed == ()
    assert imported.params.num_classes == 1
    images = picture(side, seed=8)
    ours = end_points(net, images)
    theirs = features(trunk, side, images)
    # The weights do see colours: it is not the same with blue for red.
    turned = features(trunk, side, images[..., ::-1])
    for name, expected in theirs.items():
        assert relative(ours[name], expected) < TOLERANCE, name
        assert relative(turned[name], expected) > 0.05, name


@pytest.mark.parametrize("kind", ["named", "unnamed", "older"])
def test_top_of_a_classifier_is_left_over(tmp_path, kind):
    trunk = classifier("MobileNetV2", 300)
    whole = keras.applications.MobileNetV2(
        weights=None, input_shape=(96, 96, 3), alpha=0.35, classes=11
    )
    for layer in trunk.layers:
        if layer.weights:
            whole.get_layer(layer.name).set_weights(layer.get_weights())
    path = tmp_path / "older.h5"
    if kind == "older":
        write_published(whole, path, layer_name=lambda name: f"Older/{name}")
    else:
        path = save(whole, tmp_path, kind)
    imported = keras_files.convert(
        keras_files.read(path), preset("MobileNetV2")
    )
    assert len(imported.unused) == 2
    assert len(imported.variables) == 260
    for variable in trunk.weights:
        ours = imported.variables[variable_name(variable)]
        np.testing.assert_array_equal(ours, variable)


def test_trunk_is_found_inside_another_model(tmp_path):
    trunk = classifier("MobileNetV2", 300)
    outer = keras.Sequential([trunk, keras.layers.GlobalMaxPooling2D()])
    path = save(outer, tmp_path, "named")
    imported = keras_files.convert(
        keras_files.read(path), preset("MobileNetV2")
    )
    for variable in trunk.weights:
        ours = imported.variables[variable_name(variable)]
        np.testing.assert_array_equal(ours, variable)


def test_bias_of_a_convolution_goes_into_its_batch_norm():
    model = classifier("resnet_v1_50")
    imported = keras_files.from_model(model, preset("resnet_v1_50"))
    conv = model.get_layer("conv3_block1_0_conv")
    norm = model.get_layer("conv3_block1_0_bn")
    assert np.abs(conv.bias.numpy()).max() > 0.1
    scope = "block2/unit_1/bottleneck_v1/shortcut"
    np.testing.assert_array_equal(
        imported.variables[f"{scope}/BatchNorm/moving_mean"],
        norm.moving_mean.numpy() - conv.bias.numpy(),
    )
    np.testing.assert_array_equal(
        imported.variables[f"{scope}/weights"], conv.kernel.numpy()
    )
    assert f"{scope}/biases" not in imported.variables


def test_first_kernel_turns_from_bgr_to_rgb_and_means_with_it():
    imported = keras_files.from_model(classifier("vgg_16"), preset("vgg_16"))
    kernel = classifier("vgg_16").get_layer("block1_conv1").kernel.numpy()
    ours = imported.variables["conv1/conv1_1/weights"]
    for rgb, bgr in enumerate((2, 1, 0)):
        np.testing.assert_array_equal(ours[:, :, rgb], kernel[:, :, bgr])
    # keras/src/applications/imagenet_utils.py has them as B, G, R.
    assert imported.params.image_mean == pytest.approx(
        (123.68, 116.779, 103.939)
    )


def test_layers_of_other_names_are_taken_in_their_order(tmp_path):
    """As keras.applications does with files of its older versions."""
    model, path = classifier("MobileNetV3Large"), tmp_path / "older.h5"
    write_published(model, path, layer_name=lambda name: f"Older/{name}")
    loaded = keras.models.clone_model(model)
    loaded.load_weights(path)
    params = preset("MobileNetV3Large")
    imported = keras_files.convert(keras_files.read(path), params)
    expected = {variable_name(v): v.numpy() for v in loaded.weights}
    assert imported.variables.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(imported.variables[name], array, name)


@pytest.mark.parametrize("write", [vgg_as_published, vgg_without_names])
def test_dense_layers_of_vgg_become_convolutions(tmp_path, write):
    path = tmp_path / "vgg16.weights.h5"
    top = write(path)
    imported = keras_files.convert(keras_files.read(path), SSD_300_VGG)
    conv6 = imported.variables["conv6/weights"]
    assert conv6.shape == (3, 3, 512, 1024)
    # Rows and columns 0, 3 and 6 are kept, and every fourth unit.
    assert np.argwhere(conv6).tolist() == [[1, 2, 5, 2]]
    assert conv6[1, 2, 5, 2] == 2.0
    assert np.argwhere(imported.variables["conv7/biases"]).tolist() == [[3]]
    assert len(imported.variables) == 30
    # Of the classifier's end nothing is made.
    assert imported.unused == top


SSD = dataclasses.replace(SSD_128_MOBILENET_V2, num_classes=4)


@pytest.fixture(scope="module")
def ssd():
    net = SSDNet(SSD)
    randomized(net.model)
    return net


@pytest.mark.parametrize("kind", ["named", "unnamed", "keras", "model"])
def test_own_net_comes_back_bit_by_bit(ssd, tmp_path, kind):
    path = save(ssd.model, tmp_path, kind)
    # The preset has another number of classes: the file's counts.
    net, imported, report = imported_net(path, SSD_128_MOBILENET_V2)
    assert imported.detector
    assert imported.class_names is None
    assert imported.params == SSD
    # Only the oldest files do not have the net's name.
    anchors = "anchors, " if kind == "unnamed" else ""
    assert imported.assumed == (
        f"the file does not tell {anchors}whitening, trunk_variant and "
        "anchor_clip: taken as ssd_128_mobilenet_v2's (mean 127.5 127.5 127.5, "
        "scale 0.00784314 0.00784314 0.00784314, keras, none); where the net "
        "was trained otherwise, use its train_dir",
    )
    assert not report.missing and not report.fresh and not report.unused
    ours, theirs = net.variables_by_name(), ssd.variables_by_name()
    assert ours.keys() == theirs.keys()
    for name, variable in theirs.items():
        np.testing.assert_array_equal(ours[name], variable, name)


def test_own_vgg_comes_back_but_not_with_other_anchors(tmp_path):
    params = dataclasses.replace(SSD_300_VGG, img_shape=(96, 96), num_classes=3)
    params = dataclasses.replace(
        params,
        feat_layers=params.feat_layers[:2],
        anchor_sizes=params.anchor_sizes[:2],
        anchor_ratios=params.anchor_ratios[:2],
        normalizations=params.normalizations[:2],
        extra_blocks=(),
    )
    saved = SSDNet(params)
    saved.model.get_layer("block4_box.L2Normalization").gamma.assign_add(
        np.arange(512.0)
    )
    path = save(saved.model, tmp_path, "keras")
    tensors = keras_files.read(path)
    imported = keras_files.convert(tensors, params)
    for name, variable in saved.variables_by_name().items():
        np.testing.assert_array_equal(imported.variables[name], variable, name)
    with pytest.raises(
        UserError,
        match="weights of ssd_300_vgg, .*--model_name=ssd_300_vgg_voc; "
        "take --model_name=ssd_300_vgg$",
    ):
        keras_files.convert(tensors, SSD_300_VGG_VOC)


@pytest.mark.parametrize("kind", ["named", "unnamed", "published"])
def test_another_architecture_is_refused(tmp_path, kind):
    path = save(classifier("MobileNetV2", 300), tmp_path, kind)
    for name, trunk in (
        ("ssd_300_mobilenet_v2", "MobileNetV2 x 1 "),  # four times as wide
        ("ssd_300_vgg", "vgg_16 x 1 "),
    ):
        with pytest.raises(UserError) as caught:
            formats.load(path, PRESETS[name])
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert f"does not fit --model_name={name}, whose trunk is" in message
        assert trunk in message
        if kind == "named":  # mobilenetv2_0.35_300
            assert "; it fits ssd_300_mobilenet_v2_035, " in message


def test_layer_with_a_bias_more_is_refused(tmp_path):
    path = save(classifier("MobileNetV2", 300), tmp_path, "published")
    with h5py.File(path, "a") as file:
        group = file["Conv1"]
        group["bias"] = np.zeros(16, np.float32)
        group.attrs["weight_names"] = [b"Conv1/kernel:0", b"bias"]
    with pytest.raises(
        UserError,
        match=r"Conv1 has shapes \[\(3, 3, 3, 16\), \(16,\)\], not \[\(3, 3",
    ):
        keras_files.convert(keras_files.read(path), preset("MobileNetV2"))


def test_trunk_with_statistics_of_its_own_is_refused():
    with pytest.raises(UserError, match="EfficientNetB0: .* normalization"):
        keras_files.imagenet(preset("EfficientNetB0"))


def test_files_that_keras_has_not_saved_are_refused(tmp_path):
    text, other = tmp_path / "a.h5", tmp_path / "b.weights.h5"
    archive, broken = tmp_path / "c.keras", tmp_path / "d.h5"
    text.write_text("no weights")
    with h5py.File(other, "w") as file:
        file["x"] = [1.0]
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("config.json", "{}")
    broken.write_bytes(other.read_bytes()[:1000])
    for path in (text, other, archive, broken):
        with pytest.raises(UserError, match=f"{path}: not a file that Keras"):
            keras_files.read(path)
    with pytest.raises(UserError, match="no such file"):
        keras_files.read(tmp_path / "missing.h5")


def test_files_with_damaged_insides_are_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    # Not from Keras, whose names and versions would move the bytes.
    with h5py.File(path, "w") as file:
        for layer in ("conv2d", "conv2d_1", "dense"):
            for index in ("0", "1"):
                file[f"layers/{layer}/vars/{index}"] = np.ones(16, np.float32)
    whole, causes = path.read_bytes(), []
    for seed in range(24):
        random = np.random.default_rng(seed)
        content = np.frombuffer(whole, np.uint8).copy()
        places = random.integers(0, len(whole), 40)
        content[places] = random.integers(0, 256, 40)
        path.write_bytes(content.tobytes())
        with pytest.raises(UserError) as caught:
            keras_files.read(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: not a file that Keras has saved")
        assert "\n" not in message
        causes.append(type(caught.value.__cause__))
    assert {RuntimeError, OSError, ValueError} <= set(causes)


def test_configuration_of_an_old_sequential_is_a_list_of_layers(tmp_path):
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        settings = {"class_name": "Sequential", "config": [{}]}
        file.attrs["model_config"] = json.dumps(settings)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"dense"]
        layer = weights.create_group("dense")
        layer.attrs["weight_names"] = [b"dense/kernel:0"]
        layer["dense/kernel:0"] = np.arange(2.0)
    tensors = keras_files.read(path)
    assert tensors.model_name is None
    assert list(tensors.arrays) == ["dense/kernel"]
    np.testing.assert_array_equal(tensors.arrays["dense/kernel"], [0, 1])


def test_names_for_inspection(tmp_path):
    model = classifier("MobileNetV2", 300)
    names = {
        kind: list(keras_files.read(save(model, tmp_path, kind)).arrays)
        for kind in ("named", "unnamed", "published", "keras", "model")
    }
    assert names["published"][:2] == ["Conv1/kernel", "bn_Conv1/gamma"]
    assert "expanded_conv_depthwise/depthwise_kernel" in names["published"]
    assert "expanded_conv_depthwise/kernel" in names["model"]
    assert "Conv1/0" in names["keras"]
    assert names["keras"] == names["named"]
    assert "layers/conv2d/vars/0" in names["unnamed"]
    assert {len(each) for each in names.values()} == {260}


def test_published_weights_come_as_from_a_file(monkeypatch):
    """Replaces the download by a model in memory."""
    model = classifier("MobileNetV2", 300)
    make = keras.applications.MobileNetV2

    @functools.wraps(make)
    def published(weights, **options):
        made = make(weights=None, **options)
        if weights == "imagenet":
            made.set_weights(model.get_weights())
        return made

    monkeypatch.setattr(keras.applications, "MobileNetV2", published)
    params = preset("MobileNetV2")
    imported = keras_files.imagenet(params)
    expected = keras_files.from_model(model, params)
    assert imported.params == expected.params
    assert imported.variables.keys() == expected.variables.keys()
    for name, array in expected.variables.items():
        np.testing.assert_array_equal(imported.variables[name], array, name)


def test_download_that_fails_names_the_way_out(monkeypatch):
    make, asked = keras.applications.VGG16, []

    @functools.wraps(make)
    def offline(weights, **options):
        if weights is None:
            return make(weights=None, **options)
        asked.append((weights, options["include_top"]))
        raise Exception("URL fetch failure on https://storage.example: None")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(
        UserError,
        match="^vgg_16: .*URL fetch failure.*--backbone_weights=FILE$",
    ):
        keras_files.imagenet(SSD_300_VGG)
    # With its top, as fc6 and fc7 are there.
    assert asked == [("imagenet", True)]
