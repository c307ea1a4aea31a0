"""Choice of the weights that a training starts from.

Reads a run, a TF1 checkpoint or any file of weights, as the options of
`StartParams` say, and takes over the settings that travel with the weights;
`transfer.apply` puts them into the net. Messages name the options as flags of
train_ssd.py.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

import tensorflow as tf

from ssd_tf.command import UserError, say
from ssd_tf.config import run as config
from ssd_tf.config.net import SSDParams
from ssd_tf.config.run import Config
from ssd_tf.config.training import StartParams
from ssd_tf.nets import checkpoint, resnet, scopes
from ssd_tf.weights import formats, slim, tf_checkpoint
from ssd_tf.weights.base import Imported
from ssd_tf.weights.transfer import ClassRows, Start

# Settings that a trunk was trained with.
_OF_TRUNK = ("image_mean", "image_scale", "trunk_variant")
_OF_DETECTOR = (*_OF_TRUNK, "anchor_clip")


def initial_weights(
    settings: Config, train_dir: str | os.PathLike, options: StartParams
) -> tuple[Config, Start | None]:
    """Reads the weights that a run starts from.

    Args:
      settings: requested settings.
      train_dir: folder of the run; its own checkpoint, if any, comes first.
      options: places of the weights.

    Returns:
      The settings with those that travel with the weights, and the weights;
      None if there are none to be read.

    Raises:
      UserError: options contradict each other, there are no such weights, or
        the train_dir has those of another trunk or imported ones.
    """
    path, backbone = options.checkpoint_path, options.backbone_weights
    _check_options(options)
    # A run that goes on has its weights, and keeps what travelled with them.
    if tf.train.latest_checkpoint(str(train_dir)):
        before = checkpoint.load_run_config(train_dir).params
        _check_trunk(train_dir, before, settings.params, "another --train_dir")
        if path or backbone:
            say(f"{train_dir} has a checkpoint; {path or backbone} is not read")
        return _with(settings, before, _OF_DETECTOR), None
    # A new run starts from a checkpoint, from a file of other software, or
    # from initial values.
    if path:
        return from_checkpoint(path, settings, options)
    if backbone:
        imported = formats.load(backbone, settings.params)
        return from_imported(backbone, imported, settings, options)
    return settings, None


def _check_options(options: StartParams) -> None:
    path, backbone = options.checkpoint_path, options.backbone_weights
    if path and backbone:
        raise UserError(
            f"--checkpoint_path={path} and --backbone_weights={backbone}: "
            "start from one of them"
        )
    if options.checkpoint_exclude_scopes and not (path or backbone):
        raise UserError(
            "--checkpoint_exclude_scopes: of which weights? Add "
            "--checkpoint_path or --backbone_weights"
        )
    if options.checkpoint_model_scope and not path:
        raise UserError("--checkpoint_model_scope: add --checkpoint_path")


def from_checkpoint(
    path: str | os.PathLike, settings: Config, options: StartParams
) -> tuple[Config, Start]:
    """Reads a train_dir, a checkpoint in one, or a TF1 checkpoint.

    A TF1 checkpoint under the scope of a network of TF-Slim is a classifier,
    unless it has heads.

    Returns and raises: see `initial_weights`.
    """
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    v1 = path.is_file()  # ours are prefixes of two files
    if (folder / config.CONFIG_FILE).is_file() and not v1:
        return _from_run(path, settings, options)
    name = formats.guess(path) if v1 else None
    if v1 and name not in formats.TF1_FORMATS:
        raise UserError(
            f"{path}: a {name} file, no TensorFlow checkpoint; give it as "
            f"--backbone_weights={path}, or convert it with python -m "
            "ssd_tf.weights"
        )
    names = tf_checkpoint.variable_names(path)
    scope = _scope(names, settings, options)
    options = dataclasses.replace(options, checkpoint_model_scope=scope)
    has_heads = any(
        name.startswith(f"{scope}/") and "_box/" in name for name in names
    )
    if scope in slim.SCOPES and not has_heads:
        imported = formats.load(path, settings.params, "slim")
    else:
        imported = _read_scope(path, scope, settings.params)
    return from_imported(str(path), imported, settings, options)


def _from_run(
    path: pathlib.Path, settings: Config, options: StartParams
) -> tuple[Config, Start]:
    """Reads weights that this package has saved, beside their config.json."""
    before = checkpoint.load_config(path)
    _check_trunk(path, before.params, settings.params, "other weights")
    scope, model_scopes = options.checkpoint_model_scope, _model_scopes(before)
    if scope and scope.strip("/") not in model_scopes:
        raise UserError(
            f"--checkpoint_model_scope={scope}: {path} is of "
            f"{before.params.model_name}; leave the flag out"
        )
    net = checkpoint.load_net(path, allow_untrained=True)
    variables = {n: each.numpy() for n, each in net.variables_by_name().items()}
    imported = Imported(variables, net.params, before.class_names)
    return from_imported(
        str(path), imported, settings, options, model_scopes, before.untrained
    )


def _scope(names: list[str], settings: Config, options: StartParams) -> str:
    """Chooses the scope of a TF1 checkpoint that has the weights.

    By default it is the model's, else that of the one network of TF-Slim.
    """
    if options.checkpoint_model_scope:
        return options.checkpoint_model_scope.strip("/")
    model_scope = _model_scopes(settings)[-1]
    known = {name.split("/", 1)[0] for name in names}
    classifiers = known.intersection(slim.SCOPES)
    if model_scope in known or len(classifiers) != 1:
        return model_scope
    return classifiers.pop()


def _read_scope(path: pathlib.Path, scope: str, params: SSDParams) -> Imported:
    """Reads the weights under a scope, of whose meaning the file is silent."""
    tensors = tf_checkpoint.read(path)
    variables = tf_checkpoint.take_weights(tensors, f"{scope}/", ema=False)
    if not variables:
        known = dict.fromkeys(name.split("/", 1)[0] for name in tensors.arrays)
        raise UserError(
            f"{path}: no variable is under {scope!r}, only under "
            f"{', '.join(known)}; name one by --checkpoint_model_scope"
        )
    if params.trunk in resnet.UNITS:
        # TF-Slim's names imply its definition of the trunk.
        params = dataclasses.replace(params, trunk_variant="slim")
    return Imported(variables, params)


def from_imported(
    path: str,
    imported: Imported,
    settings: Config,
    options: StartParams,
    model_scopes: Iterable[str] = (),
    untrained: tuple[str, ...] = (),
) -> tuple[Config, Start]:
    """Makes a start of weights that were read from a file.

    Args:
      path: name of the file, for messages.
      imported: the weights.
      settings: requested settings.
      options: options of the start.
      model_scopes: prefixes of excluded scopes, beside the requested net's.
      untrained: names of variables that have initial values.

    Returns:
      See `initial_weights`.
    """
    for sentence in imported.assumed:
        say(f"assumed: {sentence}")
    # Rows of class predictors move where the lists of classes differ.
    before, rows = imported.class_names, None
    if before and before != settings.class_names:
        rows = ClassRows(before, settings.class_names)
    # Excluded scopes may be written with the model's name in front.
    prefixes = (*_model_scopes(settings), options.checkpoint_model_scope)
    start = Start(
        path,
        imported,
        rows,
        scopes.without_model(
            options.checkpoint_exclude_scopes, (*prefixes, *model_scopes)
        ),
        untrained,
        options.ignore_missing_vars,
    )
    # Whitening and the like travel with the weights.
    has_heads = start.has_heads(settings.params)
    fields = _OF_DETECTOR if has_heads else _OF_TRUNK
    return _with(settings, imported.params, fields), start


def _model_scopes(settings: Config) -> tuple[str, str]:
    """Returns a preset's name and its scope in the port's checkpoints."""
    name = settings.params.model_name
    return name, name.removesuffix("_voc")


def _check_trunk(
    path: str | os.PathLike, before: SSDParams, wanted: SSDParams, other: str
) -> None:
    """Raises UserError if weights are of another trunk or width."""
    for name in ("trunk", "width_multiplier"):
        old, new = getattr(before, name), getattr(wanted, name)
        if old != new:
            raise UserError(
                f"{path}: was trained with {name} {old}, not {new}; choose "
                f"--model_name={before.model_name} and --trunk as then, or "
                f"{other}"
            )


def _with(settings: Config, params: SSDParams, names: Iterable[str]) -> Config:
    """Takes over some fields of `params`, and prints those that change."""
    changes = {name: getattr(params, name) for name in names}
    for name, value in changes.items():
        before = getattr(settings.params, name)
        if value != before:
            say(f"{name} {value} comes with the weights, instead of {before}")
    params = dataclasses.replace(settings.params, **changes)
    return dataclasses.replace(settings, params=params)
