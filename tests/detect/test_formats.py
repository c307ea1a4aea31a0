"""JSON, CSV, COCO, VOC and what is drawn: read back and compared."""

import csv
import io
import json

import numpy as np
import pytest
from detected import BOX, NAMES, RESULTS, SMALL, by_brightness, result, run
from PIL import Image

from ssd_tf.command import files
from ssd_tf.datasets.annotation import Annotation
from ssd_tf.datasets.convert.convert import convert
from ssd_tf.datasets.formats import voc
from ssd_tf.detect import formats
from ssd_tf.detect import outputs as detect_outputs
from ssd_tf.detect import results as detect_results
from ssd_tf.detect.outputs import Outputs


def as_png(image):
    file = io.BytesIO()
    Image.fromarray(image.pixels).save(file, "PNG")
    return image._replace(encoded=file.getvalue())


def write(name, folder, results=RESULTS, min_score=0.5):
    formats.FORMATS[name](folder, iter(results), NAMES, min_score)


def test_json_has_everything(tmp_path):
    write("json", tmp_path)
    found = json.loads(
        (tmp_path / "detections_by_image.json").read_text("utf-8")
    )
    assert found["class_names"] == list(NAMES)
    first, empty, last = found["images"]
    assert (first["height"], first["width"]) == (40, 60)
    assert [each["score"] for each in first["detections"]] == [0.9, 0.6, 0.1]
    assert first["detections"][0] == {
        "class": 2,
        "name": "a/b: dog",
        "score": 0.9,
        "box": list(BOX),
    }
    assert empty["detections"] == [] and "frame" not in empty
    # A class that has no name is called by its number.
    assert last["detections"][0]["name"] == "3"
    assert last["file"] == 'in/größe, "x".jpg'


def test_json_of_nothing_is_json(tmp_path):
    write("json", tmp_path, [])
    assert json.loads((tmp_path / "detections_by_image.json").read_text()) == {
        "class_names": list(NAMES),
        "images": [],
    }


def test_csv_has_a_row_for_each_from_the_least_score_on(tmp_path):
    write("csv", tmp_path, min_score=0.6)
    with (tmp_path / "detections.csv").open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [float(row["score"]) for row in rows] == [0.9, 0.6, 0.75]
    assert rows[2]["file"] == 'in/größe, "x".jpg' and rows[2]["name"] == "3"
    corners = [float(rows[0][key]) for key in ("ymin", "xmin", "ymax", "xmax")]
    assert corners == [10, 6, 30, 30]
    assert (rows[0]["width"], rows[0]["height"]) == ("60", "40")
    assert (rows[0]["class"], rows[0]["frame"]) == ("2", "")


def test_voc_is_read_back_by_the_converter(tmp_path):
    results = [each._replace(picture=as_png(each.picture)) for each in RESULTS]
    write("voc", tmp_path, results)
    read = list(voc.read([tmp_path / "voc"], formats.VOC_SPLIT))
    assert all(isinstance(each, Annotation) for each in read)
    assert [each.source_id for each in read] == [
        each.picture.source_id for each in RESULTS
    ]
    first, empty, _ = read
    assert first.names == ("a/b: dog", "cat") and empty.names == ()
    expected = detect_results.pixel_slices(np.array([BOX, SMALL]), 40, 60)
    found = first.boxes * np.array([40, 60] * 2)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert first.read_image() == results[0].picture.encoded
    manifest = convert(tmp_path / "voc", tmp_path / "data", num_workers=1)
    assert manifest["classes"] == sorted(["a/b: dog", "cat", "3"])
    assert sum(
        shard["images"] for shard in manifest["splits"]["detected"]["shards"]
    ) == len(RESULTS)


def test_voc_files_hold_whole_pixels(tmp_path):
    uneven = result(((0.1234, 0.2345, 0.8765, 0.7654), 0.9, 1))
    write("voc", tmp_path, [uneven])
    text = (tmp_path / "voc" / "Annotations" / "a.xml").read_text()
    # 4.936, 14.07, 35.06, 45.924 pixels; VOC counts from 1 to the last.
    for tag, pixel in zip(
        ("ymin", "xmin", "ymax", "xmax"), (6, 15, 35, 46), strict=True
    ):
        assert f"<{tag}>{pixel}</{tag}>" in text


def test_what_voc_cannot_say_is_left_out(tmp_path):
    thin = result(((0.5, 0, 0.5, 1), 0.9, 1), (BOX, 0.8, 1))
    write("voc", tmp_path, [thin])
    (found,) = voc.read([tmp_path / "voc"], "detected")
    assert len(found.names) == 1


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_format_that_fails_leaves_nothing_half_written(tmp_path, name):
    def failing():
        yield RESULTS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(name, tmp_path, failing())
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    whole = (
        {"Annotations/a.xml", "JPEGImages/a.jpg"} if name == "voc" else set()
    )
    assert {str(path.relative_to(tmp_path / "voc")) for path in found} == whole


