"""Promises of the fingerprint: what it says of spacing and values agrees with what is known of a distribution."""

from __future__ import annotations

import numpy as np
import pytest

from petct_cascade.fingerprint import make_fingerprint, target_spacing
from petct_training.errors import InputError


def test_fingerprint_is_that_of_all_lesion_voxels():
    # The numbers 0 ... 999: linear percentiles, mean and deviation of a discrete uniform distribution.
    ct = np.arange(1000, dtype=np.float32)
    chunks = [np.stack([part, part / 10]) for part in np.array_split(np.roll(ct, 300), 3)]
    fingerprint = make_fingerprint([2, 2, 3], chunks, "test")
    std = np.sqrt((1000**2 - 1) / 12)
    assert fingerprint["ct"] == pytest.approx({"percentile_00_5": 4.995, "percentile_99_5": 994.005, "mean": 499.5, "std": std})
    pet = {"percentile_00_5": 0.4995, "percentile_99_5": 99.4005, "mean": 49.95, "std": std / 10}
    assert fingerprint["pet"] == pytest.approx(pet, rel=1e-6)
    assert (fingerprint["num_cases"], fingerprint["spacing"], fingerprint["source"]) == (3, [2, 2, 3], "test")
    assert make_fingerprint([2, 2, 3], chunks[::-1], "test") == fingerprint


def test_fingerprint_without_lesions_is_refused():
    with pytest.raises(InputError, match="no training study has a lesion"):
        make_fingerprint([2, 2, 3], [np.zeros((2, 0), np.float32)], "test")


def test_spacing_is_mean_median_or_given():
    spacings = [[1, 2, 3], [1, 2, 3], [4, 2, 6]]
    assert target_spacing(spacings, "mean") == [2, 2, 4]
    assert target_spacing(spacings, "median") == [1, 2, 3]
    assert target_spacing(spacings, (2, 2.5, 3)) == [2, 2.5, 3]
    for wrong in ("average", [1, 2], [1, 2, -3], ["a", "b", "c"]):
        with pytest.raises(InputError, match="mean"):
            target_spacing(spacings, wrong)
