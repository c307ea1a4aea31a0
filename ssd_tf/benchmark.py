"""Speed of every stage on this machine.

  python -m ssd_tf.benchmark --model_name=ssd_300_vgg --json=speed.json

Prints the median time per image of each stage: decode (with augmentation, on
all cores and on one), encode, loss (with its gradient), forward, bare (the
same Keras layers with nothing of SSD's around them), detect (decoding and
suppression), inference (JPEG to detections) and train (a whole step). All is
warm: neither compilation nor the first calls count. The cases take turns, so
that a slow spell of the machine falls on all of them.
"""

import os
import platform
import statistics
from typing import Any

from absl import flags

from ssd_tf import command, files
from ssd_tf.command import UserError
from ssd_tf.presets import PRESETS

STAGES = (
    "decode",
    "encode",
    "loss",
    "forward",
    "bare",
    "detect",
    "inference",
    "train",
)
# (Stage, case) -> seconds per image, one for each repeat.
Samples = dict[tuple[str, str], list[float]]

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
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "Keras dtype policy of the network.",
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
) -> Samples:
    """Measures all cases of the stages in turn, `repeats` times."""
    from ssd_tf import benchmark_inputs, benchmark_stages

    net = benchmark_inputs.make_net(model_name, precision)
    command.say(f"preparing {', '.join(stages)}")
    cases = {
        (stage, case): take
        for stage in stages
        for case, take in benchmark_stages.MAKERS[stage](
            net, batch_size
        ).items()
    }
    samples = {key: [] for key in cases}
    with command.progress("measuring", repeats * len(cases), "cases") as step:
        for _ in range(repeats):
            for key, take in cases.items():
                samples[key].append(take())
                step()
    return samples


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


def forward_over_bare(samples: Samples) -> float | None:
    """Median over the repeats of the whole network's time by its layers'."""
    times = {stage: values for (stage, _), values in samples.items()}
    if not {"forward", "bare"} <= set(times):
        return None
    pairs = zip(times["forward"], times["bare"], strict=True)
    return statistics.median(whole / bare for whole, bare in pairs)


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


def _print(title: str, stages: dict, ratio: float | None) -> None:
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
    if ratio is not None:
        command.say(f"forward takes {ratio:.3f} times as long as bare")


def main() -> None:
    """Measures, prints and writes what the flags ask for."""
    unknown = [stage for stage in FLAGS.stages if stage not in STAGES]
    if unknown or not FLAGS.stages:
        raise UserError(
            f"--stages: there is no stage {', '.join(unknown)!r}; "
            f"there are {', '.join(STAGES)}"
        )
    settings = {
        name: FLAGS[name].value
        for name in ("model_name", "batch_size", "precision", "repeats")
    }
    command.load_tensorflow()
    samples = measure(stages=FLAGS.stages, **settings)
    stages, ratio = summary(samples), forward_over_bare(samples)
    machine = machine_facts()
    command.say(", ".join(f"{k} {v}" for k, v in machine.items()))
    _print(
        f"{FLAGS.model_name}, {FLAGS.precision}, batch {FLAGS.batch_size}",
        stages,
        ratio,
    )
    if FLAGS.json:
        figures = {
            "machine": machine,
            "settings": settings,
            "stages": stages,
            "forward_over_bare": ratio,
        }
        files.write_json(FLAGS.json, figures)


def run() -> None:
    """The command."""
    command.run(main, FLAGS, __doc__)


if __name__ == "__main__":
    run()
