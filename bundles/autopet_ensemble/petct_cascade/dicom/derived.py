"""What the DICOM objects that this program derives from a PET series have in common: whose they are, from which images, when."""

from __future__ import annotations

import contextlib
import re
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import format_number_as_ds

from petct_cascade.dicom.frames import ENHANCED_PET_CLASSES
from petct_cascade.dicom.geometry import Stack, stack_of
from petct_cascade.dicom.headers import OWN_MODEL
from petct_cascade.dicom.source import DicomSource, headers_of
from petct_cascade.dicom.values import number_of, numbers_of, text_of
from petct_training.errors import InputError

# highdicom warns of patients whose name has one part, as in most de-identified studies.
warnings.filterwarnings("ignore", category=UserWarning, module=r"highdicom\.")

# What made an object (PS3.3, C.7.5.2); the model's name is `OWN_MODEL`, by which the program knows its own objects again.
MANUFACTURER, SERIAL_NUMBER = "autopet-bundles", "1"

# Every UID that is derived here is a UUID (PS3.5, B.2) in this space of names.
NAMES = uuid.UUID("5f0b7bb3-5f0e-4f0c-9e0c-6d1d0f6d4a57")

CLASSIC_PET_CLASS = "1.2.840.10008.5.1.4.1.1.128"

# Attributes of the modules Patient, General Study, Patient Study, General Series and Frame of Reference (PS3.3, C.7) that are
# copied; empty where the PET does not have them.
COPIED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "SeriesInstanceUID", "FrameOfReferenceUID", "PositionReferenceIndicator"),
)
# The same, which are left out where the PET does not have them.
COPIED_IF_THERE = (
    *("StudyDescription", "PatientAge", "PatientSize", "PatientWeight", "IssuerOfPatientID"),
    *("Manufacturer", "ManufacturerModelName"),
)
# What a copied value must look like; any other is left out, since an object with it would break the standard (PS3.5, 6.2).
FORMS = {
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", re.ASCII)),
    "StudyTime": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII),
    "PatientSex": re.compile("[MFO]"),
    "PatientAge": re.compile(r"\d{3}[DWMY]", re.ASCII),
    **dict.fromkeys(("PatientSize", "PatientWeight"), re.compile(r"(?=.{1,16}$)\d+(\.\d*)?", re.ASCII)),
    **dict.fromkeys(("StudyID", "AccessionNumber"), re.compile(r"[^\\]{0,16}")),
    **dict.fromkeys(("PatientID", "IssuerOfPatientID", "StudyDescription"), re.compile(r"[^\\]{0,64}")),
}
# Where the date and time of a series stand, in the order in which they are believed; and what stands for none at all.
MOMENTS = ("Series", "Acquisition", "Content", "Study")
NO_DATE, NO_TIME = "19000101", "000000"


@dataclass(frozen=True)
class PetImages:
    """The images of a PET series, as highdicom takes them: headers that hold no more than what is copied or referred to.

    Attributes:
        images: one a slice, in the order of the array's last axis; of enhanced images one a file, in the order of the files.
        positions: (Z, 3), mm, LPS, of each slice's first voxel.
        enhanced: whether an image has several slices.
        shape: (X, Y, Z), columns, rows, slices.
        uids: of all images (SOP instances), in the same order.
        date: of the series, YYYYMMDD; what is derived from it has the same, so that it is the same tomorrow.
        time: of the series.
        header: that of the first slice, as it is in its file.
    """

    images: list[Dataset]
    positions: np.ndarray
    enhanced: bool
    shape: tuple[int, int, int]
    uids: list[str]
    date: str
    time: str
    header: Dataset


def pet_images(source: DicomSource) -> PetImages:
    """Return the images of a PET series.

    Raises:
        InputError: when its slices make no volume, or it lacks the UIDs by which it is referred to; the message is the end of a
            sentence that begins with the series.
    """
    frames, names = headers_of(source.files)
    stack = stack_of(frames, names)
    for frame, name in zip(frames, names, strict=True):
        if not text_of(frame, "SOPInstanceUID"):
            raise InputError(f"has no SOPInstanceUID in {name}, by which it could be referred to: export it again")
    header = frames[stack.order[0]]
    common = _common(header, stack)
    positions = np.array([numbers_of(frames[index], "ImagePositionPatient", 3) for index in stack.order], dtype=float)
    enhanced = text_of(header, "SOPClassUID") in ENHANCED_PET_CLASSES
    images = _enhanced(frames, common) if enhanced else [_classic(frames[index], common) for index in stack.order]
    date, time = _moment_of(header)
    return PetImages(
        images=images,
        positions=positions,
        enhanced=enhanced,
        shape=(int(common.Columns), int(common.Rows), len(stack.order)),
        uids=[str(image.SOPInstanceUID) for image in images],
        date=date,
        time=time,
        header=header,
    )


def derived_uid(*parts: str) -> str:
    """Return a UID that follows from texts: always the same of the same ones."""
    return f"2.25.{uuid.uuid5(NAMES, chr(10).join(parts)).int}"


