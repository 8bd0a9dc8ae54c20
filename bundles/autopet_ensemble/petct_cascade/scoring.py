"""Scoring folders of masks, ours or another tool's, without any network."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from petct_cascade.deidentification import deidentified_items, kind_of_results
from petct_cascade.items import References, masks_in_folder
from petct_cascade.problems import Problem, number_of_studies, raise_if_any
from petct_cascade.provenance import record_of, summary_of
from petct_cascade.report.study_parts import StudyPage
from petct_cascade.results import picture_of, write_results
from petct_cascade.studies import problem_of_name
from petct_cascade.study_results import StudyResults, make_results
from petct_cascade.tasks import ReadoutOptions, Results, StudyTask, files_of, words_if_hidden
from petct_training.errors import InputError
from petct_training.records import Records

# Heading of the report.
TITLE = "Evaluation"

# Of each model the file of each case.
Masks = Mapping[str, Mapping[str, Path]]


def score_folder(
    predictions: str | os.PathLike | None,
    references: References,
    output_dir: str | os.PathLike,
    model: str = "Prediction",
    options: ReadoutOptions | None = None,
    seed: int = 0,
) -> None:
    """Score a folder of masks; what `score_studies` does for one model.

    Args:
        predictions: folder with one binary mask a study, `<case>.nii.gz` or `<case>.nii`, on the grid of the reference.
        references: the studies, as `petct_cascade.items.reference_items` returns them.
        output_dir: where scores and report appear.
        model: what the masks are called in the tables.
        options: how studies are read out and drawn.
        seed: of the bootstrap.

    Raises:
        InputError: the folder is missing or empty, or no mask could be scored, or, of results without names, an image cannot be
            read or is there twice.
        SomeFailedError: after all other masks were scored, some masks could not be scored, or some references cannot be used.
    """
    if predictions is None:
        raise InputError("no masks are given: name their folder with --predictions.")
    options, names = options or ReadoutOptions(), None
    items, known = references
    if options.deidentified:
        named = deidentified_items(items, {item["case"]: Path(item["label"]) for item in items})
        names = {item["case"]: new["case"] for item, new in zip(items, named, strict=True)}
        unusable = sorted({problem.case for problem in known})
        names |= {case: f"unnamed reference {number}" for number, case in enumerate(unusable, 1)}
        items, known = named, [replace(problem, case=names[problem.case]) for problem in known]
    kind = kind_of_results("scores", options.deidentified)
    score_studies(items, {model: predictions}, output_dir, options, seed=seed, kind=kind, known=known, names=names)


def score_studies(
    items: Sequence[Mapping[str, Any]],
    predictions: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    options: ReadoutOptions | None = None,
    primary: str | None = None,
    seed: int = 0,
    kind: str = "scores",
    known: Sequence[Problem] = (),
    names: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Score the masks of one or more models, read out the primary model's, draw each study, and write the report.

    Writes to `output_dir`: with labels `scores.csv`, `summary.json`, `summary.md`, `table1.md`; with images `readouts.json`,
    `readouts_studies.csv`, `readouts_lesions.csv` and `pictures/<case>.png`; `problems.json`; and `report.html`.

    Args:
        items: studies as in inference: "case"; and, where there are such, "image" ([CT file, PET file], or one 4-D file with
            these channels), "label" (file), "patient", "tracer", "centre".
        predictions: per model the folder of its masks, `<case>.nii.gz` or `<case>.nii`, on the grid of label and PET.
        output_dir: where all of this appears.
        options: how studies are read out and drawn.
        primary: the model that is read out and drawn; the last of `predictions` by default.
        seed: of the bootstrap.
        kind: what is run; an output folder holds results of one kind, see `petct_training.records`.
        known: why further studies, or items among these, are not scored; what an earlier run has found out about these items
            stays.
        names: the items' names, and those of studies that are `known`, by those of the masks' files, where they differ.

    Returns:
        The rows of `scores.csv`.

    Raises:
        InputError: a folder is missing or empty, the output folder holds something else, or no mask could be scored.
        SomeFailedError: after everything else was scored and written, some masks are missing, have no study, lie on another grid,
            are not binary or cannot be read: each is named with its reason.
    """
    options, primary, output_dir = options or ReadoutOptions(), primary or list(predictions)[-1], Path(output_dir)
    if primary not in predictions:
        raise InputError(f"the model {primary} has no masks: choose from {', '.join(predictions)}.")
    if not items:
        raise InputError("there are no studies to score: check the folder or data list of references.")
    masks, twice = _masks_of_models(predictions)
    words = words_if_hidden(items, options, _files_of(masks), [*(names or ()), *(problem.case for problem in twice)])
    if names is not None:
        masks, twice = _renamed(masks, twice, names)
    unpaired = _unpaired([item["case"] for item in items], masks, {problem.case for problem in (*known, *twice)})
    records = Records(output_dir, kind, identifying=not options.deidentified)
    kept = StudyResults(records)
    with summary_of(records):
        maps = {} if options.uncertainty_dir is None else masks_in_folder(Path(options.uncertainty_dir))[0]
        maps = maps if names is None else {names[case]: file for case, file in maps.items() if case in names}
        named = {problem.case for problem in known}
        scored = [item for item in items if item["case"] not in named]
        tasks = score_tasks(scored, masks, maps, output_dir, options, primary)
        results = make_results(tasks, kept, options.num_workers)
        refused = [item["case"] for item in items if item["case"] in named]
        kept.keep_only([*refused, *(task.item["case"] for task in tasks)])
        origins = {task.item["case"]: record_of(records, task.item["case"], files_of(task)) for task in tasks}
        results.problems += [*known, *twice, *unpaired]
        if words is not None:
            results.problems = [words.problem(problem) for problem in results.problems]
        order = {model: position for position, model in enumerate(predictions)}
        results.rows.sort(key=lambda row: (row["case"], order[row["model"]]))
        write_results(output_dir, TITLE, results, primary, origins, options.single_file, seed)
    raise_if_any(results.problems, _what_failed(results, len(predictions)), bool(results.rows or results.readouts))
    return results.rows


