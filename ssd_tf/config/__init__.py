"""The settings of nets, training, evaluation and export; no TensorFlow."""

from ssd_tf.command.settings import check_choice

__all__ = ["check_choice"]
