"""Deciding which studies of a raw data set are used, and for which split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from petct_cascade.exclusions import read_exclusions
from petct_cascade.judging import find_repeated_images, read_study
from petct_cascade.preparation import VERSION, Preparation
from petct_cascade.prepared_study import crop_to_body
from petct_cascade.problems import Problem, first_names, raise_if_strict
from petct_cascade.split import split_by_patient, split_into_folds
from petct_cascade.studies import Study
from petct_cascade.workers import Workers
from petct_training.errors import InputError
from petct_training.files import read_json_or_none, write_json
from petct_training.grids import las_spacing


@dataclass(frozen=True)
class Judgement:
    """What reading a study has told.

    Attributes:
        study: the study.
        problems: what is wrong with it.
        healthy: whether its label is empty; None, like all that follows, when the study cannot be used.
        spacing: of the PET, mm, along the axes of LAS.
        digest: of the PET; see `petct_cascade.volumes.Volume`.
    """

    study: Study
    problems: list[Problem]
    healthy: bool | None = None
    spacing: list[float] | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Admission:
    """The studies that are used, and why others are not.

    Attributes:
        training: judgements of the studies to train with; with folds, of all.
        validation: judgements of the studies to validate with; with folds, of none.
        excluded: the reason for which each other case is left out, sorted by case.
        problems: the errors of all studies, and the warnings of those that are used.
        folds: the fold that holds each case out, from 0; empty without folds.
    """

    training: list[Judgement]
    validation: list[Judgement]
    excluded: dict[str, str]
    problems: list[Problem]
    folds: dict[str, int] = field(default_factory=dict)

    @property
    def studies(self) -> list[Study]:
        """The studies of both splits."""
        return [judgement.study for judgement in (*self.training, *self.validation)]


def admit_studies(preparation: Preparation, workers: Workers, studies: Sequence[Study], problems: Sequence[Problem]) -> Admission:
    """Check the studies and split those that can be used.

    Args:
        preparation: what the user wants.
        workers: they read the studies that were not read before.
        studies: those that were found.
        problems: what was wrong with others.

    Raises:
        InputError: when too few studies can be used; if `strict`, when any study has an error.
    """
    options = preparation.options
    on_list = _on_exclusion_list({study.case for study in studies} | {problem.case for problem in problems}, options.exclude)
    problems = [problem for problem in problems if problem.case not in on_list]
    raise_if_strict(options.strict, problems)
    judgements = judge_studies(preparation, workers, [study for study in studies if study.case not in on_list])
    problems = _all_problems(problems, judgements)
    raise_if_strict(options.strict, problems)
    healthy = {} if options.keep_healthy else _reasons_of_healthy(judgements)
    excluded = dict(sorted((healthy | on_list | _reasons_of_errors(problems)).items()))
    training, validation, folds = _split(preparation, judgements, excluded)
    problems = [problem for problem in problems if problem.error or problem.case not in excluded]
    return Admission(training, validation, excluded, problems, folds)


def judge_studies(preparation: Preparation, workers: Workers, studies: Sequence[Study]) -> list[Judgement]:
    """Return the judgements of studies, in their order; those whose files are as in an earlier run are not read again.

    Raises:
        InputError: if `strict`, at the first study with an error.
    """
    strict = preparation.options.strict
    judgements: dict[str, Judgement] = {}
    for study in studies:
        known = read_judgement(preparation, study)
        if known is not None:
            raise_if_strict(strict, known.problems)
            judgements[study.case] = known
    unknown = [study for study in studies if study.case not in judgements]
    for judgement in workers.map(partial(judge_and_crop, preparation), unknown, "check"):
        raise_if_strict(strict, judgement.problems)
        judgements[judgement.study.case] = judgement
    return [judgements[study.case] for study in studies]


def judge_and_crop(preparation: Preparation, study: Study) -> Judgement:
    """Read a study; keep the judgement and, if it can be used and has a lesion, the study itself, cropped, beside the data set."""
    sources = preparation.sources(study)
    settings = preparation.settings(sources)
    problems, volumes = read_study(study)
    if any(problem.error for problem in problems):
        judgement = Judgement(study, problems)
    else:
        healthy = not bool(volumes["label"].array.any())
        if not healthy:
            preparation.cropped(study.case).write(settings, *crop_to_body(volumes, preparation.options))
        judgement = Judgement(study, problems, healthy, las_spacing(volumes["pet"].affine), volumes["pet"].digest)
    write_judgement(preparation, judgement, sources)
    return judgement


def write_judgement(preparation: Preparation, judgement: Judgement, sources: Mapping[str, Any]) -> None:
    """Write a judgement with what it is about: a study whose files were `sources` (see `Preparation.sources`) when it was read."""
    record = {
        "version": VERSION,
        "case": judgement.study.case,
        "sources": sources,
        "problems": [
            [problem.file and preparation.relative_to_root(problem.file), problem.message, problem.error]
            for problem in judgement.problems
        ],
        "healthy": judgement.healthy,
        "spacing": judgement.spacing,
        "digest": judgement.digest,
    }
    write_json(preparation.checked_record(judgement.study.case), record)


def read_judgement(preparation: Preparation, study: Study) -> Judgement | None:
    """Return the judgement of an earlier run; None when there is none, or the study's files are others now."""
    record = read_json_or_none(preparation.checked_record(study.case))
    if record is None or record["version"] != VERSION:
        return None
    sources = preparation.sources(study)
    if preparation.settings(sources)["sources"] != preparation.settings(record["sources"])["sources"]:
        return None
    if record["problems"] and _paths(sources) != _paths(record["sources"]):
        # The problems name files.
        return None
    problems = [
        Problem(study.case, file and preparation.root / file, message, error) for file, message, error in record["problems"]
    ]
    judgement = Judgement(study, problems, record["healthy"], record["spacing"], record["digest"])
    if sources != record["sources"]:
        # Moved or copied: with the present clocks the next run need not read the files again.
        write_judgement(preparation, judgement, sources)
    return judgement


