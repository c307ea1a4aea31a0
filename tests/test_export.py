"""The SavedModel, as TF Serving would load and run it."""

import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from processes import finish, start

from ssd_tf import export, serving
from ssd_tf.command import UserError

# What TensorFlow Serving does: the TF1 loader, a session, the signature.
SESSION = """
import sys
import numpy as np
import tensorflow as tf
model_dir, input_file, output_file = sys.argv[1:]
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], model_dir)
    signature = meta.signature_def["serving_default"]
    names = {key: info.name for key, info in signature.outputs.items()}
    feed = signature.inputs["image_bytes"].name
    images = np.load(input_file)
    np.savez(output_file, **session.run(names, {feed: images}))
"""
OUTPUTS = {
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "num_detections",
}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Folder of the versions; there is version 1."""
    folder = tmp_path_factory.mktemp("export") / "ssd"
    export.export_saved_model(trained.net, trained.settings.class_names, folder)
    return folder


@pytest.fixture
def batch(pictures, tmp_path):
    """File of a batch of two JPEGs of different size."""
    sizes = {tuple(tf.io.decode_jpeg(x).shape) for x in pictures[:2]}
    assert len(sizes) == 2
    np.save(tmp_path / "images.npy", np.array(pictures[:2]))
    return tmp_path / "images.npy"


def assert_detections_equal(found, expected):
    assert set(found) == OUTPUTS
    for name in OUTPUTS:
        # The same graph by another loader; box coordinates are in [0, 1].
        np.testing.assert_allclose(
            found[name], expected[name], atol=1e-4, err_msg=name
        )


def test_session_loader_gives_what_detect_gives(
    exported, trained, pictures, batch, tmp_path
):
    predict, class_names = serving.load_predictor(trained.train_dir)
    expected = predict(pictures[:2])
    assert class_names == trained.settings.class_names
    finish(start("-c", SESSION, exported / "1", batch, tmp_path / "found.npz"))
    with np.load(tmp_path / "found.npz") as found:
        assert_detections_equal(dict(found), expected)
        assert found["detection_boxes"].shape == (2, 200, 4)
        assert found["num_detections"].shape == (2,)
        assert found["num_detections"].max() > 0


def test_saved_model_cli_runs_it(exported, trained, pictures, batch, tmp_path):
    predict, _ = serving.load_predictor(trained.train_dir)
    cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
    finish(
        start(
            cli,
            "run",
            f"--dir={exported / '1'}",
            "--tag_set=serve",
            "--signature_def=serving_default",
            f"--inputs=image_bytes={batch}",
            f"--outdir={tmp_path}",
        )
    )
    found = {name: np.load(tmp_path / f"{name}.npy") for name in OUTPUTS}
    assert_detections_equal(found, predict(pictures[:2]))


def test_a_batch_equals_its_images(exported, pictures):
    predict, _ = serving.load_predictor(exported)
    together = predict(pictures)
    for index, picture in enumerate(pictures):
        alone = predict([picture])
        for name in OUTPUTS:
            np.testing.assert_allclose(
                together[name][index], alone[name][0], atol=1e-5
            )


def test_labels_are_an_asset(exported, trained):
    labels = (exported / "1" / "assets" / "labels.txt").read_text()
    assert tuple(labels.split()) == trained.settings.class_names


def test_versions_count_up_and_are_never_overwritten(
    exported, trained, tmp_path
):
    folder = tmp_path / "ssd"
    shutil.copytree(exported / "1", folder / "7")
    (folder / "not_a_version").mkdir()
    assert serving.next_version(folder) == 8
    with pytest.raises(UserError, match="7: is there already.*--version"):
        export.export_saved_model(
            trained.net, trained.settings.class_names, folder, version=7
        )
    assert sorted(path.name for path in folder.iterdir()) == [
        "7",
        "not_a_version",
    ]
    assert serving.find_saved_model(folder) == folder / "7"


def test_undecodable_bytes_say_so(exported):
    predict, _ = serving.load_predictor(exported)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image"):
        predict([b"no image"])
