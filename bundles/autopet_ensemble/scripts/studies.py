"""Finding PET/CT studies on a disk, and judging whether each is fit for use."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError

from scripts.errors import InputError
from scripts.metrics import bounding_box

SUFFIXES = (".nii.gz", ".nii")
TRACERS = ("fdg", "psma")
CHANNELS = {"0000": "ct", "0001": "pet"}

# A case names files such as <case>.nii.gz and hidden ones beside them; file systems allow 255 bytes.
LONGEST_CASE_BYTES = 200

# SUV above which a voxel belongs to the body: the background of a PET is near zero, tissue above 0.3.
BODY_SUV = 0.3

# Body tissue has an SUV near 1 by the definition of SUV; its activity is thousands of Bq/ml.
HIGHEST_MEDIAN_SUV = 50
# Urine in a PSMA study can reach several hundred.
HIGHEST_SUV = 1000

# How far apart (mm) the corners of two grids may lie that count as one: headers round their numbers.
PLACE_TOLERANCE_MM = 0.1

# The smallest share of the PET's extent that the CT covers without a remark, along x, y and z: the field of a CT is
# 500 mm wide, that of a PET up to 815 mm.
LEAST_COVERAGE = (0.55, 0.55, 0.9)

# The compression of .gz makes nothing smaller than by this (zlib's technical details).
DEFLATE_RATIO = 1032

READ_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, KeyError, zlib.error, isal_zlib.error)


@dataclass(frozen=True)
class Study:
    """One PET/CT study.

    Attributes:
        case: its name, after which results are called.
        patient: who was examined; several studies can be of one patient.
        tracer: for example "fdg" or "psma"; "unknown" when nothing tells.
        ct: NIfTI file, 3-D, HU, on any grid.
        pet: NIfTI file, 3-D, body-weight SUV.
        label: NIfTI file on the grid of the PET, 1 in lesions and 0 elsewhere; None when there is none.
        centre: where it was made, if known.
    """

    case: str
    patient: str
    tracer: str
    ct: Path
    pet: Path
    label: Path | None = None
    centre: str | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The study's files under "ct", "pet" and, if there is one, "label"."""
        files = {"ct": self.ct, "pet": self.pet}
        return files if self.label is None else files | {"label": self.label}


@dataclass(frozen=True)
class Finding:
    """What is wrong with a study.

    Attributes:
        case: the study's name.
        file: the file that is meant, if it is one.
        message: the end of a sentence that begins with the file's name, or a sentence of its own when there is no file: what is
            wrong, and what to do.
        error: True when the study cannot be used, False for a warning.
    """

    case: str
    file: Path | None
    message: str
    error: bool

    @property
    def sentence(self) -> str:
        """File, what is wrong, and what to do."""
        return self.message if self.file is None else f"{self.file.name} {self.message}"

    def __str__(self) -> str:
        return f"study {self.case}: {self.sentence}"


@dataclass(frozen=True)
class Volume:
    """A volume that could be read.

    Attributes:
        file: where it comes from.
        array: (X, Y, Z), in the type in which the file stores it.
        affine: (4, 4), from voxel indices to world coordinates in mm.
    """

    file: Path
    array: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Distance of neighbouring voxels along the array's axes, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def digest(self) -> str:
        """A name for the voxels' content: two checksums, which in two volumes that differ agree by chance once in 2 ** 60 times."""
        voxels = np.ascontiguousarray(self.array.T)
        return f"{isal_zlib.crc32(voxels):08x}{isal_zlib.adler32(voxels):08x}"


# ---------------------------------------------------------------- finding


