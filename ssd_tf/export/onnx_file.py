"""ONNX files: pixels in, detections out, suppression inside, any batch.

The input is `images` float32 `[batch, H, W, 3]`, RGB in 0..255; the outputs
have the package's names, shapes and types.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import onnx
import tensorflow as tf

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.export import saved_model
from ssd_tf.export.model import Model, describe
from ssd_tf.export.signatures import Signature
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.multibox import detection

# The newest that tf2onnx 1.17 knows to write completely.
OPSET = 17
# Axes behind the batch in the outputs that are not of fixed length.
_BATCH = "batch"


class ConversionError(Exception):
    """tf2onnx has not made a model that runs."""


def convert(
    model: Model, options: DetectionParams = DetectionParams()
) -> onnx.ModelProto:
    """Returns a net as an ONNX model.

    Args:
      model: with its weights.
      options: of the detections.

    Raises:
      ConversionError: with what tf2onnx said.
    """
    shape = (None, *model.net.params.img_shape, 3)
    spec = tf.TensorSpec(shape, tf.float32, name="images")

    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "saved_model"
        saved_model.write_signatures(
            model.net.model,
            {"detect": Signature(_detect(model.net, options), (spec,))},
            source,
            "detect",
        )
        converted = _run_tf2onnx(source, pathlib.Path(folder) / "model.onnx")
    _name_axes(converted)
    _describe(converted, model, options)
    onnx.checker.check_model(converted)
    return converted


def _detect(net, options):
    def detect(images):
        whitened = preprocessing.whiten(images, net.params)
        outputs = net.model(whitened, training=False)
        predictions, boxes = detection.decode(
            outputs["logits"],
            outputs["localisations"],
            net.flat_anchors,
            net.params.prior_scaling,
        )
        best = detection.select_top_k(
            predictions, boxes, options.select_threshold, options.top_k
        )
        return _keep_best(best, options)._asdict()

    return detect


def _keep_best(best, options):
    """`detection.keep_best` by the one op that ONNX has for it.

    Its loop over images would become an ONNX Loop, which OpenVINO does not
    read. A class of an image is a row of a batch here.
    """
    _, num_classes, candidates, _ = best.boxes.shape
    found = tf.image.combined_non_max_suppression(
        tf.reshape(best.boxes, [-1, candidates, 1, 4]),
        tf.reshape(best.scores, [-1, candidates, 1]),
        max_output_size_per_class=candidates,
        max_total_size=candidates,
        iou_threshold=options.nms_threshold,
        score_threshold=0.0,
        clip_boxes=False,
    )
    total = num_classes * candidates
    scores, kept = tf.math.top_k(
        tf.reshape(found.nmsed_scores, [-1, total]),
        min(options.keep_top_k, total),
    )
    boxes = tf.gather(
        tf.reshape(found.nmsed_boxes, [-1, total, 4]), kept, batch_dims=1
    )
    real = scores > 0
    return detection.DetectedBatch(
        tf.clip_by_value(boxes, 0.0, 1.0),
        scores,
        tf.where(real, kept // candidates + 1, 0),
        tf.reduce_sum(tf.cast(real, tf.int32), axis=1),
    )


def _run_tf2onnx(source, target):
    """In a process of its own: it changes TensorFlow's global state.

    Where it does not know an op it says so, writes the file all the same and
    ends with 0.
    """
    command = [sys.executable, "-m", "tf2onnx.convert", f"--opset={OPSET}"]
    command += ["--saved-model", str(source), "--output", str(target)]
    done = subprocess.run(
        [*command, "--signature_def", saved_model.DEFAULT],
        capture_output=True,
        text=True,
    )
    if done.returncode or not target.is_file():
        lines = done.stderr.strip().splitlines() or ["nothing"]
        raise ConversionError(f"tf2onnx said: {lines[-1]}")
    converted = onnx.load(str(target))
    unknown = {
        node.op_type
        for node in converted.graph.node
        if node.domain not in ("", "ai.onnx.ml")
    }
    if unknown:
        raise ConversionError(f"tf2onnx left ops of TensorFlow: {unknown}")
    return converted


def _name_axes(converted):
    """`batch` in place of invented names of the first axis."""
    for value in (*converted.graph.input, *converted.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH


def _describe(converted, model, options):
    """Adds class names and model.json to the file's metadata."""
    converted.producer_name = "ssd_tf"
    onnx.helper.set_model_props(
        converted,
        {
            "class_names": "\n".join(model.class_names),
            "model.json": json.dumps(describe(model, options)),
        },
    )
