"""Runs an exported file in a process of its own, as its users will.

    python -m ssd_tf.export.runner RUNTIME FILE IMAGES.npz FOUND.npz BATCH

IMAGES.npz has `pixels` float32 [N, H, W, 3] in 0..255 at the size of the
network, and the encoded images one by one. FOUND.npz gets the detections and
`seconds` of every batch.
"""

import functools
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from ssd_tf.detect import runtimes

Found = dict[str, np.ndarray]
# A batch of pixels and the same images encoded -> detections.
Run = Callable[[np.ndarray, Sequence[bytes]], Found]
_WARMUPS = 3


def _saved_model(path) -> Run:
    from ssd_tf.export.session import SessionModel

    session = SessionModel(path)

    def run(_, encoded):
        inputs = {"image_bytes": np.array(encoded, object)}
        return session.run("image_bytes", inputs)

    return run


def _of(load, path) -> Run:
    runtime = load(path)
    return lambda pixels, _: runtime.run(pixels)


def _raw_heads(path) -> Run:
    from ssd_tf.export import raw_heads

    run = raw_heads.load(path)
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
    """`run_all` of a file in a fresh process.

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
    """What the exception of a process was called, and its first line."""
    told = said.rpartition("\nTraceback ")[2].splitlines()
    raised = [
        line for line in told if re.match(r"[\w.]+(Error|Exception)", line)
    ]
    return (
        raised[-1].removeprefix("ssd_tf.command.UserError: ") if raised else ""
    )


def main(runtime: str, path: str, images: str, found: str, batch: str) -> None:
    """What the process does."""
    with np.load(images) as arrays:
        pixels = arrays["pixels"]
        encoded = [
            arrays[f"encoded{index}"].tobytes() for index in range(len(pixels))
        ]
    run = RUNTIMES[runtime](path)
    np.savez(found, **run_all(run, pixels, encoded, int(batch)))


if __name__ == "__main__":
    main(*sys.argv[1:])
