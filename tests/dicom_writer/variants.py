"""All variants by name. Each is a set of files that scanners or archives write, or one that must be refused in a sentence."""

from __future__ import annotations

import datetime

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_writer import beside, edits, layouts
from dicom_writer.damages import cut_off, patched
from dicom_writer.edits import in_tracer, one_after_another, removing, setting
from dicom_writer.headers import ge_private, make_uid
from dicom_writer.study import permuted, turned, with_reversed_ct, with_tilted_ct
from dicom_writer.variant import Person, Timing, Tracer, Variant

GE, PHILIPS = "GE MEDICAL SYSTEMS", "Philips Medical Systems"
WOMAN = Person(identifier="FDG_0007", name="Doe^Jane", sex="F", weight=61.5, height=1.63)
GALLIUM = Tracer("PSMA-11", 141.2e6, 4057.7, ("79797006", "^68^Gallium"), ("C118961", "Gallium Ga 68 Gozetotide"))
# A series that was made forty minutes after the scan, whose first bed began 15 minutes after the time of decay correction.
LATE = Timing(lead=900, series_delay=2400)
PHILIPS_CREATOR, GE_CREATOR, GE_SCAN_TIME = 0x70530010, 0x00090010, 0x0009100D
MIDNIGHT = Timing(injection=datetime.datetime(2023, 5, 4, 23, 20))


def ge_scan_time(ds) -> None:
    """Add GE's private time of the scan, that of `LATE`."""
    ge_private(ds, LATE.reference)


def philips(*factors: str, **changes) -> Variant:
    """Return a variant of a Philips scanner that writes counts with these private factors."""
    return Variant(manufacturer=PHILIPS, units="CNTS", philips_factors=factors, **changes)


def everywhere(edit: edits.Edit) -> Variant:
    """Return a variant that edits the headers of PET and CT."""
    return Variant(edit_pet=edit, edit_ct=edit)


def huge(written) -> None:
    """Let all slices of the PET claim 65535 x 65535 pixels."""
    for tag in (0x00280010, 0x00280011):
        patched(tag, 65535, everywhere=True)(written)


