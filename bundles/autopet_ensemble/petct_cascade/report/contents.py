"""What a report shows, made ready for its template: tables, pictures, names. No HTML."""

from __future__ import annotations

import base64
import itertools
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petct_cascade.changes import CHANGE_DEFINITIONS
from petct_cascade.changes import STUDY_DEFINITIONS as OF_CHANGES
from petct_cascade.metrics import COUNT_DEFINITIONS, METRIC_DEFINITIONS
from petct_cascade.readouts import LESION_DEFINITIONS, REFERENCE_DEFINITIONS, STUDY_DEFINITIONS
from petct_cascade.summary import METRICS, STAGES, models_in_order, summary_tables, table1_lines
from petct_training.errors import InputError

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table that can be sorted.

    Attributes:
        key: of its value in a row.
        heading: what stands above it.
        decimals: of its numbers; None for text.
        links: whether a study's name leads to the study.
        definition: what it means, in one line; empty where the heading says it.
    """

    key: str
    heading: str
    decimals: int | None = 0
    links: bool = False
    definition: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted: its columns, and per row the value of each; None or NaN where there is none."""

    id: str
    columns: Sequence[Column]
    rows: Sequence[Values]


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        heading: what stands above the table.
        columns: of each the name, and whether it is set as numbers.
        lines: of each the cells, and whether the first one differs from that of the line before.
    """

    heading: str
    columns: Sequence[tuple[str, bool]]
    lines: Sequence[tuple[Sequence[str], bool]]


@dataclass(frozen=True)
class Picture:
    """A PNG file: its size in pixels, and its content in base64."""

    width: int
    height: int
    data: str


@dataclass(frozen=True)
class Score:
    """A model's figures in one study, each with its heading and its decimals."""

    model: str
    figures: Sequence[tuple[str, float | None, int]]


@dataclass(frozen=True)
class StudyPart:
    """What the report shows of one study.

    Attributes:
        case: the study's name.
        anchor: where links to it lead.
        score: of the primary model, if there is one.
        picture: if there is one.
        lesions: the largest `LESIONS_SHOWN`; None without read-outs.
        lesion_count: of all lesions.
        reference_lesions: the largest `LESIONS_SHOWN` of the reference; None without a reference.
        reference_count: of all lesions of the reference.
        missed_count: of those of them that were not found.
        origin: what is said of what it was made from, each line with its heading.
    """

    case: str
    anchor: str
    score: Score | None
    picture: Picture | None
    lesions: Table | None
    lesion_count: int
    reference_lesions: Table | None = None
    reference_count: int = 0
    missed_count: int = 0
    origin: Sequence[tuple[str, str]] = ()


STUDY = Column("case", "Study", decimals=None, links=True)
TRACER = Column("tracer", "Tracer", decimals=None)
CENTRE = Column("centre", "Centre", decimals=None)
COUNT_HEADINGS = {"lesions_reference": "Reference lesions", "lesions_found": "Found lesions", "lesions_false": "False lesions"}
SCORE_COLUMNS = (
    STUDY,
    TRACER,
    Column("model", "Model", decimals=None),
    *(
        Column(metric, heading, decimals, definition=METRIC_DEFINITIONS[metric])
        for metric, (heading, decimals, _) in METRICS.items()
    ),
    *(Column(key, heading, definition=COUNT_DEFINITIONS[key]) for key, heading in COUNT_HEADINGS.items()),
)
# Heading and decimals of what studies and lesions both have.
UPTAKE = {
    **{f"suv_{name}": (f"SUV{name}", 1) for name in ("max", "mean", "peak")},
    **{f"sul_{name}": (f"SUL{name}", 1) for name in ("max", "mean", "peak")},
}
READOUT_HEADINGS = {
    "tmtv_ml": ("TMTV (ml)", 1),
    "tlg_g": ("TLG (g)", 1),
    "tmtv_suv4_ml": ("TMTV, SUV\u00a0≥\u00a04 (ml)", 1),
    "tlg_suv4_g": ("TLG, SUV\u00a0≥\u00a04 (g)", 1),
    "tmtv_41pct_ml": ("TMTV, 41\u00a0% (ml)", 1),
    "tlg_41pct_g": ("TLG, 41\u00a0% (g)", 1),
    **UPTAKE,
    "lesions": ("Lesions", 0),
    "dmax_mm": ("Dmax, centroids (mm)", 0),
    "dmax_voxels_mm": ("Dmax, voxels (mm)", 0),
    "lesions_added": ("Added by hand", 0),
    "lesions_removed": ("Removed", 0),
    "lesions_reshaped": ("Reshaped", 0),
    "volume_before_ml": ("TMTV before (ml)", 1),
}
CHANGE_HEADINGS: dict[str, tuple[str, int | None]] = {
    "change": ("Change", None),
    "volume_before_ml": ("Before (ml)", 2),
    "volume_after_ml": ("After (ml)", 2),
    **{f"centroid_{axis}_mm": (f"{axis} (mm)", 0) for axis in "xyz"},
}
LESION_HEADINGS = {
    "lesion": ("Lesion", 0),
    "volume_ml": ("Volume (ml)", 2),
    "tlg_g": ("TLG (g)", 1),
    "volume_suv4_ml": ("Volume, SUV\u00a0≥\u00a04 (ml)", 2),
    "tlg_suv4_g": ("TLG, SUV\u00a0≥\u00a04 (g)", 1),
    "volume_41pct_ml": ("Volume, 41\u00a0% (ml)", 2),
    "tlg_41pct_g": ("TLG, 41\u00a0% (g)", 1),
    **UPTAKE,
    "centroid_x_mm": ("x (mm)", 0),
    "centroid_y_mm": ("y (mm)", 0),
    "centroid_z_mm": ("z (mm)", 0),
    "uncertainty_mean": ("Uncertainty", 3),
}
READOUT_COLUMNS = tuple(
    Column(key, heading, decimals, definition={**STUDY_DEFINITIONS, **OF_CHANGES}[key])
    for key, (heading, decimals) in READOUT_HEADINGS.items()
)
LESION_COLUMNS = tuple(
    Column(key, heading, decimals, definition=LESION_DEFINITIONS[key]) for key, (heading, decimals) in LESION_HEADINGS.items()
)
REFERENCE_COLUMNS = tuple(
    Column(key, heading, decimals, definition=REFERENCE_DEFINITIONS[key])
    for key, (heading, decimals) in {"lesion": LESION_HEADINGS["lesion"], "found": ("Found", None), **LESION_HEADINGS}.items()
    if key in REFERENCE_DEFINITIONS
)
CHANGE_COLUMNS = tuple(
    Column(key, heading, decimals, definition=CHANGE_DEFINITIONS[key]) for key, (heading, decimals) in CHANGE_HEADINGS.items()
)
STUDY_METRICS = ("dice", "fpv_ml", "fnv_ml")  # what is said of a study above its picture

