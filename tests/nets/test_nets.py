"""Networks: sizes, names, precision, saving, dropout."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS, SSD_128_MOBILENET_V2, SSD_300_VGG
from ssd_tf.nets import keras_layers, layers, nets_factory
from ssd_tf.nets.ssd import SSDNet

# Small, and with an L2 norm like the large ones.
SMALL = dataclasses.replace(
    SSD_128_MOBILENET_V2, normalizations=(7.0, -1, -1, -1, -1)
)


@pytest.fixture(scope="module", params=PRESETS)
def preset_net(request):
    return nets_factory.get_network(request.param)()


@pytest.fixture(scope="module")
def small_net():
    return SSDNet(SMALL)


def test_outputs_have_the_shapes_of_the_anchors(preset_net):
    params = preset_net.params
    outputs = preset_net.model.output
    anchors = preset_net.anchors(params.img_shape)
    assert list(outputs) == ["logits", "localisations"]
    for index, (y, x, h, w) in enumerate(anchors):
        cells = (None, *y.shape[:2], len(h))
        assert y.shape == x.shape and h.shape == w.shape
        assert outputs["logits"][index].shape == (*cells, 21)
        assert outputs["localisations"][index].shape == (*cells, 4)
    assert len(outputs["logits"]) == len(anchors) == len(params.feat_layers)
    flat = sum(np.prod(x.shape[1:4]) for x in outputs["logits"])
    assert preset_net.flat_anchors.shape == (flat, 4)


def test_the_net_adds_what_only_it_knows_to_its_preset(preset_net):
    params = preset_net.params
    derived = {"feat_shapes": (), "anchor_steps": ()}
    preset = PRESETS[params.model_name]
    assert dataclasses.replace(params, **derived) == preset
    assert preset_net.model.name == params.model_name


def test_net_runs_as_the_model_does(small_net):
    images = np.random.RandomState(0).uniform(-1, 1, (2, 128, 128, 3))
    images = images.astype(np.float32)
    predictions, localisations, logits, end_points = small_net.net(images)
    outputs = small_net.model(images, training=False)
    for ours, theirs in zip(
        logits + localisations,
        outputs["logits"] + outputs["localisations"],
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for layer, probabilities in zip(logits, predictions, strict=True):
        np.testing.assert_allclose(probabilities, tf.nn.softmax(layer))
    for name, side in zip(SMALL.feat_layers, (16, 8, 4, 2, 1), strict=True):
        assert end_points[name].shape[:3] == (2, side, side)


def test_training_moves_batch_norm(small_net):
    images = np.random.RandomState(0).uniform(-1, 1, (2, 128, 128, 3))
    still, moved = (
        small_net.net(images.astype("f"), is_training=training)[2][0]
        for training in (False, True)
    )
    assert np.abs(still - moved).max() > 1e-3


@pytest.mark.parametrize("img_shape", [(160, 160), (130, 200)])
def test_another_input_size_has_anchors_to_match(img_shape):
    net = SSDNet(dataclasses.replace(SMALL, img_shape=img_shape))
    outputs = net.model.output["logits"]
    flat = sum(np.prod(layer.shape[1:4]) for layer in outputs)
    assert net.flat_anchors.shape == (flat, 4)
    assert net.params.img_shape == img_shape
    assert net.params.feat_shapes[0] == tuple(-(-s // 8) for s in img_shape)
    # Steps and sizes stay in pixels.
    y, x, h, w = net.anchors()[0]
    assert y[0, 0, 0] == pytest.approx(4 / img_shape[0])
    assert x[0, 1, 0] == pytest.approx(12 / img_shape[1])
    assert w[0] == pytest.approx(19.2 / img_shape[1])


def test_another_number_of_classes():
    net = SSDNet(dataclasses.replace(SMALL, num_classes=4))
    assert {layer.shape[-1] for layer in net.model.output["logits"]} == {4}


def test_unknown_network_lists_the_known_ones():
    with pytest.raises(UserError, match="'ssd_301_vgg'.*ssd_300_vgg, ssd_300"):
        nets_factory.get_network("ssd_301_vgg")


@pytest.mark.parametrize("name", PRESETS)
def test_outputs_are_float32_under_mixed_precision(name):
    net = nets_factory.get_network(name)(precision="mixed_bfloat16")
    outputs = tf.nest.flatten(net.model.output)
    assert {tensor.dtype for tensor in outputs} == {"float32"}
    assert {variable.dtype for variable in net.model.variables} == {"float32"}
    # Heads and what comes behind them compute in float32, all else does not.
    ends = (".conv_loc", ".conv_cls", ".pointwise", ".logits")
    for layer in net.model.layers:
        if layer.name.endswith((*ends, ".localisations")):
            assert layer.compute_dtype == "float32", layer.name
        elif layer.weights:
            assert layer.compute_dtype == "bfloat16", layer.name
    assert keras.config.dtype_policy().name == "float32"  # left as it was


def test_mixed_precision_is_near_float32():
    keras.utils.set_random_seed(0)
    images = np.random.RandomState(0).uniform(-1, 1, (1, 128, 128, 3))
    half, full = SSDNet(SMALL, "mixed_bfloat16"), SSDNet(SMALL)
    half.model.set_weights(full.model.get_weights())
    for ours, theirs in zip(
        half.net(images.astype("f"))[2],
        full.net(images.astype("f"))[2],
        strict=True,
    ):
        assert ours.dtype == tf.float32
        # bfloat16 has 8 bits: .4 % a layer, of the largest value. Seeded, for
        # the roundings of 20 layers of some nets add up to more; here to 2.8 %.
        atol = 0.05 * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("precision", ["bfloat", "float31"])
def test_a_policy_that_does_not_exist_changes_nothing(precision):
    with pytest.raises(ValueError), layers.dtype_policy(precision):
        pass
    assert keras.config.dtype_policy().name == "float32"


LOAD = """
import sys
import keras, numpy as np
import ssd_tf.nets.layers
model = keras.saving.load_model(sys.argv[1])
outputs = model(np.load(sys.argv[2]), training=False)
outputs = outputs["logits"] + outputs["localisations"]
np.savez(sys.argv[3], *outputs)
print([x.scale for x in model.layers if type(x).__name__ == "L2Normalization"])
"""


def test_saved_model_gives_the_same_in_a_fresh_process(
    small_net, run_script, tmp_path
):
    images = np.random.RandomState(0).uniform(-1, 1, (2, 128, 128, 3))
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    gamma = small_net.variables_by_port_name()[
        "ssd_128_mobilenet_v2/stride8_box/L2Normalization/gamma"
    ]
    gamma.assign(np.linspace(1, 9, gamma.shape[0]))
    small_net.model.save(tmp_path / "net.keras")
    paths = [tmp_path / n for n in ("net.keras", "images.npy", "outputs.npz")]
    assert run_script(LOAD, *paths) == "[7.0]"
    outputs = small_net.model(images.astype(np.float32), training=False)
    outputs = outputs["logits"] + outputs["localisations"]
    with np.load(paths[-1]) as loaded:
        for ours, theirs in zip(outputs, loaded.values(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gamma_starts_at_20_and_nothing_else_is_normalised():
    net = SSDNet(SSD_300_VGG)
    scales = [
        layer
        for layer in net.model.layers
        if isinstance(layer, keras_layers.L2Normalization)
    ]
    assert [layer.name for layer in scales] == ["block4_box.L2Normalization"]
    np.testing.assert_array_equal(scales[0].gamma, np.full(512, 20, "f"))


def dropouts(net):
    return [x for x in net._all_outputs.layers if "dropout" in x.name]


def test_no_dropout_by_default(preset_net):
    assert not dropouts(preset_net)


def test_dropout_drops_the_share_that_was_asked_for():
    params = dataclasses.replace(SSD_300_VGG, dropout_rate=0.125)
    net = SSDNet(params)
    assert [layer.rate for layer in dropouts(net)] == [0.125, 0.125]
    keras.utils.set_random_seed(0)
    dropped = dropouts(net)[0](tf.ones([1, 100, 100, 10]), training=True)
    # 100,000 draws: three standard deviations are .003.
    assert np.mean(dropped == 0) == pytest.approx(0.125, abs=0.004)
    # As in the port, block7's head sees conv7 before its dropout.
    head, conv7 = map(net.model.get_layer, ("block7_box.conv_loc", "conv7"))
    assert head.input is conv7.output


def test_trunk_keeps_the_names_of_the_imagenet_weights():
    ours = {layer.name: layer for layer in SSDNet(SMALL).model.layers}
    theirs = keras.applications.MobileNetV2(
        input_shape=(128, 128, 3), alpha=0.35, include_top=False, weights=None
    )
    for layer in theirs.layers:
        if layer.weights:
            shapes = [w.shape for w in layer.weights]
            assert [w.shape for w in ours[layer.name].weights] == shapes


def test_vgg_layer_by_layer():
    model = SSDNet(SSD_300_VGG).model
    conv6, pool5 = model.get_layer("conv6"), model.get_layer("pool5")
    assert conv6.dilation_rate == (6, 6) and conv6.padding == "same"
    assert (pool5.pool_size, pool5.strides) == ((3, 3), (1, 1))
    # SAME with stride 2 would pad an even input on one side only.
    for name in ("block8", "block9"):
        assert model.get_layer(f"{name}.conv3x3").padding == "valid"
        padding = model.get_layer(f"{name}.pad").padding
        assert padding == ((1, 1), (1, 1))


def test_repeat_names_and_chains_its_layers():
    inputs = keras.Input((8, 8, 3))
    net = layers.repeat(inputs, 2, layers.conv2d, 5, 3, scope="conv9")
    model = keras.Model(inputs, net)
    names = [layer.name for layer in model.layers[1:]]
    assert names == ["conv9.conv9_1", "conv9.conv9_2"]
    assert model.layers[2].kernel.shape == (3, 3, 5, 5)


def test_arg_scope_configures_the_layers():
    with layers.arg_scope(
        [layers.conv2d], normalizer_fn=layers.batch_norm, activation_fn="relu6"
    ):
        inputs = keras.Input((8, 8, 3))
        net = layers.conv2d(inputs, 5, 3, scope="a")
    names = [layer.name for layer in keras.Model(inputs, net).layers[1:]]
    assert names == ["a", "a.BatchNorm", "a.relu6"]


def test_synchronized_batch_norm():
    net = SSDNet(SMALL)
    layers.synchronize_batch_norm(net.model)
    norms = [
        layer.synchronized
        for layer in net.model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) > 50 and all(norms)
