"""Which files of an output folder are a run's tables and report, and what results were made from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from petct_cascade.assemble import MEMBERS_ENTRY, folds_in, read_sources
from petct_cascade.readouts import READOUT_FILES
from petct_cascade.summary import SCORE_FILES
from petct_cascade.version import versions
from petct_cascade.volumes import Source
from petct_training.files import read_json_or_none
from petct_training.records import UNREADABLE, Plan, Records

# Record of an output folder's tables and report; no case begins with a dot.
SUMMARY = ".summary"
SUMMARY_FILES = ("problems.json", "report.html", *READOUT_FILES, *SCORE_FILES)


def facts_of_run(weights: Iterable[str | os.PathLike]) -> dict[str, Any]:
    """Return what a record says of the run that makes a mask: versions, and where its weights come from.

    Args:
        weights: `model.pt` and `fingerprint.json`.

    Returns:
        "versions"; and "weights": "trained_on", what the fingerprint says of itself; "members", of the ensemble; "folds", how
        many each network has that has several; "imported", the file of each network whose weights were not trained here.
    """
    files = {Path(file).name: Path(file) for file in weights}
    facts: dict[str, Any] = {}
    fingerprint = read_json_or_none(files["fingerprint.json"]) if "fingerprint.json" in files else None
    if isinstance(fingerprint, dict):
        if fingerprint.get("source"):
            facts["trained_on"] = str(fingerprint["source"])
        if fingerprint.get(MEMBERS_ENTRY):
            facts["members"] = fingerprint[MEMBERS_ENTRY]
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


def check_summary(records: Records) -> None:
    """Refuse what `summary_of` would refuse, before anything is done.

    Raises:
        InputError: as `summary_of`.
    """
    records.check_kind()
    records.check(_PLAN)


@contextlib.contextmanager
def summary_of(records: Records) -> Iterator[None]:
    """Record that an output folder's tables and report are written in a block.

    Raises:
        InputError: before the block, when one of these files is not this program's own, or the folder holds results of another
            kind.
    """
    records.check_kind()
    with records.making(_PLAN):
        yield


_PLAN = Plan(SUMMARY, {}, {}, SUMMARY_FILES)
