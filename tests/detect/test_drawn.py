"""Drawn videos: rates, sizes, and such that cannot be written."""

import json

import numpy as np
import pytest
from detected import by_brightness, ramp, read_video, run, write_video

from ssd_tf.command import UserError
from ssd_tf.detect import video

pytest.importorskip("cv2")


@pytest.mark.parametrize(
    "fps", [0.0005, 23.976, 66.6667, 83.3333, 99.999, 119.8732, 239.876, 1000]
)
def test_every_frame_rate_can_be_drawn(tmp_path, fps):
    rate = video.writable_rate(fps)
    if 0.01 <= fps <= 240:
        assert rate == pytest.approx(fps, rel=1e-4)
    with video.writing(tmp_path / "a.mp4", rate, 48, 64) as write:
        for frame in ramp(3):
            write(frame)
    drawn, stated = read_video(tmp_path / "a.mp4")
    assert len(drawn) == 3 and stated == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize("fps", [83.333, 119.873])
def test_an_odd_frame_rate_keeps_every_frame(tmp_path, fps):
    write_video(tmp_path / "a.avi", ramp(12), fps, "MJPG")
    out = tmp_path / "out"
    summary = run(by_brightness(), [tmp_path / "a.avi"], out)
    assert (summary.pictures, summary.unreadable) == (12, [])
    drawn, rate = read_video(out / "a.avi.mp4")
    assert len(drawn) == 12 and rate == pytest.approx(fps, rel=1e-4)


def test_a_rate_that_cannot_be_written_is_told_of_at_once(tmp_path):
    with pytest.raises(UserError, match="64 x 48 at 119.873 frames"):
        with video.writing(tmp_path / "a.mp4", 119.873, 48, 64):
            pytest.fail("nothing can be written")
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_cannot_be_drawn_ends_nothing_else(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", ramp(20), 119.873, "MJPG")
    write_video(tmp_path / "b.avi", ramp(6))
    monkeypatch.setattr(video, "writable_rate", lambda fps: fps)
    out = tmp_path / "out"
    formats = ["json", "csv"]
    summary = run(by_brightness(), [tmp_path], out, formats=formats)
    assert summary.pictures == 26
    (failed,) = summary.unreadable
    assert failed.file == str(tmp_path / "a.avi")
    assert "not drawn: " in failed.reason
    assert "--nosave_pictures" in failed.reason
    told = json.loads((out / "detections_by_image.json").read_text())
    assert len(told["images"]) == 26
    assert len(read_video(out / "b.avi.mp4")[0]) == 6
    assert {path.name for path in out.iterdir()} == {
        *("b.avi.mp4", "detections_by_image.json", "detections.csv")
    }


@pytest.mark.parametrize(
    "frames, expected",
    [
        ([], ""),
        ([(0, "a")], "a"),
        ([(0.0, "a"), (0.1, "b"), (0.2, "c")], "abc"),
        ([(0.0, "a"), (0.098, "b"), (0.203, "c")], "abc"),
        ([(0.0, "a"), (0.2, "b"), (0.5, "c")], "aabbbc"),
        ([(0.0, "a"), (0.04, "b"), (0.12, "c"), (0.13, "d")], "bd"),
        ([(0.0, "a"), (1e6, "b"), (1e6 + 0.1, "c")], "a" * 1800 + "bc"),
    ],
)
def test_frames_at_a_constant_rate(frames, expected):
    assert "".join(video.at_rate(iter(frames), 10.0)) == expected


def test_frames_that_cannot_be_written_are_told_of(tmp_path):
    with pytest.raises(UserError, match="0 of 3 frames could be written"):
        with video.writing(tmp_path / "a.mp4", 10, 48, 64) as write:
            for _ in range(3):
                write(np.zeros((5, 7, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64), (2, 2)])
def test_odd_sizes(tmp_path, size):
    frames = np.zeros((3, *size, 3), np.uint8)
    with video.writing(tmp_path / "a.mp4", 10, *size) as write:
        for frame in frames:
            write(frame)
    drawn, _ = read_video(tmp_path / "a.mp4")
    assert len(drawn) == 3 and drawn[0].shape == (
        size[0] // 2 * 2,
        size[1] // 2 * 2,
        3,
    )
