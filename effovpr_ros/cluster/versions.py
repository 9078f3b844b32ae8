"""Which version of the package a machine has, and whether Ray is there."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from effovpr_ros.core.errors import ConfigError

REMEDY = "pip install effovpr_ros[cluster]"


def this_version() -> str:
    """Version of this package here."""
    try:
        return version("effovpr_ros")
    except PackageNotFoundError:
        return "of its source folder"


def require_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigError(f"--cluster needs Ray, which is not installed here; run `{REMEDY}`")
