"""What a data set's voxels and values are like: the numbers from which spacing and normalisation of the networks come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from petct_training.errors import InputError

CHANNELS = ("ct", "pet")


def target_spacing(spacings: Sequence[Sequence[float]], choice: str | Sequence[float]) -> list[float]:
    """Return the spacing [x, y, z] in mm to which a data set is resampled.

    Args:
        spacings: those of the training studies' PET, along the axes of LAS.
        choice: "mean" (Safdari et al., arXiv 2409.13006) or "median" of each axis, or the spacing itself.

    Raises:
        InputError: when the choice is none of these.
    """
    check_spacing_choice(choice)
    if not isinstance(choice, str):
        return [float(value) for value in choice]
    combine = np.mean if choice == "mean" else np.median
    # Rounded to a nanometre: what lies beyond is the headers' 32-bit arithmetic.
    return [round(float(value), 6) for value in combine(np.asarray(spacings, dtype=np.float64), axis=0)]


def check_spacing_choice(choice: str | Sequence[float]) -> None:
    """Check that a spacing is "mean", "median", or three numbers in mm.

    Raises:
        InputError: when it is none of these.
    """
    if isinstance(choice, str) and choice in ("mean", "median"):
        return
    numbers = [] if isinstance(choice, str) else list(choice)
    if len(numbers) != 3 or not all(isinstance(value, (int, float)) and 0.1 <= value <= 100 for value in numbers):
        raise InputError(f"spacing is {choice!r}: give 'mean', 'median', or three numbers in mm such as [2.0, 2.0, 3.0]")


def make_fingerprint(spacing: Sequence[float], lesion_values: Sequence[np.ndarray], source: str) -> dict[str, Any]:
    """Return a data set's fingerprint.

    As nnU-Net (Isensee et al., Nature Methods 18:203, 2021), it describes the values inside of the lesions. Nothing is drawn
    at random: every voxel of every lesion counts once, on the original PET grid, before any resampling.

    Args:
        spacing: [x, y, z] in mm, along the axes of LAS.
        lesion_values: for each training study (2, n), CT in HU and PET in SUV of its n voxels inside of lesions.
        source: how it was made, in a sentence.

    Returns:
        {"spacing", "ct", "pet", "num_cases", "source"}; ct and pet are {"percentile_00_5", "percentile_99_5", "mean", "std"}, the
        standard deviation that of all values (divided by n).

    Raises:
        InputError: when no study has a lesion.
    """
    values = np.concatenate([np.zeros((2, 0), np.float32), *lesion_values], axis=1)
    if values.shape[1] == 0:
        raise InputError("no training study has a lesion: add labelled studies with lesions")
    fingerprint: dict[str, Any] = {"spacing": list(spacing)}
    for name, channel in zip(CHANNELS, values, strict=True):
        # Sorted, sums do not depend on the order of the studies.
        ordered = np.sort(channel).astype(np.float64)
        low, high = np.percentile(ordered, [0.5, 99.5])
        if not low < high:
            raise InputError(f"the {name.upper()} has the same value inside of all lesions: check the images and labels")
        fingerprint[name] = {
            "percentile_00_5": float(low),
            "percentile_99_5": float(high),
            "mean": float(ordered.mean()),
            "std": float(ordered.std()),
        }
    return fingerprint | {"num_cases": len(lesion_values), "source": source}
