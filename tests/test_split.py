"""Promises of the split into training and validation."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petct_cascade.split import split_by_patient, split_into_folds
from petct_cascade.studies import Study
from petct_training.errors import InputError


def make_studies(patients: list[tuple[int, str]]) -> list[Study]:
    """One study list per patient: how many, and of which tracer."""
    return [
        Study(f"{tracer}_{patient}_{number}", str(patient), tracer, Path("ct.nii"), Path("pet.nii"))
        for patient, (count, tracer) in enumerate(patients)
        for number in range(count)
    ]


PATIENTS = st.lists(st.tuples(st.integers(1, 7), st.sampled_from(["fdg", "psma"])), min_size=2, max_size=40)


@given(patients=PATIENTS, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_split_never_separates_a_patient(patients, fraction, seed):
    studies = make_studies(patients)
    training, validation = split_by_patient(studies, fraction, seed)
    assert not {study.patient for study in training} & {study.patient for study in validation}
    assert sorted(study.case for study in (*training, *validation)) == sorted(study.case for study in studies)
    assert training
    assert validation


@given(patients=PATIENTS, seed=st.integers(0, 100), chance=st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_split_does_not_depend_on_the_order_of_the_studies(patients, seed, chance):
    studies = make_studies(patients)
    shuffled = studies.copy()
    chance.shuffle(shuffled)
    assert split_by_patient(studies, 0.2, seed) == split_by_patient(shuffled, 0.2, seed)


@given(
    patients=st.lists(st.tuples(st.integers(1, 7), st.sampled_from(["fdg", "psma"])), min_size=2, max_size=9),
    fraction=st.floats(0.05, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_split_is_as_close_to_the_fraction_as_patients_allow(patients, fraction):
    studies = make_studies(patients)
    counts = [count for count, _ in patients]
    subsets = itertools.chain.from_iterable(itertools.combinations(counts, size) for size in range(1, len(counts)))
    best = min(abs(sum(subset) - fraction * len(studies)) for subset in subsets)
    _, validation = split_by_patient(studies, fraction, 0)
    assert abs(len(validation) - fraction * len(studies)) == pytest.approx(best)


def test_split_of_the_challenge_keeps_the_share_of_each_tracer():
    studies = make_studies([(1, "fdg")] * 420 + [(3, "fdg")] * 27 + [(1, "psma")] * 214 + [(2, "psma")] * 162)
    _, validation = split_by_patient(studies, 0.2, 0)
    shares = {tracer: count / 5 for tracer, count in Counter(study.tracer for study in studies).items()}
    for tracer, count in Counter(study.tracer for study in validation).items():
        assert abs(count - shares[tracer]) <= 1
    assert abs(len(validation) - 0.2 * len(studies)) <= 0.5


def test_split_depends_on_the_seed():
    studies = make_studies([(1, "fdg")] * 30)
    assert len({tuple(split_by_patient(studies, 0.2, seed)[1]) for seed in range(10)}) > 5


def test_patient_with_both_tracers_is_not_separated():
    studies = make_studies([(2, "fdg")] * 5)
    mixed = [Study(f"psma_{s.case}", s.patient, "psma", s.ct, s.pet) for s in studies]
    training, validation = split_by_patient([*studies, *mixed], 0.2, 0)
    assert not {study.patient for study in training} & {study.patient for study in validation}


def test_one_patient_cannot_be_split():
    with pytest.raises(InputError, match="one patient"):
        split_by_patient(make_studies([(5, "fdg")]), 0.2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_share_of_each_tracer_is_kept_as_closely_as_one_patient_at_any_seed(seed):
    studies = make_studies([(number % 3 + 1, "fdg") for number in range(150)] + [(1, "psma")] * 80)
    training, validation = split_by_patient(studies, 0.2, seed)
    for tracer in ("fdg", "psma"):
        parts = [sum(study.tracer == tracer for study in split) for split in (training, validation)]
        assert abs(parts[1] - 0.2 * sum(parts)) <= 3


def test_new_patient_moves_few_others_from_one_side_to_the_other():
    studies = make_studies([(1, "fdg")] * 200)
    _, before = split_by_patient(studies[:-1], 0.2, 0)
    _, after = split_by_patient(studies, 0.2, 0)
    assert len(set(before) ^ set(after)) <= 2


FOLDED = st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["fdg", "psma"])), min_size=5, max_size=60)


@given(patients=FOLDED, folds=st.integers(2, 5), seed=st.integers(0, 1000), chance=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_folds_never_separate_a_patient_and_each_has_lesions_whatever_the_order(patients, folds, seed, chance):
    studies = make_studies(patients)
    ill = {study.patient for study in studies[:1]} | {str(number) for number in range(1, folds)}
    healthy = {study.case for study in studies if study.patient not in ill}
    result = split_into_folds(studies, folds, seed, healthy)
    assert set(result) == {study.case for study in studies}
    assert {fold for case, fold in result.items() if case not in healthy} == set(range(folds))
    of_patients = {(study.patient, result[study.case]) for study in studies}
    assert len(of_patients) == len(patients)
    chance.shuffle(studies)
    assert split_into_folds(studies, folds, seed, healthy) == result


def test_folds_of_the_challenge_have_one_size_and_its_share_of_each_tracer_and_of_healthy_studies():
    studies = make_studies([(1, "fdg")] * 800 + [(3, "fdg")] * 70 + [(1, "psma")] * 214 + [(2, "psma")] * 162)
    healthy = {study.case for study in studies if study.tracer == "fdg" and int(study.patient) % 2}
    result = split_into_folds(studies, 5, 0, healthy)
    kinds = Counter((result[study.case], study.tracer, study.case in healthy) for study in studies)
    for tracer, without in itertools.product(("fdg", "psma"), (False, True)):
        sizes = [kinds[fold, tracer, without] for fold in range(5)]
        assert max(sizes) - min(sizes) <= 1


def test_folds_depend_on_the_seed():
    studies = make_studies([(1, "fdg")] * 30)
    assert len({tuple(split_into_folds(studies, 5, seed).items()) for seed in range(10)}) == 10


def test_more_folds_than_patients_with_lesions_are_one_sentence():
    studies = make_studies([(4, "fdg"), (1, "fdg"), (1, "psma")])
    with pytest.raises(InputError, match="2 patients have lesions, and each of 3 folds needs one: give fewer --folds"):
        split_into_folds(studies, 3, 0, {studies[-1].case})
