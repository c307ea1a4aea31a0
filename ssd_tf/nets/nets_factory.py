"""Networks by name."""

from collections.abc import Callable

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS
from ssd_tf.nets.ssd import SSDNet


def get_network(name: str) -> Callable[..., SSDNet]:
    """Returns a function `make(params=preset, precision="float32") -> SSDNet`.

    Raises:
      UserError: there is no preset of this name.
    """
    if name not in PRESETS:
        raise UserError(
            f"no network is named {name!r}; there are {', '.join(PRESETS)}"
        )

    def make(params=PRESETS[name], precision: str = "float32") -> SSDNet:
        return SSDNet(params, precision)

    return make
