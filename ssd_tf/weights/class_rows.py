"""Head surgery: a class predictor's rows from one list of classes to another.

A row is what computes one class of one anchor. Channels are anchor-major, see
`nets.multibox.ssd_multibox_layer`: `[a, C]` with the background as class 0.
"""

import dataclasses
import re

import numpy as np

# Plain heads, and separable ones, whose depthwise part knows no classes.
_HAS_ROWS = re.compile(r"[^/]+_box/conv_cls/(pointwise/)?(weights|biases)")


def has_rows(name: str) -> bool:
    """Whether a variable's last axis is anchors times classes.

    Args:
      name: of `SSDNet.variables_by_name`.
    """
    return bool(_HAS_ROWS.fullmatch(name))


@dataclasses.dataclass(frozen=True)
class ClassRows:
    """Which rows of one list of classes become which of another."""

    before: tuple[str, ...]  # class names without the background
    after: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Class numbers before and after: background, and what both name."""
        both = [name for name in self.after if name in self.before]
        return [(0, 0)] + [
            (1 + self.before.index(name), 1 + self.after.index(name))
            for name in both
        ]

    def carried_over(self, source: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """The fresh array with the rows of the classes that both name.

        Args:
          source: `[..., a * len(before with background)]`.
          fresh: `[..., a * len(after with background)]`, initial values.

        Returns:
          An array like `fresh`; `source` itself if that has other anchors or
          inputs and so cannot be carried over.
        """
        anchors = fresh.shape[-1] // (1 + len(self.after))
        expected = (*fresh.shape[:-1], anchors * (1 + len(self.before)))
        if source.shape != expected:
            return source
        old, new = (list(numbers) for numbers in zip(*self.pairs, strict=True))
        source = source.reshape(*source.shape[:-1], anchors, -1)
        result = fresh.reshape(*fresh.shape[:-1], anchors, -1).copy()
        result[..., new] = source[..., old]
        return result.reshape(fresh.shape)

    def table(self) -> list[tuple[str, str]]:
        """Every class of either list, and what becomes of its rows."""
        fates = [("background", "kept")]
        fates += [
            (name, "kept" if name in self.before else "fresh")
            for name in self.after
        ]
        gone = [name for name in self.before if name not in self.after]
        return fates + [(name, "dropped") for name in gone]
