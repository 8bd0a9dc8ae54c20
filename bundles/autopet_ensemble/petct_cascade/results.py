"""Writing what a run found out about studies: scores, read-outs, problems, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petct_cascade.problems import Problem, in_order, number_of_studies
from petct_cascade.readouts import READOUT_FILES, write_readouts
from petct_cascade.report import write_index, write_report
from petct_cascade.summary import SCORE_FILES, table1, write_scores
from petct_cascade.tasks import Results
from petct_training.files import write_json


def write_results(
    output_dir: Path,
    title: str,
    results: Results,
    model: str,
    origins: Mapping[str, Mapping[str, Any]] | None = None,
    single_file: bool = False,
    seed: int = 0,
) -> None:
    """Write the tables of scores, and print Table 1, if there are any; `readouts.json`, `readouts_studies.csv` and
    `readouts_lesions.csv` if there are read-outs; `problems.json`; `report.html`. Say at the end where the report is.

    Tables of an earlier run that this one does not have are deleted.

    Args:
        output_dir: where the files appear, beside `pictures/<case>.png` of each study that is read out.
        title: heading of the report.
        results: of all studies.
        model: what made the masks that are read out.
        origins: per case the record of its mask, see `petct_cascade.report.write_report`.
        single_file: whether the report is one file with all pictures inside; otherwise it leads to a page a study.
        seed: of the bootstrap of scores.
    """
    summary = None
    for name in (*(() if results.rows else SCORE_FILES), *(() if results.readouts else READOUT_FILES)):
        (output_dir / name).unlink(missing_ok=True)
    if results.rows:
        summary = write_scores(output_dir, results.rows, seed=seed)
        print(table1(results.rows), flush=True)
    problems = [row_of_problem(problem) for problem in in_order(results.problems)]
    write_json(output_dir / "problems.json", problems)
    if results.readouts:
        write_readouts(output_dir, results.readouts)
    page = output_dir / "report.html"
    if single_file:
        pictures = {case: picture_of(output_dir, case) for case in results.readouts}
        write_report(page, title, results.rows, results.readouts, pictures, problems, model, origins, summary)
    else:
        write_index(page, title, results.rows, results.readouts, problems, model, origins, summary)
    print(f"{page}: {number_of_studies(len({row['case'] for row in results.rows} | results.readouts.keys()))}.", flush=True)


def picture_of(output_dir: Path, case: str) -> Path:
    """Return the file of a study's picture."""
    return output_dir / "pictures" / f"{case}.png"


def row_of_problem(problem: Problem) -> dict[str, str]:
    """Return a problem as the row {"case", "file", "reason"} of `problems.json`; the file is "" where none is meant."""
    return {"case": problem.case, "file": str(problem.file or ""), "reason": problem.sentence}
