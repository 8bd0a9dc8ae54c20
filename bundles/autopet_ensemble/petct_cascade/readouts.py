"""The read-outs that PET/CT users expect of a study and of each of its lesions, written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petct_cascade.metrics import lesions_by_size
from petct_training.errors import InputError
from petct_training.files import write_json, write_text
from petct_training.grids import as_affine, bounding_box, spacing_of, voxel_volume_ml

# A sphere of this radius has 1 ml: (3 / (4 pi) * 1000 mm3) ^ (1/3) = 6.2035 mm.
PEAK_RADIUS_MM = (3 / (4 * math.pi) * 1000) ** (1 / 3)

# A mask that fills the body has tens of millions of voxels, and each takes a hundred bytes while it is worked on.
VOXELS_AT_ONCE = 1_000_000

STUDY_COLUMNS = ("tmtv_ml", "tlg_g", "suv_max", "suv_mean", "suv_peak", "lesions", "dmax_mm")

LESION_COLUMNS = (
    "lesion", "volume_ml", "suv_max", "suv_mean", "suv_peak", "tlg_g", "centroid_x_mm", "centroid_y_mm", "centroid_z_mm",
)  # fmt: skip


def study_readouts(
    mask: np.ndarray, pet: np.ndarray, affine: np.ndarray | Sequence[float], uncertainty: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the read-outs of a study: total tumour burden and uptake, and the same of each lesion.

    A lesion is an 18-connected component of the mask, as in the challenge's metrics. Which voxels are tumour is the mask's
    decision: no SUV threshold is applied. SUV is by body weight, in g/ml.

    - Volume (ml): number of voxels times voxel volume. TMTV, the total metabolic tumour volume, is the sum over lesions
      (Barrington and Meignan, J Nucl Med 2019;60:1096).
    - TLG (g), total lesion glycolysis: SUVmean times volume, summed over lesions (Larson et al., Clin Positron Imaging 1999;2:159).
      The name is from FDG; for PSMA the same product is the total lesion PSMA.
    - SUVmax, SUVmean: highest value and mean over the lesion's voxels; of the study, over all lesions' voxels.
    - SUVpeak: the highest mean in a sphere of 1 ml (radius 6.2 mm) whose centre is the centre of a voxel of the lesion (Wahl et
      al., PERCIST 1.0, J Nucl Med 2009;50 Suppl 1:122S; "global intensity peak" of the image biomarker standardisation initiative,
      Zwanenburg et al., Radiology 2020;295:328). The sphere may reach out of the lesion; a voxel that it cuts counts with the
      part of its volume inside the sphere; what lies outside of the image is left out. Of the study: the highest of its lesions.
    - Dmax (mm): distance between the centroids of the two lesions furthest apart (Cottereau et al., Ann Oncol 2021;32:404).
      0 with one lesion.
    - Centroid (mm): mean position of the lesion's voxel centres, each voxel weighing the same.

    Args:
        mask: lesions (X, Y, Z), integer or bool.
        pet: body-weight SUV (X, Y, Z) on the same grid.
        affine: (4, 4) matrix from voxels to world mm (RAS, as in NIfTI); or the voxel size along X, Y, Z in mm, and centroids
            are counted from the centre of the first voxel.
        uncertainty: disagreement of the ensemble's members, as the standard deviation of their probabilities (X, Y, Z).

    Returns:
        "study": `STUDY_COLUMNS`; without lesions volumes, TLG and count are 0 and the others NaN.
        "lesions": per lesion `LESION_COLUMNS`, the largest first, numbered from 1; with `uncertainty` also "uncertainty_mean",
        its mean over the lesion.

    Raises:
        InputError: the arrays are not (X, Y, Z) on one grid, or the voxel size is impossible.
    """
    mask, pet, affine = np.asarray(mask) != 0, np.asarray(pet), as_affine(affine)
    uncertainty = None if uncertainty is None else np.asarray(uncertainty)
    if mask.ndim != 3 or pet.shape != mask.shape or (uncertainty is not None and uncertainty.shape != mask.shape):
        raise InputError(f"the mask has the shape {mask.shape} and the PET {pet.shape}: give arrays (X, Y, Z) on one grid.")
    spacing = spacing_of(affine)
    voxel_ml = voxel_volume_ml(spacing.tolist())
    box = bounding_box(mask)
    if box is None:
        nan = math.nan
        return {"study": dict(zip(STUDY_COLUMNS, (0.0, 0.0, nan, nan, nan, 0, nan), strict=True)), "lesions": []}
    sums = _sums_over_lesions(mask, box, pet, spacing, uncertainty)
    centroids = (sums.indices / sums.sizes[:, None]) @ affine[:3, :3].T + affine[:3, 3]
    study = {
        "tmtv_ml": float(sums.sizes.sum() * voxel_ml),
        "tlg_g": float(sums.suv.sum() * voxel_ml),
        "suv_max": float(sums.suv_max.max()),
        "suv_mean": float(sums.suv.sum() / sums.sizes.sum()),
        "suv_peak": float(sums.suv_peak.max()),
        "lesions": len(sums.sizes),
        "dmax_mm": _largest_distance(centroids),
    }
    return {"study": study, "lesions": _lesion_rows(sums, centroids, voxel_ml, with_uncertainty=uncertainty is not None)}


