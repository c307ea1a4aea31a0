"""Nets with weights of their own, and starts from them."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
import train_process

from ssd_tf.config import run as config
from ssd_tf.config.training import StartParams
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import start as starts
from ssd_tf.weights import transfer

BEFORE = ("cat", "dog", "cow")
AFTER = ("cow", "fox", "cat", "emu", "ant")


def settings_of(net, class_names, **changes):
    settings = train_process.settings(net, class_names, 2)
    params = dataclasses.replace(settings.params, **changes)
    return dataclasses.replace(settings, params=params)


def random_net(settings, seed=0):
    """A net in which every variable has values of its own."""
    net, values = SSDNet(settings.params), np.random.RandomState(seed)
    for name, variable in net.variables_by_name().items():
        if not name.endswith(("weights", "moving_variance", "gamma")):
            variable.assign(values.normal(0, 0.1, variable.shape))
        if name.endswith("moving_variance"):
            variable.assign(values.uniform(0.5, 2, variable.shape))
    return net


def save(net, settings, folder, **changes):
    checkpoint.save_weights(net, folder)
    settings = dataclasses.replace(settings, params=net.params, **changes)
    config.save(settings, folder)
    return folder


def write_checkpoint(path, tensors):
    """Writes a TF1 checkpoint, by names."""
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def write_tf1(net, prefix, scope, without=(), **others):
    """A checkpoint by names, as TensorFlow 1 writes it, with a slot."""
    arrays = {
        f"{scope}/{name}": each.numpy()
        for name, each in net.variables_by_name().items()
        if not name.startswith(without or "-")
    }
    arrays["global_step"] = np.int64(7)
    arrays |= {f"{scope}/{name}": array for name, array in others.items()}
    arrays[f"{scope}/conv7/biases/Momentum"] = np.ones(1024, np.float32)
    write_checkpoint(prefix, arrays)
    return prefix


def saved_vgg(folder):
    """Saves a VGG net of three layers: (folder, its settings, the net)."""
    settings = settings_of(
        "vgg", BEFORE, image_mean=(1.0, 2.0, 3.0), anchor_clip="sizes"
    )
    net = random_net(settings)
    return save(net, settings, folder), settings, net


def begun(path, settings, **options):
    """A new net from a checkpoint: (settings, net, start, report)."""
    settings, weights = starts.from_checkpoint(
        path, settings, StartParams(**options)
    )
    keras.utils.set_random_seed(5)
    net = SSDNet(settings.params)
    return settings, net, weights, transfer.apply(net, weights)


def values(net):
    return {name: x.numpy() for name, x in net.variables_by_name().items()}
