"""TFLite and ONNX files against the net; written in a process of their own.

Converters warn, log and change global state.
"""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from exported_files import assert_takes_bytes, detect, metadata_of, resized
from processes import ROOT, error_of, finish, start

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.export import FORMATS
from ssd_tf.detect import description, runtimes
from ssd_tf.export import formats as subjects
from ssd_tf.export import verify
from ssd_tf.export.model import fingerprint

EXACT = 1e-4
# File -> largest difference of scores and boxes, smallest share of pairs.
FILES = {
    "tflite": ("model.tflite", EXACT, 1.0),
    "float16": ("model_float16.tflite", 0.05, 0.98),
    "dynamic": ("model_dynamic.tflite", 0.2, 0.95),
    "int8": ("model_int8.tflite", 0.3, 0.6),
}


@pytest.fixture(scope="module")
def exported(lively, trained, tmp_path_factory):
    """The folder of all files, of a real run of the command."""
    folder = tmp_path_factory.mktemp("files")
    run = ["-m", "ssd_tf.export", f"--checkpoint_path={lively.train_dir}"]
    run += [f"--export_dir={folder}"]
    data = [f"--dataset_dir={trained.dataset_dir}", "--calibration_images=32"]
    data += [f"--verify={trained.dataset_dir}", "--verify_images=12"]
    every = f"--formats={','.join(FORMATS)}"
    (folder / "said").write_text(finish(start(*run, every, *data)))
    (folder / "verify.json").rename(folder / "verified.json")
    return folder


@pytest.fixture(scope="module")
def images(lively, pictures):
    return resized(lively.net, pictures)


@pytest.mark.parametrize(
    ("name", "tolerance", "matched"), FILES.values(), ids=FILES
)
def test_tflite_gives_what_the_net_gives(
    exported, lively, images, name, tolerance, matched
):
    found = runtimes.load_tflite(exported / name).run(images)
    # The op has no limit of candidates.
    expected = detect(lively.net, images, top_k=len(lively.net.flat_anchors))
    scores = expected["detection_scores"]
    assert scores.max() > 0.7 and np.ptp(scores[:, :100]) > 0.2
    alike = verify.compare(expected, found, 0.9 if tolerance < 0.1 else 0.5)
    assert alike.score < tolerance and alike.box < tolerance
    assert alike.matched >= matched


