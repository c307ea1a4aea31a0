"""TF-Slim's classifiers: what tf_slim computes, the imported trunk computes.

tf_slim builds and runs each network in a TensorFlow 1 graph with random
weights and saves it as a checkpoint.
"""

import dataclasses
import inspect
import warnings
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS
from ssd_tf.nets import layers, nets_factory, vgg
from ssd_tf.weights import base, slim, tf_checkpoint

with warnings.catch_warnings():
    # tf_slim is unmaintained and its import warns about old spellings.
    warnings.simplefilter("ignore")
    import tf_slim
    from tf_slim.nets import resnet_v1
    from tf_slim.nets import vgg as slim_vgg

v1 = tf.compat.v1
BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
EPSILON = inspect.signature(tf_slim.batch_norm).parameters["epsilon"].default
# Of the largest value: up to 53 convolutions in another order of additions
# came to 3e-6 of it.
RELATIVE = 1e-5
VGG_MEAN = (123.68, 116.78, 103.94)


def value(name, shape):
    """Random values that keep a deep network's numbers near one."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name == "global_step":
        return np.int64(1)
    if name.endswith(("gamma", "moving_variance")):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if "weights" not in name:
        return random.uniform(-0.1, 0.1, shape).astype(np.float32)
    inputs = shape[:2] if "depthwise" in name else shape[:-1]
    # A ReLU halves the variance; what is added to a shortcut is to be less.
    gain = 0.3 if "project" in name else 2
    array = random.standard_normal(shape, np.float32)
    return array * np.float32(np.sqrt(gain / np.prod(inputs)))


def vgg_value(name, shape):
    """Dense layers are zero where decimation drops their inputs."""
    if name.endswith("fc6/weights"):
        array = np.zeros(shape, np.float32)
        array[::3, ::3] = value(name, (3, 3, *shape[2:]))
        return array
    if name.endswith("fc7/weights"):
        array = np.zeros(shape, np.float32)
        array[:, :, ::4] = value(name, (1, 1, 1024, 4096))
        return array
    return value(name, shape)


def saved(build, values, folder, feeds):
    """Builds, fills, runs and saves a network as a TensorFlow 1 program.

    Args:
      build: `() -> dict` of tensors to evaluate.
      values: name and shape to array.
      folder: for the checkpoint.
      feeds: list of dicts from a tensor's name to its value, one a run.

    Returns:
      The checkpoint's path, and per run what the tensors were.
    """
    with tf.Graph().as_default() as graph, v1.Session() as session:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            tensors = build()
        v1.train.create_global_step()
        variables = v1.global_variables()
        session.run(
            [variable.initializer for variable in variables],
            {
                variable.initializer.inputs[1]: values(
                    variable.op.name, variable.shape.as_list()
                )
                for variable in variables
            },
        )
        runs = [
            session.run(
                tensors,
                {graph.get_tensor_by_name(f"{k}:0"): x for k, x in f.items()},
            )
            for f in feeds
        ]
        path = v1.train.Saver().save(session, str(folder / "model.ckpt"))
        return path, runs


def images(side):
    return (
        np.random.default_rng(7)
        .uniform(-120, 130, (1, side, side, 3))
        .astype(np.float32)
    )


def assert_close(ours, theirs):
    """To a share of the largest value, as sums may nearly cancel."""
    assert np.std(theirs) > 1e-3
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=RELATIVE * np.abs(theirs).max()
    )


def imported(path, model_name):
    """A preset's net with a file's weights, and what did not fit."""
    tensors = slim.read(path)
    result = slim.convert(tensors, PRESETS[model_name])
    result = dataclasses.replace(result, unused=tensors.unused)
    net = nets_factory.get_network(model_name)(result.params)
    assert result.class_names == () and not result.detector
    assert net.params.num_classes == 1
    return net, base.assign(net, result)


def batch_norm(inputs, epsilon=EPSILON, **others):
    """Computes tf_slim's inference, whose own layer wants tf_keras."""
    with v1.variable_scope("BatchNorm"):
        gamma, beta, mean, variance = (
            v1.get_variable(
                name, inputs.shape[-1:], trainable=not name.startswith("moving")
            )
            for name in BATCH_NORM
        )
    return v1.nn.batch_normalization(
        inputs, mean, variance, beta, gamma, epsilon
    )


