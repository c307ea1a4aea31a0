"""Hands on to `ssd_tf.weights`, for `python -m ssd_tf.import_weights`."""

from ssd_tf.weights.__main__ import run

if __name__ == "__main__":
    run()
