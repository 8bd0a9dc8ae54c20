"""Studies as arrays: what is exported, and small ones whose uptake is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# NIfTI's world points to the right, front and head; DICOM's to the left, back and head.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
PET_SHAPE, PET_SPACING = (24, 20, 16), (4.5, 4.0, 5.0)
CT_SHAPE, CT_SPACING = (38, 34, 25), (3.0, 2.5, 3.5)
CENTRE = (12.0, -30.0, -210.0)  # of both grids, mm in NIfTI's world
# Centre (mm, from that of the grids), radius (mm) and SUV of the hot spots.
HOT_SPOTS = (((-16.0, 4.0, -14.0), 9.0, 4.0), ((14.0, -8.0, 3.0), 10.0, 6.5), ((-4.0, 12.0, 22.0), 8.0, 9.0))


@dataclass(frozen=True)
class Study:
    """A PET/CT study. Axes of the arrays are DICOM's column index (X), row index (Y) and slice (Z).

    Attributes:
        ct: (X, Y, Z) in HU, whole numbers.
        ct_affine: (4, 4) from voxel indices to NIfTI's world, mm.
        pet: (X, Y, Z) body-weight SUV.
        pet_affine: (4, 4), the same for the PET.
        label: (X, Y, Z) uint8 on the PET's grid, 1 in lesions, or None.
    """

    ct: np.ndarray
    ct_affine: np.ndarray
    pet: np.ndarray
    pet_affine: np.ndarray
    label: np.ndarray | None = None


def small_study(seed: int = 0, oblique: bool = False) -> Study:
    """Return a tiny study: a body with lungs and a spine, and three hot spots that are the label.

    PET and CT have different grids, and voxels of three different lengths, so that swapped axes are seen. Rows go to the
    patient's left, columns to the back, slices to the head, as scanners write them.

    Args:
        seed: of the noise.
        oblique: turn the study by 12 degrees about x and 7 about z.
    """
    rng = np.random.default_rng(seed)
    ct_affine, pet_affine = (_centred(*grid) for grid in ((CT_SHAPE, CT_SPACING), (PET_SHAPE, PET_SPACING)))
    ct = _paint(CT_SHAPE, ct_affine, air=-1000, body=40, lung=-780, bone=700, spots=(60, 60, 60))[0]
    pet, label = _paint(PET_SHAPE, pet_affine, air=0.02, body=1.0, lung=0.4, bone=1.5, spots=[spot[2] for spot in HOT_SPOTS])
    ct = np.rint(ct + rng.normal(0, 8, CT_SHAPE)).clip(-1024, 3071).astype(np.int16)
    study = Study(ct, ct_affine, pet * rng.uniform(0.9, 1.1, PET_SHAPE), pet_affine, label)
    return turned(study, 12, 7) if oblique else study


def turned(study: Study, about_x: float, about_z: float) -> Study:
    """Return a study turned in the world, first about x and then about z (degrees)."""
    turn = np.eye(4)
    turn[:3, :3] = _rotation(2, about_z) @ _rotation(0, about_x)
    return replace(study, ct_affine=turn @ study.ct_affine, pet_affine=turn @ study.pet_affine)


def permuted(study: Study, axes: Sequence[int], flips: Sequence[int] = ()) -> Study:
    """Return a study with the arrays' axes in another order, and then those in `flips` reversed; nothing moves in the world."""
    ct, ct_affine = permute(study.ct, study.ct_affine, axes, flips)
    pet, pet_affine = permute(study.pet, study.pet_affine, axes, flips)
    label = None if study.label is None else permute(study.label, study.pet_affine, axes, flips)[0]
    return Study(ct, ct_affine, pet, pet_affine, label)


def permute(
    array: np.ndarray, affine: np.ndarray, axes: Sequence[int], flips: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Return an array (X, Y, Z) with its axes in another order, those in `flips` reversed, and its affine (4, 4)."""
    array, affine = np.transpose(array, axes), affine[:, [*axes, 3]]
    for axis in flips:
        affine = affine.copy()
        affine[:3, 3] += (array.shape[axis] - 1) * affine[:3, axis]
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    return array, affine


def with_reversed_ct(study: Study) -> Study:
    """Return a study whose CT's slices run the other way; nothing moves in the world."""
    ct, affine = permute(study.ct, study.ct_affine, (0, 1, 2), (2,))
    return replace(study, ct=ct, ct_affine=affine)


def with_tilted_ct(study: Study, degrees: float = 15) -> Study:
    """Return a study whose CT was taken with a tilted gantry: each slice lies further along the columns than the one before.

    The CT's affine is sheared, and its values are interpolated, so that the patient stays where he was.
    """
    affine = study.ct_affine.copy()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shift = np.tan(np.deg2rad(degrees)) * spacing[2]  # mm a slice
    affine[:3, 2] += shift * affine[:3, 1] / spacing[1]
    rows = np.arange(study.ct.shape[1])
    ct = np.empty_like(study.ct)
    for k in range(ct.shape[2]):
        at = rows + k * shift / spacing[1]
        columns = (np.interp(at, rows, column, right=-1000) for column in study.ct[:, :, k])
        ct[:, :, k] = np.rint(np.stack(list(columns)))
    return replace(study, ct=ct, ct_affine=affine)


def world_coordinates(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Return the world coordinates (3, X, Y, Z) of the voxels' centres, mm."""
    index = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)


def _rotation(axis: int, degrees: float) -> np.ndarray:
    """Return the (3, 3) rotation about a coordinate axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.roll(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), (axis, axis), (0, 1))


def _centred(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Return the affine (4, 4) of a grid stored LPS about `CENTRE`."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _paint(
    shape: Sequence[int], affine: np.ndarray, air: float, body: float, lung: float, bone: float, spots: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (X, Y, Z) with the given values, and the mask (X, Y, Z) uint8 of the hot spots."""
    x, y, z = world_coordinates(shape, affine) - np.reshape(CENTRE, (3, 1, 1, 1))
    image, label = np.full(shape, air, float), np.zeros(shape, np.uint8)
    image[(x / 44) ** 2 + (y / 33) ** 2 < 1] = body
    for side in (-18, 18):
        image[((x - side) / 12) ** 2 + ((y - 6) / 12) ** 2 + ((z - 20) / 16) ** 2 < 1] = lung
    image[x**2 + (y + 22) ** 2 < 6**2] = bone
    for ((cx, cy, cz), radius, _), value in zip(HOT_SPOTS, spots, strict=True):
        inside = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2
        image[inside], label[inside] = value, 1
    return image, label