def test_tflite_has_the_outputs_of_tfod_in_their_order(exported):
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
print([x["shape"].tolist() for x in interpreter.get_output_details()])
from ssd_tf.detect import runtimes
import numpy as np
runtime = runtimes.load_tflite(sys.argv[1])
found = runtime.run(np.zeros((1, *runtime.input_size, 3), np.float32))
print(sorted(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, exported / "model.tflite"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    shapes, names = done.stdout.splitlines()
    assert shapes == "[[1, 200, 4], [1, 200], [1, 200], [1]]", done.stderr
    assert names == str(sorted(runtimes.NAMES))


def test_all_detections_of_a_class_are_kept(exported, lively, images):
    """Left alone, the op would stop at 100 of a class."""
    found = runtimes.load_tflite(exported / "model.tflite").run(images)
    expected = detect(lively.net, images, top_k=len(lively.net.flat_anchors))
    for rows in (found, expected):
        counts = [
            np.bincount(classes, minlength=4)[1:].max()
            for classes in rows["detection_classes"]
        ]
        assert max(counts) > 100


def test_files_state_their_weights_and_options(exported, lively, tmp_path):
    asked = DetectionParams(select_threshold=0.3)
    found = subjects.find(exported, asked)
    assert [each.name for each in found][:6] == [*FORMATS]
    for each in found:
        stated = subjects.described(each.path)["weights_sha256"]
        assert stated == fingerprint(lively.net)
        # Its own ones.
        assert each.options == DetectionParams()


def test_int8_takes_bytes(exported):
    assert_takes_bytes(exported / "model_int8.tflite")
    # Weights of four bytes take one.
    sizes = [
        (exported / name).stat().st_size
        for name in ("model.tflite", "model_int8.tflite")
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_metadata_is_where_readers_look_for_it(exported, trained):
    content = (exported / "model.tflite").read_bytes()
    buffer = metadata_of(content)
    assert buffer[4:8] == b"M001"
    assert b"detection_result" in buffer and b"1.2.0" in buffer
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.read(description.LABEL_MAP).decode().split()
    assert tuple(names) == trained.settings.class_names


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_onnx_gives_what_the_net_gives(
    exported, lively, images, runtime, batch
):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    load = getattr(runtimes, f"load_{runtime}")
    given = np.resize(images, (batch, *images.shape[1:]))
    found = load(exported / "model.onnx").run(given)
    expected = detect(lively.net, given)
    assert found["num_detections"].tolist() == (
        expected["num_detections"].tolist()
    )
    alike = verify.compare(expected, found, 0.99)
    assert alike.matched == 1.0
    limit = EXACT if runtime == "onnx" else 1e-3
    assert alike.score < limit and alike.box < limit


def test_onnx_says_what_it_is(exported, trained):
    import onnx

    model = onnx.load(str(exported / "model.onnx"))
    dims = {
        value.name: [
            dim.dim_param or dim.dim_value
            for dim in value.type.tensor_type.shape.dim
        ]
        for value in (*model.graph.input, *model.graph.output)
    }
    size = trained.net.params.img_shape
    assert dims == {
        "images": ["batch", *size, 3],
        "detection_boxes": ["batch", 200, 4],
        "detection_scores": ["batch", 200],
        "detection_classes": ["batch", 200],
        "num_detections": ["batch"],
    }
    props = {prop.key: prop.value for prop in model.metadata_props}
    names = trained.settings.class_names
    assert tuple(props["class_names"].split("\n")) == names
    described = json.loads(props["model.json"])
    assert described == json.loads((exported / "model.json").read_text())
    assert (exported / "labels.txt").read_text().split() == [*names]


def test_the_command_has_verified_all(exported):
    models = json.loads((exported / "verified.json").read_text())["models"]
    names = [entry["name"] for entry in models]
    assert names[:7] == ["keras", *FORMATS]
    for entry in models[1:]:
        assert entry["failures"] == []
        assert entry["megabytes"] > 0 and entry["median_ms"] > 0
        assert abs(entry["loss"]) <= 0.02
    said = (exported / "said").read_text()
    assert "tflite_int8" in said and "FAILED" not in said


def test_a_file_of_another_net_fails(exported, lively, tmp_path):
    """A model that gives something else is named, and the exit code is 1."""
    folder = tmp_path / "ssd"
    folder.mkdir()
    content = (exported / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(_disturbed(content))
    (folder / "model.tflite").write_bytes(b"no model")
    run = ["-m", "ssd_tf.export", f"--checkpoint_path={lively.train_dir}"]
    error = error_of(*run, f"--export_dir={folder}", "--formats=")
    assert "files do not give what the net gives" in error
    models = json.loads((folder / "verify.json").read_text())["models"]
    failed = {x["name"]: x["failures"] for x in models[1:]}
    assert "is no TFLite model" in failed["tflite"][0]
    assert any("are paired" in words for words in failed["onnx"])


def _disturbed(content):
    """An ONNX model whose larger arrays are all zeros."""
    import onnx

    model = onnx.load_from_string(content)
    for array in model.graph.initializer:
        if len(array.raw_data) > 4096:
            array.raw_data = bytes(len(array.raw_data))
    return model.SerializeToString()


def test_no_detections_and_some(lively, images, tmp_path):
    given = np.concatenate([images, images[:1] * 0])
    best = detect(lively.net, given)["detection_scores"].max(axis=1)
    low, high = sorted(best)[1:3]
    threshold = float(low + high) / 2
    run = ["-m", "ssd_tf.export", f"--checkpoint_path={lively.train_dir}"]
    run += [f"--export_dir={tmp_path}", "--formats=tflite,onnx"]
    finish(start(*run, f"--select_threshold={threshold}"))
    expected = detect(lively.net, given, select_threshold=threshold)
    counts = expected["num_detections"]
    assert (counts == 0).sum() == 2
    empty = np.flatnonzero(counts == 0)[:1]
    for load, name in (
        (runtimes.load_onnx, "model.onnx"),
        (runtimes.load_openvino, "model.onnx"),
        (runtimes.load_tflite, "model.tflite"),
    ):
        runtime = load(tmp_path / name)
        for rows in (slice(None), empty):
            found = runtime.run(given[rows])
            np.testing.assert_array_equal(found["num_detections"], counts[rows])
            wanted = {key: x[rows] for key, x in expected.items()}
            assert verify.compare(wanted, found, 0.99).matched == 1.0
            padding = found["detection_scores"] == 0
            assert not found["detection_boxes"][padding].any()
            assert not found["detection_classes"][padding].any()
