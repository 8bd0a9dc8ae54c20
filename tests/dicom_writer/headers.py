"""The modules of a clinical PET/CT file (PS3.3), one function each; all set attributes of a dataset in place."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.uid import generate_uid

from dicom_writer.physics import decay_constant, mean_of_frame, seconds_to_mean
from dicom_writer.study import RAS_TO_LPS
from dicom_writer.variant import ACTIVITY_OF_COUNT, Variant

MODELS = {"SIEMENS": "Biograph64_mCT", "GE MEDICAL SYSTEMS": "Discovery 690", "Philips Medical Systems": "Ingenuity TF PET/CT"}
PHILIPS_CREATOR, GE_CREATOR = "Philips PET Private Group", "GEMS_PETD_01"


def make_uid(*words: object) -> str:
    """Return a UID that depends on nothing but some words."""
    return str(generate_uid(entropy_srcs=[str(word) for word in words]))


def number_text(value: float) -> str:
    """Return a number as DICOM's decimal string, which has at most 16 characters."""
    return next(text for digits in range(16, 5, -1) if len(text := f"{value:.{digits}g}") <= 16)


def decimal(value: float) -> float:
    """Return a number as it is after it was written as a decimal string."""
    return float(number_text(value))


def date_and_time(ds: Dataset, name: str, moment: datetime.datetime) -> None:
    """Set <name>Date and <name>Time."""
    setattr(ds, f"{name}Date", f"{moment:%Y%m%d}")
    setattr(ds, f"{name}Time", f"{moment:%H%M%S.%f}")


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def patient_and_study(ds: Dataset, variant: Variant) -> None:
    """Set the modules Patient, General Study and Patient Study."""
    person = variant.person
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = (
        person.name,
        person.identifier,
        person.birth_date,
        person.sex,
    )
    ds.PatientAge, ds.PatientSize, ds.PatientWeight = "066Y", number_text(person.height), number_text(person.weight)
    ds.StudyInstanceUID = make_uid(person.identifier, variant.study_key)
    date_and_time(ds, "Study", variant.timing.injection + datetime.timedelta(minutes=50))
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "4711", "A0004711", ""
    ds.StudyDescription = "PET-CT Ganzkoerper"


def series(ds: Dataset, variant: Variant, name: str, number: int, description: str) -> None:
    """Set the modules General Series, General Equipment and Frame of Reference; `name` makes the series' UID."""
    ds.SeriesInstanceUID = make_uid(ds.StudyInstanceUID, name)
    ds.SeriesNumber, ds.SeriesDescription, ds.ProtocolName = number, description, "PET-CT"
    ds.BodyPartExamined, ds.PatientPosition = "WHOLEBODY", "HFS"
    ds.Manufacturer, ds.ManufacturerModelName = variant.manufacturer, MODELS[variant.manufacturer]
    ds.InstitutionName, ds.StationName, ds.SoftwareVersions, ds.DeviceSerialNumber = "Hospital", "PETCT1", "VG60A", "12345"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = make_uid(ds.StudyInstanceUID, "frame of reference"), ""


def instance(ds: Dataset, sop_class: str, number: int) -> None:
    """Set the SOP Common module and the instance's number."""
    ds.SOPClassUID, ds.InstanceNumber = sop_class, number
    ds.SOPInstanceUID = make_uid(ds.SeriesInstanceUID, number)


def pixel_spacing(affine: np.ndarray) -> list[str]:
    """Return PixelSpacing: between rows, then between columns, mm."""
    return [number_text(float(np.linalg.norm(affine[:3, axis]))) for axis in (1, 0)]


def orientation(affine: np.ndarray) -> list[str]:
    """Return ImageOrientationPatient: the direction along a row, then along a column, in DICOM's world."""
    return [number_text(float(v)) for axis in (0, 1) for v in unit_vector(affine, axis)]


def unit_vector(affine: np.ndarray, axis: int) -> np.ndarray:
    """Return the direction (3,) in DICOM's world of an axis of the array."""
    vector = (RAS_TO_LPS @ affine)[:3, axis]
    return vector / np.linalg.norm(vector) + 0.0


def position(affine: np.ndarray, k: int) -> np.ndarray:
    """Return the position (3,) in DICOM's world of the first voxel of slice k, mm."""
    return (RAS_TO_LPS @ affine @ [0, 0, k, 1])[:3]


def image_plane(ds: Dataset, affine: np.ndarray, k: int) -> None:
    """Set the Image Plane module of slice k."""
    normal = np.cross(unit_vector(affine, 0), unit_vector(affine, 1))
    ds.PixelSpacing, ds.ImageOrientationPatient = pixel_spacing(affine), orientation(affine)
    ds.ImagePositionPatient = [number_text(float(v)) for v in position(affine, k)]
    ds.SliceThickness = number_text(abs(float(normal @ (RAS_TO_LPS @ affine)[:3, 2])))
    ds.SliceLocation = number_text(float(position(affine, k) @ normal))


