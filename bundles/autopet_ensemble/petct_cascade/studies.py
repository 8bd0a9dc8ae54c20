"""Finding PET/CT studies on a disk."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from petct_cascade.clicks import PointsFile
from petct_cascade.coarse_mask import coarse_mask_source
from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.files import is_dicom
from petct_cascade.dicom.finding import DicomOptions, Found, find_in_folder, identity_of_series, said_by_series, suv_options
from petct_cascade.dicom.places import Places
from petct_cascade.dicom.source import DicomSource
from petct_cascade.dicom.suv import OF_BODY
from petct_cascade.dicom.suv_options import SuvOptions
from petct_cascade.folders import is_made_by_system, walk
from petct_cascade.lists import LISTS, SUV_NAMES, read_list
from petct_cascade.problems import Problem
from petct_cascade.volumes import Source, flaw_of_suffix, without_suffix
from petct_training.errors import InputError
from petct_training.files import SUFFIXES
from petct_training.records import RECORDS, Plan, digest_of, letters_of, read_record

TRACERS = ("fdg", "psma")

# Of a folder, to see whether it holds DICOM, too.
FILES_TO_LOOK_AT = 200

# Folders of TCIA's patients begin with it.
TCIA_PREFIX = "PETCT_"

# Ends of the challenge's file names, and what they hold.
CHANNELS = {"0000": "ct", "0001": "pet"}

# What is said of a mask of the program's own in a label's place, which would be scored with itself.
OWN_MASK = (
    "is a mask that this program has written here, and nobody's label: name another output folder when you segment, and put the "
    "study's label in its place"
)

# List of studies without names beside them, which alone says which are of one patient, and the name of its record; see
# `petct_cascade.convert`.
LIST_WITHOUT_NAMES = Plan(".studies", {}, {}, ["studies.csv"])

# Names that no file can have on Windows, whatever follows after a dot.
DEVICES_OF_WINDOWS = r"CON|PRN|AUX|NUL|COM[1-9]|LPT[1-9]"

# A case names files such as <case>.nii.gz and hidden ones beside them; file systems allow 255 bytes.
LONGEST_CASE_BYTES = 200


@dataclass(frozen=True)
class Study:
    """One PET/CT study.

    Attributes:
        case: its name, after which results are called.
        patient: who was examined; several studies can be of one patient.
        tracer: for example "fdg" or "psma"; "unknown" when nothing tells.
        ct: file, or DICOM series, of the CT: 3-D, HU, on any grid.
        pet: the same of the PET: 3-D, body-weight SUV.
        label: the same on the grid of the PET, 1 in lesions and 0 elsewhere; None when there is none.
        centre: where it was made, if known.
        body: the patient's, where the user says it of a PET that is no DICOM; a PET in DICOM says it itself.
        coarse_mask: a mask in place of stage 1's, on any grid: a file, or a DICOM segmentation; None for stage 1's own.
        points: file of clicks, see `petct_cascade.clicks`; None when there are none. One without a single point stands beside a
            coarse mask only, in which it says that nothing is clicked on.
    """

    case: str
    patient: str
    tracer: str
    ct: Path | Source
    pet: Path | Source
    label: Path | Source | None = None
    centre: str | None = None
    body: Body | None = None
    coarse_mask: Path | Source | None = None
    points: PointsFile | None = None

    @property
    def files(self) -> dict[str, Path | Source]:
        """The study's files under "ct", "pet" and, if there is one, "label"."""
        files = {"ct": self.ct, "pet": self.pet}
        return files if self.label is None else files | {"label": self.label}


