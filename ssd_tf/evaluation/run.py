"""One evaluation: a detector, a split, and what it leaves behind.

The library call under eval_ssd.py, the demo and `ssd_tf.evaluate`.
"""

import collections
import math
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.command.settings import build, fields
from ssd_tf.config.evaluation import DetectionParams, EvalOptions, EvalParams
from ssd_tf.datasets import ground_truth, labels, records
from ssd_tf.datasets.ground_truth import GroundTruth
from ssd_tf.detect import coco_json, description, detectors
from ssd_tf.detect.detectors import Batch, Detector, load_detector
from ssd_tf.evaluation import analysis, comparison
from ssd_tf.evaluation import evaluate as evaluate_lib
from ssd_tf.evaluation.metrics import worst_images
from ssd_tf.evaluation.metrics.coco import IOU_THRESHOLDS
from ssd_tf.evaluation.metrics.inputs import ImageResult
from ssd_tf.evaluation.report import page as report
from ssd_tf.evaluation.report import pictures as report_images
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.input_pipeline import preprocessing

# Number of images with problems that are named.
_MAX_NAMED = 3


def evaluate(
    detector: Detector | str | os.PathLike,
    dataset_dir: str | os.PathLike,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluates a detector; prints tables and writes metrics and a report.

    Args:
      detector: from `load_detector`, or a path for it.
      dataset_dir: records, a VOC tree, or a COCO annotation file.
      **settings: those of eval_ssd.py, such as `dataset_split_name="val"`,
        `eval_dir="out"`, `report=False`.

    Returns:
      The content of metrics.json.

    Raises:
      UserError: a setting is invalid, or detector and data do not fit.
    """
    values = {"dataset_dir": dataset_dir, **settings}
    if isinstance(detector, Detector):
        path = detector.source["checkpoint"]
    else:
        path, detector = os.fspath(detector), None
    options = build(EvalOptions, {**values, "checkpoint_path": path})
    return run(options, detector)


def run(
    options: EvalOptions, detector: Detector | None = None
) -> dict[str, Any]:
    """Evaluates what the options say; see `evaluate`.

    Args:
      options: with `dataset_dir` and `checkpoint_path`.
      detector: the loaded detector, where there is one.
    """
    path = options.checkpoint_path
    # Open the split, with its classes numbered as the detector does.
    names = _class_names(path, options.labels, detector)
    truth = _open_split(options, names)
    # Load the detector.
    if detector is None:
        _check_options(options)
        detector = load_detector(
            path, options.detection, names, truth.category_ids
        )
    # Detect on every image once, whatever the batch size.
    images = _detect(options, truth, detector)
    # Measure, analyse, print and write.
    folder = results_folder(options, path, detector.source["checkpoint"])
    return finish(
        images,
        truth,
        detector,
        options.metrics,
        folder,
        command.command_line(),
    )


def _class_names(path, labels_file, detector):
    """Returns the classes of the detector; None where nothing states them."""
    if detector is not None and detector.names:
        return detector.names
    if not detectors.is_file(path):
        if labels_file:
            raise UserError(
                f"--labels={labels_file}: only for a .tflite, .onnx or .json "
                f"file; {path} names its classes itself"
            )
        return detectors.class_names(path)
    if labels_file:
        return tuple(labels.read(labels_file))
    stated = detectors.class_names(path)
    if stated:
        return tuple(labels.check(stated, str(path)))
    file = description.labels_beside(path)
    if file is None:
        return None
    command.say(f"class names: {file}")
    return tuple(labels.read(file))


def _open_split(options: EvalOptions, names) -> GroundTruth:
    truth = ground_truth.open_split(
        options.dataset_dir,
        options.dataset_split_name,
        options.unreadable_shards,
        options.image_dir,
        names,
    )
    if truth.kind == "voc" and names is None:
        raise UserError(
            f"{options.checkpoint_path}: does not name its classes, and a VOC "
            "tree does not number them; give the detector's labels.txt by "
            "--labels"
        )
    return truth


def _check_options(options: EvalOptions) -> None:
    """Refuses options of detections where the detector has its own."""
    for field in fields(DetectionParams):
        if field.flag in options.given and not detectors.has_options(
            options.checkpoint_path
        ):
            raise UserError(
                f"--{field.flag}: only for a checkpoint; an exported model "
                "and a file of detections have their own"
            )


def _detect(options, truth, detector):
    """Returns detections on the split, as `evaluate.collect` gives them."""
    data = truth.read(with_images=detector.takes != detectors.IDS)
    batches = input_pipeline.make_for_eval(
        data, evaluate_lib.prepare_for(detector), options.batch_size
    )
    num_batches = math.ceil(truth.num_images / options.batch_size)
    if options.max_num_batches:
        batches = batches.take(options.max_num_batches)
        num_batches = min(num_batches, options.max_num_batches)
    number, split = len(truth.class_names), options.dataset_split_name
    with (
        records.explained_errors(options.dataset_dir, split),
        input_pipeline.explained_errors(
            data.as_numpy_iterator,
            number + 1,
            f"split {split!r} cannot be evaluated on",
        ),
    ):
        return evaluate_lib.collect(
            checked(detector, options.dataset_dir, number),
            batches,
            number,
            num_batches,
        )


def checked(
    detector: Detector, dataset_dir: str | os.PathLike, number: int
) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Returns `detector.predict` that raises UserError for invalid output.

    Args:
      detector: the detector.
      dataset_dir: where the classes come from, for messages.
      number: number of classes without the background.
    """

    def predict(batch: Batch) -> dict[str, np.ndarray]:
        found = detector.predict(batch)
        _check(found, detector.source["checkpoint"], dataset_dir, number)
        return found

    return predict


def _check(found, path, dataset_dir, number):
    """Refuses non-finite detections, and classes that would be others."""
    for name in ("boxes", "scores"):
        if not np.isfinite(found[f"detection_{name}"]).all():
            raise UserError(
                f"{path}: has found non-finite {name} (NaN or infinity); its "
                "weights are damaged, or it was converted wrong"
            )
    classes = found["detection_classes"]
    strange = classes[(classes < 0) | (classes > number)]
    if strange.size:
        raise UserError(
            f"{path}: has found class {strange[0]}, but {dataset_dir} has "
            f"{number} classes; evaluate it on the data that it was trained "
            "for, or name its own classes by --labels"
        )


def results_folder(
    options: EvalOptions, asked: str, evaluated: str
) -> pathlib.Path:
    """Returns the folder of the results.

    Only a train_dir's latest checkpoint has a folder without a name of its
    own; each of several checkpoints keeps its results.

    Args:
      options: with `eval_dir`, `dataset_split_name`, `wait_for_checkpoints`.
      asked: path that the user or a wait has named.
      evaluated: the checkpoint's prefix, or the path of another model.
    """
    path, split = pathlib.Path(evaluated), options.dataset_split_name
    if options.eval_dir:
        own = path.name if options.wait_for_checkpoints else ""
        return pathlib.Path(options.eval_dir, own)
    is_checkpoint = path.with_name(path.name + ".index").is_file()
    is_latest = is_checkpoint and pathlib.Path(asked).is_dir()
    name = f"eval_{split}" if is_latest else f"eval_{split}_{path.name}"
    return path.parent / name


def finish(
    images: Sequence[ImageResult],
    truth: GroundTruth,
    detector: Detector,
    params: EvalParams,
    eval_dir: str | os.PathLike,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Measures, analyses, prints and writes.

    Args:
      images: images from `evaluate.collect`.
      truth: the split that they belong to.
      detector: the detector that was evaluated.
      params: settings of the metrics and the report.
      eval_dir: folder for everything that is written.
      arguments: words of the command, for the report.

    Returns:
      The content of metrics.json.

    Raises:
      UserError: there is no image, or the detections are of other images.
    """
    if not images:
        raise UserError(_nothing_to_see(truth))
    foreign = _foreign_images(
        images, truth, detector.image_ids, detector.source["checkpoint"]
    )
    names = truth.class_names
    metrics, judged = evaluate_lib.measure(
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
        detector.input_size,
        detector.anchors,
        params.bootstrap,
        params.seed,
    )
    metrics["left_out"] |= foreign | _problems(truth.problems)
    metrics |= {
        "class_names": list(names),
        "matching_threshold": params.matching_threshold,
        "ground_truth_sha256": evaluate_lib.ground_truth_sha256(images),
        "model": detector.source,
        "data": truth.source,
        "checkpoint": detector.source["checkpoint"],
        "step": detector.source.get("step"),
        "dataset_dir": truth.source["dataset_dir"],
        "split": truth.source["split"],
    }
    if detector.options is not None:
        metrics["protocol"]["detections"] = dict(detector.options)
    evaluate_lib.print_metrics(metrics, names)
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
    """Returns why there is no image, and what helps."""
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
    truth: GroundTruth,
    image_ids: Collection[str] | None,
    path: str,
) -> dict[str, str]:
    """Returns images that a file has detections of and the evaluation has
    not.
    """
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
    """Returns the ids of the images of the whole split."""
    return {
        _text(record["source_id"]) for record in truth.read(with_images=False)
    }


def _text(source_id):
    return source_id.numpy().decode(errors="replace")


def _named(names):
    more = ", ..." if len(names) > _MAX_NAMED else ""
    return f"{len(names)} ({', '.join(names[:_MAX_NAMED])}{more})"


def _problems(problems: Mapping[Any, Any]) -> dict[str, str]:
    """Returns annotations that were skipped, dropped or cut, counted and
    named.
    """
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
    """Writes everything but the report."""
    comparison.save(eval_dir / comparison.MATCHES_FILE, judged)
    path = eval_dir / evaluate_lib.METRICS_FILE
    files.write_json(path, metrics)
    command.say(f"{path}")
    if params.save_detections:
        path = eval_dir / coco_json.DETECTIONS_FILE
        found = ((image.source_id, image.shares) for image in images)
        coco_json.write(path, found, truth.category_ids)
        command.say(f"{path}")
        # So that the numbers of the classes are known wherever it is read.
        names = "".join(f"{name}\n" for name in truth.class_names)
        files.write_text(eval_dir / description.LABELS_FILE, names)


def _pictures(images, truth, params, metrics):
    """Returns the worst and the best images, read once more and drawn."""
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
