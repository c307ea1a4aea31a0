"""Distribution of a training over devices and processes."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from ssd_tf.command import UserError


def choose_strategy() -> tf.distribute.Strategy:
    """Returns several hosts by TF_CONFIG, else all GPUs, else one device.

    Must be called before TensorFlow has done anything else.

    Raises:
      UserError: TF_CONFIG is not JSON, or its cluster lacks this process.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UserError(f"TF_CONFIG={text}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise UserError(f"TF_CONFIG={text}: expected a cluster and a task")
    if "cluster" in config:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"TF_CONFIG={text}: {error}") from error
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def explained_end(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns the end of another process of the run into one line.

    Raises:
      UserError: another process has ended or cannot be reached.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if is_alone(strategy):
            raise
        raise UserError(
            "another process of the run has ended or cannot be reached; its "
            "own message tells why"
        ) from error


def is_alone(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process trains alone."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.cluster_spec()


def worker_of(strategy: tf.distribute.Strategy) -> int | None:
    """Returns the number of this process; None when it trains alone."""
    return None if is_alone(strategy) else strategy.cluster_resolver.task_id


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this is the one process that writes to the train_dir."""
    if is_alone(strategy):
        return True
    resolver = strategy.cluster_resolver
    if resolver.task_type == "chief":
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return not has_chief and resolver.task_id == 0


def make_any_process(
    strategy: tf.distribute.Strategy,
) -> Callable[[bool], bool]:
    """Makes a function that tells whether a condition holds in any process.

    Every process calls it with its own condition and gets the same answer.
    """
    if is_alone(strategy):
        return bool

    @tf.function
    def count(condition):
        each = strategy.run(tf.identity, args=(condition,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)

    return lambda condition: bool(count(tf.cast(condition, tf.float32)))
