"""Types and checks that all formats of weights share.

A format is a module with `read(path) -> Tensors` and
`convert(tensors, params) -> Imported`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS, SSD_300_VGG, resized

if TYPE_CHECKING:
    from ssd_tf.nets.ssd import SSDNet

# Whitening of Caffe's SSD, of the port and of ssd.pytorch.
CAFFE_WHITENING = {
    "image_mean": SSD_300_VGG.image_mean,
    "image_scale": (1.0, 1.0, 1.0),
}
# Settings beside sizes and steps that give the outputs of heads their meaning.
_OF_HEADS = ("feat_layers", "anchor_ratios", "anchor_offset", "prior_scaling")


@dataclasses.dataclass
class Tensors:
    """Arrays of a file by their names there; records which were taken."""

    arrays: Mapping[str, np.ndarray]
    _taken: set[str] = dataclasses.field(default_factory=set, init=False)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def take(self, name: str) -> np.ndarray:
        """Returns an array and records that it was used.

        Raises:
          KeyError: the file has no array of that name.
        """
        array = self.arrays[name]
        self._taken.add(name)
        return array

    @property
    def unused(self) -> tuple[str, ...]:
        """Names of the arrays that were not taken, in the file's order."""
        return tuple(name for name in self.arrays if name not in self._taken)


@dataclasses.dataclass(frozen=True)
class Imported:
    """Weights of a file in this package's names and layouts."""

    # By the names of `SSDNet.variables_by_name`; kernels are HWIO, those of
    # depthwise convolutions [h, w, c, 1].
    variables: Mapping[str, np.ndarray]
    # The requested net, with what travels with the weights: whitening, variant
    # of the trunk, clipping of anchors, number of classes.
    params: SSDParams
    # Without the background; None where the file does not name them.
    class_names: tuple[str, ...] | None = None
    # A whole SSD; otherwise a classifier, which fills the trunk only.
    detector: bool = True
    unused: tuple[str, ...] = ()  # names in the file
    # Sentences on what the file does not say and the importer assumes.
    assumed: tuple[str, ...] = ()


def classifier(
    variables: Mapping[str, np.ndarray], params: SSDParams, **changes
) -> Imported:
    """Returns an imported classifier.

    Args:
      variables: variables of the trunk.
      params: requested net.
      **changes: fields of `params` that travel with the weights.
    """
    params = dataclasses.replace(params, num_classes=1, **changes)
    return Imported(variables, params, class_names=(), detector=False)


@dataclasses.dataclass(frozen=True)
class Report:
    """Match between a file's weights and a net's variables."""

    matched: tuple[str, ...]  # variables that were assigned
    missing: tuple[str, ...]  # variables that the file should have had
    fresh: tuple[str, ...]  # variables that were not expected in the file
    # Name of a variable, its shape, and the shape in the file.
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    unused: tuple[str, ...]  # names in the file

    def fits(self, ignore_missing: bool = False) -> bool:
        """Returns True if no shape differs and no required variable lacks."""
        return not self.mismatched and (ignore_missing or not self.missing)


def in_trunk(name: str, params: SSDParams) -> bool:
    """Returns True for variables of the base network.

    Args:
      name: name in `SSDNet.variables_by_name`.
      params: settings of the net.
    """
    scope = name.split("/", 1)[0]
    others = (*params.extra_layers, "fpn")
    return not scope.endswith("_box") and scope not in others


def assign(net: "SSDNet", imported: Imported) -> Report:
    """Assigns all arrays that fit.

    A detector is expected to have all variables, a classifier the trunk's.

    Args:
      net: net of `imported.params`.
      imported: weights of a file.

    Returns:
      The match; arrays without a variable in the net count as unused.
    """
    matched, missing, fresh, mismatched = [], [], [], []
    ours, variables = net.variables_by_name(), imported.variables
    for name, variable in ours.items():
        if name not in variables:
            expected = imported.detector or in_trunk(name, net.params)
            (missing if expected else fresh).append(name)
        elif variables[name].shape != tuple(variable.shape):
            mismatched.append(
                (name, tuple(variable.shape), variables[name].shape)
            )
        else:
            variable.assign(variables[name])
            matched.append(name)
    unknown = tuple(name for name in variables if name not in ours)
    return Report(
        tuple(matched),
        tuple(missing),
        tuple(fresh),
        tuple(mismatched),
        imported.unused + unknown,
    )


