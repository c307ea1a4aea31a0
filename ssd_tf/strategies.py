"""On which devices a training runs; knows nothing of what is trained."""

import json
import os

import tensorflow as tf


def choose_strategy() -> tf.distribute.Strategy:
    """Several hosts by TF_CONFIG, several GPUs if seen, else one device.

    Must be called before TensorFlow has done anything else.
    """
    if "cluster" in json.loads(os.environ.get("TF_CONFIG") or "{}"):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """True on the one process that writes to the train_dir."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return True
    if resolver.task_type == "chief":
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return not has_chief and resolver.task_id == 0
