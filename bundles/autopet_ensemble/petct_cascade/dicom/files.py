"""Files that are DICOM, and their data sets."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import pydicom
from pydicom import Dataset
from pydicom.tag import BaseTag

from petct_training.errors import InputError

# Half of all files break the standard somewhere; pydicom warns of each value, when it is asked for.
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")

# Where the four letters lie by which a DICOM file is known, and how one begins that lacks them: group 0002 or 0008.
MAGIC, MAGIC_START = b"DICM", 128
BARE_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
# Value representations of short texts, one of which names the type of the first element of a file without the letters.
TEXT_TYPES = (b"UL", b"CS", b"UI", b"SH", b"DA", b"TM", b"OB")


def is_dicom(file: str | os.PathLike) -> bool:
    """Return whether a file begins as DICOM files do.

    Raises:
        OSError: when it cannot be read.
    """
    with open(file, "rb") as stream:
        start = stream.read(MAGIC_START + len(MAGIC))
    if start[MAGIC_START:] == MAGIC:
        return True
    # Old archives leave out the first 132 bytes. The element is small: its length, of explicit or implicit type, tells.
    bare = start[:2] in BARE_STARTS and len(start) > 8
    return bare and (start[4:6] in TEXT_TYPES or 0 < int.from_bytes(start[4:8], "little") < 128)


def read_dataset(file: str | os.PathLike, pixels: bool = False, tags: Sequence[BaseTag] | None = None) -> Dataset:
    """Read a DICOM file.

    Args:
        file: with or without the usual beginning.
        pixels: whether the pixels are read, too.
        tags: of the attributes that are wanted; all by default. Looking up keywords would take a tenth of the time.

    Raises:
        InputError: when it is damaged; the message is the end of a sentence that begins with the file's name.
    """
    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels, force=True, specific_tags=None if tags is None else [*tags])
    except Exception as error:  # A damaged file makes pydicom raise nearly anything.
        raise InputError(f"is damaged or cut off ({_first_line(error)}): copy it again from where it comes") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
