"""Hands on to `ssd_tf.training.curves`, for `python -m ssd_tf.curves`."""

from ssd_tf.training.curves import run

if __name__ == "__main__":
    run()
