"""How long OpenMP's threads wait for more work; to be imported before what loads OpenMP: torch, FAISS, NumPy."""

from __future__ import annotations

import os

_SPIN_COUNT = "10000"


def spin_briefly() -> None:
    """Let the threads of GNU's OpenMP sleep some microseconds after their work, for programs that begin now.

    By default they keep their cores busy for milliseconds, in case more work comes. After the network has run, these
    are the cores that re-ranking needs: it took a third longer. The network itself is as fast, since its operations
    follow each other closely. What the environment says already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
