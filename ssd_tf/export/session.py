"""A SavedModel in a TF1 session, which is how TensorFlow Serving runs it.

`tf.saved_model.load` is no proof: it also runs models whose variables a
session does not find (keras issue 19274).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf


class SessionModel:
    """A loaded SavedModel with its signatures; a context manager."""

    def __init__(self, path: str | os.PathLike):
        """Loads it.

        Args:
          path: of one version.
        """
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default(), _without_warnings():
            loaded = tf.compat.v1.saved_model.load(
                self._session, [tf.saved_model.SERVING], str(path)
            )
        self.signatures = {
            name: signature
            for name, signature in loaded.signature_def.items()
            if signature.method_name == "tensorflow/serving/predict"
        }

    def __enter__(self) -> "SessionModel":
        return self

    def __exit__(self, *_) -> None:
        self._session.close()

    def run(
        self, signature_name: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Runs a signature on named arrays; its named outputs."""
        signature = self.signatures[signature_name]
        feed = {signature.inputs[name].name: x for name, x in inputs.items()}
        fetches = {name: x.name for name, x in signature.outputs.items()}
        return self._session.run(fetches, feed)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """TensorFlow calls its session loader old; its server has no other."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
