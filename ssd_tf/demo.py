"""`python train_ssd.py` without flags: the whole way on the built-in data.

Makes the pictures, converts them, trains, evaluates, draws and exports. Run
again, it continues where it was stopped and repeats only what is cheap.
"""

import os
import pathlib
from typing import Any

from ssd_tf import command
from ssd_tf.config.training import AUGMENTATIONS

RUN_DIR = "runs/shapes"
EVAL_BATCH_SIZE = 32
SHEET_IMAGES = 24
# About 6 minutes on 2 CPU cores, VOC07 mAP 0.90.
TRAINING = {
    "model_name": "ssd_128_mobilenet_v2",
    "batch_size": 16,
    "max_number_of_steps": 1300,
    "optimizer": "adam",
    "learning_rate": 2e-3,
    "learning_rate_decay_type": "cosine",
    "warmup_steps": 50,
    "weight_decay": 4e-5,
    # Ten passes over pictures that all differ need none, and learn faster.
    "augmentation": AUGMENTATIONS["none"],
    "save_interval_steps": 250,
    "log_every_n_steps": 20,
}


def default_run(
    run_dir: str | os.PathLike = RUN_DIR,
    num_train: int = 2000,
    num_test: int = 300,
    **training: Any,
) -> dict[str, Any]:
    """Trains, evaluates, draws and exports; prints where everything is.

    Args:
      run_dir: folder for everything that is made.
      num_train, num_test: numbers of pictures.
      **training: settings of `ssd_tf.train` in place of those of `TRAINING`.

    Returns:
      The metrics of the test split.
    """
    from ssd_tf.datasets import catalog
    from ssd_tf.datasets.convert.convert import convert
    from ssd_tf.datasets.formats import shapes
    from ssd_tf.evaluation.run import evaluate
    from ssd_tf.export.export import export_model
    from ssd_tf.training.train import train

    run_dir = pathlib.Path(run_dir)
    data, train_dir = run_dir / "data", run_dir / "train"
    # Draw the pictures, as a VOC tree.
    raw = shapes.write_dataset(run_dir / "raw", num_train, num_test)
    # Convert them into TFRecords; one process is faster for so few.
    if not (data / catalog.MANIFEST).exists():
        convert(raw, data, splits=["train", "test"], num_workers=1)
    # Train a small net.
    train(data, train_dir, **{**TRAINING, **training})
    # Evaluate it on the test split.
    metrics = evaluate(
        train_dir, data, eval_dir=run_dir, batch_size=EVAL_BATCH_SIZE
    )
    # Draw its detections on one sheet.
    sheet = _draw_sheet(run_dir, raw, train_dir)
    # Export it for TensorFlow Serving, with these metrics.
    exported = export_model(
        train_dir, run_dir / "export", metrics=run_dir / "metrics.json"
    )
    command.print_table(
        "what is where",
        ["what", "where"],
        [
            ["pictures, VOC tree", raw],
            ["TFRecords", data],
            ["checkpoints, config, logs", train_dir],
            ["metrics", run_dir / "metrics.json"],
            ["report", run_dir / "report/index.html"],
            ["detections, drawn", sheet],
            ["SavedModel for TF Serving", exported["saved_model"]],
        ],
    )
    return metrics


def _draw_sheet(run_dir, raw, train_dir):
    """Returns one picture of detections on the first test images."""
    from ssd_tf.command import files
    from ssd_tf.detect import drawing
    from ssd_tf.detect.detectors import load_detector

    names = (raw / "ImageSets/Main/test.txt").read_text("utf-8").split()
    paths = [raw / f"JPEGImages/{name}.jpg" for name in names[:SHEET_IMAGES]]
    found = load_detector(train_dir)(paths)
    path = run_dir / "detections.png"
    with files.replace_file(path) as temporary:
        sheet = drawing.contact_sheet([each.plot() for each in found], 6)
        sheet.save(temporary, "PNG")
    return path
