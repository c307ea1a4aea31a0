"""Checkpoints and config.json of a train_dir, from which nets are rebuilt.

Evaluation, detection, export and users start at `load_net`. Independent of
data and of the training loop.
"""

import os
import pathlib

import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config import run as config
from ssd_tf.nets import averages
from ssd_tf.nets.ssd import SSDNet

PREFIX = "ckpt"
# TensorFlow's name of the variable `step`, which only training runs save.
_STEP = "step/.ATTRIBUTES/VARIABLE_VALUE"


def find(path: str | os.PathLike) -> pathlib.Path:
    """Finds a checkpoint.

    Args:
      path: a train_dir, for its latest checkpoint, or the prefix of one
        checkpoint, such as `train_dir/ckpt-1000`.

    Returns:
      The checkpoint's prefix.

    Raises:
      UserError: there is no checkpoint.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        latest = tf.train.latest_checkpoint(str(path))
        if latest is None:
            raise UserError(
                f"{path}: no checkpoint in it; name a train_dir in which "
                "train_ssd.py has saved at least once"
            )
        return pathlib.Path(latest)
    if not path.with_name(path.name + ".index").is_file():
        raise UserError(
            f"{path}: neither a train_dir nor a checkpoint such as "
            f"train_dir/{PREFIX}-1000"
        )
    return path


def step_of(checkpoint: str | os.PathLike) -> int:
    """Returns the training step at which a checkpoint was saved."""
    return int(str(checkpoint).rsplit("-", 1)[1])


def load_config(path: str | os.PathLike) -> config.Config:
    """Reads the configuration of a checkpoint; see `find` for `path`."""
    return config.load(find(path).parent)


def load_run_config(train_dir: str | os.PathLike) -> config.Config:
    """Reads the configuration of a run that is to be resumed.

    Args:
      train_dir: folder with a checkpoint of the run.

    Raises:
      UserError: there is no checkpoint, or it holds weights alone, as
        `save_weights` saves them.
    """
    reader = tf.train.load_checkpoint(str(find(train_dir)))
    if not reader.has_tensor(_STEP):
        raise UserError(
            f"{train_dir}: holds imported weights; start from them by "
            f"--checkpoint_path={train_dir} and another --train_dir"
        )
    return config.load(train_dir)


def load_net(
    path: str | os.PathLike,
    precision: str = "float32",
    allow_untrained: bool = False,
) -> SSDNet:
    """Rebuilds a net with its trained weights.

    Args:
      path: train_dir or checkpoint prefix, see `find`.
      precision: Keras dtype policy of the computation.
      allow_untrained: load a net even if parts of it have never been trained.

    Returns:
      The net; `load_config(path).class_names` are its classes.

    Raises:
      UserError: there is no checkpoint or no config.json beside it, or parts
        of the net are untrained (`Config.untrained`: an imported classifier).
    """
    checkpoint = find(path)
    settings = load_config(checkpoint)
    if settings.untrained and not allow_untrained:
        raise UserError(
            f"{path}: a converted classifier or a part of a net, "
            f"{settings.untrained[0]} is not trained; train it first: "
            f"train_ssd.py --checkpoint_path={path}"
        )
    net = SSDNet(settings.params, precision)
    restore_weights(net, checkpoint)
    return net


def restore_weights(
    net: SSDNet, checkpoint: str | os.PathLike, use_average: bool = True
) -> None:
    """Restores all weights of a net from a checkpoint, and nothing else.

    Args:
      net: net that receives the weights.
      checkpoint: prefix of the checkpoint.
      use_average: restore the average of the weights if the run kept one.

    Raises:
      UserError: the checkpoint does not fit the net.
    """
    names = tf.train.load_checkpoint(
        str(checkpoint)
    ).get_variable_to_shape_map()
    averaged = use_average and any(x.startswith("average/") for x in names)
    parts = {"model": net.model}
    if averaged:
        parts["average"] = averages.WeightAverage(net.model, decay=0.0)
    restorer = tf.train.Checkpoint(**parts)
    try:
        status = restorer.restore(str(checkpoint)).expect_partial()
        status.assert_existing_objects_matched()
    except (AssertionError, ValueError) as error:
        raise UserError(
            f"{checkpoint}: its weights do not fit {net.params.model_name} "
            f"with {net.params.num_classes} classes"
        ) from error
    if averaged:
        parts["average"].copy_to_model()


def save_weights(net: SSDNet, train_dir: str | os.PathLike) -> None:
    """Saves the weights alone as the checkpoint of step 0 of a folder."""
    tf.train.CheckpointManager(
        tf.train.Checkpoint(model=net.model),
        str(train_dir),
        max_to_keep=1,
        checkpoint_name=PREFIX,
    ).save(checkpoint_number=0)
