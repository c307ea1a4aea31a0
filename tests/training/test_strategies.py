"""Where a run takes place, and what it says when that is told wrong."""

import json

import pytest
import tensorflow as tf
from processes import TIMEOUT, start

from ssd_tf.command import UserError
from ssd_tf.training import strategies

CHOOSE = """
from ssd_tf import command; from ssd_tf.training import strategies
try:
    strategies.choose_strategy()
except command.UserError as error:
    print(error)
"""
WORKERS = {"worker": ["127.0.0.1:1"]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not JSON"),
        ("5", "expected a cluster and a task"),
        (json.dumps({"cluster": WORKERS}), "TF_CONFIG={"),
        (
            json.dumps(
                {
                    "cluster": WORKERS,
                    "task": {"type": "worker", "index": 3},
                }
            ),
            "TF_CONFIG={",
        ),
    ],
)
def test_a_wrong_tf_config_is_one_error(config, message):
    process = start("-c", CHOOSE, TF_CONFIG=config)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert message in output and "Traceback" not in errors


def test_the_end_of_another_process_is_told_where_there_is_one(monkeypatch):
    strategy = tf.distribute.get_strategy()
    lost = tf.errors.UnavailableError(None, None, "Collective ops is aborted")
    with pytest.raises(tf.errors.UnavailableError):
        with strategies.explained_end(strategy):
            raise lost
    monkeypatch.setattr(strategies, "is_alone", lambda _: False)
    with pytest.raises(UserError, match="^another process of the run has"):
        with strategies.explained_end(strategy):
            raise lost
