"""The first seconds of a program, in which it loads torch."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable


def import_main(module: str) -> Callable[[], None]:
    """Import a module and return its `main`. Ctrl-C ends the program at once meanwhile: nothing is open yet.

    Args:
        module: of a node.
    """
    previous = signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    main: Callable[[], None] = importlib.import_module(module).main
    signal.signal(signal.SIGINT, previous)
    return main
