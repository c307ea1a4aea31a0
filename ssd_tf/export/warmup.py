"""Requests that a server runs before it offers a version.

TensorFlow Serving refuses a version whose warm-up fails, so only requests go
there that have just been answered here.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from ssd_tf.export.runner import SessionModel

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
# Images in the largest request: what batching.config lets a server merge.
BATCH_SIZE = 8
_SCORE_THRESHOLD, _MAX_DETECTIONS = 0.5, 10


Request = tuple[str, Mapping[str, np.ndarray]]


def requests(
    images: Sequence[bytes], batch_size: int = BATCH_SIZE
) -> list[Request]:
    """Returns signature names and inputs: every signature but `raw`.

    Args:
      images: encoded; repeated to fill the batches.
      batch_size: of the larger requests; the others are of one image.
    """
    encoded = {
        size: np.array([images[i % len(images)] for i in range(size)], object)
        for size in sorted({1, batch_size})
    }
    found = []
    for size, batch in encoded.items():
        thresholds = np.full(size, _SCORE_THRESHOLD, np.float32)
        limits = np.full(size, _MAX_DETECTIONS, np.int32)
        found += [
            ("image_bytes", {"image_bytes": batch}),
            (
                "image_bytes_filtered",
                {
                    "image_bytes": batch,
                    "score_threshold": thresholds,
                    "max_detections": limits,
                },
            ),
        ]
    examples = np.array([_example(images[0])], object)
    pixels = tf.io.decode_image(
        images[0], channels=3, expand_animations=False
    ).numpy()
    return [
        *found,
        ("tf_example", {"input_tensor": examples}),
        ("image_tensor", {"input_tensor": pixels[None]}),
    ]


def _example(encoded):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    features = tf.train.Features(feature={"image/encoded": feature})
    return tf.train.Example(features=features).SerializeToString()


def run_and_record(
    folder: pathlib.Path,
    images: Sequence[bytes],
    default: str,
    batch_size: int = BATCH_SIZE,
) -> int:
    """Runs all requests as a server would, and writes them beside the model.

    Args:
      folder: of the SavedModel.
      images: encoded; none: nothing is run or written.
      default: the signature that is the default one, too.
      batch_size: of the larger requests.

    Returns:
      Number of requests written: 0 where tensorflow-serving-api is not
      installed.
    """
    if not images:
        return 0
    wanted = requests(images, batch_size)
    # To a session each name is a graph of its own that has to get warm.
    wanted += [
        (tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY, inputs)
        for name, inputs in wanted
        if name == default
    ]
    with SessionModel(folder) as session:
        for name, inputs in wanted:
            session.run(name, inputs)
    return record(folder / WARMUP_FILE, wanted)


def record(path: pathlib.Path, wanted: Sequence[Request]) -> int:
    """Writes requests as TensorFlow Serving reads them; see above."""
    try:
        from tensorflow_serving.apis import (
            predict_pb2,
            prediction_log_pb2,
        )
    except ImportError:
        return 0
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, inputs in wanted:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = name
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
    return len(wanted)
