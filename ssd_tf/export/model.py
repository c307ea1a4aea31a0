"""model.json: what a client has to know of an exported model."""

import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

from ssd_tf.command import UserError, versions
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet

FORMAT_VERSION = 1
_METRICS = ("AP_VOC07/mAP", "AP_VOC12/mAP")
_METRICS_OF = ("num_images", "split", "dataset_dir", "ground_truth_sha256")


class Model(NamedTuple):
    """A net to be exported."""

    net: SSDNet  # with its weights
    class_names: tuple[str, ...]  # without the background
    checkpoint: str = ""
    step: int | None = None
    metrics: dict[str, Any] | None = None  # of `read_metrics`


def load(
    path: str | os.PathLike, metrics_file: str | os.PathLike | None = None
) -> Model:
    """Returns a checkpoint with what was measured of it.

    Args:
      path: a train_dir, or a checkpoint in one.
      metrics_file: a metrics.json; by default the last evaluation of this
        checkpoint in its train_dir, if there is one.

    Raises:
      UserError: there is no checkpoint, or no such file.
    """
    prefix = checkpoint.find(path)
    step = checkpoint.step_of(prefix)
    if metrics_file is None:
        metrics_file = find_metrics(prefix.parent, step)
    return Model(
        checkpoint.load_net(prefix),
        tuple(checkpoint.load_config(prefix).class_names),
        str(prefix),
        step,
        read_metrics(pathlib.Path(metrics_file)) if metrics_file else None,
    )


def find_metrics(train_dir: pathlib.Path, step: int) -> pathlib.Path | None:
    """Returns the newest metrics.json of an evaluation of this step."""
    found = sorted(
        train_dir.glob("eval_*/metrics.json"), key=lambda x: x.stat().st_mtime
    )
    of_step = [path for path in found if _read(path).get("step") == step]
    return of_step[-1] if of_step else None


def read_metrics(path: pathlib.Path) -> dict[str, Any]:
    """Returns the figures of an evaluation, and what they were measured on.

    Raises:
      UserError: no such file, or no evaluation's.
    """
    metrics = _read(path)
    figures = {
        name: value
        for name, value in metrics.items()
        if name in _METRICS or name.startswith("COCO/A")
    }
    if not figures:
        raise UserError(f"{path}: is no metrics.json of eval_ssd.py")
    figures |= {name: metrics.get(name) for name in _METRICS_OF}
    return figures | {"protocol": metrics.get("protocol")}


def _read(path):
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error})") from error
    return values if isinstance(values, dict) else {}


def fingerprint(net: SSDNet) -> str:
    """Returns a hash that identifies the weights, wherever their checkpoint
    is.
    """
    sha256 = hashlib.sha256()
    for variable in net.model.variables:
        sha256.update(variable.numpy().tobytes())
    return sha256.hexdigest()


def describe(model: Model, options: DetectionParams) -> dict[str, Any]:
    """Describes the model, the same for every format.

    Args:
      model: that is exported.
      options: of its detections.
    """
    params = model.net.params
    height, width = params.img_shape
    return {
        "format_version": FORMAT_VERSION,
        "model_name": params.model_name,
        "class_names": list(model.class_names),
        "input": {
            "height": height,
            "width": width,
            "colours": "RGB, 0 to 255; mean and scale are in the graph",
            "resize": "bilinear to height x width, ratio not kept",
            "mean": list(params.image_mean),
            "scale": list(params.image_scale),
        },
        "anchors": {
            "count": len(model.net.flat_anchors),
            "feat_shapes": params.feat_shapes,
            "steps": params.anchor_steps,
            "sizes": params.anchor_sizes,
            "ratios": params.anchor_ratios,
            "offset": params.anchor_offset,
            "clip": params.anchor_clip,
            "prior_scaling": params.prior_scaling,
        },
        "detection": vars(options),
        "checkpoint": model.checkpoint,
        "step": model.step,
        "weights_sha256": fingerprint(model.net),
        "metrics": model.metrics,
        "versions": versions.installed(),
    }
