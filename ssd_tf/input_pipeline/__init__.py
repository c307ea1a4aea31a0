"""Batches for training and evaluation: decode, augment, resize, whiten."""
