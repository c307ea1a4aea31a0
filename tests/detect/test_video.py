"""Videos and cameras, in and out."""

import dataclasses
import itertools
import json
import tracemalloc
import types

import numpy as np
import pytest
from detected import (
    by_brightness,
    ramp,
    read_all,
    read_video,
    retimed,
    run,
    write_video,
)

from ssd_tf.detect import reading, video
from ssd_tf.detect.reading import Picture, Unreadable

cv2 = pytest.importorskip("cv2")


def entries(folder):
    return json.loads((folder / "detections_by_image.json").read_text())[
        "images"
    ]


@pytest.mark.parametrize("codec", ["MJPG", "FFV1", "mp4v"])
def test_frames_come_in_order_with_their_times(tmp_path, codec):
    path = tmp_path / ("a.mp4" if codec == "mp4v" else "a.avi")
    write_video(path, ramp(20), 12.5, codec)
    found = read_all([path])
    assert [each.moment.index for each in found] == list(range(20))
    times = [each.moment.seconds for each in found]
    np.testing.assert_allclose(times, np.arange(20) / 12.5, atol=1e-3)
    for each, frame in zip(found, ramp(20), strict=True):
        assert np.abs(each.pixels.astype(int) - frame).max() < 12
    assert len({each.source_id for each in found}) == 20
    assert {each.moment.fps for each in found} == {12.5}


def test_lossless_frames_are_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 48, 64, 3), np.uint8)
    write_video(tmp_path / "a.avi", frames)
    found = [each.pixels for each in read_all([tmp_path / "a.avi"])]
    # Colours pass through YUV: green's lowest bit may go.
    assert np.abs(np.array(found).astype(int) - frames).max() <= 2


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_a_video_is_detected_in_batches_and_drawn(tmp_path, batch_size):
    write_video(tmp_path / "a.avi", ramp(18), 7.5)
    sizes = []
    summary = run(
        by_brightness(sizes), [tmp_path / "a.avi"], tmp_path / "out", batch_size
    )
    assert (summary.pictures, summary.unreadable) == (18, [])
    assert sizes[:-1] == [batch_size] * (
        18 // batch_size - (18 % batch_size == 0)
    )
    found = entries(tmp_path / "out")
    assert [entry["frame"] for entry in found] == list(range(18))
    assert found[3]["seconds"] == pytest.approx(3 / 7.5)
    scores = [entry["detections"][0]["score"] for entry in found]
    expected = [frame.mean() / 255 for frame in ramp(18)]
    np.testing.assert_allclose(scores, expected, atol=0.01)
    drawn, fps = read_video(tmp_path / "out" / "a.avi.mp4")
    assert (len(drawn), fps) == (18, 7.5)
    for number, (frame, shade) in enumerate(zip(drawn, ramp(18), strict=True)):
        # In the order of the input, and not the input itself.
        corner = frame[-6:, -6:].astype(int)
        assert np.abs(corner - shade[0, 0, 0]).max() < 12, number
        assert np.abs(frame.astype(int) - shade).max() > 25 or number < 10


def test_colours_are_not_exchanged(tmp_path):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[..., 0] = 220
    write_video(tmp_path / "a.avi", [frame] * 3)
    run(by_brightness(), [tmp_path / "a.avi"], tmp_path / "out", min_score=1.0)
    drawn, _ = read_video(tmp_path / "out" / "a.avi.mp4")
    assert np.abs(drawn[1].astype(int) - frame).mean() < 5


def test_videos_and_pictures_do_not_mix(tmp_path, pictures):
    write_video(tmp_path / "a.avi", ramp(5))
    write_video(tmp_path / "c.avi", ramp(7), 20)
    (tmp_path / "b.jpg").write_bytes(pictures[0])
    run(by_brightness(), [tmp_path], tmp_path.with_name("out"))
    out = tmp_path.with_name("out")
    assert [len(read_video(out / f"{x}.avi.mp4")[0]) for x in "ac"] == [5, 7]
    assert read_video(out / "c.avi.mp4")[1] == 20
    files = [entry["file"] for entry in entries(out)]
    assert files == [
        *[str(tmp_path / "a.avi")] * 5,
        str(tmp_path / "b.jpg"),
        *[str(tmp_path / "c.avi")] * 7,
    ]
    assert {path.name for path in out.iterdir()} == {
        *("a.avi.mp4", "b.jpg", "c.avi.mp4", "detections_by_image.json")
    }


def test_max_frames_is_of_each_video(tmp_path):
    write_video(tmp_path / "a.avi", ramp(9))
    write_video(tmp_path / "b.avi", ramp(3))
    found = read_all([tmp_path], max_frames=4)
    assert [each.moment.index for each in found] == [0, 1, 2, 3, 0, 1, 2]


@pytest.mark.parametrize("data", [b"", b"no video", b"RIFF\0\0\0\0AVI LIST"])
def test_what_is_no_video_is_named(tmp_path, data):
    path = tmp_path / "a.avi"
    path.write_bytes(data)
    assert read_all([path]) == [
        Unreadable(str(path), "no video that OpenCV can read")
    ]


