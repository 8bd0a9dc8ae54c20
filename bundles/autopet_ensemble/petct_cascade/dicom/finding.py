"""Finding PET/CT studies among the DICOM files of a folder."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petct_cascade.dicom.headers import Damaged, Header, header_of_file, scan
from petct_cascade.dicom.series import MOST_NAMED, Stack, choose_ct, choose_pet, stacks_of
from petct_cascade.dicom.source import DicomSource, image_source
from petct_cascade.dicom.suv_options import SuvOptions
from petct_cascade.problems import Problem, first_names
from petct_training.errors import InputError

# Ends of what is said of damaged files: of those without which a study may lack its end, and of others.
UNLESS_NO_SLICE = ", or take it away if it is no slice of this study"
LEFT_OUT = "; it is left out"

# TCIA's names of patients begin with it; the challenge's names of the same studies leave it out.
TCIA_PREFIXES = ("PETCT_", "PSMA_")


@dataclass(frozen=True)
class DicomOptions:
    """What a user may say of studies in DICOM.

    Attributes:
        ct_series: UID or description of the CT series to take; None for the rules of `petct_cascade.dicom.series.choose_ct`.
        pet_series: the same of the PET.
        segments: names or numbers of a label's segments or regions; None for all that may be lesions.
        suv: what the headers of one patient's PET do not say.
    """

    ct_series: str | None = None
    pet_series: str | None = None
    segments: tuple[str, ...] | None = None
    suv: SuvOptions = field(default_factory=SuvOptions)


def dicom_options(ct_series: object = None, pet_series: object = None, segments: object = None, **suv: Any) -> DicomOptions:
    """Return the options of values as a command line or a list gives them, where all but text may arrive as a number.

    Args:
        ct_series: UID or description.
        pet_series: UID or description.
        segments: one name or number, or several.
        suv: the fields of `petct_cascade.dicom.suv.SuvOptions`.

    Raises:
        InputError: when a value makes no sense.
    """
    several = segments if isinstance(segments, (list, tuple)) or segments is None else [segments]
    return DicomOptions(
        ct_series=None if ct_series is None else str(ct_series),
        pet_series=None if pet_series is None else str(pet_series),
        segments=None if several is None else tuple(str(segment) for segment in several),
        suv=suv_options(suv),
    )


def suv_options(values: Mapping[str, Any]) -> SuvOptions:
    """Return what a command line or a list says of a patient, where numbers may be text and texts may have become numbers.

    Raises:
        InputError: when a value makes no sense.
    """
    known: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name in known.keys() & {"weight", "height", "dose", "half_life"}:
        # What is no number is refused with its text.
        with contextlib.suppress(ValueError):
            known[name] = float(known[name])
    for name in known.keys() & {"sex", "injection_time"}:
        known[name] = str(known[name]).strip()
    if "sex" in known:
        known["sex"] = known["sex"].upper()
    return SuvOptions(**known)


@dataclass(frozen=True)
class Found:
    """A PET/CT study in DICOM.

    Attributes:
        case: its name.
        patient: the patient's number, or else the name.
        tracer: for example "fdg" or "psma"; "unknown" when nothing tells.
        centre: the institution, if it is named.
        ct: its CT; None of a study of which only the PET is wanted.
        pet: its PET.
        label: None when there is none.
    """

    case: str
    patient: str
    tracer: str
    centre: str | None
    ct: DicomSource | None
    pet: DicomSource
    label: DicomSource | None


def find_in_folder(
    folder: Path, options: DicomOptions | None = None, labels: bool = True, needs_ct: bool = True
) -> tuple[list[Found], list[Problem]]:
    """Find the PET/CT studies in a folder of any depth, mixed with other series, studies, patients and files.

    Args:
        folder: with or without a DICOMDIR, which is not needed.
        options: what the user has said.
        labels: whether labels are looked for.
        needs_ct: whether a study without a CT is an error.

    Returns:
        The studies, sorted by case; and problems: errors of studies that cannot be used, warnings that say which series were
        chosen, and which files are damaged. Both are empty when the folder holds no DICOM file.
    """
    options = options or DicomOptions()
    headers, damaged = scan(folder)
    problems: list[Problem] = []
    found: list[Found] = []
    studies = studies_of(headers)
    owners = owners_of_folders(studies) if damaged else {}
    with_pet = {key: of_study for key, of_study in studies.items() if any(header.kind == "pet" for header in of_study)}
    names = names_of(studies) | names_of(with_pet)
    for key, of_study in studies.items():
        study, said = _study(names[key], of_study, headers, options, labels, needs_ct)
        problems += said
        lost = [] if study is None else [file for file in damaged if lost_beside(file, _sources_of(study), owners, key)]
        if lost:
            problems.append(_problem_of_damaged(names[key], lost, UNLESS_NO_SLICE, error=True))
            damaged = [file for file in damaged if file not in lost]
        elif study is not None:
            found.append(study)
    problems += _damaged_files(folder, damaged)
    if options.suv != SuvOptions() and len(found) > 1:
        raise InputError(
            f"{folder} holds {len(found)} studies, and {', '.join(options.suv.given)} can be that of one patient: give that "
            "study's folder alone, or a CSV list with columns of these names"
        )
    return sorted(found, key=lambda study: study.case), problems


def studies_of(headers: Iterable[Header]) -> dict[str, list[Header]]:
    """Group headers into studies, by what tells these apart: the UID and the patient.

    Careless de-identification gives studies of several patients one UID. A label, or a CT without its patient, belongs to the
    study of its UID, where that is one.
    """
    studies: dict[str, list[Header]] = {}
    others = []
    for header in headers:
        if header.kind in ("seg", "rtstruct") or (header.kind == "ct" and not header.patient):
            others.append(header)
        else:
            studies.setdefault(f"{header.study} {header.patient}", []).append(header)
    of_uid: dict[str, list[str]] = {}
    for key in studies:
        of_uid.setdefault(key.partition(" ")[0], []).append(key)
    for header in others:
        own, same = f"{header.study} {header.patient}", of_uid.get(header.study, [])
        studies.setdefault(same[0] if own not in same and len(same) == 1 else own, []).append(header)
    return studies


def names_of(studies: Mapping[str, Sequence[Header]]) -> dict[str, str]:
    """Return a name for each study, by what tells it from others: tracer, patient and date, as the challenge's.

    Where two would share a name, each gets a mark of what tells them apart.
    """
    plain = {uid: _name_of(headers) for uid, headers in studies.items()}
    spelt = [name.casefold() for name in plain.values()]
    return {uid: name if spelt.count(name.casefold()) == 1 else f"{name}_{_mark(uid)}" for uid, name in plain.items()}


def identity_of_series(file: Path) -> tuple[str, str, str]:
    """Return case, patient and tracer of a study by one of its PET's files."""
    header = _header_of_series(file)
    return _name_of([header]), _patient_of(header), header.tracer or "unknown"


