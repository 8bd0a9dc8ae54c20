"""Painting a planned study: CT, PET and label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from petct_cascade.phantom.lesions import Lesion
from petct_cascade.phantom.patients import PhantomStudy, make_generator
from petct_cascade.phantom.scanners import Grid
from petct_cascade.phantom.solids import Ellipsoid, Solid

AIR_HU, PADDING_HU = -1000, -1024
CT_NOISE = 12.0  # standard deviation of CT noise, HU
CT_FIELD = 780.0  # diameter (mm) of the largest field that these scanners' CT reconstructs
PET_STEP = 1 / 512  # SUV; far below the noise, and makes the file a third smaller
FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))
SLAB = 48  # slices painted at a time, so that a large study needs little more memory than its images


class PaintedSolid(NamedTuple):
    """A solid with the CT number (HU) and the uptake (SUV) that it has in one study."""

    solid: Solid
    hu: float
    suv: float


class Axes(NamedTuple):
    """World coordinates (mm) of the voxel centres along x, (X,), along y, (Y,), and along z, (Z,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def render(study: PhantomStudy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint a study.

    Returns:
        CT (X, Y, Z) int16 in HU, PET (X, Y, Z) float32 in body-weight SUV, label (X, Y, Z) uint8. The label is 1 where a voxel's
        centre lies in a lesion; a lesion that holds no voxel's centre has the voxel nearest to its own.
    """
    ct, pet = _paint_images(study)
    return ct, pet, _paint_label(study.lesions, study.patient.grid)


def _paint_images(study: PhantomStudy) -> tuple[np.ndarray, np.ndarray]:
    """Return CT (X, Y, Z) int16 in HU and PET (X, Y, Z) float32 in SUV."""
    grid, scanner = study.patient.grid, study.patient.scanner
    solids = _solids_of(study)
    nx, ny, nz = grid.shape
    kernels = [_gaussian(scanner.resolution / FWHM_PER_SIGMA / size) for size in reversed(grid.spacing)]
    halo = len(kernels[0]) // 2  # slices above and below that the blur needs
    axes = Axes(
        np.linspace(grid.high[0], grid.low[0], nx, dtype=np.float32),
        np.linspace(grid.low[1], grid.high[1], ny, dtype=np.float32),
        (grid.low[2] + np.arange(-halo, nz + halo) * grid.spacing[2]).astype(np.float32),
    )
    outside = axes.x * axes.x + axes.y[:, None] ** 2 > (min(CT_FIELD, nx * grid.spacing[0]) / 2) ** 2

    ct_image, pet_image = np.empty((nz, ny, nx), np.int16), np.empty((nz, ny, nx), np.float32)
    for start in range(0, nz, SLAB):
        stop = min(start + SLAB, nz)
        painted, inner = slice(start, stop + 2 * halo), slice(halo, halo + stop - start)
        ct, pet = _paint_solids(solids, axes._replace(z=axes.z[painted]))
        ct = ct[inner] + CT_NOISE * _draw_noise(study, 1, range(start + halo, stop + halo), (ny, nx))
        ct[:, outside] = PADDING_HU
        ct_image[start:stop] = np.rint(np.maximum(ct, PADDING_HU))
        noise = _blur(_draw_noise(study, 2, range(painted.start, painted.stop), (ny, nx)), kernels)[inner]
        pet = _add_pet_noise(_blur(pet, kernels)[inner], noise, kernels, study.patient.difficulty.noise)
        pet_image[start:stop] = np.rint(np.maximum(pet, 0) / PET_STEP) * PET_STEP
    return ct_image.T, pet_image.T


def _solids_of(study: PhantomStudy) -> list[PaintedSolid]:
    """Return the parts of a study's patient, then its lesions, with the values that they have in this study."""
    solids = [PaintedSolid(part.solid, *study.tissues[part.tissue]) for part in study.patient.anatomy.parts]
    return solids + [PaintedSolid(Ellipsoid(lesion.centre, lesion.radii), lesion.hu, lesion.suv) for lesion in study.lesions]


def _paint_solids(solids: Sequence[PaintedSolid], axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Return CT (HU) and PET (SUV), (Z, Y, X) float32, without blur and noise."""
    ct = np.full((len(axes.z), len(axes.y), len(axes.x)), AIR_HU, np.float32)
    pet = np.zeros_like(ct)
    for solid in solids:
        _paint_solid(ct, pet, axes, solid)
    return ct, pet


def _paint_solid(ct: np.ndarray, pet: np.ndarray, axes: Axes, painted: PaintedSolid) -> None:
    """Paint a solid into arrays (Z, Y, X) in place; voxels at its surface get the share of them that it covers."""
    edge = float(np.prod([abs(c[1] - c[0]) for c in axes]) ** (1 / 3))
    box = []
    for c, low, high in zip(axes, *painted.solid.bounds(), strict=True):
        inside = np.flatnonzero((c >= low - edge) & (c <= high + edge))
        if not len(inside):
            return
        box.append(slice(inside[0], inside[-1] + 1))
    x, y, z = (c[part] for c, part in zip(axes, box, strict=True))
    covered = np.clip(0.5 - painted.solid.distance(x, y[:, None], z[:, None, None]) / edge, 0, 1)
    for image, value in ((ct, painted.hu), (pet, painted.suv)):
        region = image[box[2], box[1], box[0]]
        region += covered * (value - region)


def _draw_noise(study: PhantomStudy, image: int, slices: range, shape: tuple[int, int]) -> np.ndarray:
    """Return white noise of a standard deviation of 1 for slices of a study, (Z, Y, X) float32; each image, by its number, has its
    own.
    """
    # Every slice has its own generator, so that neighbouring slabs agree where they overlap.
    generators = (make_generator(*study.key, image, at) for at in slices)
    return np.stack([generator.standard_normal(shape, np.float32) for generator in generators])


def _add_pet_noise(pet: np.ndarray, noise: np.ndarray, kernels: Sequence[np.ndarray], deviation: float) -> np.ndarray:
    """Return PET (SUV) with noise of a standard deviation (SUV) where the SUV is 1, whose variance grows with the uptake; both
    (Z, Y, X), blurred with `kernels`.
    """
    # The blur has lowered the variance of the noise: it is scaled back to one.
    scale = deviation / math.prod(float(np.linalg.norm(kernel)) for kernel in kernels)
    return pet + scale * noise * np.sqrt(pet + 0.01)


def _gaussian(sigma: float) -> np.ndarray:
    """Return a Gaussian (sigma in voxels), integrated over each voxel out to three sigma; it sums to 1."""
    reach = math.ceil(3 * sigma)
    edges = [math.erf((i - 0.5) / (sigma * math.sqrt(2))) for i in range(-reach, reach + 2)]
    kernel = np.diff(edges)
    return (kernel / kernel.sum()).astype(np.float32)


def _blur(image: np.ndarray, kernels: Sequence[np.ndarray]) -> np.ndarray:
    """Return an image convolved along every axis with its symmetric kernel; zero outside."""
    for axis, kernel in enumerate(kernels):
        image = np.moveaxis(image, axis, 0)
        reach = len(kernel) // 2
        result = kernel[reach] * image
        for shift in range(1, min(reach, len(image) - 1) + 1):
            result[shift:] += kernel[reach + shift] * image[:-shift]
            result[:-shift] += kernel[reach + shift] * image[shift:]
        image = np.moveaxis(result, 0, axis)
    return image


def _paint_label(lesions: Sequence[Lesion], grid: Grid) -> np.ndarray:
    """Return the mask of the lesions, (X, Y, Z) uint8."""
    label = np.zeros(grid.shape[::-1], np.uint8)
    to_voxel = np.linalg.inv(grid.affine)
    for lesion in lesions:
        centre = to_voxel[:3, :3] @ lesion.centre + to_voxel[:3, 3]
        reach = lesion.radii / grid.spacing
        lower, upper = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
        i, j, k = np.ogrid[tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(lower, upper, grid.shape, strict=True))]
        x, y, z = (((at - c) / r) ** 2 for at, c, r in zip((i, j, k), centre, reach, strict=True))
        inside = x + y + z <= 1
        label[k.min() : k.max() + 1, j.min() : j.max() + 1, i.min() : i.max() + 1] |= inside.T
        if not inside.any():
            label[tuple(np.rint(centre).astype(int)[::-1])] = 1
    return label.T
