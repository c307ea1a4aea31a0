"""Hands on to `ssd_tf.training.replay`, for `python -m ssd_tf.replay`."""

from ssd_tf.training.replay import run

if __name__ == "__main__":
    run()