def said_by_series(file: Path) -> tuple[str, str]:
    """Return patient and tracer of a study by one of its PET's files; each is empty where nothing tells."""
    header = _header_of_series(file)
    return header.patient, header.tracer


def _header_of_series(file: Path) -> Header:
    """Return the header of a series' file, which was read before."""
    header = header_of_file(file)
    assert header is not None
    return header


def of_kind(stacks: Iterable[Stack], kind: str) -> list[Stack]:
    """Return the stacks of a kind, "ct" or "pet"."""
    return [stack for stack in stacks if stack.first.kind == kind]


def label_of(headers: Sequence[Header], pet: Stack, segments: tuple[str, ...] | None) -> tuple[DicomSource | None, str]:
    """Return the label among the objects of a study, None when there is none, and what was chosen among what.

    A segmentation goes before a structure set, one of the PET before one of another series.
    """
    for kind in ("seg", "rtstruct"):
        objects = [header for header in headers if header.kind == kind]
        of_pet = [header for header in objects if pet.first.series in header.referenced]
        in_space = [header for header in objects if _shares_space(header, pet.first)]
        chosen = of_pet or in_space
        if chosen:
            chosen = sorted(chosen, key=lambda header: header.file)
            text = f"{chosen[0].description or chosen[0].series!r} ({', '.join(header.file.name for header in chosen[:3])})"
            source = DicomSource(
                role="label",
                files=tuple(header.file for header in chosen),
                series=chosen[0].series,
                title=text,
                grid_files=tuple(header.file for header in pet.headers),
                frame_of_reference=pet.first.frame_of_reference,
                segments=segments,
            )
            others = [header for header in headers if header.kind in ("seg", "rtstruct") and header not in chosen]
            names = ", ".join(repr(header.description or header.file.name) for header in others[:5])
            said = [f"its label is {text}, not {names}"] if others else []
            drawn_on = [] if of_pet else _other_pets(headers, chosen)
            if drawn_on:
                said.append(
                    f"its label {text} was drawn on the PET {', '.join(drawn_on)}, and not on {pet.text}, which is taken: "
                    "check that it fits, or name the other PET with --pet_series"
                )
            return source, "; ".join(said)
    return None, ""


