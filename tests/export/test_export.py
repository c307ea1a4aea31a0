"""The steps of an export: what is shown, when, and where; nothing is
converted or run here."""

import json
import sys
import types

import numpy as np
import pytest
from hostile_images import PICTURES

from ssd_tf.command import UserError
from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import saved_model
from ssd_tf.export import export as steps
from ssd_tf.export import publishing, runner, verify
from ssd_tf.export import publishing as server_files
from ssd_tf.export.export import Images, Wanted
from ssd_tf.export.formats import ExportedFile
from ssd_tf.export.model import fingerprint
from ssd_tf.export.saved_model import SavedModelOptions

IMAGES = Images([b"image"])


def version(folder, content="{}"):
    """A SavedModel that nothing can load."""
    (folder / "assets").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    (folder / saved_model.MODEL_FILE).write_text(content)
    return folder


@pytest.fixture
def export(monkeypatch, tmp_path):
    """Exports files with nothing in them; `bad` formats fail."""

    def run(*names, bad=(), number=None):
        seen = []

        def write(model, export_dir, folder, wanted):
            files = {name: folder / f"{name}.file" for name in names}
            for name, path in files.items():
                if name == "saved_model":
                    version(path)
                else:
                    path.write_text(name)
            return files

        def verified(net, files, *_):
            # While it is verified there is nothing that a server could load.
            seen.append(saved_model.versions(tmp_path))
            return [{"name": "keras", "path": None, "mAP": None}] + [
                {
                    "name": each.name,
                    "path": str(each.path),
                    "failures": ["bad"] if each.name in bad else [],
                }
                for each in files
            ]

        monkeypatch.setattr(steps, "_write", write)
        monkeypatch.setattr(verify, "verify", verified)
        monkeypatch.setattr(verify, "print_table", lambda *_: None)
        monkeypatch.setattr(steps.formats, "write_companions", lambda *_: None)
        wanted = Wanted(names, DetectionParams(), SavedModelOptions(), number)
        model = types.SimpleNamespace(net=None)
        try:
            steps.export(model, tmp_path, wanted, IMAGES)
        finally:
            assert not [*tmp_path.glob(".*")]
        return seen

    return run


def test_a_version_appears_when_it_has_been_verified(export, tmp_path):
    version(tmp_path / "1")
    assert export("saved_model", "tflite") == [{1: tmp_path / "1"}]
    assert {*saved_model.versions(tmp_path)} == {1, 2}
    assert (tmp_path / "tflite.file").read_text() == "tflite"
    models = json.loads((tmp_path / "verify.json").read_text())["models"]
    assert [entry["path"] for entry in models] == [
        None,
        str(tmp_path / "2"),
        str(tmp_path / "tflite.file"),
    ]


def test_what_fails_is_kept_and_not_served(export, tmp_path, capsys):
    version(tmp_path / "1")
    for _ in range(2):  # the second in place of the first
        with pytest.raises(UserError, match="1 of 2 files do not give what"):
            export("saved_model", "tflite", bad=["saved_model"])
    assert {*saved_model.versions(tmp_path)} == {1}
    kept = tmp_path / publishing.FAILED / "saved_model.file"
    assert (kept / "saved_model.pb").is_file()
    assert f"{kept}: bad" in capsys.readouterr().out
    assert (tmp_path / "tflite.file").is_file()


def test_a_file_that_fails_leaves_the_older_one(export, tmp_path):
    (tmp_path / "tflite.file").write_text("older")
    with pytest.raises(UserError, match="do not give what the net gives"):
        export("tflite", bad=["tflite"])
    assert (tmp_path / "tflite.file").read_text() == "older"


def test_a_version_of_its_own_number_is_the_one_verified(export, tmp_path):
    version(tmp_path / "7")
    export("saved_model", number=3)
    assert {*saved_model.versions(tmp_path)} == {3, 7}


def test_two_exports_at_once_take_two_numbers(monkeypatch, tmp_path):
    numbers = iter([1, 1, 2])
    monkeypatch.setattr(saved_model, "next_version", lambda _: next(numbers))
    for made in ("one", "other"):
        folder = version(tmp_path / made)
        publishing.publish_version(folder, tmp_path)
    assert {*saved_model.versions(tmp_path)} == {1, 2}


def test_a_number_that_is_taken_is_refused(tmp_path):
    version(tmp_path / "0007")
    with pytest.raises(UserError, match="0007: is there already.*--version"):
        steps.check(tmp_path, ["saved_model"], 7)
    steps.check(tmp_path, ["saved_model"], None)
    # Nothing is written to it.
    steps.check(tmp_path, [], 7)


