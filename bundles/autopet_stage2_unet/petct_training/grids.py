"""Grids of voxels in space: affines, spacings, boxes.

An affine (4, 4) leads from voxel indices to the world, in mm along left to right, back to front, feet to head (RAS, as in NIfTI).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import io_orientation
from nibabel.spatialimages import SpatialImage

from petct_training.errors import InputError

# How far apart (mm) the corners of two grids may lie that count as one: headers round their numbers.
PLACE_TOLERANCE_MM = 0.1


def open_volume(file: str | os.PathLike) -> SpatialImage:
    """Open a file of a volume, of which only the header is read until its voxels are asked for."""
    return cast(SpatialImage, nib.load(file))


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Return the distance (mm) of neighbouring voxels along each axis of an array with this affine (4, 4).

    Example:
        >>> spacing_of(np.diag([-2.0, 2.0, 3.0, 1.0])).tolist()
        [2.0, 2.0, 3.0]
    """
    return voxel_sizes(np.asarray(affine, dtype=float))


def las_spacing(affine: np.ndarray) -> list[float]:
    """Return the voxel spacing (mm) that an image with this affine (4, 4) has along its axes once it is turned to LAS.

    Example:
        >>> las_spacing(np.array([[0, 0, 3.0, 0], [2.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]]))
        [3.0, 2.0, 1.5]
    """
    axis_of_world = np.argsort(io_orientation(affine)[:, 0])
    return [float(size) for size in spacing_of(affine)[axis_of_world]]


def as_affine(grid: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return an affine (4, 4) as it is, or make one of three voxel sizes (mm), with its origin in the first voxel.

    Example:
        >>> as_affine([2, 2, 3]).tolist()
        [[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    values = np.asarray(grid, dtype=float)
    return np.diag([*values, 1.0]) if values.shape == (3,) else values


def affine_of_part(affine: np.ndarray, start: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the affine (4, 4) of a part of a volume that begins at the voxel `start` (X, Y, Z).

    Example:
        >>> affine_of_part(np.diag([2.0, 2.0, 3.0, 1.0]), [10, 0, 1])[:3, 3].tolist()
        [20.0, 0.0, 3.0]
    """
    part = np.array(affine, dtype=float)
    part[:3, 3] += part[:3, :3] @ np.asarray(start)
    return part


def voxel_volume_ml(spacing: Sequence[float] | np.ndarray) -> float:
    """Return the volume of one voxel in ml, from its size along X, Y, Z in mm.

    Raises:
        InputError: `spacing` is not three positive numbers.
    """
    values = [float(value) for value in spacing]
    if len(values) != 3 or not all(math.isfinite(value) and value > 0 for value in values):
        raise InputError(f"the spacing is {values}: give three positive numbers, in mm.")
    return math.prod(values) / 1000


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Return the smallest box that holds all true voxels of a mask (X, Y, Z), or None for an empty mask."""
    box: list[slice] = [slice(None)] * 3
    # The slowest axis in memory comes first: its projection reads the array in order, and the crop spares the other two work.
    for axis in sorted(range(3), key=lambda axis: -abs(mask.strides[axis])):
        view = mask[tuple(box)]
        occupied = np.flatnonzero(view.any(axis=tuple(other for other in range(3) if other != axis)))
        if not occupied.size:
            return None
        box[axis] = slice(int(occupied[0]), int(occupied[-1]) + 1)
    return box[0], box[1], box[2]


def corner_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance (mm) between the same corner voxels of two volumes of one shape (X, Y, Z) with two affines
    (4, 4).
    """
    corners = _unit_corners() * (np.array(shape) - 1)
    difference = np.asarray(affine, dtype=float) - np.asarray(other, dtype=float)
    return float(np.linalg.norm(apply_affine(difference, corners), axis=1).max())


def extent(shape: Sequence[int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper end (mm) of a volume (X, Y, Z) along the world's axes, counted to its outer voxels' outer
    faces.

    Example:
        >>> low, high = extent([10, 10, 10], np.diag([2.0, 2.0, 3.0, 1.0]))
        >>> low.tolist(), high.tolist()
        ([-1.0, -1.0, -1.5], [19.0, 19.0, 28.5])
    """
    corners = apply_affine(affine, _unit_corners() * np.array(shape) - 0.5)
    return corners.min(axis=0), corners.max(axis=0)


def _unit_corners() -> np.ndarray:
    """Return the eight corners (8, 3) of a cube from 0 to 1."""
    return np.array([*np.ndindex(2, 2, 2)])