def _other_pets(headers: Iterable[Header], labels: Iterable[Header]) -> list[str]:
    """Return the names of the PET series to which labels refer."""
    referenced = frozenset().union(*(label.referenced for label in labels))
    pets = {header.series: header for header in headers if header.kind == "pet" and header.series in referenced}
    return [repr(header.description or series) for series, header in sorted(pets.items())]


def _shares_space(header: Header, pet: Header) -> bool:
    return header.frame_of_reference in (pet.frame_of_reference, "")


def _study(
    name: str, headers: Sequence[Header], everything: Sequence[Header], options: DicomOptions, labels: bool, needs_ct: bool
) -> tuple[Found | None, list[Problem]]:
    """Return what the headers of one study hold, None when it cannot be used, and what is to be said of it.

    Args:
        name: of the study.
        headers: of the study.
        everything: headers of all studies, among which the CT may be stored as a study of its own.
        options: what the user has said.
        labels: whether its label is looked for.
        needs_ct: whether a study without a CT is an error.
    """
    stacks = stacks_of(headers)
    pets = of_kind(stacks, "pet")
    if not pets:
        images = of_kind(stacks, "ct")
        said = Problem(name, None, "there is no PET of this study: it is passed over", error=False)
        return None, [said] if images and not _holds_ct_of_other_study(headers, everything) else []
    try:
        pet = choose_pet(pets, options.pet_series)
        cts = of_kind(stacks, "ct") or _cts_of_other_studies(pet.stack.first, everything, of_patient=True)
        strangers = "" if cts else _said_of_strangers(pet.stack, everything)
        if strangers and needs_ct:
            raise InputError(strangers)
        ct = choose_ct(cts, pet.stack, options.ct_series) if needs_ct or cts else None
    except InputError as error:
        return None, [Problem(name, None, str(error), error=True)]
    label, said_of_label = label_of(headers, pet.stack, options.segments) if labels else (None, "")
    first = pet.stack.first
    study = Found(
        case=name,
        patient=_patient_of(first),
        tracer=first.tracer or "unknown",
        centre=first.centre or None,
        ct=None if ct is None else image_source("ct", ct.stack),
        pet=image_source("pet", pet.stack, options.suv),
        label=label,
    )
    sentences = [pet.why, strangers if ct is None else ct.why, said_of_label]
    return study, [Problem(name, None, sentence, error=False) for sentence in sentences if sentence]


def _cts_of_other_studies(pet: Header, everything: Iterable[Header], of_patient: bool) -> list[Stack]:
    """Return the CTs in the space of a PET: those of its patient, stored as studies of their own, or those of all others."""
    if not pet.frame_of_reference:
        return []
    in_space = (header for header in everything if header.kind == "ct" and header.frame_of_reference == pet.frame_of_reference)
    return stacks_of(header for header in in_space if (header.patient == pet.patient) is of_patient)


