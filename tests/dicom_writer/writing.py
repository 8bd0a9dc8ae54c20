"""Writing a study's files, and the record of what they hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
)

from dicom_writer.enhanced import as_one_file
from dicom_writer.slices import Volume, ct_volume, pet_volume, sorted_along_normal
from dicom_writer.study import Study
from dicom_writer.variant import Variant


@dataclass
class WrittenStudy:
    """A study's files and what a reader must find in them.

    Attributes:
        folder: that holds all files.
        variant: that was written.
        ct_files, pet_files: of the two series, in the order in which they were written.
        study_uid, ct_uid, pet_uid, frame_uid: of the study, its two series and the frame of reference.
        pet_sop_uids: SOPInstanceUID of each slice along the array's last axis; the same one for all if there is one file.
        other_uids: by name, of the series beside.
        ct: (X, Y, Z) HU after quantisation, slices sorted by their position along row x column; `ct_affine` (4, 4), NIfTI's.
        pet: (X, Y, Z) body-weight SUV after quantisation; `pet_affine` (4, 4).
        label: (X, Y, Z) uint8 on the PET's grid, or None.
    """

    folder: Path
    variant: Variant
    ct_files: list[Path]
    pet_files: list[Path]
    study_uid: str
    ct_uid: str
    pet_uid: str
    frame_uid: str
    pet_sop_uids: list[str]
    ct: np.ndarray
    ct_affine: np.ndarray
    pet: np.ndarray
    pet_affine: np.ndarray
    label: np.ndarray | None = None
    other_uids: dict[str, str] = field(default_factory=dict)


def write_study(folder: Path, study: Study, variant: Variant | None = None) -> WrittenStudy:
    """Write a study as a variant of DICOM files into a folder, which may hold other files."""
    variant = variant or Variant()
    study = variant.reshape(study)
    ct, pet = ct_volume(study, variant), pet_volume(study, variant)
    first = pet.slices[0]
    written = WrittenStudy(
        Path(folder),
        variant,
        write_series(folder, "ct", _as_written(ct, variant, "CT"), variant),
        write_series(folder, "pet", _as_written(pet, variant, "PT"), variant),
        str(first.StudyInstanceUID),
        str(ct.slices[0].SeriesInstanceUID),
        str(first.SeriesInstanceUID),
        str(first.FrameOfReferenceUID),
        _sop_uids(pet, variant),
        *sorted_along_normal(ct.array, ct.affine),
        *sorted_along_normal(pet.array, pet.affine),
        None if study.label is None else sorted_along_normal(study.label, study.pet_affine)[0],
    )
    for add in variant.beside:
        add(written, study)
    variant.damage(written)
    return written


def write_series(folder: Path, name: str, slices: list[Dataset], variant: Variant) -> list[Path]:
    """Write datasets into files whose names depend on the name of the series, and return these."""
    files = []
    for number, ds in enumerate(slices, 1):
        file = Path(folder) / variant.path(name, number)
        write_dataset(file, ds, variant.transfer_syntax)
        files.append(file)
    return files


def write_dataset(file: Path, ds: Dataset, transfer_syntax: str) -> None:
    """Write a dataset whose pixels, if any, are little-endian and not compressed, in a transfer syntax."""
    file.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    _encode(ds, UID(transfer_syntax))
    big, implicit = transfer_syntax == ExplicitVRBigEndian, transfer_syntax == ImplicitVRLittleEndian
    encoding = {} if ds.file_meta.TransferSyntaxUID.is_compressed else {"implicit_vr": implicit, "little_endian": not big}
    ds.save_as(file, enforce_file_format=True, **encoding)
    if transfer_syntax == JPEGLosslessSV1:
        _compress_jpeg_lossless(file)


def _encode(ds: Dataset, syntax: UID) -> None:
    """Bring a dataset's pixels, if it has any, into a transfer syntax, and note it in the file meta information."""
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax == JPEGLosslessSV1:
        return
    if "PixelData" in ds and syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    elif "PixelData" in ds and syntax == JPEG2000Lossless:
        _compress_jpeg2000(ds)
    elif "PixelData" in ds and syntax.is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax


def _compress_jpeg2000(ds: Dataset) -> None:
    """Compress one frame of unsigned pixels with Pillow; pydicom has no encoder of its own."""
    assert ds.PixelRepresentation == 0, "Pillow writes no signed values"
    stored = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
    stream = BytesIO()
    Image.fromarray(stored).save(stream, "JPEG2000", irreversible=False, no_jp2=True, num_resolutions=3)
    ds.PixelData = encapsulate([stream.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True


def _compress_jpeg_lossless(file: Path) -> None:
    """Compress a written file with GDCM, as lossless JPEG of first-order prediction; nothing else here can."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _as_written(volume: Volume, variant: Variant, modality: str) -> list[Dataset]:
    """Return the datasets of a series as a variant writes them: edited, as one file if it says so, in its order."""
    edit, change = (variant.edit_ct, variant.change_ct) if modality == "CT" else (variant.edit_pet, variant.change_pet)
    slices = change(volume.slices)
    if modality in variant.enhanced:
        slices = [as_one_file(slices, variant)]
    for ds in slices:
        edit(ds)
    return slices


def _sop_uids(volume: Volume, variant: Variant) -> list[str]:
    """Return the SOPInstanceUID of each slice of a volume, sorted by its position along row x column."""
    if "PT" in variant.enhanced:
        return [str(as_one_file(volume.slices, variant).SOPInstanceUID)] * len(volume.slices)
    uids = np.array([[[str(ds.SOPInstanceUID) for ds in volume.slices]]])
    return [str(uid) for uid in sorted_along_normal(uids, volume.affine)[0][0, 0]]