def test_a_video_that_ends_too_early_is_named(tmp_path):
    path = tmp_path / "a.avi"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (30, 48, 64, 3), np.uint8)
    write_video(path, frames, codec="MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    *frames, end = read_all([path])
    assert 5 < len(frames) < 25
    assert all(isinstance(frame, Picture) for frame in frames)
    assert f"ends after {len(frames)} of the 30 frames" in end.reason


def test_a_video_without_pictures_is_named(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", ramp(3))
    monkeypatch.setattr(video, "frames", lambda *_: iter(()))
    (found,) = read_all([tmp_path / "a.avi"])
    assert found.reason == "no frame of it can be read"


def test_a_screen_recording_is_whole_and_plays_as_long(tmp_path):
    path = tmp_path / "a.mkv"
    write_video(path, ramp(15), 30, "MJPG")
    # Seven pictures in a row, then one every two thirds of a second.
    times = [33 * n + 633 * max(0, n - 6) for n in range(15)]
    retimed(path, times)
    with video.opened(path) as capture:
        assert video.stated_frames(capture) > 150
    summary = run(by_brightness(), [path], tmp_path / "out")
    assert (summary.pictures, summary.unreadable) == (15, [])
    drawn, fps = read_video(tmp_path / "out" / "a.mkv.mp4")
    assert len(drawn) / fps == pytest.approx(times[-1] / 1000 + 1 / 30, abs=0.1)
    # Each picture is seen at its time.
    for number in (0, 5, 9, 14):
        shade = drawn[round(times[number] / 1000 * fps)][-4:, -4:].mean()
        assert abs(shade - ramp(15)[number].mean()) < 4, number


@pytest.mark.parametrize(
    "seconds, stated, is_cut_off",
    [
        (3.0, 3.0, False),
        (2.1, 3.0, False),  # sound is longer
        (1.9, 3.0, True),
        (96, 100, False),
        (94, 100, True),
        (9.0, 3.0, False),
    ],
)
def test_what_is_clearly_missing(seconds, stated, is_cut_off):
    assert reading._is_cut_off(seconds, stated) == is_cut_off


def test_a_camera_runs_until_it_is_stopped(tmp_path, monkeypatch):
    write_video(tmp_path / "a.avi", ramp(30))
    capture = cv2.VideoCapture

    def camera_or_file(source):
        return capture(source if source != 1 else str(tmp_path / "a.avi"))

    monkeypatch.setattr(cv2, "VideoCapture", camera_or_file)
    # A detector that takes a fifth of a second.
    ticks = itertools.count()
    clock = types.SimpleNamespace(monotonic=lambda: next(ticks) / 5)
    monkeypatch.setattr(video, "time", clock)
    asked = []

    def is_stopped():
        asked.append(1)
        return len(asked) > 20

    out = tmp_path / "out"
    summary = run(by_brightness(), ["webcam:1"], out, is_stopped=is_stopped)
    assert summary.pictures == 20
    found = entries(out)
    assert {entry["file"] for entry in found} == {"webcam:1"}
    times = [entry["seconds"] for entry in found]
    np.testing.assert_allclose(times, np.arange(20) / 5, atol=1e-6)
    drawn, fps = read_video(out / "webcam_1.mp4")
    # The last picture is seen once.
    assert (len(drawn), fps) == (2 * 19 + 1, 10)
    summary = run(by_brightness(), ["webcam:1"], out, max_frames=6)
    assert summary.pictures == 6


def test_there_is_no_camera(monkeypatch):
    class Nothing:
        def isOpened(self):
            return False

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Nothing())
    assert read_all(["webcam:7"]) == [Unreadable("webcam:7", "no such camera")]


@pytest.mark.parametrize("stated", [0.0, float("nan"), float("inf"), -1, 9e4])
def test_a_rate_that_cannot_be_is_the_default(stated):
    class Capture:
        def get(self, _):
            return stated

    assert video.frame_rate(Capture()) == video.DEFAULT_FPS


def test_a_detector_that_fails_leaves_nothing_half_written(tmp_path):
    write_video(tmp_path / "a.avi", ramp(30))
    model = by_brightness()

    def predict(batch):
        predict.calls += 1
        if predict.calls > 3:
            raise ZeroDivisionError
        return model.predict(batch)

    predict.calls = 0
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        run(
            dataclasses.replace(model, predict=predict),
            [tmp_path / "a.avi"],
            out,
            formats=["json", "csv", "coco"],
        )
    assert list(out.iterdir()) == []


def test_a_long_video_needs_no_more_memory_than_a_short_one(tmp_path):
    peaks = []
    for number in (60, 400):
        path = tmp_path / f"{number}.avi"
        write_video(path, ramp(1, 480, 640) * number, codec="MJPG")
        tracemalloc.start()
        run(
            by_brightness(),
            [path],
            tmp_path / "out",
            formats=["json", "csv", "coco"],
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 340 frames more have 313 MB.
    assert peaks[1] < peaks[0] + 20e6, peaks
