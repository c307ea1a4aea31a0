"""Two evaluations compared by their files."""

import io
import json

import evaluated
import numpy as np
import pytest
from evaluated import judged_of

from ssd_tf.command import UserError
from ssd_tf.evaluation import comparison, evaluate


def save(folder, images, names=evaluated.NAMES, **changes):
    """An evaluation's files; its metrics.json."""
    metrics, judged = evaluate.measure(images, names)
    metrics |= {
        "class_names": list(names),
        "ground_truth_sha256": evaluate.ground_truth_sha256(images),
        **changes,
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    comparison.save(folder / comparison.MATCHES_FILE, judged)
    return folder / "metrics.json"


def without_detections(images):
    nothing = evaluated.image().found
    return [image._replace(found=nothing) for image in images]


def test_outcomes_come_back_as_they_were(tmp_path):
    judged = judged_of(evaluated.random_images(4))
    comparison.save(tmp_path / "matches.npz", judged)
    loaded = comparison.load(tmp_path / "matches.npz")
    for protocol in ("voc", "coco"):
        expected, found = getattr(judged, protocol), getattr(loaded, protocol)
        assert list(found) == list(expected)
        for name, outcomes in expected.items():
            for one, other in zip(outcomes, found[name], strict=True):
                assert one.dtype == other.dtype
                assert one.tolist() == other.tolist()


def test_files_compare_as_what_they_hold(tmp_path, capsys):
    images = evaluated.random_images(4, count=30)
    first = save(tmp_path / "a", without_detections(images))
    second = save(tmp_path / "b", images)
    found = comparison.compare(first, second, num_samples=100)
    metrics = json.loads(second.read_text())
    gain = found["AP_VOC12/mAP"]
    assert gain.first == 0
    assert gain.second == gain.difference
    assert gain.second == pytest.approx(metrics["AP_VOC12/mAP"], abs=1e-12)
    comparison.print_comparison(found)
    output = capsys.readouterr().out
    assert "AP_VOC07/mAP" in output and "better" in output
    comparison.print_comparison(comparison.compare(second, first, 100))
    assert "worse" in capsys.readouterr().out
    comparison.print_comparison(comparison.compare(first, first, 100))
    assert "not told apart" in capsys.readouterr().out


def test_without_samples_there_are_differences_alone(tmp_path, capsys):
    images = evaluated.random_images(4)
    first = save(tmp_path / "a", without_detections(images))
    second = save(tmp_path / "b", images)
    found = comparison.compare(first, second, num_samples=0)
    sampled = comparison.compare(first, second, num_samples=50)
    assert set(found) == set(sampled)
    for name, each in found.items():
        assert each.interval is None and each.share_better is None
        assert each.difference == pytest.approx(sampled[name].difference)
    comparison.print_comparison(found)
    output = capsys.readouterr().out
    assert "intervals" not in output
    gain = f"{100 * found['AP_VOC12/mAP'].difference:+.1f}"
    (row,) = [x for x in output.splitlines() if "AP_VOC12/mAP" in x]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[3:] == [gain, "-", "-"]


def test_only_the_same_images_compare(tmp_path):
    images = evaluated.random_images(4)
    first = save(tmp_path / "a", images)
    fewer = save(tmp_path / "b", images[:-1])
    with pytest.raises(UserError, match=r"different images \(12 and 11\)"):
        comparison.compare(first, fewer)
    others = save(tmp_path / "c", evaluated.random_images(5))
    with pytest.raises(UserError, match="different ground truth"):
        comparison.compare(first, others)
    renamed = save(tmp_path / "d", images, ("cat", "dog", "emu"))
    with pytest.raises(UserError, match="different classes"):
        comparison.compare(first, renamed)
    protocol = {"VOC": "at another IoU", "COCO": ""}
    strict = save(tmp_path / "e", images, protocol=protocol)
    with pytest.raises(UserError, match="different protocols"):
        comparison.compare(first, strict)


def test_outcomes_of_another_evaluation_are_refused(tmp_path):
    images = evaluated.random_images(4)
    first = save(tmp_path / "a", images)
    second = save(tmp_path / "b", without_detections(images))
    fewer = save(tmp_path / "c", images[:-1])
    for other in (second, fewer):
        matches = other.with_name(comparison.MATCHES_FILE).read_bytes()
        first.with_name(comparison.MATCHES_FILE).write_bytes(matches)
        with pytest.raises(UserError, match="matches.npz: is of another eval"):
            comparison.compare(first, first)


@pytest.mark.parametrize("key", ["num_images", "protocol", "class_names"])
def test_metrics_without_a_field_are_one_line(tmp_path, key):
    first = save(tmp_path / "a", evaluated.random_images(4))
    metrics = json.loads(first.read_text())
    del metrics[key]
    first.write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=f"no metrics.json.*{key}"):
        comparison.compare(first, first)


def test_files_that_are_none(tmp_path):
    first = save(tmp_path / "a", evaluated.random_images(4))
    with pytest.raises(UserError, match="nowhere.json: cannot be read"):
        comparison.compare(first, tmp_path / "nowhere.json")
    old = tmp_path / "old.json"
    old.write_text("{}")
    with pytest.raises(UserError, match="is no metrics.json"):
        comparison.compare(first, old)


def _as_array(content):
    """A .npy file, which NumPy opens as something else."""
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


def _with_a_flaw(content):
    """A byte in the middle of an array."""
    at = content.index(b"PK", len(content) // 4) - 40
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"broken",
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        _as_array,
        _with_a_flaw,
    ],
    ids=["other", "empty", "cut", "array", "flaw"],
)
def test_damaged_matches_are_one_line(tmp_path, damage):
    first = save(tmp_path / "a", evaluated.random_images(4))
    path = first.with_name(comparison.MATCHES_FILE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="matches.npz: cannot be read"):
        comparison.compare(first, first)
