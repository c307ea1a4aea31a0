"""Conversion of a VGG-16 classifier's dense fc6 and fc7 to conv6 and conv7.

Liu et al., SSD, 2016, section 3: "convert fc6 and fc7 to convolutional
layers, subsample parameters from fc6 and fc7", after Chen et al., DeepLab,
2015, section 3.1. Independent of file formats.
"""

import numpy as np

from ssd_tf.command import UserError

# Rows and columns of fc6 that are kept, of seven. They lie 3 cells of stride
# 32 apart. SSD's pool5 does not stride, so there the same distance is 6 cells
# of stride 16: hence conv6 has dilation 6.
TAPS = (0, 3, 6)
# Every fourth of 4096 units is kept: 1024, as in VGG_ILSVRC_16_layers_
# fc_reduced. Nothing is rescaled, fine-tuning makes up for what is lost.
UNIT_STEP = 4
SHAPES = ((7, 7, 512, 4096), (4096,), (4096, 4096), (4096,))
_NAMES = ("fc6 weights", "fc6 biases", "fc7 weights", "fc7 biases")


def reduce_fc(
    fc6_weights: np.ndarray,
    fc6_biases: np.ndarray,
    fc7_weights: np.ndarray,
    fc7_biases: np.ndarray,
) -> dict[str, np.ndarray]:
    """Decimates the two dense layers of a VGG-16.

    Args:
      fc6_weights: `[7, 7, 512, 4096]`: rows, columns, inputs, outputs.
      fc6_biases: `[4096]`.
      fc7_weights: `[4096, 4096]` or `[1, 1, 4096, 4096]`: inputs, outputs.
      fc7_biases: `[4096]`.

    Returns:
      `conv6/weights` `[3, 3, 512, 1024]`, `conv7/weights`
      `[1, 1, 1024, 1024]`, `conv6/biases` and `conv7/biases` `[1024]`, of the
      arrays' type.

    Raises:
      UserError: an array has another shape.
    """
    if fc7_weights.shape[:-2] == (1, 1):
        fc7_weights = fc7_weights[0, 0]
    arrays = (fc6_weights, fc6_biases, fc7_weights, fc7_biases)
    for name, array, shape in zip(_NAMES, arrays, SHAPES, strict=True):
        if array.shape != shape:
            raise UserError(
                f"{name} have the shape {array.shape}, a VGG-16's {shape}; "
                "import a VGG-16 whose dense layers have 4096 units"
            )
    units = slice(None, None, UNIT_STEP)
    return {
        "conv6/weights": fc6_weights[np.ix_(TAPS, TAPS)][..., units],
        "conv6/biases": fc6_biases[units],
        # conv7's inputs are the units that conv6 kept.
        "conv7/weights": fc7_weights[units, units][None, None],
        "conv7/biases": fc7_biases[units],
    }
