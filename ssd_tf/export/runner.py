"""Runs an exported file in a process of its own, as its users will.

    python -m ssd_tf.export.runner RUNTIME FILE IMAGES.npz FOUND.npz BATCH

IMAGES.npz has `pixels` float32 [N, H, W, 3] in 0..255 at the size of the
network, and the encoded images one by one. FOUND.npz gets the detections and
`seconds` of every batch.
"""

import contextlib
import functools
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.detect import description, runtimes
from ssd_tf.detect.runtimes import Quantization, from_pixels, stack

Found = dict[str, np.ndarray]
# A batch of pixels and the same images encoded -> detections.
Run = Callable[[np.ndarray, Sequence[bytes]], Found]
_WARMUPS = 3


def _saved_model(path) -> Run:

    session = SessionModel(path)

    def run(_, encoded):
        inputs = {"image_bytes": np.array(encoded, object)}
        return session.run("image_bytes", inputs)

    return run


def _of(load, path) -> Run:
    runtime = load(path)
    return lambda pixels, _: runtime.run(pixels)


def _raw_heads(path) -> Run:

    run = load(path)
    return lambda pixels, _: run(pixels)


TENSORFLOW, ONNX_RUNTIME, OPENVINO = "TensorFlow", "ONNX Runtime", "OpenVINO"
LITERT, RAW_HEADS = "LiteRT", "LiteRT, raw heads"
# Name of a runtime -> from a file to a function.
RUNTIMES: dict[str, Callable[[str], Run]] = {
    TENSORFLOW: _saved_model,
    LITERT: functools.partial(_of, runtimes.load_tflite),
    RAW_HEADS: _raw_heads,
    ONNX_RUNTIME: functools.partial(_of, runtimes.load_onnx),
    OPENVINO: functools.partial(_of, runtimes.load_openvino),
}


def run_all(
    run: Run, pixels: np.ndarray, encoded: Sequence[bytes], batch_size: int
) -> Found:
    """Runs all images in batches; the last one may be smaller.

    Returns:
      Detections by their names, and `seconds` float64 `[batches]`.
    """
    for _ in range(_WARMUPS):
        run(pixels[:batch_size], encoded[:batch_size])
    found, seconds = [], []
    for start in range(0, len(pixels), batch_size):
        part = slice(start, start + batch_size)
        began = time.perf_counter()
        found.append(run(pixels[part], encoded[part]))
        seconds.append(time.perf_counter() - began)
    stacked = {
        name: np.concatenate([each[name] for each in found])
        for name in runtimes.NAMES
    }
    return stacked | {"seconds": np.array(seconds)}


def save_images(
    path: pathlib.Path, pixels: np.ndarray, encoded: Sequence[bytes]
) -> None:
    """Writes IMAGES.npz."""
    arrays = {
        f"encoded{index}": np.frombuffer(image, np.uint8)
        for index, image in enumerate(encoded)
    }
    np.savez(path, pixels=pixels, **arrays)


class RunError(Exception):
    """A model file does not run."""


def run_in_process(
    runtime: str,
    path: pathlib.Path,
    images: pathlib.Path,
    batch_size: int = 1,
) -> Found:
    """Runs `run_all` of a file in a fresh process.

    Args:
      runtime: one of `RUNTIMES`.
      path: of the model.
      images: from `save_images`.
      batch_size: of the requests.

    Raises:
      RunError: with the exception that ended it.
    """
    found = images.with_name("found.npz")
    command = [sys.executable, "-m", __name__, runtime, str(path)]
    command += [str(images), str(found), str(batch_size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunError(_reason(done.stderr) or f"ended with {done.returncode}")
    with np.load(found) as arrays:
        return dict(arrays)


def _reason(said):
    """Returns the name and first line of a process's exception."""
    told = said.rpartition("\nTraceback ")[2].splitlines()
    raised = [
        line for line in told if re.match(r"[\w.]+(Error|Exception)", line)
    ]
    return (
        raised[-1].removeprefix("ssd_tf.command.UserError: ") if raised else ""
    )


def main(runtime: str, path: str, images: str, found: str, batch: str) -> None:
    """Runs a file on images, in the process of its own."""
    with np.load(images) as arrays:
        pixels = arrays["pixels"]
        encoded = [
            arrays[f"encoded{index}"].tobytes() for index in range(len(pixels))
        ]
    run = RUNTIMES[runtime](path)
    np.savez(found, **run_all(run, pixels, encoded, int(batch)))


NAMES = ("logits", "localisations", "anchors")


def load(
    path: str | os.PathLike,
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Loads a file; its images are run one by one.

    Returns:
      A function from RGB float32 `[B, H, W, 3]` in 0..255 to detections, with
      the thresholds that the file's model.json states.

    Raises:
      UserError: it has no model.json, or no raw heads.
    """
    detect = _detect(path)
    litert = command.import_extra("ai_edge_litert.interpreter", "export")
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    missing = {*NAMES} - {*runner.get_output_details()}
    if missing:
        raise UserError(f"{path}: has no output {sorted(missing)[0]}")
    ((given, details),) = runner.get_input_details().items()
    quantization = Quantization(*details["quantization"])

    def run_one(image: np.ndarray) -> dict[str, np.ndarray]:
        pixels = from_pixels(image[None], details["dtype"], quantization)
        heads = runner(**{given: pixels})
        found = detect(*(heads[name] for name in NAMES))
        return {key: x.numpy() for key, x in found._asdict().items()}

    return lambda images: stack([run_one(image) for image in images])


def _detect(path):
    """Returns the function from the three outputs to detections."""
    stated = description.load(path)
    if stated is None:
        raise UserError(f"{path}: has no model.json inside; export it again")
    import tensorflow as tf

    from ssd_tf.multibox import detection

    detect = functools.partial(
        detection.detect,
        prior_scaling=stated["anchors"]["prior_scaling"],
        **stated["detection"],
    )
    return tf.function(
        lambda logits, localisations, anchors: detect(
            logits, localisations, anchors[0]
        )
    )


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
    """Yields TensorFlow calls its session loader old; its server has no
    other.
    """
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    main(*sys.argv[1:])
