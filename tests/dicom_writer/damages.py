"""Damage to written files: cut off, or with elements changed behind pydicom's back."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

from dicom_writer.writing import WrittenStudy

Damage = Callable[[WrittenStudy], None]
# The slice that is damaged, from 1; its file is pet/0007.dcm.
NUMBER = 7


def cut_off(size: int, number: int = NUMBER) -> Damage:
    """Return a damage that leaves the first `size` bytes of the slice of a number; if negative, all but the last."""

    def damage(written: WrittenStudy) -> None:
        file = written.pet_files[number - 1]
        file.write_bytes(file.read_bytes()[:size])

    return damage


def patched(tag: int, value: bytes | int, vr: str = "", everywhere: bool = False) -> Damage:
    """Return a damage that overwrites an element's value in one slice of the PET.

    Args:
        tag: of the element, whose first occurrence in the file is changed.
        value: a text, which is cut or padded to the old length, or a number of 16 bits.
        vr: another VR of the same kind, empty to leave it.
        everywhere: change all slices.
    """

    def damage(written: WrittenStudy) -> None:
        for file in written.pet_files if everywhere else written.pet_files[NUMBER - 1 : NUMBER]:
            _patch(file, tag, value, vr)

    return damage


def _patch(file: Path, tag: int, value: bytes | int, vr: str) -> None:
    """Overwrite an element with a short VR in a file of explicit VR and little endian."""
    content = bytearray(file.read_bytes())
    start = next(re.finditer(re.escape(struct.pack("<HH", tag >> 16, tag & 0xFFFF)) + b"[A-Z][A-Z]", content)).start()
    (length,) = struct.unpack_from("<H", content, start + 6)
    if vr:
        content[start + 4 : start + 6] = vr.encode()
    new = struct.pack("<H", value) if isinstance(value, int) else value[:length].ljust(length)
    content[start + 8 : start + 8 + length] = new
    file.write_bytes(content)