def pixels(ds: Dataset, stored: np.ndarray) -> None:
    """Set the Image Pixel module from stored values (rows, columns) or (frames, rows, columns), int16 or uint16."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds.add(DataElement(0x7FE00010, "OW", stored.astype(stored.dtype.newbyteorder("<")).tobytes()))


def ct_image(ds: Dataset, variant: Variant) -> None:
    """Set the CT Image module."""
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    moment = variant.timing.reference - datetime.timedelta(minutes=3)
    for name in ("Series", "Acquisition", "Content"):
        date_and_time(ds, name, moment)
    ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime, ds.ConvolutionKernel = "120", "180", "500", "B30f"
    ds.ReconstructionDiameter, ds.GantryDetectorTilt, ds.AcquisitionNumber = "500", "0", 2
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(variant.ct_intercept), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "400"


def pet_series_and_isotope(ds: Dataset, variant: Variant, slices: int) -> None:
    """Set the modules PET Series and PET Isotope; both are the same in all slices."""
    ds.Modality = "PT"
    date_and_time(ds, "Series", variant.timing.series)
    ds.Units, ds.CountsSource, ds.DecayCorrection = variant.units, "EMISSION", variant.decay_correction
    if variant.suv_type is not None:
        ds.SUVType = variant.suv_type
    ds.SeriesType, ds.NumberOfSlices = ["WHOLE BODY", "IMAGE"], slices
    ds.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "RADL", "RAN"]
    if variant.decay_correction != "NONE":
        ds.CorrectedImage = ["DECY", *ds.CorrectedImage]
    ds.RandomsCorrectionMethod, ds.AttenuationCorrectionMethod = "DLYD", "measured,CT"
    ds.ScatterCorrectionMethod, ds.ReconstructionMethod = "Model-based", "PSF+TOF 2i21s"
    ds.CollimatorType, ds.ConvolutionKernel = "NONE", "XYZ Gauss2.00"
    ds.RadiopharmaceuticalInformationSequence = [radiopharmaceutical(variant)]
    ds.PatientOrientationCodeSequence = [code("102538003", "SCT", "recumbent")]
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = [code("40199007", "SCT", "supine")]
    ds.PatientGantryRelationshipCodeSequence = [code("102540001", "SCT", "headfirst")]


def radiopharmaceutical(variant: Variant) -> Dataset:
    """Return the item of RadiopharmaceuticalInformationSequence."""
    tracer, injection, item = variant.tracer, variant.timing.injection, Dataset()
    item.Radiopharmaceutical = tracer.name
    item.RadiopharmaceuticalRoute, item.RadiopharmaceuticalVolume = "Intravenous route", "0"
    item.RadiopharmaceuticalStartTime = f"{injection:%H%M%S.%f}"
    item.RadiopharmaceuticalStartDateTime = f"{injection:%Y%m%d%H%M%S.%f}"
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = number_text(tracer.dose), number_text(tracer.half_life)
    item.RadionuclidePositronFraction = "0.97"
    item.RadionuclideCodeSequence = [code(tracer.nuclide[0], "SCT", tracer.nuclide[1])]
    item.RadiopharmaceuticalCodeSequence = [code(tracer.agent[0], "SCT", tracer.agent[1])]
    return item


def pet_image(ds: Dataset, variant: Variant, index: int, slices: int) -> None:
    """Set the PET Image module of the slice `index` of `slices` from the lowest; FrameReferenceTime and DecayFactor are exact."""
    timing, half_life = variant.timing, variant.tracer.half_life
    moment = timing.acquisition(index, slices)
    date_and_time(ds, "Acquisition", moment)
    date_and_time(ds, "Content", moment)
    ds.ImageType, ds.ImageIndex = ["ORIGINAL", "PRIMARY"], index + 1
    ds.ActualFrameDuration = round(1000 * timing.frame)
    waited = (moment - timing.reference).total_seconds()
    ds.FrameReferenceTime = number_text(1000 * (waited + seconds_to_mean(half_life, timing.frame)))
    if variant.decay_correction == "START":
        factor = np.exp(decay_constant(half_life) * waited) / mean_of_frame(half_life, timing.frame)
        ds.DecayFactor = number_text(float(factor))
    ds.ScatterFractionFactor, ds.DeadTimeFactor = "0.35", "1.2"


def philips_private(ds: Dataset, variant: Variant, suv_of_count: float) -> None:
    """Add the private factors that make SUV or Bq/ml of Philips' counts."""
    if not variant.philips_factors:
        return
    ds.add_new(0x70530010, "LO", PHILIPS_CREATOR)
    if "suv" in variant.philips_factors:
        ds.add_new(0x70531000, "DS", number_text(suv_of_count))
    if "activity" in variant.philips_factors:
        ds.add_new(0x70531009, "DS", number_text(ACTIVITY_OF_COUNT))


def ge_private(ds: Dataset, moment: datetime.datetime) -> None:
    """Add GE's private date and time of the scan."""
    ds.add_new(0x00090010, "LO", GE_CREATOR)
    ds.add_new(0x0009100D, "DT", f"{moment:%Y%m%d%H%M%S}.00")


def without(ds: Dataset, names: Sequence[str | int]) -> None:
    """Delete attributes, by keyword or tag, where they are."""
    for name in names:
        if name in ds:
            del ds[name]