def find_studies(source: str | Path, labels: bool, allow_outside: bool = False) -> tuple[list[Study], list[Finding]]:
    """Find the studies of a data set.

    Args:
        source: one of
            - a folder in the challenge's layout: imagesTr/<case>_0000.nii.gz (CT), imagesTr/<case>_0001.nii.gz (PET),
              labelsTr/<case>.nii.gz; without labels, imagesTs as well;
            - a folder of such pairs; labels are <case>.nii.gz beside them, or in the folder next to it whose name has "labels" in
              place of "images";
            - a folder with TCIA's NIfTI files: PETCT_<patient>/<study>/CTres.nii.gz, SUV.nii.gz, SEG.nii.gz (or CT.nii.gz, on its
              own grid, when there is no CTres.nii.gz), called fdg_<patient>_<study>;
            - a CSV file with the columns case, ct, pet and, if wanted, label, patient, tracer, centre; or a JSON file with a list
              of such objects, in which "image": [ct, pet] may replace "ct" and "pet". Paths are relative to the file's folder.
            Where nothing else is said, tracer and patient are the first and second `_`-separated field of the case.
        labels: whether every study must have a label.
        allow_outside: whether a list may name files that lie outside of its folder, as another person's list should not.

    Returns:
        The studies, sorted by case, and what was found wrong with those that are not among them. Files are not opened: see
        `check_study`.

    Raises:
        InputError: when the source does not exist, has none of these layouts or is not a readable list.
    """
    source = Path(source)
    if source.suffix.lower() in (".csv", ".json") and source.is_file():
        found = _from_list(source, allow_outside)
    elif not source.is_dir():
        raise InputError(f"{source} does not exist: name the folder of the data set, or a CSV or JSON list of studies")
    elif (source / "imagesTr").is_dir() or (source / "imagesTs").is_dir():
        found = _from_challenge(source, labels)
    elif folders := sorted(folder for depth in ("", "*/") for folder in source.glob(f"{depth}PETCT_*") if folder.is_dir()):
        found = _from_tcia(folders)
    else:
        found = _from_pairs(source, _labels_of(source))
    studies, findings = _accept(found, labels)
    if not studies and not findings:
        raise InputError(
            f"{source} holds no studies: give a folder with imagesTr and labelsTr, with <case>_0000.nii.gz and <case>_0001.nii.gz, "
            "with PETCT_<patient>/<study>/SUV.nii.gz, or a CSV or JSON list"
        )
    return studies, findings


def without_suffix(name: str) -> str:
    """Give a file's name without .nii.gz or .nii."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def identity(case: str) -> tuple[str, str]:
    """Give the tracer and the patient that a name of the challenge tells.

    Example:
        >>> identity("psma_95b833d46f153cd2_2018-04-16")
        ('psma', '95b833d46f153cd2')
        >>> identity("volunteer 7")
        ('unknown', 'volunteer 7')
    """
    fields = case.split("_")
    named = len(fields) > 2 or (len(fields) == 2 and fields[0].lower() in TRACERS)
    if named and fields[0] and fields[1]:
        return fields[0].lower(), fields[1]
    return "unknown", case


_Found = Iterator[Study | Finding]


def _accept(found: Iterable[Study | Finding], labels: bool) -> tuple[list[Study], list[Finding]]:
    """Separate studies from findings, and turn studies that lack a label, or whose name cannot be used, into findings."""
    studies: dict[str, Study] = {}
    findings = []
    repeated = set()
    for item in found:
        if isinstance(item, Finding):
            findings.append(item)
        elif problem := problem_of_name(item.case):
            findings.append(Finding(item.case, None, problem, error=True))
        elif item.case in studies or item.case in repeated:
            repeated.add(item.case)
        elif labels and item.label is None:
            message = "the study has no label: add the mask of its lesions (an empty one if it has none), or take the study away"
            findings.append(Finding(item.case, None, message, error=True))
        else:
            studies[item.case] = item
    for case in repeated:
        studies.pop(case, None)
        message = "the name stands for two studies: give each study a name of its own, and keep one file of each kind"
        findings.append(Finding(case, None, message, error=True))
    findings += _patients_spelt_twice(studies.values())
    return [studies[case] for case in sorted(studies)], sorted(findings, key=lambda finding: (finding.case, finding.sentence))


def problem_of_name(case: str) -> str | None:
    """Say why a case cannot be part of a file's name, None when it can: results are called after it, inside of their folder."""
    if not case.strip():
        return "the study has no name: fill in its case"
    if re.search(r"[/\\\x00-\x1f\x7f]", case) or case.startswith("."):
        return "the name cannot be used for a file: take slashes, control characters and a leading dot out of it"
    if len(case.encode()) > LONGEST_CASE_BYTES:
        return f"the name is too long for a file: shorten it to {LONGEST_CASE_BYTES} bytes"
    return None