def equipment(version: str) -> dict[str, Any]:
    """Return what highdicom is told of the program that makes an object."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": OWN_MODEL,
        "software_versions": version,
        "device_serial_number": SERIAL_NUMBER,
    }


def set_moment(dataset: Dataset, pet: PetImages) -> None:
    """Give an object the date and time of its PET, in place of those of this moment."""
    dataset.ContentDate, dataset.ContentTime = pet.date, pet.time
    for name in ("InstanceCreationDate", "InstanceCreationTime"):
        if name in dataset:
            delattr(dataset, name)
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime


@contextlib.contextmanager
def naming(source: DicomSource, what: str) -> Iterator[None]:
    """Turn what goes wrong while an object is made from a series into a sentence that names the series.

    Raises:
        InputError: with the sentence; also for what highdicom and pydicom raise about headers that they do not take.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{source.name} {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{source.name} does not allow {what} ({reason}): leave it out with --dicom_output false") from error


def _common(header: Dataset, stack: Stack) -> Dataset:
    """Return what all images of a series share, as far as it is sound."""
    common = Dataset()
    # Whatever letters the source uses.
    common.SpecificCharacterSet = "ISO_IR 192"
    for name in COPIED:
        setattr(common, name, _sound_text(header, name))
    for name in COPIED_IF_THERE:
        if text := _sound_text(header, name):
            setattr(common, name, text)
    if common.FrameOfReferenceUID is None:
        common.FrameOfReferenceUID = derived_uid("frame of reference", common.SeriesInstanceUID)
    common.Modality = "PT"
    common.Rows, common.Columns = (int(number_of(header, name) or 0) for name in ("Rows", "Columns"))
    common.ImageOrientationPatient = _numbers(numbers_of(header, "ImageOrientationPatient", 6) or ())
    common.PixelSpacing = _numbers(stack.pixel[::-1])
    # The distance of slices, whatever thickness a header states.
    distance = _numbers([abs(float(stack.step @ stack.axes[:, 2]))])[0]
    common.SliceThickness = common.SpacingBetweenSlices = distance
    return common


def _classic(frame: Dataset, common: Dataset) -> Dataset:
    """Return the header of a slice in a file of its own."""
    image = Dataset()
    image.update(common)
    image.SOPClassUID, image.SOPInstanceUID = CLASSIC_PET_CLASS, text_of(frame, "SOPInstanceUID")
    image.ImagePositionPatient = _position(frame)
    return image


def _enhanced(frames: Sequence[Dataset], common: Dataset) -> list[Dataset]:
    """Return the header of each file of enhanced images, with its frames in the order of the file."""
    by_image: dict[str, list[Dataset]] = {}
    for frame in frames:
        by_image.setdefault(text_of(frame, "SOPInstanceUID"), []).append(frame)
    return [_enhanced_image(uid, own, common) for uid, own in by_image.items()]


def _enhanced_image(uid: str, frames: Sequence[Dataset], common: Dataset) -> Dataset:
    image, shared, measures, orientation = Dataset(), Dataset(), Dataset(), Dataset()
    image.update(common)
    image.SOPClassUID, image.SOPInstanceUID = text_of(frames[0], "SOPClassUID"), uid
    for name, group in (("PixelSpacing", measures), ("SliceThickness", measures), ("SpacingBetweenSlices", measures)):
        setattr(group, name, common[name].value)
        delattr(image, name)
    orientation.ImageOrientationPatient = common.ImageOrientationPatient
    del image.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = [_groups_of(frame) for frame in frames]
    image.NumberOfFrames = len(frames)
    return image


def _groups_of(frame: Dataset) -> Dataset:
    groups, position = Dataset(), Dataset()
    position.ImagePositionPatient = _position(frame)
    groups.PlanePositionSequence = [position]
    return groups


def _position(frame: Dataset) -> list[str]:
    return _numbers(numbers_of(frame, "ImagePositionPatient", 3) or ())


def _numbers(numbers: Sequence[float]) -> list[str]:
    """Return numbers as DICOM writes them, in up to sixteen characters."""
    return [format_number_as_ds(float(number)) for number in numbers]


def _sound_text(header: Dataset, name: str) -> str | None:
    """Return the text of an attribute; None where there is none, or one that breaks the standard."""
    text = text_of(header, name)
    form = FORMS.get(name)
    return text if text and (form is None or form.fullmatch(text)) else None


def _moment_of(header: Dataset) -> tuple[str, str]:
    """Return date and time of a series; `NO_DATE` and `NO_TIME` where a header that was de-identified has none."""
    for name in MOMENTS:
        date, time = text_of(header, f"{name}Date"), text_of(header, f"{name}Time")
        if FORMS["StudyDate"].fullmatch(date):
            return date, time if FORMS["StudyTime"].fullmatch(time) else NO_TIME
    return NO_DATE, NO_TIME
