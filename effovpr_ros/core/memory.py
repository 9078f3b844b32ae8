"""Memory that a program is done with."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> bool:
    """Return to the system what loading left behind: glibc keeps freed memory, after reading weights over 100 MB.

    Returns:
        Whether the C library can do so; others than glibc return it by themselves, or never.
    """
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(ctypes.c_size_t(0))
    return True
