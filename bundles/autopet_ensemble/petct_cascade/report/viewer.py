"""What the viewer on a study's page needs: its program, and the study's volumes in a script file.

A page that is opened as a file may not read other files, but it may run scripts that lie beside it. So the volumes are NIfTI files
in base64 within a script.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import torch
from isal import igzip
from monai.data import MetaTensor
from nibabel.affines import apply_affine

from petct_cascade.pictures import OUTSIDE_HU, Scene
from petct_cascade.report.reducing import reduced, reduced_affine
from petct_cascade.resampling import SeparableResample
from petct_training.files import atomic, write_text
from petct_training.grids import affine_of_part, spacing_of

PROGRAM = Path(__file__).parent / "niivue"
PROGRAM_FILES = ("niivue.js", "LICENSE.txt")

MAX_BYTES = 12_000_000  # of all volumes of a study, compressed; base64 takes a third more
MAX_VOXELS = 5_000_000  # of each volume
SUV_STEP, HU_STEP = 0.01, 2.0  # to which values are rounded
MAX_INT16 = 32_767
MAX_NUMBER = 4_000  # of lesions that are told apart; NiiVue keeps a row of a texture for each
GZIP_LEVEL = 2


@dataclass(frozen=True, eq=False)
class ViewerVolume:
    """A volume as the viewer gets it.

    Attributes:
        name: "ct", "pet", "reference" or "prediction".
        array: (X, Y, Z) int16, along axes that run to the patient's right, front and head.
        affine: (4, 4), from voxels to world mm.
        slope: SUV or HU of a unit of the array.
        is_mask: whether the array holds lesions' numbers, 0 where there is none.
    """

    name: str
    array: np.ndarray
    affine: np.ndarray
    slope: float = 1.0
    is_mask: bool = False

    def nifti(self) -> bytes:
        """Return it as the bytes of a compressed NIfTI file; of the same volume always the same ones."""
        header = nib.Nifti1Header()
        header.set_data_dtype(self.array.dtype)
        header.set_data_shape(self.array.shape)
        header.set_sform(self.affine, "scanner")
        header.set_qform(self.affine, "scanner")
        header.set_xyzt_units("mm")
        if self.is_mask:
            header.set_intent("label")
        header["scl_slope"], header["scl_inter"], header["vox_offset"] = self.slope, 0, 352
        content = header.binaryblock + bytes(4) + self.array.tobytes(order="F")
        return igzip.compress(content, GZIP_LEVEL, mtime=0)


def write_program(folder: str | os.PathLike) -> None:
    """Write the viewer's program and its licence to a folder, unless they are there already."""
    for name in PROGRAM_FILES:
        content, target = (PROGRAM / name).read_bytes(), Path(folder) / name
        if not target.is_file() or target.read_bytes() != content:
            with atomic(target) as part:
                part.write_bytes(content)


def write_volumes(path: str | os.PathLike, scene: Scene, ct: np.ndarray | None, ct_affine: np.ndarray) -> list[ViewerVolume]:
    """Write a study's volumes as a script that hands them to the page.

    Args:
        path: the script file.
        scene: cropped, upright; its masks hold the lesions' numbers.
        ct: HU, in any orientation, if there is a CT.
        ct_affine: its (4, 4) affine.

    Returns:
        The volumes.
    """
    coarser = 1
    while True:
        volumes = viewer_volumes(scene, ct, ct_affine, coarser)
        files = {volume.name: volume.nifti() for volume in volumes}
        if sum(map(len, files.values())) <= MAX_BYTES:
            break
        coarser *= 2
    content = {name: base64.b64encode(file).decode("ascii") for name, file in files.items()}
    write_text(path, f"window.petctVolumes = {json.dumps(content)};\n")
    return volumes


