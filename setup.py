"""Packaging of ssd_tf.

`datasets/` stands at the top of the checkout, as it does in SSD-TensorFlow,
but it is installed and imported as `ssd_tf.datasets`: a top-level package
named `datasets` would overwrite Hugging Face's.
"""

from setuptools import setup

setup(
    packages=[
        "ssd_tf",
        "ssd_tf.exporting",
        "ssd_tf.metrics",
        "ssd_tf.nets",
        "ssd_tf.weights",
        "ssd_tf.datasets",
    ],
    package_dir={"ssd_tf.datasets": "datasets"},
    py_modules=["train_ssd", "eval_ssd"],
)
