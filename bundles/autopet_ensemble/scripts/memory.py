"""How this process gets its memory from the system."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

# Numbers of the settings in the C library's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
# What the C library comes to by itself in a program with large arrays: those above 32 MB are mapped, and 64 MB may lie unused.
DEFAULTS = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}


def keep_freed_memory() -> bool:
    """Let this process, and those forked from it, keep the memory of freed arrays for the next ones.

    The C library of Linux gives large blocks back to the system at once, and each new array is then mapped page by page, which takes
    several times longer than most of what is done to it: on CPUs, a third of a network's time.

    Returns:
        Whether it took effect; it does not on other systems.
    """
    # -1 is for never.
    return bool(_call("mallopt", MMAP_MAX, 0) and _call("mallopt", TRIM_THRESHOLD, -1))


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the memory of freed arrays for the next ones until the end of a block, and then return it to the system.

    So what a network has freed, in pieces of its own sizes, does not come on top of what the next one needs, or a whole volume.
    """
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            for setting, value in DEFAULTS.items():
                _call("mallopt", setting, value)
            _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> Any:
    """Call a function of the C library; None where it has no such function."""
    try:
        return getattr(ctypes.CDLL(None), function)(*arguments)
    except (AttributeError, OSError, TypeError):
        return None
