"""The read-outs that PET/CT users expect of a study and of each of its lesions, written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petct_cascade.dicom.body_size import Body
from petct_cascade.distances import largest_distance, largest_voxel_distance
from petct_cascade.metrics import as_bool, lesions_by_size
from petct_cascade.volumes import check_axes, check_spacing
from petct_training.errors import InputError
from petct_training.files import write_json, write_text
from petct_training.grids import as_affine, bounding_box, spacing_of, voxel_volume_ml

# A sphere of this radius has 1 ml: (3 / (4 pi) * 1000 mm3) ^ (1/3) = 6.2035 mm.
PEAK_RADIUS_MM = (3 / (4 * math.pi) * 1000) ** (1 / 3)

# A mask that fills the body has tens of millions of voxels, and each takes a hundred bytes while it is worked on.
VOXELS_AT_ONCE = 1_000_000

# Thresholds under which voxels of the mask do not count: an SUV, and a share of each lesion's SUVmax.
FIXED_SUV, SHARE_OF_MAXIMUM = 4.0, 0.41

# Raised when read-outs are added or computed in another way, so that those of an earlier version are made again.
VERSION = 3

# Which way the coordinates of places run (RAS, as in NIfTI); in DICOM x runs to the left and y to the back (PS3.3, C.7.6.2).
AXES = {
    "x": "grows to the patient's right, as in NIfTI; DICOM has the other sign",
    "y": "grows to the patient's front, as in NIfTI; DICOM has the other sign",
    "z": "grows to the patient's head, as in NIfTI and DICOM",
}

# What the columns of a lesion and of a study mean, in one line each.
_UPTAKE = {
    "suv_max": "highest SUV, by body weight (g/ml)",
    "suv_mean": "mean SUV of the voxels",
    "suv_peak": "highest mean SUV in a sphere of 1 ml around the centre of a lesion's voxel",
}
_SUL = {
    "sul_max": "SUVmax by lean body mass (Janmahasatian)",
    "sul_mean": "SUVmean by lean body mass (Janmahasatian)",
    "sul_peak": "SUVpeak by lean body mass (Janmahasatian)",
}
_THRESHOLDS = {
    "{volume}_suv4_ml": "volume where SUV is at least 4",
    "tlg_suv4_g": "TLG where SUV is at least 4",
    "{volume}_41pct_ml": "volume where SUV is at least 41 % of the lesion's SUVmax",
    "tlg_41pct_g": "TLG where SUV is at least 41 % of the lesion's SUVmax",
}
STUDY_DEFINITIONS = {
    "tmtv_ml": "volume of all lesions",
    "tlg_g": "total lesion glycolysis: SUVmean times volume",
    **_UPTAKE,
    "lesions": "number of 18-connected components of the mask",
    "dmax_mm": "distance between the centroids of the two lesions furthest apart",
    **{name.format(volume="tmtv"): text for name, text in _THRESHOLDS.items()},
    "dmax_voxels_mm": "distance between the centres of the two lesion voxels furthest apart",
    **_SUL,
}
LESION_DEFINITIONS = {
    "lesion": "number, the largest first",
    "volume_ml": "voxels times voxel volume",
    **_UPTAKE,
    "tlg_g": "total lesion glycolysis: SUVmean times volume",
    **{f"centroid_{axis}_mm": f"mean {axis} of the voxel centres; {direction}" for axis, direction in AXES.items()},
    **{name.format(volume="volume"): text for name, text in _THRESHOLDS.items()},
    **_SUL,
    "uncertainty_mean": "mean standard deviation of the members' probabilities",
}
# The same of a lesion of the reference.
REFERENCE_DEFINITIONS = {
    "lesion": LESION_DEFINITIONS["lesion"],
    "found": "of a reference lesion: whether the prediction overlaps any voxel of it",
    **{name: LESION_DEFINITIONS[name] for name in ("volume_ml", "suv_max", *(f"centroid_{axis}_mm" for axis in AXES))},
}
# What `write_readouts` writes.
READOUT_FILES = ("readouts.json", "readouts_studies.csv", "readouts_lesions.csv")

# What every study and lesion has; SUL and uncertainty follow where they are known.
STUDY_COLUMNS = tuple(name for name in STUDY_DEFINITIONS if name not in _SUL)
LESION_COLUMNS = tuple(name for name in LESION_DEFINITIONS if name not in _SUL and name != "uncertainty_mean")


def study_readouts(
    mask: np.ndarray,
    pet: np.ndarray,
    affine: np.ndarray | Sequence[float],
    uncertainty: np.ndarray | None = None,
    body: Body | None = None,
) -> dict[str, Any]:
    """Return the read-outs of a study: total tumour burden and uptake, and the same of each lesion.

    A lesion is an 18-connected component of the mask, as in the challenge's metrics. Which voxels are tumour is the mask's
    decision: no SUV threshold is applied, but for the volumes and TLG that are called after one. SUV is by body weight, in g/ml.

    - Volume (ml): number of voxels times voxel volume. TMTV, the total metabolic tumour volume, is the sum over lesions
      (Barrington and Meignan, J Nucl Med 2019;60:1096).
    - TLG (g), total lesion glycolysis: SUVmean times volume, summed over lesions (Larson et al., Clin Positron Imaging 1999;2:159).
      The name is from FDG; for PSMA the same product is the total lesion PSMA.
    - "suv4": the same of the mask's voxels with an SUV of at least 4 (Barrington et al., J Nucl Med 2021;62:332). "41pct": of those
      with at least 41 % of their own lesion's SUVmax (Boellaard et al., Eur J Nucl Med Mol Imaging 2015;42:328). Lesions stay those
      of the mask, and lie in one or several pieces above a threshold.
    - SUVmax, SUVmean: highest value and mean over the lesion's voxels; of the study, over all lesions' voxels.
    - SUVpeak: the highest mean in a sphere of 1 ml (radius 6.2 mm) whose centre is the centre of a voxel of the lesion (Wahl et
      al., PERCIST 1.0, J Nucl Med 2009;50 Suppl 1:122S; "global intensity peak" of the image biomarker standardisation initiative,
      Zwanenburg et al., Radiology 2020;295:328). The sphere may reach out of the lesion; a voxel that it cuts counts with the
      part of its volume inside the sphere; what lies outside of the image is left out. Of the study: the highest of its lesions.
    - Dmax (mm): distance between the centroids of the two lesions furthest apart (Cottereau et al., Ann Oncol 2021;32:404).
      0 with one lesion.
    - "dmax_voxels_mm": distance between the centres of the two voxels furthest apart, of one lesion or of two.
    - SUL: SUVmax, SUVmean and SUVpeak times lean body mass over body weight (Janmahasatian et al., Clin Pharmacokinet
      2005;44:1051), where the body is known. Of sex O, the lean body mass is the mean of both formulas.
    - Centroid (mm): mean position of the lesion's voxel centres, each voxel weighing the same.

    Args:
        mask: lesions (X, Y, Z): integer, bool, or 0 and 1 in another type.
        pet: body-weight SUV (X, Y, Z) on the same grid.
        affine: (4, 4) matrix from voxels to world mm (RAS, as in NIfTI); or the voxel size along X, Y, Z in mm, and centroids
            are counted from the centre of the first voxel.
        uncertainty: disagreement of the ensemble's members, as the standard deviation of their probabilities (X, Y, Z).
        body: the patient's; None where it is not known, and there are no SUL.

    Returns:
        "study": `STUDY_COLUMNS`; without lesions volumes, TLG and count are 0 and the others NaN.
        "lesions": per lesion `LESION_COLUMNS`, the largest first, numbered from 1; with `uncertainty` also "uncertainty_mean",
        its mean over the lesion.
        "body": with `body`, its "weight_kg", "height_m", "sex" and "lean_mass_kg"; then study and lesions have "sul_max",
        "sul_mean" and "sul_peak", too.

    Raises:
        InputError: the arrays are not (X, Y, Z) on one grid, hold what is no mask, or no number in or around a lesion; or no
            volume has such voxels.
    """
    mask, pet, affine = as_bool("mask", np.asarray(mask)), np.asarray(pet), as_affine(affine)
    uncertainty = None if uncertainty is None else np.asarray(uncertainty)
    for name, array in (("PET", pet), ("uncertainty", uncertainty)):
        if array is not None and (mask.ndim != 3 or array.shape != mask.shape):
            raise InputError(
                f"the mask has the shape {mask.shape} and the {name} {array.shape}: give arrays (X, Y, Z) on one grid."
            )
        if array is not None and array.dtype.kind not in "fiub":
            raise InputError(f"the {name} holds values of the type {array.dtype}: give one real number a voxel")
    try:
        check_axes(affine)
        check_spacing(affine)
    except InputError as error:
        raise InputError(f"the mask {error}") from error
    spacing = spacing_of(affine)
    voxel_ml = voxel_volume_ml(spacing.tolist())
    box = bounding_box(mask)
    if box is None:
        study, lesions = _study_without_lesions(), []
    else:
        # What is no number is found in the sums, without a pass over all voxels.
        with np.errstate(invalid="ignore"):
            sums = _sums_over_lesions(mask, box, pet, spacing, uncertainty)
        for name, values in (("PET", sums.suv + sums.suv_peak), ("uncertainty", sums.uncertainty)):
            if not np.isfinite(values).all():
                raise InputError(
                    f"the {name} holds voxels without a number (NaN or infinite) in or around lesions: give finite ones"
                )
        centroids = (sums.indices / sums.sizes[:, None]) @ affine[:3, :3].T + affine[:3, 3]
        study = _study_row(sums, centroids, voxel_ml) | {"dmax_voxels_mm": largest_voxel_distance(mask[box], affine)}
        lesions = _lesion_rows(sums, centroids, voxel_ml, with_uncertainty=uncertainty is not None)
    if body is None:
        return {"study": study, "lesions": lesions}
    return {
        "study": _with_sul(study, body),
        "lesions": [_with_sul(lesion, body) for lesion in lesions],
        "body": {"weight_kg": body.weight, "height_m": body.height, "sex": body.sex, "lean_mass_kg": body.lean_mass},
    }


def reference_lesions(reference: np.ndarray, prediction: np.ndarray, pet: np.ndarray, affine: np.ndarray) -> list[dict[str, Any]]:
    """Return the lesions of a reference, and which of them a prediction has found.

    A lesion is an 18-connected component. It is found when the prediction overlaps any voxel of it, as lesion sensitivity counts
    it, see `petct_cascade.metrics.case_metrics`.

    Args:
        reference: mask (X, Y, Z), not 0 inside of lesions.
        prediction: the same on the same grid.
        pet: body-weight SUV (X, Y, Z) on the same grid.
        affine: (4, 4) matrix from voxels to world mm (RAS, as in NIfTI).

    Returns:
        Per lesion the entries of `REFERENCE_DEFINITIONS`, the largest first, numbered from 1.
    """
    reference = reference != 0
    box = bounding_box(reference)
    if box is None:
        return []
    labels, count = lesions_by_size(reference[box])
    sizes, found = np.zeros(count, int), np.zeros(count, bool)
    suv_max, indices = np.full(count, -np.inf), np.zeros((count, 3))
    for owner, voxels in _voxels_of_lesions(np.flatnonzero(labels), labels, box):
        sizes += np.bincount(owner, minlength=count)
        found[owner[prediction[voxels] != 0]] = True
        np.maximum.at(suv_max, owner, pet[voxels])
        indices += np.stack([np.bincount(owner, index, count) for index in voxels], axis=1)
    centroids = (indices / sizes[:, None]) @ affine[:3, :3].T + affine[:3, 3]
    voxel_ml = voxel_volume_ml(spacing_of(affine).tolist())
    return [
        {
            "lesion": index + 1,
            "found": bool(found[index]),
            "volume_ml": float(sizes[index] * voxel_ml),
            "suv_max": float(suv_max[index]),
            **{f"centroid_{axis}_mm": float(value) for axis, value in zip(AXES, centroids[index], strict=True)},
        }
        for index in range(count)
    ]


def _study_without_lesions() -> dict[str, Any]:
    """Return `STUDY_COLUMNS` of an empty mask."""
    is_zero = {name: name.startswith(("tmtv", "tlg", "lesions")) for name in STUDY_COLUMNS}
    return {name: (0 if name == "lesions" else 0.0) if zero else math.nan for name, zero in is_zero.items()}


def _with_sul(row: Mapping[str, Any], body: Body) -> dict[str, Any]:
    """Return a row with SUL after its other columns, but for the uncertainty, which is the last."""
    share = body.lean_mass / body.weight
    sul = {name: row[name.replace("sul", "suv")] * share for name in _SUL}
    last = {name: row[name] for name in ("uncertainty_mean",) if name in row}
    return {name: value for name, value in row.items() if name not in last} | sul | last


@dataclass(frozen=True)
class _Sums:
    """Sums over the voxels of each of n lesions, the largest first, all (n,) but for the indices.

    Attributes:
        sizes: number of voxels.
        suv, uncertainty: sums over the voxels.
        indices: sums of the voxels' indices (n, 3).
        suv_max, suv_peak: the highest.
        sizes_suv4, suv_suv4, sizes_41pct, suv_41pct: sizes and suv of the voxels above a threshold.
    """

    sizes: np.ndarray
    suv: np.ndarray
    uncertainty: np.ndarray
    indices: np.ndarray
    suv_max: np.ndarray
    suv_peak: np.ndarray
    sizes_suv4: np.ndarray
    suv_suv4: np.ndarray
    sizes_41pct: np.ndarray
    suv_41pct: np.ndarray


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
        sizes_suv4=np.zeros(count, int),
        suv_suv4=np.zeros(count),
        sizes_41pct=np.zeros(count, int),
        suv_41pct=np.zeros(count),
    )
    places = np.flatnonzero(labels)
    for owner, voxels in _voxels_of_lesions(places, labels, box):
        suv = pet[voxels].astype(np.float64)
        _add(owner, suv, sums.sizes, sums.suv)
        _add(owner[suv >= FIXED_SUV], suv[suv >= FIXED_SUV], sums.sizes_suv4, sums.suv_suv4)
        sums.indices[:] += np.stack([np.bincount(owner, index, count) for index in voxels], axis=1)
        np.maximum.at(sums.suv_max, owner, suv)
        np.maximum.at(sums.suv_peak, owner, _sphere_means(pet, voxels, spacing))
        if uncertainty is not None:
            sums.uncertainty[:] += np.bincount(owner, uncertainty[voxels], count)
    # A second time, now that each lesion's maximum is known.
    for owner, voxels in _voxels_of_lesions(places, labels, box):
        suv = pet[voxels].astype(np.float64)
        above = suv >= SHARE_OF_MAXIMUM * sums.suv_max[owner]
        _add(owner[above], suv[above], sums.sizes_41pct, sums.suv_41pct)
    return sums


def _voxels_of_lesions(
    places: np.ndarray, labels: np.ndarray, box: tuple[slice, slice, slice]
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, ...]]]:
    """Yield the lesion, counted from 0, of some voxels (n,) at a time, and their three indices (n,) in the whole volume.

    Args:
        places: of the voxels in the flat array of labels.
        labels: of the lesions, 1 to n, and 0 elsewhere, in the box.
        box: of the volume.
    """
    for start in range(0, len(places), VOXELS_AT_ONCE):
        inside = np.unravel_index(places[start : start + VOXELS_AT_ONCE], labels.shape)
        voxels = tuple(index + part.start for index, part in zip(inside, box, strict=True))
        yield labels[inside].astype(np.int64) - 1, voxels


def _add(owner: np.ndarray, suv: np.ndarray, sizes: np.ndarray, total: np.ndarray) -> None:
    """Add voxels (n,) of lesions to the number of each lesion's voxels and to the sum of their SUV."""
    sizes += np.bincount(owner, minlength=len(sizes))
    total += np.bincount(owner, suv, len(sizes))


