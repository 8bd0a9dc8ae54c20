"""The index of a cohort: a page of tables and plots that leads to a page a study."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petct_cascade.pictures import COLOURS
from petct_cascade.report.contents import PROBLEMS_SHOWN, readout_table, score_table, summary_parts
from petct_cascade.report.page import lines_of_origin
from petct_cascade.report.plots import distributions
from petct_cascade.report.templating import template_environment
from petct_cascade.summary import models_in_order, summarise, summary_notes
from petct_training.files import write_text


def write_index(
    path: str | os.PathLike,
    title: str,
    rows: Sequence[Mapping[str, Any]] = (),
    readouts: Mapping[str, Mapping[str, Any]] | None = None,
    problems: Sequence[Mapping[str, str]] = (),
    primary: str | None = None,
    origins: Mapping[str, Mapping[str, Any]] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write one HTML file that shows a cohort of any size: tables of which a page is shown at a time, sorted and filtered, plots of
    the read-outs' distributions, and the pictures of the studies on the page. It needs no network.

    It leads to `studies/<case>.html` and shows `pictures/<case>.png`, which lie beside it.

    Args:
        path: the HTML file.
        title: heading.
        rows: scores per study and model, as of `petct_cascade.summary.write_scores`.
        readouts: per case, as of `petct_cascade.readouts.study_readouts`, with "tracer" and "centre" where they are known.
        problems: studies that could not be done, each {"case", "file", "reason"}.
        primary: the model shown first, and whose masks the read-outs and pictures show.
        origins: per case the record of its mask, see `petct_cascade.report.origins`; what holds for all studies is shown.
        summary: of `rows`, as `petct_cascade.summary.write_scores` returns it; made where it is None.

    Returns:
        `path`.
    """
    readouts = readouts or {}
    cases = sorted({*(str(row["case"]) for row in rows), *readouts})
    models = models_in_order(rows)
    summary = (summary or summarise(rows)) if rows else {}
    html = template_environment().get_template("index.html.j2").render(
        title=title,
        study_count=len(cases),
        problems=problems[:PROBLEMS_SHOWN],
        problem_count=len(problems),
        summary=summary_parts(rows, summary) if rows else [],
        notes=summary_notes(summary) if rows else "",
        scores=score_table(rows) if rows else None,
        readouts=readout_table(readouts) if readouts else None,
        models=models,
        model_shown=primary if primary in models or not models else models[-1],
        primary=primary,
        colours=COLOURS if rows else {"prediction": COLOURS["prediction"]},
        distributions=distributions(readouts),
        origin=lines_of_origin(cases, origins or {})[0],
        # Names that the tables' macros know in a report of one file.
        anchors={},
    )  # fmt: skip
    write_text(path, html)
    return Path(path)
