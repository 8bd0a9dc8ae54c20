"""CT, PET and label of one study by where they lie: a folder, a file of a series, or the UID of a series."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from petct_cascade.dicom.files import is_dicom
from petct_cascade.dicom.finding import DicomOptions, label_of
from petct_cascade.dicom.headers import Header, header_of_file, scan
from petct_cascade.dicom.series import Stack, choose_ct, choose_pet, stacks_of
from petct_cascade.dicom.source import DicomSource, image_source
from petct_training.errors import InputError

UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")


@dataclass
class Places:
    """Finds series by what a user names, and reads the headers of each folder once.

    Attributes:
        folder: in which series are looked for that are named by their UID.
    """

    folder: Path
    _read: dict[Path, list[Header]] = field(default_factory=dict)

    def is_dicom(self, place: str | os.PathLike) -> bool:
        """Return whether a place names a series: a folder, a DICOM file, or a UID for which there is no file."""
        path = self.folder / place
        try:
            return path.is_dir() or (is_dicom(path) if path.is_file() else bool(UID.fullmatch(os.fspath(place))))
        except OSError:
            return False

    def sources(
        self, places: Mapping[str, str | os.PathLike], options: DicomOptions | None = None
    ) -> tuple[dict[str, DicomSource], list[str]]:
        """Return the sources that places in DICOM name, and what is to be said of the choice.

        Args:
            places: under "ct", "pet" and "label", those that `is_dicom`.
            options: what the user has said.

        Raises:
            InputError: when there is no such series; the message is a sentence.
        """
        options = options or DicomOptions()
        sources: dict[str, DicomSource] = {}
        said: list[str] = []
        pet: Stack | None = None
        if "pet" in places:
            stacks, wanted = self._stacks(places["pet"], "pet")
            choice = choose_pet(stacks, wanted or options.pet_series)
            pet = choice.stack
            sources["pet"] = image_source("pet", pet, options.suv)
            said.append(choice.why)
        if "ct" in places:
            stacks, wanted = self._stacks(places["ct"], "ct")
            choice = choose_ct(stacks, pet, wanted or options.ct_series, any_space=places["ct"] != places.get("pet"))
            sources["ct"] = image_source("ct", choice.stack)
            said.append(choice.why)
        if "label" in places:
            sources["label"] = self._label(places["label"], pet, options)
        return sources, [text for text in said if text]

    def _label(self, place: str | os.PathLike, pet: Stack | None, options: DicomOptions) -> DicomSource:
        """Return the label in a place."""
        if pet is None:
            raise InputError(f"its label {place} is DICOM and its PET is not: give both as DICOM, or both as NIfTI")
        headers, wanted = self._headers(place)
        label, _ = label_of([header for header in headers if wanted in (None, header.series)], pet, options.segments)
        if label is None:
            raise InputError(f"{place} holds no segmentation and no structure set of its PET: name the file or folder that does")
        return label

    def _stacks(self, place: str | os.PathLike, kind: str) -> tuple[list[Stack], str | None]:
        """Return the stacks of a kind in a place, and the UID of the series that the place names, if it names one."""
        headers, wanted = self._headers(place)
        stacks = [stack for stack in stacks_of(headers) if stack.first.kind == kind]
        if not stacks:
            raise InputError(f"{place} holds no {kind.upper()} in DICOM: name the folder of its series")
        return stacks, wanted

    def _headers(self, place: str | os.PathLike) -> tuple[list[Header], str | None]:
        """Return the headers among which a place lies, and the UID of the series that it names, if it names one."""
        path = self.folder / place
        if path.is_dir():
            return self._scan(path), None
        if path.is_file():
            header = header_of_file(path)
            if header is None:
                raise InputError(f"{place} is no CT, PET, segmentation or structure set in DICOM: name one")
            beside = self._scan(path.parent)
            # A result of this program is a label where somebody says so.
            return [*beside, header] if header.own else beside, header.series
        return self._scan(self.folder), os.fspath(place)

    def _scan(self, folder: Path) -> list[Header]:
        folder = folder.resolve()
        if folder not in self._read:
            self._read[folder] = scan(folder)[0]
        return self._read[folder]