def viewer_volumes(scene: Scene, ct: np.ndarray | None, ct_affine: np.ndarray, coarser: int = 1) -> list[ViewerVolume]:
    """Return a study's volumes with as many voxels as a page can hold: the CT first, if there is one, then PET and masks.

    They share a grid. The viewer brings all volumes onto that of the lowest one, and takes the nearest voxel for it.

    Args:
        scene: cropped, upright; its masks hold the lesions' numbers.
        ct: HU, in any orientation, if there is a CT.
        ct_affine: its (4, 4) affine.
        coarser: by what the numbers of voxels are divided.
    """
    ct_part, part_affine = (None, scene.affine) if ct is None else _part_of_ct(scene, ct, ct_affine)
    finest = np.minimum(spacing_of(scene.affine), spacing_of(part_affine))
    factors = _factors(scene, finest, MAX_VOXELS // coarser)
    affine = reduced_affine(scene.affine, factors)
    shape = _shape(scene.pet.shape, factors)
    suv = _on_grid(scene.pet, scene.affine, affine, shape)
    volumes = [_as_int16("pet", suv, affine, max(SUV_STEP, float(np.abs(suv).max()) / MAX_INT16))]
    if ct_part is not None:
        # Outside of the array lies zero.
        above = _on_grid(np.maximum(ct_part, OUTSIDE_HU) - np.float32(OUTSIDE_HU), part_affine, affine, shape)
        volumes.insert(0, _as_int16("ct", above + np.float32(OUTSIDE_HU), affine, HU_STEP))
    # A mask's voxels are no smaller than those of the PET, so that each holds the centre of one of them.
    factors = np.maximum(factors, 1.0).tolist()
    for role, numbers in scene.masks.items():
        volumes.append(ViewerVolume(role, _joined_numbers(numbers, factors), reduced_affine(scene.affine, factors), is_mask=True))
    return volumes


def _factors(scene: Scene, finest: np.ndarray, most: int) -> list[float]:
    """Return how many times as long as the PET's the voxels will be along each axis, so that there are at most `most`.

    They are as long as the finest of the images (3,), in mm, or, where that gives too many, of about one length along all axes.
    """
    spacing, shape, length = spacing_of(scene.affine), np.array(scene.pet.shape), float(finest.min())
    while np.prod(np.ceil(shape * spacing / np.maximum(finest, length))) > most:
        length *= 1.02
    return (np.maximum(finest, length) / spacing).tolist()


def _shape(shape: Sequence[int], factors: Sequence[float]) -> list[int]:
    """Return how many voxels, `factors` times as long, have their centres in a volume of a shape (X, Y, Z); at least one."""
    return [max(1, round(length / factor)) for length, factor in zip(shape, factors, strict=True)]


def _on_grid(array: np.ndarray, affine: np.ndarray, target: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return an image (X, Y, Z) float32 on a grid; outside of it lies zero.

    Args:
        array: (X, Y, Z), along axes that run to the patient's right, front and head.
        affine: its (4, 4) affine.
        target: the (4, 4) affine of the grid.
        shape: of the grid.
    """
    # Joined first, the array's voxels all count where the new ones are longer.
    joined = [max(1, int(number + 1e-3)) for number in spacing_of(target) / spacing_of(affine)]
    voxels = torch.from_numpy(reduced(array, joined, "mean"))
    image = MetaTensor(voxels[None], affine=torch.as_tensor(reduced_affine(affine, joined)))
    resample = SeparableResample(mode="bilinear", padding_mode="zeros")
    values, weights = (
        cast(MetaTensor, resample(source, torch.as_tensor(target), shape, dtype=torch.float32)).as_tensor()[0].numpy()
        for source in (image, torch.ones_like(image))
    )
    # At its outer faces the array counts half, at its corners an eighth; it must not fade into what lies outside.
    return np.where(weights > 0.12, values / np.maximum(weights, 0.12), np.float32(0))


def _joined_numbers(numbers: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Return lesions' numbers (X, Y, Z) int16 with voxels `factors` times as long, which are 1 or more.

    A voxel has the highest number of those whose centres lie in it: the smallest of its lesions.
    """
    shape = _shape(numbers.shape, factors)
    joined = np.zeros(shape, np.int16)
    places = np.nonzero(numbers)
    new = [
        np.minimum((index + 0.5) / factor, length - 1).astype(int)
        for index, factor, length in zip(places, factors, shape, strict=True)
    ]
    np.maximum.at(joined, tuple(new), np.minimum(numbers[places], MAX_NUMBER).astype(np.int16))
    return joined


def _part_of_ct(scene: Scene, ct: np.ndarray, ct_affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a CT that covers the PET, with axes that run to the patient's right, front and head, and its affine."""
    orientation = nib.io_orientation(ct_affine)
    affine = ct_affine @ nib.orientations.inv_ornt_aff(orientation, ct.shape)
    turned = nib.apply_orientation(ct, orientation)
    corners = np.array([*np.ndindex(2, 2, 2)]) * scene.pet.shape - 0.5
    reached = apply_affine(np.linalg.inv(affine) @ scene.affine, corners)
    start = np.clip(np.floor(reached.min(axis=0) + 0.5 + 1e-3).astype(int), 0, np.array(turned.shape) - 1)
    stop = np.maximum(np.ceil(reached.max(axis=0) + 0.5 - 1e-3).astype(int), start + 1)
    box = tuple(slice(first, last) for first, last in zip(start, stop, strict=True))
    return turned[box], affine_of_part(affine, start)


def _as_int16(name: str, values: np.ndarray, affine: np.ndarray, slope: float) -> ViewerVolume:
    """Return values (X, Y, Z) as a volume for the viewer, rounded to multiples of `slope`."""
    array = np.clip(np.rint(values / np.float32(slope)), -MAX_INT16, MAX_INT16).astype(np.int16)
    return ViewerVolume(name, array, affine, slope)
