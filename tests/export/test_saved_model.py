"""The SavedModel, as TensorFlow Serving would load and run it."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import SUPPORT, finish, start
from served import export_saved_model, load_predictor

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import saved_model as serving
from ssd_tf.export import saved_model, signatures, verify, warmup
from ssd_tf.export.decoding import Decoding
from ssd_tf.export.model import Model
from ssd_tf.input_pipeline import preprocessing

OUTPUTS = {
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "num_detections",
}
TFOD_OUTPUTS = OUTPUTS | {
    "detection_anchor_indices",
    "detection_multiclass_scores",
    "raw_detection_boxes",
    "raw_detection_scores",
}


@pytest.fixture(scope="module")
def exported(lively, pictures, tmp_path_factory):
    """Folder of the versions; there is version 1."""
    folder = tmp_path_factory.mktemp("export") / "ssd"
    model = Model(lively.net, lively.settings.class_names)
    how = saved_model.SavedModelOptions(warmup_images=pictures[:2])
    saved_model.write(model, folder, how=how)
    return folder


def example(encoded):
    """A serialized example with nothing but an image."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    features = tf.train.Features(feature={"image/encoded": feature})
    return tf.train.Example(features=features).SerializeToString()


def pixels(encoded):
    """uint8 [h, w, 3]; Pillow's JPEG decoder would differ by single steps."""
    return preprocessing.decode(encoded).numpy()


def run_in_session(saved_model_dir, requests, folder):
    """Answers of a fresh process; see session_run.py."""
    given, found = folder / "requests", folder / "answers"
    given.write_bytes(pickle.dumps(requests))
    finish(start(SUPPORT / "session_run.py", saved_model_dir, given, found))
    return pickle.loads(found.read_bytes())


def assert_detections_equal(found, expected):
    for name in OUTPUTS:
        # The same graph by another loader; box coordinates are in [0, 1].
        np.testing.assert_allclose(
            found[name], expected[name], atol=1e-4, err_msg=name
        )


def test_a_session_runs_every_signature(exported, lively, pictures, tmp_path):
    predict, class_names = load_predictor(lively.train_dir)
    expected = predict(pictures[:2])
    assert class_names == lively.settings.class_names
    assert expected["num_detections"].min() > 0
    assert pixels(pictures[0]).shape != pixels(pictures[1]).shape
    batch = np.array(pictures[:2], object)
    examples = np.array([example(x) for x in pictures[:2]], object)
    size = lively.net.params.img_shape
    images = tf.stack(
        [tf.image.resize(pixels(x), size) for x in pictures[:2]]
    ).numpy()
    thresholds = {
        "score_threshold": np.zeros(2, np.float32),
        "max_detections": np.full(2, 1000, np.int32),
    }
    answers = run_in_session(
        exported / "1",
        [
            ("serving_default", {"image_bytes": batch}),
            ("image_bytes", {"image_bytes": batch}),
            ("image_bytes_filtered", {"image_bytes": batch, **thresholds}),
            ("tf_example", {"input_tensor": examples}),
            ("image_tensor", {"input_tensor": pixels(pictures[0])[None]}),
            ("raw", {"images": images}),
        ],
        tmp_path,
    )
    for found in answers[:3]:
        assert set(found) == OUTPUTS
        assert found["detection_boxes"].shape == (2, 200, 4)
        assert found["num_detections"].shape == (2,)
        assert found["detection_classes"].dtype == np.int32
        assert found["num_detections"].dtype == np.int32
        assert_detections_equal(found, expected)
    for found, index in ((answers[3], slice(None)), (answers[4], slice(0, 1))):
        assert set(found) == TFOD_OUTPUTS
        assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}
        # Another graph: of two equal scores the other one may come first.
        rows = {name: value[index] for name, value in expected.items()}
        alike = verify.compare(rows, found, overlap=0.99)
        assert alike.matched == 1.0
        assert max(alike.score, alike.box) < 1e-4
    raw = answers[5]
    anchors = lively.net.flat_anchors
    np.testing.assert_array_equal(raw["anchors"], np.stack([anchors] * 2))
    assert raw["logits"].shape == (
        *(2, len(anchors)),
        lively.net.params.num_classes,
    )
    assert raw["localisations"].shape == (2, len(anchors), 4)


