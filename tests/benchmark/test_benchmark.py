"""The command that measures speed: it runs, and says all it measured."""

import importlib.util
import json
import math
import subprocess
import sys

import keras
import numpy as np
import pytest

from ssd_tf.benchmark import __main__ as benchmark
from ssd_tf.benchmark import inputs, torchvision
from ssd_tf.benchmark import stages as benchmark_stages
from ssd_tf.benchmark import stages as timing
from ssd_tf.command import UserError


def run_command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "ssd_tf.benchmark", *flags],
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
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
    assert len(cases) == 16
    for case in cases:
        assert set(case) == {"ms_per_image", "images_per_second"}
        assert all(math.isfinite(x) and x > 0 for x in case.values())
    assert set(figures["ratios"]) == {"forward_over_bare", "network_over_step"}
    assert all(ratio > 0 for ratio in figures["ratios"].values())
    assert figures["settings"] == {
        "model_name": "ssd_128_mobilenet_v2",
        "batch_size": 2,
        "precision": "float32",
        "repeats": 1,
        "against": None,
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
        ("--against=keras_cv", "torchvision"),
    ],
)
def test_wrong_flag_is_one_line_with_the_choices(flag, choice):
    done = run_command(flag)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert choice in done.stderr


@pytest.mark.parametrize(
    "flag",
    ["--model_name=ssd_512_vgg", "--precision=mixed_bfloat16", "--stages=loss"],
)
def test_only_what_is_alike_is_compared(flag):
    done = run_command("--against=torchvision", flag)
    assert done.returncode == 1
    assert done.stderr == (
        "error: --against=torchvision: compares the train step of ssd_300_vgg "
        "in float32; use --model_name=ssd_300_vgg, --precision=float32 and "
        "--stages=train\n"
    )


@pytest.fixture(scope="module")
def small_net():
    return inputs.make_net("ssd_128_mobilenet_v2", "float32")


# What takes minutes is left to the test of the command.
@pytest.mark.parametrize(
    "stage", [x for x in benchmark.STAGES if x not in ("metrics", "train")]
)
def test_every_stage_can_be_measured(small_net, monkeypatch, stage):
    for name in ("NUM_PHOTOS", "NUM_EVALUATED"):
        monkeypatch.setattr(benchmark_stages, name, 2)
    cases = getattr(benchmark_stages, stage)(small_net, 1)
    assert cases
    for measure in cases.values():
        assert 0 < measure() < 60


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
    assert benchmark.ratios(samples) == {"forward_over_bare": 1.0}
    del samples["bare", "its layers alone"]
    assert benchmark.ratios(samples) == {}


def test_network_alone_leaves_out_what_is_ssds():
    """It updates every variable, and with the sum of the outputs' gradient."""
    net = inputs.make_net("ssd_128_mobilenet_v2", "float32")
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(net.model.trainable_variables)
    images = inputs.images(net, 1)
    head = net.model.get_layer("extra1_box.conv_loc.pointwise")
    bias = head.bias.numpy()
    benchmark_stages._network_step(net, optimizer, False)(images)
    (_, height, width, _) = head.output.shape
    # Of a bias the sum's gradient is the number of places.
    np.testing.assert_allclose(head.bias, bias - height * width, rtol=1e-6)


def test_a_measurement_begins_with_a_call_that_does_not_count(monkeypatch):
    # The clock of a call that takes 0.3 s, and 5 s on its turn's first time.
    now, called = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call():
        called.append(now[0])
        now[0] += 0.3 if turn else 5.0
        turn.append(1)

    turn = []
    measure = timing.warmed(call, images=3)
    assert len(called) == 2
    turn.clear()
    assert measure() == pytest.approx(0.1)
    assert len(called) == 4


needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason="torchvision is not installed",
)


def test_both_train_on_the_same_boxes():
    net = inputs.make_net("ssd_300_vgg", "float32")
    batch = torchvision._batch(net, 2)
    truth = inputs.truth(net, 2, torchvision.NUM_BOXES)
    ymin, xmin, ymax, xmax = truth["boxes"][1, 9].numpy() * 300
    np.testing.assert_allclose(
        batch["boxes"][1][9], [xmin, ymin, xmax, ymax], rtol=1e-6
    )
    assert batch["labels"][1][9] == truth["labels"][1, 9]
    assert [len(labels) for labels in batch["labels"]] == [10, 10]
    assert batch["img_shape"] == (300, 300) and batch["num_classes"] == 21


@needs_torchvision
@pytest.mark.slow
def test_train_steps_take_turns(tmp_path):
    path = tmp_path / "speed.json"
    done = run_command(
        "--against=torchvision",
        "--stages=train",
        "--batch_size=1",
        "--repeats=1",
        f"--json={path}",
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text("utf-8"))
    assert set(figures["stages"]["train"]) == {
        "whole step",
        "network alone",
        "whole step, mixed_bfloat16",
        "torchvision",
    }
    assert set(figures["ratios"]) == {
        "network_over_step",
        "step_over_torchvision",
        "bfloat16_step_over_torchvision",
    }


def test_the_end_of_torchvisions_process_is_told(monkeypatch, tmp_path):
    ends = tmp_path / "ends.py"
    ends.write_text("pass")
    monkeypatch.setattr(torchvision, "_SCRIPT", ends)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    net = inputs.make_net("ssd_128_mobilenet_v2", "float32")
    with pytest.raises(UserError, match="the process of its steps has ended"):
        torchvision.train(net, 1)


def test_without_torchvision_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="torch is not installed; pip install"):
        torchvision.train(None, 1)


def test_without_a_checkout_it_says_so_in_one_line(monkeypatch, tmp_path):
    missing = tmp_path / "torchvision_process.py"
    monkeypatch.setattr(torchvision, "_SCRIPT", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UserError) as caught:
        torchvision.train(None, 1)
    assert str(caught.value) == (
        f"--against=torchvision: {missing} not found; run it from a source "
        "checkout of ssd_tf"
    )


def test_the_process_takes_a_step_for_each_line(monkeypatch, tmp_path):
    asked = tmp_path / "asked.py"
    log = tmp_path / "lines"
    asked.write_text(
        "import sys, json\n"
        "assert len(json.loads(sys.stdin.readline())['boxes']) == 2\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        f"    open({str(log)!r}, 'a').write('x')\n"
        "    print(1.0, flush=True)\n"
    )
    monkeypatch.setattr(torchvision, "_SCRIPT", asked)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)
    processes, start = [], subprocess.Popen

    def started(*args, **options):
        processes.append(start(*args, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    net = inputs.make_net("ssd_128_mobilenet_v2", "float32")
    measure = torchvision.train(net, 2)
    # One to warm up, one to see how long it takes; then both once more.
    assert log.read_text() == "xx"
    assert 0 < measure() < 5
    assert log.read_text() == "xxxx"
    processes[0].communicate(timeout=60)  # it ends with its input
    assert processes[0].returncode == 0
