"""A reader who corrects a mask by rules: a click or a scribble into its largest error, as in the autoPET challenges since the fourth.

An error is an 18-connected component of what a mask misses, or of what it marks and the reference does not. The largest has the
most voxels. Of errors of one size, what is missed comes first, and then the one with the first voxel in the array's order. A
missed voxel is corrected in the foreground, a false one in the background.

Example:
    reader = SimulatedReader(reference, spacing, seed=0, kinds=("click",))
    while reader.correct(answer):
        answer = study.segment(points=reader.points)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

# Voxels that share a face or an edge are neighbours, as the challenge defines lesions.
NEIGHBOURS: Final = ndimage.generate_binary_structure(3, 2)
OFFSETS: Final = np.array([offset for offset in itertools.product((-1, 0, 1), repeat=3) if 0 < np.abs(offset).sum() <= 2])

# A lesion is found by a component of a mask with this intersection over union, in the fifth challenge.
LEAST_IOU = 0.1


class Error(NamedTuple):
    """A connected part of a mask that is wrong: its voxels (X, Y, Z), bool, and whether it is missed, else it is false."""

    voxels: np.ndarray
    missed: bool


def largest_error(answer: np.ndarray, reference: np.ndarray) -> Error | None:
    """Return the largest error of a mask (X, Y, Z), or None when the mask is the reference."""
    answer, reference = answer != 0, reference != 0
    largest, size = None, 0
    for missed, wrong in ((True, reference & ~answer), (False, answer & ~reference)):
        labels, count = ndimage.label(wrong, NEIGHBOURS)
        if not count:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        if sizes.max() > size:
            largest, size = Error(labels == sizes.argmax() + 1, missed), int(sizes.max())
    return largest


def click(voxels: np.ndarray, spacing: Sequence[float], rng: np.random.Generator | None = None) -> np.ndarray:
    """Return the voxel (1, 3) of an error (X, Y, Z) that is farthest (mm) from its border; of several, the first."""
    return np.array([np.unravel_index(_depth(voxels, spacing).argmax(), voxels.shape)])


def centre_line(voxels: np.ndarray, spacing: Sequence[float], rng: np.random.Generator | None = None) -> np.ndarray:
    """Return the voxels (n, 3) of a line inside of an error (X, Y, Z), from one end to the other through its middle.

    The ends are the voxel that is farthest from the click, on ways inside of the error, and the one farthest from that. The line
    is the way between them on which the sum of length / depth is least.
    """
    places, depths = np.argwhere(voxels), _depth(voxels, spacing)[voxels]
    plain = _ways(voxels, spacing, np.ones(len(places)))
    first = int(dijkstra(plain, indices=int(depths.argmax())).argmax())
    last = int(dijkstra(plain, indices=first).argmax())
    return places[_way(_ways(voxels, spacing, depths), first, last)]


def random_line(voxels: np.ndarray, spacing: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return the voxels (n, 3) of the shortest way, inside of an error (X, Y, Z), between two of its voxels at random."""
    places = np.argwhere(voxels)
    first, last = rng.integers(len(places), size=2)
    return places[_way(_ways(voxels, spacing, np.ones(len(places))), int(first), int(last))]


def border(voxels: np.ndarray, spacing: Sequence[float], rng: np.random.Generator | None = None) -> np.ndarray:
    """Return the voxels (n, 3) along the border of an error (X, Y, Z), in the slice of the click: those of the region of the click
    of which one of four neighbours is outside.
    """
    ((x, y, z),) = click(voxels, spacing)
    labels, _ = ndimage.label(voxels[:, :, z], np.ones((3, 3)))
    region = labels == labels[x, y]
    edge = np.argwhere(region & ~ndimage.binary_erosion(region))
    return np.insert(edge, 2, z, axis=1)


# What a reader draws, by its name: a function of the error (X, Y, Z), of the spacing in mm, and of a source of chance.
KINDS: Final[dict[str, Callable[[np.ndarray, Sequence[float], np.random.Generator], np.ndarray]]] = {
    "click": click,
    "centre line": centre_line,
    "random": random_line,
    "border": border,
}
SCRIBBLES = ("centre line", "random", "border")


class SimulatedReader:
    """A reader who knows the reference of a study, and whose points add up from round to round.

    Args:
        reference: mask (X, Y, Z), not 0 inside of lesions.
        spacing: voxel size along X, Y, Z in mm.
        seed: what all chance depends on.
        kinds: names in `KINDS`, of which each round draws one at random.

    Attributes:
        points: of all rounds, as `petct_cascade.clicks.clicks_of` reads them.
    """

    def __init__(self, reference: np.ndarray, spacing: Sequence[float], seed: int = 0, kinds: Sequence[str] = ("click",)) -> None:
        self.reference, self.spacing, self.kinds = reference, tuple(spacing), tuple(kinds)
        self.rng = np.random.default_rng(seed)
        self.points: dict[str, list[list[int]]] = {"foreground": [], "background": []}

    def correct(self, answer: np.ndarray) -> list[list[int]]:
        """Add a click or a scribble in the largest error of a mask (X, Y, Z), and return its voxels; none when nothing is wrong."""
        error = largest_error(answer, self.reference)
        if error is None:
            return []
        draw = KINDS[self.kinds[self.rng.integers(len(self.kinds))]]
        drawn = draw(error.voxels, self.spacing, self.rng).tolist()
        self.points["foreground" if error.missed else "background"] += drawn
        return drawn


