"""Models of keras.applications, and every layout in which Keras saves them."""

import dataclasses
import functools

import h5py
import keras
import numpy as np

from ssd_tf.config.presets import (
    PRESETS,
    SSD_300_MOBILENET_V2_035,
    SSD_300_RESNET50,
    SSD_300_VGG,
)
from ssd_tf.nets import applications


def preset(trunk, side=224):
    """A preset with another trunk and a smaller input."""
    base = {
        "vgg_16": SSD_300_VGG,
        "resnet_v1_50": SSD_300_RESNET50,
        "MobileNetV2": SSD_300_MOBILENET_V2_035,
    }.get(trunk, PRESETS["ssd_300_mobilenet_v2"])
    return dataclasses.replace(base, trunk=trunk, img_shape=(side, side))


KERAS_NAMES = {"vgg_16": "VGG16", "resnet_v1_50": "ResNet50"}


@functools.cache
def classifier(trunk, side=224):
    """keras.applications' model for `preset(trunk)`, without its top."""
    width = preset(trunk).width_multiplier
    keras.utils.set_random_seed(1)
    make = applications.model_function(KERAS_NAMES.get(trunk, trunk))
    return randomized(
        make(
            include_top=False,
            weights=None,
            input_shape=(side, side, 3),
            **({} if width == 1 else {"alpha": width}),
        )
    )


def randomized(model):
    """No two channels alike; batch norm keeps the picture visible."""
    random = np.random.default_rng(5)
    for variable in model.weights:
        if variable.name in ("bias", "beta", "gamma"):
            noise = random.uniform(-0.2, 0.2, variable.shape)
            variable.assign(variable.numpy() + noise)
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for norm in norms:
        norm.momentum = 0.0  # the next picture sets the statistics
    model(preprocessed(model, picture(model.input_shape[1])), training=True)
    for norm in norms:
        # With its whole mean taken away from every layer, fifty random layers
        # would make a thousandfold of a pixel's rounding error.
        mean = norm.moving_mean.numpy()
        norm.moving_variance.assign_add(mean**2)
        norm.moving_mean.assign(mean / 2)
    return model


def preprocessed(model, images):
    """Pixels as keras.applications' own function whitens them."""
    module = {
        "vgg16": keras.applications.vgg16,
        "resnet50": keras.applications.resnet50,
        "MobileNetV3Large": keras.applications.mobilenet_v3,
        "efficientnetv2-b0": keras.applications.efficientnet_v2,
        "densenet121": keras.applications.densenet,
    }.get(model.name, keras.applications.mobilenet_v2)
    return module.preprocess_input(images.copy())


def picture(side, seed=7):
    """RGB pixels `[1, side, side, 3]`, 0..255; red is brighter than blue."""
    noise = np.random.default_rng(seed).uniform(0, 1, (1, side, side, 3))
    return (noise * (255, 128, 64)).astype(np.float32)


def keras_2_name(layer, variable):
    """`conv1/kernel:0`, as Keras 2 named variables."""
    kind = type(layer).__name__
    if kind == "DepthwiseConv2D" and variable.name == "kernel":
        return f"{layer.name}/depthwise_kernel:0"
    return f"{layer.name}/{variable.name}:0"


def keras_1_name(layer, variable):
    """As in the published files of VGG16."""
    letter = {"kernel": "W", "bias": "b"}[variable.name]
    return f"{layer.name}_{letter}_1:0"


def write_published(model, path, weight_name=keras_2_name, layer_name=str):
    """Writes the `.h5` that keras.applications publishes."""
    with h5py.File(path, "w") as file:
        names = [layer_name(layer.name) for layer in model.layers]
        # Attributes of more than 64 KiB come in parts.
        file.attrs["layer_names0"] = [n.encode() for n in names[:2]]
        file.attrs["layer_names1"] = [n.encode() for n in names[2:]]
        for layer, name in zip(model.layers, names, strict=True):
            group = file.create_group(name)
            weights = [weight_name(layer, v) for v in layer.weights]
            group.attrs["weight_names"] = [w.encode() for w in weights]
            for weight, variable in zip(weights, layer.weights, strict=True):
                group[weight] = variable.numpy()


def without_names(path):
    """Makes a `.weights.h5` what older versions of Keras 3 wrote."""

    def strip(_, node):
        node.attrs.pop("name", None)

    with h5py.File(path, "a") as file:
        file.visititems(strip)


def save(model, folder, kind):
    """Writes a model's weights in one of the layouts."""
    suffix = {"keras": ".keras", "model": ".h5"}.get(kind, ".weights.h5")
    path = folder / f"saved{'.h5' if kind == 'published' else suffix}"
    if kind == "published":
        write_published(model, path)
    elif kind in ("keras", "model"):
        model.save(path)
    else:
        model.save_weights(path)
        if kind == "unnamed":
            without_names(path)
    return path


DENSE = {
    "fc1": ((25088, 4096), (4096,)),
    "fc2": ((4096, 4096), (4096,)),
    "predictions": ((4096, 10), (10,)),
}


def add_dense(path, group_of, names):
    """Adds a VGG16's top to the file of its convolutions, mostly zeros."""
    with h5py.File(path, "a") as file:
        groups = [file.create_group(group_of[layer]) for layer in DENSE]
        for group, layer in zip(groups, DENSE, strict=True):
            for name, shape in zip(names(layer), DENSE[layer], strict=True):
                # In chunks, so that zeros need no room on the disk.
                group.create_dataset(name, shape, "f4", chunks=True)
        fc1, fc2 = (
            [group[name] for name in names(layer)]
            for group, layer in zip(groups[:2], DENSE, strict=False)
        )
        # Row 3, column 6, channel 5 to unit 8; row 1 is not kept.
        fc1[0][(3 * 7 + 6) * 512 + 5, 8] = 2.0
        fc1[0][(1 * 7 + 6) * 512 + 5, 8] = 3.0
        fc2[1][12] = 4.0


def vgg_as_published(path):
    """A VGG16 with 10 classes; returns the names behind fc2."""
    write_published(classifier("vgg_16"), path, keras_1_name)

    def names(layer):
        return f"{layer}_W_1:0", f"{layer}_b_1:0"

    add_dense(path, {layer: layer for layer in DENSE}, names)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names2"] = [layer.encode() for layer in DENSE]
        for layer in DENSE:
            file[layer].attrs["weight_names"] = [
                name.encode() for name in names(layer)
            ]
    return "predictions/predictions_W_1", "predictions/predictions_b_1"


def vgg_without_names(path):
    """The same as older versions of Keras 3 wrote it."""
    classifier("vgg_16").save_weights(path)
    without_names(path)
    kinds = ("dense", "dense_1", "dense_2")
    groups = [f"layers/{kind}/vars" for kind in kinds]
    add_dense(path, dict(zip(DENSE, groups, strict=True)), lambda _: ("0", "1"))
    return "layers/dense_2/vars/0", "layers/dense_2/vars/1"