def find_studies(
    source: str | os.PathLike, labels: bool, allow_outside: bool = False, dicom: DicomOptions | None = None
) -> tuple[list[Study], list[Problem]]:
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
              The column coarse_mask names a mask in place of stage 1's, the column points a file of clicks.
              What is named may also be a folder with DICOM files, one such file, or the UID of a series in the list's folder; then
              the columns weight, height, sex, dose, half_life and injection_time may say what the PET's headers do not. Weight,
              height and sex, all three, give SUL of other files, too;
            - any other folder with DICOM files, and a DICOMDIR as the folder in which it lies: see
              `petct_cascade.dicom.finding.find_in_folder`.
            In place of .nii.gz, a name may end with .nii, .mha or .mhd. Where nothing else is said, tracer and patient are the
            first and second `_`-separated field of the case.
        labels: whether every study must have a label.
        allow_outside: whether a list may name files that lie outside of its folder, as another person's list should not.
        dicom: which series of DICOM studies are taken, and what their headers do not say.

    Returns:
        The studies, sorted by case, and what was found wrong with those that are not among them. Of DICOM the headers are read;
        other files are not opened: see `check_study`.

    Raises:
        InputError: when the source does not exist, has none of these layouts or is not a readable list; or when studies with labels
            are asked for, and only a list in the folder says which are of one patient.
    """
    source = Path(source)
    if labels and source.is_dir() and (known := list_without_names(source)) is not None:
        raise InputError(f"{source} holds studies without names, of which a list says which are of one patient: give {known}")
    options = dicom or DicomOptions()
    studies, problems = _accept(_find(source, labels, allow_outside, options), labels)
    if source.is_dir():
        studies, said = _with_body(studies, options.suv)
        problems += said
    if not studies and not problems:
        raise InputError(
            f"{source} holds no studies: give a folder with imagesTr and labelsTr, with <case>_0000.nii.gz and <case>_0001.nii.gz, "
            "with PETCT_<patient>/<study>/SUV.nii.gz, with DICOM series of PET and CT, or a CSV or JSON list"
        )
    return studies, problems


def list_without_names(folder: Path) -> Path | None:
    """Return the list that says which studies without names are of one patient, of a folder of such studies, or of their images or
    labels; None where there is none.
    """
    for place in (folder, Path(os.path.abspath(folder)).parent):
        if read_record(place / RECORDS / f"{LIST_WITHOUT_NAMES.name}.json") is not None:
            return place / LIST_WITHOUT_NAMES.outputs[0]
    return None


def _with_body(studies: Sequence[Study], options: SuvOptions) -> tuple[list[Study], list[Problem]]:
    """Return the studies of a folder with what the user says of a patient's body, and what is to be said of it.

    Raises:
        InputError: when it is said of several patients.
    """
    in_files = [study for study in studies if not isinstance(study.pet, DicomSource)]
    if not in_files or options == SuvOptions():
        return list(studies), []
    if len(in_files) > 1:
        raise InputError(
            f"there are {len(in_files)} studies, and {', '.join(options.given)} can be that of one patient: give that study's "
            "files alone, or a CSV list with columns of these names"
        )
    said = [Problem(in_files[0].case, None, sentence, error=False) for sentence in _said_of_suv(options)]
    return [replace(study, body=options.body) for study in studies], said


def study_of_places(
    ct: str | os.PathLike,
    pet: str | os.PathLike,
    case: str | None = None,
    dicom: DicomOptions | None = None,
    coarse_mask: str | os.PathLike | None = None,
    points: str | os.PathLike | None = None,
) -> tuple[Study, list[Problem]]:
    """Return the study of a CT and a PET, without a label, and warnings that say which DICOM series were chosen.

    Args:
        ct: file, folder of a DICOM series, one of its files, or its UID (then it is looked for in the current folder).
        pet: the same.
        case: as in `study_of_files`; the name of a study in DICOM comes from its tracer, patient and date.
        dicom: which series are taken, and what their headers do not say.
        coarse_mask: file of a mask in place of stage 1's.
        points: file of clicks.

    Raises:
        InputError: when there is no such series.
    """
    places = Places(Path())
    files, sentences = _files_of_places({"ct": ct, "pet": pet}, places, dicom or DicomOptions())
    given = _corrections({"coarse_mask": coarse_mask, "points": points}, Path(), files["pet"])
    if isinstance(files["pet"], DicomSource):
        name, patient, tracer = identity_of_series(files["pet"].files[0])
        study = Study(case or name, patient, tracer, files["ct"], files["pet"], **given)
    else:
        body = (dicom or DicomOptions()).suv.body
        study = replace(study_of_files(Path(ct), Path(pet), case), ct=files["ct"], body=body, **given)
    return study, [Problem(study.case, None, sentence, error=False) for sentence in sentences]


def study_of_files(ct: Path, pet: Path, case: str | None = None) -> Study:
    """Return the study of two files, without a label.

    Args:
        ct: file of a volume.
        pet: file of a volume.
        case: the study's name. Without one it comes from what tells patients apart: `<case>_0001` is called as in the challenge,
            PETCT_<patient>/<study>/SUV as in a folder of TCIA's studies, and any other file after its folder and itself, since
            files of different patients are often called alike.

    Example:
        >>> study_of_files(Path("a/ct.nii.gz"), Path("a/fdg_p1_day1_0001.nii.gz")).case
        'fdg_p1_day1'
        >>> study_of_files(Path("Anna 2/ct.nii"), Path("Anna 2/suv.nii")).case
        'Anna 2_suv'
    """
    name, folder = without_suffix(pet.name), Path(os.path.abspath(pet)).parent
    if case is not None:
        tracer, patient = identity(case)
    elif name.endswith("_0001"):
        case = name.removesuffix("_0001")
        tracer, patient = identity(case)
    elif name == "SUV" and folder.parent.name.startswith(TCIA_PREFIX):
        case, tracer, patient = _names_of_tcia_folder(folder)
    else:
        case = f"{folder.name.lstrip('.')}_{name}".removeprefix("_")
        tracer, patient = "unknown", case
    return Study(case, patient, tracer, ct, pet)


def identity(case: str) -> tuple[str, str]:
    """Return the tracer and the patient that a name of the challenge tells.

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


