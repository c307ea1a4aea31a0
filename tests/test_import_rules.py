"""Who may import whom (see the docstrings of the modules)."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Their flags, and for some the data sets, end here.
COMMANDS = {"benchmark", "client", "default_run", "detect", "export"}
COMMANDS |= {"curves", "eval_split", "import_weights", "replay"}
COMMANDS |= {"client_images", "picture_files"}
COMMANDS |= {"detect_formats", "detect_inputs", "detect_reading"}
COMMANDS |= {"export_images"}
# Where flags are made for the commands.
FLAGS = {
    "client_flags",
    "command",
    "config_flags",
    "eval_flags",
    "export_flags",
}
FLAGS |= {"detect_flags", "flag_tables", "unused_flags"}
# What a module of the core may know of the package, itself left out.
CORE = {
    "boxes": set(),
    "recipe": set(),
    "config": {"command", "files", "recipe"},
    "presets": {"command", "config"},
    "anchors": {"config", "recipe"},
    "encoder": {"boxes"},
    "losses": {"recipe"},
    "detection": {"boxes", "encoder", "losses"},
    "preprocessing": {"config"},
    "photometric": {"recipe"},
    "crops": {"boxes", "recipe"},
    "augment": {"crops", "photometric", "preprocessing", "recipe"},
    "input_pipeline": {
        "augment",
        "command",
        "config",
        "preprocessing",
        "recipe",
    },
    "guards": {"command", "files"},
    "run_lock": {"command"},
    "signals": set(),
    "waiting": set(),
    "schedules": {"recipe"},
    "optimizers": {"recipe", "schedules"},
    "averages": {"nets.layers"},
    "train_step": {
        "averages",
        "command",
        "encoder",
        "losses",
        "nets.ssd",
        "optimizers",
        "recipe",
    },
    # Neither the loop nor the files of a run.
    "train_pictures": {
        "boxes",
        "config",
        "detection",
        "drawing",
        "losses",
        "nets.ssd",
        "recipe",
        "train_step",
    },
    "metrics_log": {"files"},
    # Metrics are NumPy alone; see the test below.
    "metrics.inputs": set(),
    "metrics.outcomes": set(),
    "metrics.voc": {"boxes", "metrics.inputs", "metrics.outcomes"},
    "metrics.coco_class": {"metrics.outcomes"},
    "metrics.coco": {
        "metrics.coco_class",
        "metrics.inputs",
        "metrics.outcomes",
    },
    "metrics.bootstrap": {
        "metrics.coco",
        "metrics.outcomes",
        "metrics.voc",
    },
    "metrics.errors": {
        "boxes",
        "metrics.inputs",
        "metrics.outcomes",
        "metrics.voc",
    },
    "metrics.confusion": {"boxes", "metrics.inputs", "metrics.voc"},
    "metrics.operating": {"metrics.outcomes", "metrics.voc"},
    "metrics.sizes": {"metrics.inputs", "metrics.outcomes", "metrics.voc"},
    "metrics.ranking": {"metrics.errors", "metrics.inputs"},
    "coverage": {"boxes", "metrics.inputs", "metrics.sizes"},
    "analysis": {
        "coverage",
        *(
            f"metrics.{name}"
            for name in (
                *("bootstrap", "confusion", "errors", "inputs"),
                *("operating", "ranking", "sizes", "voc"),
            )
        ),
    },
    "coco_results": {"command", "files", "metrics.inputs"},
    "comparison": {
        "command",
        "files",
        "metrics.bootstrap",
        "metrics.outcomes",
    },
    # What draws and writes the page knows nothing of networks.
    "report_charts": set(),
    "report_images": {"drawing", "metrics.inputs", "metrics.ranking"},
    "report": {
        "software",
        "files",
        "metrics.bootstrap",
        "metrics.errors",
        "metrics.outcomes",
        "metrics.sizes",
        "metrics.voc",
        "report_charts",
        "report_images",
    },
    "model_tensors": {"command"},
    "runtimes": {"command", "model_tensors"},
    "stated_names": {"command", "runtimes"},
    "software": set(),
    # A SavedModel knows nothing of the other formats, and nobody of a server.
    "model_json": {
        *("anchors", "boxes", "command", "runtimes"),
        "exporting.tflite_metadata",
    },
    "exporting.gif": set(),
    "exporting.decoding": {"preprocessing", "exporting.gif"},
    "exporting.session": set(),
    "exporting.signatures": {
        *("config", "detection", "losses", "preprocessing"),
        *("exporting.decoding", "nets.ssd"),
    },
    "exporting.description": {
        *("checkpoint", "command", "config", "nets.ssd", "software"),
    },
    "exporting.server_files": {"files"},
    "exporting.warmup": {"exporting.session"},
    "exporting.publishing": {"command", "serving"},
    "exporting.saved_model": {
        *("config", "files", "serving"),
        *("exporting.decoding", "exporting.description"),
        *("exporting.publishing", "exporting.signatures", "exporting.warmup"),
    },
    "exporting.tflite_metadata": set(),
    "exporting.tflite": {
        *("config", "losses", "preprocessing"),
        *("exporting.description", "exporting.raw_heads"),
        *("exporting.saved_model", "exporting.signatures"),
        "exporting.tflite_metadata",
    },
    "exporting.onnx_file": {
        *("config", "detection", "preprocessing"),
        *("exporting.description", "exporting.saved_model"),
        "exporting.signatures",
    },
    "exporting.pairs": {"boxes"},
    # To run raw heads takes what is said of them, not what made them.
    "exporting.raw_heads": {
        *("command", "detection", "model_json", "model_tensors"),
    },
    "exporting.runner": {
        *("runtimes", "exporting.raw_heads", "exporting.session"),
    },
    "exporting.formats": {
        *("command", "config", "files", "serving"),
        *("exporting.description", "exporting.onnx_file", "exporting.tflite"),
    },
    "exporting.subjects": {
        *("command", "config", "model_json", "serving"),
        *("exporting.formats", "exporting.runner"),
    },
    "exporting.verify": {
        *("command", "config", "files", "nets.ssd", "preprocessing"),
        *("exporting.pairs", "exporting.runner", "exporting.subjects"),
    },
    "exporting.steps": {
        *("command", "config", "exporting.description"),
        *("exporting.formats", "exporting.publishing", "exporting.runner"),
        *("exporting.saved_model", "exporting.server_files"),
        *("exporting.subjects", "exporting.verify", "exporting.warmup"),
    },
    # A client has neither a net nor TensorFlow.
    "serving_requests": {"command"},
    "serving_http": set(),
    "serving_rest": {"serving_http", "serving_requests"},
    "serving_grpc": {"command", "serving_requests"},
    "client_bench": {"command", "serving_requests"},
    "client_outputs": {
        *("client_images", "command", "detections_json", "drawing"),
        "picture_files",
    },
    "detections_json": {"files"},
    "background": set(),
    "file_names": set(),
    "detect_video": {"command", "files"},
    "detect_models": {
        *("checkpoint", "command", "config", "model_json", "preprocessing"),
        *("runtimes", "serving", "stated_names"),
    },
    "detect_results": {"detect_reading", "metrics.inputs"},
    "detect_outputs": {
        *("detect_inputs", "detect_results", "detect_video"),
        *("drawing", "file_names", "picture_files"),
    },
    "detect_run": {
        *("background", "command", "detect_formats", "detect_inputs"),
        *("detect_models", "detect_outputs", "detect_reading"),
        "detect_results",
    },
    "files": set(),
    "command": set(),
    "nets.batch_norm": set(),
    "nets.dilated": set(),
    "nets.layers": {"nets.batch_norm", "nets.dilated"},
    "nets.vgg": {"nets.layers"},
    "nets.applications": {"nets.batch_norm", "nets.layers"},
    "nets.fpn": {"nets.layers"},
    "nets.resnet": {"nets.layers"},
    "nets.multibox": {
        "config",
        "recipe",
        "nets.applications",
        "nets.fpn",
        "nets.layers",
        "nets.resnet",
        "nets.vgg",
    },
    "nets.ssd": {
        "anchors",
        "config",
        "detection",
        "encoder",
        "losses",
        "nets.layers",
        "nets.multibox",
    },
    "weights.imported": {"config"},
    "weights.classifier": set(),
    "weights.fitting": {"config", "presets"},
    "weights.formats": {"command", "config", "weights.imported"},
    "weights.matching": {"config", "nets.ssd", "weights.imported"},
    "weights.caffe_proto": set(),
    "weights.tf_checkpoint": {"command", "weights.imported"},
    "weights.keras_reader": {"command", "weights.imported"},
    "nets.nets_factory": {"command", "nets.ssd", "presets"},
}
LIGHT = ["ssd_tf", "ssd_tf.config", "ssd_tf.anchors", "ssd_tf.boxes"]
LIGHT += ["ssd_tf.command", "ssd_tf.files", "ssd_tf.presets"]


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


def modules(folder):
    """Dotted name below the folder -> what the module imports."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / folder).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = imported(
            path.read_text("utf-8")
        )
    assert found
    return found


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


