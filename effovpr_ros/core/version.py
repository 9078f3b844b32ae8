"""The version of this package. It is written once, in package.xml."""

from __future__ import annotations

import importlib.metadata
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

_NAME = "effovpr_ros"


def version() -> str:
    """As the ROS package says that runs here, else as the installed distribution; "unknown" without either."""
    beside = Path(__file__).resolve().parents[2] / "package.xml"
    shares = (Path(prefix) / "share" / _NAME / "package.xml" for prefix in _prefixes())
    for path in (beside, *shares):
        if path.is_file():
            return ElementTree.parse(path).findtext("version") or "unknown"
    try:
        return importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _prefixes() -> list[str]:
    """Where ROS packages are installed; only the one whose library this is counts."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [prefix for prefix in prefixes if prefix and Path(__file__).is_relative_to(prefix)]
