"""Judging whether a study is fit for use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from petct_cascade.problems import Problem
from petct_cascade.studies import Study
from petct_cascade.volumes import Volume, _check_binary, check_grid, read_volume
from petct_training.errors import InputError
from petct_training.grids import bounding_box

# SUV above which a voxel belongs to the body: the background of a PET is near zero, tissue above 0.3.
BODY_SUV = 0.3


# Body tissue has an SUV near 1 by the definition of SUV; its activity is thousands of Bq/ml.
HIGHEST_MEDIAN_SUV = 50


# Urine in a PSMA study can reach several hundred.
HIGHEST_SUV = 1000


# The smallest share of the PET's extent that the CT covers without a warning, along x, y and z: the field of a CT is
# 500 mm wide, that of a PET up to 815 mm.
LEAST_COVERAGE = (0.55, 0.55, 0.9)


def check_study(study: Study) -> list[Problem]:
    """Judge whether a study is fit for use: its files, their geometry, and whether the values can be HU, SUV and a mask.

    An empty label is none of the problems: the study shows no lesion.

    Returns:
        The problems, errors first. A study with an error cannot be used.
    """
    return read_study(study)[0]


def read_study(study: Study) -> tuple[list[Problem], dict[str, Volume]]:
    """Read a study's volumes and judge them: as `check_study`, together with the volumes that could be read.

    Returns:
        The problems, errors first; and the volumes under "ct", "pet" and "label".
    """
    problems: list[tuple[Path | None, str, bool]] = []
    volumes: dict[str, Volume] = {}
    for role, file in study.files.items():
        try:
            volumes[role], warnings = read_volume(file)
            problems += [(file, message, False) for message in warnings]
        except InputError as error:
            problems.append((file, str(error), True))
    problems = [Problem(study.case, file, message, error) for file, message, error in problems]
    problems += judge_volumes(study.case, volumes)
    return sorted(problems, key=lambda problem: not problem.error), volumes


def judge_volumes(case: str, volumes: Mapping[str, Volume]) -> list[Problem]:
    """Judge the volumes of a study that could be read: their values, and where they lie to each other.

    Args:
        case: the study's name.
        volumes: under "ct", "pet" and "label", as far as there are such.
    """
    problems = [problem for judge in (_judge_values, _judge_places, _judge_label) for problem in judge(volumes)]
    return [Problem(case, file, message, error) for file, message, error in problems]


def find_repeated_images(digests: Mapping[str, str]) -> list[Problem]:
    """Find studies whose PET is that of another study: in both splits, it would make the validation worthless.

    Args:
        digests: `Volume.digest` of the PET of each case.

    Returns:
        An error for each case but the first, in the order of their names, of those that share a PET.
    """
    first: dict[str, str] = {}
    problems = []
    for case in sorted(digests):
        original = first.setdefault(digests[case], case)
        if original != case:
            message = f"its PET is, voxel by voxel, that of study {original}: keep one of the two, or put the right file in place"
            problems.append(Problem(case, None, message, error=True))
    return problems


_Problems = list[tuple[Path | None, str, bool]]


def _judge_values(volumes: Mapping[str, Volume]) -> _Problems:
    """Judge whether CT and PET can be HU and SUV."""
    ct, pet = volumes.get("ct"), volumes.get("pet")
    if ct is not None and pet is not None:
        if ct.file.resolve() == pet.file.resolve() or _are_equal(ct.array, pet.array):
            return [(pet.file, "is the same image as the CT: put the PET in its place", True)]
        if pet.array.min() <= -500 and ct.array.min() > -200:
            return [(ct.file, f"and {pet.file.name} look as if CT and PET were exchanged: exchange the two files", True)]
    problems: _Problems = []
    if ct is not None:
        problems += [(ct.file, message, error) for message, error in _judge_ct(ct.array)]
    if pet is not None:
        problems += [(pet.file, message, error) for message, error in _judge_pet(pet.array)]
    return problems


def _are_equal(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether two volumes hold the same values; nearly all that do not are told apart by some of their slices."""
    return array.shape == other.shape and all(np.array_equal(array[::step], other[::step]) for step in (16, 1))


