"""CT, PET and label of one study by where they lie: a folder, a file of a series, or the UID of a series."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from petct_cascade.dicom.files import is_dicom
from petct_cascade.dicom.finding import (
    LEFT_OUT,
    UNLESS_NO_SLICE,
    DicomOptions,
    label_of,
    lost_beside,
    owners_of_folders,
    studies_of,
)
from petct_cascade.dicom.headers import Damaged, Header, header_of_file, scan
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
    # Of the folders in which files are damaged, which are few, what else they hold and these files.
    _with_damage: list[tuple[list[Header], list[Damaged]]] = field(default_factory=list)

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
            said += [choice.why, "" if pet is None else _said_of_pair(choice.stack, pet)]
        if "label" in places:
            sources["label"], said_of_label = self._label(places["label"], pet, options)
            said.append(said_of_label)
        said += self._said_of_damaged(list(sources.values()))
        return sources, [text for text in said if text]

    def _said_of_damaged(self, sources: Sequence[DicomSource]) -> list[str]:
        """Return what is to be said of damaged files that may be none of a study's, though they lie among its files.

        Raises:
            InputError: when one lies among the files of this study alone: without it, the study may lack its end.
        """
        said = []
        for headers, damaged in self._with_damage:
            owners = owners_of_folders(studies_of(headers))
            for file in damaged:
                if lost_beside(file, sources, owners, None):
                    raise InputError(f"{file.file} {file.message}{UNLESS_NO_SLICE}")
                if any(file.file.parent == one.parent for source in sources for one in source.files):
                    said.append(f"{file.file} {file.message}{LEFT_OUT}")
        return said

    def _label(self, place: str | os.PathLike, pet: Stack | None, options: DicomOptions) -> tuple[DicomSource, str]:
        """Return the label in a place, and what is to be said of it."""
        if pet is None:
            raise InputError(f"its label {place} is DICOM and its PET is not: give both as DICOM, or both as NIfTI")
        headers, wanted = self._headers(place)
        label, said = label_of([header for header in headers if wanted in (None, header.series)], pet, options.segments)
        if label is None:
            raise InputError(f"{place} holds no segmentation and no structure set of its PET: name the file or folder that does")
        return label, said

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
            try:
                header = header_of_file(path)
            except InputError as error:
                raise InputError(f"{place} {error}") from error
            if header is None:
                raise InputError(f"{place} is no CT, PET, segmentation or structure set in DICOM: name one")
            beside = self._scan(path.parent)
            # A result of this program is a label where somebody says so.
            return [*beside, header] if header.own else beside, header.series
        return self._scan(self.folder), os.fspath(place)

    def _scan(self, folder: Path) -> list[Header]:
        folder = folder.resolve()
        if folder not in self._read:
            headers, damaged = scan(folder)
            self._read[folder] = headers
            if damaged:
                self._with_damage.append((headers, damaged))
        return self._read[folder]


def _said_of_pair(ct: Stack, pet: Stack) -> str:
    """Return what is to be said of a CT and a PET that were named one by one; an empty text when they belong together.

    Raises:
        InputError: when nothing says that they are of one person.
    """
    patients, spaces = ({getattr(stack.first, name) for stack in (ct, pet)} - {""} for name in ("patient", "frame_of_reference"))
    if len(patients) > 1:
        said = f"its CT {ct.text} is of patient {ct.first.patient!r} and its PET {pet.text} of patient {pet.first.patient!r}"
        if len(spaces) > 1:
            raise InputError(f"{said}, and they lie in different frames of reference: name CT and PET of one patient")
        return f"{said}: check that both are of one person"
    if len(spaces) > 1:
        return f"its CT {ct.text} lies in another frame of reference than its PET: check that it was registered to it"
    return ""
