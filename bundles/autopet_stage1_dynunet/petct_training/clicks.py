"""Clicks of a person in a PET: how far they reach, and how they correct a mask. Whatever uses clicks uses these functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petct_training.components import labelled_components
from petct_training.grids import bounding_box

# What a row of marks, or a voxel of a map of marks, says: it was clicked on as a lesion, clicked on as none, or is reached by a
# click on a lesion.
FOREGROUND, BACKGROUND, REACHED = 1, 2, 3


@dataclass(frozen=True)
class Reach:
    """How far a click reaches; see `reached_by`.

    Attributes:
        radius_mm: the farthest voxel's distance (mm).
        share: the least uptake, as a share of the peak's. 0.41 is the threshold of the read-outs at 41 %.
    """

    radius_mm: float = 15.0
    share: float = 0.41


def reached_by(point: Sequence[int], pet: np.ndarray, spacing: Sequence[float] | np.ndarray, reach: Reach) -> np.ndarray:
    """Return the voxels that a click reaches: the connected uptake around it.

    From the click, the peak is found by climbing: from a voxel to the highest of its 26 neighbours, as long as one is higher.
    Reached is what is 18-connected with the click among the voxels with at least `share` of the peak's uptake. Both stay within
    `radius_mm` of the click. The clicked voxel is always reached; without positive uptake it is the only one.

    Args:
        point: the clicked voxel (x, y, z).
        pet: (X, Y, Z) in SUV.
        spacing: voxel size along X, Y, Z in mm.
        reach: the bounds.

    Returns:
        Voxel indices (n, 3).
    """
    centre, steps = np.asarray(point), np.asarray(spacing, dtype=float)
    low, high = _bounds(centre[None], pet.shape, spacing, reach)
    uptake = np.asarray(pet[tuple(map(slice, low, high))], dtype=np.float32)
    own = tuple(centre - low)
    offsets = [(np.arange(length) - at) * step for length, at, step in zip(uptake.shape, own, steps, strict=True)]
    x, y, z = np.ix_(*offsets)
    near = x**2 + y**2 + z**2 <= reach.radius_mm**2
    near[own] = True
    peak = _peak(np.where(near, uptake, -np.inf), own)
    if peak <= 0:
        return centre[None]
    reached = near & (uptake >= reach.share * peak)
    reached[own] = True
    labels, _ = labelled_components(reached)
    return np.argwhere(labels == labels[own]) + low


def marks_of(
    foreground: np.ndarray, background: np.ndarray, pet: np.ndarray, spacing: Sequence[float] | np.ndarray, reach: Reach
) -> np.ndarray:
    """Return what clicks say of the voxels of a PET: the encoding of clicks.

    What clicks on lesions and clicks on what is none both reach belongs to the nearer click (mm).

    Args:
        foreground: voxels (n, 3) that were clicked on as lesions.
        background: voxels (m, 3) that were clicked on as none; none of them is in the foreground, too.
        pet: (X, Y, Z) in SUV.
        spacing: voxel size along X, Y, Z in mm.
        reach: how far a click reaches.

    Returns:
        Rows (k, 4) of a mark and a voxel [mark, x, y, z], each voxel once; marks are `FOREGROUND`, `BACKGROUND` and `REACHED`.
    """
    lesion, other = (_reached_by_any(points, pet, spacing, reach) for points in (foreground, background))
    if len(foreground) and len(background):
        shared = _is_among(lesion, other, pet.shape)
        nearer = _distances(lesion[shared], foreground, spacing) <= _distances(lesion[shared], background, spacing)
        keep = ~shared
        keep[shared] = nearer
        lesion = lesion[keep]
    reached = lesion[~_is_among(lesion, np.concatenate([foreground, background]).reshape(-1, 3), pet.shape)]
    rows = [(FOREGROUND, np.unique(foreground, axis=0)), (BACKGROUND, np.unique(background, axis=0)), (REACHED, reached)]
    return np.concatenate([np.insert(voxels.reshape(-1, 3), 0, mark, axis=1) for mark, voxels in rows]).astype(np.int64)


def corrected(mask: np.ndarray, marks: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return a mask that agrees with clicks: each voxel of the foreground is in it, none of the background is.

    - A component (18 neighbours) in which the background was clicked on goes. Where the foreground was clicked on in it, too, only
      those of its voxels go that lie nearer (mm) to a click on the background.
    - A click on the foreground outside of the mask adds what it reaches, together with what other clicks reach that hang together
      with it.

    All else stays as it is.

    Args:
        mask: (X, Y, Z), not 0 inside of lesions.
        marks: rows (k, 4) of `marks_of`.
        spacing: voxel size along X, Y, Z in mm.

    Returns:
        The mask (X, Y, Z), bool, a new array.
    """
    result = mask != 0
    foreground, background = (marks[marks[:, 0] == mark, 1:] for mark in (FOREGROUND, BACKGROUND))
    _remove(result, foreground, background, spacing)
    if not result[tuple(foreground.T)].all():
        _add(result, foreground, marks[marks[:, 0] != BACKGROUND, 1:])
    return result


