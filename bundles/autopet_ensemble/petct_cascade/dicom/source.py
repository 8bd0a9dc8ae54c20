"""A DICOM series in the place of a file: CT, PET or label of a study."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag

from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.files import read_dataset
from petct_cascade.dicom.frames import frames_of
from petct_cascade.dicom.geometry import names_of, stack_of
from petct_cascade.dicom.headers import STRUCTURE_CLASS
from petct_cascade.dicom.labels import Grid, contour_mask, segmentation_mask
from petct_cascade.dicom.pet_series import body_of
from petct_cascade.dicom.reading import read_ct, read_pet
from petct_cascade.dicom.series import Stack
from petct_cascade.dicom.suv import suv_conversion
from petct_cascade.dicom.suv_options import SuvOptions
from petct_cascade.volumes import Volume
from petct_training.errors import InputError

# What is said of a patient's body, of the whole file also in an enhanced one.
TAGS_OF_BODY = [Tag(keyword) for keyword in ("PatientWeight", "PatientSize", "PatientSex")]

# Facts about SUV that are dates and times.
MOMENTS = ("reference_time", "injection_time")


@dataclass(frozen=True)
class DicomSource(os.PathLike):
    """CT, PET or label of a study in DICOM files; wherever a path is wanted, it is the first of them.

    Attributes:
        role: "ct", "pet", "label" or "coarse mask".
        files: all of them, sorted.
        series: UID of the series.
        title: what the series is called in a sentence.
        options: what the headers of a PET do not say.
        grid_files: of a label or coarse mask, the files of the PET on whose grid it is wanted.
        frame_of_reference: of that PET.
        segments: of a label, names or numbers of the segments or regions that are wanted; None for all that may be lesions.
        facts: what was found out when it was read, as JSON knows it.
    """

    role: str
    files: tuple[Path, ...]
    series: str
    title: str
    options: SuvOptions = field(default_factory=SuvOptions)
    grid_files: tuple[Path, ...] = ()
    frame_of_reference: str = ""
    segments: tuple[str, ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    # Of the patient, once a PET was read.
    _body: list[Body | None] = field(default_factory=list, compare=False, repr=False)

    def __fspath__(self) -> str:
        return os.fspath(self.files[0])

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f"{self.role.upper() if self.role in ('ct', 'pet') else self.role} {self.title}"

    @property
    def parent(self) -> Path:
        """The folder of its first file."""
        return self.files[0].parent

    @property
    def given(self) -> str:
        """What else its content depends on beside its files: what the user has said of them."""
        said = {name: getattr(self.options, name) for name in self.options.given}
        return f"{sorted(said.items())}{self.segments or ''}" if said or self.segments else ""

    def resolve(self) -> Path:
        """Return the path of the first file without links."""
        return self.files[0].resolve()

    def read(self) -> tuple[Volume, list[str]]:
        """Read it.

        Returns:
            The volume: CT in HU, PET in body-weight SUV, or a label or coarse mask of 0 and 1 on the PET's grid; and warnings, each
            the end of a sentence that begins with its name.

        Raises:
            InputError: when it cannot be read; the message is the end of a sentence that begins with its name.
        """
        if self.role in ("label", "coarse mask"):
            return self._read_label()
        read = read_ct(self.files) if self.role == "ct" else read_pet(self.files, self.options)
        self.facts.update(self._identity | read.facts)
        self._body[:] = [read.body]
        return Volume(self, read.array, read.affine), read.warnings

    def describe(self, identifying: bool = True) -> dict[str, Any]:
        """Return the facts; of an image that was not read yet, by its headers alone.

        Args:
            identifying: whether they hold the series' UID and description, dates and times.
        """
        if not self.facts:
            self.facts.update(self._identity)
            if self.role == "pet":
                # What is wrong with it is said when it is read.
                with contextlib.suppress(InputError):
                    self.facts["suv"] = suv_conversion(headers_of(self.files)[0], self.options).facts
        if identifying:
            return self.facts
        suv = {name: value for name, value in self.facts.get("suv", {}).items() if name not in MOMENTS}
        return {"files": len(self.files), **({"suv": suv} if suv else {})}

    def body(self) -> Body | None:
        """Return the patient's body by the headers of a PET and its options; None where they do not say weight, height and sex."""
        if not self._body:
            self._body.append(body_of([read_dataset(file, tags=TAGS_OF_BODY) for file in self.files], self.options))
        return self._body[0]

    @property
    def _identity(self) -> dict[str, Any]:
        return {"series": self.series, "description": self.title, "files": len(self.files)}

    def _read_label(self) -> tuple[Volume, list[str]]:
        """Read a segmentation or a structure set on the grid of the PET."""
        grid = grid_of(self.grid_files)
        frame = self.frame_of_reference or None
        reader = contour_mask if _is_structure_set(self.files[0]) else segmentation_mask
        label = reader(self.files, grid, self.segments, frame, self.role == "coarse mask")
        self.facts.update(self._identity | dict(label.facts))
        return Volume(self, label.array, grid.affine), label.warnings


def grid_of(files: Sequence[Path]) -> Grid:
    """Return the grid of a series by its headers.

    Raises:
        InputError: when its slices make no volume; the message is the end of a sentence that begins with the series.
    """
    frames, names = headers_of(files)
    stack = stack_of(frames, names)
    return Grid((int(frames[0].Columns), int(frames[0].Rows), len(stack.order)), stack.affine)


def headers_of(files: Sequence[Path]) -> tuple[list[Dataset], list[str]]:
    """Return the header of each slice of a series, in the order of files and frames, and what it is called in a sentence.

    Raises:
        InputError: when a file cannot be read; the message is the end of a sentence that begins with the file's name.
    """
    frames: list[Dataset] = []
    names: list[str] = []
    for file in files:
        of_file = frames_of(read_dataset(file))
        frames += of_file
        names += names_of(of_file, file.name)
    return frames, names


def image_source(role: str, stack: Stack, options: SuvOptions | None = None) -> DicomSource:
    """Return the source that a stack of images is."""
    files = tuple(header.file for header in stack.headers)
    return DicomSource(role, files, stack.first.series, stack.text, options or SuvOptions())


def _is_structure_set(file: Path) -> bool:
    return str(read_dataset(file, tags=[Tag("SOPClassUID")]).get("SOPClassUID", "")) == STRUCTURE_CLASS