def build_vgg():
    inputs = v1.placeholder(tf.float32, (1, 224, 224, 3), "images")
    with tf_slim.arg_scope(slim_vgg.vgg_arg_scope()):
        _, ends = slim_vgg.vgg_16(inputs, 10, is_training=False)
    names = ("conv5/conv5_3", "fc6", "fc7")
    return {name: ends[f"vgg_16/{name}"] for name in names}


@pytest.fixture(scope="module")
def vgg_16(tmp_path_factory):
    """TF-Slim's VGG-16 of a picture and of a map for pool5, and ours."""
    folder = tmp_path_factory.mktemp("vgg")
    # Rows and columns that only SSD's pool5 sees, see test_import_classifier.
    block5 = np.random.default_rng(2).random((1, 14, 14, 512), np.float32)
    block5[:, [5, 11]] = 0
    block5[:, :, [5, 11]] = 0
    feeds = [
        {"images": images(224)},
        {
            "images": images(224),
            "vgg_16/conv5/conv5_3/Relu": block5,
        },
    ]
    path, runs = saved(build_vgg, vgg_value, folder, feeds)
    tensors = slim.read(path)
    for file in folder.iterdir():  # 0.5 GB
        file.unlink()
    result = slim.convert(tensors, PRESETS["ssd_300_vgg"])
    return tensors, result, runs, block5


def test_vgg_16_gives_all_of_the_trunk(vgg_16):
    tensors, result, _, _ = vgg_16
    assert tensors.unused == ("vgg_16/fc8/biases", "vgg_16/fc8/weights")
    assert result.params == dataclasses.replace(
        PRESETS["ssd_300_vgg"],
        num_classes=1,
        image_mean=VGG_MEAN,
        trunk_variant="slim",
    )
    net = nets_factory.get_network("ssd_300_vgg")(result.params)
    report = base.assign(net, result)
    assert report.fits()
    assert len(report.matched) == 2 * (13 + 2)
    assert all(base.in_trunk(name, net.params) for name in report.matched)


def test_vgg_16_computes_what_it_did(vgg_16):
    _, result, (picture, from_block5), block5 = vgg_16
    inputs = keras.Input((224, 224, 3))
    _, ends = vgg.vgg_16(inputs)
    model = keras.Model(inputs, ends)
    for variable in model.variables:
        variable.assign(result.variables[layers.variable_name(variable)])
    ours = model(images(224))["block5"]
    assert_close(ours, picture["conv5/conv5_3"])
    dense = keras.Model(ends["block5"], [ends["block6"], ends["block7"]])
    for name, ours in zip(("fc6", "fc7"), dense(block5), strict=True):
        assert ours.shape == (1, 14, 14, 1024)
        assert from_block5[name].shape == (1, 1, 1, 4096)
        theirs = from_block5[name][0, 0, 0, ::4]
        assert_close(ours[0, 6, 6], theirs)


# tf_slim's unit before the next stride: a block strides in its last one.
RESNET_ENDS = {
    "stride8": "block2/unit_3/bottleneck_v1",
    "stride16": "block3/unit_5/bottleneck_v1",
    "stride32": "block4",
}


def resnet_scope():
    """tf_slim's, but for the function that computes batch norm."""
    scope = resnet_v1.resnet_arg_scope()
    for arguments in scope.values():
        if "normalizer_fn" in arguments:
            arguments["normalizer_fn"] = batch_norm
    return scope


def build_resnet():
    inputs = v1.placeholder(tf.float32, (1, 300, 300, 3), "images")
    with tf_slim.arg_scope(resnet_scope()):
        _, ends = resnet_v1.resnet_v1_50(inputs, 10, is_training=False)
    return {
        ours: ends[f"resnet_v1_50/{name}"] for ours, name in RESNET_ENDS.items()
    }


