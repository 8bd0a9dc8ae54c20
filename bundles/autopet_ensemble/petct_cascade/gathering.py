"""Tables and report of what an output folder holds of studies, whoever made it."""

from __future__ import annotations

import os
from pathlib import Path

from petct_cascade import readout_run, scoring
from petct_cascade.deidentification import kind_of_results
from petct_cascade.keeping import known_problems, problem_of_row
from petct_cascade.problems import number_of_studies
from petct_cascade.provenance import SUMMARY, summary_of
from petct_cascade.results import write_results
from petct_cascade.study_results import StudyResults
from petct_cascade.tasks import Results
from petct_training.claims import Claims
from petct_training.errors import InputError
from petct_training.files import read_json_or_none
from petct_training.records import Records, kind_in

# Of which kinds of results there is a report; a prepared data set and conversions keep records, too.
REPORTED = [
    kind_of_results(kind, hidden) for kind in ("inference", "evaluation", "scores", "read-outs") for hidden in (False, True)
]


def gather(output_dir: str | os.PathLike, seed: int = 0) -> None:
    """Write the tables and the report of all studies whose results lie in an output folder, also while runs are still at others.

    Args:
        output_dir: of an inference, an evaluation, scores or read-outs.
        seed: of the bootstrap of scores.

    Raises:
        InputError: there are no results, another run is writing the report, or somebody has changed it.
    """
    folder = Path(output_dir)
    kind = kind_in(folder)
    if kind not in REPORTED:
        raise InputError(f"{folder} holds no results: name an output folder of petct segment, evaluate, score or readout")
    kept = StudyResults(Records(folder, kind))
    with Claims(folder).holding(SUMMARY, f"another run is writing the report of {folder}: wait until it has ended"):
        _write(kept, seed)


def _write(kept: StudyResults, seed: int) -> None:
    """Write tables and report of the studies whose results are there as they were written."""
    records, folder = kept.records, kept.records.folder
    with summary_of(records):
        results = Results()
        failed = {problem.case: problem for problem in known_problems(records)}
        cases = [case for case in kept.names() if case not in failed and kept.is_intact(case)]
        for case in cases:
            results.add(kept.read(case))
        done = {case for case in cases if kept.is_complete(case)}
        told = [problem_of_row(row) for row in read_json_or_none(folder / "problems.json") or []]
        results.problems += [*failed.values(), *(each for each in told if each.case not in failed and each.case not in done)]
        settings = [kept.settings(case) for case in cases]
        title = scoring.TITLE if results.rows else readout_run.TITLE
        model = settings[0]["model"] if settings else ""
        origins = {case: kept.origin(case) for case in cases}
        single_file = not any("page" in each for each in settings)
        write_results(folder, title, results, model, origins, single_file, seed)
    named = {*cases, *(problem.case for problem in results.problems)}
    others = [name for name in {*records.names(), *kept.names()} if not name.startswith(".") and name not in named]
    if others:
        print(
            f"{number_of_studies(len(others))} without results yet, such as {min(others)}: run the same command again", flush=True
        )