def test_one_version_is_not_the_folder_of_them(tmp_path):
    folder = version(tmp_path / "ssd" / "1")
    with pytest.raises(UserError, match="is one version .* name .*/ssd"):
        steps.check(folder, [], None)


def test_what_is_not_installed_is_told_first(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match=r"pip install 'ssd-tf\[export\]'"):
        steps.check(tmp_path, ["saved_model", "onnx"], None)


class Variable:
    """As much of one as a fingerprint needs."""

    def numpy(self):
        return np.zeros(3)


NET = types.SimpleNamespace(model=types.SimpleNamespace(variables=[Variable()]))


@pytest.fixture
def verified(monkeypatch):
    """What is verified: nothing is run, and everything is alike."""
    found = []

    def verify_(net, files, *_):
        found.extend(files)
        return [{"name": "keras", "path": None, "mAP": None}]

    monkeypatch.setattr(verify, "verify", verify_)
    monkeypatch.setattr(verify, "print_table", lambda *_: None)
    return found


def verify_all(folder, number=None):
    model = types.SimpleNamespace(net=NET)
    steps.verify_all(model, folder, DetectionParams(), number, IMAGES)


def test_files_are_verified_by_what_they_state(verified, tmp_path):
    own = {"weights_sha256": fingerprint(NET)}
    stated = own | {"detection": {"select_threshold": 0.6}}
    version(tmp_path / "1", json.dumps(stated))
    (tmp_path / "model.tflite").write_bytes(b"damaged, and states nothing")
    verify_all(tmp_path)
    assert verified == [
        ExportedFile(
            "saved_model",
            runner.TENSORFLOW,
            tmp_path / "1",
            DetectionParams(select_threshold=0.6),
        ),
        ExportedFile(
            "tflite",
            runner.LITERT,
            tmp_path / "model.tflite",
            DetectionParams(),
        ),
    ]


def test_files_of_another_checkpoint_are_named(verified, tmp_path, capsys):
    others = {"weights_sha256": "0", "checkpoint": "runs/old/model-9"}
    version(tmp_path / "2", json.dumps(others))
    version(tmp_path / "1")
    with pytest.raises(UserError, match="no file of this checkpoint"):
        verify_all(tmp_path)
    said = capsys.readouterr().out
    assert f"{tmp_path / '2'}: is of other weights, those of runs/old" in said
    verify_all(tmp_path, 1)
    assert [each.path for each in verified] == [tmp_path / "1"]
    with pytest.raises(UserError, match="no version 5; there are 1, 2"):
        verify_all(tmp_path, 5)


def test_without_a_folder_there_is_nothing_to_verify(tmp_path):
    with pytest.raises(UserError, match="no file of this checkpoint"):
        verify_all(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("max_batch_size { value: 4 }", 4),
        ("# max_batch_size { value: 4 }\nmax_batch_size{value:16}", 16),
        ("batch_timeout_micros { value: 2000 }", None),
    ],
)
def test_the_limit_of_batches_is_read(tmp_path, text, number):
    assert server_files.max_batch_size(tmp_path) is None
    (tmp_path / server_files.BATCHING_CONFIG).write_text(text)
    assert server_files.max_batch_size(tmp_path) == number


def test_the_limit_is_first_that_of_the_warmup(tmp_path):
    server_files.write(tmp_path)
    largest = steps.warmup.BATCH_SIZE
    assert server_files.max_batch_size(tmp_path) == largest
    sizes = {
        len(inputs["image_bytes"])
        for _, inputs in steps.warmup.requests([PICTURES["jpeg"]], 4)
        if "image_bytes" in inputs
    }
    assert sizes == {1, 4}


def test_warmup_requests_keep_to_the_limit_of_the_server(
    monkeypatch, tmp_path, capsys
):
    """A request of more images would fail the load of the version."""
    built = []

    def build(model, folder, options, how):
        built.append(how.warmup_batch)
        return folder

    monkeypatch.setattr(steps.saved_model, "build", build)
    wanted = Wanted(["saved_model"], DetectionParams(), SavedModelOptions())
    config = tmp_path / server_files.BATCHING_CONFIG
    for text in ("", "max_batch_size { value: 4 }", "max_batch_size{value:64}"):
        config.write_text(text)
        steps._write_saved_model(None, tmp_path, tmp_path, wanted)
    assert built == [8, 4, 8]
    # Nothing has been written here, as without tensorflow-serving-api.
    told = "no warm-up requests: pip install 'ssd-tf[serving]'\n"
    assert capsys.readouterr().out == 3 * told
