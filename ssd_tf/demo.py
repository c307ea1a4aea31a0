"""The whole way on the built-in data: `python train_ssd.py` without flags.

Makes the pictures, converts them, trains, evaluates, draws and exports. Run
again, it goes on where it was stopped and repeats only what is cheap.
"""

import dataclasses
import os
import pathlib
from typing import Any

from ssd_tf import command
from ssd_tf.config import presets
from ssd_tf.config.evaluation import DetectionParams, EvalParams
from ssd_tf.config.run import Config
from ssd_tf.config.training import AUGMENTATIONS, TrainParams

RUN_DIR = "runs/shapes"
MODEL_NAME = "ssd_128_mobilenet_v2"
EVAL_BATCH_SIZE = 32
SHEET_IMAGES = 24
# About 6 minutes on 2 CPU cores, VOC07 mAP 0.90.
TRAINING = TrainParams(
    batch_size=16,
    max_number_of_steps=1300,
    optimizer="adam",
    learning_rate=2e-3,
    learning_rate_decay_type="cosine",
    warmup_steps=50,
    weight_decay=4e-5,
    # Ten passes over pictures that all differ need none, and learn faster.
    augmentation=AUGMENTATIONS["none"],
    save_interval_steps=250,
    log_every_n_steps=20,
)


def default_run(
    run_dir: str | os.PathLike = RUN_DIR,
    num_train: int = 2000,
    num_test: int = 300,
    training: TrainParams = TRAINING,
) -> dict[str, Any]:
    """Trains, evaluates, draws and exports; tells where everything is.

    Args:
      run_dir: for all that is made.
      num_train, num_test: pictures.
      training: the recipe.

    Returns:
      The metrics of the test split.
    """
    from ssd_tf.datasets import catalog, records
    from ssd_tf.datasets.convert import __main__ as convert
    from ssd_tf.datasets.formats import shapes
    from ssd_tf.evaluation import evaluate
    from ssd_tf.evaluation.report import page
    from ssd_tf.training import train

    run_dir = pathlib.Path(run_dir)
    raw = shapes.write_dataset(run_dir / "raw", num_train, num_test)
    data = run_dir / "data"
    if not (data / catalog.MANIFEST).exists():
        # One process: more would cost more to start than they save.
        convert.convert("voc", [raw], data, ["train", "test"], num_workers=1)
    class_names = tuple(catalog.class_names(data))
    params = dataclasses.replace(
        presets.PRESETS[MODEL_NAME], num_classes=len(class_names) + 1
    )
    net = train.train(
        Config(params, class_names, training),
        run_dir / "train",
        records.reader(data, "train"),
        num_train,
    )
    metrics = _evaluate(run_dir, data, num_test)
    sheet = _draw_sheet(run_dir, raw, net, class_names)
    exported = _export(run_dir)
    command.print_table(
        "what is where",
        ["what", "where"],
        [
            ["pictures, VOC tree", raw],
            ["TFRecords", data],
            ["checkpoints, config, logs", run_dir / "train"],
            ["metrics", run_dir / evaluate.METRICS_FILE],
            ["report", run_dir / page.REPORT_DIR / page.REPORT_FILE],
            ["detections, drawn", sheet],
            ["SavedModel for TF Serving", exported],
        ],
    )
    return metrics


def _export(run_dir):
    """The SavedModel, with the metrics that were measured."""
    from ssd_tf.evaluation import evaluate
    from ssd_tf.export import images as export_images
    from ssd_tf.export import model as description
    from ssd_tf.export import publishing, saved_model

    model = description.load(run_dir / "train", run_dir / evaluate.METRICS_FILE)
    how = saved_model.SavedModelOptions(warmup_images=export_images.samples())
    written = saved_model.write(model, run_dir / "export", how=how)
    publishing.write(run_dir / "export")
    return written


def _evaluate(run_dir, data, num_test):
    """Metrics and report of the test images."""
    from ssd_tf.datasets import ground_truth
    from ssd_tf.detect import detectors
    from ssd_tf.evaluation import evaluate, run
    from ssd_tf.input_pipeline import batches as input_pipeline

    truth = ground_truth.open_split(data, "test")
    predictor = detectors.load(
        run_dir / "train", DetectionParams(), truth.category_ids
    )
    batches = input_pipeline.make_for_eval(
        truth.read(), None, EVAL_BATCH_SIZE, predictor.prepare
    )
    images = evaluate.collect(
        predictor.predict,
        batches,
        len(truth.class_names),
        -(-num_test // EVAL_BATCH_SIZE),
    )
    return run.finish(
        images,
        truth,
        predictor,
        EvalParams(),
        run_dir,
        command.command_line(),
    )


def _draw_sheet(run_dir, raw, net, class_names):
    """One picture of detections on the first test images."""
    from ssd_tf.command import files
    from ssd_tf.detect import drawing
    from ssd_tf.detect import saved_model as serving
    from ssd_tf.detect.reading import read_image
    from ssd_tf.detect.results import detections_of

    names = (raw / "ImageSets/Main/test.txt").read_text("utf-8").split()
    images = [
        read_image(raw / "JPEGImages" / f"{name}.jpg")
        for name in names[:SHEET_IMAGES]
    ]
    found = serving.make_predict(net)([encoded for encoded, _ in images])
    pictures = [
        drawing.draw_detections(
            pixels, *detections_of(found, index), class_names
        )
        for index, (_, pixels) in enumerate(images)
    ]
    path = run_dir / "detections.png"
    with files.replace_file(path) as temporary:
        drawing.contact_sheet(pictures, columns=6).save(temporary, "PNG")
    return path
