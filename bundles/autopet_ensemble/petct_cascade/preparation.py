"""What a preparation is told, where its files lie, and what they were made from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from petct_cascade.dicom.finding import DicomOptions
from petct_cascade.fingerprint import check_spacing_choice
from petct_cascade.judging import BODY_SUV
from petct_cascade.studies import Study
from petct_cascade.volumes import write_volume
from petct_training.errors import InputError, boolean
from petct_training.files import atomic, make_folder, read_json_or_none, relative_path, write_json
from petct_training.records import UNREADABLE, Plan, Records, digests_of, path_from

# Raised when the judgement of studies or the making of volumes changes, so that what was made before is made again.
VERSION = 4

# Folder, inside of the prepared data set, of what only the preparation reads: judgements, cropped studies, lesion values.
OWN = ".prepare"

# Record of datalist.json and fingerprint.json; no case begins with a dot.
DATA_SET = ".data_set"


@dataclass(frozen=True)
class PrepareOptions:
    """What the user of a preparation may choose.

    Attributes:
        seed: what the split depends on.
        validation_fraction: share of the studies for validation, approached as closely as whole patients allow.
        folds: number of folds for cross-validation, in the place of one split; 0 for the split.
        exclude: cases to leave out, such as retracted samples; see `petct_cascade.exclusions.read_exclusions`.
        spacing: "mean" or "median" of the training studies' PET spacing, or [x, y, z] in mm.
        keep_healthy: whether studies without lesions are used too.
        strict: whether the first study with an error ends the run.
        allow_outside: whether a list may name files outside of its folder.
        body_suv: SUV above which a voxel belongs to the body.
        body_margin: voxels that are kept around the body.
        num_workers: processes; each needs about 1.5 GB of memory for a study of 400 x 400 x 326 voxels, in proportion to its
            voxels.
        dicom: which series of DICOM studies are taken, and what their headers do not say.

    Raises:
        InputError: when a value is impossible.

    Example:
        >>> PrepareOptions(validation_fraction=2)
        Traceback (most recent call last):
        petct_training.errors.InputError: validation_fraction is 2: give a number between 0 and 1
    """

    seed: int = 0
    validation_fraction: float = 0.2
    folds: int = 0
    exclude: str | os.PathLike | Sequence[str] | None = None
    spacing: str | Sequence[float] = "mean"
    keep_healthy: bool = False
    strict: bool = False
    allow_outside: bool = False
    body_suv: float = BODY_SUV
    body_margin: int = 2
    num_workers: int = 1
    dicom: DicomOptions = field(default_factory=DicomOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.validation_fraction, (int, float)) or not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction is {self.validation_fraction!r}: give a number between 0 and 1")
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 0 or self.folds == 1:
            raise InputError(f"folds is {self.folds!r}: give 2 or more, or 0 for one split")
        if not isinstance(self.num_workers, int) or self.num_workers < 0:
            raise InputError(f"num_workers is {self.num_workers!r}: give a whole number")
        check_spacing_choice(self.spacing)
        for name in ("keep_healthy", "strict", "allow_outside"):
            # The command line gives "true" and "false" as texts.
            object.__setattr__(self, name, boolean(name, getattr(self, name)))


@dataclass(frozen=True)
class CroppedStudy:
    """A study cropped to its body on its own grid, which the check leaves for the making, so that every study is read once.

    Attributes:
        folder: image.nii, label.nii and lesion_values.npy as in the prepared data set, and settings.json, which is written last.
    """

    folder: Path

    @property
    def files(self) -> list[Path]:
        """The files of image, label and lesion values."""
        return [self.folder / name for name in ("image.nii", "label.nii", "lesion_values.npy")]

    @property
    def settings_file(self) -> Path:
        """The file that says what the others depend on."""
        return self.folder / "settings.json"

    def is_complete(self, settings: Mapping[str, Any]) -> bool:
        """Return whether all files are there, which a run that was killed while it moved or removed them may have left in part."""
        return read_json_or_none(self.settings_file) == settings and all(file.is_file() for file in self.files)

    def write(self, settings: Mapping[str, Any], image: MetaTensor, label: MetaTensor, values: np.ndarray) -> None:
        """Write an image (2, X, Y, Z), its label (1, X, Y, Z), both in LAS, and the values (2, n) inside of its lesions.

        Raises:
            InputError: when the disk is full.
        """
        image_file, label_file, values_file = self.files
        self.settings_file.unlink(missing_ok=True)
        write_image_and_label(image, label, image_file, label_file)
        with atomic(values_file) as part:
            np.save(part, values)
        write_json(self.settings_file, settings)

    def move(self, outputs: Sequence[Path]) -> None:
        """Make the files the results, as they are, and remove the folder."""
        self.settings_file.unlink()
        for file, output in zip(self.files, outputs, strict=True):
            make_folder(output.parent)
            os.replace(file, output)
        shutil.rmtree(self.folder)


@dataclass(frozen=True)
class Preparation:
    """A raw data set, the prepared one that is made from it, and how.

    Attributes:
        root: folder of the raw data set.
        dataset_dir: folder of the prepared one.
        options: what the user has chosen.
    """

    root: Path
    dataset_dir: Path
    options: PrepareOptions
    records: Records = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", Records(self.dataset_dir, "prepared data set"))

    @property
    def datalist_file(self) -> Path:
        """The file that names the studies; where it is, the data set is complete."""
        return self.dataset_dir / "datalist.json"

    @property
    def fingerprint_file(self) -> Path:
        """The file that says what spacing and lesions are like."""
        return self.dataset_dir / "fingerprint.json"

    @property
    def cropped_dir(self) -> Path:
        """The folder of the studies that were checked and not yet made."""
        return self.dataset_dir / OWN / "cropped"

    @property
    def lists(self) -> Plan:
        """What is written of the data set as a whole."""
        return Plan(DATA_SET, {}, {}, [self.datalist_file.name, self.fingerprint_file.name])

    def relative_to_root(self, file: str | os.PathLike) -> str:
        """Return a raw file's path relative to the raw data set, with slashes on every system."""
        return Path(relative_path(Path(file).absolute(), self.root.absolute())).as_posix()

    def sources(self, study: Study) -> dict[str, dict[str, Any]]:
        """Return path and state of a study's files under their roles; what surely is the same is not read again."""
        known = (read_json_or_none(self.checked_record(study.case)) or {}).get("sources", {})
        sources = {}
        for role, file in study.files.items():
            state = self.records.state_of(file, known.get(role)) or UNREADABLE
            sources[role] = {"path": self.relative_to_root(file), **state}
        return sources

    def settings(self, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return all that the volumes of a study with these `sources` depend on, but for the spacing."""
        return {
            "version": VERSION,
            "sources": digests_of(sources),
            "body_suv": self.options.body_suv,
            "body_margin": self.options.body_margin,
        }

    def plan(self, study: Study, settings: Mapping[str, Any], spacing: Sequence[float]) -> Plan:
        """Return what is made of a study with these `settings` at a spacing (mm)."""
        outputs = [path_from(file, self.dataset_dir) for file in self.outputs(study.case)]
        return Plan(study.case, study.files, {**settings, "spacing": list(spacing)}, outputs)

    def is_finished(self, study: Study, spacing: Sequence[float]) -> bool:
        """Return whether a study's volumes are there and were made from the present content with the present settings."""
        return self.records.is_current(self.plan(study, self.settings(self.sources(study)), spacing))

    def check_places(self, studies: Iterable[Study]) -> None:
        """Refuse a folder in which files that this program has not written lie in the places of its own, such as the raw labels.

        Raises:
            InputError: with the first such file.
        """
        self.records.check_kind()
        self.records.check(self.lists)
        for study in studies:
            self.records.check(self.plan(study, {}, ()))

    def checked_record(self, case: str) -> Path:
        """Return the file that holds the judgement of a case."""
        return self.dataset_dir / OWN / "checked" / f"{case}.json"

    def made_cases(self) -> list[str]:
        """Return the cases whose volumes this or an earlier run has made, or has begun to make."""
        return [name for name in self.records.names() if name != DATA_SET]

    def cropped(self, case: str) -> CroppedStudy:
        """Return where a case is kept between check and making."""
        return CroppedStudy(self.cropped_dir / case)

    def lesion_values(self, case: str) -> Path:
        """Return the file of the values (2, n), CT in HU and PET in SUV, inside of a case's lesions."""
        return self.dataset_dir / OWN / "lesion_values" / f"{case}.npy"

    def outputs(self, case: str) -> list[Path]:
        """Return the files of a case's image, label and lesion values."""
        return [
            self.dataset_dir / "images" / f"{case}.nii",
            self.dataset_dir / "labels" / f"{case}.nii",
            self.lesion_values(case),
        ]

    def remove_coarse_mask(self, case: str) -> None:
        """Remove stage 1's mask of a case, which is worth nothing once its volumes are others; one of somebody else stays."""
        Records(self.dataset_dir / "coarse_masks", "").remove(case)

    def remove(self, case: str) -> None:
        """Remove a case's volumes, as far as they are still what was written, and its coarse mask."""
        self.remove_coarse_mask(case)
        self.records.remove(case)


def write_image_and_label(image: MetaTensor, label: MetaTensor, image_file: Path, label_file: Path) -> None:
    """Write an image (C, X, Y, Z) with its channels last, and the label (1, X, Y, Z) on its grid.

    Raises:
        InputError: when the disk is full.
    """
    affine = image.affine.numpy()
    write_volume(image_file, np.moveaxis(image.numpy(), 0, -1), affine)
    write_volume(label_file, label.numpy()[0].astype(np.uint8, copy=False), affine)
