"""What lies in a folder of any depth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Folders that operating systems and file servers make for themselves.
SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found")


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder of any depth, but for hidden ones and those that operating systems make for themselves."""
    seen: set[str] = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_made_by_system(name))
        yield from (Path(path, name) for name in files if not name.startswith("."))


def is_made_by_system(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or one that an operating system has made for itself.

    Archives made on a Mac bring a folder `__MACOSX` that repeats the names of all files.
    """
    return name.startswith(".") or name in SYSTEM_FOLDERS
