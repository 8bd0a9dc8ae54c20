"""Reading a DICOM series of CT or PET as a volume in HU or SUV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.pixels import pixel_array

from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.files import read_dataset
from petct_cascade.dicom.frames import frames_of, number_of_frames
from petct_cascade.dicom.geometry import Stack, names_of, stack_of
from petct_cascade.dicom.pet_series import body_of
from petct_cascade.dicom.suv import implausible, suv_conversion
from petct_cascade.dicom.suv_options import SuvOptions
from petct_cascade.dicom.values import number_of, text_of
from petct_training.errors import InputError

# HU of what no slice of a tilted CT shows.
AIR_HU = -1024

# Air around a body has less.
BACKGROUND_SUV = 0.1

# More voxels than any scanner makes in one slice or in one file: a header that claims more is wrong.
LARGEST_SIDE = 4096
MOST_FRAMES = 20_000


@dataclass(frozen=True)
class Frame:
    """A slice of a series.

    Attributes:
        header: its attributes.
        name: what it is called in a sentence.
        pixels: (Y, X), as stored.
    """

    header: Dataset
    name: str
    pixels: np.ndarray


@dataclass(frozen=True)
class SeriesVolume:
    """A series that was read.

    Attributes:
        array: (X, Y, Z): columns, rows, slices in the order of their positions; HU or body-weight SUV.
        affine: (4, 4), from voxel indices to the world (RAS) in mm.
        facts: what was found out on the way, as JSON knows it: number of slices, and how SUV were computed.
        warnings: each the end of a sentence that begins with the series.
        body: the patient's, by a PET and what the user says; None where weight, height or sex is not known.
    """

    array: np.ndarray
    affine: np.ndarray
    facts: dict[str, Any]
    warnings: list[str]
    body: Body | None = None


def read_ct(files: Sequence[Path]) -> SeriesVolume:
    """Read a series of CT in HU, in whole numbers where its slices are stored so.

    Raises:
        InputError: when it cannot be read, or is no even stack of slices; the message is the end of a sentence that begins with
            the series.
    """
    frames, stack, warnings = _read(files)
    slopes, intercepts = _rescaling(frames)
    pixels = [frames[index].pixels for index in stack.order]
    kind = _whole_type(pixels, slopes[stack.order], intercepts[stack.order])
    array = _rescaled(pixels, slopes[stack.order], intercepts[stack.order], kind)
    array, affine = _upright(array, stack)
    if any(stack.shift):
        warnings.append("was scanned with a tilted gantry: its slices were shifted to an upright volume")
    return SeriesVolume(array, affine, _facts(files, stack), warnings)


def read_pet(files: Sequence[Path], options: SuvOptions | None = None) -> SeriesVolume:
    """Read a series of PET in body-weight SUV, float32.

    Args:
        files: of the series.
        options: what the headers do not say.

    Raises:
        InputError: as `read_ct`, and when no SUV can be computed.
    """
    frames, stack, warnings = _read(files)
    if any(stack.shift):
        raise InputError("has slices that are shifted against each other, as no PET scanner makes them: export it again")
    slopes, intercepts = _rescaling(frames)
    options, headers = options or SuvOptions(), [frame.header for frame in frames]
    conversion = suv_conversion(headers, options)
    order = stack.order
    factors = np.asarray(conversion.factors, dtype=float)[order]
    pixels = [frames[index].pixels for index in order]
    array = _rescaled(pixels, slopes[order] * factors, intercepts[order] * factors, np.dtype(np.float32))
    facts = {**_facts(files, stack), "suv": conversion.facts}
    warnings += _fewer_than_stated(frames, stack)
    said = [*warnings, *conversion.warnings, *_implausible(array)]
    return SeriesVolume(array, stack.affine, facts, said, body_of(headers, options))


def _fewer_than_stated(frames: Sequence[Frame], stack: Stack) -> list[str]:
    """Return what is to be said of a PET with fewer slices than its header states (PS3.3, C.8.9.1)."""
    stated = int(number_of(frames[0].header, "NumberOfSlices") or 0)
    if len(stack.order) >= stated:
        return []
    return [
        f"has {len(stack.order)} slices, and its header says that there are {stated} (NumberOfSlices): copy it again if its end "
        "is missing"
    ]


def _implausible(array: np.ndarray) -> list[str]:
    """Return why values (X, Y, Z) cannot well be SUV, judged by every so many voxels."""
    sample = array.T.ravel()[:: max(1, array.size // 1_000_000)]
    body = sample[sample > BACKGROUND_SUV]
    return implausible(float(array.max()), float(np.median(body))) if body.size else []


def _facts(files: Sequence[Path], stack: Stack) -> dict[str, Any]:
    return {"files": len(files), "slices": len(stack.order)}


def _read(files: Sequence[Path]) -> tuple[list[Frame], Stack, list[str]]:
    """Read all frames of a series' files; and sort them."""
    frames = [frame for file in files for frame in _frames_of_file(file)]
    if not frames:
        raise InputError("has no slices: export it again")
    shapes = {frame.pixels.shape for frame in frames}
    if len(shapes) > 1:
        sizes = " and ".join(f"{height} x {width}" for height, width in sorted(shapes))
        raise InputError(f"has slices of different size ({sizes}, Rows x Columns): give one stack of slices")
    stack = stack_of([frame.header for frame in frames], [frame.name for frame in frames])
    for kept, left_out in stack.repeated:
        if not _are_equal(frames[kept], frames[left_out]):
            names = f"{frames[kept].name} and {frames[left_out].name}"
            raise InputError(f"has two different slices at one position, {names}: take one of them away, or export it again")
    number = len(stack.repeated)
    what = "a slice that is there twice: it was" if number == 1 else f"{number} slices that are there twice: they were"
    return frames, stack, [f"has {what} read once"] if number else []


