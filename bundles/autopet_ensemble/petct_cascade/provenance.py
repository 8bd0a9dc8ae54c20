"""What the ensemble's results are made from, and which files of an output folder are its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petct_training.records import Plan, Records, path_from, read_record

# Record of an output folder's tables, pictures and report; no case begins with a dot.
SUMMARY = ".summary"
SUMMARY_FILES = (
    *("problems.json", "report.html", "readouts.json", "readouts_studies.csv", "readouts_lesions.csv"),
    *("scores.csv", "summary.json", "summary.md", "table1.md"),
)


@dataclass(frozen=True)
class Masks:
    """The masks, and maps, that a run makes of each study in an output folder.

    Attributes:
        records: of the output folder.
        folders: where the files `<case>.nii.gz` go, one a kind: masks, maps of uncertainty.
        settings: the options that change voxels.
        weights: the files that change voxels: weights, fingerprint. Their digests are recorded.
    """

    records: Records
    folders: Sequence[str | os.PathLike]
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[str | os.PathLike] = ()

    def plan(self, item: Mapping[str, Any]) -> Plan:
        """Return what is made of a study: an item with "case" and "image" ([CT file, PET file])."""
        ct, pet = item["image"]
        outputs = [path_from(Path(folder) / f"{item['case']}.nii.gz", self.records.folder) for folder in self.folders]
        digests = {Path(file).name: self._digest(file) for file in self.weights}
        return Plan(item["case"], {"ct": ct, "pet": pet}, {**self.settings, "digests": digests}, outputs)

    def keep_only(self, cases: Iterable[str]) -> None:
        """Delete the results of other cases, as far as they are still what this program has written."""
        wanted = set(cases)
        for name in self.records.names():
            if name not in wanted and name != SUMMARY:
                self.records.remove(name)

    def _digest(self, file: str | os.PathLike) -> str | None:
        state = self.records.source_state(file)
        return None if state is None else str(state["sha256"])


@contextlib.contextmanager
def summary_of(output_dir: str | os.PathLike, kind: str, cases: Iterable[str]) -> Iterator[None]:
    """Record that an output folder's tables, report and pictures are written in a block.

    Args:
        output_dir: output folder.
        kind: what is run, see `Records`.
        cases: of which there may be pictures.

    Raises:
        InputError: before the block, when one of these files is not this program's own, or the folder holds results of another kind.
    """
    records = Records(Path(output_dir), kind)
    records.check_kind()
    earlier = read_record(records.file(SUMMARY)) or {}
    pictures = {f"pictures/{case}.png" for case in cases} | set(earlier.get("written") or ()) - set(SUMMARY_FILES)
    with records.making(Plan(SUMMARY, {}, {}, [*SUMMARY_FILES, *sorted(pictures)])):
        yield
