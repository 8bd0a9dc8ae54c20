"""Where the slices of a DICOM series lie in space: their order, their spacing, and the affine of the volume that they are.

DICOM's world is LPS: x runs to the patient's left, y to the back, z to the head (PS3.3, C.7.6.2). Affines here are RAS, as in
NIfTI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from petct_cascade.dicom.values import number_of, numbers_of, text_of
from petct_training.errors import InputError
from petct_training.grids import PLACE_TOLERANCE_MM

# By what coordinates in LPS are multiplied to be in RAS, and the other way round.
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])

# Slices whose positions (mm) differ by less lie at one position; no scanner makes thinner ones.
SAME_POSITION_MM = 0.01

# How far a distance between slices may be from the median one, as a share of it: headers round their numbers.
SPACING_TOLERANCE = 0.05

# Direction cosines that differ by less are one: headers round them to four or more digits.
COSINE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Stack:
    """The slices of a series in the order of their positions.

    Attributes:
        order: the index of each slice among the frames that were given; of slices at one position the first.
        repeated: pairs of indices (kept, left out) of frames at one position.
        axes: (3, 3), the unit vectors of a slice's row, its column, and its normal, as columns, LPS.
        origin: (3,), position (mm, LPS) of the first slice's first voxel.
        step: (3,), from one slice to the next, mm, LPS; it is no normal where the gantry was tilted.
        pixel: distance (mm) of neighbours along a row and along a column.
    """

    order: list[int]
    repeated: list[tuple[int, int]]
    axes: np.ndarray
    origin: np.ndarray
    step: np.ndarray
    pixel: tuple[float, float]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), from (column, row, slice) to RAS in mm, of upright slices: the step's part along the normal counts."""
        along_normal = self.axes[:, 2] * (self.step @ self.axes[:, 2])
        affine = np.eye(4)
        affine[:3, :3] = LPS_TO_RAS[:, None] * np.column_stack(
            (self.axes[:, 0] * self.pixel[0], self.axes[:, 1] * self.pixel[1], along_normal)
        )
        affine[:3, 3] = LPS_TO_RAS * self.origin
        return affine

    @property
    def shift(self) -> tuple[float, float]:
        """How far each slice lies beside the one before, in voxels along a row and along a column; zero without a tilt."""
        along_row, along_column = (float(self.step @ self.axes[:, axis]) for axis in (0, 1))
        whole = max(abs(along_row), abs(along_column)) * max(1, len(self.order) - 1)
        if whole <= PLACE_TOLERANCE_MM:
            return 0.0, 0.0
        return along_row / self.pixel[0], along_column / self.pixel[1]


def stack_of(frames: Sequence[Dataset], names: Sequence[str]) -> Stack:
    """Sort the slices of a series by their positions, and see that they make a volume.

    Args:
        frames: the header of each slice.
        names: what each slice is called in a sentence.

    Raises:
        InputError: when they do not; the message is the end of a sentence that begins with the series.
    """
    axes = _axes_of(frames, names)
    pixel = _pixel_of(frames, names)
    positions = np.array([_position_of(frame, name) for frame, name in zip(frames, names, strict=True)])
    heights = positions @ axes[:, 2]
    order, repeated = _without_repeated(np.argsort(heights, kind="stable"), heights)
    if len(order) < 2:
        raise InputError("is a single slice: give the whole series")
    _check_heights(heights[order], [names[index] for index in order])
    places = positions[order]
    step = (places[-1] - places[0]) / (len(order) - 1)
    straight = places[0] + step * np.arange(len(order))[:, None]
    beside = np.linalg.norm((places - straight) - np.outer((places - straight) @ axes[:, 2], axes[:, 2]), axis=1)
    if beside.max() > max(PLACE_TOLERANCE_MM, 0.1 * min(pixel)):
        name = names[order[int(beside.argmax())]]
        raise InputError(f"has slices that do not lie in a row, such as {name}, {beside.max():.1f} mm aside: export it again")
    return Stack(order, repeated, axes, places[0], step, pixel)


