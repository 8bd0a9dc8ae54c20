"""Results without what identifies a patient: names of studies that tell nothing, and sentences without names, dates and numbers."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from petct_cascade.dicom.source import DicomSource
from petct_cascade.problems import Problem
from petct_cascade.studies import TRACERS, Study
from petct_cascade.volumes import Source, without_suffix
from petct_training.errors import InputError
from petct_training.files import data_file_of
from petct_training.records import digest_of

# What stands in the place of something that is left out.
LEFT_OUT = "…"

# Digits of a digest in a study's name: two of ten thousand studies share one once in five million times.
DIGITS = 12

# What may name a patient wherever it stands in a sentence: quoted text, paths (but no units) and names of files, dates, UIDs, long
# numbers.
PATTERNS = re.compile(
    r"""'[^']*'|"[^"]*"|(?<!\S)(?!\(?(?:Bq|g|cm2)/ml)\S*[/\\]\S*|\S+\.(?:nii\.gz|nii|mha|mhd|dcm|ima|csv|json)\b|\d+(?:\.\d+){3,}|\d{4}-\d{2}-\d{2}|\b\d{1,2}[-./]\d{1,2}[-./]\d{2,4}\b|\d{6,}""",
    re.IGNORECASE,
)


def pseudonym(tracer: str, source: str | os.PathLike | Source) -> str:
    """Return a name for a study that follows from the content of an image and tells nothing of the patient.

    It begins with the tracer, where that is known, and ends with digits of a SHA-256 digest of the files. The name is the same in
    every folder and on every day. Who does not have the very files cannot find out whose it is: their voxels cannot be guessed, as
    a patient's number could.

    Args:
        tracer: for example "fdg".
        source: the image, a file or a DICOM series; names and order of a series' files do not count.

    Raises:
        OSError: when a file cannot be read.
    """
    if isinstance(source, DicomSource):
        files: Sequence[Path] = source.files
    else:
        files = [file for file in (Path(source), data_file_of(source)) if file is not None]
    digest = hashlib.sha256("\n".join(sorted(map(digest_of, files))).encode()).hexdigest()
    return f"{tracer if tracer in TRACERS else 'study'}_{digest[:DIGITS]}"


@dataclass(frozen=True)
class Words:
    """What a run must not say.

    Attributes:
        roles: what each file or series is: "CT", "PET", "label", "mask", by its path.
        texts: names of files, series, patients and studies.
    """

    roles: Mapping[str, str]
    texts: frozenset[str]

    def hide(self, text: str) -> str:
        """Return a sentence without what may identify a patient."""
        for known in self._longest_first:
            if known in text:
                # A name ends at an underscore, too, as in <case>_0001.
                text = re.sub(rf"(?<![^\W_]){re.escape(known)}(?![^\W_])", LEFT_OUT, text)
        return PATTERNS.sub(LEFT_OUT, text)

    @cached_property
    def _longest_first(self) -> list[str]:
        return sorted(self.texts, key=len, reverse=True)

    def problem(self, problem: Problem, case: str | None = None) -> Problem:
        """Return a problem that names no file, of a study that may have another name."""
        name = problem.case if case is None else case
        if problem.file is None:
            return replace(problem, case=name, message=self.hide(problem.message))
        role = self.roles.get(os.fspath(problem.file), "a file")
        return Problem(name, None, f"{role} {self.hide(problem.message)}", problem.error)


def words_of(sources: Iterable[tuple[str, Any]], names: Iterable[str] = ()) -> Words:
    """Return what must not be said of files and series.

    Args:
        sources: of each its role, such as "ct" or "label", and its path or source; None where there is none.
        names: of patients and studies.
    """
    roles: dict[str, str] = {}
    texts = {name for name in names if name}
    for role, source in sources:
        if source is None:
            continue
        roles[os.fspath(source)] = role.upper() if role in ("ct", "pet") else role
        files = source.files if isinstance(source, DicomSource) else [Path(source)]
        texts |= {name for file in files for name in (file.name, without_suffix(file.name))}
        if isinstance(source, DicomSource):
            texts |= {source.title, source.series}
    return Words(roles, frozenset(texts))


def words_of_items(items: Iterable[Mapping[str, Any]], masks: Iterable[Path] = (), names: Iterable[str] = ()) -> Words:
    """Return what must not be said of items with "image" and perhaps "label", "coarse_mask" and "points"; their names may be
    said.

    Args:
        items: the studies.
        masks: files of their masks.
        names: that must not be said either.
    """
    sources: list[tuple[str, Any]] = [("mask", mask) for mask in masks]
    for item in items:
        image = item.get("image")
        pair = [("image", image)] if isinstance(image, (str, os.PathLike)) else zip(("ct", "pet"), image or (), strict=False)
        sources += [*pair, ("label", item.get("label")), ("coarse mask", item.get("coarse_mask")), ("points", item.get("points"))]
    return words_of(sources, names)