EVERYTHING = (
    *(beside.no_attenuation_correction, beside.projections, beside.screenshot, beside.localizer, beside.lung_ct),
    *(beside.dose_report, beside.dynamic_pet, beside.gated_pet, beside.pet_of_the_head, beside.ct_of_another_frame),
)
UNITS = {
    "plain": Variant(),
    "one slope a slice": Variant(manufacturer=GE, slope_per_slice=True),
    "unsigned PET": Variant(signed=False),
    "gallium": Variant(tracer=GALLIUM),
    "GML without SUVType": Variant(units="GML"),
    "GML BW": Variant(units="GML", suv_type="BW"),
    "GML LBM": Variant(units="GML", suv_type="LBM"),
    "GML LBM of a woman": Variant(units="GML", suv_type="LBM", person=WOMAN),
    "GML LBMJAMES128": Variant(units="GML", suv_type="LBMJAMES128"),
    "GML LBMJAMES128 of a woman": Variant(units="GML", suv_type="LBMJAMES128", person=WOMAN),
    "GML LBMJANMA": Variant(units="GML", suv_type="LBMJANMA"),
    "GML LBMJANMA of a woman": Variant(units="GML", suv_type="LBMJANMA", person=WOMAN),
    "GML IBW": Variant(units="GML", suv_type="IBW"),
    "GML IBW of a woman": Variant(units="GML", suv_type="IBW", person=WOMAN),
    "GML LBMJANMA of sex O": Variant(units="GML", suv_type="LBMJANMA", person=Person(sex="O")),
    "CM2ML": Variant(units="CM2ML", suv_type="BSA"),
    "CNTS with SUV factor": philips("suv"),
    "CNTS with activity factor": philips("activity"),
    "CNTS with both factors": philips("suv", "activity"),
    "CNTS with SUV factor 0": philips("suv", "activity", edit_pet=lambda ds: ds.add_new(0x70531000, "DS", "0")),
    "CNTS without factors": philips(refusal=("counts", "7053,1000")),
    "CNTS without creator": philips("suv", edit_pet=removing(PHILIPS_CREATOR)),
    "CNTS without creator, implicit": philips(
        "activity", edit_pet=removing(PHILIPS_CREATOR), transfer_syntax=ImplicitVRLittleEndian
    ),
    "CNTS as bytes": philips("suv", edit_pet=edits.private_as_bytes),
    "CNTS as bytes without creator": philips(
        "activity", edit_pet=one_after_another(edits.private_as_bytes, removing(PHILIPS_CREATOR))
    ),
    "CNTS as numbers": philips("suv", edit_pet=edits.private_as_numbers),
    "PROPCNTS": Variant(edit_pet=setting(Units="PROPCNTS"), refusal=("PROPCNTS",)),
    "CPS": Variant(edit_pet=setting(Units="CPS"), refusal=("CPS",)),
}
TIMES = {
    "GE late series": Variant(manufacturer=GE, timing=LATE, edit_pet=ge_scan_time),
    "GE late series without creator": Variant(
        manufacturer=GE, timing=LATE, edit_pet=one_after_another(ge_scan_time, removing(GE_CREATOR))
    ),
    "GE late series as bytes without creator": Variant(
        manufacturer=GE,
        timing=LATE,
        edit_pet=one_after_another(ge_scan_time, edits.private_as_bytes, removing(GE_CREATOR)),
    ),
    "GE late series without FrameReferenceTime": Variant(
        manufacturer=GE, timing=LATE, edit_pet=one_after_another(ge_scan_time, removing("FrameReferenceTime"))
    ),
    "Siemens late series": Variant(timing=LATE, slope_per_slice=True),
    "late series with FrameReferenceTime 0": Variant(timing=Timing(series_delay=2400), edit_pet=setting(FrameReferenceTime="0")),
    "late series without FrameReferenceTime": Variant(timing=Timing(series_delay=2400), edit_pet=removing("FrameReferenceTime")),
    "series before the first bed": Variant(timing=Timing(lead=900)),
    "decay to ADMIN": Variant(manufacturer=GE, decay_correction="ADMIN", slope_per_slice=True),
    "decay NONE": Variant(decay_correction="NONE", timing=Timing(beds=4, frame=240)),
    "across midnight": Variant(timing=MIDNIGHT, edit_pet=in_tracer(removing("RadiopharmaceuticalStartDateTime"))),
    "across midnight with date": Variant(timing=MIDNIGHT, edit_pet=in_tracer(removing("RadiopharmaceuticalStartTime"))),
    "start time alone": Variant(edit_pet=in_tracer(removing("RadiopharmaceuticalStartDateTime"))),
    "start date and time alone": Variant(edit_pet=in_tracer(removing("RadiopharmaceuticalStartTime"))),
    "start on a de-identified date": Variant(
        edit_pet=in_tracer(setting(RadiopharmaceuticalStartDateTime="19000101090300.000000"))
    ),
    "start with offset from UTC": Variant(
        edit_pet=in_tracer(setting(RadiopharmaceuticalStartDateTime="20230504090300.000000+0200"))
    ),
    "AcquisitionDate missing": Variant(edit_pet=removing("AcquisitionDate")),
    "times without fractions": Variant(
        edit_pet=one_after_another(
            setting(SeriesTime="100530"),
            in_tracer(setting(RadiopharmaceuticalStartTime="0903")),
            in_tracer(removing("RadiopharmaceuticalStartDateTime")),
        )
    ),
    "no start": Variant(
        edit_pet=in_tracer(removing("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime")),
        refusal=("injection time", "--injection_time"),
    ),
}
PATIENT_AND_DOSE = {
    "dose in MBq": Variant(edit_pet=in_tracer(setting(RadionuclideTotalDose="248.5"))),
    "dose missing": Variant(edit_pet=in_tracer(removing("RadionuclideTotalDose")), refusal=("RadionuclideTotalDose",)),
    "weight in grams": Variant(edit_pet=setting(PatientWeight="72000")),
    "weight missing": Variant(edit_pet=removing("PatientWeight"), refusal=("PatientWeight", "--weight")),
    "weight 0": Variant(edit_pet=setting(PatientWeight="0"), refusal=("PatientWeight", "--weight")),
    "two tracers": Variant(edit_pet=edits.second_tracer, refusal=("2 injections",)),
    "tracer missing": Variant(
        edit_pet=removing("RadiopharmaceuticalInformationSequence"), refusal=("RadionuclideTotalDose", "--dose")
    ),
}
CODING = {
    "big endian": Variant(transfer_syntax=ExplicitVRBigEndian),
    "implicit": Variant(transfer_syntax=ImplicitVRLittleEndian),
    "deflated": Variant(transfer_syntax=DeflatedExplicitVRLittleEndian),
    "RLE": Variant(transfer_syntax=RLELossless),
    "JPEG-LS": Variant(transfer_syntax=JPEGLSLossless),
    "JPEG lossless": Variant(transfer_syntax=JPEGLosslessSV1),
    "JPEG 2000": Variant(transfer_syntax=JPEG2000Lossless, signed=False),
    "signed CT": Variant(ct_intercept=0),
    "CT intercept -1000": Variant(ct_intercept=-1000),
    "CT of 12 bits with overlay": Variant(edit_ct=edits.overlay_in_high_bits),
}
GEOMETRY = {
    "CT from the head down": Variant(reshape=with_reversed_ct),
    "PET from the head down": Variant(reshape=lambda study: permuted(study, (0, 1, 2), (2,))),
    "shuffled": Variant(change_pet=edits.shuffled, change_ct=edits.shuffled),
    "feet first": Variant(
        reshape=lambda study: permuted(study, (0, 1, 2), (0, 2)),
        edit_pet=setting(PatientPosition="FFS"),
        edit_ct=setting(PatientPosition="FFS"),
    ),
    "prone": Variant(
        reshape=lambda study: permuted(study, (0, 1, 2), (0, 1)),
        edit_pet=setting(PatientPosition="HFP"),
        edit_ct=setting(PatientPosition="HFP"),
    ),
    "oblique": Variant(reshape=lambda study: turned(study, 12, 7)),
    "cosines rounded differently from slice to slice": Variant(
        # Its sine is 0.005.
        reshape=lambda study: turned(study, 0, 0.2864789),
        change_pet=edits.cosines_rounded,
        change_ct=edits.cosines_rounded,
    ),
    "names with MIP in a word": everywhere(setting(SeriesDescription="HEMIPELVIS SEMIPRONE")),
    "coronal": Variant(reshape=lambda study: permuted(study, (0, 2, 1), (1,))),
    "sagittal": Variant(reshape=lambda study: permuted(study, (1, 2, 0), (1,))),
    "tilted gantry": Variant(reshape=with_tilted_ct, edit_ct=setting(GantryDetectorTilt="-15")),
    "SliceThickness is not the spacing": Variant(edit_ct=setting(SliceThickness="5"), edit_pet=setting(SliceThickness="3.27")),
    "positions rounded": Variant(change_pet=edits.rounded_positions, change_ct=edits.rounded_positions),
    "NumberOfFrames 1": everywhere(setting(NumberOfFrames=1)),
    "duplicates": Variant(change_pet=edits.repeated(), change_ct=edits.repeated()),
    "duplicates with new UIDs": Variant(change_pet=edits.repeated(new_uid=True), change_ct=edits.repeated(new_uid=True)),
    "enhanced, one frame twice": Variant(
        enhanced=("PT",), change_pet=edits.repeated(), warning=("has 2 slices that are there twice",)
    ),
    "enhanced, duplicates that differ": Variant(
        enhanced=("PT",),
        change_pet=edits.repeated(True, edits.brighter),
        refusal=("position, 0001.dcm (frame 5, z =", "and 0001.dcm (frame 17, z ="),
    ),
    "duplicates with slopes of other digits": Variant(
        change_pet=edits.repeated_with_slopes_of_other_digits, warning=("has 2 slices that are there twice",)
    ),
    "duplicates with other slopes": Variant(
        change_pet=edits.repeated(True, setting(RescaleSlope="1")), refusal=("has two different slices at one position",)
    ),
    "duplicates that differ": Variant(change_pet=edits.repeated(True, edits.brighter), refusal=("position",)),
    "CT duplicates that differ": Variant(change_ct=edits.repeated(True, edits.brighter), refusal=("position",)),
    "PET slice missing": Variant(change_pet=edits.without_slices(6), refusal=("PET", "missing", "-222.5")),
    "CT slices missing": Variant(change_ct=edits.without_slices(10, 11), refusal=("CT", "missing")),
    "uneven spacing": Variant(change_pet=edits.moved(8, 0.4), refusal=("PET", "unevenly spaced")),
    "one slice turned": Variant(
        change_pet=edits.only([8], setting(ImageOrientationPatient=[0, 1, 0, -1, 0, 0])),
        refusal=("a slice is missing", "(1 slices"),
    ),
    "one slice of another size": Variant(change_ct=edits.only([8], edits.halved), refusal=("a slice is missing", "(1 slices")),
    "CT of another frame of reference": Variant(
        edit_ct=setting(FrameOfReferenceUID=make_uid("another frame")), refusal=("frame of reference",)
    ),
    "enhanced": Variant(enhanced=("CT", "PT")),
    "enhanced, signed CT, one slope a slice": Variant(enhanced=("CT", "PT"), ct_intercept=0, slope_per_slice=True),
    "enhanced, shuffled frames": Variant(enhanced=("CT", "PT"), change_pet=edits.shuffled, change_ct=edits.shuffled),
    "enhanced, oblique": Variant(enhanced=("CT", "PT"), reshape=lambda study: turned(study, 12, 7)),
    "enhanced PET with Units": Variant(enhanced=("PT",), edit_pet=setting(Units="BQML", DecayCorrection="START")),
    "enhanced, late series": Variant(enhanced=("CT", "PT"), timing=LATE),
    "enhanced, decay to ADMIN": Variant(enhanced=("CT", "PT"), decay_correction="ADMIN"),
    "enhanced, decay NONE, image's own time": Variant(
        enhanced=("PT",),
        decay_correction="NONE",
        timing=Timing(beds=4, frame=240),
        edit_pet=setting(AcquisitionDate="20230504", AcquisitionTime="091500", ActualFrameDuration="1000"),
    ),
    "enhanced, decay NONE, frames' times in another zone": Variant(
        enhanced=("PT",), decay_correction="NONE", timing=Timing(beds=4, frame=240), edit_pet=edits.times_of_frames_in_zone(2, 1)
    ),
    "enhanced CT alone": Variant(enhanced=("CT",)),
    "enhanced, RLE": Variant(enhanced=("CT", "PT"), transfer_syntax=RLELossless),
    "enhanced, frame missing": Variant(
        enhanced=("CT", "PT"), change_pet=edits.without_slices(6), refusal=("PET", "missing", "-222.5")
    ),
}
FILES = {
    "no suffix": Variant(path=layouts.without_suffix),
    "deep folders among other files": Variant(path=layouts.deep, beside=(beside.other_files,)),
    "series by turns in one folder": Variant(path=layouts.mixed, change_pet=edits.shuffled),
    "disk with DICOMDIR": Variant(beside=(layouts.as_exchange_disk, beside.other_files)),
    "disk with DICOMDIR, many series": Variant(
        beside=(beside.lung_ct, beside.localizer, beside.no_attenuation_correction, layouts.as_exchange_disk)
    ),
}
BESIDE = {
    "NAC beside": Variant(beside=(beside.no_attenuation_correction,)),
    "projections beside": Variant(beside=(beside.projections,)),
    "screenshot beside": Variant(beside=(beside.screenshot,)),
    "localizer beside": Variant(beside=(beside.localizer,)),
    "lung CT beside": Variant(beside=(beside.lung_ct,)),
    "CT of another frame beside": Variant(beside=(beside.ct_of_another_frame,)),
    "reports beside": Variant(beside=(beside.dose_report,)),
    "dynamic PET beside": Variant(beside=(beside.dynamic_pet,)),
    "gated PET beside": Variant(beside=(beside.gated_pet,)),
    "enhanced dynamic PET beside": Variant(enhanced=("PT",), beside=(beside.enhanced_dynamic_pet,)),
    "enhanced dynamic PET beside slices": Variant(beside=(beside.enhanced_dynamic_pet,)),
    "enhanced gate beside": Variant(enhanced=("PT",), beside=(beside.enhanced_gate,)),
    "enhanced gate in each frame beside": Variant(beside=(beside.enhanced_gate_in_each_frame,)),
    "PET of the head beside": Variant(beside=(beside.pet_of_the_head,)),
    "all beside": Variant(path=layouts.mixed, beside=(*EVERYTHING, beside.other_files)),
    "all beside, RLE": Variant(path=layouts.without_suffix, beside=EVERYTHING, transfer_syntax=RLELossless),
    "NAC alone": Variant(edit_pet=beside.not_attenuation_corrected, warning=("attenuation",)),
    "no DECY": Variant(edit_pet=setting(CorrectedImage=["ATTN", "SCAT", "RAN"]), warning=("decay",)),
    "dynamic PET alone": Variant(change_pet=edits.as_time_frames, refusal=("dynamic",)),
    "enhanced dynamic PET alone": Variant(enhanced=("PT",), change_pet=edits.as_time_frames, refusal=("dynamic or gated",)),
    "enhanced gated PET alone": Variant(enhanced=("PT",), change_pet=edits.as_gates, refusal=("dynamic or gated",)),
    "enhanced gate alone": Variant(enhanced=("PT",), edit_pet=edits.flavoured("CARDRESP_GATED"), refusal=("is gated",)),
    "gated PET alone": Variant(change_pet=edits.as_gates, refusal=("gated",)),
    "no CT": Variant(change_ct=lambda slices: [], refusal=("CT",)),
    "no PET": Variant(change_pet=lambda slices: [], refusal=("PET",)),
}
PATIENTS = {
    "PatientID missing": Variant(edit_pet=removing("PatientID"), edit_ct=removing("PatientID")),
    "PatientID empty": everywhere(setting(PatientID="", PatientName="")),
    "PatientID like a path": everywhere(setting(PatientID="../12/34 5:6")),
    "Latin-1 name": everywhere(setting(PatientName="Müller^Jürgen")),
    "UTF-8 name": everywhere(setting(SpecificCharacterSet="ISO_IR 192", PatientName="Ιωάννου^Ἑλένη", StudyDescription="ΠΕΤ/ΑΤ")),
    "Japanese name": everywhere(
        setting(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    ),
    "name without its character set": everywhere(
        setting(SpecificCharacterSet=None, PatientName="Müller^Jürgen".encode("latin-1"))
    ),
}
LIES = {
    "letters for RescaleSlope": Variant(damage=patched(0x00281053, b"abc"), refusal=("0007.dcm", "RescaleSlope")),
    "letters for PatientWeight": Variant(damage=patched(0x00101030, b"x", everywhere=True), refusal=("PatientWeight",)),
    "letters for ImagePositionPatient": Variant(
        damage=patched(0x00200032, b"a\\b\\c"), refusal=("0007.dcm", "ImagePositionPatient")
    ),
    "letters for SeriesTime": Variant(damage=patched(0x00080031, b"noon", everywhere=True)),
    "PixelSpacing 0": Variant(edit_pet=setting(PixelSpacing=[0, 0]), refusal=("PixelSpacing",)),
    "orientation 0": Variant(edit_pet=setting(ImageOrientationPatient=[0] * 6), refusal=("ImageOrientationPatient",)),
    "wrong VR": Variant(damage=patched(0x00101030, b"72", vr="LO", everywhere=True)),
    "RescaleSlope missing": Variant(change_pet=edits.only([6], removing("RescaleSlope")), refusal=("0007.dcm", "RescaleSlope")),
    "position missing": Variant(
        change_pet=edits.only([6], removing("ImagePositionPatient")), refusal=("0007.dcm", "ImagePositionPatient")
    ),
    "pixels missing": Variant(change_pet=edits.only([6], removing("PixelData")), refusal=("0007.dcm",)),
    "cut off in the pixels": Variant(damage=cut_off(-200), refusal=("0007.dcm",)),
    "cut off in the header": Variant(damage=cut_off(1000), refusal=("0007.dcm",)),
    "first slice cut off in the header": Variant(damage=cut_off(1000, 1), refusal=("0001.dcm", "cut off")),
    "last slice cut off in the header": Variant(damage=cut_off(1000, 0), refusal=("0016.dcm", "cut off")),
    "last slice empty": Variant(damage=cut_off(0, 0), refusal=("0016.dcm is empty or cut off",)),
    "last slice of some bytes": Variant(damage=cut_off(100, 0), refusal=("0016.dcm is empty or cut off",)),
    "cut off in compressed pixels": Variant(damage=cut_off(-200), transfer_syntax=JPEGLSLossless, refusal=("0007.dcm",)),
    "cut off when deflated": Variant(damage=cut_off(-200), transfer_syntax=DeflatedExplicitVRLittleEndian, refusal=("0007.dcm",)),
    "no rows": Variant(damage=patched(0x00280010, 0), refusal=("a slice is missing", "0006.dcm", "0008.dcm")),
    "65535 rows": Variant(damage=patched(0x00280010, 65535), refusal=("a slice is missing", "0006.dcm", "0008.dcm")),
    "65535 x 65535": Variant(damage=huge, refusal=("0001.dcm",)),
}
VARIANTS: dict[str, Variant] = {
    **UNITS,
    **TIMES,
    **PATIENT_AND_DOSE,
    **CODING,
    **GEOMETRY,
    **FILES,
    **BESIDE,
    **PATIENTS,
    **LIES,
}
