"""Tiny PET/CT studies for tests, written in the challenge's layout."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np


def write_nifti(file: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write an array (X, Y, Z) with its affine, in the array's type."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner")
    image.header.set_xyzt_units("mm")
    nib.save(image, file)
    return file


def las(spacing: Sequence[float], origin: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """Affine of a grid stored LAS, as the challenge's data, with voxel (0, 0, 0) at the origin (mm)."""
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = origin
    return affine


def make_study(shape: Sequence[int] = (16, 14, 18), seed: int = 0, lesions: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT (HU), PET (SUV) and label of a body in air with bright cubes of 3 voxels; each (X, Y, Z)."""
    rng = np.random.default_rng(seed)
    body = np.zeros(shape, bool)
    body[3:-3, 3:-3, 2:-2] = True
    ct = np.where(body, rng.normal(40, 20, shape), -1000)
    ct[shape[0] // 2, shape[1] // 2, 2:-2] = 700
    pet = np.where(body, rng.uniform(0.5, 1.5, shape), rng.uniform(0, 0.1, shape))
    label = np.zeros(shape, np.uint8)
    for _ in range(lesions):
        corner = [int(rng.integers(4, size - 6)) for size in shape]
        inside = tuple(slice(start, start + 3) for start in corner)
        pet[inside] = rng.uniform(4, 12, (3, 3, 3))
        label[inside] = 1
    return np.round(ct).astype(np.int16), pet.astype(np.float32), label


def write_study(
    folder: Path,
    case: str,
    seed: int = 0,
    spacing: Sequence[float] = (4, 4, 5),
    shape: Sequence[int] = (16, 14, 18),
    lesions: int = 2,
) -> tuple[Path, Path, Path]:
    """Write a study into a folder in the challenge's layout, and give the files of CT, PET and label."""
    files = (
        folder / f"imagesTr/{case}_0000.nii.gz",
        folder / f"imagesTr/{case}_0001.nii.gz",
        folder / f"labelsTr/{case}.nii.gz",
    )
    for file, array in zip(files, make_study(shape, seed, lesions), strict=True):
        write_nifti(file, array, las(spacing))
    return files


def hundred_lesions(shape: tuple[int, int, int] = (400, 400, 282), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and reference mask of a hundred boxes that stand apart; each is predicted two voxels beside itself, and overlaps.

    Args:
        shape: 400 x 400 x 282 voxels or more; the axes are stored as in a NIfTI file.
        seed: of the boxes' sizes, 3 to 11 voxels along each axis.
    """
    generator = np.random.default_rng(seed)
    prediction, reference = np.zeros(shape, np.uint8, order="F"), np.zeros(shape, np.uint8, order="F")
    for position in itertools.product(range(20, 400, 80), range(20, 400, 80), range(20, 280, 65)):
        box = tuple(slice(start, start + int(size)) for start, size in zip(position, generator.integers(3, 12, 3), strict=True))
        reference[box] = 1
        prediction[tuple(slice(part.start + 2, part.stop + 2) for part in box)] = 1
    return prediction, reference