def _are_equal(frame: Frame, other: Frame) -> bool:
    """Whether two frames show the same."""
    same_numbers = all(
        number_of(frame.header, name) == number_of(other.header, name) for name in ("RescaleSlope", "RescaleIntercept")
    )
    return same_numbers and np.array_equal(frame.pixels, other.pixels)


def _frames_of_file(file: Path) -> list[Frame]:
    """Read the frames of a file.

    Raises:
        InputError: the message is the end of a sentence that begins with the series.
    """
    try:
        dataset = read_dataset(file, pixels=True)
        _check_pixels(dataset, file)
        pixels = _decoded(dataset)
    except InputError as error:
        raise InputError(f"has a file {file.name} that {error}") from error
    headers = frames_of(dataset)
    if len(headers) != len(pixels):
        raise InputError(f"has a file {file.name} that holds {len(pixels)} slices and describes {len(headers)}: export it again")
    for header in headers:
        if "PixelData" in header:
            del header.PixelData
    return list(map(Frame, headers, names_of(headers, file.name), pixels))


def _check_pixels(dataset: Dataset, file: Path) -> None:
    """Check that the header does not claim more pixels than a file can hold, or others than grey ones."""
    rows, columns = (number_of(dataset, name) or 0 for name in ("Rows", "Columns"))
    if not (0 < rows <= LARGEST_SIDE and 0 < columns <= LARGEST_SIDE and 0 < number_of_frames(dataset) <= MOST_FRAMES):
        raise InputError(f"says that it has {rows:.0f} x {columns:.0f} pixels (Rows x Columns): export it again")
    if (number_of(dataset, "SamplesPerPixel") or 1) != 1:
        raise InputError("is a picture in colours: give the images as the scanner made them")
    if text_of(dataset, "PhotometricInterpretation") not in ("", "MONOCHROME2"):
        raise InputError(f"has inverted or coloured pixels ({text_of(dataset, 'PhotometricInterpretation')}): export it again")
    if "PixelData" not in dataset:
        raise InputError("holds no pixels (it may be cut off): export it again")
    # Compression makes CT and PET a few times smaller; what claims far more is not believed before memory is asked for.
    size = rows * columns * number_of_frames(dataset)
    if size > 1032 * max(1, file.stat().st_size):
        raise InputError("claims more pixels than it can hold: copy it again from where it comes")


def _decoded(dataset: Dataset) -> np.ndarray:
    """Return the stored values (frames, Y, X).

    Raises:
        InputError: the message is the end of a sentence that begins with the file's name.
    """
    try:
        # The attribute of the same name costs half as much again, for a memory of what it has decoded.
        pixels = pixel_array(dataset, view_only=True)
    except Exception as error:  # Damaged pixels make decoders raise nearly anything.
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        name = getattr(syntax, "name", "unknown")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"cannot be decoded ({name}: {reason}): copy it again, or export it uncompressed (Explicit VR Little Endian)"
        ) from error
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels[None] if pixels.ndim == 2 else pixels


