"""A VGG-16 classifier's dense fc6 and fc7 turned into conv6 and conv7.

Liu et al., SSD, 2016, section 3: "convert fc6 and fc7 to convolutional
layers, subsample parameters from fc6 and fc7", after Chen et al., DeepLab,
2015, section 3.1. Works on arrays only and knows no file format.
"""

import numpy as np

# Of fc6's seven rows and columns. They lie 3 cells of stride 32 apart. SSD's
# pool5 does not stride, so there the same distance is 6 cells of stride 16:
# hence conv6 has dilation 6.
TAPS = (0, 3, 6)
# Every fourth of 4096 units is kept: 1024, as in VGG_ILSVRC_16_layers_
# fc_reduced. Nothing is rescaled, fine-tuning makes up for what is lost.
UNIT_STEP = 4
_FC6_SHAPE = (7, 7, 512, 4096)
_FC7_SHAPE = (4096, 4096)


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
      ValueError: an array has another shape.
    """
    if fc7_weights.shape == (1, 1, *_FC7_SHAPE):
        fc7_weights = fc7_weights[0, 0]
    _check("fc6 weights", fc6_weights, _FC6_SHAPE)
    _check("fc6 biases", fc6_biases, _FC6_SHAPE[-1:])
    _check("fc7 weights", fc7_weights, _FC7_SHAPE)
    _check("fc7 biases", fc7_biases, _FC7_SHAPE[-1:])
    units = slice(None, None, UNIT_STEP)
    return {
        "conv6/weights": fc6_weights[np.ix_(TAPS, TAPS)][..., units],
        "conv6/biases": fc6_biases[units],
        # conv7's inputs are the units that conv6 kept.
        "conv7/weights": fc7_weights[units, units][None, None],
        "conv7/biases": fc7_biases[units],
    }


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(
            f"{name} have the shape {array.shape}, a VGG-16's {shape}"
        )
