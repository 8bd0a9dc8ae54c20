"""MetaImage files, .mha and .mhd: ITK's own format, in which challenges hand out their images.

A text header of lines `Name = value` ends with the line that says where the voxels are: behind it, or in another file
(https://itk.org/Wiki/MetaIO/Documentation). World coordinates are LPS: to the left, to the back, to the head.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from pathlib import Path

import numpy as np
from isal import igzip_lib, isal_zlib

from petct_cascade.damage import DAMAGED, DEFLATE_RATIO
from petct_training.errors import InputError
from petct_training.files import LONGEST_HEADER, atomic
from petct_training.grids import spacing_of

NOT_METAIMAGE = "is not a MetaImage: convert it to NIfTI or MetaImage, or copy it again"

# Types of voxels. A "long" has four bytes, wherever the file was written (MetaIO's metaTypes.h).
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

# Several names of one thing; the first is the one of today.
OFFSET = ("Offset", "Position", "Origin")
DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
SPACING = ("ElementSpacing", "ElementSize")
BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")

# Bytes that are read and decompressed at once.
CHUNK = 1 << 20

# (isal's stubs take its error for an instance.)
ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]


@dataclass(frozen=True)
class Layout:
    """How a file's voxels are stored.

    Attributes:
        file: in which they are.
        start: where they begin (bytes); None when they end with the file.
        shape: (X, Y, Z), or (X, Y, Z, C).
        dtype: of a voxel, with its order of bytes.
        compressed: whether by zlib.
    """

    file: Path
    start: int | None
    shape: tuple[int, ...]
    dtype: np.dtype
    compressed: bool

    @property
    def size(self) -> int:
        """Bytes of all voxels, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Place:
    """Where a MetaImage's voxels lie, by the numbers of its header, in LPS and mm.

    Attributes:
        shape: (X, Y, Z).
        directions: (3, 3), unit vectors; a row is the direction of an axis of the array.
        spacing: (3,), distance of neighbouring voxels along the array's axes.
        offset: (3,), of the first voxel.
    """

    shape: tuple[int, ...]
    directions: np.ndarray
    spacing: np.ndarray
    offset: np.ndarray

    @classmethod
    def of_affine(cls, shape: tuple[int, ...], affine: np.ndarray) -> Place:
        """Return the place of an array with an affine (4, 4), RAS as in NIfTI, whose axes are at right angles."""
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        spacing = spacing_of(affine)
        # One axis of the array after the other.
        return cls(shape, (lps[:3, :3] / spacing).T, spacing, lps[:3, 3])

    @property
    def affine(self) -> np.ndarray:
        """The affine (4, 4), RAS as in NIfTI."""
        affine = np.eye(4)
        with np.errstate(invalid="ignore", over="ignore"):
            affine[:3, :3] = self.directions.T * self.spacing
        affine[:3, 3] = self.offset
        affine[:2] *= -1
        return affine


def read_place(file: Path) -> Place:
    """Read where the voxels of a MetaImage lie, from its header alone: they may be damaged, or missing.

    Raises:
        InputError: as `read_metaimage`.
    """
    return _place_of(*_open_header(file)[:2])