def _rescaling(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope and the intercept of each frame."""
    slopes, intercepts = [], []
    for frame in frames:
        slope, intercept = (number_of(frame.header, name) for name in ("RescaleSlope", "RescaleIntercept"))
        if slope is None or intercept is None or slope == 0:
            raise InputError(
                f"does not say what its stored values mean, in {frame.name} (RescaleSlope, RescaleIntercept): export it again"
            )
        slopes.append(slope)
        intercepts.append(intercept)
    return np.array(slopes), np.array(intercepts)


def _whole_type(pixels: Sequence[np.ndarray], slopes: np.ndarray, intercepts: np.ndarray) -> np.dtype:
    """Return int16 where all HU are whole numbers that fit, as nearly always, otherwise float32."""
    if not (slopes == 1).all() or (intercepts != np.round(intercepts)).any():
        return np.dtype(np.float32)
    low = min(int(slice_.min()) + intercept for slice_, intercept in zip(pixels, intercepts, strict=True))
    high = max(int(slice_.max()) + intercept for slice_, intercept in zip(pixels, intercepts, strict=True))
    limits = np.iinfo(np.int16)
    return np.dtype(np.int16) if limits.min <= low and high <= limits.max else np.dtype(np.float32)


def _rescaled(pixels: Sequence[np.ndarray], slopes: np.ndarray, intercepts: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return slices (Y, X) as one volume (X, Y, Z) of a type, each stored value times its slope plus its intercept."""
    volume = np.empty((len(pixels), *pixels[0].shape), dtype=kind)
    for target, slice_, slope, intercept in zip(volume, pixels, slopes, intercepts, strict=True):
        if kind == np.int16 and slice_.itemsize == 2:
            # Unsigned or not, the sum fits into 16 bits, and is right whatever was carried on the way.
            np.add(slice_.view(np.int16), np.int64(intercept).astype(np.int16), out=target)
        elif kind == np.int16:
            target[...] = slice_.astype(np.int32) + np.int32(intercept)
        elif slice_.itemsize <= 2:
            # Whole numbers of 16 bits are exact in float32, which takes half the time.
            np.multiply(slice_, np.float32(slope), out=target, dtype=np.float32)
            target += np.float32(intercept)
        else:
            target[...] = slice_ * float(slope) + float(intercept)
    return volume.T


def _upright(array: np.ndarray, stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume whose slices were shifted against each other as an upright one, and its affine.

    A scanner with a tilted gantry moves the table along, not across the slices. The volume grows by what they are shifted.

    Args:
        array: (X, Y, Z) in HU.
        stack: where the slices lie.
    """
    shift = np.array(stack.shift)
    if not shift.any():
        return array, stack.affine
    offsets = np.outer(np.arange(array.shape[2]), shift)
    low, high = np.floor(offsets.min(axis=0)).astype(int), np.ceil(offsets.max(axis=0)).astype(int)
    if (high - low).max() > LARGEST_SIDE:
        raise InputError("has slices that lie metres beside each other: export it again")
    width, height = np.array(array.shape[:2]) + (high - low)
    upright = np.full((array.shape[2], height, width), AIR_HU, dtype=np.float32)
    for index, offset in enumerate(offsets - low):
        upright[index] = _shifted(array[:, :, index].T, offset, (height, width))
    affine = stack.affine
    affine[:3, 3] += affine[:3, :2] @ low
    return upright.T, affine


def _shifted(slice_: np.ndarray, offset: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a slice (Y, X) in HU in a larger one, moved by (x, y) voxels, interpolated linearly, among air."""
    whole = np.floor(offset).astype(int)
    share = offset - whole
    placed = np.full((shape[0] + 1, shape[1] + 1), AIR_HU, dtype=np.float32)
    placed[whole[1] : whole[1] + slice_.shape[0], whole[0] : whole[0] + slice_.shape[1]] = slice_
    for axis, part in ((1, share[0]), (0, share[1])):
        before = np.roll(placed, 1, axis=axis)
        placed = (1 - part) * placed + part * before if part else placed
    return placed[: shape[0], : shape[1]]