def _what_failed(results: Results, models: int) -> str:
    """Return how many studies could not be scored, and how many have all their scores but could not be read out."""
    scores = Counter(row["case"] for row in results.rows)
    failed = {problem.case for problem in results.problems}
    scored = {case for case in failed if scores[case] == models}
    counts = [(failed - scored, "could not be scored"), (scored, "could not be read out")]
    return ", and ".join(f"{number_of_studies(len(cases))} {what}" for cases, what in counts if cases)


def _masks_of_models(predictions: Mapping[str, str | os.PathLike]) -> tuple[Masks, list[Problem]]:
    """Return per model the file of each case in its folder, and an error for each case that has two."""
    masks: dict[str, dict[str, Path]] = {}
    problems: list[Problem] = []
    for model, folder in predictions.items():
        masks[model], found = masks_in_folder(Path(folder))
        problems += found
    return masks, problems


def _files_of(masks: Masks) -> list[Path]:
    """Return the files of all masks."""
    return [file for files in masks.values() for file in files.values()]


def _renamed(masks: Masks, problems: Sequence[Problem], names: Mapping[str, str]) -> tuple[Masks, list[Problem]]:
    """Return masks and problems under the names of their studies; what belongs to no study has a number as its name."""
    cases = {case for files in masks.values() for case in files} | {problem.case for problem in problems}
    names = {**names, **{case: f"unnamed {number}" for number, case in enumerate(sorted(cases - set(names)), 1)}}
    renamed = {model: {names[case]: file for case, file in files.items()} for model, files in masks.items()}
    return renamed, [replace(problem, case=names[problem.case]) for problem in problems]


def _unpaired(cases: Sequence[str], masks: Masks, named: Iterable[str]) -> list[Problem]:
    """Return an error for each study without a mask and each mask without a study, but for cases that are `named` already."""
    unusable = [Problem(case, None, reason, error=True) for case in cases if (reason := problem_of_name(case))]
    named = {*named, *(problem.case for problem in unusable)}
    missing = [
        Problem(case, None, f"there is no mask of {model}", error=True)
        for case in cases
        for model, files in masks.items()
        if case not in files and case not in named
    ]
    known = {*cases, *named}
    surplus = [
        Problem(case, file, f"of {model} belongs to no study", error=True)
        for model, files in masks.items()
        for case, file in files.items()
        if case not in known
    ]
    return [*unusable, *missing, *surplus]


def score_tasks(
    items: Sequence[Mapping[str, Any]],
    masks: Masks,
    maps: Mapping[str, Path],
    output_dir: Path,
    options: ReadoutOptions,
    primary: str | None = None,
) -> list[StudyTask]:
    """Return the task of each study that has any mask. Where no study at all has images, none is read out.

    Args:
        items: studies, see `score_studies`.
        masks: of each model the file of each case.
        maps: of each case the map of uncertainty, where there is one.
        output_dir: where the results appear.
        options: how studies are read out and drawn.
        primary: the model that is read out and drawn; the last of `masks` by default.
    """
    primary = primary or list(masks)[-1]
    with_images = any(item.get("image") for item in items)
    page = None if options.single_file or not with_images else StudyPage(output_dir, TITLE, viewer=options.viewer)
    tasks = []
    for item in items:
        case = item["case"]
        files = {model: files[case] for model, files in masks.items() if case in files}
        if files and not problem_of_name(case):
            picture = picture_of(output_dir, case) if with_images else None
            tasks.append(StudyTask(item, files, primary, picture, maps.get(case), tuple(options.suv_range), page=page))
    return tasks