@dataclass(frozen=True)
class _Sums:
    """Sums over the voxels of each of n lesions, the largest first, all (n,) but for the indices.

    Attributes:
        sizes: number of voxels.
        suv, uncertainty: sums over the voxels.
        indices: sums of the voxels' indices (n, 3).
        suv_max, suv_peak: the highest.
    """

    sizes: np.ndarray
    suv: np.ndarray
    uncertainty: np.ndarray
    indices: np.ndarray
    suv_max: np.ndarray
    suv_peak: np.ndarray


def _sums_over_lesions(
    mask: np.ndarray, box: tuple[slice, slice, slice], pet: np.ndarray, spacing: np.ndarray, uncertainty: np.ndarray | None
) -> _Sums:
    """Return the sums over each lesion of a mask (X, Y, Z) that lies in a box, and is not empty."""
    labels, count = lesions_by_size(mask[box])
    sums = _Sums(
        sizes=np.zeros(count, int),
        suv=np.zeros(count),
        uncertainty=np.zeros(count),
        indices=np.zeros((count, 3)),
        suv_max=np.full(count, -np.inf),
        suv_peak=np.full(count, -np.inf),
    )
    places = np.flatnonzero(labels)
    for start in range(0, len(places), VOXELS_AT_ONCE):
        inside = np.unravel_index(places[start : start + VOXELS_AT_ONCE], labels.shape)
        owner = labels[inside].astype(np.int64) - 1
        voxels = tuple(index + part.start for index, part in zip(inside, box, strict=True))
        suv = pet[voxels].astype(np.float64)
        sums.sizes[:] += np.bincount(owner, minlength=count)
        sums.suv[:] += np.bincount(owner, suv, count)
        sums.indices[:] += np.stack([np.bincount(owner, index, count) for index in voxels], axis=1)
        np.maximum.at(sums.suv_max, owner, suv)
        np.maximum.at(sums.suv_peak, owner, _sphere_means(pet, voxels, spacing))
        if uncertainty is not None:
            sums.uncertainty[:] += np.bincount(owner, uncertainty[voxels], count)
    return sums


def _lesion_rows(sums: _Sums, centroids: np.ndarray, voxel_ml: float, with_uncertainty: bool) -> list[dict[str, Any]]:
    """Return `LESION_COLUMNS` of each lesion; centroids (n, 3) in mm."""
    values = {
        "volume_ml": sums.sizes * voxel_ml,
        "suv_max": sums.suv_max,
        "suv_mean": sums.suv / sums.sizes,
        "suv_peak": sums.suv_peak,
        "tlg_g": sums.suv * voxel_ml,
        "centroid_x_mm": centroids[:, 0],
        "centroid_y_mm": centroids[:, 1],
        "centroid_z_mm": centroids[:, 2],
    }
    if with_uncertainty:
        values["uncertainty_mean"] = sums.uncertainty / sums.sizes
    return [
        {"lesion": index + 1} | {name: float(column[index]) for name, column in values.items()}
        for index in range(len(sums.sizes))
    ]


