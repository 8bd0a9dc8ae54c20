"""Evaluating the ensemble: the masks of every model in one pass, and their scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.engines import Evaluator

from petct_cascade.keeping import RecordKeeper
from petct_cascade.problems import number_of_studies, raise_if_any, raise_if_strict
from petct_cascade.provenance import SUMMARY
from petct_cascade.running import run_each_study
from petct_cascade.scoring import score_studies, score_tasks
from petct_cascade.selection import Selection
from petct_cascade.study_results import ResultStream, StudyResults
from petct_cascade.tasks import ReadoutOptions, StudyTask, words_if_hidden
from petct_training.errors import InputError
from petct_training.files import make_folder
from petct_training.seen import warn_of_seen


def evaluate(
    evaluator: Evaluator,
    selection: Selection,
    masks: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    fingerprint_file: str | os.PathLike,
    options: ReadoutOptions | None = None,
    seed: int = 0,
    strict: bool = False,
) -> None:
    """Write every model's masks in one pass, and score them on the original grid: Table 1, scores, read-outs, pictures, report.

    Of several processes that share the studies, the one that does the last study scores.

    Args:
        evaluator: the evaluator whose post-processing writes the masks of all models, and maps to the options' folder, if any.
        selection: its studies, with "label", of `petct_cascade.selection.select_items`, and what is wrong with others.
        masks: per model the folder of its masks; the last model is the one that is read out and drawn.
        output_dir: where scores and report appear; see `petct_cascade.scoring.score_studies`, which names the files.
        fingerprint_file: the fingerprint beside the weights; it is warned of studies that were in their training.
        options: how studies are read out and drawn.
        seed: of the bootstrap.
        strict: whether the first study that fails ends the run.

    Raises:
        InputError: there are no studies, the folder cannot be written or holds something else, or, if `strict`, a study fails.
        SomeFailedError: after all others are scored, with a sentence for each study that could not be.
    """
    for problem in selection.problems:
        if not problem.error:
            print(f"warning: {problem}", flush=True)
    errors = [problem for problem in selection.problems if problem.error]
    items = sorted([*selection.items, *selection.others], key=lambda item: str(item["case"]))
    if not items:
        raise_if_any(errors, "no study can be used", anything_done=False)
    if not items or selection.masks is None:
        raise InputError("the data set has no validation studies: prepare it with more patients")
    make_folder(output_dir)
    made, words = selection.masks, words_if_hidden(items, options)
    made.records.check_kind()
    options, kept = options or ReadoutOptions(), StudyResults(made.records)
    tasks = _tasks_of(items, masks, Path(output_dir), options)
    refused = [problem if words is None else words.problem(problem) for problem in kept.check(tasks.values())]
    raise_if_strict(strict, refused)
    # Of other cases, an earlier evaluation may have left masks.
    made.keep_only(item["case"] for item in items)
    with ResultStream(kept, min(options.num_workers, len(selection.items))) as stream:
        keeper = RecordKeeper(made, selection.items, lambda case, done: stream.submit(tasks[case], done))
        for problem in refused:
            keeper.fail(problem)
        told = [*refused, *(run_each_study(evaluator, strict, selection.check, keeper, words) if selection.items else ())]
    failed = {problem.case for problem in told}
    if waiting := [case for case in keeper.unsettled(items) if case not in failed]:
        print(
            f"{number_of_studies(len(waiting))} not done yet, such as {waiting[0]}: the run that does the last one scores",
            flush=True,
        )
    elif keeper.claims.claim(SUMMARY):
        try:
            told += [problem for problem in keeper.problems_of(items) if problem.case not in failed]
            failed = {problem.case for problem in told}
            # What is refused stays as it is.
            failed -= {problem.case for problem in refused}
            good = [item for item in items if item["case"] not in failed]
            made.keep_only(item["case"] for item in good)
            kept.keep_only([item["case"] for item in good])
            # Of a fold, those networks answer that hold it out.
            warn_of_seen([item for item in good if "fold" not in item], made.records.folder, fingerprint_file)
            score_studies(items, masks, output_dir, options, seed=seed, kind=made.records.kind, known=[*errors, *told])
        finally:
            keeper.claims.release(SUMMARY)


def _tasks_of(
    items: Sequence[Mapping[str, Any]], masks: Mapping[str, str | os.PathLike], output_dir: Path, options: ReadoutOptions
) -> dict[str, StudyTask]:
    """Return the task of scoring each study, by its case, once its masks are written."""
    files = {item["case"]: f"{item['case']}.nii.gz" for item in items}
    of_models = {model: {case: Path(folder) / name for case, name in files.items()} for model, folder in masks.items()}
    folder = options.uncertainty_dir
    maps = {} if folder is None else {case: Path(folder) / name for case, name in files.items()}
    return {task.item["case"]: task for task in score_tasks(items, of_models, maps, output_dir, options)}
