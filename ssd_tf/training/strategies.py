"""On which devices a training runs; knows nothing of what is trained."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from ssd_tf.command import UserError


def choose_strategy() -> tf.distribute.Strategy:
    """Several hosts by TF_CONFIG, several GPUs if seen, else one device.

    Must be called before TensorFlow has done anything else.

    Raises:
      UserError: TF_CONFIG is not JSON, or describes no cluster with us in it.
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
    """Inside, the end of another process is told in one line.

    Raises:
      UserError: instead of what the exchange of values raises then.
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
    """True when no other process takes part."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.cluster_spec()


def worker_of(strategy: tf.distribute.Strategy) -> int | None:
    """Number of this process among the workers; None when it is alone."""
    return None if is_alone(strategy) else strategy.cluster_resolver.task_id


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