def _said_of_strangers(pet: Stack, everything: Iterable[Header]) -> str:
    """Return what is to be said of CTs that would be a PET's, were they not of another patient; empty when there are none."""
    strangers = _cts_of_other_studies(pet.first, everything, of_patient=False)
    if not strangers:
        return ""
    texts = [f"{stack.text} of {_patient_in_words(stack.first)}" for stack in strangers]
    return (
        f"its PET {pet.text} is of {_patient_in_words(pet.first)}, and CT in its frame of reference is of somebody else: "
        f"{first_names(texts, MOST_NAMED)}; if both are of one person, name both with --ct and --pet of petct segment, or in a list"
    )


def _patient_in_words(header: Header) -> str:
    """Return whose a series is, quoted, so that `--deidentified` leaves it out."""
    return f"patient {header.patient!r}" if header.patient else "no patient that is named"


def _holds_ct_of_other_study(headers: Iterable[Header], everything: Iterable[Header]) -> bool:
    """Whether images of a study without PET share patient and space with a PET elsewhere, whose CT they may be."""
    scans = {(header.patient, header.frame_of_reference) for header in everything if header.kind == "pet"}
    return any(header.frame_of_reference and (header.patient, header.frame_of_reference) in scans for header in headers)


def _name_of(headers: Sequence[Header]) -> str:
    """Return <tracer>_<patient>_<date> of a study, without what is not known, in letters that every file system takes."""
    first = next((header for header in headers if header.kind == "pet"), headers[0])
    patient = first.patient
    for prefix in TCIA_PREFIXES:
        patient = patient.removeprefix(prefix)
    parts = [first.tracer, _plain(patient) or f"study-{_mark(first.study)}", first.date]
    return "_".join(part for part in parts if part)


def _patient_of(header: Header) -> str:
    """Return who was examined; a mark of the study where nothing tells."""
    return header.patient or f"unknown {_mark(header.study)}"


def _plain(text: str) -> str:
    """Return letters, digits, dots and hyphens of a text; what was between them becomes a hyphen."""
    return re.sub(r"[^\w.]+|_", "-", text).strip("-.")[:80].rstrip("-.")


def _mark(uid: str) -> str:
    """Return six letters and digits that tell a UID from others."""
    return hashlib.sha256(uid.encode()).hexdigest()[:6]


def owners_of_folders(studies: Mapping[str, Sequence[Header]]) -> dict[Path, set[str]]:
    """Return the keys of the studies that have files in each folder."""
    owners: dict[Path, set[str]] = {}
    for key, headers in studies.items():
        for header in headers:
            owners.setdefault(header.file.parent, set()).add(key)
    return owners


def lost_beside(file: Damaged, sources: Iterable[DicomSource], owners: Mapping[Path, set[str]], key: str | None) -> bool:
    """Whether a damaged file lies among the files of a study, and of no other: without it, the study may lack its end.

    Args:
        file: damaged.
        sources: of the study.
        owners: of `owners_of_folders`.
        key: of the study; None for whichever it is.
    """
    place = file.file.parent
    of_place = owners.get(place, set())
    return (of_place == {key} if key else len(of_place) == 1) and any(
        place == one.parent for source in sources for one in source.files
    )


def _sources_of(study: Found) -> list[DicomSource]:
    """Return CT, PET and label of a study, as far as there are such."""
    return [source for source in (study.pet, study.ct, study.label) if source is not None]


def _problem_of_damaged(name: str, files: Sequence[Damaged], end: str, error: bool) -> Problem:
    """Return what is to be said of damaged files of a study or folder, with the end of the sentence."""
    more = f"(and {len(files) - 1} more files there) " if len(files) > 1 else ""
    return Problem(name, files[0].file, f"{more}{files[0].message}{end}", error)


def _damaged_files(folder: Path, damaged: Sequence[Damaged]) -> Iterator[Problem]:
    """Yield a warning for each folder with damaged files."""
    by_folder: dict[Path, list[Damaged]] = {}
    for file in damaged:
        by_folder.setdefault(file.file.parent, []).append(file)
    for place, files in by_folder.items():
        name = str(place.relative_to(folder)) if place != folder else folder.name
        yield _problem_of_damaged(name, files, LEFT_OUT, error=False)
