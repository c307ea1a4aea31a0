"""Dilated convolution as a sum of shifted 1x1 convolutions.

Knows nothing of networks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="ssd_tf")
class DilatedConv2D(keras.layers.Conv2D):
    """Keras's layer, computed tap by tap: SAME padding, stride 1, odd kernel.

    TensorFlow cuts the image into a grid of small ones, pads those and
    convolves them without dilation. At conv6 (19 x 19 cells, rate 6) that
    took four times as long on a CPU as the nine products here, of which eight
    leave out the cells that a tap would take from the padding. The numbers
    are the same but for rounding; so are settings and variables. In bfloat16
    each of the nine is rounded before they are added, which makes two
    roundings' error of one.

    Raises:
      ValueError: another padding, stride, kernel or number of groups.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        odd = all(taps % 2 for taps in self.kernel_size)
        whole = set(self.strides) == {1} and self.groups == 1
        if self.padding != "same" or not (odd and whole):
            raise ValueError(
                "DilatedConv2D is for SAME padding, stride 1, an odd kernel "
                f"and one group; received {self.padding!r}, {self.strides}, "
                f"{self.kernel_size} and {self.groups}"
            )

    def convolution_op(self, inputs, kernel):
        kernel = tf.convert_to_tensor(kernel)
        height, width = inputs.shape[1:3]
        products = [
            tf.pad(
                tf.nn.conv2d(
                    inputs[:, y.source, x.source],
                    kernel[y.tap : y.tap + 1, x.tap : x.tap + 1],
                    strides=1,
                    padding="VALID",
                ),
                [[0, 0], y.padding, x.padding, [0, 0]],
            )
            for y in _shifts(height, self.kernel_size[0], self.dilation_rate[0])
            for x in _shifts(width, self.kernel_size[1], self.dilation_rate[1])
        ]
        # Not `add_n`, whose order is that in which memory happens to be free.
        return sum(products)


class _Shift(NamedTuple):
    """What one tap does along one axis."""

    tap: int  # index in the kernel
    source: slice  # cells that it takes
    padding: tuple[int, int]  # places around the result that it leaves alone


def _shifts(size: int, taps: int, rate: int) -> Iterator[_Shift]:
    """The taps that meet any of `size` cells."""
    for tap in range(taps):
        offset = (tap - taps // 2) * rate
        if abs(offset) < size:
            before, after = max(-offset, 0), max(offset, 0)
            yield _Shift(tap, slice(after, size - before), (before, after))