def test_what_tfod_clients_read_fits_together(exported, pictures):
    """Each detection's box and scores are those of its anchor."""
    loaded = tf.saved_model.load(str(exported / "1"))
    found = loaded.signatures["image_tensor"](
        input_tensor=tf.constant(pixels(pictures[0])[None])
    )
    found = {name: value[0].numpy() for name, value in found.items()}
    count = int(found["num_detections"])
    anchors = found["detection_anchor_indices"][:count].astype(int)
    classes = found["detection_classes"][:count].astype(int)
    scores = found["detection_multiclass_scores"]
    np.testing.assert_array_equal(
        scores[:count], found["raw_detection_scores"][anchors]
    )
    np.testing.assert_array_equal(
        scores[np.arange(count), classes], found["detection_scores"][:count]
    )
    np.testing.assert_array_equal(
        np.clip(found["raw_detection_boxes"][anchors], 0, 1),
        found["detection_boxes"][:count],
    )
    assert not scores[count:].any()


def test_a_client_of_tfod_runs_as_it_is(lively, pictures, tmp_path):
    model = Model(lively.net, lively.settings.class_names)
    how = saved_model.SavedModelOptions(input_type="image_tensor")
    version = saved_model.write(model, tmp_path / "ssd", how=how)
    (tmp_path / "image.jpg").write_bytes(pictures[0])
    found = json.loads(
        finish(
            start(SUPPORT / "tfod_client.py", version, tmp_path / "image.jpg")
        )
    )
    predict, _ = load_predictor(lively.train_dir)
    expected = predict(pictures[:1])
    count = expected["num_detections"][0]
    # Pillow and TensorFlow decode a JPEG by different libraries: a pixel may
    # differ by 1 of 255.
    assert len(found["detection_scores"]) == pytest.approx(count, abs=3)
    np.testing.assert_allclose(
        found["detection_scores"][:10],
        expected["detection_scores"][0][:10],
        atol=0.01,
    )


def test_a_higher_threshold_of_a_request_is_one_of_the_export(
    exported, lively, pictures
):
    predict, _ = load_predictor(exported)
    scores = predict(pictures[:1])["detection_scores"][0]
    threshold = float(scores[20] + scores[21]) / 2
    loaded = tf.saved_model.load(str(exported / "1"))
    found = loaded.signatures["image_bytes_filtered"](
        image_bytes=tf.constant(pictures[:2]),
        score_threshold=tf.constant([threshold, 2.0]),
        max_detections=tf.constant([1000, 1000]),
    )
    predict, _ = load_predictor(
        lively.train_dir, DetectionParams(select_threshold=threshold)
    )
    expected = predict(pictures[:1])
    assert expected["num_detections"][0] == 21
    first = {name: value[:1].numpy() for name, value in found.items()}
    assert_detections_equal(first, expected)
    assert all(not value[1].numpy().any() for value in found.values())