def deidentified_studies(
    studies: Sequence[Study], problems: Iterable[Problem], keep_names: bool
) -> tuple[list[Study], list[Problem]]:
    """Return studies under names that tell nothing of their patients, and problems that do not either.

    Args:
        studies: as they were found.
        problems: what was found wrong with them and with others.
        keep_names: whether the studies' names are the user's own choice, and stay.

    Returns:
        The studies, sorted by their names, each patient called after the first of theirs; and the problems, also those of studies
        whose PET cannot be read, or is that of another.
    """
    problems = list(problems)
    # Those of studies that cannot be used are named in what is said of others, too.
    cases = () if keep_names else (*(study.case for study in studies), *(problem.case for problem in problems))
    words = words_of(
        (
            pair
            for study in studies
            for pair in (*study.files.items(), ("coarse mask", study.coarse_mask), ("points", study.points))
        ),
        (*(study.patient for study in studies), *cases),
    )
    renamed: dict[str, Study] = {}
    names: dict[str, str] = {study.case: study.case for study in studies} if keep_names else {}
    said: list[Problem] = []
    for study in studies:
        try:
            name = study.case if keep_names else pseudonym(study.tracer, study.pet)
        except OSError as error:
            name = f"unnamed {len(said) + 1}"
            said.append(Problem(name, None, f"its PET cannot be read ({error.strerror}): see that it is there", error=True))
        else:
            if name in renamed:
                said.append(Problem(name, None, "its PET is there twice: keep one of the two", error=True))
            renamed[name] = replace(study, case=name)
        names[study.case] = name
    for problem in problems:
        # What has no study has no name that lasts.
        name = names.setdefault(problem.case, problem.case if keep_names else f"unnamed {len(names) + 1}")
        said.append(words.problem(problem, name))
    patients = _patients({name: study.patient for name, study in renamed.items()})
    return [replace(renamed[name], patient=patients[name]) for name in sorted(renamed)], said


def deidentified_items(items: Iterable[Mapping[str, Any]], masks: Mapping[str, Path] | None = None) -> list[dict[str, Any]]:
    """Return items under names that tell nothing of their patients; a patient is called after the first of the patient's studies.

    Args:
        items: "case" and "image" ([CT file or None, PET file], or one file), perhaps "tracer" and "patient".
        masks: of each case the file by which it is named where it has no image. Masks may be the same, such as empty ones: the
            second of them is `<name>_2`.

    Raises:
        InputError: when a file cannot be read, or an image is there twice.
    """
    renamed: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(items, 1):
        pet = _pet_of(item)
        try:
            name = pseudonym(str(item.get("tracer", "")), pet or (masks or {})[item["case"]])
        except OSError as error:
            raise InputError(
                f"the image of study {number} of the list cannot be read ({error.strerror}): see that it is there"
            ) from error
        if name in renamed and pet:
            raise InputError(f"the image of study {number} of the list is there twice: keep one of the two")
        name = next(new for new in (name, *(f"{name}_{count}" for count in range(2, number + 1))) if new not in renamed)
        renamed[name] = {**item, "case": name}
    patients = _patients({name: item["patient"] for name, item in renamed.items() if "patient" in item})
    return [item | ({"patient": patients[name]} if name in patients else {}) for name, item in renamed.items()]


def _patients(known: Mapping[str, str]) -> dict[str, str]:
    """Return what the patient of each study is called, so that the studies of one patient stay together: the first of their names.

    Args:
        known: the patient by the study's new name; empty where it is not known.
    """
    first: dict[str, str] = {}
    for name in sorted(known):
        first.setdefault(known[name] or name, name)
    return {name: first[patient or name] for name, patient in known.items()}


def _pet_of(item: Mapping[str, Any]) -> Any:
    """Return the file or source of an item's PET, None where there is none."""
    image = item.get("image") or (None, None)
    return image if isinstance(image, (str, os.PathLike)) else image[1]


def kind_of_results(kind: str, deidentified: bool) -> str:
    """Return what a folder's records call its results: those with names and those without never lie in one folder."""
    return f"de-identified {kind}" if deidentified else kind


def keep_quiet() -> None:
    """Let no library print what it reads: warnings of pydicom quote values of headers. Processes that are started later follow."""
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
    for name in ("pydicom", "highdicom", "nibabel"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
