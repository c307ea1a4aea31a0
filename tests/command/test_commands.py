"""What every command does alike, and the training command's mistakes."""

import dataclasses
import subprocess
import sys

import pytest
from absl import flags
from processes import error_of, finish, start

from ssd_tf import command
from ssd_tf.command.flags import define, read
from ssd_tf.config.training import TrainOptions
from ssd_tf.training import options as training_options


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """A command without flags."""


COMMANDS = [
    ["train_ssd.py"],
    ["eval_ssd.py"],
    ["-m", "ssd_tf.datasets.convert"],
    ["-m", "ssd_tf.export"],
    ["-m", "ssd_tf.detect"],
    ["-m", "ssd_tf.client"],
    ["-m", "ssd_tf.benchmark"],
    ["-m", "ssd_tf.curves"],
    ["-m", "ssd_tf.replay"],
    ["-m", "ssd_tf.import_weights"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[-1])
def test_help_shows_every_flag_with_its_default(words):
    text = finish(start(*words, "--help"))
    # Those two have no flag with a default.
    assert "(default: " in text or words[-1] in (
        "ssd_tf.curves",
        "ssd_tf.replay",
    )
    assert "\n  --" in text or "\n--" in text or "--[no]" in text
    assert "python" in text.splitlines()[2] or "python" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset_dir=/nowhere", "--train_dir=T"], "/nowhere"),
        (["--dataset_dir={data}"], "--train_dir is missing"),
        (
            ["--dataset_dir={data}", "--train_dir=T", "--model_name=ssd_1"],
            "ssd_1",
        ),
        (
            [
                "--dataset_dir={data}",
                "--train_dir=T",
                "--dataset_split_name=val",
            ],
            "no split 'val'; splits there: test, train",
        ),
        *(
            (["--dataset_dir={data}", "--train_dir=T", flag], flag[2:8])
            for flag in (
                "--batch_size=0",
                "--learning_rate=0",
                "--max_to_keep=0",
                "--log_every_n_steps=0",
                "--momentum=1.5",
                "--decay_boundaries=.9,.5",
                "--decay_boundaries=80000,100000",
                "--learning_rate=nan",
                "--max_expand_ratio=inf",
                "--crop_scale=2,5",
                "--contrast_range=1,inf",
                "--early_stopping_patience=3",
                "--seed=-1",
            )
        ),
        (
            ["--dataset_dir={data}", "--train_dir={data}/labels.txt"],
            "labels.txt",
        ),
        (["stray"], "unexpected argument 'stray'"),
        (
            [
                "--dataset_dir={data}",
                "--train_dir={data}/t",
                "--optimizer=lion",
            ],
            "lion",
        ),
    ],
)
def test_training_mistakes_are_one_line(shapes_data, arguments, message):
    arguments = [word.format(data=shapes_data) for word in arguments]
    assert message in error_of("train_ssd.py", *arguments)


def test_run_keeps_the_traceback_of_a_bug():
    def bug(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command.run(bug, NoOptions, "", ["program"])


def test_a_user_error_is_one_line_whatever_its_text(capsys):
    def mistake(_):
        raise command.UserError("a:\n  two\nlines")

    with pytest.raises(SystemExit) as exit_:
        command.run(mistake, NoOptions, "", ["program"])
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: a: two lines\n"


def test_progress_without_a_terminal_is_plain_lines(capsys):
    with command.progress("counting", 4) as advance:
        for _ in range(4):
            advance(units=2, text="loss 1")
    line = capsys.readouterr().out.strip()
    assert line.startswith("counting: 4/4, ETA 0 s, ")
    assert line.endswith("images/s loss 1") and "\n" not in line


def test_tables_are_not_cut_outside_a_terminal(capsys):
    command.print_table("t", ["what", "where"], [["x", "y" * 150]])
    assert "y" * 150 in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("name", ["sign[/stop]", "[red]car", ":cat:", "[0]"])
def test_tables_show_names_as_they_are(capsys, name):
    command.print_table(f"of {name}", ["what", f"by {name}"], [[name, "1"]])
    output = capsys.readouterr().out
    assert f"of {name}" in output and f"by {name}" in output
    assert f"│ {name} " in output


def test_the_package_alone_does_not_import_tensorflow():
    source = "import sys, ssd_tf; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], None),
        (["--max_number_of_steps=501"], None),
        (["--max_number_of_steps=500"], "never reaches its --learning_rate"),
        (["--overfit_batch", "--seed=3", "--loss_alpha=2"], None),
        (
            ["--overfit_batch", "--backbone_weights=x", "--optimizer=adam"],
            "left out: --backbone_weights, --optimizer",
        ),
    ],
)
def test_what_a_run_will_not_do_is_said(arguments, expected):
    values = flags.FlagValues()
    define(TrainOptions, values)
    values(["train_ssd.py", *arguments])
    remarks = training_options.remarks(read(TrainOptions, values))
    assert len(remarks) == (expected is not None)
    assert all(expected in line for line in remarks)
