"""Series and files that lie beside a PET/CT in a clinical export: another reconstruction, a projection, a report, rubbish.

Each function adds one to a written study, and notes the UID of what it added in `other_uids`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from dicom_writer import headers
from dicom_writer.edits import Change, Edit, as_gates, as_time_frames, flavoured, setting
from dicom_writer.enhanced import as_one_file
from dicom_writer.slices import ct_volume, pet_volume
from dicom_writer.study import Study, permute, turned
from dicom_writer.variant import nothing, unchanged
from dicom_writer.writing import WrittenStudy, write_series

Addition = Callable[[WrittenStudy, Study], None]


def not_attenuation_corrected(ds: Dataset) -> None:
    """Make a PET slice one of a reconstruction without attenuation correction."""
    ds.CorrectedImage = [name for name in ds.CorrectedImage if name not in ("ATTN", "SCAT")]
    ds.AttenuationCorrectionMethod = "NONE"


def second_pet(
    name: str, number: int, description: str, scale: float = 1, change: Change = unchanged, edit: Edit = nothing
) -> Addition:
    """Return an addition of another PET on the same grid, its SUV `scale` times that of the study."""

    def add(written: WrittenStudy, study: Study) -> None:
        volume = pet_volume(replace(study, pet=scale * study.pet), written.variant, name, number, description)
        slices = change(volume.slices)
        for ds in slices:
            written.variant.edit_pet(ds)
            edit(ds)
        _write(written, name, slices)

    return add


def second_ct(name: str, number: int, description: str, kernel: str, share: float = 1, frame: str = "") -> Addition:
    """Return an addition of another CT, of the upper `share` of the slices, with another kernel.

    Args:
        name: of the series.
        number: of the series.
        description: of the series.
        kernel: ConvolutionKernel.
        share: of the study's slices.
        frame: key of another frame of reference; empty for that of the study.
    """

    def add(written: WrittenStudy, study: Study) -> None:
        slices = ct_volume(study, written.variant, name, number, description).slices
        slices = slices[round((1 - share) * len(slices)) :]
        for ds in slices:
            ds.ConvolutionKernel = kernel
            if frame:
                ds.FrameOfReferenceUID = headers.make_uid(ds.StudyInstanceUID, frame)
        _write(written, name, slices)

    return add


def enhanced_pet(name: str, number: int, description: str, change: Change, edit: Edit = nothing) -> Addition:
    """Return an addition of another PET on the same grid as one enhanced file, edited after it was made of the changed slices."""

    def add(written: WrittenStudy, study: Study) -> None:
        volume = pet_volume(study, written.variant, name, number, description)
        ds = as_one_file(change(volume.slices), written.variant)
        edit(ds)
        _write(written, name, [ds])

    return add


no_attenuation_correction = second_pet("nac", 5, "PET WB NAC", 0.55, edit=not_attenuation_corrected)
dynamic_pet = second_pet("dynamic", 6, "PET dynamic liver", 0.8, change=as_time_frames)
gated_pet = second_pet("gated", 7, "PET lung gated", 0.9, change=as_gates)
# Numbered before the study's own PET, which would be the second of equals.
enhanced_dynamic_pet = enhanced_pet("enhanced dynamic", 3, "PET 3 frames", as_time_frames)
enhanced_gate = enhanced_pet(
    "gate", 3, "Thorax 3 of 6", unchanged, setting(ImageType=["ORIGINAL", "PRIMARY", "RESP_GATED", "NONE"])
)
enhanced_gate_in_each_frame = enhanced_pet("gate in frames", 3, "Thorax 3 of 6", unchanged, flavoured("CARDIAC_GATED"))
pet_of_the_head = second_pet(
    "head",
    8,
    "PET head AC",
    1.1,
    change=lambda slices: slices[-5:],
    edit=setting(SeriesType=["STATIC", "IMAGE"], NumberOfSlices=5),
)
lung_ct = second_ct("lung", 3, "CT Lung 1.0 B70f", "B70f", share=0.45)
ct_of_another_frame = second_ct("earlier", 1, "CT Abdomen 3.0 B30f", "B30f", frame="another frame of reference")


def projections(written: WrittenStudy, study: Study) -> None:
    """Add eight maximum intensity projections of the PET, seen from all sides (SeriesType REPROJECTION)."""
    slices = []
    for number in range(8):
        seen = turned(study, 0, 45 * number).pet_affine
        image, seen = permute(study.pet, seen, (0, 2, 1), (1,))
        ds = _header(written, "PT", "mip", 9, "PET MIP")
        headers.pet_series_and_isotope(ds, written.variant, 8)
        headers.instance(ds, PositronEmissionTomographyImageStorage, number + 1)
        headers.pet_image(ds, written.variant, number, 8)
        headers.image_plane(ds, seen, 0)
        ds.ImageType, ds.SeriesType = ["DERIVED", "SECONDARY", "MIP"], ["WHOLE BODY", "REPROJECTION"]
        ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
        headers.pixels(ds, np.rint(1000 * image.max(2)).astype(np.uint16).T)
        slices.append(ds)
    _write(written, "mip", slices)


def localizer(written: WrittenStudy, study: Study) -> None:
    """Add the CT's localizer: one projection from the front."""
    ds = _header(written, "CT", "localizer", 1, "Topogram")
    headers.ct_image(ds, written.variant)
    headers.instance(ds, CTImageStorage, 1)
    ct, affine = permute(study.ct, study.ct_affine, (0, 2, 1), (1,))
    headers.image_plane(ds, affine, 0)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    headers.pixels(ds, np.rint(ct.mean(2) - written.variant.ct_intercept).astype(np.int16).T)
    _write(written, "localizer", [ds])


