"""TFLite files: their graph, their precision, and what converters leave out.

The input is RGB in 0..255 at the network's size. The outputs are those of the
op `TFLite_Detection_PostProcess`, in the order in which TF Object Detection
API's mobile clients read them, or the raw heads for a suppression of one's
own.
"""

import itertools
import json
import pathlib
import tempfile
import warnings
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder, flexbuffers

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import description
from ssd_tf.export import runner as heads
from ssd_tf.export import saved_model, tflite_metadata
from ssd_tf.export.model import Model, describe
from ssd_tf.export.signatures import Signature
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.multibox.anchor_axis import flatten_layers

# Kind -> how large a number a weight is.
KINDS = {
    "tflite": "float32",
    "tflite_float16": "float16 weights",
    "tflite_dynamic": "int8 weights, activations quantised as they come",
    "tflite_int8": "int8 weights and activations, uint8 pixels in",
}
OUTPUTS = (
    "detection_boxes",
    "detection_classes",
    "detection_scores",
    "num_detections",
)
_POSTPROCESS = "TFLite_Detection_PostProcess"
_SIGNATURE = "detect"


class ConversionError(Exception):
    """There is nothing to convert by, or TensorFlow's converter has failed."""


def convert(
    model: Model,
    kind: str,
    options: DetectionParams = DetectionParams(),
    raw_heads: bool = False,
    calibration: Iterable[np.ndarray] = (),
) -> bytes:
    """Returns a net as the contents of a TFLite file.

    Args:
      model: with its weights.
      kind: one of `KINDS`.
      options: of the detections; `top_k` has no counterpart in the op.
      raw_heads: logits `[1, A, C]`, localisations `[1, A, 4]` and anchors
        `[1, A, 4]` (cy, cx, h, w) instead of detections.
      calibration: float32 images `[H, W, 3]` in 0..255, as many as the ranges
        of activations should be learnt from; for `tflite_int8`.

    Raises:
      ConversionError: with what the converter said, or there are no images.
    """
    if kind == "tflite_int8":
        calibration = _with_all_pixels(calibration)
    function = _raw(model.net) if raw_heads else _detect(model.net, options)
    shape = (1, *model.net.params.img_shape, 3)
    spec = tf.TensorSpec(shape, tf.float32, name="images")
    with tempfile.TemporaryDirectory() as folder:
        saved_model.write_signatures(
            model.net.model,
            {_SIGNATURE: Signature(function, (spec,))},
            pathlib.Path(folder),
            _SIGNATURE,
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[saved_model.DEFAULT]
        )
        _choose_precision(converter, kind, calibration)
        # The op is custom to the converter; every runtime has it.
        converter.allow_custom_ops = not raw_heads
        with warnings.catch_warnings():
            # The converter calls its own interpreter, which warns of its age.
            warnings.simplefilter("ignore", UserWarning)
            content = _run(converter)
    return _finish(content, model, options, raw_heads)


def _run(converter):
    try:
        return converter.convert()
    except OSError:
        raise
    except Exception as error:  # TensorFlow's own have no common base
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionError(f"the converter said: {lines[0]}") from error


