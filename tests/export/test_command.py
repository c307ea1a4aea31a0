"""The command as users call it: what it writes, and what it refuses."""

import json
import re
import shutil

import pytest
import tensorflow as tf
from absl import flags
from processes import finish, start

from ssd_tf import command
from ssd_tf.command.flags import define, read
from ssd_tf.config.export import ExportOptions
from ssd_tf.detect import saved_model
from ssd_tf.export import __main__ as export
from ssd_tf.export.export import formats_of


def test_the_command_exports_with_what_was_measured(lively, tmp_path):
    train_dir = tmp_path / "run"
    shutil.copytree(lively.train_dir, train_dir)
    evaluation = train_dir / "eval_test"
    evaluation.mkdir()
    step = int(str(tf.train.latest_checkpoint(train_dir)).rsplit("-", 1)[1])
    metrics = {"step": step, "AP_VOC07/mAP": 0.5, "COCO/AP": 0.25}
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    run = ["-m", "ssd_tf.export", f"--checkpoint_path={train_dir}"]
    run += [f"--export_dir={tmp_path / 'ssd'}"]
    output = finish(start(*run))
    assert f"{tmp_path / 'ssd' / '1'}\n" in output
    text = (tmp_path / "ssd/1" / saved_model.MODEL_FILE).read_text("utf-8")
    assert json.loads(text)["metrics"]["COCO/AP"] == 0.25
    (entry,) = json.loads((tmp_path / "ssd/verify.json").read_text())["models"][
        1:
    ]
    assert entry["name"] == "saved_model" and entry["failures"] == []
    config = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2"
    )
    from google.protobuf import text_format

    parsed = text_format.Parse(
        (tmp_path / "ssd/models.config").read_text(), config.ModelServerConfig()
    )
    (served,) = parsed.model_config_list.config
    assert (served.name, served.base_path) == ("ssd", "/models/ssd")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--formats=tflight",
            "--formats=tflight: expected some of saved_model, tfl",
        ),
        ("--formats=tflite_int8", "learns its ranges .* --dataset_dir"),
        ("--metrics=none.json", "none.json: No such file"),
        ("--input_type=pixels", "input_type"),
        ("--verify=nosuch", "nosuch: "),
        ("--formats=saved_model,tflite_int8 --dataset_dir=nosuch", "nosuch: "),
        ("--formats=", "has no file of this checkpoint"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    lively, tmp_path, capsys, flag, message
):
    argv = ["export", f"--checkpoint_path={lively.train_dir}"]
    argv += [f"--export_dir={tmp_path / 'ssd'}", *flag.split()]
    with pytest.raises(SystemExit) as ended:
        command.run(export.main, ExportOptions, "", argv)
    assert ended.value.code == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and re.search(message, error), error
    assert not (tmp_path / "ssd").exists()


@pytest.mark.parametrize(
    ("arguments", "there", "names"),
    [
        ([], [], ["saved_model"]),
        ([], ["1"], ["saved_model"]),
        # With it alone nothing is written, unless there is nothing yet.
        (["--verify=D"], ["1"], []),
        (["--verify=D"], [], ["saved_model"]),
        (["--verify=D", "--formats=onnx"], ["1"], ["onnx"]),
        (["--verify=D", "--formats="], [], []),
    ],
)
def test_formats_that_are_written(arguments, there, names):
    values = flags.FlagValues()
    define(ExportOptions, values)
    values(["export", *arguments])
    options = read(ExportOptions, values)
    assert formats_of(options, there) == tuple(names)
