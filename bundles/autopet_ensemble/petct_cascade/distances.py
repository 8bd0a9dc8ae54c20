"""The largest distance between points, and between the voxels of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def largest_distance(points: np.ndarray) -> float:
    """Return the largest distance between any two of n points (n, 3).

    A mask of noise has a hundred thousand lesions, too many to compare all with all. No point is further from another than from
    the furthest corner of the box around all, so that those need no comparison for which this is less than a distance already
    found.
    """
    largest, start = 0.0, points[0]
    for _ in range(3):
        distances = np.linalg.norm(points - start, axis=1)
        largest, start = max(largest, float(distances.max())), points[distances.argmax()]
    corners = np.stack(np.meshgrid(*zip(points.min(axis=0), points.max(axis=0), strict=True), indexing="ij"), -1).reshape(-1, 3)
    reach = np.max([np.linalg.norm(points - corner, axis=1) for corner in corners], axis=0)
    candidates = points[reach >= largest]
    return max((float(np.linalg.norm(candidates - point, axis=1).max()) for point in candidates), default=largest)


def largest_voxel_distance(mask: np.ndarray, affine: np.ndarray) -> float:
    """Return the largest distance (mm) between the centres of any two voxels of a mask.

    The distance from a given point is a convex function of the place. So both voxels are corners of the convex hull of the mask,
    and of that of each slice in which they lie. The hulls of slices along each axis in turn leave a few thousand of a million
    voxels.

    Args:
        mask: (X, Y, Z), bool, with at least one voxel.
        affine: (4, 4), from voxel indices to mm.
    """
    voxels = _ends_of_rows(mask)
    for axis in (2, 1, 0):
        voxels = _corners_of_slices(voxels, axis)
    return largest_distance(voxels @ affine[:3, :3].T)


def _ends_of_rows(mask: np.ndarray) -> np.ndarray:
    """Return the first and the last voxel (n, 3) of each row of a mask along its first axis."""
    y, z = np.nonzero(mask.any(axis=0))
    rows = mask[:, y, z]
    first, last = rows.argmax(axis=0), len(mask) - 1 - rows[::-1].argmax(axis=0)
    return np.concatenate([np.stack([x, y, z], axis=1) for x in (first, last)])


def _corners_of_slices(voxels: np.ndarray, axis: int) -> np.ndarray:
    """Return those of n voxels (n, 3) that are corners of the convex hull of their slice along an axis."""
    others = [other for other in range(3) if other != axis]
    order = np.lexsort((voxels[:, others[1]], voxels[:, others[0]], voxels[:, axis]))
    voxels = voxels[order]
    starts = np.flatnonzero(np.diff(voxels[:, axis], prepend=voxels[0, axis] - 1))
    corners: list[int] = []
    for start, stop in zip(starts, [*starts[1:], len(voxels)], strict=True):
        places = voxels[start:stop][:, others].tolist()
        kept = {*_half_hull(places, range(len(places))), *_half_hull(places, range(len(places) - 1, -1, -1))}
        corners += [int(start) + index for index in sorted(kept)]
    return voxels[corners]


def _half_hull(places: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Return the indices of one side of the convex hull of places in a plane, which are sorted (Andrew's monotone chain)."""
    hull: list[int] = []
    for index in order:
        x, y = places[index]
        while len(hull) > 1:
            (x0, y0), (x1, y1) = places[hull[-2]], places[hull[-1]]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            hull.pop()
        hull.append(index)
    return hull
