"""Reading and writing NIfTI volumes."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError

from petct_training.errors import InputError
from petct_training.files import atomic
from petct_training.grids import PLACE_TOLERANCE_MM, corner_distance


def write_volume(path: str | os.PathLike, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file, atomically, that states its place in space twice, as every reader may look for it.

    Args:
        path: ends with .nii, or with .nii.gz to be compressed.
        array: (X, Y, Z) or (X, Y, Z, C).
        affine: (4, 4), from voxel indices to world coordinates in mm.
    """
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner")
    image.header.set_xyzt_units("mm")
    with atomic(path) as part:
        nib.save(image, part)


SUFFIXES = (".nii.gz", ".nii")


# The compression of .gz makes nothing smaller than by this (zlib's technical details).
DEFLATE_RATIO = 1032


READ_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, KeyError, zlib.error, isal_zlib.error)


@dataclass(frozen=True)
class Volume:
    """A volume that could be read.

    Attributes:
        file: where it comes from.
        array: (X, Y, Z), in the type in which the file stores it.
        affine: (4, 4), from voxel indices to world coordinates in mm.
    """

    file: Path
    array: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Distance of neighbouring voxels along the array's axes, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def digest(self) -> str:
        """A name for the voxels' content: two checksums, which in two volumes that differ agree by chance once in 2 ** 60 times."""
        voxels = np.ascontiguousarray(self.array.T)
        return f"{isal_zlib.crc32(voxels):08x}{isal_zlib.adler32(voxels):08x}"


