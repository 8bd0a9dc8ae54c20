"""Splitting studies into training and validation, or into folds, patient by patient."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

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


def split_into_folds(studies: Sequence[Study], folds: int, seed: int, healthy: Set[str] = frozenset()) -> dict[str, int]:
    """Split studies into folds of about one size, all studies of a patient in one, with its share of each tracer and of studies
    without lesions.

    Every fold gets a patient with lesions. Patients are dealt out one after another, those with many studies first, each to the
    fold that has the fewest studies of its kinds. The order depends on the seed and the patients' names alone.

    Args:
        studies: of at least as many patients with lesions as there are folds.
        folds: their number, 2 or more.
        seed: whole number.
        healthy: cases without lesions.

    Returns:
        The fold of each case, from 0.

    Raises:
        InputError: when too few patients have lesions.
    """
    patients: dict[str, list[Study]] = {}
    for study in studies:
        patients.setdefault(study.patient, []).append(study)
    ill = {study.patient for study in studies if study.case not in healthy}
    if len(ill) < folds:
        raise InputError(
            f"{len(ill)} patients have lesions, and each of {folds} folds needs one: give fewer --folds, or prepare more patients "
            "(a CSV list with the column patient says who is who)"
        )
    counts: list[Counter[tuple[str, bool]]] = [Counter() for _ in range(folds)]
    result: dict[str, int] = {}
    for patient in sorted(patients, key=lambda name: (name not in ill, -len(patients[name]), _random_place(seed, name))):
        kinds = Counter((study.tracer, study.case in healthy) for study in patients[patient])
        # An empty fold is always the first choice, so that each gets one of the patients with lesions, who come first.
        fold = min(range(folds), key=lambda number: (_studies_of(kinds, counts[number]), counts[number].total()))
        counts[fold].update(kinds)
        result |= {study.case: fold for study in patients[patient]}
    return dict(sorted(result.items()))


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
    for patient in sorted(sizes, key=lambda name: _random_place(seed, name)):
        stratum = strata[patient]
        places[patient] = (before[stratum] + sizes[patient] / 2) / totals[stratum]
        before[stratum] += sizes[patient]
    return sorted(places, key=places.__getitem__)


def _random_place(seed: int, patient: str) -> bytes:
    # A hash is a random order that is the same on every machine, and in which a new patient does not move the others.
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()


def _studies_of(kinds: Mapping[tuple[str, bool], int], counts: Mapping[tuple[str, bool], int]) -> int:
    """Return how many studies of some kinds are there already, each kind as often as it is wanted."""
    return sum(number * counts[kind] for kind, number in kinds.items())
