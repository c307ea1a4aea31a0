"""On which devices a training runs; knows nothing of what is trained."""

import json
import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from ssd_tf.command import UserError


def choose_strategy() -> tf.distribute.Strategy:
    """Several hosts by TF_CONFIG, several GPUs if seen, else one device.

    Must be called before TensorFlow has done anything else.

    Raises:
      UserError: TF_CONFIG is not JSON.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        several_hosts = "cluster" in json.loads(text)
    except ValueError as error:
        raise UserError(f"TF_CONFIG={text}: not JSON ({error})") from None
    if several_hosts:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_alone(strategy: tf.distribute.Strategy) -> bool:
    """True when no other process takes part."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.cluster_spec()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """True on the one process that writes to the train_dir."""
    if is_alone(strategy):
        return True
    resolver = strategy.cluster_resolver
    if resolver.task_type == "chief":
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return not has_chief and resolver.task_id == 0


def make_any(
    strategy: tf.distribute.Strategy,
) -> Callable[[Sequence[bool]], list[bool]]:
    """What is true in some process, the same answer in all of them.

    Returns:
      A function of as many conditions in every process.
    """
    if is_alone(strategy):
        return list

    @tf.function
    def count(conditions):
        return strategy.reduce(
            tf.distribute.ReduceOp.SUM,
            strategy.run(tf.identity, args=(conditions,)),
            axis=None,
        )

    return lambda conditions: [
        bool(number) for number in count(tf.cast(conditions, tf.float32))
    ]
