"""Writing DICOM studies as NIfTI in the challenge's layout, once: for other tools, and for the preparation of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from petct_cascade.deidentification import deidentified_studies, kind_of_results, words_of
from petct_cascade.dicom.finding import DicomOptions, Found, find_in_folder
from petct_cascade.dicom.source import DicomSource
from petct_cascade.lists import read_list
from petct_cascade.problems import Problem, number_of_studies, raise_if_any, raise_if_strict
from petct_cascade.readouts import csv_table
from petct_cascade.studies import LIST_WITHOUT_NAMES, Study
from petct_cascade.volumes import Volume, read_volume, write_volume
from petct_cascade.workers import Workers
from petct_training.errors import InputError
from petct_training.files import make_folder, write_text
from petct_training.records import Plan, Records

# Where each volume of a case goes.
PLACES = {"ct": "imagesTr/{}_0000.nii.gz", "pet": "imagesTr/{}_0001.nii.gz", "label": "labelsTr/{}.nii.gz"}

# Raised when the reading of DICOM changes, so that what was converted before is converted again.
VERSION = 1


@dataclass(frozen=True)
class Conversion:
    """What is converted of a study.

    Attributes:
        case: its name.
        sources: under "pet" and, if they are there, "ct" and "label".
        patient: where the name does not say who it is, what tells the patient from others.
    """

    case: str
    sources: Mapping[str, DicomSource]
    patient: str = ""

    def files(self, output_dir: Path) -> dict[str, Path]:
        """Return where each volume goes, by its role."""
        return {role: output_dir / PLACES[role].format(self.case) for role in self.sources}

    def plan(self) -> Plan:
        """Return what is made, for the record of it."""
        outputs = [PLACES[role].format(self.case) for role in self.sources]
        return Plan(self.case, dict(self.sources), {"version": VERSION}, outputs)


def convert(
    studies: str | os.PathLike,
    output_dir: str | os.PathLike,
    dicom: DicomOptions | None = None,
    strict: bool = False,
    num_workers: int = 1,
    deidentified: bool = False,
) -> None:
    """Write the DICOM studies in a folder as NIfTI in the challenge's layout: imagesTr/<case>_0000.nii.gz (CT in HU, on its own
    grid), imagesTr/<case>_0001.nii.gz (PET in body-weight SUV), labelsTr/<case>.nii.gz where there is a label, and
    records/<case>.json, which say how SUV were computed. A study without CT is converted, too.

    A second run converts only what is missing or has changed.

    Names without a patient do not say which studies are of one. So where they are wanted, a list of the studies that have a CT,
    studies.csv, does: what splits the studies for a training takes that list.

    Args:
        studies: folder with DICOM files of any depth, or a DICOMDIR.
        output_dir: where all of this appears.
        dicom: which series are taken, and what their headers do not say.
        strict: whether the first study with an error ends the run.
        num_workers: number of studies that are converted at a time.
        deidentified: whether nothing may tell whose studies they are; see `petct_cascade.deidentification`.

    Raises:
        InputError: when there is no study in DICOM, none could be converted, the folder cannot be written, or, if `strict`, when
            a study cannot be used.
        SomeFailedError: after all others are done, with a sentence for each study that could not be used.
    """
    folder = Path(studies)
    folder = folder.parent if folder.is_file() and folder.name.upper() == "DICOMDIR" else folder
    if folder.is_file():
        raise InputError(f"{folder} is a file: name a folder with DICOM files, of any depth")
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: name a folder with DICOM files")
    found, problems = find_in_folder(folder, dicom, needs_ct=False)
    if not found and not problems:
        raise InputError(f"{folder} holds no PET in DICOM: name a folder with DICOM files, of any depth")
    conversions = [Conversion(study.case, _sources_of(study)) for study in found]
    if deidentified:
        conversions, problems = _deidentified(found, problems)
    raise_if_strict(strict, problems)
    _print_warnings(problems)
    problems = [problem for problem in problems if problem.error]
    problems += convert_studies(conversions, Path(output_dir), strict, num_workers, deidentified)
    if deidentified:
        bad = {problem.case for problem in problems}
        _write_list(Path(output_dir), [conversion for conversion in conversions if conversion.case not in bad])
    converted = len(conversions) - len({problem.case for problem in problems} & {conversion.case for conversion in conversions})
    print(f"\n{output_dir}: {number_of_studies(converted)} in imagesTr.", flush=True)
    failed = number_of_studies(len({problem.case for problem in problems}))
    raise_if_any(problems, f"{failed} could not be converted", converted > 0)


def convert_studies(
    conversions: Sequence[Conversion], output_dir: Path, strict: bool = False, num_workers: int = 1, deidentified: bool = False
) -> list[Problem]:
    """Convert those studies that are not converted, or of other content.

    Args:
        conversions: the studies.
        output_dir: see `convert`.
        strict: whether the first study with an error ends the run.
        num_workers: number of studies that are converted at a time.
        deidentified: whether nothing may tell whose studies they are.

    Returns:
        An error for each study that could not be converted.

    Raises:
        InputError: when the folder cannot be written or holds something else, or, if `strict`, when a study cannot be used.
    """
    make_folder(output_dir)
    records = _records(output_dir, deidentified)
    records.check_kind()
    if deidentified:
        records.check(LIST_WITHOUT_NAMES)
    words = words_of((role, source) for conversion in conversions for role, source in conversion.sources.items())
    problems: list[Problem] = []
    todo = []
    for conversion in conversions:
        try:
            if not records.is_current(conversion.plan()):
                todo.append(conversion)
        except InputError as error:
            problems.append(Problem(conversion.case, None, str(error).removeprefix(f"study {conversion.case}: "), error=True))
    problems = [words.problem(problem) for problem in problems] if deidentified else problems
    raise_if_strict(strict, problems)
    with Workers(min(num_workers, len(todo))) as workers:
        for said in workers.map(partial(_convert, output_dir, deidentified), todo, "convert"):
            said = [words.problem(problem) for problem in said] if deidentified else said
            raise_if_strict(strict, said)
            _print_warnings(said)
            problems += [problem for problem in said if problem.error]
    return problems


def convert_found(
    studies: Sequence[Study], output_dir: Path, strict: bool, num_workers: int
) -> tuple[list[Study], list[Problem]]:
    """Convert studies in DICOM for the preparation of a data set.

    Args:
        studies: all of them, each with a label.
        output_dir: see `convert`; what an earlier run has converted there of other studies is removed.
        strict: as in `convert`.
        num_workers: as in `convert`.

    Returns:
        The studies with the files that were written, and an error for each that could not be converted.

    Raises:
        InputError: as `convert_studies`, and when some of the studies are no DICOM.
    """
    conversions = []
    for study in studies:
        sources = {role: source for role, source in study.files.items() if isinstance(source, DicomSource)}
        if sources.keys() != study.files.keys():
            raise InputError(f"study {study.case}: it is not in DICOM, and others are: convert those first, with `petct convert`")
        conversions.append(Conversion(study.case, sources))
    problems = convert_studies(conversions, output_dir, strict, num_workers)
    records = Records(output_dir, "conversion")
    for case in set(records.names()) - {study.case for study in studies}:
        records.remove(case)
    bad = {problem.case for problem in problems}
    files = {conversion.case: conversion.files(output_dir) for conversion in conversions if conversion.case not in bad}
    converted = []
    for study in studies:
        if study.case in files:
            own = files[study.case]
            converted.append(replace(study, ct=own["ct"], pet=own["pet"], label=own.get("label")))
    return converted, problems


def _write_list(output_dir: Path, conversions: Iterable[Conversion]) -> None:
    """Write the list of the studies without names in a folder, those of earlier runs among them; what these knew of the patients of
    this run's studies still holds.
    """
    file = output_dir / LIST_WITHOUT_NAMES.outputs[0]
    earlier = read_list(file) if file.is_file() else []
    rows = {entry.texts["case"]: dict(entry.texts) for entry in earlier if (output_dir / entry.texts["pet"]).is_file()}
    same = [(entry["patient"], entry["patient"]) for entry in rows.values()]
    for conversion in conversions:
        case, roles = conversion.case, {*conversion.sources}
        same.append((conversion.patient, rows[case]["patient"] if case in rows else conversion.patient))
        if "ct" in roles:
            # Somebody may have drawn the label since.
            roles |= {"label"} if (output_dir / PLACES["label"].format(case)).is_file() else set()
            rows[case] = {"case": case, "patient": conversion.patient, **{role: PLACES[role].format(case) for role in roles}}
    if not rows:
        return
    names = _first_names(same)
    for row in rows.values():
        row["patient"] = names[row["patient"]]
    with _records(output_dir, deidentified=True).making(LIST_WITHOUT_NAMES):
        columns = ("case", "ct", "pet", "label", "patient")
        write_text(file, csv_table([{name: rows[case].get(name) for name in columns} for case in sorted(rows)], columns))


def _first_names(same: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return, of pairs of names of one and the same patient, the first name of the patient by each name."""
    first: dict[str, str] = {}
    for pair in same:
        known = {first.get(name, name) for name in pair}
        first |= dict.fromkeys(pair, min(known)) | {name: min(known) for name, other in first.items() if other in known}
    return first


