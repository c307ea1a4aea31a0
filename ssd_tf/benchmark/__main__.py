"""Speed of every stage on this machine.

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

import os
import platform
import statistics
from typing import Any

from absl import flags

from ssd_tf import command
from ssd_tf.command import UserError, files
from ssd_tf.command.settings import choices
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
Case = tuple[str, str]  # its stage and its name
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

FLAGS = flags.FlagValues()
flags.DEFINE_enum(
    "model_name",
    "ssd_300_vgg",
    list(PRESETS),
    "The network.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "batch_size", 8, "Images in a batch.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_enum(
    "precision",
    "float32",
    choices(TrainParams, "precision"),
    "Keras dtype policy of the network.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "against",
    None,
    ["torchvision"],
    "An implementation whose train step takes turns with ours, which is "
    "measured in mixed_bfloat16 too [none].",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "stages",
    list(STAGES),
    "Stages to measure, separated by commas.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "repeats",
    5,
    "Measurements of each case, of which the median is shown.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "json", None, "File for the figures [not written].", flag_values=FLAGS
)


def measure(
    model_name: str,
    batch_size: int,
    precision: str,
    stages: list[str],
    repeats: int,
    against: str | None = None,
) -> Samples:
    """Measures all cases of the stages in turn, `repeats` times."""
    from ssd_tf.benchmark import inputs
    from ssd_tf.benchmark import stages as benchmark_stages

    net = inputs.make_net(model_name, precision)
    command.say(f"preparing {', '.join(stages)}")
    # First: without torchvision it stops before it takes long.
    compared = _to_compare(net, batch_size) if against else {}
    cases = {}
    for stage in stages:
        made = benchmark_stages.MAKERS[stage](net, batch_size)
        cases |= {(stage, case): take for case, take in made.items()}
    cases |= compared
    samples = {key: [] for key in cases}
    with command.progress("measuring", repeats * len(cases), "cases") as step:
        for _ in range(repeats):
            for key, take in cases.items():
                samples[key].append(take())
                step()
    return samples


def _to_compare(net: Any, batch_size: int) -> dict[Case, Any]:
    """torchvision's step, and ours in the other precision."""
    from ssd_tf.benchmark import inputs, torchvision
    from ssd_tf.benchmark import stages as benchmark_stages

    theirs = torchvision.train(net, batch_size)
    half = inputs.make_net(net.params.model_name, "mixed_bfloat16")
    ours = benchmark_stages.train(half, batch_size)
    return {_BFLOAT16_STEP: ours[_STEP[1]], _TORCHVISION: theirs}


def machine_facts() -> dict[str, Any]:
    """Where the figures come from."""
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = platform.machine()
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = details.get("device_name", "GPU")
    return {
        "device": device,
        "cores": _num_cores(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def ratios(samples: Samples) -> dict[str, float]:
    """Those of `RATIOS` that can be told: medians over the repeats."""
    return {
        name: statistics.median(
            one / other
            for one, other in zip(samples[above], samples[below], strict=True)
        )
        for name, (above, below) in RATIOS.items()
        if above in samples and below in samples
    }


def summary(samples: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Stage -> case -> median milliseconds per image, and images a second."""
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


def main() -> None:
    """Measures, prints and writes what the flags ask for."""
    unknown = [stage for stage in FLAGS.stages if stage not in STAGES]
    if unknown or not FLAGS.stages:
        raise UserError(
            f"--stages: there is no stage {', '.join(unknown)!r}; "
            f"there are {', '.join(STAGES)}"
        )
    if FLAGS.against:
        _check_comparable()
    names = ("model_name", "batch_size", "precision", "repeats", "against")
    settings = {name: FLAGS[name].value for name in names}
    command.load_tensorflow()
    samples = measure(stages=FLAGS.stages, **settings)
    stages, quotients = summary(samples), ratios(samples)
    machine = machine_facts()
    command.say(", ".join(f"{k} {v}" for k, v in machine.items()))
    _print(
        f"{FLAGS.model_name}, {FLAGS.precision}, batch {FLAGS.batch_size}",
        stages,
        quotients,
    )
    if FLAGS.json:
        figures = {
            "machine": machine,
            "settings": settings,
            "stages": stages,
            "ratios": quotients,
        }
        files.write_json(FLAGS.json, figures)


def _check_comparable() -> None:
    same = FLAGS.model_name == "ssd_300_vgg" and FLAGS.precision == "float32"
    if not same or "train" not in FLAGS.stages:
        raise UserError(
            f"--against={FLAGS.against}: compares the train step of "
            "ssd_300_vgg in float32; use --model_name=ssd_300_vgg, "
            "--precision=float32 and --stages=train"
        )


def run() -> None:
    """The command."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
