"""The PET of a study as maximum-intensity projections from all around the patient, in one animated picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from petct_cascade.judging import BODY_SUV
from petct_cascade.pictures import COLOURS, Scene
from petct_cascade.report.reducing import reduced, reduced_affine
from petct_training.files import atomic
from petct_training.grids import spacing_of

ANGLES = 36  # an even number: what is seen from one side is the mirror image of what is seen from the other
LOOP_MS = 3600  # one turn
HEIGHT = 480  # pixels
MAX_WIDTH = 480  # pixels
COARSEST_MM = 3.0  # voxels are joined as long as they stay below it
LESION_OPACITY = 0.55
QUALITY = 80  # of WebP


def write_rotation(path: str | os.PathLike, scene: Scene, suv_range: Sequence[float]) -> Path:
    """Write an animated WebP file of maximum-intensity projections of the PET, on an inverted grey scale, lesions in colour.

    The patient stands upright. The first picture is seen from the front, with the patient's right on the left; then the patient is
    seen from the left side, from behind, and from the right side. Equal input gives equal bytes.

    Args:
        path: the file; it appears complete or not at all.
        scene: cropped, with axes that run to the patient's right, front and head.
        suv_range: SUV shown white and SUV shown black.

    Returns:
        `path`.
    """
    frames = [Image.fromarray(frame) for frame in _pictures(scene, suv_range)]
    with atomic(path) as part:
        frames[0].save(
            part, format="WEBP", save_all=True, append_images=frames[1:], duration=LOOP_MS // len(frames), loop=0, quality=QUALITY,
            method=0,
        )  # fmt: skip
    return Path(path)


def _pictures(scene: Scene, suv_range: Sequence[float]) -> Iterator[np.ndarray]:
    """Yield one picture (rows, columns, RGB) an angle, all of one size."""
    factors = [max(1, int(COARSEST_MM / size)) for size in spacing_of(scene.affine)]
    low, high = suv_range
    suv = reduced(scene.pet, factors, "max")
    grey = np.rint((np.clip(suv, low, high) - low) * (255 / (high - low))).astype(np.uint8)
    masks = {role: reduced(mask != 0, factors, "max") for role, mask in scene.masks.items()}
    spacing = spacing_of(reduced_affine(scene.affine, factors))
    occupied = np.any(suv > BODY_SUV, axis=2)
    for mask in masks.values():
        occupied |= np.any(mask, axis=2)
    pixel = float(spacing[:2].max())
    half_width = _reach(occupied, spacing, pixel)
    size = _size((2 * half_width + 1) * pixel, len(grey[0, 0]) * spacing[2])
    seen = {"pet": projections(grey, spacing, pixel, half_width, ANGLES // 2)}
    seen |= {role: mask_projections(mask, spacing, pixel, half_width, ANGLES // 2) for role, mask in masks.items()}
    for angle in range(ANGLES):
        index, mirrored = angle % (ANGLES // 2), angle >= ANGLES // 2
        panels = {name: panel[index, ::-1] if mirrored else panel[index] for name, panel in seen.items()}
        pet = panels.pop("pet")
        # Rows run from the head to the feet.
        picture = Image.fromarray(_coloured(pet[:, ::-1].T, {role: mask[:, ::-1].T for role, mask in panels.items()}))
        yield np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def projections(values: np.ndarray, spacing: np.ndarray, pixel: float, half_width: int, count: int) -> np.ndarray:
    """Return maximum-intensity projections of a volume, seen from directions over half a turn.

    Args:
        values: (X, Y, Z), along axes that run to the patient's right, front and head.
        spacing: voxel size along the axes, in mm.
        pixel: distance of the rays, in mm.
        half_width: number of rays on either side of the middle one.
        count: of directions. The first is from the front; a quarter of a turn later the patient is seen from the left side.

    Returns:
        (count, 2 half_width + 1, Z), in the type of `values`; the second axis runs from the left to the right of the picture. Each
        ray takes the nearest voxel at steps of `pixel`.
    """
    nx, ny, nz = values.shape
    columns = np.ascontiguousarray(values).reshape(nx * ny, nz)
    seen = np.zeros((count, 2 * half_width + 1, nz), values.dtype)
    steps = np.arange(-half_width, half_width + 1)
    in_voxels = pixel / spacing
    for index in range(count):
        # To the right of the picture, seen from the front, lies the patient's left; behind it, the patient's back.
        cosine, sine = _direction(index, count)
        across, along = steps[:, None], steps[None, :]
        x = np.floor((-across * cosine + along * sine) * in_voxels[0] + nx / 2).astype(int)
        y = np.floor((-across * sine - along * cosine) * in_voxels[1] + ny / 2).astype(int)
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        places = x * ny + y
        for ray in np.flatnonzero(inside.any(axis=1)):
            seen[index, ray] = columns[places[ray, inside[ray]]].max(axis=0)
    return seen


def mask_projections(mask: np.ndarray, spacing: np.ndarray, pixel: float, half_width: int, count: int) -> np.ndarray:
    """Return where the projections of `projections` see a mask (X, Y, Z), as (count, 2 half_width + 1, Z) bool.

    Each voxel of the mask is put where its centre is seen, so that none is missed between two rays.
    """
    nx, ny, nz = mask.shape
    seen = np.zeros((count, 2 * half_width + 1, nz), bool)
    voxels = np.nonzero(mask)
    x = (voxels[0] - (nx - 1) / 2) * (spacing[0] / pixel)
    y = (voxels[1] - (ny - 1) / 2) * (spacing[1] / pixel)
    for index in range(count):
        cosine, sine = _direction(index, count)
        ray = np.floor(-x * cosine - y * sine + 0.5).astype(int) + half_width
        seen[index, np.clip(ray, 0, 2 * half_width), voxels[2]] = True
    return seen


def _direction(index: int, count: int) -> tuple[float, float]:
    """Return cosine and sine of the angle of one of `count` directions over half a turn, exact at right angles."""
    angle = np.pi * index / count
    return float(np.round(np.cos(angle), 12)), float(np.round(np.sin(angle), 12))


def _reach(occupied: np.ndarray, spacing: np.ndarray, pixel: float) -> int:
    """Return how many pixels what is occupied (X, Y) reaches from the middle of the array; at least one."""
    x, y = np.nonzero(occupied)
    if not x.size:
        x, y = np.nonzero(np.ones_like(occupied))
    nx, ny = occupied.shape
    distance = np.hypot((x - (nx - 1) / 2) * spacing[0], (y - (ny - 1) / 2) * spacing[1])
    return int(np.ceil(distance.max() / pixel)) + 1


def _size(width: float, height: float) -> tuple[int, int]:
    """Return width and height in pixels of a picture with these in mm; its pixels are square."""
    scale = min(HEIGHT / height, MAX_WIDTH / width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _coloured(grey: np.ndarray, masks: dict[str, np.ndarray]) -> np.ndarray:
    """Return a picture (rows, columns, RGB) of grey levels (rows, columns), 255 shown black, with masks in their colours."""
    picture = np.repeat((255 - grey)[:, :, None], 3, axis=2)
    parts = list(masks.items())
    if len(masks) == 2:
        parts.append(("agreement", masks["reference"] & masks["prediction"]))
    untinted = picture.astype(np.float32) * (1 - LESION_OPACITY)
    for role, mask in parts:
        colour = np.array(to_rgb(COLOURS[role]), np.float32) * 255 * LESION_OPACITY
        picture[mask] = np.rint(untinted[mask] + colour).astype(np.uint8)
    return picture
