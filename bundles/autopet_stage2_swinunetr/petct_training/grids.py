"""Grids of voxels in space: affines, spacings, bounding boxes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import SpatialImage

from petct_training.errors import InputError


def open_volume(file: str | os.PathLike) -> SpatialImage:
    """Open a file of a volume, of which only the header is read until its voxels are asked for."""
    return cast(SpatialImage, nib.load(file))


def voxel_volume_ml(spacing: Sequence[float]) -> float:
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


# How far apart (mm) the corners of two grids may lie that count as one: headers round their numbers.
PLACE_TOLERANCE_MM = 0.1


def corner_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance (mm) between the same corner voxels of two volumes of one shape (X, Y, Z) with two affines (4, 4)."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    difference = np.asarray(affine, float) - np.asarray(other, float)
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def las_spacing(affine: np.ndarray) -> list[float]:
    """Return the voxel spacing (mm) that an image with this affine (4, 4) has along its axes once it is turned to LAS.

    Example:
        >>> las_spacing(np.array([[0, 0, 3.0, 0], [2.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]]))
        [3.0, 2.0, 1.5]
    """
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LAS"))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    result = [0.0, 0.0, 0.0]
    for axis, (target, _) in enumerate(turn):
        result[int(target)] = float(spacing[axis])
    return result