def test_the_detector_does_not_know_the_data_sets():
    for name, names in modules("ssd_tf").items():
        if name not in COMMANDS:
            assert not knows(names, "ssd_tf.datasets"), name


def test_the_data_sets_know_of_the_detector_only_commands_and_files():
    allowed = ("ssd_tf.command", "ssd_tf.files", "ssd_tf.datasets")
    for name, names in modules("datasets").items():
        for other in names - {"ssd_tf"}:
            if knows({other}, "ssd_tf"):
                assert any(knows({other}, known) for known in allowed), name
        # Where the tree is called, it is not Hugging Face's package.
        assert not knows(names, "datasets"), name


def test_tf_slim_is_known_in_one_place():
    users = [
        name
        for folder in ("ssd_tf", "datasets")
        for name, names in modules(folder).items()
        if knows(names, "tf_slim")
    ]
    assert users == ["nets.layers"]


def test_flags_are_known_to_commands_only():
    for name, names in modules("ssd_tf").items():
        if name not in COMMANDS | FLAGS:
            assert not knows(names, "absl"), name
            assert not knows(names, "ssd_tf.config_flags"), name
    users = {
        name
        for name, names in modules("datasets").items()
        if knows(names, "absl")
    }
    assert users <= {"convert"}


@pytest.mark.parametrize("name", CORE)
def test_the_core_is_layered(name):
    names = modules("ssd_tf")
    known = {
        other
        for other in names
        if other != name and f"ssd_tf.{other}" in names[name]
    }
    assert known <= CORE[name] | {"nets", "metrics", "weights", "exporting"}


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
import ssd_tf.analysis, ssd_tf.coco_results, ssd_tf.comparison, ssd_tf.report
import ssd_tf.runtimes
print([name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    assert run_script(script) == "[]"


def test_numpy_geometry_does_not_load_tensorflow(run_script):
    script = """
import sys
from ssd_tf import anchors, boxes
layers = [anchors.ssd_anchor_one_layer((300,) * 2, (38,) * 2, (21, 45), (), 8)]
corners = boxes.to_corners(anchors.flatten_anchors(layers))
boxes.iou_matrix(corners[:9], corners), boxes.clip(corners)
print("tensorflow" in sys.modules)
"""
    assert run_script(script) == "False"
