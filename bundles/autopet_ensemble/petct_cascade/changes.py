"""What a person has changed: the lesions of an answer beside those of the mask that it was made from."""

from __future__ import annotations

from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from petct_cascade.readouts import AXES
from petct_training.components import labelled_components
from petct_training.grids import bounding_box, spacing_of, voxel_volume_ml

ADDED, REMOVED, RESHAPED = "added", "removed", "reshaped"

# Of each column of a study its meaning.
STUDY_DEFINITIONS = {
    "lesions_added": "lesions of the mask that its coarse mask does not have",
    "lesions_removed": "lesions of the coarse mask that the mask does not have",
    "lesions_reshaped": "lesions of both that are not the same voxels",
    "volume_before_ml": "volume of all lesions of the coarse mask, stage 1's or the one that was given",
}
CHANGE_DEFINITIONS = {
    "change": "of a lesion of the coarse mask or of the mask; where several hang together in the two, they are one",
    "volume_before_ml": "volume in the coarse mask",
    "volume_after_ml": "volume in the mask",
    **{f"centroid_{axis}_mm": f"mean {axis} of the voxel centres in both masks; {direction}" for axis, direction in AXES.items()},
}


def changes(before: np.ndarray, after: np.ndarray, affine: np.ndarray) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how the lesions of two masks of a study differ.

    A lesion is an 18-connected component of both masks together. It was added where only the later mask has voxels of it, removed
    where only the earlier one has, and reshaped where both have, and not the same ones.

    Args:
        before: mask (X, Y, Z), not 0 inside of lesions.
        after: the same, later.
        affine: (4, 4) of both.

    Returns:
        The entries of `STUDY_DEFINITIONS`; and of each lesion that differs those of `CHANGE_DEFINITIONS`, the largest difference of
        volume first.
    """
    before, after = before != 0, after != 0
    voxel_ml = voxel_volume_ml(spacing_of(affine))
    rows = _rows(before, after, affine, voxel_ml)
    counts = {f"lesions_{change}": sum(row["change"] == change for row in rows) for change in (ADDED, REMOVED, RESHAPED)}
    return {**counts, "volume_before_ml": int(np.count_nonzero(before)) * voxel_ml}, rows


def _rows(before: np.ndarray, after: np.ndarray, affine: np.ndarray, voxel_ml: float) -> list[dict[str, Any]]:
    box = bounding_box(before | after)
    if box is None:
        return []
    earlier, later = before[box], after[box]
    labels, count = labelled_components(earlier | later)
    numbers = (np.bincount(labels[mask], minlength=count + 1) for mask in (earlier, later, earlier != later))
    voxels = np.bincount(labels.reshape(-1), minlength=count + 1)
    places = np.nonzero(labels)
    sums = [np.bincount(labels[places], axis + part.start, count + 1) for axis, part in zip(places, box, strict=True)]
    rows = []
    for label, (first, last, different) in enumerate(zip(*numbers, strict=True)):
        if label and different:
            change = ADDED if not first else REMOVED if not last else RESHAPED
            centre = apply_affine(affine, np.array([total[label] for total in sums]) / voxels[label])
            place = {f"centroid_{axis}_mm": float(value) for axis, value in zip("xyz", centre, strict=True)}
            rows.append(
                {"change": change, "volume_before_ml": int(first) * voxel_ml, "volume_after_ml": int(last) * voxel_ml, **place}
            )
    return sorted(rows, key=lambda row: -abs(row["volume_after_ml"] - row["volume_before_ml"]))
