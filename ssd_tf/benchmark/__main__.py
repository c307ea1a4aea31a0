"""Measures the speed of every stage on this machine.

  python -m ssd_tf.benchmark --model_name=ssd_300_vgg --json=speed.json

Prints the median time per image of each stage: decode (with augmentation, on
all cores and on one), encode, loss (with its gradient), forward, bare (the
same Keras layers with nothing of SSD's around them), detect (decoding and
suppression), inference (JPEG to detections), evaluate (records to judged
boxes), metrics (VOC's and COCO's numbers of them) and train (a whole step, and
the network's part of it). All is warm: neither compilation nor the first calls
count. The cases take turns, so that a slow spell of the machine falls on all
of them. Ratios are medians of those of every turn.

  python -m ssd_tf.benchmark --stages=train --against=torchvision
"""

import dataclasses
import functools
import os
import platform
import statistics
from typing import Any

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.command.settings import choices, setting
from ssd_tf.config.presets import PRESETS
from ssd_tf.config.training import TrainParams

STAGES = (
    "decode",
    "encode",
    "loss",
    "forward",
    "bare",
    "detect",
    "inference",
    "evaluate",
    "metrics",
    "train",
)
Case = tuple[str, str]  # names of the stage and of the case
# Seconds per image, one for each repeat.
Samples = dict[Case, list[float]]
_STEP = ("train", "whole step")
_BFLOAT16_STEP = ("train", "whole step, mixed_bfloat16")
_TORCHVISION = ("train", "torchvision")
RATIOS: dict[str, tuple[Case, Case]] = {
    "forward_over_bare": (
        ("forward", "whole network"),
        ("bare", "its layers alone"),
    ),
    "evaluation_over_detections": (
        ("evaluate", "JPEG to judged boxes"),
        ("evaluate", "detections alone"),
    ),
    "network_over_step": (("train", "network alone"), _STEP),
    "step_over_torchvision": (_STEP, _TORCHVISION),
    "bfloat16_step_over_torchvision": (_BFLOAT16_STEP, _TORCHVISION),
}

_setting = functools.partial(setting, section="benchmark")


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """The settings of `python -m ssd_tf.benchmark`."""

    model_name: str = _setting(
        "ssd_300_vgg", "Net that is measured.", choices=tuple(PRESETS)
    )
    batch_size: int = _setting(8, "Number of images in a batch.", low=1)
    precision: str = _setting(
        "float32",
        "Keras dtype policy of the net.",
        choices=choices(TrainParams, "precision"),
    )
    against: str | None = _setting(
        None,
        "Other implementation, whose train step takes turns with ours in "
        "float32 and in mixed_bfloat16; from a source checkout.",
        choices=("torchvision",),
    )
    stages: tuple[str, ...] = _setting(
        STAGES,
        "Stages to measure, separated by commas.",
        choices=STAGES,
        is_valid=bool,
    )
    repeats: int = _setting(
        5, "Measurements of each case, of which the median is shown.", low=1
    )
    json: str | None = _setting(None, "JSON file to write the figures to.")


def measure(options: BenchmarkOptions) -> Samples:
    """Measures all cases of the stages in turn, `repeats` times."""
    from ssd_tf.benchmark import inputs, stages

    batch_size = options.batch_size
    net = inputs.make_net(options.model_name, options.precision)
    command.say(f"preparing {', '.join(options.stages)}")
    cases, compared = {}, {}
    # First, as it may refuse: torchvision's step, and ours in bfloat16.
    if options.against:
        from ssd_tf.benchmark import torchvision

        compared[_TORCHVISION] = torchvision.train(net, batch_size)
        half = inputs.make_net(options.model_name, "mixed_bfloat16")
        ours = stages.train(half, batch_size)
        compared = {_BFLOAT16_STEP: ours[_STEP[1]], **compared}
    # Each stage is the function of its name.
    for stage in options.stages:
        made = getattr(stages, stage)(net, batch_size)
        cases |= {(stage, case): take for case, take in made.items()}
    cases |= compared
    samples = {key: [] for key in cases}
    number = options.repeats * len(cases)
    with command.progress("measuring", number, "cases") as step:
        for _ in range(options.repeats):
            for key, take in cases.items():
                samples[key].append(take())
                step()
    return samples


def machine_facts() -> dict[str, Any]:
    """Returns the device, its cores and the versions of the software."""
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = platform.machine()
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = details.get("device_name", "GPU")
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    return {
        "device": device,
        "cores": cores,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def ratios(samples: Samples) -> dict[str, float]:
    """Returns the `RATIOS` of measured cases: medians over the repeats."""
    return {
        name: statistics.median(
            one / other
            for one, other in zip(samples[above], samples[below], strict=True)
        )
        for name, (above, below) in RATIOS.items()
        if above in samples and below in samples
    }


def summary(samples: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Returns medians by stage and case: ms per image and images a second."""
    stages = {}
    for (stage, case), values in samples.items():
        seconds = statistics.median(values)
        stages.setdefault(stage, {})[case] = {
            "ms_per_image": seconds * 1e3,
            "images_per_second": 1 / seconds,
        }
    return stages


def _print(title: str, stages: dict, ratios: dict[str, float]) -> None:
    rows = [
        (
            f"{stage}, {case}",
            f"{values['ms_per_image']:.2f}",
            f"{values['images_per_second']:.1f}",
        )
        for stage, cases in stages.items()
        for case, values in cases.items()
    ]
    command.print_table(title, ("stage", "ms per image", "images/s"), rows)
    for name, ratio in ratios.items():
        above, below = (", ".join(case) for case in RATIOS[name])
        command.say(f"{above} takes {ratio:.3f} times as long as {below}")


def main(options: BenchmarkOptions) -> None:
    """Measures the stages, prints the figures and writes them.

    Raises:
      UserError: the settings have no counterpart in the other implementation.
    """
    same = (options.model_name, options.precision) == ("ssd_300_vgg", "float32")
    if options.against and not (same and "train" in options.stages):
        raise UserError(
            f"--against={options.against}: compares the train step of "
            "ssd_300_vgg in float32; use --model_name=ssd_300_vgg, "
            "--precision=float32 and --stages=train"
        )
    command.load_tensorflow()
    samples = measure(options)
    stages, quotients = summary(samples), ratios(samples)
    machine = machine_facts()
    command.say(", ".join(f"{k} {v}" for k, v in machine.items()))
    title = (
        f"{options.model_name}, {options.precision}, batch {options.batch_size}"
    )
    _print(title, stages, quotients)
    if options.json:
        settings = dict(vars(options))
        del settings["stages"], settings["json"]
        figures = {
            "machine": machine,
            "settings": settings,
            "stages": stages,
            "ratios": quotients,
        }
        files.write_json(options.json, figures)


def run() -> None:
    """Runs the command `ssd-benchmark`."""
    command.run(main, BenchmarkOptions, __doc__)


if __name__ == "__main__":
    run()