def _study_row(sums: _Sums, centroids: np.ndarray, voxel_ml: float) -> dict[str, Any]:
    """Return `STUDY_COLUMNS` but for the last; centroids (n, 3) in mm."""
    return {
        "tmtv_ml": float(sums.sizes.sum() * voxel_ml),
        "tlg_g": float(sums.suv.sum() * voxel_ml),
        "suv_max": float(sums.suv_max.max()),
        "suv_mean": float(sums.suv.sum() / sums.sizes.sum()),
        "suv_peak": float(sums.suv_peak.max()),
        "lesions": len(sums.sizes),
        "dmax_mm": largest_distance(centroids),
        "tmtv_suv4_ml": float(sums.sizes_suv4.sum() * voxel_ml),
        "tlg_suv4_g": float(sums.suv_suv4.sum() * voxel_ml),
        "tmtv_41pct_ml": float(sums.sizes_41pct.sum() * voxel_ml),
        "tlg_41pct_g": float(sums.suv_41pct.sum() * voxel_ml),
    }


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
        "volume_suv4_ml": sums.sizes_suv4 * voxel_ml,
        "tlg_suv4_g": sums.suv_suv4 * voxel_ml,
        "volume_41pct_ml": sums.sizes_41pct * voxel_ml,
        "tlg_41pct_g": sums.suv_41pct * voxel_ml,
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
    paths = [folder / name for name in READOUT_FILES]
    write_json(paths[0], {case: readouts_without_nan(content) for case, content in ordered.items()})
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


def readouts_without_nan(readouts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the read-outs of a study as JSON knows them: None in place of NaN."""
    lesions = [without_nan(lesion) for lesion in readouts["lesions"]]
    return {**readouts, "study": without_nan(readouts["study"]), "lesions": lesions}


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
