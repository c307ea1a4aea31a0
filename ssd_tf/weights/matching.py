"""Puts imported arrays into a net, and says what fitted."""

import dataclasses

from ssd_tf.config.net import SSDParams
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights.imported import Imported


@dataclasses.dataclass(frozen=True)
class Report:
    """How a file's weights and a net's variables went together."""

    matched: tuple[str, ...]  # names of the net's variables
    missing: tuple[str, ...]  # of the net's that should have been there
    fresh: tuple[str, ...]  # of the net's that nobody expected there
    # Of the net's, with the shape it has and the shape that came.
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    unused: tuple[str, ...]  # names in the file

    def fits(self, ignore_missing: bool = False) -> bool:
        """Nothing has another shape, and nothing required is missing."""
        return not self.mismatched and (ignore_missing or not self.missing)


def in_trunk(name: str, params: SSDParams) -> bool:
    """Whether a variable is the base network's.

    Args:
      name: of `SSDNet.variables_by_name`.
      params: of the net.
    """
    scope = name.split("/", 1)[0]
    others = (*params.extra_layers, "fpn")
    return not scope.endswith("_box") and scope not in others


def assign(net: SSDNet, imported: Imported) -> Report:
    """Assigns all arrays that fit.

    Of a detector all variables are expected, of a classifier the trunk's.

    Args:
      net: to be filled, of `imported.params`.
      imported: from a file.

    Returns:
      What was done. Arrays that the net has no variable for count as unused.
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
    strangers = tuple(name for name in variables if name not in ours)
    return Report(
        tuple(matched),
        tuple(missing),
        tuple(fresh),
        tuple(mismatched),
        imported.unused + strangers,
    )