def _patients_spelt_twice(studies: Iterable[Study]) -> list[Finding]:
    """Warn of patients whose names differ in case, spaces and signs only: they may be one person, whom the split tears apart."""
    spelling: dict[str, Study] = {}
    findings = []
    for study in studies:
        letters = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", study.patient)).casefold()
        first = spelling.setdefault(letters, study)
        if first.patient != study.patient:
            message = (
                f"its patient '{study.patient}' is '{first.patient}' in study {first.case}: spell one person's name in one way"
            )
            findings.append(Finding(study.case, None, message, error=False))
    return findings


def _from_challenge(source: Path, labels: bool) -> _Found:
    for name in ("imagesTr",) if labels else ("imagesTr", "imagesTs"):
        if (source / name).is_dir():
            yield from _from_pairs(source / name, _labels_of(source / name))


def _labels_of(images: Path) -> Path:
    """The folder in which labels of a folder of images lie."""
    beside = images.resolve().parent / images.resolve().name.replace("images", "labels")
    return beside if beside.is_dir() else images


def _from_pairs(images: Path, labels: Path) -> _Found:
    """Studies of a folder of <case>_0000 (CT) and <case>_0001 (PET)."""
    files: dict[str, dict[str, list[Path]]] = {}
    for file in sorted(images.iterdir()):
        match = re.fullmatch(r"(.+)_(0000|0001)(\..*)", file.name)
        if match and not file.name.startswith("."):
            case, channel, suffix = match.groups()
            if suffix in SUFFIXES:
                files.setdefault(case, {}).setdefault(CHANNELS[channel], []).append(file)
            else:
                yield Finding(case, file, "does not end with .nii.gz or .nii: convert it to NIfTI", error=True)
    for case, channels in files.items():
        absent = [name.upper() for name in CHANNELS.values() if name not in channels]
        double = [several for several in channels.values() if len(several) > 1]
        if absent:
            number = next(number for number, name in CHANNELS.items() if name not in channels)
            message = f"there is no {absent[0]} of this study: add {case}_{number}.nii.gz"
            yield Finding(case, None, message, error=True)
        elif double:
            yield Finding(case, double[0][1], "is there compressed and uncompressed: keep one of the two", error=True)
        else:
            tracer, patient = identity(case)
            candidates = [labels / f"{case}{suffix}" for suffix in SUFFIXES]
            label = next((file for file in candidates if file.is_file()), None)
            yield Study(case, patient, tracer, channels["ct"][0], channels["pet"][0], label)


def _from_tcia(folders: Sequence[Path]) -> _Found:
    """Studies of TCIA's FDG-PET-CT-Lesions, converted to NIfTI by the data set's own scripts."""
    for folder in (study for patient in folders for study in sorted(patient.iterdir()) if study.is_dir()):
        patient = folder.parent.name.removeprefix("PETCT_")
        case = f"fdg_{patient}_{folder.name}"
        files = {
            name: next((folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()), None)
            for name in ("CTres", "CT", "SUV", "SEG", "PET")
        }
        ct = files["CTres"] or files["CT"]
        if files["SUV"] is None and files["PET"] is not None:
            message = "is not in SUV, and there is no SUV.nii.gz beside it: convert it to body-weight SUV"
            yield Finding(case, files["PET"], message, error=True)
        elif files["SUV"] is None:
            yield Finding(case, None, f"there is no PET of this study: add SUV.nii.gz to {folder}", error=True)
        elif ct is None:
            yield Finding(case, None, f"there is no CT of this study: add CTres.nii.gz to {folder}", error=True)
        else:
            yield Study(case, patient, "fdg", ct, files["SUV"], files["SEG"])


def _from_list(source: Path, allow_outside: bool) -> _Found:
    rows = _read_csv(source) if source.suffix.lower() == ".csv" else _read_json_list(source)
    for number, row in enumerate(rows, 1):
        image = row.get("image")
        if isinstance(image, list) and len(image) == 2:
            row = {"ct": image[0], "pet": image[1], **row}
        values = {
            name: str(row.get(name) or "").strip() for name in ("case", "ct", "pet", "label", "patient", "tracer", "centre")
        }
        case = values["case"]
        if not case:
            yield Finding(f"{source.name}, entry {number}", None, "the study has no name: fill in its case", error=True)
            continue
        absent = [name for name in ("ct", "pet") if not values[name]]
        if absent:
            message = f"{source.name} names no {absent[0].upper()} of this study: fill in its {absent[0]}"
            yield Finding(case, None, message, error=True)
            continue
        files = {name: source.parent / values[name] for name in ("ct", "pet", "label") if values[name]}
        outside = next((name for name, file in files.items() if not is_inside(file, source.parent)), None)
        if outside is not None and not allow_outside:
            message = (
                f"{source.name} names {values[outside]}, which lies outside of the list's folder: move the list or the file, "
                "or allow it with --allow_outside true"
            )
            yield Finding(case, None, message, error=True)
            continue
        tracer, patient = identity(case)
        yield Study(
            case=case,
            patient=values["patient"] or patient,
            tracer=values["tracer"].lower() or tracer,
            ct=files["ct"],
            pet=files["pet"],
            label=files.get("label"),
            centre=values["centre"] or None,
        )