def test_resnet_v1_50(tmp_path):
    path, (theirs,) = saved(
        build_resnet, value, tmp_path, [{"images": images(300)}]
    )
    net, report = imported(path, "ssd_300_resnet50")
    assert report.fits()
    assert len(report.matched) == 53 * 5  # a kernel and its batch norm
    assert report.unused == (
        "resnet_v1_50/logits/biases",
        "resnet_v1_50/logits/weights",
    )
    assert net.params.image_mean == VGG_MEAN
    assert net.params.trunk_variant == "slim"
    *_, ends = net.net(images(300))
    for name, expected in theirs.items():
        assert_close(ends[name], expected)


# Stride, channels and whether it is widened: Sandler et al., 2018, table 2.
MOBILENET_V2_BLOCKS = [
    (1, 16, 1),
    *((2, 24, 6), (1, 24, 6)),
    *((2, 32, 6), (1, 32, 6), (1, 32, 6)),
    *((2, 64, 6), (1, 64, 6), (1, 64, 6), (1, 64, 6)),
    *((1, 96, 6), (1, 96, 6), (1, 96, 6)),
    *((2, 160, 6), (1, 160, 6), (1, 160, 6), (1, 320, 6)),
]


def inverted_residual(net, stride, channels, widening):
    """With the scopes of mobilenet/conv_blocks.py; the layers are tf_slim's."""
    start, depth = net, net.shape[-1]
    with v1.variable_scope(None, "expanded_conv"):
        if widening > 1:
            net = tf_slim.conv2d(net, widening * depth, 1, scope="expand")
        wide = net
        net = tf_slim.separable_conv2d(
            net, None, 3, 1, stride=stride, scope="depthwise"
        )
        net = tf_slim.conv2d(
            net, channels, 1, activation_fn=None, scope="project"
        )
    return wide, net + start if net.shape == start.shape else net


def mobilenet_v2(net):
    """The trunk's end points: what is widened before a stride, and the end."""
    ends = {}
    net = tf_slim.conv2d(net, 32, 3, stride=2, scope="Conv")
    reached = 2
    for stride, channels, widening in MOBILENET_V2_BLOCKS:
        wide, net = inverted_residual(net, stride, channels, widening)
        if stride == 2:
            ends[f"stride{reached}"] = wide
            reached *= 2
    ends[f"stride{reached}"] = net = tf_slim.conv2d(
        net, 1280, 1, scope="Conv_1"
    )
    with v1.variable_scope("Logits"):
        tf_slim.conv2d(net, 10, 1, normalizer_fn=None, scope="Conv2d_1c_1x1")
    return ends


def build_mobilenet_v2():
    """With moving averages, as TF-Slim publishes it."""
    inputs = v1.placeholder(tf.float32, (1, 300, 300, 3), "images")
    with (
        tf_slim.arg_scope(
            [tf_slim.conv2d, tf_slim.separable_conv2d],
            activation_fn=tf.nn.relu6,
            normalizer_fn=batch_norm,
        ),
        v1.variable_scope("MobilenetV2"),
    ):
        ends = mobilenet_v2(inputs)
    v1.train.ExponentialMovingAverage(0.9).apply(v1.trainable_variables())
    return ends


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """Its checkpoint, and what tf_slim computed."""
    folder = tmp_path_factory.mktemp("mobilenet")
    feeds = [{"images": images(300) / 16}]
    path, (ends,) = saved(build_mobilenet_v2, value, folder, feeds)
    return path, ends


def test_mobilenet_v2(mobilenet):
    path, theirs = mobilenet
    net, report = imported(path, "ssd_300_mobilenet_v2")
    assert report.fits()
    assert len(report.matched) == 52 * 5
    assert report.unused == (
        "MobilenetV2/Logits/Conv2d_1c_1x1/biases",
        "MobilenetV2/Logits/Conv2d_1c_1x1/weights",
    )
    # -1..1, of mobilenet_v2's preprocessing.
    white = (np.array([0, 255]) - net.params.image_mean[0]) * (
        net.params.image_scale[0]
    )
    np.testing.assert_allclose(white, [-1, 1], rtol=1e-12)
    *_, ends = net.net(images(300) / 16)
    for name in ("stride8", "stride16", "stride32"):
        # 75 and 19 cells stride with one cell of padding more than even ones.
        assert ends[name].shape == theirs[name].shape
        assert_close(ends[name], theirs[name])


