"""VGG-16 with fc6 and fc7 turned into convolutions: image -> end points.

Simonyan and Zisserman, 2014, table 1 D. The changes for SSD (pool5 3x3 with
stride 1, conv6 with dilation 6) are those of the SSD paper, section 3, and of
VGGNetBody in ssd_pascal.py. Independent of classes and anchors.
"""

from typing import Any

from ssd_tf.nets.layers import conv2d, dropout, max_pool2d, repeat

# End point, number of 3x3 convolutions, channels.
BLOCKS = (
    ("conv1", 2, 64),
    ("conv2", 2, 128),
    ("conv3", 3, 256),
    ("conv4", 3, 512),
    ("conv5", 3, 512),
)


def vgg_16(inputs: Any, dropout_rate: float = 0.0) -> tuple[Any, dict]:
    """Builds the trunk up to conv7.

    Args:
      inputs: Keras tensor `[B, h, w, 3]`: RGB in 0..255 minus its mean.
      dropout_rate: share of values dropped behind conv6 and conv7.

    Returns:
      The last tensor, and the end points `block1` ... `block7`; blocks 1 to 5
      are taken before their pooling, block7 before its dropout.
    """
    end_points = {}
    net = inputs
    for number, (scope, repetitions, channels) in enumerate(BLOCKS, 1):
        net = repeat(net, repetitions, conv2d, channels, 3, scope=scope)
        end_points[f"block{number}"] = net
        if number < 5:
            net = max_pool2d(net, 2, scope=f"pool{number}")
    net = max_pool2d(net, 3, stride=1, scope="pool5")
    net = conv2d(net, 1024, 3, rate=6, scope="conv6")
    end_points["block6"] = net
    net = dropout(net, dropout_rate, scope="dropout6")
    net = conv2d(net, 1024, 1, scope="conv7")
    end_points["block7"] = net
    return dropout(net, dropout_rate, scope="dropout7"), end_points
