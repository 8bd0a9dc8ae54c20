"""Splitting studies into training and validation, patient by patient."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from petct_cascade.studies import Study
from petct_training.errors import InputError


def split_by_patient(studies: Sequence[Study], fraction: float, seed: int) -> tuple[list[Study], list[Study]]:
    """Split studies into training and validation, all studies of a patient on one side.

    The number of validation studies is as close to `fraction` of all as whole patients allow, with at least one study on each
    side. Each tracer's share of them is about `fraction`, too. Which patients they are depends on the seed and the patients'
    names alone, not on the order of the studies.

    Args:
        studies: of at least two patients.
        fraction: share of the studies for validation.
        seed: whole number.

    Returns:
        Training and validation studies, sorted by case.

    Raises:
        InputError: when all studies are of one patient, or there are none.
    """
    sizes = Counter(study.patient for study in studies)
    if len(sizes) < 2:
        what = f"of one patient ({next(iter(sizes))})" if sizes else "left out"
        raise InputError(
            f"all studies are {what}: training and validation need at least two patients "
            "(a CSV list with the column patient says who is who)"
        )
    patients = _shuffle_by_tracer(studies, seed)
    reached = _reachable_sums([sizes[patient] for patient in patients])
    wanted = fraction * len(studies)
    number = min((total for total in reached if 0 < total < len(studies)), key=lambda total: (abs(total - wanted), total))
    chosen = {patients[position] for position in reached[number]}
    ordered = sorted(studies, key=lambda study: study.case)
    training = [study for study in ordered if study.patient not in chosen]
    return training, [study for study in ordered if study.patient in chosen]


def _shuffle_by_tracer(studies: Sequence[Study], seed: int) -> list[str]:
    """Return the patients in random order, of whose first ones each tracer has the share that it has of all.

    A patient's place is the share of its tracer's studies (or of those of its tracers, where it has several) that come before.
    """
    sizes = Counter(study.patient for study in studies)
    tracers: dict[str, set[str]] = {}
    for study in studies:
        tracers.setdefault(study.patient, set()).add(study.tracer)
    strata = {patient: " ".join(sorted(names)) for patient, names in tracers.items()}
    totals = Counter(strata[study.patient] for study in studies)
    before: Counter[str] = Counter()
    places: dict[str, float] = {}
    # A hash is a random order that is the same on every machine, and in which a new patient does not move the others.
    for patient in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        stratum = strata[patient]
        places[patient] = (before[stratum] + sizes[patient] / 2) / totals[stratum]
        before[stratum] += sizes[patient]
    return sorted(places, key=places.__getitem__)


def _reachable_sums(sizes: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Return the sums that some of the numbers can have, each with the positions of such numbers.

    They are those that reach the sum first, and so lie near the beginning.

    Example:
        >>> _reachable_sums([2, 1, 2])
        {0: (), 2: (0,), 1: (1,), 3: (0, 1), 4: (0, 2), 5: (0, 1, 2)}
    """
    sums: dict[int, tuple[int, ...]] = {0: ()}
    for position, size in enumerate(sizes):
        for total, positions in list(sums.items()):
            sums.setdefault(total + size, (*positions, position))
    return sums
