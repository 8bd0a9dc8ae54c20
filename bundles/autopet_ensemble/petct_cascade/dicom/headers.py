"""One pass over the files of a folder: what the header of each DICOM image, segmentation and structure set says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset
from pydicom.tag import Tag
from tqdm import tqdm

from petct_cascade.dicom.files import MAGIC, MAGIC_START, is_dicom, read_dataset
from petct_cascade.dicom.frames import frames_of
from petct_cascade.dicom.values import items_of, number_of, numbers_of, text_of, words_of
from petct_cascade.folders import walk
from petct_cascade.workers import Workers
from petct_training.errors import InputError

# Files that one process reads at once; and from how many on several processes do.
CHUNK, FILES_FOR_PROCESSES = 500, 5000

# What a header that is asked for shows; per-frame groups hold the places of an enhanced image's frames.
KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("PatientID", "PatientName", "StudyDate", "StudyTime", "StudyDescription", "SeriesDescription", "SeriesNumber"),
    *("ImageType", "SeriesType", "CorrectedImage", "AttenuationCorrected", "ConvolutionKernel", "Rows", "Columns"),
    *("NumberOfFrames", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SpecificCharacterSet"),
    *("RadiopharmaceuticalInformationSequence", "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "FrameReferenceTime", "InstitutionName"),
    "ManufacturerModelName",
)
TAGS = [Tag(keyword) for keyword in KEYWORDS]

# Kinds of objects (PS3.4, B.5): images of CT and PET, classic, enhanced and converted; segmentations; structure sets.
CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
PET_CLASSES = ("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1")
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"

# The name under which this program signs what it writes (ManufacturerModelName): its own results are nobody's label.
OWN_MODEL = "autopet_ensemble"

# Words in a radiopharmaceutical's name that tell the tracer, and the codes of the same (CID 4021 of PS3.16).
TRACER_WORDS = {
    "fdg": ("FDG", "FLUORODEOXYGLUCOSE", "35321007", "C-B1031"),
    "psma": ("PSMA", "PIFLUFOLASTAT", "DCFPYL", "126758", "126759", "C118961"),
}


@dataclass(frozen=True)
class Header:
    """What a DICOM file says of itself.

    Attributes:
        file: where it lies.
        kind: "ct", "pet", "seg" or "rtstruct".
        uid: of the object (SOP instance).
        study: UID of its study.
        series: UID of its series.
        frame_of_reference: UID of the space in which its positions are meant; empty when it is not said.
        patient: the patient's number, or else the name; empty when there is neither.
        date: of the study, YYYY-MM-DD; empty when it is not said.
        description: of the series.
        number: of the series.
        words: image type, type of series, and corrections, in capital letters.
        kernel: of the reconstruction.
        tracer: "fdg", "psma", or empty.
        centre: name of the institution.
        orientation: direction cosines of a slice's rows and columns (6), LPS; None when they are not said.
        positions: (x, y, z) in mm, LPS, of the first voxel of each frame.
        size: (columns, rows).
        spacing: (along a row, along a column) in mm; None when it is not said.
        referenced: UIDs of the series to which a segmentation or structure set refers.
        own: whether it is a segmentation that this program has written.
    """

    file: Path
    kind: str
    uid: str
    study: str
    series: str
    frame_of_reference: str
    patient: str
    date: str
    description: str
    number: int
    words: frozenset[str]
    kernel: str
    tracer: str
    centre: str
    orientation: tuple[float, ...] | None
    positions: tuple[tuple[float, ...], ...]
    size: tuple[int, int]
    spacing: tuple[float, ...] | None
    referenced: frozenset[str]
    own: bool


# What is said of a file that is shorter than the beginning of any DICOM file, as copying leaves it when it is interrupted.
SHORT = "is empty or cut off: copy it again from where it comes"


@dataclass(frozen=True)
class Damaged:
    """A DICOM file whose header cannot be read.

    Attributes:
        file: where it lies.
        message: the end of a sentence that begins with the file's name.
    """

    file: Path
    message: str


def scan(folder: Path) -> tuple[list[Header], list[Damaged]]:
    """Read the headers of all DICOM files in a folder of any depth, whatever they are called; other files are passed over, and
    segmentations that this program has written, whose output folder may lie among the studies.

    Links are followed, each folder once.

    Returns:
        The headers, and the files that are DICOM and damaged, each sorted by path.
    """
    files = sorted(walk(folder))
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    results: list[Header | Damaged] = []
    if len(files) < FILES_FOR_PROCESSES:
        # Processes take seconds to start.
        for chunk in tqdm(chunks, "headers", unit=f"{CHUNK} files", leave=False, disable=len(chunks) < 3):
            results += _read_all(chunk)
    else:
        with Workers(min(os.cpu_count() or 1, len(chunks))) as workers:
            for read in workers.map(_read_all, chunks, "headers", unit=f"{CHUNK} files"):
                results += read
    results.sort(key=lambda result: result.file)
    headers = [result for result in results if isinstance(result, Header) and not result.own]
    damaged = [result for result in results if isinstance(result, Damaged)]
    # A short file is somebody else's, unless it is called as the slices beside it.
    called = {(header.file.parent, header.file.suffix) for header in headers} if damaged else set()
    return headers, [file for file in damaged if file.message != SHORT or (file.file.parent, file.file.suffix) in called]


def _read_all(files: Sequence[Path]) -> list[Header | Damaged]:
    """Return the headers of files, and what is wrong with others."""
    series: dict[tuple[str, str], Header] = {}
    return [result for file in files if (result := _read(file, series)) is not None]


def header_of_file(file: Path, series: dict[tuple[str, str], Header] | None = None) -> Header | None:
    """Return the header of a file; None when it is no DICOM file, or one of a kind that is not needed.

    Args:
        file: any.
        series: headers that were read before, one of each series and patient, to which this one is added. What is said of a series
            as a whole is taken from there, since reading it takes longer than all else.

    Raises:
        InputError: when it is damaged, or lacks what every image must say; the message is the end of a sentence that begins with
            the file's name.
        OSError: when it cannot be read.
    """
    if not file.is_file() or not is_dicom(file):
        return None
    dataset = read_dataset(file, tags=TAGS)
    kind = _kind_of(text_of(dataset, "SOPClassUID"), text_of(dataset, "Modality"))
    if kind is None:
        return None
    uid = text_of(dataset, "SeriesInstanceUID")
    if not uid or not text_of(dataset, "StudyInstanceUID"):
        raise InputError("does not say to which study and series it belongs (it may be cut off): export it again")
    # Careless de-identification gives series of several patients one UID.
    patient = text_of(dataset, "PatientID") or text_of(dataset, "PatientName")
    known = {} if series is None else series
    if (uid, patient) not in known:
        known[uid, patient] = _header_of_series(file, kind, dataset, patient)
    return _with_what_differs(known[uid, patient], file, kind, dataset)


def _header_of_series(file: Path, kind: str, dataset: Dataset, patient: str) -> Header:
    """Return a header in which only what is said of a series as a whole is filled in."""
    return Header(
        file=file,
        kind=kind,
        uid="",
        study="",
        series=text_of(dataset, "SeriesInstanceUID"),
        frame_of_reference=text_of(dataset, "FrameOfReferenceUID"),
        patient=patient,
        date=_date_of(text_of(dataset, "StudyDate")),
        description=text_of(dataset, "SeriesDescription"),
        number=int(number_of(dataset, "SeriesNumber") or 0),
        words=frozenset(),
        kernel=" ".join(words_of(dataset, "ConvolutionKernel")),
        tracer=tracer_of(dataset),
        centre=text_of(dataset, "InstitutionName"),
        orientation=None,
        positions=(),
        size=(0, 0),
        spacing=None,
        referenced=frozenset(),
        own=kind == "seg" and text_of(dataset, "ManufacturerModelName") == OWN_MODEL,
    )


def _with_what_differs(header: Header, file: Path, kind: str, dataset: Dataset) -> Header:
    """Return the header of a series with what is said of one of its files."""
    frames = frames_of(dataset) if kind in ("ct", "pet") else [dataset]
    first = frames[0] if frames else dataset
    spacing = numbers_of(first, "PixelSpacing", 2)
    positions = [numbers_of(frame, "ImagePositionPatient", 3) for frame in frames]
    return replace(
        header,
        file=file,
        kind=kind,
        uid=text_of(dataset, "SOPInstanceUID"),
        study=text_of(dataset, "StudyInstanceUID"),
        words=frozenset(
            (
                *(word for each in (dataset, first) for word in words_of(each, "ImageType")),
                *words_of(dataset, "SeriesType"),
                *_corrections_of(dataset),
            )
        ),
        orientation=numbers_of(first, "ImageOrientationPatient", 6),
        positions=tuple(position for position in positions if position is not None),
        size=(int(number_of(dataset, "Columns") or 0), int(number_of(dataset, "Rows") or 0)),
        spacing=None if spacing is None else (spacing[1], spacing[0]),
        referenced=frozenset(_referenced_series(dataset)) if kind in ("seg", "rtstruct") else frozenset(),
    )


def _read(file: Path, series: dict[tuple[str, str], Header]) -> Header | Damaged | None:
    """Return the header of a file, or what is wrong with it; None as `header_of_file`."""
    try:
        header = header_of_file(file, series)
        is_short = header is None and file.is_file() and file.stat().st_size < MAGIC_START + len(MAGIC)
        return Damaged(file, SHORT) if is_short else header
    except OSError as error:
        return Damaged(file, f"cannot be read ({error.strerror}): check its permissions and the disk")
    except InputError as error:
        return Damaged(file, str(error))


def tracer_of(dataset: Dataset) -> str:
    """Return "fdg" or "psma" when the radiopharmaceutical's name or code says so, or else a description; or an empty text."""
    items = items_of(dataset, "RadiopharmaceuticalInformationSequence")
    codes = [code for item in items for code in items_of(item, "RadiopharmaceuticalCodeSequence")]
    texts = [text_of(item, "Radiopharmaceutical") for item in items]
    texts += [text_of(code, name) for code in codes for name in ("CodeMeaning", "CodeValue")]
    # A description counts only where the radiopharmaceutical is not told.
    descriptions = [text_of(dataset, name) for name in ("SeriesDescription", "StudyDescription")]
    for said in (" ".join(texts).upper(), " ".join(descriptions).upper()):
        for tracer, words in TRACER_WORDS.items():
            if any(word in said for word in words):
                return tracer
    return ""


