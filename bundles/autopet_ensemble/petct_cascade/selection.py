"""Selecting the studies that an inference has to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from petct_cascade.deidentification import deidentified_items, deidentified_studies, words_of_items
from petct_cascade.dicom.finding import DicomOptions
from petct_cascade.items import unseen_items
from petct_cascade.problems import Problem, problem_of_sentence, raise_if_strict
from petct_cascade.studies import Study, find_studies, problem_of_name, study_of_places
from petct_cascade.study_results import StudyResults, files_of_case
from petct_cascade.volumes import as_source
from petct_training.claims import bytes_of, share_of
from petct_training.errors import InputError, boolean
from petct_training.files import make_folder
from petct_training.masks import Masks
from petct_training.records import Records

# Suffixes of lists of studies, in which the user has named them.
LISTS = (".csv", ".json")


@dataclass(frozen=True)
class Selection:
    """The studies of an inference.

    Attributes:
        items: {"case", "image": [CT file, PET file], "patient", "tracer", ("centre"), ("body"), ("coarse_mask"), ("points")} of the
            studies to do.
        done: the same of the studies whose masks an earlier run has made.
        others: the same of the studies that other processes do, see `SelectOptions`.
        problems: why other studies cannot be used, and what is remarkable about those that can.
        namesakes: cases of studies that cannot be used, of which an earlier run has given the name to another study, whose results
            stay.
        masks: what is made of each study, and where; None when nothing is recorded.
        check: whether each study is judged when it is read.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    done: list[dict[str, Any]] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    namesakes: Set[str] = frozenset()
    masks: Masks | None = None
    check: bool = True


@dataclass(frozen=True)
class SelectOptions:
    """How studies are selected.

    Attributes:
        check: whether each study is judged by `petct_cascade.judging.read_study` when it is read.
        strict: whether the first study with an error ends the run.
        allow_outside: whether a list may name files outside of its folder.
        part: number of this process among those that share the studies, from 1.
        of: number of these processes.
        dicom: which series of DICOM studies are taken, and what their headers do not say.
        deidentified: whether studies get names that tell nothing of their patients, and problems name no file. Names in a list
            stay: they are the user's choice.
        named: whether the name of a given study is the user's choice, and stays, too.

    Raises:
        InputError: when a switch is neither true nor false.
    """

    check: bool = True
    strict: bool = False
    allow_outside: bool = False
    part: int = 1
    of: int = 1
    dicom: DicomOptions = field(default_factory=DicomOptions)
    deidentified: bool = False
    named: bool = False

    def __post_init__(self) -> None:
        for name in ("check", "strict", "allow_outside", "deidentified"):
            # The command line gives "true" and "false" as texts.
            object.__setattr__(self, name, boolean(name, getattr(self, name)))


def select_studies(
    studies: str | os.PathLike | Study,
    masks: Masks | None = None,
    options: SelectOptions | None = None,
    known: Sequence[Problem] = (),
) -> Selection:
    """Select the studies that an inference has to do.

    Args:
        studies: folder or list of studies, as `petct_cascade.studies.find_studies` reads it, or one study.
        masks: what is made of each study, and where. The folders are made. A study whose record says that its masks were made from
            these very files with these settings is done; one in whose place something else lies is an error.
        options: what else can be chosen.
        known: what is known already of a given study.

    Raises:
        InputError: when there is nothing to be found, a folder cannot be written or holds results of another kind, or, if `strict`,
            when a study cannot be used.
    """
    options = options or SelectOptions()
    everything, problems = _find_or_take(studies, options)
    problems = [*known, *problems]
    if options.deidentified:
        everything, problems = deidentified_studies(everything, problems, options.named or _is_list(studies))
    found = share_of(everything, options.part, options.of, lambda study: bytes_of(study.pet))
    raise_if_strict(options.strict, problems)
    done: list[Study] = []
    namesakes: set[str] = set()
    if masks is not None:
        done, refused, namesakes = _look_up(found, masks)
        if options.deidentified:
            words = words_of_items(map(inference_item, found))
            refused = [words.problem(problem) for problem in refused]
        namesakes |= _not_searched(problems, studies, masks.records)
        problems += refused
        raise_if_strict(options.strict, refused)
    bad = {problem.case for problem in problems if problem.error}
    todo = [study for study in found if study not in done and study.case not in bad]
    others = [study for study in everything if study not in found]
    mine = _items_without(bad, todo), _items_without(bad, done)
    return Selection(*mine, _items_without(bad, others), problems, namesakes, masks, options.check)


