"""Versions of what a result was made with."""

import importlib.metadata
import platform

_PACKAGES = ("ssd-tf", "tensorflow", "keras", "numpy", "pycocotools")


def installed() -> dict[str, str]:
    """Returns the versions of the installed packages, and Python's."""
    found = {package: _version(package) for package in _PACKAGES}
    # The wheel for CPUs alone has a name of its own.
    found["tensorflow"] = found["tensorflow"] or _version("tensorflow-cpu")
    found["python"] = platform.python_version()
    return {name: number for name, number in found.items() if number}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