def test_averages_are_taken_on_request(mobilenet):
    path, _ = mobilenet
    names = {
        "Conv1/weights": "Conv/weights",
        "bn_Conv1/beta": "Conv/BatchNorm/beta",
        "Conv_1_bn/moving_mean": "Conv_1/BatchNorm/moving_mean",
        "expanded_conv_project/weights": "expanded_conv/project/weights",
        "block_16_depthwise_BN/gamma": (
            "expanded_conv_16/depthwise/BatchNorm/gamma"
        ),
        "block_3_depthwise/weights": (
            "expanded_conv_3/depthwise/depthwise_weights"
        ),
    }
    for ema in (False, True):
        tensors = slim.read(path)
        params = PRESETS["ssd_300_mobilenet_v2"]
        variables = slim.convert(tensors, params, ema).variables
        assert len(variables) == 52 * 5
        assert {name.split("/")[1] for name in tensors.unused} == {"Logits"}
        for ours, theirs in names.items():
            name = f"MobilenetV2/{theirs}"
            # Statistics of batch norm are no trainable variables.
            if ema and "moving" not in theirs:
                name += "/ExponentialMovingAverage"
            np.testing.assert_array_equal(
                variables[ours], value(name, variables[ours].shape)
            )


def test_averages_are_asked_for_in_vain():
    tensors = tf_checkpoint.Tensors(
        {"vgg_16/conv1/conv1_1/weights": np.zeros((3, 3, 3, 64))}
    )
    with pytest.raises(UserError, match="has no moving averages"):
        slim.convert(tensors, PRESETS["ssd_300_vgg"], ema=True)


@pytest.mark.parametrize(
    "scope, wanted, fitting",
    [
        ("vgg_16", "ssd_300_resnet50", "ssd_300_vgg, ssd_300_vgg_voc, "),
        ("resnet_v1_101", "ssd_300_resnet50", "ssd_300_resnet101"),
        ("MobilenetV2", "ssd_300_vgg", "ssd_300_mobilenet_v2, "),
        ("MobilenetV1", "ssd_300_mobilenet_v1", "no preset"),
    ],
)
def test_another_network_is_refused_by_name(scope, wanted, fitting):
    arrays = {
        f"{scope}/conv1/weights": np.zeros(3),
        "global_step": np.zeros(()),
    }
    with pytest.raises(UserError) as error:
        slim.convert(tf_checkpoint.Tensors(arrays), PRESETS[wanted])
    message = str(error.value)
    start = f"the checkpoint's {scope} does not fit --model_name={wanted}"
    assert message.startswith(start)
    assert f"it fits {fitting}" in message


def test_a_vgg_16_without_dense_layers_lacks_conv6():
    arrays = {"vgg_16/conv1/conv1_1/weights": np.zeros((3, 3, 3, 64))}
    tensors = tf_checkpoint.Tensors(arrays)
    result = slim.convert(tensors, PRESETS["ssd_300_vgg"])
    assert list(result.variables) == ["conv1/conv1_1/weights"]


def test_a_vgg_16_of_another_width_is_refused():
    shapes = {
        "fc6/weights": (7, 7, 512, 100),
        "fc6/biases": (100,),
        "fc7/weights": (1, 1, 100, 100),
        "fc7/biases": (100,),
    }
    arrays = {f"vgg_16/{n}": np.zeros(s) for n, s in shapes.items()}
    with pytest.raises(
        UserError, match=r"^fc6 weights have the shape .*100\), a VGG"
    ):
        slim.convert(tf_checkpoint.Tensors(arrays), PRESETS["ssd_300_vgg"])