def misfit(
    what: str, params: SSDParams, fitting: Iterable[str], reason: str = ""
) -> UserError:
    """Returns the error for weights of another trunk.

    Args:
      what: description of the weights.
      params: requested net.
      fitting: names of the presets that the weights fit.
      reason: text behind the trunk of `params`, such as " (lacks conv1)".
    """
    return UserError(
        f"{what} does not fit --model_name={params.model_name}, whose trunk is "
        f"{params.trunk} x {params.width_multiplier:g}{reason}; "
        f"it fits {', '.join(fitting) or 'no preset'}"
    )


def presets_on(trunks: Iterable[str]) -> list[str]:
    """Returns the names of the presets on some trunks of whole width."""
    return [
        name
        for name, preset in PRESETS.items()
        if preset.trunk in trunks and preset.width_multiplier == 1.0
    ]


def presets_with_layers_of(params: SSDParams) -> list[str]:
    """Returns the presets whose variables have the same names and shapes."""
    return [n for n, preset in PRESETS.items() if same_layers(preset, params)]


def same_layers(one: SSDParams, other: SSDParams) -> bool:
    """Returns True if a file of one fills the other, whatever the anchors."""
    fields = ("trunk", "feat_layers", "extra_blocks", "anchors_per_cell")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def same_heads(preset: SSDParams, params: SSDParams) -> bool:
    """Returns True if heads trained with a preset fit `params`."""
    same_trunk = preset.trunk == params.trunk
    return same_trunk and not differing_anchors(preset, params)


def differing_anchors(before: SSDParams, params: SSDParams) -> str | None:
    """Finds a setting that gives the outputs of heads another meaning.

    Anchors that keep their share of a resized input are the same ones.

    Args:
      before: settings that the heads were trained with.
      params: settings of the net that they are wanted for.

    Returns:
      Name of the first field that differs, or None.
    """
    for name in _OF_HEADS:
        if getattr(before, name) != getattr(params, name):
            return name
    # Steps are empty until a net is built, and others with other inputs.
    old, new = before.anchor_steps, params.anchor_steps
    if before.img_shape == params.img_shape and old and new and old != new:
        return "anchor_steps"
    sizes = resized(before, params.img_shape).anchor_sizes
    return None if np.allclose(sizes, params.anchor_sizes) else "anchor_sizes"


def anchors_assumed(params: SSDParams) -> str:
    """Returns the remark on a file that does not tell its anchors.

    Args:
      params: net whose anchors are assumed.

    Returns:
      A sentence for `Imported.assumed` that names the other presets with the
      same layers.
    """
    name = params.model_name
    others = [n for n in presets_with_layers_of(params) if n != name]
    return f"the file does not tell its anchors: taken as those of {name}" + (
        f", not of {' or '.join(others)}, with the same layers"
        if others
        else ""
    )


def num_classes(head: str, outputs: int, params: SSDParams) -> int:
    """Returns the number of classes, with the background, of a class head.

    Args:
      head: name of the first layer's class head in the file.
      outputs: channels of the head, one per anchor and class.
      params: net whose anchors the head should have.

    Raises:
      UserError: the head has another number of anchors.
    """
    anchors = params.anchors_per_cell[0]
    if outputs % anchors:
        raise UserError(
            f"{head} has {outputs} outputs, no multiple of the {anchors} "
            f"anchors per cell of {params.model_name}; import an SSD with the "
            "anchors of a preset"
        )
    return outputs // anchors
