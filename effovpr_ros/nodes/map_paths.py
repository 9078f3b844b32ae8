"""Paths of maps as parameters and services name them."""

from __future__ import annotations

import errno
from pathlib import Path

from effovpr_ros.core.errors import MapError
from effovpr_ros.remote.tokens import is_server


def map_folder(text: str, root: str = "") -> Path:
    """The folder that somebody named, which need not exist; links are followed.

    Args:
        text: a path; a leading ~ is somebody's home.
        root: folder that it must lie in, and that it is relative to; empty for anywhere.

    Raises:
        MapError: no path at all, or one outside the root.
    """
    if not text:
        raise MapError("no map was named; give the folder of one")
    if is_server(root):
        raise MapError(f"map folder {_shown(text)} is outside map_root {_shown(root)}; only maps inside it are opened")
    if is_server(text):
        raise MapError(f"{_shown(text)} is a server; clean the node up and set the parameter map_path to it")
    try:
        base = Path(root).expanduser().resolve()
        folder = (base / Path(text).expanduser()).resolve()
        if root and not folder.is_relative_to(base):
            raise MapError(f"map folder {_shown(text)} is outside map_root {_shown(root)}; choose one inside")
        folder.lstat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise MapError(f"map folder {_shown(text)} cannot be used: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # nobody's home, a loop of links, a zero in a name
        raise MapError(f"map folder {_shown(text)} cannot be used: {error}") from error
    return folder


def map_server(text: str, root: str = "") -> str:
    """The address of a server that somebody named.

    Args:
        text: https://... or http://...
        root: address that it must begin with; empty for any.

    Raises:
        MapError: it does not, or the root is a folder, so that maps come from there alone.
    """
    base = root.rstrip("/")
    if base and not (is_server(root) and (text.rstrip("/") == base or text.startswith(f"{base}/"))):
        raise MapError(f"server {_shown(text)} is outside map_root {_shown(root)}; choose a map inside")
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
