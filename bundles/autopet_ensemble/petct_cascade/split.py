"""Splitting studies into training and validation, patient by patient."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

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
    chosen = _choose({patient: sizes[patient] for patient in _shuffle_by_tracer(studies, seed)}, fraction)
    ordered = sorted(studies, key=lambda study: study.case)
    training = [study for study in ordered if study.patient not in chosen]
    return training, [study for study in ordered if study.patient in chosen]


def _choose(sizes: Mapping[str, int], fraction: float) -> set[str]:
    """Return the first patients whose studies are as close to a fraction of all as possible, neither none nor all.

    Args:
        sizes: number of studies of each patient, in the order in which patients are preferred.
        fraction: share of the studies.
    """
    number = sum(sizes.values())
    wanted = fraction * number

    def nearest(totals: Iterable[int]) -> int:
        return min(totals, key=lambda total: (abs(total - wanted), total))

    # Each number of studies that some of the first patients have together, and the last of those by whom it was reached first.
    last = {0: ""}
    ideal = nearest(range(1, number))
    for patient, size in sizes.items():
        if ideal in last:
            break
        for total in list(last):
            last.setdefault(total + size, patient)
    total = nearest(total for total in last if 0 < total < number)
    chosen = set()
    while total:
        chosen.add(last[total])
        total -= sizes[last[total]]
    return chosen


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