def write_readouts(folder: str | os.PathLike, readouts: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write read-outs of studies to `readouts.json`, `readouts_studies.csv` and `readouts_lesions.csv`.

    A value that does not exist (NaN) is null in JSON and an empty field in CSV. Studies are sorted by name.

    Args:
        folder: where the files appear.
        readouts: per case what `study_readouts` returned; further entries are kept in the JSON file.

    Returns:
        The three files.
    """
    folder = Path(folder)
    ordered = {case: readouts[case] for case in sorted(readouts)}
    studies = [{"case": case, **content["study"]} for case, content in ordered.items()]
    lesions = [{"case": case, **lesion} for case, content in ordered.items() for lesion in content["lesions"]]
    paths = [folder / name for name in ("readouts.json", "readouts_studies.csv", "readouts_lesions.csv")]
    content = {
        case: {**c, "study": without_nan(c["study"]), "lesions": [without_nan(lesion) for lesion in c["lesions"]]}
        for case, c in ordered.items()
    }
    write_json(paths[0], content)
    write_text(paths[1], csv_table(studies, ("case", *STUDY_COLUMNS)))
    write_text(paths[2], csv_table(lesions, ("case", *LESION_COLUMNS)))
    return paths


def csv_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return rows as CSV text: `columns` first, then any further key in the order of appearance; NaN and None are empty."""
    rows = list(rows)
    names = dict.fromkeys((*columns, *(name for row in rows for name in row)))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows([without_nan(row) for row in rows])
    return text.getvalue()


def without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a row with None in place of NaN, which JSON does not know."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _sphere_means(pet: np.ndarray, centres: tuple[np.ndarray, ...], spacing: np.ndarray) -> np.ndarray:
    """Return the mean of `pet` in the 1 ml sphere around each of n voxels (three index arrays (n,)), as (n,)."""
    kernel = _sphere_kernel(spacing)
    radius = np.array(kernel.shape) // 2
    # Padding around the voxels' box makes every neighbour one flat offset away; a weight of 0 leaves out what is no image.
    start = [int(index.min()) - int(r) for index, r in zip(centres, radius, strict=True)]
    stop = [int(index.max()) + int(r) + 1 for index, r in zip(centres, radius, strict=True)]
    inside = tuple(slice(max(0, a), min(b, n)) for a, b, n in zip(start, stop, pet.shape, strict=True))
    padding = [(part.start - a, b - part.stop) for part, a, b in zip(inside, start, stop, strict=True)]
    cropped = np.ascontiguousarray(pet[inside], np.float64)
    values = np.pad(cropped, padding).ravel()
    exists = np.pad(np.ones(cropped.shape), padding)
    shape = exists.shape
    complete = not any(map(any, padding))
    exists = exists.ravel()
    flat = np.ravel_multi_index([index - a for index, a in zip(centres, start, strict=True)], shape)
    total, weight = np.zeros(len(flat)), np.zeros(len(flat))
    for position in np.argwhere(kernel > 0):
        offset = np.dot(position - radius, (shape[1] * shape[2], shape[2], 1))
        fraction = kernel[tuple(position)]
        total += fraction * values[flat + offset]
        weight += fraction if complete else fraction * exists[flat + offset]
    return total / weight


def _sphere_kernel(spacing: np.ndarray, samples: int = 11) -> np.ndarray:
    """Return the part of each voxel's volume that lies in a 1 ml sphere around the middle voxel's centre.

    The part is counted at samples ^ 3 points of each voxel.

    Returns:
        (2 a + 1, 2 b + 1, 2 c + 1) values from 0 to 1, the middle one is the centre.
    """
    axes = []
    for size in spacing:
        reach = math.ceil(PEAK_RADIUS_MM / size - 0.5)
        points = (np.arange((2 * reach + 1) * samples) + 0.5) / samples - reach - 0.5
        axes.append((points * size) ** 2)
    inside = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] <= PEAK_RADIUS_MM**2
    counts = [len(axis) // samples for axis in axes]
    return inside.reshape(counts[0], samples, counts[1], samples, counts[2], samples).mean(axis=(1, 3, 5))


def _largest_distance(points: np.ndarray) -> float:
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