# A mask of noise has a hundred thousand lesions, which no browser shows.
LESIONS_SHOWN = 200
# Nor does anybody read thousands of reasons on a page.
PROBLEMS_SHOWN = 200


def summary_parts(rows: Sequence[Values], summary: Values) -> list[TextTable]:
    """Return Table 1, where the paper's models are in it or several others, and the summary of scores."""
    models = models_in_order(rows)
    tables = []
    if len(models) > 1 or models[0] in STAGES:
        tables.append(text_table("Table 1: Dice x 100", table1_lines(rows)))
    return tables + [text_table(heading, lines) for heading, lines in summary_tables(summary).items()]


def text_table(heading: str, lines: Sequence[Sequence[str]]) -> TextTable:
    """Return lines of text, the columns' names first, as a table; a column is set as numbers when its last cell begins like one."""
    names, body = lines[0], lines[1:]
    numeric = [cell.lstrip("+-–(")[:1].isdigit() or cell == "–" for cell in body[-1]]
    firsts = [line[0] for line in body]
    changes = [first != before for before, first in itertools.pairwise(firsts)]
    return TextTable(heading, list(zip(names, numeric, strict=True)), list(zip(body, [False, *changes], strict=True)))


def score_table(rows: Iterable[Values]) -> Table:
    """Return the scores, one row per study and model."""
    return _table("scores", SCORE_COLUMNS, ({**row, "tracer": row.get("tracer") or "–"} for row in rows))


def readout_table(readouts: Mapping[str, Values]) -> Table:
    """Return the read-outs of the studies, one row each, with the columns that any of them has."""
    rows = [
        {"case": case, **{key: readouts[case].get(key) or "–" for key in ("tracer", "centre")}, **readouts[case]["study"]}
        for case in sorted(readouts)
    ]
    said = [column for column in (TRACER, CENTRE) if any(row[column.key] != "–" for row in rows)]
    columns = [column for column in READOUT_COLUMNS if any(column.key in row for row in rows)]
    return _table("readouts", [STUDY, *said, *columns], rows)


def lesion_table(anchor: str, lesions: Sequence[Values]) -> Table:
    """Return the largest lesions of one study, with the columns that its read-outs have."""
    columns = [column for column in LESION_COLUMNS if lesions and column.key in lesions[0]]
    return _table(f"{anchor}-lesions", columns, lesions[:LESIONS_SHOWN])


def reference_table(anchor: str, lesions: Sequence[Values]) -> Table:
    """Return the largest lesions of one study's reference, and whether each was found."""
    return _table(f"{anchor}-reference", REFERENCE_COLUMNS, reference_rows(lesions[:LESIONS_SHOWN]))


def reference_rows(lesions: Iterable[Values]) -> list[Values]:
    """Return rows of `petct_cascade.readouts.reference_lesions` with a word in place of true and false."""
    return [{**lesion, "found": "yes" if lesion["found"] else "no"} for lesion in lesions]


def _table(id: str, columns: Sequence[Column], rows: Iterable[Values]) -> Table:
    """Return a table in which a value that a row lacks is None."""
    return Table(id, columns, [{column.key: row.get(column.key) for column in columns} for row in rows])


def study_score(rows: Sequence[Values], primary: str | None) -> Score | None:
    """Return what is said of one study: the scores of the primary model, else those of the last; None without scores."""
    if not rows:
        return None
    row = next((row for row in rows if row["model"] == primary), rows[-1])
    figures = [(METRICS[metric][0], row.get(metric), METRICS[metric][1]) for metric in STUDY_METRICS]
    return Score(str(row["model"]), figures)


def read_picture(case: str, file: str | os.PathLike) -> Picture:
    """Read the picture of a study, a PNG file.

    Raises:
        InputError: it does not exist.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{case}: the picture {file} does not exist: draw it first.")
    content = file.read_bytes()
    # With its size, which a PNG file says in its first bytes, nothing on the page moves when the picture appears.
    width, height = struct.unpack(">II", content[16:24])
    return Picture(width, height, base64.b64encode(content).decode("ascii"))