def round_dice(answer: np.ndarray, reference: np.ndarray) -> float:
    """Return the Dice of two masks (X, Y, Z); without lesions 1 for an empty answer, else 0, as the fifth challenge has it."""
    answer, reference = answer != 0, reference != 0
    total = np.count_nonzero(answer) + np.count_nonzero(reference)
    return float(2 * np.count_nonzero(answer & reference) / total) if total else 1.0


def round_f1(answer: np.ndarray, reference: np.ndarray) -> float:
    """Return the F1 of the lesions of two masks (X, Y, Z), 18-connected, as the fifth challenge matches them: at an intersection
    over union of at least `LEAST_IOU`.

    It is 2 T / (2 T + M + F): lesions with a match, lesions without, and components of the answer without. Without lesions it is 1
    for an empty answer, else 0.
    """
    found, count = ndimage.label(answer, NEIGHBOURS)
    lesions, total = ndimage.label(reference, NEIGHBOURS)
    if not count and not total:
        return 1.0
    both = np.bincount((found.ravel() * (total + 1) + lesions.ravel()), minlength=(count + 1) * (total + 1))
    overlap = both.reshape(count + 1, total + 1)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    matched = (overlap >= LEAST_IOU * union)[1:, 1:]
    hits, false = int(matched.any(axis=0).sum()), count - int(matched.any(axis=1).sum())
    return 2 * hits / (hits + total + false)


def lost_lesions(
    before: np.ndarray, after: np.ndarray, reference: np.ndarray, points: Sequence[Sequence[int]]
) -> tuple[int, int]:
    """Return how many lesions of a reference a round has lost: the answer before overlaps them, and the answer after does not.

    Args:
        before: answer (X, Y, Z).
        after: answer of the next round.
        reference: mask (X, Y, Z).
        points: voxels (x, y, z) of that round's click or scribble.

    Returns:
        Those that a component of the answer before overlaps which holds one of the points or is its neighbour; and all others.
    """
    lesions, _ = ndimage.label(reference, NEIGHBOURS)
    components, _ = ndimage.label(before, NEIGHBOURS)
    gone = np.setdiff1d(lesions[components > 0], [0, *np.unique(lesions[after != 0])])
    drawn = np.zeros(np.shape(before), bool)
    drawn[tuple(np.reshape(points, (-1, 3)).astype(int).T)] = True
    near = np.setdiff1d(components[ndimage.binary_dilation(drawn, NEIGHBOURS)], [0])
    touched = np.intersect1d(gone, lesions[np.isin(components, near)])
    return len(touched), len(gone) - len(touched)


def area(scores: Sequence[float]) -> float:
    """Return the area under the scores of rounds, by the trapezoidal rule, as a share of that of a score of 1."""
    values = np.asarray(scores, dtype=float)
    return float((values[1:] + values[:-1]).mean() / 2)


def _depth(voxels: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return how far (mm) each voxel of an error (X, Y, Z) is from what is outside; beyond the array all is."""
    padded = np.pad(voxels, 1)
    return ndimage.distance_transform_edt(padded, sampling=tuple(map(float, spacing)))[1:-1, 1:-1, 1:-1]


def _ways(voxels: np.ndarray, spacing: Sequence[float], ease: np.ndarray) -> csr_matrix:
    """Return the graph (n, n) of the n voxels of an error (X, Y, Z): an edge of two neighbours is as long as they lie apart (mm),
    divided by the lesser of their eases (n,).
    """
    places = np.argwhere(voxels)
    numbers = np.full(np.add(voxels.shape, 2), -1)
    numbers[tuple((places + 1).T)] = np.arange(len(places))
    edges = []
    for offset in OFFSETS:
        others = numbers[tuple((places + 1 + offset).T)]
        start = np.flatnonzero(others >= 0)
        stop = others[start]
        edges.append((np.linalg.norm(offset * np.asarray(spacing)) / np.minimum(ease[start], ease[stop]), start, stop))
    lengths, starts, stops = (np.concatenate(part) for part in zip(*edges, strict=True))
    return csr_matrix((lengths, (starts, stops)), shape=(len(places), len(places)))


def _way(graph: csr_matrix, first: int, last: int) -> list[int]:
    """Return the voxels, by number, of the shortest way in a graph from one to another."""
    _, before = dijkstra(graph, indices=first, return_predecessors=True)
    way = [last]
    while way[-1] != first:
        way.append(int(before[way[-1]]))
    return way[::-1]
