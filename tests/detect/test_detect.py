"""The command: one detector, every kind of input, and mistakes."""

import io
import json
import pathlib
import signal

import numpy as np
import pytest
from detected import by_brightness, ramp, read_video, run, write_video
from hostile_images import bomb
from PIL import Image
from processes import SUPPORT, TIMEOUT, error_of, finish, start, wait_until

from ssd_tf.config import run as config
from ssd_tf.detect import detectors, runtimes
from ssd_tf.detect.reading import read_image
from ssd_tf.evaluation import evaluate
from ssd_tf.export import saved_model
from ssd_tf.export.model import Model
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.input_pipeline import preprocessing
from ssd_tf.nets import checkpoint


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """Two good JPEGs, one of them lying on its side, and a broken one."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "a.jpg").write_bytes(pictures[0])
    with Image.open(io.BytesIO(pictures[1])) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # turn a quarter clockwise to see it upright
        image.save(folder / "b.JPG", "JPEG", exif=exif, quality=95)
    (folder / "c.jpg").write_bytes(pictures[2][:500])
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def train_dir(trained, pictures, tmp_path_factory):
    """A net whose answers depend on the picture.

    Those of `trained` do not: after four steps its batch norms divide by the
    averages that they began with, and all pictures look alike to the heads.
    """
    net = checkpoint.load_net(trained.train_dir)
    pixels = [read_image(picture)[1] for picture in pictures]
    images = [preprocessing.resize(x, net.params.img_shape) for x in pixels]
    for layer in net.model.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = 0.0
    net.model(preprocessing.whiten(np.stack(images), net.params), training=True)
    folder = tmp_path_factory.mktemp("train_dir")
    config.save(trained.settings, folder)
    checkpoint.save_weights(net, folder)
    return folder


@pytest.fixture(scope="module")
def model(train_dir):
    return detectors.load_detector(train_dir)


@pytest.fixture(scope="module")
def forms(train_dir, model, tmp_path_factory):
    """Kind of a model -> its path."""
    folder = tmp_path_factory.mktemp("forms")
    finish(start(SUPPORT / "export_files.py", train_dir, folder))
    net = checkpoint.load_net(train_dir)
    saved_model.write(Model(net, model.class_names), folder / "exported")
    return {
        "SavedModel": folder / "exported",
        "TFLite": folder / "model.tflite",
        "ONNX": folder / "model.onnx",
    }


def command(model, source, output_dir, *others):
    """Words that start the command."""
    return (
        *("-m", "ssd_tf.detect", f"--model={model}", f"--input={source}"),
        *(f"--output_dir={output_dir}", *others),
    )


def read(folder):
    return json.loads((folder / "detections_by_image.json").read_text("utf-8"))


def detections(folder):
    """Stem of an image -> its detections."""
    return {
        pathlib.Path(entry["file"].rpartition(":")[2]).stem: entry["detections"]
        for entry in read(folder)["images"]
    }


def test_the_command_draws_writes_and_counts(
    trained, train_dir, folder, tmp_path
):
    output = finish(start(*command(train_dir, folder, tmp_path)))
    assert "not readable: " in output and "c.jpg" in output
    assert "on 2 images (1 not readable)" in output
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.jpg", "b.JPG", "detections_by_image.json")
    }
    result = read(tmp_path)
    assert tuple(result["class_names"]) == trained.settings.class_names
    first, second = result["images"]
    with Image.open(folder / "b.JPG") as stored:
        assert (second["height"], second["width"]) == stored.size
    with Image.open(tmp_path / "b.JPG") as drawn:
        assert (second["width"], second["height"]) == drawn.size
    scores = [found["score"] for found in first["detections"]]
    assert scores == sorted(scores, reverse=True) and scores
    for found in first["detections"]:
        assert result["class_names"][found["class"] - 1] == found["name"]
        assert np.all(np.clip(found["box"], 0, 1) == found["box"])


def test_everything_at_once(trained, train_dir, folder, tmp_path):
    write_video(tmp_path / "clip.avi", ramp(5), 12.5)
    records = trained.dataset_dir / "test-00000-of-00001.tfrecord"
    sources = f"{folder}/*.jpg,{tmp_path}/clip.avi,{records}"
    out = tmp_path / "out"
    output = finish(
        start(
            *command(train_dir, sources, out, "--min_score=0.3"),
            *("--formats=json,csv,coco,voc", "--save_crops"),
        )
    )
    assert "on 18 images (1 not readable)" in output
    assert "frames/s" in output
    assert {path.name for path in out.iterdir()} >= {
        *("a.jpg", "clip.avi.mp4", "crops", "voc", "detections_by_image.json"),
        *("detections.csv", "detections.json", "coco_images.json"),
    }
    result = read(out)
    rows = (out / "detections.csv").read_text().splitlines()[1:]
    crops = list((out / "crops").glob("*/*.jpg"))
    expected = [
        each
        for entry in result["images"]
        for each in entry["detections"]
        if each["score"] >= 0.3
    ]
    assert len(rows) == len(crops) == len(expected) > 18
    assert {path.parent.name for path in crops} <= {*result["class_names"]}
    assert len(read_video(out / "clip.avi.mp4")[0]) == 5
    assert len(list((out / "voc" / "Annotations").iterdir())) == 18
    assert not [path for path in out.rglob(".*")]


@pytest.fixture(scope="module")
def by_input(trained, model, tmp_path_factory):
    """Kind of input -> what is found on the test images."""
    root = tmp_path_factory.mktemp("by_input")
    raw = trained.dataset_dir.parent / "raw" / "JPEGImages"
    paths = sorted(raw.glob("test_*.jpg"))
    for name in ("folder", "lossless", "bitmaps"):
        (root / name).mkdir()
    for path in paths:
        (root / "folder" / path.name).write_bytes(path.read_bytes())
        pixels = preprocessing.decode(path.read_bytes()).numpy()
        image = Image.fromarray(pixels)
        image.save(root / "lossless" / f"{path.stem}.png")
        image.save(root / "bitmaps" / f"{path.stem}.bmp")
    inputs = {
        "folder": [root / "folder"],
        "pattern": [f"{root}/fold*/*.jpg"],
        "files": paths,
        "lossless": [root / "lossless"],
        "bitmaps": [root / "bitmaps"],
        "record file": [trained.dataset_dir / "test-00000-of-00001.tfrecord"],
        "records": [trained.dataset_dir],
    }
    found = {}
    for name, values in inputs.items():
        out = root / f"found_{name}"
        split = "test" if name == "records" else None
        assert not run(model, values, out, split=split).unreadable
        found[name] = detections(out)
    return found


@pytest.mark.parametrize(
    "kind",
    ["pattern", "files", "lossless", "bitmaps", "record file", "records"],
)
def test_every_input_gives_the_same_detections(by_input, kind):
    assert len(by_input["folder"]) == 12
    assert sum(map(len, by_input["folder"].values())) > 100
    assert by_input[kind] == by_input["folder"]


def test_evaluation_sees_the_same(trained, train_dir, by_input):
    batches = input_pipeline.make_for_eval(
        trained.records("test"),
        input_pipeline.prepare_for(trained.settings.params),
        8,
    )
    detect = evaluate.make_detect(checkpoint.load_net(train_dir))
    scores = [
        image_scores
        for batch in batches
        for image_scores in detect(batch["image"])[1].numpy()
    ]
    for (_, found), expected in zip(
        sorted(by_input["folder"].items()), scores, strict=True
    ):
        mine = [each["score"] for each in found]
        np.testing.assert_allclose(mine, expected[: len(mine)], atol=1e-4)
        assert not expected[len(mine) :].any()


def test_pictures_differ_in_what_is_found(by_input):
    best = [str(found[:3]) for found in by_input["folder"].values()]
    assert len({*best}) == 12


def share_of_twins(found, expected, number=20):
    """Of the best detections, how many are among the others, too."""
    found, expected = (
        np.array([[*x["box"], x["score"], x["class"]] for x in each])
        for each in (found, expected[:number])
    )
    # Other orders of additions in float32.
    same = np.abs(expected[:, None] - found).max(axis=-1) < 1e-3
    return same.any(axis=1).mean()


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_a_batch_is_as_good_as_one(
    trained, model, by_input, tmp_path, batch_size
):
    run(model, [trained.dataset_dir], tmp_path, batch_size, split="test")
    found = detections(tmp_path)
    for name, expected in by_input["folder"].items():
        assert share_of_twins(found[name], expected) == 1


def test_batches_are_full_over_all_inputs(pictures, tmp_path):
    for name in ("x/a.jpg", "x/b.jpg", "y/a.jpg", "y/c.jpg", "y/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pictures[0])
    (tmp_path / "x/bad.jpg").touch()
    sizes = []
    summary = run(
        by_brightness(sizes), [tmp_path / "x", tmp_path / "y"], tmp_path / "o"
    )
    assert sizes == [4, 1] and summary.pictures == 5
    drawn = {
        str(path.relative_to(tmp_path / "o"))
        for path in (tmp_path / "o").rglob("*.jpg")
    }
    assert drawn == {"x/a.jpg", "x/b.jpg", "y/a.jpg", "y/c.jpg", "y/d.jpg"}


@pytest.mark.parametrize("kind", ["SavedModel", "TFLite", "ONNX"])
def test_every_form_of_a_model_detects_the_same(
    model, forms, pictures, tmp_path, kind
):
    other = detectors.load_detector(forms[kind])
    names = other.names
    assert names == (model.class_names if kind == "SavedModel" else None)
    (tmp_path / "a.jpg").write_bytes(pictures[0])
    write_video(tmp_path / "b.avi", ramp(3))
    for each, out in ((model, "mine"), (other, "theirs")):
        run(each, [tmp_path / "a.jpg", tmp_path / "b.avi"], tmp_path / out)
    mine, theirs = (
        read(tmp_path / out)["images"] for out in ("mine", "theirs")
    )
    assert len(mine) == len(theirs) == 4
    for entries in zip(mine, theirs, strict=True):
        assert share_of_twins(*(x["detections"] for x in entries)) >= 0.95


def test_names_of_a_file_come_from_labels(forms, folder, tmp_path):
    model = forms["ONNX"]
    finish(start(*command(model, folder, tmp_path / "numbers")))
    found = read(tmp_path / "numbers")
    assert found["class_names"] == []
    assert {x["name"] for x in found["images"][0]["detections"]} <= {*"1234"}

    names = ["één", "two", "three", "four"]
    (tmp_path / "names.txt").write_text("\n".join(names), "utf-8")
    given = f"--labels={tmp_path}/names.txt"
    finish(start(*command(model, folder, tmp_path / "given", given)))
    assert read(tmp_path / "given")["class_names"] == names

    beside = tmp_path / "model.onnx"
    beside.write_bytes(model.read_bytes())
    (tmp_path / "labels.txt").write_text("\n".join(names[::-1]), "utf-8")
    finish(start(*command(beside, folder, tmp_path / "beside")))
    assert read(tmp_path / "beside")["class_names"] == names[::-1]


def test_an_export_refuses_images_that_are_too_large_for_it(forms):
    assert detectors.load_detector(forms["SavedModel"]).max_pixels == 1 << 26


def test_arrays_have_the_names_that_all_have(model):
    found = model.predict({"image": model.prepare(ramp(1)[0], None)[None]})
    assert {*found} == {*runtimes.NAMES}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--input=/nowhere"], "--input=/nowhere: no such file or folder"),
        (["--input={tmp}"], "no image in it"),
        (["--input={tmp}/*.jpg"], "matches no image"),
        (["--input={data}"], "name their split by --dataset_split_name"),
        (
            ["--input={data}", "--dataset_split_name=val"],
            "no split 'val'; splits there: test, train",
        ),
        (
            ["--input={folder}", "--formats=json,xml"],
            "--formats=json,xml: expected",
        ),
        (["--input={folder}", "--labels=names.txt"], "has its own"),
        (["--input={folder}/c.jpg"], "no readable image in it"),
        (["--input={folder}", "--batch_size=0"], "batch_size"),
        (["--input={folder}", "--min_score=2"], "min_score"),
        (["--input={folder}", "--model=/nowhere"], "/nowhere"),
        (["--input={folder}", "--model=/a.tflite"], "/a.tflite: no such file"),
        (
            ["--input={folder}", "--model=/a.onnx", "--nms_threshold=.3"],
            "--nms",
        ),
        ([], "--input is missing"),
    ],
)
def test_mistakes_are_one_line(trained, folder, tmp_path, arguments, message):
    (tmp_path / "in").mkdir()
    names = {
        "tmp": tmp_path / "in",
        "data": trained.dataset_dir,
        "folder": folder,
    }
    out = tmp_path / "out"
    assert message in error_of(
        *("-m", "ssd_tf.detect", f"--model={trained.train_dir}"),
        f"--output_dir={out}",
        *(word.format(**names) for word in arguments),
    )
    assert not list(out.glob("*.jpg")) and not list(out.glob(".*"))


def test_the_extra_for_videos_is_named(trained, tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "cv2.py").write_text("raise ImportError")
    process = start(
        *command(trained.train_dir, tmp_path, tmp_path / "out"),
        PYTHONPATH=str(tmp_path),
    )
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert errors == (
        "error: cv2 is not installed; pip install 'ssd-tf[video]'\n"
    )


def test_the_originals_are_never_drawn_over(trained, folder):
    before = (folder / "a.jpg").read_bytes()
    message = error_of(*command(trained.train_dir, folder, folder))
    assert "holds the images themselves" in message
    assert (folder / "a.jpg").read_bytes() == before


@pytest.mark.parametrize(
    "flag, folder_name", [("--save_crops", "crops"), ("--formats=voc", "voc")]
)
def test_files_of_two_runs_are_never_mixed(
    trained, folder, tmp_path, flag, folder_name
):
    old = tmp_path / folder_name / "old" / "a_1.jpg"
    old.parent.mkdir(parents=True)
    old.touch()
    message = error_of(*command(trained.train_dir, folder, tmp_path, flag))
    assert f"{tmp_path / folder_name}: is not empty" in message
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [old]


def test_a_bomb_is_told_of(trained, folder, tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(20_000, 20_000))
    (tmp_path / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    output = finish(
        start(*command(trained.train_dir, tmp_path, tmp_path / "out"))
    )
    assert (
        "bomb.png: 20000 x 20000 are more than 64 million pixels, the limit "
        "(max_image_megapixels)"
    ) in output
    assert "on 1 images (1 not readable)" in output


def test_an_interrupted_video_keeps_what_was_detected(trained, tmp_path):
    write_video(tmp_path / "long.avi", ramp(4000, 96, 128), codec="MJPG")
    out = tmp_path / "out"
    words = command(trained.train_dir, tmp_path / "long.avi", out)
    process = start(*words, "--batch_size=1", "--formats=json,csv")

    def is_under_way():
        return any(
            path.stat().st_size > 20_000
            for path in out.glob(".detections_by_image.json.*.tmp")
        )

    wait_until(is_under_way, process)
    assert not (out / "detections_by_image.json").exists()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "Traceback" not in errors
    entries = read(out)["images"]
    count = len(entries)
    assert f"stopped by SIGINT after {count} images" in errors, output
    assert 0 < count < 4000
    assert [entry["frame"] for entry in entries] == list(range(count))
    assert len(read_video(out / "long.avi.mp4")[0]) == count
    assert {path.name for path in out.iterdir()} == {
        *("detections_by_image.json", "detections.csv", "long.avi.mp4")
    }