def problem_of_name(case: str, on_windows: bool = os.name == "nt") -> str | None:
    """Return why a case cannot be part of a file's name, None when it can: results are called after it, inside of their folder.

    Example:
        >>> problem_of_name("10:30", on_windows=False)
        >>> problem_of_name("10:30", on_windows=True)
        'the name cannot be used for a file on Windows: take the signs < > : " | ? * and a dot or space at its end out of it'
    """
    if not case.strip():
        return "the study has no name: fill in its case"
    if re.search(r"[/\\\x00-\x1f\x7f]", case) or case.startswith("."):
        return "the name cannot be used for a file: take slashes, control characters and a leading dot out of it"
    try:
        length = len(case.encode())
    except UnicodeEncodeError:
        return "the name is not text in UTF-8: rename the files, whose names come from an old archive"
    if length > LONGEST_CASE_BYTES:
        return f"the name is too long for a file: shorten it to {LONGEST_CASE_BYTES} bytes"
    if on_windows and re.search(r'[<>:"|?*]|[. ]$', case):
        signs = '< > : " | ? *'
        return f"the name cannot be used for a file on Windows: take the signs {signs} and a dot or space at its end out of it"
    if on_windows and re.fullmatch(DEVICES_OF_WINDOWS, case.split(".")[0], flags=re.IGNORECASE):
        return "Windows keeps this name for a device: give the study another one"
    return None


