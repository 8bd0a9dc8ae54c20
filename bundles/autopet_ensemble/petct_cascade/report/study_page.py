"""The page of one study: its pictures, figures and origin, and a viewer of its volumes, which works without a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from petct_cascade.pictures import COLOURS, Scene
from petct_cascade.readouts import READOUT_FILES
from petct_cascade.report.contents import LESIONS_SHOWN
from petct_cascade.report.projections import write_rotation
from petct_cascade.report.scenes import Place, StudyImages, numbered_scene, places_of_lesions
from petct_cascade.report.templating import template_environment
from petct_cascade.report.viewer import write_program, write_volumes
from petct_training.errors import InputError
from petct_training.files import write_text
from petct_training.grids import spacing_of

FOLDER = "studies"
# The viewer's program, which the pages of all studies share.
VIEWER = f"{FOLDER}/viewer"
PROGRAM_FILES = (f"{VIEWER}/niivue.js", f"{VIEWER}/LICENSE.txt")
# The files that have all lesions of a mask.
LESION_FILES = {"prediction": READOUT_FILES[2], "reference": READOUT_FILES[0]}
INDEX = "../report.html"  # seen from a page


class PageColumn(NamedTuple):
    """A column of a table.

    Attributes:
        key: of its value in a row.
        heading: what stands above it.
        decimals: of its numbers; None for text.
        definition: a sentence that says what it is; nothing where the heading does.
    """

    key: str
    heading: str
    decimals: int | None = 0
    definition: str = ""


@dataclass(frozen=True)
class PageTable:
    """Columns, and per row the value of each; None, NaN or no value where there is none. A plain tuple serves as a column."""

    columns: Sequence[tuple[str, str, int | None, str]]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class StudyPageContent:
    """What is shown of a study.

    Attributes:
        images: PET, masks and CT.
        title: above the study's name, for example that of the run.
        picture: the PNG file of the study, to which the page links.
        readouts: of the study, one row.
        lesions: per role ("prediction", "reference") a row a lesion, with the key "lesion": its number as in the read-outs. The
            first `LESIONS_SHOWN` are shown.
        scores: against the reference, one row a model.
        changes: lesions that a person has changed, a row a lesion, of which the first `LESIONS_SHOWN` are shown; None where the
            mask is automatic.
        origin: what is said of the files that it was made from, each line with its heading.
        problems: sentences.
        warnings: sentences.
        suv_range: SUV shown white and SUV shown black.
    """

    images: StudyImages
    title: str = ""
    picture: str | os.PathLike | None = None
    readouts: PageTable | None = None
    lesions: Mapping[str, PageTable] = field(default_factory=dict)
    scores: PageTable | None = None
    changes: PageTable | None = None
    origin: Sequence[tuple[str, str]] = ()
    problems: Sequence[str] = ()
    warnings: Sequence[str] = ()
    suv_range: Sequence[float] = (0.0, 10.0)


def files_of_page(case: str, viewer: bool = True) -> list[str]:
    """Return the files of a study's page in an output folder, with slashes."""
    names = (f"{case}.html", f"{case}_files/rotation.webp", *([f"{case}_files/volumes.js"] if viewer else ()))
    return [f"{FOLDER}/{name}" for name in names]