def corrected_locally(
    mask: np.ndarray, before: np.ndarray, marks: np.ndarray, spacing: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return a mask that agrees with clicks, as `corrected` does, and elsewhere is the mask that was there before.

    Touched is what holds a mark, be it a click or what a click reaches. Of the mask, only that is taken which hangs together (18
    neighbours) with something touched, through either mask or the marks. Each component of the mask before that is not touched
    stays, voxel by voxel.

    Args:
        mask: (X, Y, Z), not 0 inside of lesions: the new answer.
        before: (X, Y, Z), the same: what the clicks were put into.
        marks: rows (k, 4) of `marks_of`.
        spacing: voxel size along X, Y, Z in mm.

    Returns:
        The mask (X, Y, Z), bool, a new array.
    """
    answer, old = mask != 0, before != 0
    near = _touched(answer | old | (map_of(marks, mask.shape) != 0), marks)
    return corrected(answer & near, marks, spacing) | (old & ~_touched(old, marks))


def map_of(marks: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return rows of marks as a map (X, Y, Z), uint8, with 0 where there is none."""
    volume = np.zeros(tuple(shape), np.uint8)
    volume[tuple(marks[:, 1:].T)] = marks[:, 0]
    return volume


def marks_in(volume: np.ndarray) -> np.ndarray:
    """Return the rows of marks (k, 4) of a map (X, Y, Z)."""
    voxels = np.argwhere(volume)
    return np.insert(voxels, 0, volume[tuple(voxels.T)], axis=1).astype(np.int64)


def _reached_by_any(points: np.ndarray, pet: np.ndarray, spacing: Sequence[float] | np.ndarray, reach: Reach) -> np.ndarray:
    """Return the voxels (k, 3), sorted, each once, that clicks (n, 3) reach."""
    if not len(points):
        return np.zeros((0, 3), int)
    low, high = _bounds(points, pet.shape, spacing, reach)
    # The clicks of a scribble reach nearly the same voxels: a map holds them once, however many there are.
    reached = np.zeros(high - low, bool)
    for point in points:
        reached[tuple((reached_by(point, pet, spacing, reach) - low).T)] = True
    return np.argwhere(reached) + low


def _bounds(
    points: np.ndarray, shape: Sequence[int], spacing: Sequence[float] | np.ndarray, reach: Reach
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first voxel (3,), and the one after the last, of the box of all that clicks (n, 3) could reach."""
    size = (reach.radius_mm / np.asarray(spacing, dtype=float)).astype(int)
    return np.maximum(points.min(axis=0) - size, 0), np.minimum(points.max(axis=0) + size + 1, shape)


def _peak(uptake: np.ndarray, start: tuple[int, ...]) -> float:
    """Return the uptake of the peak to which one climbs from a voxel of (X, Y, Z)."""
    at = start
    while True:
        low = [max(index - 1, 0) for index in at]
        around = uptake[tuple(slice(first, index + 2) for first, index in zip(low, at, strict=True))]
        highest = np.unravel_index(int(around.argmax()), around.shape)
        if not around[highest] > uptake[at]:
            return float(uptake[at])
        at = tuple(first + int(step) for first, step in zip(low, highest, strict=True))


def _remove(mask: np.ndarray, foreground: np.ndarray, background: np.ndarray, spacing: Sequence[float] | np.ndarray) -> None:
    """Take out of a mask the components in which the background was clicked on, or their parts that are nearer to such a click."""
    touching = background[mask[tuple(background.T)]]
    box = bounding_box(mask) if len(touching) else None
    if box is None:
        return
    start = [part.start for part in box]
    labels, _ = labelled_components(mask[box])
    wanted = foreground[mask[tuple(foreground.T)]]
    kept_labels, gone_labels = (labels[tuple((points - start).T)] for points in (wanted, touching))
    for label in np.unique(gone_labels):
        voxels = np.argwhere(labels == label) + start
        ours = wanted[kept_labels == label]
        if len(ours):
            others = touching[gone_labels == label]
            voxels = voxels[_distances(voxels, ours, spacing) > _distances(voxels, others, spacing)]
        mask[tuple(voxels.T)] = False


def _add(mask: np.ndarray, foreground: np.ndarray, reached: np.ndarray) -> None:
    """Add to a mask each connected part of what the foreground's clicks reach in which a click lies outside of the mask."""
    start = reached.min(axis=0)
    volume = np.zeros(reached.max(axis=0) - start + 1, bool)
    volume[tuple((reached - start).T)] = True
    labels, _ = labelled_components(volume)
    missing = foreground[~mask[tuple(foreground.T)]]
    parts = np.unique(labels[tuple((missing - start).T)])
    mask[tuple(reached[np.isin(labels[tuple((reached - start).T)], parts)].T)] = True


def _touched(mask: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return the components of a mask (X, Y, Z) that hold a mark, bool."""
    labels, number = labelled_components(mask)
    touched = np.zeros(number + 1, bool)
    touched[labels[tuple(marks[:, 1:].T)]] = True
    touched[0] = False
    return touched[labels]


def _is_among(voxels: np.ndarray, others: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return which of the voxels (n, 3) are among others (m, 3) of a volume of this shape."""
    flat, known = (np.ravel_multi_index(tuple(indices.T), tuple(shape)) for indices in (voxels, others))
    return np.isin(flat, known)


def _distances(voxels: np.ndarray, points: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the squared distance (mm) of each voxel (n, 3) to the nearest of points (m, 3)."""
    places, steps = voxels * np.asarray(spacing, dtype=float), np.asarray(spacing, dtype=float)
    nearest = np.full(len(voxels), np.inf)
    for point in points * steps:
        np.minimum(nearest, ((places - point) ** 2).sum(axis=1), out=nearest)
    return nearest