def _kind_of(sop_class: str, modality: str) -> str | None:
    """Return which of the kinds that are needed an object is; None when it is none."""
    if sop_class in CT_CLASSES or (not sop_class and modality == "CT"):
        return "ct"
    if sop_class in PET_CLASSES or (not sop_class and modality == "PT"):
        return "pet"
    if sop_class in SEGMENTATION_CLASSES:
        return "seg"
    return "rtstruct" if sop_class == STRUCTURE_CLASS else None


def _corrections_of(dataset: Dataset) -> Sequence[str]:
    """Return the corrections of a PET; an enhanced one states each in an attribute of its own."""
    enhanced = ("ATTN",) if text_of(dataset, "AttenuationCorrected").upper() == "YES" else ()
    return (*words_of(dataset, "CorrectedImage"), *enhanced)


def _date_of(text: str) -> str:
    """Return YYYY-MM-DD of a DICOM date; an empty text when it is none."""
    digits = text.replace(".", "").replace("-", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}" if len(digits) == 8 and digits.isdigit() else ""


def _referenced_series(dataset: Dataset) -> Iterator[str]:
    """Yield the UIDs of the series to which a segmentation (PS3.3, C.8.20) or a structure set (C.8.8.5) refers."""
    for item in items_of(dataset, "ReferencedSeriesSequence"):
        yield text_of(item, "SeriesInstanceUID")
    for frame in items_of(dataset, "ReferencedFrameOfReferenceSequence"):
        for study in items_of(frame, "RTReferencedStudySequence"):
            for series in items_of(study, "RTReferencedSeriesSequence"):
                yield text_of(series, "SeriesInstanceUID")
