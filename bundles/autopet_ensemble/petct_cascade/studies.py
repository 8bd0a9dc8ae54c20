"""Problem PET/CT studies on a disk, and judging whether each is fit for use."""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petct_cascade.problems import Problem
from petct_cascade.volumes import SUFFIXES
from petct_training.errors import InputError

TRACERS = ("fdg", "psma")


CHANNELS = {"0000": "ct", "0001": "pet"}


# A case names files such as <case>.nii.gz and hidden ones beside them; file systems allow 255 bytes.
LONGEST_CASE_BYTES = 200


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


def find_studies(source: str | Path, labels: bool, allow_outside: bool = False) -> tuple[list[Study], list[Problem]]:
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
    studies, problems = _accept(found, labels)
    if not studies and not problems:
        raise InputError(
            f"{source} holds no studies: give a folder with imagesTr and labelsTr, with <case>_0000.nii.gz and <case>_0001.nii.gz, "
            "with PETCT_<patient>/<study>/SUV.nii.gz, or a CSV or JSON list"
        )
    return studies, problems


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


_Found = Iterator[Study | Problem]


def _accept(found: Iterable[Study | Problem], labels: bool) -> tuple[list[Study], list[Problem]]:
    """Separate studies from problems, and turn studies that lack a label, or whose name cannot be used, into problems."""
    studies: dict[str, Study] = {}
    problems = []
    repeated = set()
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        elif problem := problem_of_name(item.case):
            problems.append(Problem(item.case, None, problem, error=True))
        elif item.case in studies or item.case in repeated:
            repeated.add(item.case)
        elif labels and item.label is None:
            message = "the study has no label: add the mask of its lesions (an empty one if it has none), or take the study away"
            problems.append(Problem(item.case, None, message, error=True))
        else:
            studies[item.case] = item
    for case in repeated:
        studies.pop(case, None)
        message = "the name stands for two studies: give each study a name of its own, and keep one file of each kind"
        problems.append(Problem(case, None, message, error=True))
    problems += _patients_spelt_twice(studies.values())
    return [studies[case] for case in sorted(studies)], sorted(problems, key=lambda problem: (problem.case, problem.sentence))


def problem_of_name(case: str) -> str | None:
    """Say why a case cannot be part of a file's name, None when it can: results are called after it, inside of their folder."""
    if not case.strip():
        return "the study has no name: fill in its case"
    if re.search(r"[/\\\x00-\x1f\x7f]", case) or case.startswith("."):
        return "the name cannot be used for a file: take slashes, control characters and a leading dot out of it"
    if len(case.encode()) > LONGEST_CASE_BYTES:
        return f"the name is too long for a file: shorten it to {LONGEST_CASE_BYTES} bytes"
    return None


def _patients_spelt_twice(studies: Iterable[Study]) -> list[Problem]:
    """Warn of patients whose names differ in case, spaces and signs only: they may be one person, whom the split tears apart."""
    spelling: dict[str, Study] = {}
    problems = []
    for study in studies:
        letters = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", study.patient)).casefold()
        first = spelling.setdefault(letters, study)
        if first.patient != study.patient:
            message = (
                f"its patient '{study.patient}' is '{first.patient}' in study {first.case}: spell one person's name in one way"
            )
            problems.append(Problem(study.case, None, message, error=False))
    return problems


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
                yield Problem(case, file, "does not end with .nii.gz or .nii: convert it to NIfTI", error=True)
    for case, channels in files.items():
        absent = [name.upper() for name in CHANNELS.values() if name not in channels]
        double = [several for several in channels.values() if len(several) > 1]
        if absent:
            number = next(number for number, name in CHANNELS.items() if name not in channels)
            message = f"there is no {absent[0]} of this study: add {case}_{number}.nii.gz"
            yield Problem(case, None, message, error=True)
        elif double:
            yield Problem(case, double[0][1], "is there compressed and uncompressed: keep one of the two", error=True)
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
            yield Problem(case, files["PET"], message, error=True)
        elif files["SUV"] is None:
            yield Problem(case, None, f"there is no PET of this study: add SUV.nii.gz to {folder}", error=True)
        elif ct is None:
            yield Problem(case, None, f"there is no CT of this study: add CTres.nii.gz to {folder}", error=True)
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
            yield Problem(f"{source.name}, entry {number}", None, "the study has no name: fill in its case", error=True)
            continue
        absent = [name for name in ("ct", "pet") if not values[name]]
        if absent:
            message = f"{source.name} names no {absent[0].upper()} of this study: fill in its {absent[0]}"
            yield Problem(case, None, message, error=True)
            continue
        files = {name: source.parent / values[name] for name in ("ct", "pet", "label") if values[name]}
        outside = next((name for name, file in files.items() if not is_inside(file, source.parent)), None)
        if outside is not None and not allow_outside:
            message = (
                f"{source.name} names {values[outside]}, which lies outside of the list's folder: move the list or the file, "
                "or allow it with --allow_outside true"
            )
            yield Problem(case, None, message, error=True)
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
