"""The SSD object detector for TensorFlow 2 and Keras 3.

  detector = ssd_tf.load_detector("runs/bccd")
  found = detector("photo.jpg")
  found.plot()

Boxes are `[ymin, xmin, ymax, xmax]` in [0, 1]; class 0 is the background. The
names below are imported at their first use: importing this package imports
neither TensorFlow nor Keras. docs/architecture.md describes the packages.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssd_tf.client.detector import load_detector
    from ssd_tf.config.net import SSDParams
    from ssd_tf.config.presets import PRESETS
    from ssd_tf.datasets.convert.convert import convert
    from ssd_tf.detect.results import Detections
    from ssd_tf.evaluation.run import evaluate
    from ssd_tf.export.export import export_model
    from ssd_tf.nets.checkpoint import load_net
    from ssd_tf.nets.nets_factory import get_network
    from ssd_tf.nets.ssd import SSDNet
    from ssd_tf.training.train import train

__version__ = "0.1.0"
__all__ = [
    "PRESETS",
    "Detections",
    "SSDNet",
    "SSDParams",
    "__version__",
    "convert",
    "evaluate",
    "export_model",
    "get_network",
    "load_detector",
    "load_net",
    "train",
]
# Name -> the module that defines it.
_MODULES = {
    "PRESETS": "ssd_tf.config.presets",
    "Detections": "ssd_tf.detect.results",
    "SSDNet": "ssd_tf.nets.ssd",
    "SSDParams": "ssd_tf.config.net",
    "convert": "ssd_tf.datasets.convert.convert",
    "evaluate": "ssd_tf.evaluation.run",
    "export_model": "ssd_tf.export.export",
    "get_network": "ssd_tf.nets.nets_factory",
    "load_detector": "ssd_tf.client.detector",
    "load_net": "ssd_tf.nets.checkpoint",
    "train": "ssd_tf.training.train",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return __all__