def _records(output_dir: Path, deidentified: bool) -> Records:
    """Return the records of the studies that are converted in a folder."""
    return Records(output_dir, kind_of_results("conversion", deidentified), identifying=not deidentified)


def _deidentified(found: Sequence[Found], problems: Sequence[Problem]) -> tuple[list[Conversion], list[Problem]]:
    """Return what is converted of studies, under names that tell nothing of their patients, and problems that do not either."""
    studies = [Study(study.case, study.patient, study.tracer, study.ct or study.pet, study.pet, study.label) for study in found]
    has_ct = {study.pet.files: study.ct is not None for study in found}
    named, said = deidentified_studies(studies, problems, keep_names=False)
    conversions = []
    for study in named:
        sources = {role: source for role, source in study.files.items() if isinstance(source, DicomSource)}
        if not has_ct[sources["pet"].files]:
            del sources["ct"]
        conversions.append(Conversion(study.case, sources, study.patient))
    return conversions, said


def _convert(output_dir: Path, deidentified: bool, conversion: Conversion) -> list[Problem]:
    """Convert one study; return what is to be said of it."""
    case = conversion.case
    problems: list[Problem] = []
    volumes: dict[str, Volume] = {}
    for role, source in conversion.sources.items():
        try:
            volumes[role], warnings = read_volume(source)
            problems += [Problem(case, source, warning, error=False) for warning in warnings]
        except InputError as error:
            return [*problems, Problem(case, source, str(error), error=True)]
    files = conversion.files(output_dir)
    for file in files.values():
        make_folder(file.parent)
    with _records(output_dir, deidentified).making(conversion.plan()):
        for role, volume in volumes.items():
            write_volume(files[role], volume.array, volume.affine)
    return problems


def _sources_of(study: Found) -> dict[str, DicomSource]:
    """Return the sources of a study under "ct", "pet" and "label", those that there are."""
    sources = {"ct": study.ct, "pet": study.pet, "label": study.label}
    return {role: source for role, source in sources.items() if source is not None}


def _print_warnings(problems: Iterable[Problem]) -> None:
    for problem in problems:
        if not problem.error:
            print(f"warning: {problem}", flush=True)
