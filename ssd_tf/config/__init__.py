"""The settings of nets, training and evaluation, each in one place."""

from ssd_tf.command.settings import check_choice

__all__ = ["check_choice"]
