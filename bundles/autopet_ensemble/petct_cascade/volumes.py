"""Reading and writing volumes: each is checked from its container to its last voxel."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol, runtime_checkable

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError

from petct_cascade.damage import DAMAGED, DEFLATE_RATIO
from petct_cascade.metaimage import read_metaimage
from petct_training.errors import InputError
from petct_training.files import METAIMAGE_SUFFIXES, NIFTI_SUFFIXES, SUFFIXES, atomic
from petct_training.grids import PLACE_TOLERANCE_MM, corner_distance, spacing_of

# A gzip file begins with these bytes.
GZIP_MAGIC = b"\x1f\x8b"

# How far a mask's values may lie from 0 and 1: a slope of a 16-bit integer rounds to less.
MASK_TOLERANCE = 1e-3

OTHER_SUFFIX = "does not end with .nii.gz, .nii, .mha or .mhd: convert it to NIfTI"
NOT_NIFTI = "is not a NIfTI image: convert it to NIfTI, or copy it again"

# What decompressing a damaged file raises, and what nibabel raises on top when the content makes no sense.
# (isal's stubs take its error for an instance.)
ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
DAMAGE_ERRORS = (EOFError, zlib.error, ISAL_ERROR, gzip.BadGzipFile)
READ_ERRORS = (*DAMAGE_ERRORS, ImageFileError, HeaderDataError, OSError, ValueError, KeyError)


@runtime_checkable
class Source(Protocol):
    """What stands in the place of a file where a volume is not one file, such as a DICOM series."""

    @property
    def name(self) -> str:
        """What it is called in a sentence."""

    @property
    def parent(self) -> Path:
        """The folder in which it lies."""

    def resolve(self) -> Path:
        """Return the path, without links, that tells it from others."""

    def __fspath__(self) -> str:
        """Return the path by which it is known."""

    def read(self) -> tuple[Volume, list[str]]:
        """Read it, as `read_volume` does."""


@dataclass(frozen=True)
class Volume:
    """A volume that could be read.

    Attributes:
        file: where it comes from.
        array: (X, Y, Z), in the type in which the file stores it.
        affine: (4, 4), from voxel indices to world coordinates in mm.
    """

    file: Path | Source
    array: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Distance (mm) of neighbouring voxels along the array's axes."""
        return spacing_of(self.affine)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest value; both are NaN when any voxel is."""
        return float(self.array.min()), float(self.array.max())

    @property
    def digest(self) -> str:
        """A name for the voxels' content: two checksums, which in two volumes that differ agree by chance once in 2 ** 60 times."""
        voxels = np.ascontiguousarray(self.array.T)
        return f"{isal_zlib.crc32(voxels):08x}{isal_zlib.adler32(voxels):08x}"


def flaw_of_suffix(name: str) -> str | None:
    """Return why a file's name is not that of a volume, as the end of a sentence that begins with the file; None when it is.

    Example:
        >>> flaw_of_suffix("a.nii.gz"), flaw_of_suffix("a.NII.GZ")
        (None, 'ends with .NII.GZ: rename it, with .nii.gz in small letters')
    """
    if name.endswith(SUFFIXES):
        return None
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    return OTHER_SUFFIX if suffix is None else f"ends with {name[-len(suffix) :]}: rename it, with {suffix} in small letters"


