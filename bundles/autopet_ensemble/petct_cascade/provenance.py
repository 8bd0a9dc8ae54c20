"""Which files of an output folder are a run's tables, pictures, report and DICOM objects, and what results were made from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from petct_cascade.assemble import folds_in, read_sources
from petct_cascade.dicom_output import dicom_files
from petct_cascade.report.study_page import files_of_page
from petct_cascade.results import picture_of
from petct_cascade.version import versions
from petct_cascade.volumes import Source
from petct_training.files import read_json_or_none
from petct_training.records import UNREADABLE, Plan, Records, digests_of

# Record of an output folder's tables, pictures and report; no case begins with a dot.
SUMMARY = ".summary"
READOUTS = "readouts.json"
# What says, of a study's read-outs, that they were written as DICOM, too.
DICOM = "dicom"
# What says that they are on a page, and whether the volumes can be looked at there.
PAGE, WITH_VIEWER, WITHOUT_VIEWER = "page", "with viewer", "without viewer"
SUMMARY_FILES = (
    *("problems.json", "report.html", READOUTS, "readouts_studies.csv", "readouts_lesions.csv"),
    *("scores.csv", "summary.json", "summary.md", "table1.md"),
    # What the pages of all studies share.
    *("studies/viewer/niivue.js", "studies/viewer/LICENSE.txt"),
)


@dataclass
class Summary:
    """An output folder's tables, pictures, report and DICOM objects.

    Attributes:
        records: of the output folder.
        earlier: the record of the last run, empty if there is none.
        made_from: of each case in the tables what its read-outs were made from, see `describe`; filled while they are made.
    """

    records: Records
    earlier: Mapping[str, Any]
    made_from: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.records.folder

    def describe(self, files: Mapping[str, Path | Source | None], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what read-outs are made from: the digest of each file, None where there is none, and the options.

        Args:
            files: by their role.
            options: what else read-outs, pictures and DICOM objects depend on, as JSON knows it; `DICOM` says what the segments are
                of the SEG that is written with them.
        """
        states = {role: None if file is None else self.records.state_of(file) for role, file in files.items()}
        return {**digests_of(states), **options}

    def has_readouts(self, case: str, made_from: Mapping[str, Any] | None = None) -> bool:
        """Whether a case is in the tables of the last run, with its picture and DICOM objects, made from this; from whatever it
        was by default.
        """
        known = ((self.earlier.get("settings") or {}).get("made_from") or {}).get(case)
        if known is None or (made_from is not None and known != made_from):
            return False
        return all(map(self._is_intact, (READOUTS, *_files(case, known))))

    def keep(self, case: str) -> None:
        """Keep what the last run has made of a case."""
        self.made_from[case] = self.earlier["settings"]["made_from"][case]

    def _is_intact(self, output: str) -> bool:
        written = (self.earlier.get("written") or {}).get(output)
        return written is not None and self.records.is_unchanged(output, written)


def facts_of_run(weights: Iterable[str | os.PathLike]) -> dict[str, Any]:
    """Return what a record says of the run that makes a mask: versions, and where its weights come from.

    Args:
        weights: `model.pt` and `fingerprint.json`.

    Returns:
        "versions"; and "weights": "trained_on", what the fingerprint says of itself; "folds", how many each network has that has
        several; "imported", the file of each network whose weights were not trained here.
    """
    files = {Path(file).name: Path(file) for file in weights}
    facts: dict[str, Any] = {}
    fingerprint = read_json_or_none(files["fingerprint.json"]) if "fingerprint.json" in files else None
    if isinstance(fingerprint, dict) and fingerprint.get("source"):
        facts["trained_on"] = str(fingerprint["source"])
    folds = folds_in(files["fingerprint.json"]) if fingerprint else {}
    if folds:
        facts["folds"] = folds
    imported = read_sources(files["model.pt"].parent) if "model.pt" in files and files["model.pt"].is_file() else {}
    if imported:
        facts["imported"] = {name: str(source["file"]) for name, source in imported.items()}
    return {"versions": versions(), **({"weights": facts} if facts else {})}


def today() -> dict[str, str]:
    """Return what a record says of the day on which a mask is made."""
    return {"date": date.today().isoformat()}


def record_of(records: Records, case: str, files: Mapping[str, Path | Source | None]) -> dict[str, Any]:
    """Return the record of a study's mask; of a mask of unknown origin, what a record would say of the files that are read out.

    Args:
        records: of the output folder.
        case: the study's name.
        files: that are read, by their role.
    """
    record = records.read(case)
    if record is not None:
        return record
    sources = {
        role: {"path": Path(file).name if records.identifying else "", **(records.state_of(file) or UNREADABLE)}
        for role, file in files.items()
        if file is not None
    }
    return {"sources": sources, "settings": {}, "about": {"versions": versions()}}


def _picture(case: str) -> str:
    """Return the file of a study's picture in an output folder."""
    return picture_of(Path(), case).as_posix()


def _dicom(case: str) -> list[str]:
    """Return the files of a study's DICOM objects in an output folder."""
    return [file.as_posix() for file in dicom_files(Path(), case)]


def _files(case: str, made_from: Mapping[str, Any]) -> list[str]:
    """Return the files in an output folder that belong to a study's read-outs."""
    page = made_from.get(PAGE)
    return [
        _picture(case),
        *(_dicom(case) if DICOM in made_from else ()),
        *(files_of_page(case, page == WITH_VIEWER) if page else ()),
    ]


def check_summary(records: Records, cases: Iterable[str], in_dicom: Iterable[str] = ()) -> None:
    """Refuse what `summary_of` would refuse, before anything is done.

    Raises:
        InputError: as `summary_of`.
    """
    records.check_kind()
    records.check(_plan(Summary(records, records.read(SUMMARY) or {}), cases, in_dicom)[0])


def _plan(summary: Summary, cases: Iterable[str], in_dicom: Iterable[str]) -> tuple[Plan, set[str]]:
    """Return the plan of an output folder's tables and all that belongs to them; and the files of studies that are none of them."""
    written = summary.earlier.get("written") or {}
    cases = list(cases)
    pictures = {_picture(case) for case in cases}
    objects = {file for case in in_dicom for file in _dicom(case)}
    pages = {file for case in cases for file in files_of_page(case)}
    others = set(written) - set(SUMMARY_FILES) - pictures
    outputs = [*SUMMARY_FILES, *sorted(pictures | objects | pages | others)]
    return Plan(SUMMARY, {}, {"made_from": summary.made_from}, outputs), others


@contextlib.contextmanager
def summary_of(records: Records, cases: Iterable[str], in_dicom: Iterable[str] = ()) -> Iterator[Summary]:
    """Record that an output folder's tables, report, pictures and DICOM objects are written in a block.

    Args:
        records: of the output folder.
        cases: of which there may be pictures.
        in_dicom: of which there may be DICOM objects.

    Raises:
        InputError: before the block, when one of these files is not this program's own, or the folder holds results of another
            kind.
    """
    records.check_kind()
    summary = Summary(records, records.read(SUMMARY) or {})
    plan, others = _plan(summary, cases, in_dicom)
    written = summary.earlier.get("written") or {}
    with records.making(plan):
        yield summary
        # Of studies that are no longer in the tables, or whose DICOM objects are no longer wanted.
        for output in others - {file for case, known in summary.made_from.items() for file in _files(case, known)}:
            if records.is_unchanged(output, written[output]):
                (records.folder / output).unlink()
