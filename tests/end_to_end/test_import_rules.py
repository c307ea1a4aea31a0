"""Which door may import which (see docs/architecture.md)."""

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
# Door -> the doors that it may import, also inside functions. Each may import
# itself; none imports upwards, so there is no circle of doors.
DOORS = {
    "command": "",
    "config": "command",
    "datasets": "command",
    "multibox": "config",
    "input_pipeline": "multibox config command",
    "nets": "multibox config command",
    "weights": "nets multibox config command",
    "detect": "input_pipeline nets multibox config command",
    "evaluation": "detect input_pipeline nets multibox config command",
    "client": "detect config command",
    "training": "evaluation detect weights input_pipeline nets multibox"
    " config command",
    "export": "evaluation detect input_pipeline nets multibox config command",
}
# Above all doors: they may import every one.
TOP = {"benchmark", "demo", "train_ssd", "eval_ssd", "ssd_tf"}
# Modules that hand on to a door, for commands of before.
HAND_ON = {"curves": "training", "import_weights": "weights"}
HAND_ON |= {"replay": "training"}
# Files that read data sets; the rest of their doors receives records.
READS_DATASETS = {
    "weights.__main__",
    "detect.detectors",
    "detect.formats",
    "detect.image_files",
    "detect.inputs",
    "detect.reading",
    "evaluation.run",
    "export.images",
    "training.replay",
    "training.train",
}
LIGHT = ["ssd_tf", "ssd_tf.config.net", "ssd_tf.config.presets"]
LIGHT += ["ssd_tf.multibox.anchors", "ssd_tf.multibox.boxes"]
LIGHT += ["ssd_tf.command", "ssd_tf.command.files"]


def imported(source):
    """Names of all that a source imports, also inside functions.

    `from a import b` counts as `a` and `a.b`: b may be a module.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(node.module)
    return names


def knows(names, module):
    return any(f"{name}.".startswith(f"{module}.") for name in names)


@functools.cache
def modules():
    """Module below ssd_tf, or of the top floor -> what it imports."""
    paths = {
        **{path: path.relative_to(ROOT) for path in ROOT.glob("*_ssd.py")},
        **{
            path: path.relative_to(ROOT / "ssd_tf")
            for path in (ROOT / "ssd_tf").rglob("*.py")
        },
        **{
            path: path.relative_to(ROOT)
            for path in (ROOT / "datasets").rglob("*.py")
        },
    }
    found = {}
    for path, place in sorted(paths.items()):
        name = ".".join(place.with_suffix("").parts)
        name = name.removesuffix("__init__").rstrip(".") or "ssd_tf"
        found[name] = frozenset(imported(path.read_text("utf-8")))
    return found


def own_modules(names):
    """The modules of this package among imported names."""
    below = {name.removeprefix("ssd_tf.") for name in names}
    return {name for name in below if name in modules()} - {"ssd_tf"}


def door(module):
    return module.split(".")[0]


def test_the_reader_of_imports_sees_them_all():
    source = """
import a.b, c as d
from e.f import g as h
def function():
    from i import j
"""
    expected = {"a.b", "c", "e.f", "e.f.g", "i", "i.j"}
    assert imported(source) == expected
    assert knows(expected, "a") and knows(expected, "e.f.g")
    assert not knows(expected, "e.f.g.x") and not knows(expected, "e.")
    assert own_modules(modules()["training.train"]) >= {"nets.ssd", "command"}


def test_every_module_is_behind_a_door():
    doors = {door(name) for name in modules()}
    assert doors == {*DOORS, *TOP, *HAND_ON}


def test_arrows_between_doors_point_down():
    upwards = []
    for name, names in modules().items():
        here = HAND_ON.get(name, door(name))
        if here in TOP:
            continue
        allowed = {here, *DOORS[here].split()}
        if name in READS_DATASETS:
            allowed.add("datasets")
        upwards += [
            f"{name} -> {other}"
            for other in sorted(own_modules(names))
            if door(other) not in allowed
        ]
    assert not upwards


def test_only_named_files_read_data_sets():
    readers = {
        name
        for name, names in modules().items()
        if door(name) not in TOP | {"datasets"}
        and knows(names, "ssd_tf.datasets")
    }
    assert readers == READS_DATASETS


def test_no_circle_of_files():
    graph = {
        name: own_modules(names) - {name} for name, names in modules().items()
    }
    # A package's own docstring and hand-ons come with every file in it.
    left = dict(graph)
    while left:
        free = {name for name, others in left.items() if not others & {*left}}
        assert free, f"in a circle: {sorted(left)}"
        left = {name: graph[name] for name in left if name not in free}


def test_the_data_sets_are_not_hugging_faces():
    for name, names in modules().items():
        assert not knows(names, "datasets"), name


def test_tf_slim_is_known_in_one_place():
    users = [n for n, names in modules().items() if knows(names, "tf_slim")]
    assert users == ["nets.layers"]


def test_flags_are_known_to_the_command_door_only():
    for name, names in modules().items():
        if name in {"command", "command.flags"}:
            continue
        assert not knows(names, "absl"), name


def test_light_modules_do_not_load_tensorflow(run_script):
    script = f"""
import sys, {", ".join(LIGHT)}
heavy = ("tensorflow", "keras", "tf_slim", "PIL", "tensorboard")
print([name for name in heavy if name in sys.modules])
"""
    assert run_script(script) == "[]"


def test_metrics_and_the_report_do_not_load_tensorflow(run_script):
    script = """
import sys
import ssd_tf.detect.coco_json, ssd_tf.detect.runtimes
import ssd_tf.evaluation.analysis, ssd_tf.evaluation.comparison
import ssd_tf.evaluation.report.page
print([name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    assert run_script(script) == "[]"


def test_numpy_geometry_does_not_load_tensorflow(run_script):
    script = """
import sys
from ssd_tf.multibox import anchors, boxes
layers = [anchors.ssd_anchor_one_layer((300,) * 2, (38,) * 2, (21, 45), (), 8)]
corners = boxes.to_corners(anchors.flatten_anchors(layers))
boxes.iou_matrix(corners[:9], corners), boxes.clip(corners)
print("tensorflow" in sys.modules)
"""
    assert run_script(script) == "False"
