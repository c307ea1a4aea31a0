"""Packaging of ssd_tf.

`datasets/` stands at the top of the checkout, as it does in SSD-TensorFlow,
but it is installed and imported as `ssd_tf.datasets`: a top-level package
named `datasets` would overwrite Hugging Face's.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["ssd_tf", "ssd_tf.*"]),
        "ssd_tf.datasets",
        *(f"ssd_tf.datasets.{name}" for name in find_packages("datasets")),
    ],
    package_dir={"ssd_tf.datasets": "datasets"},
    py_modules=["train_ssd", "eval_ssd"],
)
