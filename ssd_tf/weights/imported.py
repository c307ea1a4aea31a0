"""What every importer reads from and what it answers.

A format is a module with `read(path) -> Tensors` and
`convert(tensors, params) -> Imported`; nothing here knows one.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ssd_tf.config.net import SSDParams


class Tensors:
    """A file's arrays by their names there; remembers which were taken."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = dict(arrays)
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def take(self, name: str) -> np.ndarray:
        """The array of that name.

        Raises:
          KeyError: the file has none.
        """
        array = self.arrays[name]
        self._taken.add(name)
        return array

    @property
    def unused(self) -> tuple[str, ...]:
        """Names that nobody took, in the file's order."""
        return tuple(name for name in self.arrays if name not in self._taken)


@dataclasses.dataclass(frozen=True)
class Imported:
    """A file's weights in this package's terms."""

    # By the names of `SSDNet.variables_by_name`; kernels are HWIO, those of
    # depthwise convolutions [h, w, c, 1].
    variables: dict[str, np.ndarray]
    # Those asked for, with what travels with the weights: whitening, variant
    # of the trunk, clipping of anchors, number of classes.
    params: SSDParams
    # Without the background; None where the file does not tell.
    class_names: tuple[str, ...] | None = None
    # A whole SSD; else a classifier, whose net has only the background class.
    detector: bool = True
    unused: tuple[str, ...] = ()  # the file's names that nothing was made of
    # What the file does not tell and was taken for granted, a sentence each.
    assumed: tuple[str, ...] = ()