def _axes_of(frames: Sequence[Dataset], names: Sequence[str]) -> np.ndarray:
    """Return the unit vectors of rows, columns and normal as columns (3, 3), which all slices must share."""
    stated = [numbers_of(frame, "ImageOrientationPatient", 6) for frame in frames]
    for orientation, name in zip(stated, names, strict=True):
        if orientation is None:
            raise InputError(f"does not say how its slices are turned (ImageOrientationPatient of {name}): export it again")
    orientations = np.array(stated, dtype=float)
    row, column = orientations[0, :3], orientations[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise InputError(
            f"has rows and columns that are not at right angles (ImageOrientationPatient of {names[0]}): export it again"
        )
    apart = np.abs(orientations - orientations[0]).max(axis=1)
    if apart.max() > COSINE_TOLERANCE:
        raise InputError(
            f"has slices that are turned against each other, such as {names[int(apart.argmax())]}: give one stack of slices"
        )
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    return np.column_stack((row, column, normal / np.linalg.norm(normal)))


def _pixel_of(frames: Sequence[Dataset], names: Sequence[str]) -> tuple[float, float]:
    """Return the distances (mm) of neighbours along a row and along a column, which all slices must share."""
    spacings = [numbers_of(frame, "PixelSpacing", 2) for frame in frames]
    for spacing, name in zip(spacings, names, strict=True):
        if spacing is None or min(spacing) <= 0:
            raise InputError(f"does not say how large its pixels are (PixelSpacing of {name}): export it again")
    stated = np.array(spacings, dtype=float)
    apart = ~np.isclose(stated, stated[0], rtol=1e-3).all(axis=1)
    if apart.any():
        raise InputError(
            f"has slices with pixels of different size, such as {names[int(apart.argmax())]}: give one stack of slices"
        )
    first = stated[0].tolist()
    # DICOM names the distance of rows first.
    return first[1], first[0]


def _position_of(frame: Dataset, name: str) -> tuple[float, ...]:
    """Return the position (mm, LPS) of a slice's first voxel."""
    position = numbers_of(frame, "ImagePositionPatient", 3)
    if position is None or max(abs(number) for number in position) > 1e5:
        raise InputError(f"has a slice whose position makes no sense (ImagePositionPatient of {name}): export it again")
    return position


def _without_repeated(order: np.ndarray, heights: np.ndarray) -> tuple[list[int], list[tuple[int, int]]]:
    """Separate the first slice at each position from further ones there."""
    kept: list[int] = []
    repeated: list[tuple[int, int]] = []
    for index in order.tolist():
        if kept and heights[index] - heights[kept[-1]] < SAME_POSITION_MM:
            repeated.append((kept[-1], index))
        else:
            kept.append(index)
    return kept, repeated


def _check_heights(heights: np.ndarray, names: Sequence[str]) -> None:
    """Check that slices with these positions along the normal (mm, sorted) are evenly spaced."""
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    off = np.abs(gaps - usual)
    # Whatever each distance is, the slices must also lie where even ones would.
    even = np.linspace(heights[0], heights[-1], len(heights))
    if (
        off.max() <= SPACING_TOLERANCE * usual + SAME_POSITION_MM
        and np.abs(heights - even).max() <= 2 * SPACING_TOLERANCE * usual
    ):
        return
    index = int(off.argmax())
    number = gaps[index] / usual
    between = f"between {names[index]} and {names[index + 1]}"
    if number > 1.5 and abs(number - round(number)) < 2 * SPACING_TOLERANCE * number:
        missing = round(number) - 1
        what = "a slice is" if missing == 1 else f"{missing} slices are"
        raise InputError(f"has a gap: {what} missing {between}: export it again with all slices")
    raise InputError(
        f"has unevenly spaced slices: {gaps[index]:.4g} mm {between}, and {usual:.4g} mm elsewhere: export it again with even ones"
    )


def names_of(frames: Sequence[Dataset], file_name: str) -> list[str]:
    """Return what the slices of a file are called in a sentence: by the file, the number and the position.

    The number is that of the slice, or, where the file holds several, that of the frame, as DICOM counts them.
    """
    if len(frames) > 1:
        return [_name_of(frame, file_name, f"frame {number}") for number, frame in enumerate(frames, 1)]
    instances = [number_of(frame, "InstanceNumber") for frame in frames]
    return [
        _name_of(frame, file_name, f"slice {'?' if number is None else int(number)}")
        for frame, number in zip(frames, instances, strict=True)
    ]


def _name_of(frame: Dataset, file_name: str, number: str) -> str:
    position = numbers_of(frame, "ImagePositionPatient", 3)
    place = "" if position is None else f", z = {position[2]:.1f} mm"
    return f"{file_name} ({number}{place})" if text_of(frame, "SOPClassUID") else file_name
