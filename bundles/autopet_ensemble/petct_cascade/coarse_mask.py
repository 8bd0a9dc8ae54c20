"""Reading a mask that takes the place of stage 1's: any file of a mask, on any grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from petct_cascade.dicom.files import is_dicom
from petct_cascade.dicom.headers import Header, header_of_file
from petct_cascade.dicom.labels import contour_mask, segmentation_mask
from petct_cascade.dicom.planes import Grid
from petct_cascade.dicom.source import DicomSource
from petct_cascade.resampling import mask_on_grid
from petct_cascade.volumes import Source, Volume, as_mask, as_source, read_mask
from petct_training.errors import InputError
from petct_training.grids import extent

OF_THIS_STUDY = "give the mask of this study"


def coarse_mask_source(file: Path, pet: Path | Source) -> Path | Source:
    """Return the file of a coarse mask, or the DICOM object that it is, of a study whose PET is given.

    Raises:
        InputError: when the object is no segmentation and no structure set, or that of another patient.
    """
    if not isinstance(pet, DicomSource) or not _is_dicom_file(file):
        return file
    header, of_pet = _header(file), _header(pet.files[0])
    if header.patient and of_pet.patient and header.patient != of_pet.patient:
        raise InputError(f"its coarse mask {file.name} is that of another patient than its PET: {OF_THIS_STUDY}")
    return DicomSource(
        role="coarse mask",
        files=(file,),
        series=header.series,
        title=file.name,
        grid_files=pet.files,
        frame_of_reference=of_pet.frame_of_reference,
    )


def read_coarse_mask(source: Path | Source | Volume, shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Read a coarse mask and bring it to the grid of a PET, each of whose voxels takes the nearest one of the mask.

    Args:
        source: a file in NIfTI, MetaImage, DICOM SEG or RTSTRUCT; what reads itself; or a volume.
        shape: of the PET (X, Y, Z).
        affine: (4, 4) of the PET.

    Returns:
        The mask (X, Y, Z), uint8: 1 inside of lesions and 0 elsewhere; perhaps 0 everywhere.

    Raises:
        InputError: when it cannot be read, holds other values than 0 and 1, or lies elsewhere than the PET; the message is the end
            of a sentence that begins with its name.
    """
    if isinstance(source, Path) and _is_dicom_file(source):
        read = contour_mask if _header(source).kind == "rtstruct" else segmentation_mask
        x, y, z = (int(length) for length in shape)
        return read([source], Grid((x, y, z), np.asarray(affine))).array
    mask = as_mask(source) if isinstance(source, Volume) else read_mask(source)
    _check_place(mask, shape, affine)
    return mask_on_grid(mask.array, mask.affine, shape, affine)


def read_named_coarse_mask(
    source: str | os.PathLike | Source | Volume, shape: Sequence[int] | np.ndarray, affine: np.ndarray
) -> np.ndarray:
    """Read a coarse mask as `read_coarse_mask` does, of a volume or of whatever names a file.

    Raises:
        InputError: as there; the message is a sentence that begins with its name.
    """
    known = source if isinstance(source, Volume) else as_source(source)
    name = known.file.name if isinstance(known, Volume) else known.name
    try:
        return read_coarse_mask(known, [int(length) for length in shape], affine)
    except InputError as error:
        raise InputError(f"{name} {error}") from error


def _check_place(mask: Volume, shape: Sequence[int], affine: np.ndarray) -> None:
    """Check that a mask lies where a PET does.

    Raises:
        InputError: when it lies beside the PET, or all its lesions do.
    """
    low, high = extent(mask.array.shape, mask.affine)
    pet_low, pet_high = extent(shape, affine)
    if (np.minimum(high, pet_high) <= np.maximum(low, pet_low)).any():
        raise InputError(f"lies elsewhere in space than the PET: {OF_THIS_STUDY}")
    places = apply_affine(np.linalg.inv(affine) @ mask.affine, np.argwhere(mask.array))
    if len(places) and not ((places > -0.5) & (places < np.asarray(shape) - 0.5)).all(axis=1).any():
        raise InputError(f"marks lesions only outside of the PET: {OF_THIS_STUDY}")


def _is_dicom_file(file: Path) -> bool:
    return file.is_file() and is_dicom(file)


def _header(file: Path) -> Header:
    """Return the header of a PET, a segmentation or a structure set.

    Raises:
        InputError: when a file is none of them; the message is a sentence.
    """
    try:
        header = header_of_file(file)
    except InputError as error:
        raise InputError(f"{file.name} {error}") from error
    if header is None or header.kind == "ct":
        raise InputError(f"{file.name} is no DICOM segmentation and no structure set: give one as the coarse mask")
    return header
