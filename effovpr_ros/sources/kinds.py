"""Names by which options say how a source is read."""

from __future__ import annotations

KINDS = ("auto", "exif", "csv", "tum", "utm", "plain")
"""How a folder's images tell where they were taken."""
NO_POSES = "none"
"""The pose topic that stands for a map without positions."""
