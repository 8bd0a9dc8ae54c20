"""Writing the report's page from its template."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from petct_cascade.pictures import COLOURS
from petct_cascade.report.contents import (
    LESIONS_SHOWN,
    StudyPart,
    Values,
    lesion_table,
    read_picture,
    readout_table,
    reference_table,
    score_table,
    study_score,
    summary_parts,
)
from petct_cascade.report.origins import Line, common_lines, input_lines, run_lines
from petct_cascade.report.templating import template_environment
from petct_cascade.summary import models_in_order, summarise, summary_notes
from petct_training.files import write_text


def write_report(
    path: str | os.PathLike,
    title: str,
    rows: Sequence[Mapping[str, Any]] = (),
    readouts: Mapping[str, Mapping[str, Any]] | None = None,
    pictures: Mapping[str, str | os.PathLike] | None = None,
    problems: Sequence[Mapping[str, str]] = (),
    primary: str | None = None,
    origins: Mapping[str, Mapping[str, Any]] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write one HTML file that needs no network: tables that can be sorted, and each study's picture.

    With scores it shows Table 1, the summary and a row per study and model; with read-outs a row per study and the lesions of
    each; without scores, as after an inference without reference, the read-outs and pictures alone.

    Args:
        path: the HTML file.
        title: heading.
        rows: scores per study and model, as of `petct_cascade.summary.write_scores`.
        readouts: per case, as of `petct_cascade.readouts.study_readouts`; None and NaN are shown as a dash. With a reference also
            its "reference_lesions", as of `petct_cascade.readouts.reference_lesions`.
        pictures: per case a PNG file; it is copied into the page.
        problems: studies that could not be scored, each {"case", "file", "reason"}.
        primary: the model shown first, and whose masks the read-outs and pictures show.
        origins: per case the record of its mask, see `petct_cascade.report.origins`. What holds for all studies is said once.
        summary: of `rows`, as `petct_cascade.summary.write_scores` returns it; made where it is None.

    Returns:
        `path`.

    Raises:
        InputError: a picture does not exist.
    """
    readouts, pictures = readouts or {}, pictures or {}
    cases = sorted({*(str(row["case"]) for row in rows), *readouts, *pictures})
    common, own = lines_of_origin(cases, origins or {})
    anchors = {case: f"study-{number}" for number, case in enumerate(cases, start=1) if case in readouts or case in pictures}
    models = models_in_order(rows)
    summary = (summary or summarise(rows)) if rows else {}
    html = template_environment().get_template("report.html.j2").render(
        title=title,
        study_count=len(cases),
        problems=problems,
        problem_count=len(problems),
        summary=summary_parts(rows, summary) if rows else [],
        notes=summary_notes(summary) if rows else "",
        scores=score_table(rows) if rows else None,
        readouts=readout_table(readouts) if readouts else None,
        models=models,
        model_shown=primary if primary in models or not models else models[-1],
        primary=primary,
        colours=COLOURS if rows else {"prediction": COLOURS["prediction"]},
        anchors=anchors,
        studies=_study_parts(anchors, rows, readouts, pictures, primary, own),
        origin=common,
        lesions_shown=LESIONS_SHOWN,
    )  # fmt: skip
    write_text(path, html)
    return Path(path)


def lines_of_origin(cases: Sequence[str], origins: Mapping[str, Mapping[str, Any]]) -> tuple[list[Line], dict[str, list[Line]]]:
    """Return what is said of the origin of all studies, and of each study's own."""
    of_runs = {case: run_lines(origins.get(case, {})) for case in cases}
    common = common_lines([lines for case, lines in of_runs.items() if case in origins])
    own = {
        case: [*input_lines(origins.get(case, {})), *(line for line in lines if line not in common)]
        for case, lines in of_runs.items()
    }
    return common, own


def _study_parts(
    anchors: Mapping[str, str],
    rows: Sequence[Values],
    readouts: Mapping[str, Values],
    pictures: Mapping[str, str | os.PathLike],
    primary: str | None,
    origins: Mapping[str, Sequence[Line]],
) -> Iterable[StudyPart]:
    """Yield what is shown of each study; one picture after the other is read."""
    rows_of = defaultdict(list)
    for row in rows:
        rows_of[str(row["case"])].append(row)
    for case, anchor in anchors.items():
        lesions = readouts[case]["lesions"] if case in readouts else None
        # Read-outs of an earlier version have none, nor do those without a reference.
        of_reference = readouts[case].get("reference_lesions") if case in readouts else None
        yield StudyPart(
            case,
            anchor,
            score=study_score(rows_of[case], primary),
            picture=read_picture(case, pictures[case]) if case in pictures else None,
            lesions=None if lesions is None else lesion_table(anchor, lesions),
            lesion_count=len(lesions or ()),
            reference_lesions=None if of_reference is None else reference_table(anchor, of_reference),
            reference_count=len(of_reference or ()),
            missed_count=sum(not lesion["found"] for lesion in of_reference or ()),
            origin=origins[case],
        )