def is_inside(file: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Return whether a path, as it is written, lies in a folder; links are not followed, since the folder's owner has made them."""
    path, parent = os.path.abspath(file), os.path.abspath(folder)
    return path.startswith(os.path.join(parent, ""))


def _accept(found: Iterable[Study | Problem], labels: bool) -> tuple[list[Study], list[Problem]]:
    """Separate studies from problems, and turn studies that cannot be used as they were found into problems.

    Returns:
        The studies, sorted by case, and the problems, sorted by case and sentence.
    """
    problems: list[Problem] = []
    by_case: dict[str, list[Study]] = {}
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            by_case.setdefault(letters_of(item.case), []).append(item)
    studies = []
    for together in by_case.values():
        reason = _reason_to_refuse(together, labels)
        if reason is None:
            studies += together
        else:
            problems += [Problem(case, None, reason, error=True) for case in dict.fromkeys(study.case for study in together)]
    studies.sort(key=lambda study: study.case)
    studies, spelling = _with_patients_spelt_once(studies)
    problems += spelling
    return studies, sorted(problems, key=lambda problem: (problem.case, problem.sentence))


def _reason_to_refuse(studies: Sequence[Study], labels: bool) -> str | None:
    """Return why the studies of one name cannot be used as they were found; None for a single one that can."""
    names = sorted({study.case for study in studies})
    if reason := problem_of_name(names[0]):
        return reason
    if len(names) > 1:
        return f"{' and '.join(names)} are one name for many file systems: give each study a name of its own"
    if len(studies) > 1:
        return "the name stands for two studies: give each study a name of its own, and keep one file of each kind"
    if labels and studies[0].label is None:
        return "the study has no label: add the mask of its lesions (an empty one if it has none), or take the study away"
    return None


def _with_patients_spelt_once(studies: Iterable[Study]) -> tuple[list[Study], list[Problem]]:
    """Give patients whose names differ in case, spaces and signs only the first one's name, and say so.

    They may be one person, whom a split would tear apart, with studies on both sides; two persons who stay together do no harm.
    """
    first_of: dict[str, Study] = {}
    result, problems = [], []
    for study in studies:
        letters = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", study.patient)).casefold()
        first = first_of.setdefault(letters, study)
        result.append(replace(study, patient=first.patient))
        if first.patient != study.patient:
            names = study.patient, first.patient
            # The letters of names that look alike are stored in different ways.
            look_alike = len({unicodedata.normalize("NFC", name) for name in names}) == 1
            patient, earlier = (ascii(name) if look_alike else repr(name) for name in names)
            message = (
                f"its patient {patient} counts as {earlier} of study {first.case}: spell a person's name in one way, or give two "
                "persons names that differ in letters or digits"
            )
            problems.append(Problem(study.case, None, message, error=False))
    return result, problems


def _find(source: Path, labels: bool, allow_outside: bool, dicom: DicomOptions) -> Iterable[Study | Problem]:
    """Return the studies of a source in any of the layouts, and what is wrong with those that are incomplete."""
    if source.suffix.lower() in LISTS and source.is_file():
        return _from_list(source, labels, allow_outside, dicom)
    if source.name.upper() == "DICOMDIR" and source.is_file():
        source = source.parent
    if source.is_file():
        raise InputError(
            f"{source} is one file: name the folder of the data set, or a list (CSV, JSON), or one study's CT and PET"
        )
    if not source.is_dir():
        raise InputError(f"{source} does not exist: name the folder of the data set, or a CSV or JSON list of studies")
    if (source / "imagesTr").is_dir() or (source / "imagesTs").is_dir():
        return _from_challenge(source, labels)
    folders = [folder for depth in ("", "*/") for folder in source.glob(f"{depth}{TCIA_PREFIX}*") if folder.is_dir()]
    patients = sorted(folder for folder in folders if not _belongs_to_system(folder.relative_to(source)))
    if patients and any(_volumes_of_tcia_folder(folder) for patient in patients for folder in _folders_in(patient)):
        return _from_tcia(patients, labels)
    return _from_pairs_or_dicom(source, labels, dicom)


def _from_pairs_or_dicom(source: Path, labels: bool, dicom: DicomOptions) -> list[Study | Problem]:
    """Return the pairs of volumes in a folder, or else its studies in DICOM, whose files may have any names."""
    pairs = list(_from_pairs(source, labels))
    if any(isinstance(found, Study) for found in pairs):
        file = _first_in_dicom(source)
        said = (
            "is DICOM among pairs of NIfTI or MetaImage files, of which alone studies are taken: put the DICOM files into a folder "
            "of their own"
        )
        return pairs if file is None else [*pairs, Problem(source.name, file, said, error=False)]
    in_dicom = _from_dicom(source, labels, dicom)
    if not any(isinstance(found, Study) for found in in_dicom):
        return pairs or in_dicom
    # Of a picture or a slice called <name>_0001, nobody wants to know that it is no volume.
    halves = [found for found in pairs if isinstance(found, Problem) and found.file and found.file.name.endswith(SUFFIXES)]
    return [*in_dicom, *halves]


def _first_in_dicom(source: Path) -> Path | None:
    """Return a DICOM file in a folder of any depth, None where there seems to be none: not all files are looked at."""
    others = (file for file in walk(source) if not file.name.endswith(SUFFIXES))
    return next(filter(is_dicom, itertools.islice(others, FILES_TO_LOOK_AT)), None)


def _belongs_to_system(path: Path) -> bool:
    """Return whether a path leads through a hidden folder, or one that an operating system has made for itself."""
    return any(is_made_by_system(part) for part in path.parts)


def _from_dicom(source: Path, labels: bool, dicom: DicomOptions) -> list[Study | Problem]:
    """Return the studies in a folder of DICOM files, and what is to be said of them."""
    found, problems = find_in_folder(source, dicom, labels)
    return [*(_study_of_dicom(study) for study in found), *problems]


def _study_of_dicom(found: Found) -> Study:
    """Return the study that was found in DICOM; it has a CT."""
    assert found.ct is not None
    return Study(found.case, found.patient, found.tracer, found.ct, found.pet, found.label, found.centre)


def _from_challenge(source: Path, labels: bool) -> Iterator[Study | Problem]:
    """Yield the studies of a folder with imagesTr and, where no labels are needed, imagesTs."""
    for name in ("imagesTr",) if labels else ("imagesTr", "imagesTs"):
        if (source / name).is_dir():
            yield from _from_pairs(source / name, labels)


def _from_pairs(images: Path, with_labels: bool) -> Iterator[Study | Problem]:
    """Yield the studies of a folder of <case>_0000 (CT) and <case>_0001 (PET).

    Args:
        images: the folder.
        with_labels: whether every study must have a label.
    """
    files: dict[str, dict[str, list[Path]]] = {}
    others: dict[str, dict[str, Path]] = {}
    for file in sorted(images.iterdir()):
        match = re.fullmatch(r"(?!\.)(.+)_(0000|0001)(\..*)", file.name)
        if match and match[3] in SUFFIXES:
            files.setdefault(match[1], {}).setdefault(CHANNELS[match[2]], []).append(file)
        elif match:
            others.setdefault(match[1], {})[CHANNELS[match[2]]] = file
    labels = _labels_of(images)
    for case in sorted({*files, *others}):
        channels = files.get(case, {})
        # Beside a volume, what else has its name says something of it, or holds its voxels.
        odd = [file for channel, file in others.get(case, {}).items() if channel not in channels]
        if odd:
            yield from (Problem(case, file, str(flaw_of_suffix(file.name)), error=True) for file in odd)
        else:
            study = _study_of_pair(case, channels, labels, with_labels)
            if isinstance(study, Study) and study.label is not None and _is_own_mask(Path(study.label)):
                study = Problem(case, Path(study.label), OWN_MASK, error=True) if with_labels else replace(study, label=None)
            yield study


def _labels_of(images: Path) -> Path:
    """Return the folder in which labels of a folder of images lie: beside it, else beside what it links to, else itself."""
    for folder in (Path(os.path.abspath(images)), images.resolve()):
        beside = folder.with_name(folder.name.replace("images", "labels"))
        if beside != folder and beside.is_dir():
            return beside
    return images


def _is_own_mask(file: Path) -> bool:
    """Whether a file is a mask as this program has written it into its output folder."""
    record = read_record(file.parent / RECORDS / f"{without_suffix(file.name)}.json") or {}
    written = (record.get("written") or {}).get(file.name)
    return written is not None and written["sha256"] == digest_of(file)


def _study_of_pair(case: str, channels: Mapping[str, Sequence[Path]], labels: Path, with_label: bool) -> Study | Problem:
    """Return the study of a CT and a PET, with its label if there is one in the folder `labels`.

    Args:
        case: the study's name.
        channels: the files that were found under "ct" and "pet".
        labels: folder of <case>.nii.gz.
        with_label: whether the label is wanted; see `_one_of_each`.
    """
    for number, name in CHANNELS.items():
        if name not in channels:
            message = f"there is no {name.upper()} of this study: add {case}_{number}.nii.gz"
            return Problem(case, None, message, error=True)
    files = _one_of_each(case, {**channels, "label": _volumes_called(labels / case)}, with_label)
    if isinstance(files, Problem):
        return files
    tracer, patient = identity(case)
    return Study(case, patient, tracer, files["ct"], files["pet"], files.get("label"))


def _one_of_each(case: str, volumes: Mapping[str, Sequence[Path]], with_label: bool) -> dict[str, Path] | Problem:
    """Return the file of each of a study's volumes that is there, or an error when one is there as several.

    Args:
        case: the study's name.
        volumes: the files that were found under "ct", "pet" and "label".
        with_label: whether the label is wanted; otherwise one that is there as several is left out.
    """
    files = {}
    for role, several in volumes.items():
        if len(several) > 1 and (with_label or role != "label"):
            return Problem(case, several[1], f"is there as {several[0].name}, too: keep one of the two", error=True)
        if len(several) == 1:
            files[role] = several[0]
    return files


def _from_tcia(patients: Sequence[Path], with_labels: bool) -> Iterator[Study | Problem]:
    """Yield the studies of TCIA's FDG-PET-CT-Lesions, converted to NIfTI by the data set's own scripts."""
    for patient in patients:
        for folder in _folders_in(patient):
            yield _study_of_tcia_folder(folder, with_labels)


def _folders_in(patient: Path) -> list[Path]:
    """Return the folders of a patient's studies, sorted."""
    return sorted(folder for folder in patient.iterdir() if folder.is_dir() and not _belongs_to_system(Path(folder.name)))


def _names_of_tcia_folder(folder: Path) -> tuple[str, str, str]:
    """Return case, tracer and patient of a folder PETCT_<patient>/<study>."""
    patient = folder.parent.name.removeprefix(TCIA_PREFIX)
    return f"fdg_{patient}_{folder.name}", "fdg", patient


def _study_of_tcia_folder(folder: Path, with_label: bool) -> Study | Problem:
    """Return the study of a folder PETCT_<patient>/<study>, with its label if there is one; see `_one_of_each`."""
    case, tracer, patient = _names_of_tcia_folder(folder)
    found = _volumes_of_tcia_folder(folder)
    of_roles = {"ct": found.get("CTres") or found.get("CT", []), "pet": found.get("SUV", []), "label": found.get("SEG", [])}
    files = _one_of_each(case, of_roles, with_label)
    if isinstance(files, Problem):
        return files
    if "pet" not in files and "PET" in found:
        message = "is not in SUV, and there is no SUV.nii.gz beside it: convert it to body-weight SUV"
        return Problem(case, found["PET"][0], message, error=True)
    if "pet" not in files:
        return Problem(case, None, f"there is no PET of this study: add SUV.nii.gz to {folder}", error=True)
    if "ct" not in files:
        return Problem(case, None, f"there is no CT of this study: add CTres.nii.gz to {folder}", error=True)
    return Study(case, patient, tracer, files["ct"], files["pet"], files.get("label"))


def _volumes_of_tcia_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a study, by their names; more than one where a volume is there with several suffixes."""
    files = {name: _volumes_called(folder / name) for name in ("CTres", "CT", "SUV", "PET", "SEG")}
    return {name: several for name, several in files.items() if several}


def _volumes_called(stem: Path) -> list[Path]:
    """Return the files that exist of <stem>.nii.gz and of this name with the other suffixes of volumes.

    Suffixes in capitals are looked for where there is none of these: whoever reads such a file refuses it by its name.
    """
    for suffixes in (SUFFIXES, [suffix.upper() for suffix in SUFFIXES]):
        candidates = [stem.with_name(f"{stem.name}{suffix}") for suffix in suffixes]
        if files := [file for file in candidates if file.is_file()]:
            return files
    return []


def _from_list(source: Path, labels: bool, allow_outside: bool, dicom: DicomOptions) -> Iterator[Study | Problem]:
    """Yield the studies of a CSV or JSON list."""
    places = Places(source.parent)
    # Whoever learns from labels, or scores against them, would take the split of the list for kept.
    for entry in read_list(source, may_split=not labels):
        case = entry.texts["case"]
        if not case:
            yield Problem(entry.place, None, entry.flaw or "the study has no name: fill in its case", error=True)
        elif reason := entry.flaw or _problem_of_entry(entry.texts, source, allow_outside):
            yield Problem(case, None, reason, error=True)
        else:
            yield from _study_of_entry(entry.texts, places, dicom)


def _problem_of_entry(entry: Mapping[str, str], source: Path, allow_outside: bool) -> str | None:
    """Return why an entry of a list cannot be a study; None when it can."""
    for name in ("ct", "pet"):
        if not entry[name]:
            return f"{source.name} names no {name.upper()} of this study: fill in its {name}"
    for file in filter(None, (entry["ct"], entry["pet"], entry["label"], entry["coarse_mask"], entry["points"])):
        if not allow_outside and not is_inside(source.parent / file, source.parent):
            return (
                f"{source.name} names {file}, which lies outside of the list's folder: move the list or the file, "
                "or allow it with --allow_outside true"
            )
        slashed = file.replace("\\", "/")
        if slashed != file and not os.path.exists(source.parent / file) and os.path.exists(source.parent / slashed):
            return f"{source.name} names {file}, which is a path of Windows: write slashes, as in {slashed}"
    return None


def _study_of_entry(entry: Mapping[str, str], places: Places, dicom: DicomOptions) -> Iterator[Study | Problem]:
    """Yield the study of a list's entry, whose paths are relative to a folder, and what is to be said of its series."""
    tracer, patient = identity(entry["case"])
    named = {role: entry[role] for role in ("ct", "pet", "label") if entry[role]}
    try:
        said = {name: entry[name] for name in SUV_NAMES if entry[name]}
        options = replace(dicom, suv=suv_options({**asdict(dicom.suv), **said}))
        files, sentences = _files_of_places(named, places, options)
        given = _corrections(entry, places.folder, files["pet"])
    except InputError as error:
        yield Problem(entry["case"], None, str(error), error=True)
        return
    yield from (Problem(entry["case"], None, sentence, error=False) for sentence in sentences)
    if isinstance(files["pet"], DicomSource):
        # Studies of one person, whatever the list calls them, must not come to lie in training and validation.
        of_series = said_by_series(files["pet"].files[0])
        patient, tracer = of_series[0] or patient, of_series[1] or tracer
    yield Study(
        case=entry["case"],
        patient=entry["patient"] or patient,
        tracer=entry["tracer"].lower() or tracer,
        ct=files["ct"],
        pet=files["pet"],
        label=files.get("label"),
        centre=entry["centre"] or None,
        body=None if isinstance(files["pet"], DicomSource) else options.suv.body,
        **given,
    )


def _corrections(named: Mapping[str, str | os.PathLike | None], folder: Path, pet: Path | Source) -> dict[str, Any]:
    """Return the coarse mask and the points of a study, whose PET is given, that are named with paths from a folder.

    Raises:
        InputError: as `petct_cascade.coarse_mask.coarse_mask_source`.
    """
    mask, points = named["coarse_mask"], named["points"]
    file = PointsFile(folder / points) if points else None
    # Without a point nobody corrects stage 1's mask, as in the first round of a viewer.
    is_given = file is not None and (bool(mask) or file.has_points)
    return {"coarse_mask": coarse_mask_source(folder / mask, pet) if mask else None, "points": file if is_given else None}


def _files_of_places(
    named: Mapping[str, str | os.PathLike], places: Places, dicom: DicomOptions
) -> tuple[dict[str, Path | Source], list[str]]:
    """Return the file, or DICOM series, that is named under "ct", "pet" and "label", and what is to be said of the choice.

    Raises:
        InputError: when there is no such series.
    """
    files: dict[str, Path | Source] = {role: places.folder / place for role, place in named.items()}
    in_dicom = {role: place for role, place in named.items() if places.is_dicom(place)}
    said = [] if "pet" in in_dicom else _said_of_suv(dicom.suv)
    sources, sentences = places.sources(in_dicom, dicom)
    return {**files, **sources}, [*said, *sentences]


def _said_of_suv(options: SuvOptions) -> list[str]:
    """Return what is to be said of options that are given for a PET that is in SUV and no DICOM.

    Raises:
        InputError: when they say what only a PET in DICOM has use for.
    """
    if not {*options.given} <= {*OF_BODY}:
        raise InputError("dose, half-life and injection time are for a PET in DICOM, and this one is in SUV: leave them out")
    return ["SUL needs weight, height and sex: there is none"] if options.given and options.body is None else []
