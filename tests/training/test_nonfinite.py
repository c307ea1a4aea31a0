"""What a step without a finite loss leaves behind, and says."""

import numpy as np
import pytest

from ssd_tf.command import UserError
from ssd_tf.training import nonfinite

GOOD = {"localization": 1.5, "gradient_norm": 3.0, "loss": 1.5}
BATCH = {
    "image": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 2, 2, 3),
    "boxes": np.array([[[0, 0, 1, np.nan]], [[0, 0, 1, 1]]], np.float32),
    "labels": np.array([[1], [0]]),
    "ignored": np.array([[False], [True]]),
}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("term", list(GOOD))
def test_every_term_counts(term, bad):
    assert nonfinite.all_finite(GOOD)
    terms = {**GOOD, term: float(bad)}
    assert not nonfinite.all_finite(terms)
    # Scaled gradients overflow, which the optimizer knows how to handle.
    scaled = {**terms, "loss_scale": 1.0}
    assert nonfinite.all_finite(scaled) == (term == "gradient_norm")
    # As long as there is something left to halve.
    assert not nonfinite.all_finite({**terms, "loss_scale": 0.5})


def stop(train_dir, source_ids, terms=None, worker=None):
    terms = terms or {**GOOD, "localization": np.nan, "loss": np.nan}
    with pytest.raises(UserError) as caught:
        nonfinite.stop(terms, 7, BATCH, source_ids, train_dir, worker)
    return str(caught.value)


def test_the_message(tmp_path):
    path = tmp_path / "nonfinite_step_7.npz"
    assert stop(tmp_path, ["a.jpg", "b.jpg"]) == (
        "the loss is not finite at step 7: localization nan, loss nan "
        "(gradient_norm 3); images a.jpg, b.jpg; look into the batch: python "
        f"-m ssd_tf.replay --train_dir={tmp_path} --batch={path}; nothing of "
        "the step is saved: lower --learning_rate or set --clip_gradient_norm"
    )
    message = stop(tmp_path, ["a", "b"], {"loss": np.inf})
    assert "step 7: loss inf (all terms); images" in message


def test_eight_images_are_named(tmp_path):
    ids = [f"i{number}" for number in range(12)]
    message = stop(tmp_path, ids)
    assert "images i0, i1, i2, i3, i4, i5, i6, i7 and 4 more; " in message
    assert "i7; " in stop(tmp_path, ids[:8])


def test_the_batch_is_left_behind(tmp_path):
    stop(tmp_path, ["a.jpg", "bildchen ä"])
    [path] = tmp_path.iterdir()
    found = nonfinite.load(path)
    assert list(found.pop("source_id")) == ["a.jpg", "bildchen ä"]
    assert found.keys() == BATCH.keys()
    for key, value in BATCH.items():
        np.testing.assert_array_equal(found[key], value)
        assert found[key].dtype == value.dtype


def test_every_worker_leaves_its_part(tmp_path):
    for worker in (0, 1):
        message = stop(tmp_path, ["a", "b"], worker=worker)
        path = tmp_path / f"nonfinite_step_7_worker_{worker}.npz"
        assert f"--batch={path}" in message
        assert list(nonfinite.load(path)["source_id"]) == ["a", "b"]


def test_parts_with_unlike_numbers_of_boxes_are_joined():
    def part(number, start):
        values = np.arange(start, start + 2 * number)
        return {
            "image": np.full((2, 3, 3, 3), start),
            "boxes": np.stack([values] * 4, -1).reshape(2, number, 4),
            "labels": values.reshape(2, number),
            "ignored": np.ones((2, number), bool),
        }

    parts = [part(1, 10), part(3, 20)]
    whole = nonfinite.join(parts)
    np.testing.assert_array_equal(whole["image"][:, 0, 0, 0], [10, 10, 20, 20])
    np.testing.assert_array_equal(
        whole["labels"], [[10, 0, 0], [11, 0, 0], [20, 21, 22], [23, 24, 25]]
    )
    np.testing.assert_array_equal(whole["boxes"][..., 3], whole["labels"])
    np.testing.assert_array_equal(whole["ignored"], whole["labels"] > 0)


def test_what_cannot_be_written_does_not_hide_the_reason(tmp_path):
    (tmp_path / "file").touch()
    message = stop(tmp_path / "file", ["a", "b"])
    assert "loss nan" in message and "images a, b; " in message
    assert "npz could not be written (" in message and "replay" not in message


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match="x.npz: not found; --batch wants"):
        nonfinite.load(path)
    path.write_bytes(b"no arrays")
    with pytest.raises(UserError, match="x.npz: not such a file"):
        nonfinite.load(path)
    np.savez(path, image=BATCH["image"])
    with pytest.raises(UserError, match="x.npz: not such a file"):
        nonfinite.load(path)
    np.save(tmp_path / "x.npy", BATCH["image"])
    with pytest.raises(UserError, match="x.npy: not such a file"):
        nonfinite.load(tmp_path / "x.npy")
    np.savez(path, **BATCH, source_id=["a", "b"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="x.npz: not such a file"):
        nonfinite.load(path)