def test_a_limit_of_a_request_keeps_the_best(exported, pictures):
    loaded = tf.saved_model.load(str(exported / "1"))
    whole = loaded.signatures["image_bytes"](
        image_bytes=tf.constant(pictures[:2])
    )
    found = loaded.signatures["image_bytes_filtered"](
        image_bytes=tf.constant(pictures[:2]),
        score_threshold=tf.constant([0.0, 0.0]),
        max_detections=tf.constant([3, 0]),
    )
    assert found["num_detections"].numpy().tolist() == [3, 0]
    for name in OUTPUTS - {"num_detections"}:
        best = found[name].numpy()
        np.testing.assert_array_equal(best[0, :3], whole[name][0, :3])
        assert not best[0, 3:].any() and not best[1].any()


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc")
def test_the_c_api_runs_it(exported, pictures, tmp_path):
    """TF_LoadSessionFromSavedModel is the loader of TensorFlow Serving."""
    library = pathlib.Path(tf.sysconfig.get_lib())
    program = tmp_path / "capi_run"
    subprocess.run(
        [
            *("gcc", SUPPORT / "capi_run.c", "-o", program),
            f"-I{tf.sysconfig.get_include()}",
            f"-L{library}",
            "-l:libtensorflow_cc.so.2",
            "-l:libtensorflow_framework.so.2",
            f"-Wl,-rpath,{library}",
        ],
        check=True,
    )
    (tmp_path / "image.jpg").write_bytes(pictures[0])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(
            session, ["serve"], str(exported / "1")
        )
    signature = meta.signature_def["serving_default"]
    given = signature.inputs["image_bytes"].name.split(":")[0]
    wanted, index = signature.outputs["detection_scores"].name.split(":")
    done = subprocess.run(
        [program, exported / "1", given, wanted, index, tmp_path / "image.jpg"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    predict, _ = load_predictor(exported)
    np.testing.assert_allclose(
        [float(line) for line in done.stdout.split()],
        predict(pictures[:1])["detection_scores"][0],
        atol=1e-4,
    )


def test_the_naive_export_does_not_run_in_a_session(lively, pictures, tmp_path):
    """Why the root of an export holds no Keras model."""

    class Naive(tf.Module):
        def __init__(self, net):
            self.model = net.model
            self.serve = tf.function(
                signatures.make(net)["image_bytes"].function,
                input_signature=[
                    tf.TensorSpec([None], tf.string, name="image_bytes")
                ],
            )

    naive = Naive(lively.net)
    path = str(tmp_path / "naive")
    tf.saved_model.save(naive, path, signatures=naive.serve)
    # TensorFlow 2's loader, with which one would have tested it, is content.
    loaded = tf.saved_model.load(path).signatures["serving_default"]
    assert loaded(image_bytes=tf.constant(pictures[:1]))
    requests = tmp_path / "requests"
    batch = {"image_bytes": np.array(pictures[:1], object)}
    requests.write_bytes(pickle.dumps([("serving_default", batch)]))
    process = start(
        SUPPORT / "session_run.py", path, requests, tmp_path / "answers"
    )
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "FailedPreconditionError" in errors
    assert "Could not find variable" in errors


def test_every_variable_is_stored_once(exported, lively):
    stored = tf.train.list_variables(str(exported / "1/variables/variables"))
    shapes = [tuple(shape) for name, shape in stored if "VALUE" in name]
    assert sorted(shapes) == sorted(
        tuple(each.shape) for each in lively.net.model.variables
    )


def test_saved_model_cli_runs_it(exported, lively, pictures, tmp_path):
    predict, _ = load_predictor(lively.train_dir)
    np.save(tmp_path / "images.npy", np.array(pictures[:2]))
    cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
    finish(
        start(
            cli,
            "run",
            f"--dir={exported / '1'}",
            "--tag_set=serve",
            "--signature_def=serving_default",
            f"--inputs=image_bytes={tmp_path / 'images.npy'}",
            f"--outdir={tmp_path}",
        )
    )
    found = {name: np.load(tmp_path / f"{name}.npy") for name in OUTPUTS}
    assert_detections_equal(found, predict(pictures[:2]))


def test_warmup_requests_are_read_and_run(exported):
    apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = exported / "1" / warmup.WARMUP_FILE
    signature_names = []
    loaded = tf.saved_model.load(str(exported / "1"))
    for record in tf.data.TFRecordDataset(str(path)):
        log = apis.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        signature_names.append(request.model_spec.signature_name)
        inputs = {
            name: tf.constant(tf.make_ndarray(value))
            for name, value in request.inputs.items()
        }
        found = loaded.signatures[signature_names[-1]](**inputs)
        rows = {len(value) for value in (*inputs.values(), *found.values())}
        assert rows in ({1}, {8})
    assert sorted(signature_names) == sorted(
        ["serving_default", "image_bytes", "image_bytes_filtered"] * 2
        + ["tf_example", "image_tensor"]
    )


def test_an_export_that_does_not_run_is_not_there(lively, tmp_path):
    how = saved_model.SavedModelOptions(warmup_images=[b"no image"])
    model = Model(lively.net, lively.settings.class_names)
    with pytest.raises(tf.errors.InvalidArgumentError):
        saved_model.write(model, tmp_path / "ssd", how=how)
    assert not list((tmp_path / "ssd").iterdir())


def test_the_model_describes_itself(exported, lively):
    text = (exported / "1" / serving.MODEL_FILE).read_text("utf-8")
    described = json.loads(text)
    params = lively.net.params
    assert described["class_names"] == list(lively.settings.class_names)
    assert described["input"]["height"] == params.img_shape[0]
    assert described["anchors"]["count"] == len(lively.net.flat_anchors)
    assert described["detection"]["nms_threshold"] == 0.45
    assert described["versions"]["keras"] == keras.__version__
    assert described["signatures"]["serving_default"] == "image_bytes"
    assert described["signatures"]["image_tensor"] == {
        "input_tensor": {"dtype": "uint8", "shape": [None, None, None, 3]}
    }


def test_a_bad_image_is_an_empty_result_where_asked(lively, pictures, tmp_path):
    how = saved_model.SavedModelOptions(Decoding(bad_is_empty=True))
    model = Model(lively.net, lively.settings.class_names)
    version = saved_model.write(model, tmp_path / "ssd", how=how)
    batch = [b"text", pictures[0], b"", pictures[1][:200]]
    examples = [example(x) for x in batch]
    # Of these not even the example is one, or has no image.
    examples += [b"\xff\xff garbage", b"", example(b"")]
    examples.append(tf.train.Example().SerializeToString())
    requests = [
        ("image_bytes", {"image_bytes": np.array(batch, object)}),
        ("tf_example", {"input_tensor": np.array(examples, object)}),
    ]
    predict, _ = load_predictor(lively.train_dir)
    expected = predict([pictures[0]])
    for found in run_in_session(version, requests, tmp_path):
        for value in found.values():
            assert not np.delete(value, 1, axis=0).any()
        alone = {name: value[1:2] for name, value in found.items()}
        assert_detections_equal(alone, expected)


def test_a_batch_equals_its_images(exported, pictures):
    predict, _ = load_predictor(exported)
    together = predict(pictures)
    for index, picture in enumerate(pictures):
        alone = predict([picture])
        for name in OUTPUTS:
            np.testing.assert_allclose(
                together[name][index], alone[name][0], atol=1e-5
            )


def test_labels_are_an_asset(exported, lively):
    labels = (exported / "1" / "assets" / "labels.txt").read_text()
    assert tuple(labels.split()) == lively.settings.class_names


def test_versions_count_up_and_are_never_overwritten(
    exported, lively, tmp_path
):
    folder = tmp_path / "ssd"
    shutil.copytree(exported / "1", folder / "7")
    (folder / "not_a_version").mkdir()
    assert serving.next_version(folder) == 8
    with pytest.raises(UserError, match="7: is there already.*--version"):
        export_saved_model(
            lively.net, lively.settings.class_names, folder, version=7
        )
    assert sorted(path.name for path in folder.iterdir()) == [
        "7",
        "not_a_version",
    ]
    assert serving.find_saved_model(folder) == folder / "7"


def folder_of(tmp_path, *names, junk=()):
    """A folder with versions and with what is none."""
    for name in (*names, *junk):
        (tmp_path / name).mkdir()
    for name in names:
        (tmp_path / name / "saved_model.pb").touch()
    return tmp_path


def test_a_number_counts_also_without_a_model(tmp_path):
    folder = folder_of(tmp_path, "7", junk=("8", "9x", ".10.tmp"))
    assert serving.next_version(folder) == 9
    assert serving.find_saved_model(folder) == folder / "7"
    assert serving.find_version(folder, 8) == folder / "8"
    assert serving.find_version(folder, 9) is None


def test_a_number_may_have_zeros_before_it(tmp_path):
    """TensorFlow Serving takes these for versions, too."""
    folder = folder_of(tmp_path, "0007", "3")
    assert serving.find_saved_model(folder) == folder / "0007"
    assert serving.find_version(folder, 7) == folder / "0007"
    assert serving.next_version(folder) == 8
    assert serving.next_version(tmp_path / "none") == 1


def test_undecodable_bytes_say_so(exported):
    predict, _ = load_predictor(exported)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image"):
        predict([b"no image"])
