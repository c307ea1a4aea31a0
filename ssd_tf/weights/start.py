"""What a training starts from: a run, a TF1 checkpoint, any file of weights.

Chooses who reads it, as the options of `StartParams` say, and takes over what
travels with the weights; `transfer.apply` puts them into the net. Messages
name the options as flags of train_ssd.py. How files are made is left to
`ssd_tf.weights`.
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
from ssd_tf.nets import applications, checkpoint, resnet, scopes
from ssd_tf.weights import formats, slim, tf_checkpoint
from ssd_tf.weights.class_rows import ClassRows
from ssd_tf.weights.imported import Imported
from ssd_tf.weights.transfer import Start

# What the weights of a trunk were trained with, whoever uses them.
_OF_TRUNK = ("image_mean", "image_scale", "trunk_variant")


def begin(
    settings: Config, train_dir: str | os.PathLike, options: StartParams
) -> tuple[Config, Start | None]:
    """Reads what a run is to start from.

    Args:
      settings: what the user wants.
      train_dir: of the run. Once it has a checkpoint, that is what counts.
      options: where the weights are.

    Returns:
      The settings with what travels with the weights, and the weights, or
      None where there are none to be read.

    Raises:
      UserError: options contradict each other, there are no such weights, or
        the train_dir has those of another trunk or imported ones.
    """
    _check_options(options)
    path, backbone = options.checkpoint_path, options.backbone_weights
    if tf.train.latest_checkpoint(str(train_dir)):
        before = checkpoint.load_run_config(train_dir).params
        _check_trunk(train_dir, before, settings.params, "another --train_dir")
        if path or backbone:
            say(f"{train_dir} has a checkpoint; {path or backbone} is not read")
        return _with(settings, before, (*_OF_TRUNK, "anchor_clip")), None
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

    Returns and raises: see `begin`.
    """
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    v1 = path.is_file()  # ours are prefixes of two files
    if (folder / config.CONFIG_FILE).is_file() and not v1:
        return _from_run(path, settings, options)
    if v1:
        _check_tensorflow(path)
    names = tf_checkpoint.variable_names(path)
    scope = _scope(names, settings, options)
    if scope in slim.SCOPES and not _has_heads(names, scope):
        imported = formats.load(path, settings.params, "slim")
        options = dataclasses.replace(options, checkpoint_model_scope=scope)
        return from_imported(str(path), imported, settings, options)
    return _from_tf1(path, scope, settings, options)


def _from_run(path, settings, options):
    """Weights that this package has saved; config.json tells all of them."""
    before = checkpoint.load_config(path)
    _check_trunk(path, before.params, settings.params, "other weights")
    scope, model_scopes = options.checkpoint_model_scope, _model_scopes(before)
    if scope and scope.strip("/") not in model_scopes:
        raise UserError(
            f"--checkpoint_model_scope={scope}: {path} is of "
            f"{before.params.model_name}; leave the flag out"
        )
    net = checkpoint.load_net(path, allow_untrained=True)
    start = Start(
        str(path),
        {name: each.numpy() for name, each in net.variables_by_name().items()},
        net.params,
        _class_rows(before.class_names, settings),
        excluded=_excluded(options, settings, *model_scopes),
        untrained=before.untrained,
        ignore_missing=options.ignore_missing_vars,
    )
    return _with(settings, before.params, _travels(start, settings)), start


def _check_tensorflow(path: pathlib.Path) -> None:
    """Refuses files of other software, with what they are good for."""
    name = formats.guess(path)
    if name not in formats.TF1_FORMATS:
        raise UserError(
            f"{path}: a {name} file, no TensorFlow checkpoint; give it as "
            f"--backbone_weights={path}, or convert it with python -m "
            "ssd_tf.weights"
        )


