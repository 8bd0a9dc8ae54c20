"""Parallel planes, such as the frames of a segmentation or the contours of a region, and the slices of a grid that lie nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petct_training.grids import PLACE_TOLERANCE_MM, spacing_of

# Slices of PET and CT lie no farther apart (mm). A larger gap lies between two lesions.
WIDEST_SPACING_MM = 10.0

# A gap between two planes counts as one spacing as long as no third plane would have room in it.
ONE_SPACING = 1.5

# A place at which two planes are equally near is found again in spite of rounding (share of a spacing).
TIE = 1e-6


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a PET lie.

    Attributes:
        shape: number of voxels along the array's axes X (from column to column), Y (from row to row), Z (from slice to slice).
        affine: (4, 4), from voxel indices to RAS in mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Distance (mm) of neighbouring voxels along X, Y, Z."""
        return spacing_of(self.affine)

    def __str__(self) -> str:
        return grid_words(self.shape, self.spacing)


def grid_words(shape: tuple[int, ...], spacing: np.ndarray) -> str:
    """Return a grid's size and spacing (mm) in words.

    Example:
        >>> grid_words((400, 400, 326), np.array([2.03642, 2.03642, 3]))
        '400 x 400 x 326 voxels of 2.036 x 2.036 x 3 mm'
    """
    return f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{size:.4g}' for size in spacing)} mm"


def common_spacing(offsets: np.ndarray) -> float | None:
    """Return the distance (mm) that neighbouring planes usually have; None when no distance occurs twice.

    A distance that occurs once may be the one between two lesions.

    Args:
        offsets: (N,) places (mm) of planes along their normal, ascending.

    Example:
        >>> common_spacing(np.array([0.0, 3.0, 6.1, 9.0, 60.0, 63.0])), common_spacing(np.array([0.0, 8.0]))
        (3.0, None)
    """
    gaps = np.diff(offsets)
    gaps = gaps[(gaps > PLACE_TOLERANCE_MM) & (gaps <= WIDEST_SPACING_MM)]
    smallest = gaps[gaps < ONE_SPACING * gaps.min()] if gaps.size else gaps
    return float(np.median(smallest)) if smallest.size > 1 else None


def nearest_plane(offsets: np.ndarray, places: np.ndarray, spacing: float) -> np.ndarray:
    """Return for each place the index of the plane to which it belongs; -1 where it belongs to none.

    A place belongs to the nearest plane, up to half a spacing from it, or up to the middle between it and its neighbour. Of places
    that lie exactly half a spacing away the lower one belongs to the plane, so that n planes always are n spacings thick.

    Args:
        offsets: (N,) places (mm) of the planes along their normal, ascending.
        places: any shape, along the same normal (mm).
        spacing: usual distance (mm) of neighbouring planes.

    Returns:
        An array of the shape of `places`.

    Example:
        >>> nearest_plane(np.array([0.0, 4.0, 12.0]), np.array([-3.0, -2.0, 1.0, 3.0, 7.0, 11.0, 14.0]), 4.0).tolist()
        [-1, 0, 0, 1, -1, 2, -1]
    """
    middles = (offsets[1:] + offsets[:-1]) / 2
    index = np.searchsorted(middles, places)
    has_neighbour = np.concatenate(([False], np.diff(offsets) < ONE_SPACING * spacing, [False]))
    distance = (places - offsets[index]) / spacing
    below = (distance >= -0.5 - TIE) | has_neighbour[index]
    above = (distance < 0.5 - TIE) | has_neighbour[index + 1]
    return np.where(np.where(distance < 0, below, above), index, -1)


def merged(offsets: np.ndarray, tolerance: float = PLACE_TOLERANCE_MM) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct planes: those that lie nearer (mm) than `tolerance` to the one below are one.

    Returns:
        The offset of each distinct plane, ascending, and for each of `offsets` (N,) the index of its plane.
    """
    order = np.argsort(offsets, kind="stable")
    ascending = offsets[order]
    begins = np.diff(ascending, prepend=-np.inf) > tolerance
    plane = np.empty(len(offsets), int)
    plane[order] = np.cumsum(begins) - 1
    return ascending[begins], plane
