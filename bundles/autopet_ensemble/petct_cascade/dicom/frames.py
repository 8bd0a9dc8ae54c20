"""Frames of DICOM images: a slice each, whether it came in a file of its own or with others in an enhanced one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from petct_cascade.dicom.moments import moment_of, zone_of
from petct_cascade.dicom.values import items_of, number_of, text_of, word_of

# Functional groups of enhanced images (PS3.3, C.7.6.16) whose attributes a classic image has in its data set itself.
GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "PETFrameCorrectionFactorsSequence",
    "FrameContentSequence",
)


# Enhanced PET, and what was converted to it.
ENHANCED_PET_CLASSES = ("1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1")

# Units (UCUM, CID 84 and 85 of PS3.16) and what a classic PET writes as Units and SUVType.
UNITS = {
    "Bq/ml": ("BQML", ""),
    "{counts}": ("CNTS", ""),
    "g/ml{SUVbw}": ("GML", "BW"),
    "g/ml{SUVlbm}": ("GML", "LBM"),
    "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"),
    "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"),
    "g/ml{SUVibw}": ("GML", "IBW"),
    "cm2/ml{SUVbsa}": ("CM2ML", "BSA"),
}

# The flags of an enhanced PET, and the words of a classic one's CorrectedImage (PS3.3, C.8.9.1).
CORRECTIONS = {"Decay": "DECY", "Attenuation": "ATTN", "Scatter": "SCAT", "Randoms": "RAN", "DeadTime": "DTIM"}


# What is not said of a frame.
OF_ALL_FRAMES = frozenset(
    Tag(keyword) for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "PixelData")
)


def number_of_frames(dataset: Dataset) -> int:
    """Return how many frames an image has by its header."""
    return int(number_of(dataset, "NumberOfFrames") or 1)


def frames_of(dataset: Dataset) -> list[Dataset]:
    """Return a data set with the attributes of a classic image for each frame of an image; the image itself when it is one.

    An enhanced image's time is told by other names; `AcquisitionDate`, `AcquisitionTime`, `ActualFrameDuration` (ms) stand in the
    frames as in a classic image.
    """
    groups = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    if not groups:
        return [dataset]
    shared = (items_of(dataset, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    common = Dataset()
    for tag in dataset.keys() - OF_ALL_FRAMES:
        try:
            common.add(dataset[tag])
        except Exception:  # What pydicom cannot decode stays as it is: it may be needed by nobody, and else is refused there.
            common[tag] = dataset.get_item(tag)
    return [_frame(common, shared, own) for own in groups]


def _frame(common: Dataset, shared: Dataset, own: Dataset) -> Dataset:
    """Return what is said of a frame: of the image, of all frames, of this one; the last that speaks is right."""
    frame = Dataset()
    frame.update(common)
    for groups in (shared, own):
        for name in GROUPS:
            for group in items_of(groups, name):
                frame.update(group)
    _take_over(frame, "FrameType", "ImageType")
    moment = moment_of(word_of(frame, "FrameAcquisitionDateTime"), zone_of(word_of(frame, "TimezoneOffsetFromUTC")))
    if moment is not None:
        _put(frame, "AcquisitionDate", f"{moment:%Y%m%d}")
        _put(frame, "AcquisitionTime", f"{moment:%H%M%S.%f}")
    duration = number_of(frame, "FrameAcquisitionDuration")
    if duration is not None:
        _put(frame, "ActualFrameDuration", round(duration))
    if text_of(frame, "SOPClassUID") in ENHANCED_PET_CLASSES:
        _describe_pet(
            frame, [mapping for groups in (shared, own) for mapping in items_of(groups, "RealWorldValueMappingSequence")]
        )
    return frame


def _describe_pet(frame: Dataset, mappings: Sequence[Dataset]) -> None:
    """Say of a frame of an enhanced PET what a classic one says: units, corrections, and what its values are in these units."""
    for mapping in mappings:
        unit = text_of((items_of(mapping, "MeasurementUnitsCodeSequence") or [Dataset()])[0], "CodeValue")
        slope, intercept = (number_of(mapping, f"RealWorldValue{name}") for name in ("Slope", "Intercept"))
        if unit in UNITS and slope is not None and intercept is not None:
            units, suv_type = UNITS[unit]
            _put(frame, "Units", units)
            if suv_type:
                _put(frame, "SUVType", suv_type)
            _put(frame, "RescaleSlope", slope)
            _put(frame, "RescaleIntercept", intercept)
            break
    if "CorrectedImage" not in frame:
        corrections = [word for name, word in CORRECTIONS.items() if text_of(frame, f"{name}Corrected") == "YES"]
        _put(frame, "CorrectedImage", corrections)
    if "DecayCorrection" not in frame and "DecayCorrected" in frame:
        _put(frame, "DecayCorrection", "START" if text_of(frame, "DecayCorrected") == "YES" else "NONE")


def _take_over(frame: Dataset, source: str, target: str) -> None:
    """Copy an attribute of an enhanced image to its name in classic ones."""
    if source in frame:
        _put(frame, target, frame[source].value)


def _put(frame: Dataset, keyword: str, value: Any) -> None:
    """Give a frame an attribute of its own. Frames share what the image says, and to set that would change it in all of them."""
    frame.add(DataElement(keyword, dictionary_VR(keyword), value))