def _scope(names: list[str], settings: Config, options: StartParams) -> str:
    """Under which of its scopes a TF1 checkpoint has the weights.

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


def _has_heads(names: list[str], scope: str) -> bool:
    return any(
        name.startswith(f"{scope}/") and "_box/" in name for name in names
    )


def _from_tf1(path, scope, settings, options):
    """Weights under a scope; of their meaning the file says nothing."""
    arrays = tf_checkpoint.read(path).arrays
    front = f"{scope}/"
    variables = {
        name.removeprefix(front): array
        for name, array in arrays.items()
        if name.startswith(front)
    }
    if not variables:
        known = dict.fromkeys(name.split("/", 1)[0] for name in arrays)
        raise UserError(
            f"{path}: no variable is under {scope!r}, only under "
            f"{', '.join(known)}; name one by --checkpoint_model_scope"
        )
    if settings.params.trunk in resnet.UNITS:
        # Who has TF-Slim's names has its definition.
        slim = dataclasses.replace(settings.params, trunk_variant="slim")
        settings = _with(settings, slim, ["trunk_variant"])
    start = Start(
        str(path),
        variables,
        class_names_known=False,
        excluded=_excluded(options, settings),
        ignore_missing=options.ignore_missing_vars,
    )
    return settings, start


def from_imported(
    path: str, imported: Imported, settings: Config, options: StartParams
) -> tuple[Config, Start]:
    """Takes what an importer has read from a file; see `begin`."""
    for sentence in imported.assumed:
        say(f"assumed: {sentence}")
    start = Start(
        path,
        imported.variables,
        imported.params,
        _class_rows(imported.class_names, settings),
        class_names_known=imported.class_names is not None,
        excluded=_excluded(options, settings),
        detector=imported.detector,
        ignore_missing=options.ignore_missing_vars,
    )
    return _with(settings, imported.params, _travels(start, settings)), start


def _model_scopes(settings: Config) -> tuple[str, str]:
    """A preset's name and its scope in the port's checkpoints."""
    name = settings.params.model_name
    return name, name.removesuffix("_voc")


def _excluded(options, settings, *model_scopes) -> tuple[str, ...]:
    fronts = (*_model_scopes(settings), options.checkpoint_model_scope)
    return scopes.without_model(
        options.checkpoint_exclude_scopes, (*fronts, *model_scopes)
    )


def _class_rows(
    before: tuple[str, ...] | None, settings: Config
) -> ClassRows | None:
    if not before or before == settings.class_names:
        return None
    return ClassRows(before, settings.class_names)


def _check_trunk(
    path, before: SSDParams, wanted: SSDParams, other: str
) -> None:
    for name in ("trunk", "width_multiplier"):
        old, new = getattr(before, name), getattr(wanted, name)
        if old != new:
            raise UserError(
                f"{path}: was trained with {name} {old}, not {new}; choose "
                f"--model_name={before.model_name} and --trunk as then, or "
                f"{other}"
            )


def _travels(start: Start, settings: Config) -> tuple[str, ...]:
    """The fields that are taken over with the weights."""
    if start.heads(settings.params):
        return (*_OF_TRUNK, "anchor_clip")
    return _OF_TRUNK


def _with(settings: Config, params: SSDParams, names: Iterable[str]) -> Config:
    """Takes over some fields, and says so."""
    changes = {name: getattr(params, name) for name in names}
    for name, value in changes.items():
        before = getattr(settings.params, name)
        if value != before:
            say(f"{name} {value} comes with the weights, instead of {before}")
    params = dataclasses.replace(settings.params, **changes)
    return dataclasses.replace(settings, params=params)


def with_trunk(params: SSDParams, name: str) -> SSDParams:
    """A preset on another trunk, of whole width.

    Args:
      params: a preset whose trunk is not VGG-16: it takes feature maps by
        their strides.
      name: a model of keras.applications.

    Raises:
      UserError: the preset cannot have another trunk, or there is no model
        of that name.
    """
    if params.trunk == "vgg_16":
        raise UserError(
            f"--trunk={name}: the heads of {params.model_name} are made for "
            "VGG-16; choose a --model_name of another trunk"
        )
    try:
        mean, scale, _ = applications.whitening(name)
    except ValueError as error:
        raise UserError(f"--trunk={name}: {error}") from None
    return dataclasses.replace(
        params,
        trunk=name,
        trunk_variant="keras",
        width_multiplier=1.0,
        image_mean=mean,
        image_scale=scale,
    )
