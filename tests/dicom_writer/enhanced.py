"""Slices as one multi-frame file: Enhanced CT and Enhanced PET Image Storage (PS3.3 A.38 and A.56)."""

from __future__ import annotations

import datetime

from pydicom import DataElement, Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, EnhancedPETImageStorage

from dicom_writer.headers import code, make_uid, without
from dicom_writer.physics import seconds_to_mean
from dicom_writer.variant import Variant

# What stands in a functional group instead, or in no enhanced file at all.
OF_A_SLICE = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation", "ImageIndex"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "AcquisitionDate", "AcquisitionTime", "ActualFrameDuration"),
    *("FrameReferenceTime", "DecayFactor", "DecayCorrection", "Units", "SUVType", "NumberOfSlices", "SeriesType", "KVP"),
    *("CorrectedImage", "WindowCenter", "WindowWidth", "CountsSource", "ConvolutionKernel", "RandomsCorrectionMethod"),
    *("ScatterFractionFactor", "DeadTimeFactor", "AttenuationCorrectionMethod", "ScatterCorrectionMethod"),
)


def as_one_file(slices: list[Dataset], variant: Variant) -> Dataset:
    """Return slices as one enhanced multi-frame dataset, its frames in the order of the list."""
    ds, first = Dataset(), slices[0]
    ds.update({element.tag: element for element in first if element.keyword not in OF_A_SLICE})
    is_ct = first.SOPClassUID == CTImageStorage
    ds.SOPClassUID = EnhancedCTImageStorage if is_ct else EnhancedPETImageStorage
    ds.SOPInstanceUID = make_uid(first.SeriesInstanceUID, "enhanced")
    ds.ImageType, ds.InstanceNumber, ds.NumberOfFrames = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1, len(slices)
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.ContentQualification, ds.BurnedInAnnotation, ds.LossyImageCompression = "PRODUCT", "NO", "00"
    ds.AcquisitionDateTime = min(_moment(each) for each in slices)
    ds.AcquisitionDuration = 1.0
    _organise(ds)
    ds.SharedFunctionalGroupsSequence = [_shared(first, is_ct)]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame(each, number, None if is_ct else variant) for number, each in enumerate(slices, 1)
    ]
    if not is_ct:
        _pet_attributes(ds, variant)
    ds.add(DataElement(0x7FE00010, "OW", b"".join(each.PixelData for each in slices)))
    return ds


def _organise(ds: Dataset) -> None:
    """Set the Multi-frame Dimension module: frames by stack and position."""
    organisation = Dataset()
    organisation.DimensionOrganizationUID = make_uid(ds.SOPInstanceUID, "dimensions")
    ds.DimensionOrganizationSequence = [organisation]
    ds.DimensionIndexSequence = []
    for pointer in (0x00209056, 0x00209057):  # StackID, InStackPositionNumber
        index = Dataset()
        index.DimensionOrganizationUID = organisation.DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, 0x00209111
        ds.DimensionIndexSequence.append(index)


def _group(**attributes: object) -> list[Dataset]:
    """Return a functional group: a sequence of one item."""
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return [item]


def _shared(first: Dataset, is_ct: bool) -> Dataset:
    """Return the functional groups that hold for all frames."""
    groups = Dataset()
    groups.PixelMeasuresSequence = _group(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    groups.PlaneOrientationSequence = _group(ImageOrientationPatient=first.ImageOrientationPatient)
    groups.FrameAnatomySequence = _group(FrameLaterality="U", AnatomicRegionSequence=[code("38266002", "SCT", "Entire body")])
    kind = {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "PixelPresentation": "MONOCHROME"}
    kind |= {"VolumetricProperties": "VOLUME", "VolumeBasedCalculationTechnique": "NONE"}
    if is_ct:
        groups.CTImageFrameTypeSequence = _group(**kind)
        groups.CTXRayDetailsSequence = _group(KVP=first.KVP, FocalSpots="1.2", FilterType="NONE")
        groups.CTReconstructionSequence = _group(
            ConvolutionKernel=first.ConvolutionKernel, ReconstructionAlgorithm="FILTER_BACK_PROJ"
        )
    else:
        groups.PETFrameTypeSequence = _group(**kind)
        groups.RadiopharmaceuticalUsageSequence = _group(RadiopharmaceuticalAgentNumber=1)
    return groups


def _frame(slice_: Dataset, number: int, variant: Variant | None) -> Dataset:
    """Return the functional groups of one frame; `variant` is None for CT."""
    groups, content = Dataset(), Dataset()
    content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [1, number]
    content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = _moment(slice_)
    content.FrameAcquisitionDuration = 500.0
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = _group(ImagePositionPatient=slice_.ImagePositionPatient)
    groups.PixelValueTransformationSequence = _group(
        RescaleIntercept=slice_.RescaleIntercept, RescaleSlope=slice_.RescaleSlope, RescaleType="US" if variant else "HU"
    )
    if variant:
        mean = seconds_to_mean(variant.tracer.half_life, variant.timing.frame)
        content.FrameReferenceDateTime = _moment(slice_, mean)
        content.FrameAcquisitionDuration = float(slice_.ActualFrameDuration)
        groups.RealWorldValueMappingSequence = [_mapping(slice_)]
        if "DecayFactor" in slice_:
            groups.PETFrameCorrectionFactorsSequence = _group(DecayFactor=slice_.DecayFactor)
    return groups


def _mapping(slice_: Dataset) -> Dataset:
    """Return the item of RealWorldValueMappingSequence that gives stored values their unit."""
    item = Dataset()
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 32767
    item.RealWorldValueIntercept, item.RealWorldValueSlope = 0.0, float(slice_.RescaleSlope)
    item.LUTExplanation, item.LUTLabel = "Activity concentration", "BQML"
    unit = {"BQML": ("Bq/ml", "Becquerels/milliliter"), "GML": ("g/ml{SUVbw}", "Standardized Uptake Value body weight")}
    value, meaning = unit[slice_.Units]
    item.MeasurementUnitsCodeSequence = [code(value, "UCUM", meaning)]
    return item


def _pet_attributes(ds: Dataset, variant: Variant) -> None:
    """Set what Enhanced PET says for all frames about corrections; times of injection are dates and times."""
    for name in ("Attenuation", "Scatter", "Randoms", "DeadTime"):
        setattr(ds, f"{name}Corrected", "YES")
    ds.DecayCorrected = "NO" if variant.decay_correction == "NONE" else "YES"
    moments = {"START": variant.timing.reference, "ADMIN": variant.timing.injection}
    if variant.decay_correction in moments:
        ds.DecayCorrectionDateTime = f"{moments[variant.decay_correction]:%Y%m%d%H%M%S.%f}"
    item = ds.RadiopharmaceuticalInformationSequence[0]
    item.RadiopharmaceuticalAgentNumber = 1
    without(item, ["RadiopharmaceuticalStartTime"])


def _moment(slice_: Dataset, later: float = 0) -> str:
    """Return when a slice was acquired, or some seconds later, as DICOM's date and time."""
    moment = datetime.datetime.strptime(slice_.AcquisitionDate + slice_.AcquisitionTime, "%Y%m%d%H%M%S.%f")
    return f"{moment + datetime.timedelta(seconds=later):%Y%m%d%H%M%S.%f}"
