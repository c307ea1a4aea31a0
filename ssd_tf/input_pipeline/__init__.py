"""Batches for training and evaluation: decode, augment, resize, whiten."""

from ssd_tf.input_pipeline.batches import make_for_eval, make_for_train

__all__ = ["make_for_eval", "make_for_train"]
