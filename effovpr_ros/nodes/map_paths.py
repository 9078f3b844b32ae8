"""Paths of maps as parameters and services name them."""

from __future__ import annotations

import errno
from pathlib import Path

from effovpr_ros.core.errors import MapError


def map_folder(text: str) -> Path:
    """The folder that somebody named, which need not exist.

    Args:
        text: a path; a leading ~ is somebody's home.

    Raises:
        MapError: no path at all.
    """
    if not text:
        raise MapError("no map was named; give the folder of one")
    try:
        folder = Path(text).expanduser().resolve()
        folder.lstat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise MapError(f"map folder {_shown(text)} cannot be used: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # nobody's home, a loop of links, a zero in a name
        raise MapError(f"map folder {_shown(text)} cannot be used: {error}") from error
    return folder


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