def _judge_ct(array: np.ndarray) -> list[tuple[str, bool]]:
    """Judge the values of a CT (X, Y, Z) that should be HU: air is -1000, water 0, bone several hundred."""
    low, high = float(array.min()), float(array.max())
    if low == high:
        return [(f"has the same value {low:g} everywhere: put the CT in its place", True)]
    if low >= 0 and high <= 1:
        return [("holds values from 0 to 1, not Hounsfield units: export the CT without normalising it", True)]
    if low >= 0:
        return [(f"holds no negative value (it begins at {low:g}), so it is not in Hounsfield units: export the CT in HU", True)]
    if low > -200:
        return [(f"has a lowest value of {low:g} HU, and air would be -1000: check that it is a CT in Hounsfield units", False)]
    if high < 50:
        return [(f"has a highest value of {high:g} HU, and bone has several hundred: check that it is a CT in HU", False)]
    return []


def _judge_pet(array: np.ndarray) -> list[tuple[str, bool]]:
    """Judge the values of a PET (X, Y, Z) that should be body-weight SUV: its mean over the body is near 1."""
    low, high = float(array.min()), float(array.max())
    if low == high:
        return [(f"has the same value {low:g} everywhere: put the PET in its place", True)]
    if high <= BODY_SUV:
        return [
            (f"has a highest value of {high:g}, which is less than any tissue's SUV: export the PET in body-weight SUV", True)
        ]
    sample = array.ravel(order="K")[:: max(1, array.size // 1_000_000)]
    negative = np.count_nonzero(sample < -0.1) / sample.size
    if low < -100 or negative > 0.01:
        return [(f"holds negative values down to {low:g}, which an SUV cannot be: check that it is the PET, in SUV", True)]
    positive = sample[sample > 0]
    median = float(np.median(positive)) if positive.size else 0.0
    if median > HIGHEST_MEDIAN_SUV:
        message = f"holds values such as {median:.4g}, which look like Bq/ml: convert it to body-weight SUV (weight, dose, decay)"
        return [(message, True)]
    problems = []
    if high > HIGHEST_SUV:
        problems.append((f"has a highest SUV of {high:.4g}: check that it is in body-weight SUV", False))
    if low < -0.1:
        problems.append((f"holds a few negative values down to {low:.3g}: they are used as they are", False))
    if high <= 1:
        problems.append((f"has a highest SUV of {high:.3g}: check that it is in body-weight SUV and was not normalised", False))
    return problems


def _judge_places(volumes: Mapping[str, Volume]) -> _Problems:
    """Judge whether the CT covers the PET in space."""
    if "ct" not in volumes or "pet" not in volumes:
        return []
    ct, pet = volumes["ct"], volumes["pet"]
    (ct_low, ct_high), (pet_low, pet_high) = (_extent(volume) for volume in (ct, pet))
    shared = np.minimum(ct_high, pet_high) - np.maximum(ct_low, pet_low)
    if (shared <= 0).any():
        return [(ct.file, f"lies elsewhere in space than {pet.file.name}: check that both are of one study", True)]
    coverage = shared / (pet_high - pet_low)
    if (coverage < LEAST_COVERAGE).any():
        percent = " x ".join(f"{100 * value:.0f}" for value in coverage)
        return [(ct.file, f"covers only {percent} % of the PET's width, depth and height: the rest is taken as air", False)]
    return []


def _judge_label(volumes: Mapping[str, Volume]) -> _Problems:
    """Judge whether the label is a mask on the PET's grid, inside of the body."""
    label, pet = volumes.get("label"), volumes.get("pet")
    if label is None:
        return []
    try:
        _check_binary(label)
        if pet is not None:
            check_grid(label, pet, "PET")
    except InputError as error:
        return [(label.file, str(error), True)]
    if pet is None:
        return []
    box = bounding_box(label.array != 0)
    if box is None:
        return []
    values = pet.array[box][label.array[box] == 1]
    if np.count_nonzero(values > BODY_SUV) < values.size / 2:
        message = f"marks lesions mostly where the PET is below SUV {BODY_SUV}: check that it belongs to this study"
        return [(label.file, message, False)]
    return []


def _extent(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of a volume along the world's axes, mm, from edge to edge of its outer voxels."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * np.array(volume.array.shape) - 0.5
    points = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return points.min(axis=0), points.max(axis=0)
