"""Files that appear complete or not at all, how to tell that one has changed, and paths between them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from petct_training.errors import InputError, cannot_write

# A training's state, in the folder of its weights.
LAST = "last.pt"

# How the names of volumes end.
METAIMAGE_SUFFIXES = (".mha", ".mhd")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
SUFFIXES = (*NIFTI_SUFFIXES, *METAIMAGE_SUFFIXES)

# Bytes in which the header of a MetaImage ends: it has some twenty lines, and hundreds with DICOM's attributes in it.
LONGEST_HEADER = 1 << 20


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` when the block ends without an exception.

    The temporary file lies in a folder `.part-...` beside `path`, since a rename is atomic only within one file system. It has the
    name of `path`: image writers choose the format by it, and PyTorch writes it into the file.

    Raises:
        InputError: when the disk is full or the folder must not be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic(folder / "table.csv") as part:
        ...     _ = part.write_text("case,dice")
        >>> [file.name for file in folder.iterdir()]
        ['table.csv']
    """
    path = Path(path)
    folder = path.parent / f".part-{uuid.uuid4().hex}"
    part = folder / path.name
    try:
        folder.mkdir(parents=True)
        yield part
        # Open for writing, since Windows flushes no file that is open for reading only.
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise InputError(cannot_write(path, error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(folder: str | os.PathLike) -> None:
    """Make a folder and see that it can be written, before work is done whose result would have no place.

    Raises:
        InputError: when it cannot.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=os.fspath(folder)):
            pass
    except OSError as error:
        raise InputError(cannot_write(folder, error)) from error


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Take away what killed runs were writing in a folder and those below it; no other run may be writing there."""
    for part in list(Path(folder).rglob(".part-*")):
        shutil.rmtree(part)


def stamp(file: str | os.PathLike) -> list[int]:
    """Return a file's size (bytes) and time of modification (ns), by which a change is noticed; an empty list when there is
    no file.
    """
    try:
        state = os.stat(file)
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def data_file_of(file: str | os.PathLike) -> Path | None:
    """Return the file that holds the voxels of a MetaImage header (.mhd); None for any other file.

    Example:
        >>> import tempfile
        >>> header = Path(tempfile.mkdtemp()) / "ct.mhd"
        >>> _ = header.write_text("NDims = 3\\nElementDataFile = ct.raw\\n")
        >>> data_file_of(header).name
        'ct.raw'
    """
    if not os.fspath(file).endswith(".mhd"):
        return None
    try:
        with open(file, "rb") as stream:
            found = re.search(rb"^ElementDataFile *= *([^\r\n]+)", stream.read(LONGEST_HEADER), re.MULTILINE)
    except OSError:
        return None
    name = found[1].strip().decode("latin-1") if found else "LOCAL"
    return None if name.upper() == "LOCAL" or "\0" in name else Path(file).parent / name


def relative_path(path: Path, start: Path | None = None) -> Path:
    """Return a path relative to a folder, or to the current one; as it is where there is no way, such as to another drive."""
    try:
        return Path(os.path.relpath(path, start or Path.cwd()))
    except ValueError:
        return path


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text, atomically, with the same bytes on every system.

    Of a name that is none, as of a file from an old archive, what is no letter is escaped.
    """
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_json(path: str | os.PathLike, content: Any, ascii_only: bool = False) -> None:
    """Write JSON with an indent of two, atomically.

    Args:
        path: of the file.
        content: of the file.
        ascii_only: whether other letters are escaped. MONAI reads JSON in the system's encoding, which on Windows is not UTF-8.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=ascii_only) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file in UTF-8."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_json_or_none(path: str | os.PathLike) -> Any:
    """Read a JSON file in UTF-8; return None when there is none, or it is broken."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
