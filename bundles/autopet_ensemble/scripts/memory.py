"""How this process gets its memory from the system."""

from __future__ import annotations

import contextlib
import ctypes


def keep_freed_memory() -> bool:
    """Let this process, and those forked from it, keep the memory of freed arrays for the next ones.

    The C library of Linux gives large blocks back to the system at once, and each new array is then mapped page by page, which takes
    several times longer than most of what is done to it: on CPUs, a third of a network's time.

    Returns:
        Whether it took effect; it does not on other systems.
    """
    # Numbers of M_TRIM_THRESHOLD and M_MMAP_MAX in the C library's malloc.h; -1 is for never.
    trim_threshold, mmap_max = -1, -4
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, -1))


def return_freed_memory() -> None:
    """Return freed memory to the system, also what `keep_freed_memory` has kept; on Linux alone.

    What one network has freed is in pieces of other sizes than the next one needs, which would take its own on top.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