def labelled_items(
    dataset_dir: str | os.PathLike,
    fingerprint_file: str | os.PathLike,
    studies: str | os.PathLike | None = None,
    options: SelectOptions | None = None,
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Return the studies with which weights are evaluated, and what is wrong with others.

    Args:
        dataset_dir: prepared data set, of which the studies are taken that the weights have not seen; see
            `petct_cascade.items.unseen_items`.
        fingerprint_file: the fingerprint beside the weights.
        studies: folder or list of labelled studies, as `petct_cascade.studies.find_studies` reads it, in the place of the prepared
            data set.
        options: what else can be chosen.

    Returns:
        Items as those of an inference, with "label".

    Raises:
        InputError: as `unseen_items`; or when there is nothing to be found, or, if `strict`, when a study cannot be used.
    """
    options = options or SelectOptions()
    if studies is None:
        items = unseen_items(dataset_dir, fingerprint_file, options.allow_outside)
        return deidentified_items(items) if options.deidentified else items, []
    found, problems = find_studies(studies, labels=True, allow_outside=options.allow_outside, dicom=options.dicom)
    if options.deidentified:
        found, problems = deidentified_studies(found, problems, _is_list(studies))
    raise_if_strict(options.strict, problems)
    bad = {problem.case for problem in problems if problem.error}
    return [inference_item(study) | {"label": _place_of(study.label)} for study in found if study.case not in bad], problems


def select_items(
    items: Sequence[dict[str, Any]],
    masks: Masks,
    options: SelectOptions | None = None,
    problems: Sequence[Problem] = (),
) -> Selection:
    """Select labelled studies for one of several processes.

    Args:
        items: all of them, with "case", "image" and "label".
        masks: what is made of each study, and where.
        options: whether each study is judged when it is read, which preparing has done of a prepared data set; and which of the
            processes this is.
        problems: what is wrong with other studies.

    Raises:
        InputError: if `strict`, when the coarse mask of a study would not outlast the evaluation.
    """
    options = options or SelectOptions(check=False)
    refused = _refused_of_evaluation(items, masks)
    if options.deidentified:
        words = words_of_items(items)
        refused = [words.problem(problem) for problem in refused]
    raise_if_strict(options.strict, refused)
    bad = {problem.case for problem in refused}
    items = [item for item in items if item["case"] not in bad]
    mine = share_of(items, options.part, options.of, lambda item: bytes_of(item["image"][1]))
    cases = {item["case"] for item in mine}
    others = [item for item in items if item["case"] not in cases]
    return Selection(items=mine, others=others, problems=[*problems, *refused], masks=masks, check=options.check)


def source_of(
    studies: str | os.PathLike,
    ct: str | os.PathLike | None = None,
    pet: str | os.PathLike | None = None,
    case: str | None = None,
    dicom: DicomOptions | None = None,
    coarse_mask: str | os.PathLike | None = None,
    points: str | os.PathLike | None = None,
) -> tuple[str | os.PathLike | Study, list[Problem]]:
    """Return the study of a CT (HU, on any grid) and a PET (body-weight SUV), and what is to be said of it.

    Where neither is given, that is `studies`.

    Args:
        studies: folder or list of studies.
        ct: of one study, as `petct_cascade.studies.study_of_places` takes it.
        pet: the same.
        case: what this one study is called; see `petct_cascade.studies.study_of_places` for its name without one.
        dicom: which series of DICOM studies are taken, and what their headers do not say.
        coarse_mask: of this one study, in place of stage 1's.
        points: file of clicks in this one study.

    Raises:
        InputError: when one of the two files is given alone, a name, a mask or points are given to many studies, or a name cannot
            be part of a file's name.
    """
    if ct is not None and pet is not None:
        study, known = study_of_places(ct, pet, None if case is None else str(case), dicom, coarse_mask, points)
        if reason := problem_of_name(study.case):
            raise InputError(f"study {study.case}: {reason}, or name it with --case")
        return study, known
    if ct is not None or pet is not None:
        raise InputError(f"--{'pet' if pet is None else 'ct'} is missing: give one file for the CT and one for the PET")
    if case is not None:
        raise InputError(f"--case {case} names one study: give its --ct and --pet; in a list, fill in the column case")
    for name, value in (("coarse_mask", coarse_mask), ("points", points)):
        if value is not None:
            raise InputError(
                f"--{name} {value} belongs to one study: give its --ct and --pet; in a list, fill in the column {name}"
            )
    return studies, []


def inference_item(study: Study) -> dict[str, Any]:
    """Return what an inference is told of a study; see `Selection`."""
    image = [_place_of(source) for source in (study.ct, study.pet)]
    item: dict[str, Any] = {"case": study.case, "patient": study.patient, "tracer": study.tracer, "image": image}
    if study.centre is not None:
        item["centre"] = study.centre
    if study.coarse_mask is not None:
        item["coarse_mask"] = _place_of(study.coarse_mask)
    if study.points is not None:
        item["points"] = study.points
    return item if study.body is None else item | {"body": asdict(study.body)}


def _is_list(studies: str | os.PathLike | Study) -> bool:
    """Return whether studies are those of a list, in which the user has named them."""
    return not isinstance(studies, Study) and Path(studies).is_file() and Path(studies).suffix.lower() in LISTS


def _place_of(source: Any) -> Any:
    """Return a path as text, as other tools know it, and what reads itself as it is."""
    return str(source) if isinstance(source, Path) else source


def _find_or_take(studies: str | os.PathLike | Study, options: SelectOptions) -> tuple[list[Study], list[Problem]]:
    """Return one given study, or those of a folder or list, and what is wrong with others there."""
    if isinstance(studies, Study):
        return [studies], []
    return find_studies(studies, labels=False, allow_outside=options.allow_outside, dicom=options.dicom)


def _items_without(bad: Set[str], studies: Sequence[Study]) -> list[dict[str, Any]]:
    """Return the items of the studies whose case is not among the bad ones."""
    return [inference_item(study) for study in studies if study.case not in bad]


def _look_up(studies: Sequence[Study], masks: Masks) -> tuple[list[Study], list[Problem], set[str]]:
    """Return the studies whose masks are there, an error for each whose place is taken by something else, and the cases of those
    whose place is another study's.
    """
    for folder in masks.folders:
        make_folder(folder)
    masks.records.check_kind()
    done, problems, namesakes = [], [], set()
    is_given = any(study.coarse_mask is not None for study in studies)
    at_risk = _files_at_risk(masks, [study.case for study in studies]) if is_given else set()
    for study in studies:
        item = inference_item(study)
        try:
            _refuse_to_replace(item, masks, at_risk)
            if masks.records.is_current(masks.plan(item)):
                done.append(study)
        except InputError as error:
            problems.append(problem_of_sentence(str(error), study.case))
            if masks.records.holds_other_study(masks.plan(item)):
                namesakes.add(study.case)
    return done, problems, namesakes


def _not_searched(problems: Iterable[Problem], studies: str | os.PathLike | Study, records: Records) -> set[str]:
    """Return the cases among those that could not be found whole of which there are results of a study elsewhere.

    A study without its PET has nothing but its name to tell it by, and another folder may have one of the same name.
    """
    if isinstance(studies, Study):
        return set()
    folder = Path(studies) if Path(studies).is_dir() else Path(studies).parent
    cases = {problem.case for problem in problems if problem.error and problem_of_name(problem.case) is None}
    return {case for case in cases if records.read(case) is not None and not records.is_made_from(case, folder)}


def _refused_of_evaluation(items: Sequence[dict[str, Any]], masks: Masks) -> list[Problem]:
    """Return an error for each study of an evaluation whose coarse mask is a file that the evaluation may write or delete."""
    given = [item for item in items if "coarse_mask" in item]
    # What earlier evaluations have made of other studies is deleted.
    cases = [*masks.records.names(), *StudyResults(masks.records).names()] if given else []
    at_risk = _files_at_risk(masks, {*cases, *(item["case"] for item in given)})
    refused = []
    for item in given:
        try:
            _refuse_to_replace(item, masks, at_risk)
        except InputError as error:
            refused.append(Problem(item["case"], None, str(error), error=True))
    return refused


def _files_at_risk(masks: Masks, cases: Iterable[str]) -> set[Path]:
    """Return the files of cases, without links, of which there may be results that a run replaces or deletes."""
    return {file.resolve() for case in cases for file in files_of_case(masks.records, case)}


def _refuse_to_replace(item: Mapping[str, Any], masks: Masks, at_risk: Set[Path]) -> None:
    """Refuse a study whose coarse mask is a file that its run may write or delete.

    Args:
        item: the study's.
        masks: what is made of each study, and where.
        at_risk: results that the run may replace or delete, without links.

    Raises:
        InputError: with what to do.
    """
    if "coarse_mask" not in item:
        return
    mask = as_source(item["coarse_mask"])
    file = mask.resolve()
    planned = {(masks.records.folder / output).resolve() for output in masks.plan(item).outputs}
    if file in planned or file in at_risk:
        raise InputError(f"its coarse mask {os.fspath(mask)} would be replaced by the answer: name another output folder")