def is_inside(file: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Whether a path, as it is written, lies in a folder; links are not followed, since the folder's owner has made them."""
    path, parent = os.path.abspath(file), os.path.abspath(folder)
    return path.startswith(os.path.join(parent, ""))


def _read_csv(source: Path) -> list[dict[str, Any]]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not text in UTF-8: save the table as 'CSV UTF-8'") from error
    heading = lines[0] if lines else ""
    # Spreadsheets of many countries separate by semicolons.
    delimiter = ";" if heading.count(";") > heading.count(",") else ","
    rows = list(csv.DictReader(lines, delimiter=delimiter))
    columns = [] if not rows else [str(name).strip().lower() for name in rows[0]]
    absent = [name for name in ("case", "ct", "pet") if name not in columns]
    if absent:
        raise InputError(f"{source} has no column {' and no column '.join(absent)}, or no rows: its first line names the columns")
    return [{str(name).strip().lower(): value for name, value in row.items()} for row in rows]


def _read_json_list(source: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(source.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{source} is not valid JSON ({error}): correct it") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{source} is not a list of studies: write a list of objects with case, ct, pet")
    return rows


# ---------------------------------------------------------------- judging


def check_study(study: Study) -> list[Finding]:
    """Judge whether a study is fit for use: its files, their geometry, and whether the values can be HU, SUV and a mask.

    An empty label is none of the findings: the study shows no lesion.

    Returns:
        The findings, errors first. A study with an error cannot be used.
    """
    return read_study(study)[0]


def read_study(study: Study) -> tuple[list[Finding], dict[str, Volume]]:
    """Read a study's volumes and judge them: as `check_study`, together with the volumes that could be read.

    Returns:
        The findings, errors first; and the volumes under "ct", "pet" and "label".
    """
    problems: list[tuple[Path | None, str, bool]] = []
    volumes: dict[str, Volume] = {}
    for role, file in study.files.items():
        try:
            volumes[role], warnings = read_volume(file)
            problems += [(file, message, False) for message in warnings]
        except InputError as error:
            problems.append((file, str(error), True))
    findings = [Finding(study.case, file, message, error) for file, message, error in problems]
    findings += judge_volumes(study.case, volumes)
    return sorted(findings, key=lambda finding: not finding.error), volumes


def judge_volumes(case: str, volumes: Mapping[str, Volume]) -> list[Finding]:
    """Judge the volumes of a study that could be read: their values, and where they lie to each other.

    Args:
        case: the study's name.
        volumes: under "ct", "pet" and "label", as far as there are such.
    """
    problems = [problem for judge in (_judge_values, _judge_places, _judge_label) for problem in judge(volumes)]
    return [Finding(case, file, message, error) for file, message, error in problems]


def raise_if_strict(strict: bool, findings: Iterable[Finding]) -> None:
    """End a run at the first error, if `strict`.

    Raises:
        InputError: with the finding as its sentence.
    """
    first = next((finding for finding in findings if finding.error), None)
    if strict and first is not None:
        raise InputError(str(first))


def find_repeated_images(digests: Mapping[str, str]) -> list[Finding]:
    """Find studies whose PET is that of another study: in both splits, it would make the validation worthless.

    Args:
        digests: `Volume.digest` of the PET of each case.

    Returns:
        An error for each case but the first, in the order of their names, of those that share a PET.
    """
    first: dict[str, str] = {}
    findings = []
    for case in sorted(digests):
        original = first.setdefault(digests[case], case)
        if original != case:
            message = f"its PET is, voxel by voxel, that of study {original}: keep one of the two, or put the right file in place"
            findings.append(Finding(case, None, message, error=True))
    return findings


_Problems = list[tuple[Path | None, str, bool]]


def read_volume(file: Path, channels: int = 1) -> tuple[Volume, list[str]]:
    """Read a file, and give the volume with what is remarkable about its geometry.

    Args:
        file: NIfTI file.
        channels: 1 for a volume (X, Y, Z), a larger number for one of (X, Y, Z, channels).

    Raises:
        InputError: when it cannot be read, or its geometry makes no sense; the message is the end of a sentence that begins with
            the file's name.
    """
    if not file.name.endswith(SUFFIXES):
        raise InputError("does not end with .nii.gz or .nii: convert it to NIfTI")
    if not file.is_file():
        raise InputError(f"does not exist in {file.parent}: put it there, or take the study away")
    try:
        if file.stat().st_size == 0:
            raise InputError("is empty (0 bytes): copy it again from where it comes")
        with open(file, "rb") as stream:
            if file.name.endswith(".gz") and stream.read(2) != b"\x1f\x8b":
                raise InputError("ends with .gz but is not compressed: rename it to .nii, or copy it again")
    except PermissionError as error:
        raise InputError("must not be read by this user: change its permissions") from error
    try:
        with _open(file) as stream, LoggingOutputSuppressor():
            # nibabel calls a compressed file that ends within the part by which it tells types apart an unknown type.
            stream.read(4096)
            image = nib.load(file)
            stream.seek(0)
            raw = type(image.header).from_fileobj(stream, check=False)
    except (EOFError, zlib.error, isal_zlib.error, gzip.BadGzipFile) as error:
        raise InputError("is damaged or cut off: copy it again from where it comes") from error
    except READ_ERRORS as error:
        raise InputError("is not a NIfTI image: convert it to NIfTI, or copy it again") from error
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise InputError("is not a NIfTI image: convert it to NIfTI, or copy it again")
    if image.header.get_data_dtype().kind not in "fiu":
        raise InputError("holds colours or complex numbers: export one number a voxel")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if channels > 1 and (len(shape) != 4 or shape[3] != channels):
        raise InputError(f"has the size {shape}: give {channels} channels as (X, Y, Z, {channels}), or one file each")
    if channels == 1 and len(shape) != 3:
        raise InputError(f"has {len(shape)} dimensions {shape}: give one volume of 3 dimensions")
    if min(shape) < 1:
        raise InputError(f"has no voxels (its size is {shape}): export it again")
    if min(shape[:3]) == 1:
        raise InputError(f"is a single slice (its size is {shape}): give the whole volume")
    warnings = _judge_geometry(image, raw)
    # Memory is not asked for on the word of a damaged header.
    if math.prod(shape) * image.get_data_dtype().itemsize > DEFLATE_RATIO * file.stat().st_size:
        raise InputError("is damaged or cut off: copy it again from where it comes")
    try:
        with _open(file) as stream:
            array = np.asanyarray(type(image).from_stream(stream).dataobj).reshape(shape)
            # The checksum of a compressed file lies behind its voxels.
            stream.read()
    except READ_ERRORS as error:
        raise InputError("is damaged or cut off: copy it again from where it comes") from error
    # Minimum and maximum are NaN when any voxel is.
    if array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
        count = np.count_nonzero(~np.isfinite(array))
        raise InputError(f"holds {count} voxels without a number (NaN or infinite): export it again")
    return Volume(file, array, image.affine), warnings


def _open(file: Path) -> BinaryIO:
    """Open a file, and decompress it if it is: with ISA-L, in half of the time that zlib takes."""
    return igzip.open(file, "rb") if file.name.endswith(".gz") else open(file, "rb")


def read_mask(file: Path) -> Volume:
    """Read a mask, 1 inside of lesions and 0 elsewhere.

    Raises:
        InputError: as `read_volume`, and when it holds other values.
    """
    volume, _ = read_volume(file)
    _check_binary(volume)
    return volume


def check_grid(volume: Volume, other: Volume, name: str) -> None:
    """Refuse a volume that does not lie on the grid of another.

    Args:
        volume: (X, Y, Z).
        other: (X, Y, Z).
        name: what the other is called.

    Raises:
        InputError: the message is the end of a sentence that begins with the volume's file.
    """
    if volume.array.shape != other.array.shape:
        raise InputError(
            f"has the size {volume.array.shape} and the {name} {other.array.shape}: resample it to the grid of the {name}"
        )
    distance = corner_distance(volume.array.shape, volume.affine, other.affine)
    if distance > PLACE_TOLERANCE_MM:
        raise InputError(f"lies up to {distance:.1f} mm beside the {name}: resample it to the grid of the {name}")


def corner_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance (mm) between the same corner voxels of two volumes of one shape (X, Y, Z) with two affines (4, 4)."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    difference = np.asarray(affine, float) - np.asarray(other, float)
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def _check_binary(volume: Volume) -> None:
    array = volume.array
    # Of whole numbers the limits tell, in a fraction of the time.
    binary = array.min() >= 0 and array.max() <= 1 if array.dtype.kind in "iu" else ((array == 0) | (array == 1)).all()
    if not binary:
        values = np.unique(volume.array)
        numbers = ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
        raise InputError(f"holds the values {numbers}: a mask is 0, and 1 inside of lesions")


def _judge_geometry(image: nib.Nifti1Image, raw: nib.Nifti1Header) -> list[str]:
    """Judge affine and spacing of an image; `raw` is its header before nibabel has put anything right.

    Returns:
        What is remarkable.

    Raises:
        InputError: when the voxels have no sensible place in space.
    """
    affine = image.affine
    if not np.isfinite(affine).all():
        raise InputError("has a place in space (affine) that is not a number: export it again")
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    shown = " x ".join(f"{value:.4g}" for value in spacing)
    stored = np.asarray(raw["pixdim"][1:4], dtype=float)
    if not np.isfinite(stored).all() or (stored <= 0).any() or (spacing == 0).any():
        numbers = " x ".join(f"{value:.4g}" for value in stored)
        raise InputError(f"has a voxel spacing of {numbers} mm, and none may be zero or negative: export it again")
    directions = axes / spacing
    if abs(np.linalg.det(directions)) < 1e-3:
        raise InputError("has axes that do not span a volume (singular affine): export it again")
    cosines = directions.T @ directions - np.eye(3)
    if np.abs(cosines).max() > 0.01:
        raise InputError("has axes that are not at right angles (sheared affine): resample it to an upright grid")
    if raw["xyzt_units"] % 8 in (1, 3) or spacing.max() < 0.02:
        raise InputError(f"has a voxel spacing of {shown} that is not in mm: export it again in mm")
    if spacing.min() < 0.05 or spacing.max() > 100:
        raise InputError(f"has a voxel spacing of {shown} mm, which no PET/CT has: export it again")
    if not np.allclose(stored, spacing, rtol=0.01):
        numbers = " x ".join(f"{value:.4g}" for value in stored)
        raise InputError(f"says that its voxels are {numbers} mm large, and elsewhere {shown} mm: export it again")
    warnings = []
    if spacing.min() < 0.3 or spacing.max() > 20:
        warnings.append(f"has an unusual voxel spacing of {shown} mm: check that it is right")
    if raw["sform_code"] <= 0 and raw["qform_code"] <= 0:
        warnings.append("does not say where left, front and head are: check that its orientation is right")
    if np.abs(directions).max(axis=0).min() < np.cos(np.deg2rad(15)):
        warnings.append("lies more than 15 degrees oblique to the body's axes: check that its orientation is right")
    return warnings


def _judge_values(volumes: Mapping[str, Volume]) -> _Problems:
    """Judge whether CT and PET can be HU and SUV."""
    ct, pet = volumes.get("ct"), volumes.get("pet")
    if ct is not None and pet is not None:
        if ct.file.resolve() == pet.file.resolve() or _are_equal(ct.array, pet.array):
            return [(pet.file, "is the same image as the CT: put the PET in its place", True)]
        if pet.array.min() <= -500 and ct.array.min() > -200:
            return [(ct.file, f"and {pet.file.name} look as if CT and PET were exchanged: exchange the two files", True)]
    problems: _Problems = []
    if ct is not None:
        problems += [(ct.file, message, error) for message, error in _judge_ct(ct.array)]
    if pet is not None:
        problems += [(pet.file, message, error) for message, error in _judge_pet(pet.array)]
    return problems


def _are_equal(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether two volumes hold the same values; nearly all that do not are told apart by some of their slices."""
    return array.shape == other.shape and all(np.array_equal(array[::step], other[::step]) for step in (16, 1))


def _judge_ct(array: np.ndarray) -> list[tuple[str, bool]]:
    """Judge the values of a CT (X, Y, Z) that should be HU: air is -1000, water 0, bone several hundred."""
    low, high = float(array.min()), float(array.max())
    if low == high:
        return [(f"has the same value {low:g} everywhere: put the CT in its place", True)]
    if low >= 0 and high <= 1:
        return [("holds values from 0 to 1, not Hounsfield units: export the CT without normalising it", True)]
    if low >= 0:
        return [(f"holds no negative value (it begins at {low:g}), so it is not in Hounsfield units: export the CT in HU", True)]
    if low > -200:
        return [(f"has a lowest value of {low:g} HU, and air would be -1000: check that it is a CT in Hounsfield units", False)]
    if high < 50:
        return [(f"has a highest value of {high:g} HU, and bone has several hundred: check that it is a CT in HU", False)]
    return []


def _judge_pet(array: np.ndarray) -> list[tuple[str, bool]]:
    """Judge the values of a PET (X, Y, Z) that should be body-weight SUV: its mean over the body is near 1."""
    low, high = float(array.min()), float(array.max())
    if low == high:
        return [(f"has the same value {low:g} everywhere: put the PET in its place", True)]
    if high <= BODY_SUV:
        return [
            (f"has a highest value of {high:g}, which is less than any tissue's SUV: export the PET in body-weight SUV", True)
        ]
    sample = array.ravel(order="K")[:: max(1, array.size // 1_000_000)]
    negative = np.count_nonzero(sample < -0.1) / sample.size
    if low < -100 or negative > 0.01:
        return [(f"holds negative values down to {low:g}, which an SUV cannot be: check that it is the PET, in SUV", True)]
    positive = sample[sample > 0]
    median = float(np.median(positive)) if positive.size else 0.0
    if median > HIGHEST_MEDIAN_SUV:
        message = f"holds values such as {median:.4g}, which look like Bq/ml: convert it to body-weight SUV (weight, dose, decay)"
        return [(message, True)]
    problems = []
    if high > HIGHEST_SUV:
        problems.append((f"has a highest SUV of {high:.4g}: check that it is in body-weight SUV", False))
    if low < -0.1:
        problems.append((f"holds a few negative values down to {low:.3g}: they are used as they are", False))
    if high <= 1:
        problems.append((f"has a highest SUV of {high:.3g}: check that it is in body-weight SUV and was not normalised", False))
    return problems


def _judge_places(volumes: Mapping[str, Volume]) -> _Problems:
    """Judge whether the CT covers the PET in space."""
    if "ct" not in volumes or "pet" not in volumes:
        return []
    ct, pet = volumes["ct"], volumes["pet"]
    (ct_low, ct_high), (pet_low, pet_high) = (_extent(volume) for volume in (ct, pet))
    shared = np.minimum(ct_high, pet_high) - np.maximum(ct_low, pet_low)
    if (shared <= 0).any():
        return [(ct.file, f"lies elsewhere in space than {pet.file.name}: check that both are of one study", True)]
    coverage = shared / (pet_high - pet_low)
    if (coverage < LEAST_COVERAGE).any():
        percent = " x ".join(f"{100 * value:.0f}" for value in coverage)
        return [(ct.file, f"covers only {percent} % of the PET's width, depth and height: the rest is taken as air", False)]
    return []


def _judge_label(volumes: Mapping[str, Volume]) -> _Problems:
    """Judge whether the label is a mask on the PET's grid, inside of the body."""
    label, pet = volumes.get("label"), volumes.get("pet")
    if label is None:
        return []
    try:
        _check_binary(label)
        if pet is not None:
            check_grid(label, pet, "PET")
    except InputError as error:
        return [(label.file, str(error), True)]
    if pet is None:
        return []
    box = bounding_box(label.array != 0)
    if box is None:
        return []
    values = pet.array[box][label.array[box] == 1]
    if np.count_nonzero(values > BODY_SUV) < values.size / 2:
        message = f"marks lesions mostly where the PET is below SUV {BODY_SUV}: check that it belongs to this study"
        return [(label.file, message, False)]
    return []


def _extent(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of a volume along the world's axes, mm, from edge to edge of its outer voxels."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * np.array(volume.array.shape) - 0.5
    points = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return points.min(axis=0), points.max(axis=0)