def screenshot(written: WrittenStudy, study: Study) -> None:
    """Add a picture of the screen in colour, filed under PT as workstations do."""
    ds = _header(written, "PT", "screenshot", 99, "Screen Save")
    headers.date_and_time(ds, "Series", written.variant.timing.series)
    headers.instance(ds, SecondaryCaptureImageStorage, 1)
    ds.ConversionType, ds.ImageType = "WSD", ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = 48, 64
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.add(DataElement(0x7FE00010, "OB", bytes(range(256)) * 36))
    del ds.FrameOfReferenceUID
    _write(written, "screenshot", [ds])


def dose_report(written: WrittenStudy, study: Study) -> None:
    """Add the CT's radiation dose report, and a radiologist's structured report."""
    for name, modality, sop_class in (("dose", "SR", XRayRadiationDoseSRStorage), ("report", "SR", ComprehensiveSRStorage)):
        ds = _header(written, modality, name, 990, name)
        headers.instance(ds, sop_class, 1)
        headers.date_and_time(ds, "Content", written.variant.timing.series)
        ds.ValueType, ds.ContinuityOfContent, ds.CompletionFlag, ds.VerificationFlag = (
            "CONTAINER",
            "SEPARATE",
            "COMPLETE",
            "UNVERIFIED",
        )
        ds.ConceptNameCodeSequence = [headers.code("113701", "DCM", "X-Ray Radiation Dose Report")]
        ds.ContentSequence = []
        _write(written, name, [ds])


def other_files(written: WrittenStudy, study: Study) -> None:
    """Add what lies between DICOM files on disks: texts, pictures, empty files, a viewer's page."""
    folder = written.folder
    deep = folder / "viewer" / "help" / "en"
    deep.mkdir(parents=True, exist_ok=True)
    (folder / "README.TXT").write_text("Start VIEWER.EXE to look at the images.\n" * 20)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(4000))
    (folder / "empty").write_bytes(b"")
    (folder / "AUTORUN.INF").write_text("[autorun]\nopen=VIEWER.EXE\n")
    (deep / "index.html").write_text("<html><body>Viewer</body></html>")
    (folder / "viewer" / "logo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8)
    (folder / "viewer" / "0001.dcm").write_text("This was a DICOM file once.")
    (folder / "viewer" / "short").write_bytes(b"DICM")


def _header(written: WrittenStudy, modality: str, name: str, number: int, description: str) -> Dataset:
    """Return a dataset with patient, study and a series of its own."""
    ds = Dataset()
    headers.patient_and_study(ds, written.variant)
    headers.series(ds, written.variant, name, number, description)
    headers.date_and_time(ds, "Series", written.variant.timing.series + datetime.timedelta(minutes=30))
    ds.Modality = modality
    return ds


def _write(written: WrittenStudy, name: str, slices: list[Dataset]) -> None:
    """Write a series beside the study; what is no 16-bit image is not compressed."""
    variant = written.variant
    if getattr(slices[0], "BitsAllocated", 0) != 16:
        variant = replace(variant, transfer_syntax=ExplicitVRLittleEndian)
    write_series(written.folder, name, slices, variant)
    written.other_uids[name] = str(slices[0].SeriesInstanceUID)