def without_suffix(name: str) -> str:
    """Return a file's name without .nii.gz, .nii, .mha or .mhd, in small letters or in capitals.

    Example:
        >>> without_suffix("fdg_p1_v1.2.nii.gz")
        'fdg_p1_v1.2'
    """
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def write_volume(path: str | os.PathLike, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file, atomically, that states its place in space twice, as every reader may look for it.

    Args:
        path: ends with .nii, or with .nii.gz to be compressed.
        array: (X, Y, Z) or (X, Y, Z, C), of a type that NIfTI holds, such as uint8 or float32.
        affine: (4, 4), from voxel indices to world coordinates in mm.

    Raises:
        InputError: when it cannot be written.
    """
    if not os.fspath(path).endswith(NIFTI_SUFFIXES):
        raise InputError(f"{path} does not end with .nii or .nii.gz: name a NIfTI file")
    if array.ndim not in (3, 4) or np.shape(affine) != (4, 4):
        raise InputError(
            f"{path} cannot hold the shape {array.shape} with an affine of {np.shape(affine)}: give (X, Y, Z) and (4, 4)"
        )
    try:
        image = nib.Nifti1Image(array, affine)
    except (HeaderDataError, ValueError) as error:
        # nibabel takes no 64-bit whole numbers, which other tools cannot read.
        raise InputError(f"{path} cannot hold voxels of the type {array.dtype}: give uint8, int16 or float32") from error
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner")
    image.header.set_xyzt_units("mm")
    with atomic(path) as part:
        nib.save(image, part)


def as_source(place: str | os.PathLike | Source) -> Path | Source:
    """Return the path that a text is; what reads itself stays as it is."""
    return place if isinstance(place, Source) else Path(place)


def read_volume(file: Path | Source, channels: int = 1) -> tuple[Volume, list[str]]:
    """Read a volume and check it.

    Args:
        file: ends with .nii.gz, .nii, .mha or .mhd; or what reads itself, and has one channel.
        channels: 1 for a volume (X, Y, Z), a larger number for one of (X, Y, Z, channels).

    Returns:
        The volume, and warnings of what is unusual about its geometry, each the end of a sentence that begins with the file's name.

    Raises:
        InputError: when it cannot be read, or its geometry makes no sense; the message is the end of a sentence that begins with
            the file's name.
    """
    if isinstance(file, Source):
        volume, warnings = file.read()
        check_axes(volume.affine)
        check_finite(volume)
        return volume, warnings
    check_container(file)
    read = _read_metaimage if file.name.endswith(METAIMAGE_SUFFIXES) else _read_nifti
    volume, warnings = read(file, channels)
    check_finite(volume)
    return volume, warnings


def _read_nifti(file: Path, channels: int) -> tuple[Volume, list[str]]:
    """Read a NIfTI file, as `read_volume` does."""
    image, stored = read_header(file)
    shape = check_shape(image.shape, channels)
    check_axes(image.affine)
    check_stated_spacing(image.affine, stored)
    check_spacing(image.affine)
    volume = Volume(file, read_voxels(file, image, shape), image.affine)
    return volume, [*geometry_warnings(image.affine), *_warnings_of_places(stored)]


def _read_metaimage(file: Path, channels: int) -> tuple[Volume, list[str]]:
    """Read a MetaImage, as `read_volume` does. It states its place once, and always in mm."""
    array, affine = read_metaimage(file)
    check_shape(array.shape, channels)
    check_axes(affine)
    check_spacing(affine)
    return Volume(file, array, affine), geometry_warnings(affine)


def read_mask(file: str | os.PathLike | Source) -> Volume:
    """Read a mask, as `as_mask` returns it.

    Raises:
        InputError: as `read_volume`, and when it holds other values than 0 and 1; the message begins with the file's name.
    """
    source = as_source(file)
    try:
        return as_mask(read_volume(source)[0])
    except InputError as error:
        raise InputError(f"{source.name} {error}") from error


def check_container(file: Path) -> None:
    """Check that there is a file, and that it is compressed if its name says so.

    Raises:
        InputError: when it is not.
    """
    if file.is_dir():
        raise InputError(f"is a folder in {file.parent}, and no file: put the volume itself in its place")
    if flaw := flaw_of_suffix(file.name):
        raise InputError(flaw)
    if not file.is_file():
        raise InputError(f"does not exist in {file.parent}: put it there, or take the study away")
    try:
        with open(file, "rb") as stream:
            start = stream.read(len(GZIP_MAGIC))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}): check its permissions and the disk") from error
    if not start:
        raise InputError("is empty (0 bytes): copy it again from where it comes")
    if file.name.endswith(".gz") and start != GZIP_MAGIC:
        raise InputError("ends with .gz but is not compressed: rename it to .nii, or copy it again")


def read_header(file: Path) -> tuple[nib.Nifti1Image, nib.Nifti1Header]:
    """Read all but the voxels of a file.

    Returns:
        The image, whose voxels are still in the file, and its header as it is stored, before nibabel has put anything right.

    Raises:
        InputError: when it is damaged, no NIfTI image, or does not hold real numbers.
    """
    try:
        with _open(file) as stream, LoggingOutputSuppressor():
            # nibabel calls a compressed file that ends within the part by which it tells types apart an unknown type.
            stream.read(4096)
            image = nib.load(file)
            if not isinstance(image, nib.Nifti1Image):
                raise InputError(NOT_NIFTI)
            stream.seek(0)
            stored = type(image.header).from_fileobj(stream, check=False)
    except DAMAGE_ERRORS as error:
        raise InputError(DAMAGED) from error
    except READ_ERRORS as error:
        raise InputError(NOT_NIFTI) from error
    if image.header.get_data_dtype().kind not in "fiu":
        raise InputError("holds colours or complex numbers: export one number a voxel")
    return image, stored


def check_shape(shape: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """Return a shape as (X, Y, Z), or (X, Y, Z, channels) of several channels; further axes of length one are left out.

    Raises:
        InputError: when it is another, or the image is a single slice.
    """
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if channels > 1 and shape[3:] != (channels,):
        raise InputError(f"has the size {shape}: give {channels} channels as (X, Y, Z, {channels}), or one file each")
    if channels == 1 and len(shape) != 3:
        raise InputError(f"has {len(shape)} dimensions {shape}: give one volume of 3 dimensions")
    if min(shape) < 1:
        raise InputError(f"has no voxels (its size is {shape}): export it again")
    if min(shape[:3]) == 1:
        raise InputError(f"is a single slice (its size is {shape}): give the whole volume")
    return shape


def check_axes(affine: np.ndarray) -> None:
    """Check that the axes of an affine (4, 4) span a volume, at right angles.

    Raises:
        InputError: when they do not.
    """
    if not np.isfinite(affine).all():
        raise InputError("has a place in space (affine) that is not a number: export it again")
    spacing = spacing_of(affine)
    directions = affine[:3, :3] / np.where(spacing == 0, 1, spacing)
    if abs(np.linalg.det(directions)) < 1e-3:
        raise InputError("has axes that do not span a volume (singular affine): export it again")
    if np.abs(directions.T @ directions - np.eye(3)).max() > 0.01:
        raise InputError("has axes that are not at right angles (sheared affine): resample it to an upright grid")


def check_spacing(affine: np.ndarray) -> None:
    """Check that the voxels of an affine (4, 4) have a size that a PET/CT can have.

    Raises:
        InputError: when they do not.
    """
    spacing = spacing_of(affine)
    if spacing.max() < 0.02:
        raise InputError(f"has a voxel spacing of {_by(spacing)} that is not in mm: export it again in mm")
    if spacing.min() < 0.05 or spacing.max() > 100:
        raise InputError(f"has a voxel spacing of {_by(spacing)} mm, which no PET/CT has: export it again")


def check_stated_spacing(affine: np.ndarray, stored: nib.Nifti1Header) -> None:
    """Check that a NIfTI header states a voxel spacing in mm, and that of its affine (4, 4).

    Raises:
        InputError: when it does not.
    """
    spacing = spacing_of(affine)
    stated = np.asarray(stored["pixdim"][1:4], dtype=float)
    if not (np.isfinite(stated) & (stated > 0)).all():
        raise InputError(f"has a voxel spacing of {_by(stated)} mm, and none may be zero or negative: export it again")
    # The lowest three bits are the unit of length: 1 is metres, 3 micrometres (nifti1.h).
    if stored["xyzt_units"] % 8 in (1, 3):
        raise InputError(f"has a voxel spacing of {_by(spacing)} that is not in mm: export it again in mm")
    if not np.allclose(stated, spacing, rtol=0.01):
        raise InputError(f"says that its voxels are {_by(stated)} mm large, and elsewhere {_by(spacing)} mm: export it again")


def geometry_warnings(affine: np.ndarray) -> list[str]:
    """Return what is unusual about an affine (4, 4) that makes sense."""
    spacing = spacing_of(affine)
    least_cosine = np.abs(affine[:3, :3] / spacing).max(axis=0).min()
    warnings = []
    if spacing.min() < 0.3 or spacing.max() > 20:
        warnings.append(f"has an unusual voxel spacing of {_by(spacing)} mm: check that it is right")
    if least_cosine < np.cos(np.deg2rad(15)):
        warnings.append("lies more than 15 degrees oblique to the body's axes: check that its orientation is right")
    return warnings


def _warnings_of_places(stored: nib.Nifti1Header) -> list[str]:
    """Return what is unusual about the places, up to two, that a NIfTI header states."""
    if stored["sform_code"] <= 0 and stored["qform_code"] <= 0:
        return ["does not say where left, front and head are: check that its orientation is right"]
    apart = _distance_of_stated_places(stored)
    if apart <= PLACE_TOLERANCE_MM:
        return []
    return [
        f"states two places that lie {apart:.1f} mm apart (sform and qform): the first is used here, and 3D "
        "Slicer, ITK-SNAP and nnU-Net use the second; export it again with one place, or masks will lie beside the images there"
    ]


def _distance_of_stated_places(stored: nib.Nifti1Header) -> float:
    """Return the largest distance (mm) between the corners of a volume by its sform and by its qform; 0 when one is not stated."""
    if stored["sform_code"] <= 0 or stored["qform_code"] <= 0:
        return 0.0
    shape = [max(int(length), 1) for length in stored["dim"][1:4]]
    try:
        return corner_distance(shape, stored.get_sform(), stored.get_qform())
    except ValueError:
        # Numbers that are no quaternion state no place.
        return 0.0


def read_voxels(file: Path, image: nib.Nifti1Image, shape: tuple[int, ...]) -> np.ndarray:
    """Read the voxels of an image, in the type in which it stores them and the machine's order of bytes, as an array of this shape.

    Raises:
        InputError: when the file is damaged, or cannot hold as many.
    """
    # Memory is not asked for on the word of a damaged header.
    if math.prod(shape) * image.get_data_dtype().itemsize > DEFLATE_RATIO * file.stat().st_size:
        raise InputError(DAMAGED)
    try:
        with _open(file) as stream:
            array = np.asanyarray(type(image).from_stream(stream).dataobj).reshape(shape)
            # The checksum of a compressed file lies behind its voxels.
            stream.read()
    except READ_ERRORS as error:
        raise InputError(DAMAGED) from error
    # PyTorch knows the machine's own order of bytes only.
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_finite(volume: Volume) -> None:
    """Check that every voxel is a number.

    Raises:
        InputError: when any is NaN or infinite.
    """
    if not np.isfinite(volume.limits).all():
        count = np.count_nonzero(~np.isfinite(volume.array))
        raise InputError(f"holds {count} voxels without a number (NaN or infinite): export it again")


def as_mask(volume: Volume) -> Volume:
    """Return a volume as a mask, uint8: 1 inside of lesions and 0 elsewhere.

    A file that stores whole numbers with a slope gives back 0 and 1 up to rounding, such as 0.99999999977. These count as 0 and 1.

    Raises:
        InputError: when it holds other values; the message is the end of a sentence that begins with the volume's file.
    """
    array = volume.array
    low, high = volume.limits
    # Of whole numbers the limits tell, in a fraction of the time.
    if array.dtype.kind in "iu" and low >= 0 and high <= 1:
        return replace(volume, array=array.astype(np.uint8, copy=False))
    return replace(volume, array=zero_and_one(array).view(np.uint8))


def zero_and_one(array: np.ndarray) -> np.ndarray:
    """Return an array (X, Y, Z) of 0 and 1, up to rounding, as bool.

    Raises:
        InputError: when it holds other values; the message is the end of a sentence that begins with the array's name.
    """
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "fiu":
        raise InputError(f"holds values of the type {array.dtype}: a mask is 0, and 1 inside of lesions")
    # Few voxels are not 0, and these alone are looked at again.
    mask = array != 0
    marked = array[mask]
    rounded = np.round(marked)
    # NaN is equal to nothing, and so another value.
    if not (np.isclose(marked, rounded, rtol=0, atol=MASK_TOLERANCE) & ((rounded == 0) | (rounded == 1))).all():
        values = np.unique(array)
        numbers = ", ".join(f"{value:.7g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
        raise InputError(f"holds the values {numbers}: a mask is 0, and 1 inside of lesions")
    mask[mask] = rounded == 1
    return mask


def check_grid(volume: Volume, other: Volume, name: str) -> None:
    """Check that a volume (X, Y, Z) lies on the grid of another, which is called `name`.

    Raises:
        InputError: when it does not; the message is the end of a sentence that begins with the volume's file.
    """
    stored, wanted = ("".join(nib.aff2axcodes(affine)) for affine in (volume.affine, other.affine))
    if stored != wanted:
        raise InputError(
            f"has its axes stored as {stored} and the {name} as {wanted}, though both may show the same place: "
            f"resample it to the grid of the {name}"
        )
    if volume.array.shape != other.array.shape:
        raise InputError(
            f"has the size {volume.array.shape} and the {name} {other.array.shape}: resample it to the grid of the {name}"
        )
    distance = corner_distance(volume.array.shape, volume.affine, other.affine)
    if distance > PLACE_TOLERANCE_MM:
        raise InputError(f"lies up to {distance:.1f} mm beside the {name}: resample it to the grid of the {name}")


@contextmanager
def _open(file: Path) -> Iterator[BufferedIOBase]:
    """Open a file, and decompress it if it is: with ISA-L, in half of the time that zlib takes."""
    with igzip.open(file, "rb") if file.name.endswith(".gz") else open(file, "rb") as stream:
        yield stream


def _by(numbers: np.ndarray) -> str:
    """Return numbers such as 2 x 2 x 3."""
    return " x ".join(f"{value:.4g}" for value in numbers)
