"""Segmenting the selected studies: their masks, read-outs, pictures and report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.engines import Evaluator

from petct_cascade.deidentification import Words
from petct_cascade.keeping import Keeper, RecordKeeper, known_problems
from petct_cascade.problems import Problem, first_names, number_of_studies, raise_if_any, raise_if_strict
from petct_cascade.provenance import SUMMARY, check_summary, summary_of
from petct_cascade.readout_run import read_out_studies, readout_tasks, tell_warnings
from petct_cascade.running import run_each_study
from petct_cascade.selection import Selection
from petct_cascade.studies import problem_of_name
from petct_cascade.study_results import ResultStream, StudyResults
from petct_cascade.tasks import ReadoutOptions, StudyTask, words_if_hidden
from petct_training.claims import is_one_of_torchrun
from petct_training.errors import InputError
from petct_training.records import Records

# What the masks are called in the report.
MODEL = "Ensemble"


def infer(
    evaluator: Evaluator,
    selection: Selection,
    output_dir: str | os.PathLike,
    options: ReadoutOptions | None = None,
    strict: bool = False,
) -> None:
    """Write the masks of the selected studies; then read-outs, pictures and report of all of them, also of those done earlier.

    Args:
        evaluator: the evaluator whose post-processing writes the masks to `output_dir`, and maps to the options' folder, if any.
        selection: its studies.
        output_dir: folder of masks, in which the read-outs appear; see `petct_cascade.readout_run.read_out_studies`, which
            names the files.
        options: how studies are read out and drawn.
        strict: whether the first study that fails ends the run.

    Raises:
        InputError: when no study at all could be used, or, if `strict`, when one fails.
        SomeFailedError: after all others are done, with a sentence for each study that could not be used.
    """
    options = options or ReadoutOptions()
    records = Records(Path(output_dir), "inference") if selection.masks is None else selection.masks.records
    mine = [*selection.done, *selection.items]
    everyone = [*mine, *selection.others]
    named = [item for item in everyone if problem_of_name(item["case"]) is None]
    masks = {item["case"]: Path(output_dir) / f"{item['case']}.nii.gz" for item in named}
    tasks = {task.item["case"]: task for task in readout_tasks(named, masks, records.folder, MODEL, options)}
    kept = StudyResults(records)
    check_summary(records)
    words = words_if_hidden(everyone, options)
    refused = kept.check(tasks[item["case"]] for item in named if selection.masks is None or selection.masks.may_make(item))
    refused = [problem if words is None else words.problem(problem) for problem in refused]
    raise_if_strict(strict, refused)
    with ResultStream(kept, min(options.num_workers, len(selection.items))) as stream:
        then = None if selection.masks is None else lambda case, done: stream.submit(tasks[case], done)
        keeper = None if selection.masks is None else RecordKeeper(selection.masks, mine, then)
        if keeper is not None:
            for item in selection.done:
                keeper.excuse(item["case"])
        problems = _segment(evaluator, selection, keeper, refused, strict, words)
    tell_warnings(stream.results, everyone, options)
    items, what = _usable(mine, problems), "all others were done"
    waiting = [] if keeper is None else keeper.unsettled(_usable(everyone, problems))
    reports = not waiting and (keeper is None or keeper.claims.claim(SUMMARY))
    if waiting:
        print(
            f"{number_of_studies(len(waiting))} not done yet, such as {waiting[0]}: the run that does the last one reports",
            flush=True,
        )
    elif reports:
        problems += _told_by_others(keeper, everyone, problems)
        items = _usable(everyone, problems)
        try:
            cases = [*tasks, *(problem.case for problem in problems if problem.case not in selection.namesakes)]
            problems += _report(kept, [tasks[item["case"]] for item in items], cases, problems, options)
        except InputError as error:
            if not problems:
                raise InputError(f"all masks are written, but read-outs or report are not complete: {error}") from error
            # Why the report could not be written shall not hide what is wrong with studies.
            what = f"there is no report of the others, since {error}"
        finally:
            if keeper is not None:
                keeper.claims.release(SUMMARY)
    # Which process of torchrun reports also ends with the exit code of all.
    if reports or not is_one_of_torchrun():
        number = number_of_studies(len({problem.case for problem in problems}))
        raise_if_any(problems, f"{number} cannot be used", bool(items), what)


def _told_by_others(
    keeper: RecordKeeper | None, everyone: Iterable[Mapping[str, Any]], problems: Iterable[Problem]
) -> list[Problem]:
    """Return what other runs over the same studies have met that this one has not."""
    told = {problem.case for problem in problems}
    return [] if keeper is None else keeper.problems_of([item for item in everyone if item["case"] not in told])


def _report(
    kept: StudyResults, tasks: Sequence[StudyTask], cases: Sequence[str], problems: Sequence[Problem], options: ReadoutOptions
) -> list[Problem]:
    """Write tables and report.

    Args:
        kept: the results of studies in the output folder.
        tasks: of the studies that have masks.
        cases: of all studies that were selected, and are no namesakes; what earlier runs have found out about other ones stays in
            the tables.
        problems: what is already known to be wrong with studies.
        options: how studies are read out and drawn.

    Returns:
        Why further studies could not be read out.
    """
    intact = [name for name in kept.records.names() if not name.startswith(".") and kept.records.is_intact(name)]
    selected = set(cases)
    failed = selected - {task.item["case"] for task in tasks}
    # What has failed in an earlier run stays failed until it is done again.
    earlier = [problem for problem in known_problems(kept.records) if problem.case not in selected]
    left_out = selected | {problem.case for problem in earlier}
    others = [name for name in intact if name not in left_out]
    with summary_of(kept.records):
        errors = read_out_studies(tasks, kept, MODEL, options, [*problems, *earlier], others)
        kept.keep_only([*cases, *kept.records.names()])
    if stale := [name for name in intact if name in failed]:
        names = first_names(stale, most=1)
        print(f"Masks of an earlier run stay, and are in no table, since their studies failed now: {names}.", flush=True)
    return errors


def _usable(items: Iterable[dict[str, Any]], problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Return the items of the studies that have no problem, sorted by case."""
    failed = {problem.case for problem in problems}
    return sorted((item for item in items if item["case"] not in failed), key=lambda item: str(item["case"]))


def _segment(
    evaluator: Evaluator,
    selection: Selection,
    keeper: Keeper | None,
    refused: Sequence[Problem],
    strict: bool,
    words: Words | None,
) -> list[Problem]:
    """Print the warnings about the selected studies, run the evaluator over them but for those that are refused, and return what
    makes studies unusable.
    """
    for problem in selection.problems:
        if not problem.error:
            print(f"warning: {problem}", flush=True)
    problems = [*(problem for problem in selection.problems if problem.error), *refused]
    keeper = keeper or Keeper()
    for problem in problems:
        if problem.case not in selection.namesakes:
            keeper.fail(problem)
    if selection.items:
        problems += run_each_study(evaluator, strict, selection.check, keeper, words)
    elif not problems:
        print("Every mask was made from these very files and options: nothing to do.", flush=True)
    return problems
