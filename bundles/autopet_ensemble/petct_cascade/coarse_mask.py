"""Reading a mask that takes the place of stage 1's: any file of a mask, on any grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from petct_cascade.dicom.files import is_dicom
from petct_cascade.dicom.headers import Header, header_of_file
from petct_cascade.dicom.labels import ALL_LOST, contour_mask, segmentation_mask
from petct_cascade.dicom.planes import Grid
from petct_cascade.dicom.source import DicomSource
from petct_cascade.resampling import is_same_grid, mask_on_grid
from petct_cascade.volumes import Source, Volume, as_mask, as_source, read_volume
from petct_training.components import labelled_components
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


def read_coarse_mask(source: Path | Source | Volume, shape: Sequence[int], affine: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Read a coarse mask and bring it to the grid of a PET, each of whose voxels takes the nearest one of the mask.

    Args:
        source: a file in NIfTI, MetaImage, DICOM SEG or RTSTRUCT; what reads itself; or a volume.
        shape: of the PET (X, Y, Z).
        affine: (4, 4) of the PET.

    Returns:
        The mask (X, Y, Z), uint8: 1 inside of lesions and 0 elsewhere; perhaps 0 everywhere. And warnings of what is unusual about
        it or left out, each the end of a sentence that begins with its name.

    Raises:
        InputError: when it cannot be read, holds other values than 0 and 1, lies elsewhere than the PET, or has lesions of which
            no voxel of the PET takes any; the message is the end of a sentence that begins with its name.
    """
    if isinstance(source, Path) and _is_dicom_file(source):
        read = contour_mask if _header(source).kind == "rtstruct" else segmentation_mask
        x, y, z = (int(length) for length in shape)
        label = read([source], Grid((x, y, z), np.asarray(affine)), is_coarse_mask=True)
        return label.array, label.warnings
    volume, warnings = (source, []) if isinstance(source, Volume) else read_volume(source)
    mask = as_mask(volume)
    if is_same_grid(mask.array.shape, mask.affine, shape, affine):
        return mask.array, warnings
    outside = _outside(mask, shape, affine)
    on_grid, lost = _on_grid(mask, shape, affine)
    return on_grid, [*warnings, *outside, *lost]


def read_named_coarse_mask(
    source: str | os.PathLike | Source | Volume, shape: Sequence[int] | np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Read a coarse mask as `read_coarse_mask` does, of a volume or of whatever names a file. The warnings are sentences that begin
    with its name.

    Raises:
        InputError: as there; the message is a sentence that begins with its name.
    """
    known = source if isinstance(source, Volume) else as_source(source)
    name = known.file.name if isinstance(known, Volume) else known.name
    try:
        mask, warnings = read_coarse_mask(known, [int(length) for length in shape], affine)
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    return mask, [f"{name} {warning}" for warning in warnings]


def _outside(mask: Volume, shape: Sequence[int], affine: np.ndarray) -> list[str]:
    """Return a warning where a part of a mask's lesions lies outside of a PET.

    Raises:
        InputError: when the mask lies beside the PET, or all its lesions do.
    """
    low, high = extent(mask.array.shape, mask.affine)
    pet_low, pet_high = extent(shape, affine)
    if (np.minimum(high, pet_high) <= np.maximum(low, pet_low)).any():
        raise InputError(f"lies elsewhere in space than the PET: {OF_THIS_STUDY}")
    places = np.round(apply_affine(np.linalg.inv(affine) @ mask.affine, np.argwhere(mask.array)), 6)
    count = np.count_nonzero(((places < -0.5) | (places > np.asarray(shape) - 0.5)).any(axis=1))
    if not count:
        return []
    if count == len(places):
        raise InputError(f"marks lesions only outside of the PET: {OF_THIS_STUDY}")
    return [f"has {count} of {len(places)} voxels of lesions ({count / len(places):.1%}) outside of the PET: it is cut there"]


def _on_grid(mask: Volume, shape: Sequence[int], affine: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return a mask on the grid of a PET, and a warning where lesions are lost there.

    Raises:
        InputError: when all of them are.
    """
    labels, number = labelled_components(mask.array)
    numbered = mask_on_grid(labels, mask.affine, shape, affine)
    lost = number - np.count_nonzero(np.bincount(numbered.ravel(), minlength=number + 1)[1:])
    if number and lost == number:
        raise InputError(ALL_LOST)
    message = f"loses {lost} of {number} lesions, which lie outside of the PET or are nearest to no voxel of it"
    return (numbered > 0).astype(np.uint8), [message] if lost else []


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