def _paths(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the path of each source."""
    return {role: source["path"] for role, source in sources.items()}


def lines_of_reasons(excluded: Mapping[str, str]) -> list[str]:
    """Return one line a reason, with the cases that are left out for it."""
    reasons: dict[str, list[str]] = {}
    for case, reason in excluded.items():
        reasons.setdefault(reason, []).append(case)
    return [f"{reason} ({first_names(cases)})" for reason, cases in reasons.items()]


def _on_exclusion_list(cases: Iterable[str], exclude: Any) -> dict[str, str]:
    """Return the cases that the user wants to leave out, with that as the reason, and print which of them are not there."""
    wanted = set(read_exclusions(exclude))
    unknown = sorted(wanted.difference(cases))
    if unknown:
        print(f"{len(unknown)} of the cases to exclude are not in the data set: {first_names(unknown)}", flush=True)
    return dict.fromkeys(sorted(wanted.intersection(cases)), "it is on the exclusion list")


def _all_problems(problems: Iterable[Problem], judgements: Sequence[Judgement]) -> list[Problem]:
    """Return the problems that were found before the studies were read and since, sorted by case, errors first."""
    repeated = find_repeated_images({judgement.study.case: judgement.digest for judgement in judgements if judgement.digest})
    together = [*problems, *(problem for judgement in judgements for problem in judgement.problems), *repeated]
    return sorted(together, key=lambda problem: (problem.case, not problem.error, problem.sentence))


def _reasons_of_healthy(judgements: Iterable[Judgement]) -> dict[str, str]:
    """Return the cases without a lesion, with that as the reason."""
    return {judgement.study.case: "it has no lesion: its label is empty" for judgement in judgements if judgement.healthy}


def _reasons_of_errors(problems: Iterable[Problem]) -> dict[str, str]:
    """Return the errors of each case in one line."""
    reasons: dict[str, str] = {}
    for problem in problems:
        if problem.error:
            reasons[problem.case] = "; ".join(filter(None, [reasons.get(problem.case), problem.sentence]))
    return reasons


def _split(
    preparation: Preparation, judgements: Sequence[Judgement], excluded: Mapping[str, str]
) -> tuple[list[Judgement], list[Judgement], dict[str, int]]:
    """Split the judgements of the studies that are not excluded into training and validation, or into folds."""
    usable = {judgement.study.case: judgement for judgement in judgements if judgement.study.case not in excluded}
    studies, options = [judgement.study for judgement in usable.values()], preparation.options
    healthy = {case for case, judgement in usable.items() if judgement.healthy}
    try:
        if options.folds:
            folds = split_into_folds(studies, options.folds, options.seed, healthy)
            return [usable[case] for case in folds], [], folds
        splits = split_by_patient(studies, options.validation_fraction, options.seed)
    except InputError as error:
        lines = "".join(f"\n  {line}" for line in lines_of_reasons(excluded))
        raise InputError(f"{error}{lines and ' Left out:'}{lines}") from error
    training, validation = ([usable[study.case] for study in split] for split in splits)
    return training, validation, {}