def without_suffix(name: str) -> str:
    """Give a file's name without .nii.gz or .nii."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def read_volume(file: Path, channels: int = 1) -> tuple[Volume, list[str]]:
    """Read a file, and give the volume with what is remarkable about its geometry.

    Args:
        file: NIfTI file.
        channels: 1 for a volume (X, Y, Z), a larger number for one of (X, Y, Z, channels).

    Raises:
        InputError: when it cannot be read, or its geometry makes no sense; the message is the end of a sentence that begins with
            the file's name.
    """
    if not file.name.endswith(SUFFIXES):
        raise InputError("does not end with .nii.gz or .nii: convert it to NIfTI")
    if not file.is_file():
        raise InputError(f"does not exist in {file.parent}: put it there, or take the study away")
    try:
        if file.stat().st_size == 0:
            raise InputError("is empty (0 bytes): copy it again from where it comes")
        with open(file, "rb") as stream:
            if file.name.endswith(".gz") and stream.read(2) != b"\x1f\x8b":
                raise InputError("ends with .gz but is not compressed: rename it to .nii, or copy it again")
    except PermissionError as error:
        raise InputError("must not be read by this user: change its permissions") from error
    try:
        with _open(file) as stream, LoggingOutputSuppressor():
            # nibabel calls a compressed file that ends within the part by which it tells types apart an unknown type.
            stream.read(4096)
            image = nib.load(file)
            stream.seek(0)
            raw = type(image.header).from_fileobj(stream, check=False)
    except (EOFError, zlib.error, isal_zlib.error, gzip.BadGzipFile) as error:
        raise InputError("is damaged or cut off: copy it again from where it comes") from error
    except READ_ERRORS as error:
        raise InputError("is not a NIfTI image: convert it to NIfTI, or copy it again") from error
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise InputError("is not a NIfTI image: convert it to NIfTI, or copy it again")
    if image.header.get_data_dtype().kind not in "fiu":
        raise InputError("holds colours or complex numbers: export one number a voxel")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if channels > 1 and (len(shape) != 4 or shape[3] != channels):
        raise InputError(f"has the size {shape}: give {channels} channels as (X, Y, Z, {channels}), or one file each")
    if channels == 1 and len(shape) != 3:
        raise InputError(f"has {len(shape)} dimensions {shape}: give one volume of 3 dimensions")
    if min(shape) < 1:
        raise InputError(f"has no voxels (its size is {shape}): export it again")
    if min(shape[:3]) == 1:
        raise InputError(f"is a single slice (its size is {shape}): give the whole volume")
    warnings = _judge_geometry(image, raw)
    # Memory is not asked for on the word of a damaged header.
    if math.prod(shape) * image.get_data_dtype().itemsize > DEFLATE_RATIO * file.stat().st_size:
        raise InputError("is damaged or cut off: copy it again from where it comes")
    try:
        with _open(file) as stream:
            array = np.asanyarray(type(image).from_stream(stream).dataobj).reshape(shape)
            # The checksum of a compressed file lies behind its voxels.
            stream.read()
    except READ_ERRORS as error:
        raise InputError("is damaged or cut off: copy it again from where it comes") from error
    # Minimum and maximum are NaN when any voxel is.
    if array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
        count = np.count_nonzero(~np.isfinite(array))
        raise InputError(f"holds {count} voxels without a number (NaN or infinite): export it again")
    return Volume(file, array, image.affine), warnings


def _open(file: Path) -> BinaryIO:
    """Open a file, and decompress it if it is: with ISA-L, in half of the time that zlib takes."""
    return igzip.open(file, "rb") if file.name.endswith(".gz") else open(file, "rb")


def read_mask(file: Path) -> Volume:
    """Read a mask, 1 inside of lesions and 0 elsewhere.

    Raises:
        InputError: as `read_volume`, and when it holds other values.
    """
    volume, _ = read_volume(file)
    _check_binary(volume)
    return volume


def check_grid(volume: Volume, other: Volume, name: str) -> None:
    """Refuse a volume that does not lie on the grid of another.

    Args:
        volume: (X, Y, Z).
        other: (X, Y, Z).
        name: what the other is called.

    Raises:
        InputError: the message is the end of a sentence that begins with the volume's file.
    """
    if volume.array.shape != other.array.shape:
        raise InputError(
            f"has the size {volume.array.shape} and the {name} {other.array.shape}: resample it to the grid of the {name}"
        )
    distance = corner_distance(volume.array.shape, volume.affine, other.affine)
    if distance > PLACE_TOLERANCE_MM:
        raise InputError(f"lies up to {distance:.1f} mm beside the {name}: resample it to the grid of the {name}")


def _check_binary(volume: Volume) -> None:
    array = volume.array
    # Of whole numbers the limits tell, in a fraction of the time.
    binary = array.min() >= 0 and array.max() <= 1 if array.dtype.kind in "iu" else ((array == 0) | (array == 1)).all()
    if not binary:
        values = np.unique(volume.array)
        numbers = ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
        raise InputError(f"holds the values {numbers}: a mask is 0, and 1 inside of lesions")


def _judge_geometry(image: nib.Nifti1Image, raw: nib.Nifti1Header) -> list[str]:
    """Judge affine and spacing of an image; `raw` is its header before nibabel has put anything right.

    Returns:
        What is remarkable.

    Raises:
        InputError: when the voxels have no sensible place in space.
    """
    affine = image.affine
    if not np.isfinite(affine).all():
        raise InputError("has a place in space (affine) that is not a number: export it again")
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    shown = " x ".join(f"{value:.4g}" for value in spacing)
    stored = np.asarray(raw["pixdim"][1:4], dtype=float)
    if not np.isfinite(stored).all() or (stored <= 0).any() or (spacing == 0).any():
        numbers = " x ".join(f"{value:.4g}" for value in stored)
        raise InputError(f"has a voxel spacing of {numbers} mm, and none may be zero or negative: export it again")
    directions = axes / spacing
    if abs(np.linalg.det(directions)) < 1e-3:
        raise InputError("has axes that do not span a volume (singular affine): export it again")
    cosines = directions.T @ directions - np.eye(3)
    if np.abs(cosines).max() > 0.01:
        raise InputError("has axes that are not at right angles (sheared affine): resample it to an upright grid")
    if raw["xyzt_units"] % 8 in (1, 3) or spacing.max() < 0.02:
        raise InputError(f"has a voxel spacing of {shown} that is not in mm: export it again in mm")
    if spacing.min() < 0.05 or spacing.max() > 100:
        raise InputError(f"has a voxel spacing of {shown} mm, which no PET/CT has: export it again")
    if not np.allclose(stored, spacing, rtol=0.01):
        numbers = " x ".join(f"{value:.4g}" for value in stored)
        raise InputError(f"says that its voxels are {numbers} mm large, and elsewhere {shown} mm: export it again")
    warnings = []
    if spacing.min() < 0.3 or spacing.max() > 20:
        warnings.append(f"has an unusual voxel spacing of {shown} mm: check that it is right")
    if raw["sform_code"] <= 0 and raw["qform_code"] <= 0:
        warnings.append("does not say where left, front and head are: check that its orientation is right")
    if np.abs(directions).max(axis=0).min() < np.cos(np.deg2rad(15)):
        warnings.append("lies more than 15 degrees oblique to the body's axes: check that its orientation is right")
    return warnings
