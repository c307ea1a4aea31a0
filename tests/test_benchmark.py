"""The command that measures speed: it runs, and says all it measured."""

import json
import math
import subprocess
import sys

import pytest

from ssd_tf import benchmark


def run_command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "ssd_tf.benchmark", *flags],
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_all_stages_are_measured_and_written(tmp_path):
    path = tmp_path / "speed.json"
    done = run_command(
        "--model_name=ssd_128_mobilenet_v2",
        "--batch_size=2",
        "--repeats=1",
        f"--json={path}",
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text("utf-8"))
    assert tuple(figures["stages"]) == benchmark.STAGES
    cases = [
        case for stage in figures["stages"].values() for case in stage.values()
    ]
    assert len(cases) == 13
    for case in cases:
        assert set(case) == {"ms_per_image", "images_per_second"}
        assert all(math.isfinite(x) and x > 0 for x in case.values())
    assert figures["forward_over_bare"] > 0
    assert figures["settings"] == {
        "model_name": "ssd_128_mobilenet_v2",
        "batch_size": 2,
        "precision": "float32",
        "repeats": 1,
    }
    assert figures["machine"]["cores"] >= 1
    for stage in benchmark.STAGES:
        assert f"{stage}, " in done.stdout


@pytest.mark.parametrize(
    ("flag", "choice"),
    [
        ("--stages=encode,encod", "encode"),
        ("--stages=", "encode"),
        ("--model_name=ssd_301_vgg", "ssd_300_vgg"),
        ("--precision=float31", "mixed_float16"),
        ("--repeats=0", "positive"),
    ],
)
def test_wrong_flag_is_one_line_with_the_choices(flag, choice):
    done = run_command(flag)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert choice in done.stderr


def test_median_and_ratio_are_taken_over_the_repeats():
    samples = {
        ("forward", "whole network"): [0.5, 0.25, 4.0],
        ("bare", "its layers alone"): [0.5, 0.5, 1.0],
    }
    stages = benchmark.summary(samples)
    assert stages["forward"]["whole network"] == {
        "ms_per_image": 500.0,
        "images_per_second": 2.0,
    }
    # The repeats' ratios are 1, 0.5 and 4: paired before the median.
    assert benchmark.forward_over_bare(samples) == 1.0
    del samples["bare", "its layers alone"]
    assert benchmark.forward_over_bare(samples) is None
