"""Judging whether a study is fit for use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from petct_cascade.problems import Problem
from petct_cascade.studies import Study
from petct_cascade.volumes import Volume, as_mask, check_grid, read_volume
from petct_training.errors import InputError
from petct_training.grids import bounding_box, extent

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
    """Return what is wrong with a study: its files, their geometry, and whether the values can be HU, SUV and a mask.

    An empty label is none of the problems: the study shows no lesion.

    Returns:
        The problems, errors first. A study with an error cannot be used.
    """
    return read_study(study)[0]


def read_study(study: Study) -> tuple[list[Problem], dict[str, Volume]]:
    """Read a study's volumes and judge them, as `check_study` does.

    Returns:
        The problems, errors first; and the volumes that could be read, under "ct", "pet" and "label".
    """
    problems: list[Problem] = []
    volumes: dict[str, Volume] = {}
    for role, file in study.files.items():
        try:
            volume, warnings = read_volume(file)
            volumes[role] = as_mask(volume) if role == "label" else volume
            problems += [Problem(study.case, file, message, error=False) for message in warnings]
        except InputError as error:
            problems.append(Problem(study.case, file, str(error), error=True))
    problems += judge_volumes(study.case, volumes)
    return sorted(problems, key=lambda problem: not problem.error), volumes


def judge_volumes(case: str, volumes: Mapping[str, Volume]) -> list[Problem]:
    """Judge the volumes of a study that could be read: their values, and where they lie to each other.

    Args:
        case: the study's name.
        volumes: under "ct" (HU), "pet" (SUV) and "label" (a mask), as far as there are such, each (X, Y, Z).
    """
    ct, pet, label = (volumes.get(role) for role in ("ct", "pet", "label"))
    problems: list[Problem] = []
    mistake = None if ct is None or pet is None else _mistaken_files(case, ct, pet)
    if mistake is not None:
        problems.append(mistake)
    else:
        problems += [] if ct is None else _judge_values(case, ct, _error_of_ct, _warnings_of_ct)
        problems += [] if pet is None else _judge_values(case, pet, _error_of_pet, _warnings_of_pet)
    elsewhere = [] if ct is None or pet is None else _judge_coverage(case, ct, pet)
    problems += elsewhere
    # Where CT and PET contradict each other, nobody knows which of the two the label has to fit.
    if label is not None and mistake is None and not any(problem.error for problem in elsewhere):
        problems += _judge_label(case, label, pet)
    return problems


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


def _mistaken_files(case: str, ct: Volume, pet: Volume) -> Problem | None:
    """Return an error when CT and PET are one image, or each in the other's place."""
    if ct.file.resolve() == pet.file.resolve() or _are_equal(ct.array, pet.array):
        return Problem(case, pet.file, "is the same image as the CT: put the PET in its place", error=True)
    if pet.limits[0] <= -500 and ct.limits[0] > -200:
        message = f"and {pet.file.name} look as if CT and PET were exchanged: exchange the two files"
        return Problem(case, ct.file, message, error=True)
    return None


