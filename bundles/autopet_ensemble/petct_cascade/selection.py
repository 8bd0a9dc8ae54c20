"""Selecting the studies that an inference has to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from petct_cascade.judging import find_repeated_images, read_study
from petct_cascade.problems import Problem, raise_if_strict
from petct_cascade.studies import Study, find_studies, identity
from petct_cascade.volumes import without_suffix
from petct_training.errors import InputError
from petct_training.files import is_newer, make_folder


@dataclass(frozen=True)
class Selection:
    """The studies of an inference.

    Attributes:
        items: {"case", "image": [CT file, PET file], "patient", "tracer", ("centre")} of the studies to do.
        done: the same of the studies whose masks an earlier run has made.
        problems: why other studies cannot be used, and what is remarkable about those that can.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    done: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def select_studies(
    studies: str | os.PathLike,
    ct: str | os.PathLike | None = None,
    pet: str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    uncertainty_dir: str | os.PathLike | None = None,
    sources: Sequence[str | os.PathLike] = (),
    check: bool = True,
    strict: bool = False,
    allow_outside: bool = False,
    num_workers: int = 1,
) -> Selection:
    """Choose the studies that an inference has to do.

    Args:
        studies: folder or list of studies, as `petct_cascade.studies.find_studies` reads it; used when `ct` and `pet` are not given.
        ct: NIfTI file of one study's CT (HU), on any grid.
        pet: NIfTI file of its PET (body-weight SUV), after which the study is called (without a final `_0001`).
        output_dir: folder of masks. A study whose `<case>.nii.gz` is there, and newer than its images and `sources`, is left out.
        uncertainty_dir: folder of maps; when it is given, a study is left out only if its map is there and newer, too.
        sources: the other files from which masks are made, the weights and their fingerprint.
        check: whether the files are read and judged by `petct_cascade.judging.read_study` first, so that bad studies are named before
            the others are done.
        strict: whether the first study with an error ends the run.
        allow_outside: whether a list may name files outside of its folder.
        num_workers: number of studies that are checked at a time.

    Raises:
        SystemExit: with one sentence when there is nothing to be found, or, if `strict`, when a study cannot be used.
    """
    if (ct is None) != (pet is None):
        raise InputError(f"--{'pet' if pet is None else 'ct'} is missing: give one file for the CT and one for the PET")
    if pet is not None:
        found, problems = [_study_of(Path(ct), Path(pet))], []
    else:
        source = Path(studies)
        found, problems = find_studies(source, labels=False, allow_outside=allow_outside)
    raise_if_strict(strict, problems)
    folders = [Path(folder) for folder in (output_dir, uncertainty_dir) if folder is not None]
    for folder in folders:
        make_folder(folder)
    done = [study for study in found if folders and all(_is_current(study, folder, sources) for folder in folders)]
    found = [study for study in found if study not in done]
    if check:
        problems = [*problems, *_check(found, strict, num_workers)]
    bad = {problem.case for problem in problems if problem.error}
    items = [_item(study) for study in found if study.case not in bad]
    return Selection(items, [_item(study) for study in done if study.case not in bad], problems)


def _study_of(ct: Path, pet: Path) -> Study:
    case = without_suffix(pet.name).removesuffix("_0001")
    tracer, patient = identity(case)
    return Study(case, patient, tracer, ct, pet)


def _item(study: Study) -> dict[str, Any]:
    item = {"case": study.case, "patient": study.patient, "tracer": study.tracer, "image": [str(study.ct), str(study.pet)]}
    return item if study.centre is None else item | {"centre": study.centre}


def _is_current(study: Study, folder: Path, sources: Sequence[str | os.PathLike]) -> bool:
    """Whether a study's mask, or map, in a folder is newer than its images and the other files from which it is made."""
    return is_newer(folder / f"{study.case}.nii.gz", [study.ct, study.pet, *sources])


def _check(studies: Sequence[Study], strict: bool, num_workers: int) -> list[Problem]:
    """Read and judge studies before any is done."""
    problems: list[Problem] = []
    digests = {}
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        checks = pool.map(_problems_and_digest, studies)
        progress = tqdm(checks, total=len(studies), desc="check", unit="study", leave=False, disable=not studies)
        for study, (found, digest) in zip(studies, progress, strict=True):
            raise_if_strict(strict, found)
            problems += found
            if digest is not None:
                digests[study.case] = digest
    # Each of the two masks is right, but perhaps not that of the patient after whom it is called.
    return problems + [replace(problem, error=False) for problem in find_repeated_images(digests)]


def _problems_and_digest(study: Study) -> tuple[list[Problem], str | None]:
    """Judge a study without its label, and name the content of its PET if it can be used; the volumes themselves are not kept."""
    problems, volumes = read_study(replace(study, label=None))
    return problems, None if any(problem.error for problem in problems) else volumes["pet"].digest
