"""What an evaluation leaves behind: metrics.json, the report, detections.

Receives the boxes of all images; knows no flags and no data formats.
"""

import collections
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.config.evaluation import EvalParams
from ssd_tf.detect import coco_json, stated_names
from ssd_tf.detect.detectors import Predictor
from ssd_tf.evaluation import analysis, comparison, evaluate
from ssd_tf.evaluation.metrics import worst_images
from ssd_tf.evaluation.metrics.coco import IOU_THRESHOLDS
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.evaluation.report import page as report
from ssd_tf.evaluation.report import pictures as report_images
from ssd_tf.input_pipeline import preprocessing

# So many of the images with problems are named.
_MAX_NAMED = 3


def finish(
    images: Sequence[ImageResult],
    truth: Any,
    predictor: Predictor,
    params: EvalParams,
    eval_dir: str | os.PathLike,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Measures, analyses, shows and writes.

    Args:
      images: of `evaluate.collect`.
      truth: the `datasets.ground_truth.GroundTruth` that they are of.
      predictor: that has found the detections.
      params: see there.
      eval_dir: for everything that is written.
      arguments: of the command, for the report.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: no image, or detections of other images.
    """
    if not images:
        raise UserError(_nothing_to_see(truth))
    foreign = _foreign_images(
        images, truth, predictor.image_ids, predictor.source["checkpoint"]
    )
    names = truth.class_names
    metrics, judged = evaluate.measure(
        images,
        names,
        params.matching_threshold,
        params.iou_thresholds or IOU_THRESHOLDS,
        params.num_workers,
    )
    metrics |= analysis.analyse(
        images,
        judged,
        names,
        params.matching_threshold,
        predictor.input_size,
        predictor.anchors,
        params.bootstrap,
        params.seed,
    )
    metrics["left_out"] |= foreign | _problems(truth.problems)
    metrics |= {
        "class_names": list(names),
        "matching_threshold": params.matching_threshold,
        "ground_truth_sha256": evaluate.ground_truth_sha256(images),
        "model": predictor.source,
        "data": truth.source,
        "checkpoint": predictor.source["checkpoint"],
        "step": predictor.source.get("step"),
        "dataset_dir": truth.source["dataset_dir"],
        "split": truth.source["split"],
    }
    metrics["protocol"] |= predictor.protocol
    evaluate.print_metrics(metrics, names)
    for what, words in (foreign | _problems(truth.problems)).items():
        command.say(f"left out: {what}: {words}")
    _remove_others(pathlib.Path(eval_dir))
    _write(images, truth, params, pathlib.Path(eval_dir), metrics, judged)
    if params.report:
        pictures = _pictures(images, truth, params, metrics)
        page = report.write(eval_dir, metrics, judged, pictures, arguments)
        command.say(f"{page}")
    return metrics


def _nothing_to_see(truth):
    """Why there is no image, and what helps."""
    first = next(iter(truth.problems.values()), None)
    return (
        f"{truth.source['dataset_dir']}: no readable image in split "
        f"{truth.source['split']!r}{f', {first}' if first else ''}"
        f"{_remedy(truth)}"
    )


def _remedy(truth):
    return "; --image_dir says where images are" * (truth.kind == "coco")


def _foreign_images(
    images: Sequence[ImageResult],
    truth: Any,
    image_ids: Collection[str] | None,
    path: str,
) -> dict[str, str]:
    """Images that a file has detections of and the evaluation has not."""
    ids = {image.source_id for image in images}
    foreign = sorted({*(image_ids or ())} - ids)
    if foreign and len(foreign) == len(image_ids):
        # Of a part of the split it may just have found nothing there.
        if len(images) < truth.num_images:
            ids |= _all_ids(truth)
    if foreign and not ids & {*image_ids}:
        raise UserError(
            f"{path}: none of its {len(foreign)} images (such as "
            f"{foreign[0]!r}) is among the {len(ids)} of the split (such as "
            f"{min(ids)!r}); "
            "image_id has to be the source_id of the records, the file name "
            "without suffix of a VOC tree, or the image id of a COCO file"
        )
    if not foreign:
        return {}
    return {"detections of images that are not evaluated": _named(foreign)}


def _all_ids(truth):
    """Of the images of the whole split."""
    return {
        _text(record["source_id"]) for record in truth.read(with_images=False)
    }


def _text(source_id):
    return source_id.numpy().decode(errors="replace")


def _named(names):
    more = ", ..." if len(names) > _MAX_NAMED else ""
    return f"{len(names)} ({', '.join(names[:_MAX_NAMED])}{more})"


def _problems(problems: Mapping[Any, Any]) -> dict[str, str]:
    """Annotations that were skipped, dropped or cut, counted and named."""
    by_kind = collections.defaultdict(list)
    for problem in problems.values():
        if problem.action != "mended":
            kind = f"{problem.kind}, {problem.action}"
            by_kind[kind].append(str(problem))
    return {kind: _named(texts) for kind, texts in by_kind.items()}


def _remove_others(eval_dir):
    """Takes away what an evaluation before this one has left.

    This one may write less, and nobody shall read another detector's report
    beside its numbers.
    """
    for name in (
        f"{report.REPORT_DIR}/{report.REPORT_FILE}",
        coco_json.DETECTIONS_FILE,
    ):
        (eval_dir / name).unlink(missing_ok=True)


def _write(images, truth, params, eval_dir, metrics, judged):
    """Everything but the report."""
    comparison.save(eval_dir / comparison.MATCHES_FILE, judged)
    path = eval_dir / evaluate.METRICS_FILE
    files.write_json(path, metrics)
    command.say(f"{path}")
    if params.save_detections:
        path = eval_dir / coco_json.DETECTIONS_FILE
        coco_json.write(path, images, truth.category_ids)
        command.say(f"{path}")
        # So that the numbers of the classes are known wherever it is read.
        names = "".join(f"{name}\n" for name in truth.class_names)
        files.write_text(eval_dir / stated_names.LABELS_FILE, names)


def _pictures(images, truth, params, metrics):
    """The worst and the best images, read once more and drawn."""
    ranked = analysis.rank(
        images,
        metrics["per_class"],
        metrics["class_names"],
        params.matching_threshold,
    )
    worst = worst_images.worst(ranked, params.report_images)
    best = worst_images.best(ranked, params.report_images // 2, worst)
    ids = {images[each.index].source_id for each in (*worst, *best)}
    pixels = dict(_read_pixels(truth, ids))
    if len(pixels) < len(ids):
        unread = _named(sorted(ids - pixels.keys()))
        command.say(
            f"report: images that cannot be read: {unread}{_remedy(truth)}"
        )
    return report.Pictures(
        *(
            report_images.draw_all(
                pixels, images, judgements, metrics["class_names"]
            )
            for judgements in (worst, best)
        )
    )


def _read_pixels(truth, ids):
    """Ids and pixels uint8 [h, w, 3] of those images that can be read."""
    for record in truth.read(only=ids) if ids else ():
        try:
            pixels = preprocessing.decode(record["image"]).numpy()
        except tf.errors.InvalidArgumentError:
            continue  # detections of a file can be of images that are not there
        yield _text(record["source_id"]), pixels
