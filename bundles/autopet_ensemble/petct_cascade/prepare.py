"""From a raw data set to the prepared one that every training reads: checked, split, cropped, resampled, uncompressed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from petct_cascade.admission import Admission, admit_studies, lines_of_reasons
from petct_cascade.convert import convert_found
from petct_cascade.dicom.source import DicomSource
from petct_cascade.fingerprint import make_fingerprint, target_spacing
from petct_cascade.preparation import DATA_SET, OWN, Preparation, PrepareOptions
from petct_cascade.prepared_study import make_study
from petct_cascade.problems import Problem, number_of_studies
from petct_cascade.studies import Study, find_studies, is_inside
from petct_cascade.workers import Workers
from petct_training.claims import Claims
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import read_json_or_none, remove_unfinished, write_json
from petct_training.records import path_from

# Folder, inside of the prepared data set, of studies that were converted from DICOM.
CONVERTED = "converted"

# A file that can be read at times only is given up after so many.
MOST_ROUNDS = 3


def prepare(studies: str | os.PathLike, dataset_dir: str | os.PathLike, options: PrepareOptions | None = None) -> None:
    """Prepare a raw data set for training.

    Every study is checked. Studies that cannot be used, that have no lesion or that are excluded are left out, each with its
    reason; the others are split by patient, cropped to the body, turned to LAS, resampled, and written to `dataset_dir`:

        datalist.json      "studies_dir", relative to dataset_dir; "training" and "validation": items {case, patient, tracer,
                           (centre, fold,) image, label, original: {ct, pet, label}}, where image and label are relative to
                           dataset_dir, and those of original to studies_dir; "excluded": [{case, reason}]. With folds all
                           studies are in "training", each with the "fold" that holds it out
        fingerprint.json   spacing, and what the values inside of the training studies' lesions are like
        images/<case>.nii  float32 (X, Y, Z, 2): CT in HU on the grid of the PET, and PET in SUV
        labels/<case>.nii  uint8 (X, Y, Z): 1 in lesions
        converted          of studies in DICOM: the volumes as NIfTI, see `petct_cascade.convert`; they are "original"

    A second run, or one after an interruption, makes only what is missing or what was made from other files or with another
    spacing, and removes what no longer belongs there. datalist.json is written last: where it is, all is complete. The same
    data and seed give the same bytes.

    Args:
        studies: the raw data set: a folder, or a CSV or JSON list, as `petct_cascade.studies.find_studies` reads it.
        dataset_dir: folder for the prepared data set.
        options: what else can be chosen.

    Raises:
        SomeFailedError: when all is written, if some studies have errors and are not on the exclusion list; it names each.
        InputError: when too few studies remain to train and validate with, when the arguments or the disk forbid to go on, when
            another preparation writes to the folder, when files of somebody else lie where the results go, or, if `strict`, at the
            first study with an error.

    Example:
        prepare("raw", "prepared", PrepareOptions(spacing="median", num_workers=4))
    """
    source, dataset_dir, options = Path(studies), Path(dataset_dir), options or PrepareOptions()
    if dataset_dir.resolve() == source.resolve():
        raise InputError(f"studies and dataset_dir are both {source}: give the prepared data set a folder of its own")
    found, problems = find_studies(source, labels=True, allow_outside=options.allow_outside, dicom=options.dicom)
    root = _folder_of(found, source) if source.is_dir() else source.parent
    refusal = f"{dataset_dir}: another preparation writes to this folder at the moment: wait for it, or name another folder"
    with _without_traces(dataset_dir / OWN), Claims(dataset_dir, OWN).holding("preparation", refusal):
        if any(isinstance(study.pet, DicomSource) for study in found):
            root = dataset_dir / CONVERTED
            found, unreadable = convert_found(found, root, options.strict, options.num_workers)
            problems += unreadable
        preparation = Preparation(root, dataset_dir, options)
        preparation.check_places(found)
        with Workers(min(options.num_workers, len(found))) as workers:
            admission = _admit_and_write(preparation, workers, found, problems)
    _print_summary(admission, preparation.dataset_dir)
    errors = [problem for problem in admission.problems if problem.error]
    if errors:
        number = len({problem.case for problem in errors})
        raise SomeFailedError(
            f"{number} {'study has' if number == 1 else 'studies have'} errors, and all others were prepared; "
            "correct them, or name them with --exclude",
            errors,
        )


@contextlib.contextmanager
def _without_traces(folder: Path) -> Iterator[None]:
    """Take an empty folder away after a refusal: it may be in a folder of somebody else."""
    try:
        yield
    except InputError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _folder_of(studies: Sequence[Study], source: Path) -> Path:
    """Return the folder in which all files of the studies of a folder lie: itself, or one above it, as for labels beside it."""
    files = [file for study in studies for file in study.files.values() if isinstance(file, Path)]
    outside = [file for file in files if not is_inside(file, source)]
    try:
        return Path(os.path.commonpath([os.path.abspath(path) for path in (source, *outside)])) if outside else source
    except ValueError as error:
        raise InputError(f"{outside[0]} lies on another drive than {source}: put both on one, or name them in a list") from error


def _admit_and_write(
    preparation: Preparation, workers: Workers, studies: Sequence[Study], problems: Sequence[Problem]
) -> Admission:
    """Check the studies and write the data set, again where files have changed in between.

    A file that breaks after the check thus costs its study, and no other.
    """
    changed: list[str] = []
    for _ in range(MOST_ROUNDS):
        admission = admit_studies(preparation, workers, studies, problems)
        changed = write_data_set(preparation, workers, admission)
        if not changed:
            return admission
    raise InputError(f"study {changed[0]}: its files could be read at times only: copy it to another disk")


def write_data_set(preparation: Preparation, workers: Workers, admission: Admission) -> list[str]:
    """Write the prepared data set, or what is missing of it.

    Returns:
        The cases whose files are no longer what they were when they were checked; then the data set is not complete.

    Raises:
        InputError: when the disk is full.
    """
    remove_unfinished(preparation.dataset_dir)
    spacings = [judgement.spacing for judgement in admission.training if judgement.spacing is not None]
    spacing = target_spacing(spacings, preparation.options.spacing)
    changed = _write_volumes(preparation, workers, admission.studies, spacing)
    if not changed:
        # Of studies that were left out after the check.
        shutil.rmtree(preparation.cropped_dir, ignore_errors=True)
        _write_lists(preparation, _fingerprint_of(preparation, admission, spacing), _datalist_of(preparation, admission))
    return changed


def _write_volumes(preparation: Preparation, workers: Workers, studies: Sequence[Study], spacing: Sequence[float]) -> list[str]:
    """Write the volumes that are missing, at a spacing (mm), and remove those of cases that are not among the studies.

    Returns:
        As `write_data_set`.
    """
    todo = [study for study in studies if not preparation.is_finished(study, spacing)]
    gone = set(preparation.made_cases()) - {study.case for study in studies}
    if todo or gone:
        # Until all is complete again, nothing shall take the data set for complete.
        preparation.records.begin(preparation.lists)
        preparation.datalist_file.unlink(missing_ok=True)
        preparation.fingerprint_file.unlink(missing_ok=True)
    for case in gone:
        preparation.remove(case)
    made = workers.map(partial(make_study, preparation, spacing), todo, "prepare")
    changed = [case for case in made if case is not None]
    for case in changed:
        preparation.checked_record(case).unlink(missing_ok=True)
    return changed


def _fingerprint_of(preparation: Preparation, admission: Admission, spacing: Sequence[float]) -> dict[str, Any]:
    """Return the fingerprint of the training studies, whose volumes are written."""
    choice = preparation.options.spacing
    values = [np.load(preparation.lesion_values(judgement.study.case)) for judgement in admission.training]
    return make_fingerprint(
        spacing,
        values,
        f"Spacing: {choice if isinstance(choice, str) else 'given'}. Values: every voxel inside of the lesions of "
        f"{len(values)} training studies, on the original PET grid.",
    )


def _datalist_of(preparation: Preparation, admission: Admission) -> dict[str, Any]:
    """Return the content of datalist.json."""
    return {
        "studies_dir": path_from(preparation.root, preparation.dataset_dir),
        "training": [_datalist_item(preparation, judgement.study, admission.folds) for judgement in admission.training],
        "validation": [_datalist_item(preparation, judgement.study, admission.folds) for judgement in admission.validation],
        "excluded": [{"case": case, "reason": reason} for case, reason in admission.excluded.items()],
    }


def _datalist_item(preparation: Preparation, study: Study, folds: Mapping[str, int]) -> dict[str, Any]:
    """Return what datalist.json says of one study."""
    centre = {} if study.centre is None else {"centre": study.centre}
    fold = {"fold": folds[study.case]} if study.case in folds else {}
    return {
        "case": study.case,
        "patient": study.patient,
        "tracer": study.tracer,
        **centre,
        **fold,
        "image": f"images/{study.case}.nii",
        "label": f"labels/{study.case}.nii",
        "original": {role: preparation.relative_to_root(file) for role, file in study.files.items()},
    }


def _write_lists(preparation: Preparation, fingerprint: Mapping[str, Any], datalist: Mapping[str, Any]) -> None:
    """Write fingerprint.json and then datalist.json, unless they are there."""
    present = read_json_or_none(preparation.fingerprint_file), read_json_or_none(preparation.datalist_file)
    if present == (fingerprint, datalist) and preparation.records.is_intact(DATA_SET):
        return
    with preparation.records.making(preparation.lists):
        preparation.datalist_file.unlink(missing_ok=True)
        write_json(preparation.fingerprint_file, fingerprint)
        write_json(preparation.datalist_file, datalist, ascii_only=True)


def _print_summary(admission: Admission, dataset_dir: Path) -> None:
    """Print the warnings, who is left out and why, and how many studies there are."""
    warnings = [problem for problem in admission.problems if not problem.error]
    if warnings:
        print(f"\nWarnings on studies that are used: {len(warnings)}")
        print("\n".join(f"  {warning}" for warning in warnings))
    if admission.excluded:
        print(f"\n{number_of_studies(len(admission.excluded))} left out (datalist.json names all):")
        print("\n".join(f"  {line}" for line in lines_of_reasons(admission.excluded)))
    patients = [len({judgement.study.patient for judgement in split}) for split in (admission.training, admission.validation)]
    if admission.folds:
        sizes = Counter(admission.folds.values())
        print(
            f"\n{dataset_dir}: {len(admission.training)} studies of {patients[0]} patients in {len(sizes)} folds of "
            f"{min(sizes.values())} to {max(sizes.values())} studies.",
            flush=True,
        )
        return
    print(
        f"\n{dataset_dir}: {len(admission.training)} studies of {patients[0]} patients for training, "
        f"{len(admission.validation)} of {patients[1]} for validation.",
        flush=True,
    )