def test_detections_of_a_batch_are_sorted_and_sound():
    nan = float("nan")
    batch = {
        "detection_boxes": [np.array([BOX, (nan, 0, 1, 1), SMALL, BOX, BOX])],
        "detection_scores": [np.array([0.2, 0.9, 0.7, nan, 0.6])],
        "detection_classes": [np.array([1, 1, 2, 1, 0])],
        "num_detections": [5],
    }
    found = detect_results.detections_of(batch, 0)
    assert found.scores.tolist() == [0.7, 0.2]
    assert found.classes.tolist() == [2, 1]
    np.testing.assert_array_equal(found.boxes, [SMALL, BOX])
    batch["num_detections"] = [1]
    assert detect_results.detections_of(batch, 0).scores.tolist() == [0.2]


@pytest.mark.parametrize(
    "box, expected",
    [
        (BOX, [10, 6, 30, 30]),
        ((0, 0, 1, 1), [0, 0, 40, 60]),
        ((-1, 0.5, 2, 0.5), [0, 30, 40, 31]),
        ((1, 1, 1, 1), [39, 59, 40, 60]),
        ((0.9, 0.9, 0.1, 0.1), [36, 54, 37, 55]),
    ],
)
def test_pixel_boxes_hold_a_pixel(box, expected):
    found = detect_results.pixel_slices(np.array([box]), 40, 60)
    assert found.tolist() == [expected]


def halves(height=40, width=60):
    """Red left of the middle, blue right of it."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 250
    pixels[:, width // 2 :, 2] = 250
    return pixels


def test_crops_are_the_pixels_of_their_boxes(tmp_path):
    each = result(
        ((0.0, 0.0, 0.5, 0.5), 0.9, 1),
        ((0.25, 0.5, 0.75, 0.75), 0.8, 2),
        ((0.0, 0.0, 1.0, 1.0), 0.3, 1),
        pixels=halves(),
    )
    detect_outputs.save_crops(each, Outputs(tmp_path, NAMES, 0.5))
    crops = tmp_path / "crops"
    assert {str(x.relative_to(crops)) for x in crops.rglob("*.jpg")} == {
        *("cat/a_1.jpg", "a_b_ dog/a_2.jpg")
    }
    with Image.open(crops / "cat" / "a_1.jpg") as red:
        assert red.size == (30, 20)
        assert np.abs(np.asarray(red).astype(int) - [250, 0, 0]).max() < 8
    with Image.open(crops / "a_b_ dog" / "a_2.jpg") as blue:
        assert blue.size == (15, 20)
        assert np.abs(np.asarray(blue).astype(int) - [0, 0, 250]).max() < 8


def test_folders_of_classes_are_safe_and_their_own():
    names = ["a/b", "a:b", "A_B", "..", "cat"]
    expected = ["a_b", "a_b_2", "A_B_3", "_", "cat"]
    assert detect_outputs.class_folders(names) == expected


def test_one_pixel_and_nothing_found_are_drawn(tmp_path):
    for pixels in (np.zeros((1, 1, 3), np.uint8), halves()):
        each = result(((0, 0, 1, 1), 0.9, 1), pixels=pixels)
        outputs = Outputs(tmp_path, NAMES, crops=True)
        assert detect_outputs.render(each, outputs).drawn is None
        with Image.open(tmp_path / "a.jpg") as image:
            assert image.size == pixels.shape[1::-1]
    empty = result(pixels=halves())
    detect_outputs.render(empty, Outputs(tmp_path, NAMES))
    with Image.open(tmp_path / "a.jpg") as image:
        # Nothing but what JPEG does at the edge in the middle.
        assert np.abs(np.asarray(image).astype(int) - halves()).mean() < 3


def test_a_disk_that_is_full_ends_the_run(tmp_path, pictures, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(pictures[0])

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace_file", fail)
    with pytest.raises(OSError, match="No space left"):
        run(by_brightness(), [tmp_path / "a.jpg"], tmp_path / "out")


def test_every_format_of_a_run_agrees(tmp_path, pictures):
    for name, data in zip("abc", pictures, strict=True):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    out = tmp_path / "out"
    run(
        by_brightness(),
        [tmp_path / "*.jpg"],
        out,
        batch_size=2,
        formats=list(formats.FORMATS),
        min_score=0.0,
        pictures=False,
    )
    told = json.loads((out / "detections_by_image.json").read_text())["images"]
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    coco = json.loads((out / "detections.json").read_text())
    images = json.loads((out / "coco_images.json").read_text())["images"]
    file_of = {each["id"]: each["file_name"] for each in images}
    trees = list(voc.read([out / "voc"], "detected"))
    assert len(told) == len(rows) == len(coco) == len(trees) == 3
    for entry, row, each, tree in zip(told, rows, coco, trees, strict=True):
        size = np.array([entry["height"], entry["width"]] * 2)
        pixels = entry["detections"][0]["box"] * size
        from_row = [float(row[x]) for x in ("ymin", "xmin", "ymax", "xmax")]
        np.testing.assert_allclose(from_row, pixels, atol=0.0051)
        x, y, width, height = each["bbox"]
        np.testing.assert_allclose(
            [y, x, y + height, x + width], pixels, atol=0.0011
        )
        np.testing.assert_allclose(tree.boxes[0] * size, pixels, atol=0.501)
        assert file_of[each["image_id"]] == entry["file"]
        assert entry["file"].endswith(f"{tree.source_id}.jpg")
    assert not list(out.glob("*.jpg"))