def read_metaimage(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a MetaImage.

    Args:
        file: ends with .mha or .mhd; a file that it names lies in the same folder, or below.

    Returns:
        The array (X, Y, Z), or (X, Y, Z, C) when it has a fourth axis that is longer than one, in the file's type and the machine's
        order of bytes; and the affine (4, 4), from voxel indices to world coordinates in mm, RAS as in NIfTI.

    Raises:
        InputError: when it is damaged, or of a kind that is not read; the message is the end of a sentence that begins with the
            file's name.
    """
    header, shape, behind = _open_header(file)
    place = _place_of(header, shape)
    try:
        array = _read_voxels(_layout_of(file, header, behind, shape))
    except OSError as error:
        raise InputError(_cannot_read(error)) from error
    return (array[..., 0] if array.shape[3:] == (1,) else array), place.affine


def write_metaimage(path: str | os.PathLike, array: np.ndarray, place: np.ndarray | Place) -> None:
    """Write a compressed MetaImage in one file, atomically.

    Args:
        path: ends with .mha.
        array: (X, Y, Z), of whole numbers, of truth values (which become 0 and 1), or of floats of 32 or 64 bits.
        place: affine (4, 4), from voxel indices to world coordinates in mm, RAS as in NIfTI, with axes at right angles; or the
            place of another MetaImage, whose numbers are then repeated as they are.

    Raises:
        InputError: when it cannot be written.
        ValueError: when the array is not 3-D, or of another type, or has another shape than its place.
    """
    array = array.astype(np.uint8) if array.dtype == bool else array
    name = next((name for name, code in TYPES.items() if np.dtype(code) == array.dtype), None)
    if name is None or array.ndim != 3:
        raise ValueError(f"a MetaImage holds no array of {array.ndim} dimensions and of type {array.dtype}")
    place = place if isinstance(place, Place) else Place.of_affine(array.shape, place)
    if place.shape != array.shape:
        raise ValueError(f"an array of the shape {array.shape} has no place of the shape {place.shape}")
    data = isal_zlib.compress(np.ascontiguousarray(array.T, dtype=array.dtype.newbyteorder("<")))
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(data)),
        "TransformMatrix": _numbers(place.directions.ravel()),
        "Offset": _numbers(place.offset),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _numbers(place.spacing),
        "DimSize": " ".join(str(length) for length in array.shape),
        "ElementType": name,
        "ElementDataFile": "LOCAL",
    }
    with atomic(path) as part, open(part, "wb") as stream:
        stream.write("".join(f"{field} = {value}\n" for field, value in header.items()).encode())
        stream.write(data)


# ---------------------------------------------------------------- header


def _open_header(file: Path) -> tuple[dict[str, str], tuple[int, ...], int]:
    """Return the fields of a file's header, the shape (X, Y, Z) or (X, Y, Z, C), and where the header ends (bytes)."""
    try:
        with open(file, "rb") as stream:
            header = _read_header(stream)
            return header, _shape_of(header), stream.tell()
    except OSError as error:
        raise InputError(_cannot_read(error)) from error


def _cannot_read(error: OSError) -> str:
    """Return the end of a sentence about a file that cannot be read."""
    return f"cannot be read ({error.strerror}): check its permissions and the disk"


def _read_header(stream: BufferedReader) -> dict[str, str]:
    """Return the fields of a header; the stream then stands behind it."""
    header: dict[str, str] = {}
    while "ElementDataFile" not in header:
        line = stream.readline(LONGEST_HEADER)
        name, equals, value = line.decode("latin-1").partition("=")
        if not equals or not line.endswith(b"\n") or stream.tell() > LONGEST_HEADER:
            raise InputError(NOT_METAIMAGE)
        header[name.strip()] = value.strip()
    if header.get("ObjectType", "Image") != "Image" or not {"NDims", "DimSize", "ElementType"} <= header.keys():
        raise InputError(NOT_METAIMAGE)
    return header


def _shape_of(header: Mapping[str, str]) -> tuple[int, ...]:
    """Return the shape (X, Y, Z) or (X, Y, Z, C)."""
    lengths = [_whole(word) for word in header["DimSize"].split()]
    if str(len(lengths)) != header["NDims"] or min(lengths, default=0) < 0:
        raise InputError(NOT_METAIMAGE)
    if len(lengths) not in (3, 4):
        raise InputError(f"has {len(lengths)} dimensions: give one volume of 3 dimensions")
    if header.get("ElementNumberOfChannels", "1") != "1":
        raise InputError("holds colours or several values a voxel: export one number a voxel")
    return tuple(lengths)


def _layout_of(file: Path, header: Mapping[str, str], behind: int, shape: tuple[int, ...]) -> Layout:
    """Return how the voxels are stored.

    Args:
        file: with the header.
        header: its fields.
        behind: where the header ends (bytes).
        shape: of the voxels.
    """
    code = TYPES.get(header["ElementType"])
    if code is None:
        raise InputError(f"holds voxels of the type {header['ElementType'][:30]}: export whole numbers or floats")
    if not _is_true(header.get("BinaryData", "True")):
        raise InputError("holds its voxels as text: export it with binary data")
    dtype = np.dtype(code).newbyteorder(">" if _is_true(_first(header, BIG_ENDIAN) or "False") else "<")
    compressed = _is_true(header.get("CompressedData", "False"))
    start = _whole(header.get("HeaderSize", "0"))
    if start < 0 and compressed:
        raise InputError("is compressed and does not say where its voxels begin (HeaderSize): export it again")
    name = header["ElementDataFile"]
    local = name.upper() == "LOCAL"
    # Without a size to skip, voxels begin where the header ends, or with the file of their own.
    begin = start or (behind if local else 0)
    return Layout(file if local else _data_file(file, name), None if start < 0 else begin, shape, dtype, compressed)


def _data_file(file: Path, name: str) -> Path:
    """Return the file that a header names.

    Raises:
        InputError: when it lies elsewhere, there are several, or it is missing.
    """
    named = Path(name.replace("\\", "/"))
    if named.is_absolute() or named.drive or ".." in named.parts:
        raise InputError(f"names its voxels' file outside of its own folder ({name[:100]}): put both into one folder")
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise InputError("names one file a slice: export it in one file")
    data = file.parent / named
    if "\0" in name or not data.is_file():
        raise InputError(f"names its voxels' file {name[:100]!r}, which is not there: put it beside it")
    return data


def _place_of(header: Mapping[str, str], shape: tuple[int, ...]) -> Place:
    """Return the place of the first three of all axes."""
    axes = len(shape)
    spacing = _values(header, SPACING, np.ones(axes))[:3]
    if (spacing <= 0).any():
        by = " x ".join(f"{value:.4g}" for value in spacing)
        raise InputError(f"has a voxel spacing of {by} mm, and none may be zero or negative: export it again")
    directions = _values(header, DIRECTIONS, np.eye(axes).ravel()).reshape(axes, axes)
    offset = _values(header, OFFSET, np.zeros(axes))
    return Place(shape[:3], directions[:3, :3], spacing, offset[:3])


def _values(header: Mapping[str, str], names: tuple[str, ...], default: np.ndarray) -> np.ndarray:
    """Return the numbers of a field, which are as many as in its default."""
    text = _first(header, names)
    if text is None:
        return default
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise InputError(NOT_METAIMAGE) from error
    if values.shape != default.shape:
        raise InputError(NOT_METAIMAGE)
    return values


def _first(header: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first of several fields that is there."""
    return next((header[name] for name in names if name in header), None)


def _is_true(text: str) -> bool:
    """Return what a switch says, in the way in which ITK reads it."""
    return text[:1] in ("T", "t", "1")


def _whole(text: str) -> int:
    """Return a number of bytes, or -1."""
    if not text.removeprefix("-").isdigit() or not text.isascii() or len(text) > 18:
        raise InputError(NOT_METAIMAGE)
    return int(text)


def _numbers(values: np.ndarray) -> str:
    """Return numbers as text that gives them back exactly."""
    return " ".join(repr(float(value) + 0.0) for value in values)


# ---------------------------------------------------------------- voxels


def _read_voxels(layout: Layout) -> np.ndarray:
    """Return the voxels; the first axis is the one that changes fastest in the file.

    Raises:
        InputError: when the file cannot hold as many, or is damaged.
    """
    there = layout.file.stat().st_size
    start = max(there - layout.size, 0) if layout.start is None else layout.start
    # Memory is not asked for on the word of a damaged header.
    if layout.size > (DEFLATE_RATIO if layout.compressed else 1) * max(there - start, 0):
        raise InputError(DAMAGED)
    array = np.empty(layout.shape[::-1], dtype=layout.dtype)
    if array.size:
        voxels = array.reshape(-1).view(np.uint8).data
        with open(layout.file, "rb") as stream:
            stream.seek(start)
            filled = _inflate(stream, voxels) if layout.compressed else stream.readinto(voxels)
        if filled != layout.size:
            raise InputError(DAMAGED)
    # PyTorch knows the machine's own order of bytes only.
    return array.astype(layout.dtype.newbyteorder("="), copy=False).T


def _inflate(stream: BufferedIOBase, voxels: memoryview) -> int:
    """Decompress a stream of zlib or gzip to its end, with its checksum.

    Returns:
        The number of bytes it holds, or one more than there is room for.

    Raises:
        InputError: when it is damaged.
    """
    # zlib's number for: zlib or gzip, as the stream says.
    decompressor = isal_zlib.decompressobj(47)
    filled = 0
    try:
        while not decompressor.eof:
            chunk = decompressor.unconsumed_tail or stream.read(CHUNK)
            # One byte more than there is room for tells a stream that is too long.
            part = decompressor.decompress(chunk, min(CHUNK, len(voxels) - filled + 1))
            if filled + len(part) > len(voxels):
                return len(voxels) + 1
            if not chunk and not part and not decompressor.eof:
                raise InputError(DAMAGED)
            voxels[filled : filled + len(part)] = part
            filled += len(part)
    except (ISAL_ERROR, EOFError) as error:
        raise InputError(DAMAGED) from error
    return filled