def _with_all_pixels(images):
    """Returns images in which the darkest and the brightest pixel occur.

    The range of the input is learnt from them, too: were all of them dark, a
    byte of 255 would mean less.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise ConversionError("there is no image to learn the ranges from")
    first = np.array(first, np.float32)
    first[0, 0], first[-1, -1] = 0.0, 255.0
    return itertools.chain([first], images)


def _choose_precision(converter, kind, calibration):
    if kind == "tflite":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "tflite_float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "tflite_int8":
        converter.representative_dataset = lambda: (
            {"images": image[None].astype(np.float32)} for image in calibration
        )
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
        converter.inference_input_type = tf.uint8


def _heads(net, images):
    """Returns probabilities [1, A, C] or logits, and localisations [1, A,
    4].
    """
    whitened = preprocessing.whiten(images, net.params)
    outputs = net.model(whitened, training=False)
    return (
        flatten_layers(outputs["logits"], 1),
        flatten_layers(outputs["localisations"], 1),
    )


def _raw(net):
    def raw(images):
        logits, localisations = _heads(net, images)
        anchors = tf.constant(net.flat_anchors, tf.float32)[None]
        return {
            "anchors": anchors,
            "localisations": localisations,
            "logits": logits,
        }

    return raw


def _detect(net, options):
    @tf.function(experimental_implements=_attributes(net.params, options))
    def postprocess(box_encodings, class_predictions, anchors):
        # The converter puts the op in place of this function.
        return tuple(tf.constant(0.0) for _ in OUTPUTS)

    def detect(images):
        logits, localisations = _heads(net, images)
        found = postprocess(
            tf.gather(localisations, [1, 0, 3, 2], axis=-1),  # ty, tx, th, tw
            tf.nn.softmax(logits),
            tf.constant(net.flat_anchors, tf.float32),
        )
        return dict(zip(OUTPUTS, found, strict=True))

    return detect


def _attributes(params, options):
    """Returns the op with its attributes, in the words of a NodeDef."""
    scale_x, scale_y, scale_w, scale_h = (1 / x for x in params.prior_scaling)
    attributes = {
        "max_detections": options.keep_top_k,
        "max_classes_per_detection": 1,
        "use_regular_nms": True,
        "nms_score_threshold": options.select_threshold,
        "nms_iou_threshold": options.nms_threshold,
        "y_scale": scale_y,
        "x_scale": scale_x,
        "h_scale": scale_h,
        "w_scale": scale_w,
        "num_classes": params.num_classes - 1,
    }
    words = (
        f'attr {{ key: "{name}" value {{ {_typed(value)} }} }}'
        for name, value in attributes.items()
    )
    return f'name: "{_POSTPROCESS}" {" ".join(words)}'


def _typed(value):
    if isinstance(value, bool):
        return f"b: {str(value).lower()}"
    return f"i: {value}" if isinstance(value, int) else f"f: {value}"


def _finish(content, model, options, raw_heads):
    """Outputs in their order, all detections of a class, metadata, labels."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    _order_outputs(tree, heads.NAMES if raw_heads else OUTPUTS)
    _keep_all_of_a_class(tree, options)
    _add_metadata(tree, model, raw_heads)
    builder = Builder()
    builder.Finish(tree.Pack(builder), b"TFL3")
    return description.pack(
        bytes(builder.Output()),
        {
            description.LABEL_MAP: "".join(
                f"{name}\n" for name in model.class_names
            ),
            description.MODEL_FILE: json.dumps(describe(model, options)),
        },
    )


def _order_outputs(tree, names):
    """Restores the order of the outputs, which the converter sorts by name."""
    by_name = {
        each.name.decode(): each.tensorIndex
        for each in tree.signatureDefs[0].outputs
    }
    tree.subgraphs[0].outputs = [by_name[name] for name in names]


def _keep_all_of_a_class(tree, options):
    """Raises the op's limit of 100 per class, which the converter drops."""
    for operator in tree.subgraphs[0].operators:
        code = tree.operatorCodes[operator.opcodeIndex].customCode
        if code == _POSTPROCESS.encode():
            given = flexbuffers.Loads(bytes(operator.customOptions))
            given["detections_per_class"] = options.keep_top_k
            operator.customOptions = list(flexbuffers.Dumps(given))


def _add_metadata(tree, model, raw_heads):
    height, width = model.net.params.img_shape
    buffer = schema.BufferT()
    buffer.data = list(
        tflite_metadata.build(
            model.net.params.model_name,
            f"SSD detector of {len(model.class_names)} classes",
            height,
            width,
            heads.NAMES if raw_heads else (),
        )
    )
    tree.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = "TFLITE_METADATA"
    entry.buffer = len(tree.buffers) - 1
    tree.metadata = [*(tree.metadata or []), entry]