def _are_equal(array: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two volumes hold the same values; nearly all that do not are told apart by some of their slices."""
    return array.shape == other.shape and all(np.array_equal(array[::step], other[::step]) for step in (16, 1))


def _judge_values(
    case: str, volume: Volume, error_of: Callable[[Volume], str | None], warnings_of: Callable[[Volume], list[str]]
) -> list[Problem]:
    """Judge the values of a CT or PET: an error, or else warnings."""
    error = error_of(volume)
    if error is not None:
        return [Problem(case, volume.file, error, error=True)]
    return [Problem(case, volume.file, warning, error=False) for warning in warnings_of(volume)]


def _error_of_ct(ct: Volume) -> str | None:
    """Return why the values cannot be HU, in which air is -1000, water 0, bone several hundred."""
    low, high = ct.limits
    if low == high:
        return f"has the same value {low:g} everywhere: put the CT in its place"
    if low >= 0 and high <= 1:
        return "holds values from 0 to 1, not Hounsfield units: export the CT without normalising it"
    if low >= 0:
        return f"holds no negative value (it begins at {low:g}), so it is not in Hounsfield units: export the CT in HU"
    return None


def _warnings_of_ct(ct: Volume) -> list[str]:
    """Return what is unusual about values that can be HU."""
    low, high = ct.limits
    if low > -200:
        return [f"has a lowest value of {low:g} HU, and air would be -1000: check that it is a CT in Hounsfield units"]
    if high < 50:
        return [f"has a highest value of {high:g} HU, and bone has several hundred: check that it is a CT in HU"]
    return []


def _error_of_pet(pet: Volume) -> str | None:
    """Return why the values cannot be body-weight SUV, whose mean over the body is near 1."""
    low, high = pet.limits
    if low == high:
        return f"has the same value {low:g} everywhere: put the PET in its place"
    if high <= BODY_SUV:
        return f"has a highest value of {high:g}, which is less than any tissue's SUV: export the PET in body-weight SUV"
    sample = pet.array.ravel(order="K")[:: max(1, pet.array.size // 1_000_000)]
    if low < -100 or np.count_nonzero(sample < -0.1) > 0.01 * sample.size:
        return f"holds negative values down to {low:g}, which an SUV cannot be: check that it is the PET, in SUV"
    positive = sample[sample > 0]
    median = float(np.median(positive)) if positive.size else 0.0
    if median > HIGHEST_MEDIAN_SUV:
        return f"holds values such as {median:.4g}, which look like Bq/ml: convert it to body-weight SUV (weight, dose, decay)"
    return None


def _warnings_of_pet(pet: Volume) -> list[str]:
    """Return what is unusual about values that can be body-weight SUV."""
    low, high = pet.limits
    warnings = []
    if high > HIGHEST_SUV:
        warnings.append(f"has a highest SUV of {high:.4g}: check that it is in body-weight SUV")
    if low < -0.1:
        warnings.append(f"holds a few negative values down to {low:.3g}: they are used as they are")
    if high <= 1:
        warnings.append(f"has a highest SUV of {high:.3g}: check that it is in body-weight SUV and was not normalised")
    return warnings


def _judge_coverage(case: str, ct: Volume, pet: Volume) -> list[Problem]:
    """Judge whether the CT covers the PET in space."""
    ct_low, ct_high = extent(ct.array.shape, ct.affine)
    pet_low, pet_high = extent(pet.array.shape, pet.affine)
    shared = np.minimum(ct_high, pet_high) - np.maximum(ct_low, pet_low)
    if (shared <= 0).any():
        message = f"lies elsewhere in space than {pet.file.name}: check that both are of one study"
        return [Problem(case, ct.file, message, error=True)]
    coverage = shared / (pet_high - pet_low)
    if (coverage < LEAST_COVERAGE).any():
        percent = " x ".join(f"{100 * value:.0f}" for value in coverage)
        message = f"covers only {percent} % of the PET's width, depth and height: the rest is taken as air"
        return [Problem(case, ct.file, message, error=False)]
    return []


def _judge_label(case: str, label: Volume, pet: Volume | None) -> list[Problem]:
    """Judge whether a mask lies on the PET's grid, inside of the body."""
    if pet is None:
        return []
    try:
        check_grid(label, pet, "PET")
    except InputError as error:
        return [Problem(case, label.file, str(error), error=True)]
    if _lies_in_body(label.array, pet.array):
        return []
    message = f"marks lesions mostly where the PET is below SUV {BODY_SUV}: check that it belongs to this study"
    return [Problem(case, label.file, message, error=False)]


def _lies_in_body(mask: np.ndarray, pet: np.ndarray) -> bool:
    """Return whether at least half of a mask's voxels (X, Y, Z) are above the background of the PET (SUV); an empty mask is."""
    box = bounding_box(mask != 0)
    if box is None:
        return True
    values = pet[box][mask[box] == 1]
    return bool(np.count_nonzero(values > BODY_SUV) >= values.size / 2)