def write_study_page(folder: str | os.PathLike, case: str, content: StudyPageContent, viewer: bool = True) -> Path:
    """Write the page of one study to the folder of a run's output.

    It appears as `studies/<case>.html`. Beside it `studies/<case>_files` holds the rotating projection and the volumes, and
    `studies/viewer` the viewer's program, which all studies share. The page appears last, so that it never lacks what it shows.
    Equal input gives equal bytes.

    Args:
        folder: of the run's output; its `report.html` is what the page links back to.
        case: the study's name.
        content: what is shown.
        viewer: whether the volumes are written, several MB a study, and can be looked at.

    Returns:
        The page.

    Raises:
        InputError: the images do not lie on one grid, the SUV range is empty, or the picture does not exist.
    """
    pages = Path(folder) / FOLDER
    beside = pages / f"{case}_files"
    low, high = content.suv_range
    if not low < high:
        raise InputError(f"{case}: the SUV range is {(low, high)}: give two growing numbers, as 0 and 10.")
    if content.picture is not None and not Path(content.picture).is_file():
        raise InputError(f"{case}: the picture {content.picture} does not exist: draw it first.")
    scene = numbered_scene(case, content.images)
    rotation = write_rotation(beside / "rotation.webp", scene, content.suv_range)
    html = template_environment().get_template("study.html.j2").render(
        case=case,
        title=content.title,
        index=INDEX,
        rotation=_link(rotation, pages),
        picture=None if content.picture is None else _link(Path(content.picture), pages),
        readouts=_shown(content.readouts),
        scores=_shown(content.scores),
        changes=None if content.changes is None else _shown(replace(content.changes, rows=content.changes.rows[:LESIONS_SHOWN])),
        change_count=0 if content.changes is None else len(content.changes.rows),
        lesions=_lesion_parts(scene, content.lesions),
        lesions_shown=LESIONS_SHOWN,
        origin=content.origin,
        problems=content.problems,
        warnings=content.warnings,
        viewer=_write_viewer(pages, beside, scene, content) if viewer else None,
        masks=list(scene.masks),
        colours=COLOURS,
        suv_range=content.suv_range,
    )  # fmt: skip
    page = pages / f"{case}.html"
    write_text(page, html)
    return page


class _LesionPart(NamedTuple):
    """The lesions of one mask: their role, table, how many there are, the file in the run's output that has them all, and by their
    numbers their places (world mm).
    """

    role: str
    table: PageTable | None
    total: int
    file: str
    places: Mapping[int, Place]


def _lesion_parts(scene: Scene, lesions: Mapping[str, PageTable]) -> list[_LesionPart]:
    """Return what is shown of the lesions of each mask; of lesions that no mask holds, no place is known."""
    parts = []
    for role, table in lesions.items():
        numbers = scene.masks.get(role)
        places = {} if numbers is None else places_of_lesions(numbers, scene.affine, LESIONS_SHOWN)
        shown = PageTable(table.columns, table.rows[:LESIONS_SHOWN])
        parts.append(_LesionPart(role, _shown(shown), len(table.rows), LESION_FILES[role], places))
    return parts


def _shown(table: PageTable | None) -> PageTable | None:
    """Return a table in which each row has a value, or None, for each column, and no column is empty."""
    if table is None:
        return None
    columns = [PageColumn(*column) for column in table.columns]
    columns = [column for column in columns if any(row.get(column.key) is not None for row in table.rows)]
    return PageTable(columns, [{column.key: row.get(column.key) for column in columns} for row in table.rows])


def _write_viewer(pages: Path, beside: Path, scene: Scene, content: StudyPageContent) -> dict[str, Any]:
    """Write the viewer's files, and return what the page says of them and passes to its script."""
    write_program(pages / "viewer")
    images = content.images
    file = beside / "volumes.js"
    ct_affine = images.affine if images.ct_affine is None else images.ct_affine
    volumes = write_volumes(file, scene, images.ct, ct_affine)
    return {
        "program": _link(pages / "viewer/niivue.js", pages),
        "licence": _link(pages / "viewer/LICENSE.txt", pages),
        "volumes": _link(file, pages),
        "megabytes": file.stat().st_size / 1e6,
        "sizes": {volume.name: [float(size) for size in spacing_of(volume.affine)] for volume in volumes},
        "lesions": {role: int(numbers.max(initial=0)) for role, numbers in scene.masks.items()},
    }


def _link(file: Path, start: Path) -> str:
    """Return the relative link to a file from pages in a folder, in which signs such as # and % stand for themselves."""
    return quote(Path(os.path.relpath(file, start)).as_posix())
