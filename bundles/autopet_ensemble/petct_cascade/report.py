"""One self-contained HTML page for an evaluation or an inference run."""

from __future__ import annotations

import base64
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from petct_cascade.pictures import COLOURS
from petct_cascade.readouts import STUDY_COLUMNS
from petct_cascade.summary import METRICS, STAGES, summarise, summary_tables, table1
from petct_training.errors import InputError
from petct_training.files import write_text

RESEARCH_USE = "For research use only. Not a medical device: not for diagnosis, treatment or any other clinical decision."


# Heading and decimals of each column of the read-outs.
READOUT_COLUMNS = {
    "tmtv_ml": ("TMTV (ml)", 1),
    "tlg_g": ("TLG (g)", 1),
    "suv_max": ("SUVmax", 1),
    "suv_mean": ("SUVmean", 1),
    "suv_peak": ("SUVpeak", 1),
    "lesions": ("Lesions", 0),
    "dmax_mm": ("Dmax (mm)", 0),
}


LESION_COLUMNS = {
    "lesion": ("Lesion", 0),
    "volume_ml": ("Volume (ml)", 2),
    "suv_max": ("SUVmax", 1),
    "suv_mean": ("SUVmean", 1),
    "suv_peak": ("SUVpeak", 1),
    "tlg_g": ("TLG (g)", 1),
    "centroid_x_mm": ("x (mm)", 0),
    "centroid_y_mm": ("y (mm)", 0),
    "centroid_z_mm": ("z (mm)", 0),
    "uncertainty_mean": ("Uncertainty", 3),
}


# A mask of noise has a hundred thousand lesions, which no browser shows.
LESIONS_SHOWN = 200


STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f4f6f8; --text: #1b2430; --faint: #5a6675; --line: #d5dbe2; --accent: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --card: #1b212a; --text: #e6eaf0; --faint: #a3adba; --line: #364050; --accent: #7ab8ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 90rem; background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.25rem 0 .5rem; font-size: 1.25rem; }
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
p { margin: .5rem 0; }
a { color: var(--accent); }
.faint { color: var(--faint); font-size: .875rem; }
.notice { padding: .5rem .75rem; border-left: .25rem solid #c77700; background: var(--card); }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .375rem .625rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { max-width: 8.5rem; vertical-align: bottom; color: var(--faint); font-weight: 600; white-space: normal; }
tbody tr.first td { border-top: 2px solid var(--line); }
.text { text-align: left; }
.name { position: sticky; left: 0; min-width: 20rem; max-width: 30rem; background: var(--page); white-space: pre-wrap; overflow-wrap: anywhere; }
th button { padding: 0; border: 0; background: none; color: inherit; font: inherit; text-align: inherit; cursor: pointer; }
th button::after { content: "\\00a0\\2195"; opacity: .5; }
th[aria-sort=ascending] button::after { content: "\\00a0\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\00a0\\2193"; opacity: 1; }
tbody tr:hover, tbody tr:hover .name { background: var(--card); }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: 1.5rem 0 .5rem; }
.controls label { display: flex; align-items: center; gap: .4rem; }
.controls input, .controls select { max-width: 100%; padding: .25rem .4rem; font: inherit; }
article { margin: 1rem 0; scroll-margin-top: .5rem; padding: .25rem 1rem 1rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #ffffff; border-radius: .25rem; cursor: zoom-in; }
figure.large { overflow-x: auto; }
figure.large img { max-width: none; cursor: zoom-out; }
.key { display: inline-block; width: 1.1em; height: .8em; margin: 0 .25em 0 .75em; border-radius: .15em; }
summary { cursor: pointer; margin-top: .5rem; }
@media (max-width: 30rem) { body { padding: .75rem; } article { padding: .25rem .6rem .75rem; } .name { min-width: 8rem; max-width: 9rem; } h1 { font-size: 1.35rem; } }
"""


SCRIPT = """
"use strict";
// Values that do not exist (no data-value, or an empty one) stay at the end in both directions.
function compare(a, b, descending) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const numbers = [Number(a), Number(b)];
  const order = numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
  return descending ? -order : order;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const value = row => row.cells[column].dataset.value;
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), descending)));
  }));
}
const model = document.getElementById("model"), search = document.getElementById("search");
function choose() {
  const part = search.value.trim().toLowerCase();
  for (const element of document.querySelectorAll("[data-case]")) {
    const named = element.dataset.case.toLowerCase().includes(part);
    const chosen = !model || model.value === "" || !("model" in element.dataset) || element.dataset.model === model.value;
    element.hidden = !(named && chosen);
  }
}
for (const control of [model, search]) {
  if (control) control.addEventListener("input", choose);
}
if (search) choose();
for (const image of document.querySelectorAll("figure img")) {
  image.addEventListener("click", () => image.parentElement.classList.toggle("large"));
}
"""


# The page may load nothing from anywhere: pictures are inside it, and only its own style and script run.
SECURITY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(
    path: str | os.PathLike,
    title: str,
    rows: Sequence[Mapping[str, Any]] = (),
    readouts: Mapping[str, Mapping[str, Any]] | None = None,
    pictures: Mapping[str, str | os.PathLike] | None = None,
    problems: Sequence[Mapping[str, str]] = (),
    primary: str | None = None,
) -> Path:
    """Write one HTML file that needs no network: tables that can be sorted, and each study's picture.

    With scores it shows Table 1, the summary and a row per study and model; with read-outs a row per study and the lesions of
    each; without scores, as after an inference without reference, the read-outs and pictures alone.

    Args:
        path: the HTML file.
        title: heading.
        rows: scores per study and model, as of `petct_cascade.summary.write_scores`.
        readouts: per case, as of `petct_cascade.readouts.study_readouts`; None and NaN are shown as a dash.
        pictures: per case a PNG file; it is copied into the page.
        problems: studies that could not be scored, each {"case", "file", "reason"}.
        primary: the model shown first, and whose masks the read-outs and pictures show.

    Returns:
        `path`.

    Raises:
        InputError: a picture does not exist.
    """
    readouts, pictures = readouts or {}, pictures or {}
    cases = sorted({*(str(row["case"]) for row in rows), *readouts, *pictures})
    anchors = {case: f"study-{number}" for number, case in enumerate(cases, start=1) if case in readouts or case in pictures}
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="faint">{len(cases)} {"study" if len(cases) == 1 else "studies"}</p>']
    parts.append(f'<p class="notice">{escape(RESEARCH_USE)}</p>')
    if problems:
        items = "".join(f"<li>{escape(p['case'])}: {escape(p['reason'])}</li>" for p in problems)
        parts += [f"<h2>{'Not scored' if rows else 'Not done'}</h2>", f"<ul>{items}</ul>"]
    if rows:
        parts += _summary(rows)
    if rows or readouts:
        parts.append(_controls(rows, primary))
    if rows:
        parts += _scores(rows, anchors)
    if readouts:
        parts += _readouts(readouts, anchors, primary)
    if anchors:
        parts.append("<h2>Pictures</h2>")
        parts.append(_legend(scored=bool(rows)))
    for case, anchor in anchors.items():
        parts += _study(
            case, anchor, [row for row in rows if row["case"] == case], readouts.get(case), pictures.get(case), primary
        )
    body = "\n".join(parts)
    html = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{SECURITY}">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
    write_text(path, html)
    return Path(path)


def _models(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give the models that occur in rows, in the order of Table 1, then of appearance."""
    found = dict.fromkeys(str(row["model"]) for row in rows)
    return [*(model for model in STAGES if model in found), *(model for model in found if model not in STAGES)]


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give Table 1 and the summary."""
    parts = []
    models = _models(rows)
    if len(models) > 1 or models[0] in STAGES:
        lines = [line.strip("| ").split(" | ") for line in table1(rows).splitlines()]
        parts += ["<h2>Table 1: Dice x 100</h2>", _plain_table([lines[0], *lines[2:]])]
    for heading, lines in summary_tables(summarise(rows)).items():
        parts += [f"<h2>{escape(heading)}</h2>", _plain_table(lines)]
    parts.append(
        '<p class="faint">Dice, false-positive volume (FPV) and false-negative volume (FNV) as the autoPET III challenge defines '
        "them, on the original grid. A lesion is an 18-connected component; it is found when any voxel overlaps. A dash: the "
        "figure does not exist, as Dice without reference lesions.</p>"
    )
    return parts


def _controls(rows: Sequence[Mapping[str, Any]], primary: str | None) -> str:
    """Give the choice of the studies, and of the model where there are several, that everything below shows."""
    models = _models(rows)
    choice = ""
    if len(models) > 1:
        shown = primary if primary in models else models[-1]
        options = "".join(
            f'<option value="{escape(model)}"{" selected" if model == shown else ""}>{escape(model)}</option>' for model in models
        )
        choice = f'<label>Model <select id="model">{options}<option value="">All</option></select></label>'
    search = '<label>Study <input id="search" type="search" placeholder="part of the name"></label>'
    return f'<div class="controls">{choice}{search}</div>'


def _scores(rows: Sequence[Mapping[str, Any]], anchors: Mapping[str, str]) -> list[str]:
    """Give the rows per study and model."""
    heads = [("Study", True), ("Tracer", True), ("Model", True), *((heading, False) for heading, _, _ in METRICS.values())]
    heads += [("Lesions", False), ("Found", False), ("False", False)]
    body = []
    for row in rows:
        cells = [_name(row["case"], anchors), _text(row.get("tracer") or "–"), _text(row["model"])]
        cells += [_number(row.get(metric), decimals) for metric, (_, decimals, _) in METRICS.items()]
        cells += [_number(row.get(name), 0) for name in ("lesions_reference", "lesions_found", "lesions_false")]
        data = f'data-case="{escape(str(row["case"]))}" data-model="{escape(str(row["model"]))}"'
        body.append(f"<tr {data}>{''.join(cells)}</tr>")
    return ["<h2>Scores of each study</h2>", _sortable("scores", heads, body)]


def _readouts(readouts: Mapping[str, Mapping[str, Any]], anchors: Mapping[str, str], primary: str | None) -> list[str]:
    """Give the rows of read-outs per study, and what they mean."""
    heads = [("Study", True), *((READOUT_COLUMNS[name][0], False) for name in STUDY_COLUMNS)]
    body = []
    for case, content in sorted(readouts.items()):
        cells = [_number(content["study"].get(name), READOUT_COLUMNS[name][1]) for name in STUDY_COLUMNS]
        body.append(f'<tr data-case="{escape(case)}">{_name(case, anchors)}{"".join(cells)}</tr>')
    of = f" of {primary}" if primary else ""
    return [
        f"<h2>Read-outs{escape(of)}</h2>",
        _sortable("readouts", heads, body),
        '<p class="faint">Of the predicted lesions (18-connected components), without an SUV threshold. TMTV: sum of lesion '
        "volumes. TLG: sum of SUVmean x volume. SUVpeak: highest mean in a sphere of 1 ml with its centre in a lesion. Dmax: "
        "distance between the centroids of the two lesions furthest apart. SUV by body weight (g/ml). Uncertainty, where it was "
        "asked for: mean over the lesion of the standard deviation of the members' probabilities.</p>",
    ]


def _legend(scored: bool) -> str:
    """Say what the pictures show."""
    colours = COLOURS if scored else {"prediction": COLOURS["prediction"]}
    keys = "".join(f'<span class="key" style="background:{colour}"></span>{name}' for name, colour in colours.items())
    return (
        f'<p class="faint">PET maximum-intensity projections from the front and from the left, on an inverted grey scale, and '
        f"the axial slice through the largest lesion.{keys}. Click a picture to enlarge it.</p>"
    )


def _study(
    case: str,
    anchor: str,
    rows: Sequence[Mapping[str, Any]],
    readouts: Mapping[str, Any] | None,
    picture: str | os.PathLike | None,
    primary: str | None,
) -> list[str]:
    """Give one study: its scores in a line, its picture, its lesions."""
    parts = [f'<article id="{anchor}" data-case="{escape(case)}"><h3>{escape(case)}</h3>']
    own = [row for row in rows if row["model"] == primary] or list(rows[-1:])
    for row in own:
        figures = [
            f"{METRICS[metric][0]} {_format(row.get(metric), METRICS[metric][1])}" for metric in ("dice", "fpv_ml", "fnv_ml")
        ]
        parts.append(f'<p class="faint">{escape(str(row["model"]))}: {", ".join(figures)}</p>')
    if picture is not None:
        picture = Path(picture)
        if not picture.is_file():
            raise InputError(f"{case}: the picture {picture} does not exist: draw it first.")
        content = picture.read_bytes()
        # With its size, which a PNG file says in its first bytes, nothing on the page moves when the picture appears.
        width, height = struct.unpack(">II", content[16:24])
        attributes = f'width="{width}" height="{height}" alt="{escape(f"PET projections and lesions of {case}")}"'
        data = base64.b64encode(content).decode("ascii")
        parts.append(f'<figure><img {attributes} src="data:image/png;base64,{data}"></figure>')
    if readouts and readouts["lesions"]:
        names = [name for name in LESION_COLUMNS if name in readouts["lesions"][0]]
        heads = [(LESION_COLUMNS[name][0], False) for name in names]
        body = [
            f"<tr>{''.join(_number(lesion[name], LESION_COLUMNS[name][1]) for name in names)}</tr>"
            for lesion in readouts["lesions"][:LESIONS_SHOWN]
        ]
        count = len(readouts["lesions"])
        table = _sortable(f"{anchor}-lesions", heads, body)
        more = f", the largest {LESIONS_SHOWN}; all are in readouts_lesions.csv" if count > LESIONS_SHOWN else ""
        parts.append(f"<details><summary>{count} predicted lesion{'' if count == 1 else 's'}{more}</summary>{table}</details>")
    elif readouts:
        parts.append("<p>No lesion predicted.</p>")
    return [*parts, "</article>"]


def _plain_table(lines: Sequence[Sequence[str]]) -> str:
    """Give rows of text as a table, with a line above each row whose first cell differs from the one before.

    A column is set as numbers when its last cell begins like one.
    """
    numeric = [cell.lstrip("+-–(")[:1].isdigit() or cell == "–" for cell in lines[-1]]
    rendered = []
    previous = lines[1][0]
    for tag, line in zip(["th", *["td"] * (len(lines) - 1)], lines, strict=True):
        cells = (
            f"<{tag}{'' if number else _class('text')}>{escape(cell)}</{tag}>" for number, cell in zip(numeric, line, strict=True)
        )
        rendered.append(f"<tr{_class('first') if tag == 'td' and line[0] != previous else ''}>{''.join(cells)}</tr>")
        previous = line[0] if tag == "td" else previous
    return f'<div class="scroll"><table><thead>{rendered[0]}</thead><tbody>{"".join(rendered[1:])}</tbody></table></div>'


def _sortable(name: str, heads: Iterable[tuple[str, bool]], body: Iterable[str]) -> str:
    """Give a table whose columns sort at a click on their headings (text, whether the column is text)."""
    cells = "".join(
        f'<th scope="col"{_class("text") if text else ""}><button type="button">{escape(head).replace(" (", "&nbsp;(")}</button></th>'
        for head, text in heads
    )
    return (
        f'<div class="scroll"><table class="sortable" id="{name}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _class(name: str) -> str:
    return f' class="{name}"'


def _text(value: object) -> str:
    """Give a cell of text."""
    return f'<td class="text" data-value="{escape(str(value))}">{escape(str(value))}</td>'


def _name(case: object, anchors: Mapping[str, str]) -> str:
    """Give a cell with a study's name, which leads to its picture where there is one."""
    text = escape(str(case))
    link = f'<a href="#{anchors[str(case)]}">{text}</a>' if str(case) in anchors else text
    return f'<td class="text name" data-value="{text}">{link}</td>'


def _number(value: float | None, decimals: int) -> str:
    """Give a cell with a number; one that does not exist is a dash and sorts last."""
    exists = value is not None and not math.isnan(value)
    return f'<td data-value="{repr(float(value)) if exists else ""}">{_format(value, decimals)}</td>'


def _format(value: float | None, decimals: int) -> str:
    """Give a number as text, a dash when it does not exist."""
    return "–" if value is None or math.isnan(value) else f"{value:.{decimals}f}"
