"""Feeding a training: reading the voxels of one patch from the disk, and nothing else of its study."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, RandAffined, Randomizable
from monai.transforms.utils import correct_crop_centers
from monai.utils import MAX_SEED, ensure_tuple_rep
from torch.nn.functional import grid_sample

from petct_training.components import labelled_components
from petct_training.errors import InputError, boolean
from petct_training.grids import affine_of_part, bounding_box, open_volume

# Channel of the PET in an image of CT and PET.
PET = 1

# Voxels that are drawn at once until one is found where a patch of the background shall lie, and how often, before any is taken.
DRAWS, ROUNDS = 1024, 100


@dataclass(frozen=True)
class Background:
    """Where patches of the background lie.

    Attributes:
        in_body: probability that the voxel in the middle lies in the body, that is, has an SUV above `body_suv`.
        by_uptake: probability that it is drawn by uptake: voxels with a probability that grows with their SUV, up to `most_suv`.
            It comes before `in_body`.
        body_suv: the SUV above which a voxel belongs to the body, as preparing crops it.
        most_suv: voxels above this SUV are as likely as those that have it, since networks see no difference.
        image_key: key of the file (X, Y, Z, 2) of CT and PET.
    """

    in_body: float = 0
    by_uptake: float = 0
    body_suv: float = 0.3
    most_suv: float = 10
    image_key: str = "image"

    @property
    def looks_at_pet(self) -> bool:
        """Whether any patch lies where the PET says."""
        return bool(self.in_body or self.by_uptake)

    def draw(self, state: np.random.RandomState) -> Literal["uptake", "body"] | None:
        """Draw by what a patch is placed; None for anywhere. Draws nothing where no option asks for it."""
        if self.by_uptake and state.rand() < self.by_uptake:
            return "uptake"
        return "body" if self.in_body and state.rand() < self.in_body else None

    def accepts(self, kind: Literal["uptake", "body"], suv: np.ndarray, state: np.random.RandomState) -> np.ndarray:
        """Say of voxels (N), drawn with one probability, which are taken so that the rest is drawn as it shall be."""
        if kind == "body":
            return suv > self.body_suv
        return state.rand(len(suv)) * self.most_suv < suv


class ReadPatchd(Randomizable, MapTransform):
    """Read a patch around a randomly drawn voxel, as loading, padding and `RandCropByPosNegLabeld` of the whole study would
    give it.

    The study is thought of as padded by `border` on each side, and then to `window_size` where it is smaller. A lesion voxel is
    drawn with the probability `lesion_fraction`, otherwise a voxel of the background; a study that has only one of the two
    gives that one. The window around the voxel is moved into the padded study. Read is what `CenterSpatialCropd` would leave of
    the window: `spatial_size`. With the same random state the window is the very one that MONAI's transforms draw.

    Uncompressed NIfTI files are mapped into memory, so that the disk gives up only the patch, and the label for the search for
    lesions; compressed ones, such as stage 1's masks, are decompressed whole. Nothing is kept from one call to the next.

    `background`, `inside` and `by_lesion` go beyond the paper. Without them, not a single random number is drawn otherwise.

    Args:
        keys: keys of files on one grid, (X, Y, Z) or (X, Y, Z, channels). They become float32 `MetaTensor` (channels, X', Y', Z').
        label_key: key of the label's file (X, Y, Z), non-zero in lesions.
        spatial_size: voxels along x, y, z of what is read.
        window_size: voxels along x, y, z of the window, at least `spatial_size`.
        border: voxels along x, y, z by which the study is padded on each side.
        lesion_fraction: probability of a window around a lesion voxel, from 0 to 1.
        outside: value of voxels outside of the study, one for all keys or one each.
        allow_missing_keys: whether an item may lack a key.
        background: where background voxels are drawn; None for anywhere in the padded study with the same probability.
        inside: whether the patch lies in the study as far as it is large enough: one around a voxel near the border is pushed back,
            and one of the background lies anywhere in it with the same probability, as nnU-Net draws it.
        by_lesion: whether each lesion, large or small, is drawn with the same probability, and then a voxel of it.

    Raises:
        InputError: when a file's grid has another size than the label's.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        spatial_size: Sequence[int],
        window_size: Sequence[int],
        border: Sequence[int],
        lesion_fraction: float = 0.5,
        outside: float | Sequence[float] = 0,
        allow_missing_keys: bool = False,
        background: Background | None = None,
        inside: bool | str = False,
        by_lesion: bool | str = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.spatial_size, self.window_size, self.border = tuple(spatial_size), tuple(window_size), tuple(border)
        self.lesion_fraction = lesion_fraction
        self.outside = ensure_tuple_rep(outside, len(self.keys))
        self.background = background or Background()
        # The command line gives "true" and "false" as texts.
        self.inside, self.by_lesion = boolean("patch_inside", inside), boolean("balance_lesions", by_lesion)

    def randomize(self, label: np.ndarray, image: np.ndarray | None = None) -> tuple[int, ...]:  # type: ignore[override]
        """Draw a window for a label (X, Y, Z). Returns its first voxel, counted in the study without padding.

        Args:
            label: non-zero in lesions.
            image: CT and PET (X, Y, Z, 2), needed where `background` looks at the PET.
        """
        padding, shape = self._padding(label.shape)
        lesion = _lesion_indices(label, padding, shape)
        background = int(np.prod(shape)) - len(lesion)
        around_lesion = self.R.rand() < (self.lesion_fraction if len(lesion) and background else float(len(lesion) > 0))
        voxel = self._lesion_voxel(label) if around_lesion else self._background_voxel(label, image)
        if voxel is None:
            number = self.R.randint(len(lesion) if around_lesion else background)
            index = lesion[number] if around_lesion else _nth_missing(lesion, number)
            voxel = [int(i) - p for i, p in zip(np.unravel_index(index, shape), padding, strict=True)]
        if self.inside:
            return self._pushed_inside(voxel, label.shape)
        in_padded = [v + p for v, p in zip(voxel, padding, strict=True)]
        centre = correct_crop_centers(in_padded, self.window_size, shape)
        return tuple(c - w // 2 - p for c, w, p in zip(centre, self.window_size, padding, strict=True))

    def _lesion_voxel(self, label: np.ndarray) -> list[int] | None:
        """Draw a lesion, and a voxel of it; None for a voxel of all lesions, which larger ones have more of."""
        if not self.by_lesion:
            return None
        x, y, z = cast(tuple[slice, slice, slice], bounding_box(label != 0))
        labels, number = labelled_components(label[x, y, z] != 0)
        voxels = np.argwhere(labels == self.R.randint(number) + 1)
        voxel = voxels[self.R.randint(len(voxels))] + [x.start, y.start, z.start]
        return [int(index) for index in voxel]

    def _background_voxel(self, label: np.ndarray, image: np.ndarray | None) -> list[int] | None:
        """Draw the voxel of the study around which a patch of the background lies; None for anywhere in the padded study."""
        kind = self.background.draw(self.R)
        if kind is None and not self.inside:
            return None
        low, high = np.zeros(3, int), np.array(label.shape)
        if kind is None:
            # The centres of the patches that lie within the study; where it is smaller than a patch, the only one.
            low = np.minimum(np.array(self.spatial_size) // 2, high // 2)
            high = np.maximum(high - np.array(self.spatial_size) + low, low) + 1
        for _ in range(ROUNDS):
            voxels = self.R.randint(low, high, size=(DRAWS, 3))
            places = tuple(voxels.T)
            accepted = label[places] == 0
            if kind is not None:
                suv = cast(np.ndarray, image)[..., PET][places]
                accepted &= self.background.accepts(kind, suv, self.R)
            if accepted.any():
                return voxels[accepted.argmax()].tolist()
        return None

    def _pushed_inside(self, voxel: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
        """Return the first voxel of the window whose patch lies around a voxel, as near to it as the study allows."""
        first = []
        for centre, patch, window, side in zip(voxel, self.spatial_size, self.window_size, grid, strict=True):
            start = min(max(centre - patch // 2, 0), side - patch) if patch <= side else side // 2 - patch // 2
            first.append(start - (window // 2 - patch // 2))
        return tuple(first)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        start = [whole // 2 - part // 2 for whole, part in zip(self.window_size, self.spatial_size, strict=True)]
        return self.read(data, self.draw(data), start, self.spatial_size)

    def draw(self, data: Mapping[Hashable, Any]) -> tuple[int, ...]:
        """Draw a window for an item. Returns its first voxel, counted in the study without padding.

        Raises:
            InputError: when the image's grid has another size than the label's.
        """
        label = np.asanyarray(open_volume(data[self.label_key]).dataobj)
        if not self.background.looks_at_pet:
            return self.randomize(label)
        image = np.asanyarray(open_volume(data[self.background.image_key]).dataobj)
        _check_grid(data[self.background.image_key], image.shape, label.shape)
        return self.randomize(label, image)

    def grid(self, data: Mapping[Hashable, Any]) -> tuple[int, ...]:
        """Number of voxels of an item's study along x, y, z."""
        return open_volume(data[self.label_key]).shape

    def read(
        self, data: Mapping[Hashable, Any], window: Sequence[int], start: Sequence[int], size: Sequence[int]
    ) -> dict[Hashable, Any]:
        """Read the part of a window that begins with its voxel `start` and has `size` voxels along x, y, z."""
        item = dict(data)
        grid = self.grid(item)
        first = [w + s for w, s in zip(window, start, strict=True)]
        for key, outside in self.key_iterator(item, self.outside):
            item[key] = read_box(item[key], first, size, outside, grid)
        return item

    def _padding(self, shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Voxels before the study's first along each axis of the padded study, and the size of the padded study."""
        bordered = [side + 2 * border for side, border in zip(shape, self.border, strict=True)]
        missing = [max(window - side, 0) for window, side in zip(self.window_size, bordered, strict=True)]
        padding = tuple(border + more // 2 for border, more in zip(self.border, missing, strict=True))
        return padding, tuple(side + more for side, more in zip(bordered, missing, strict=True))


class ReadAffinePatchd(Randomizable):
    """Read a patch under a random affine, as reading the window, `transforms` and `affine` one after another would give it.

    The affine is drawn before anything is read, and read is only the box of the study that it reaches. Voxels outside of the study
    must be 0 after `transforms`, as they are for the affine outside of the window. Interpolation is in float32, where MONAI's
    `RandAffined` takes float64.

    Args:
        reader: draws the window and reads; its `spatial_size` is that of the patch.
        transforms: what is done to each voxel for itself between reading and the affine, such as scaling its intensity.
        affine: says how the affine is drawn, its keys and how each is interpolated. It always strikes.

    Raises:
        ValueError: when `affine` does not pad with zeros: beyond the window nothing else is known.
    """

    def __init__(self, reader: ReadPatchd, transforms: Sequence[Callable], affine: RandAffined) -> None:
        if set(affine.padding_mode) != {"zeros"}:
            raise ValueError(f"affine.padding_mode is {affine.padding_mode}: give 'zeros'")
        self.reader, self.transforms, self.affine = reader, Compose(transforms), affine

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> ReadAffinePatchd:
        super().set_random_state(seed, state)
        for part in (self.reader, self.transforms, self.affine):
            part.set_random_state(seed=int(self.R.randint(MAX_SEED, dtype="uint32")))
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        window, matrix = self.reader.draw(data), self._draw_matrix()
        start, stop = self._reached(matrix, window, self.reader.grid(data))
        item = self.transforms(self.reader.read(data, window, start.tolist(), (stop - start).tolist()))
        # From voxels of the patch to voxels of what was read.
        matrix[:3, 3] -= start
        grid = sampling_grid(matrix, self.reader.spatial_size, (stop - start).tolist())
        for key, mode in self.affine.key_iterator(item, self.affine.mode):
            image = item[key]
            item[key] = MetaTensor(
                _sampled(image.as_tensor(), matrix, grid, mode),
                affine=image.affine @ torch.from_numpy(matrix),
                meta={"filename_or_obj": image.meta["filename_or_obj"]},
            )
        return item

    def _reached(self, matrix: np.ndarray, window: Sequence[int], grid: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the first voxel of the window that a patch reaches within the study, and the one after the last.

        Args:
            matrix: (4, 4), from voxels of the patch to voxels of the window.
            window: first voxel of the window in the study.
            grid: voxels of the study along x, y, z.
        """
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(self.reader.spatial_size) - 1)
        reached = corners @ matrix[:3, :3].T + matrix[:3, 3]
        # What the window has of the study; where the two have nothing in common, a voxel without anything in it.
        first = np.maximum(-np.array(window), 0)
        last = np.maximum(np.minimum(self.reader.window_size, np.array(grid) - window) - 1, first)
        # Interpolation takes a voxel and the next.
        start = np.clip(np.floor(reached.min(axis=0)), first, last).astype(int)
        stop = np.clip(np.floor(reached.max(axis=0)) + 1, first, last).astype(int) + 1
        return start, stop

    def _draw_matrix(self) -> np.ndarray:
        """Draw a matrix (4, 4) from voxels of the patch to voxels of the window, whose centres MONAI lays on each other."""
        grid = self.affine.rand_affine.rand_affine_grid
        grid(self.reader.spatial_size, lazy=True)
        matrix = cast(torch.Tensor, grid.get_transformation_matrix()).double().numpy().copy()
        from_centre, to_centre = np.eye(4), np.eye(4)
        from_centre[:3, 3] = -(np.array(self.reader.spatial_size) - 1) / 2
        to_centre[:3, 3] = (np.array(self.reader.window_size) - 1) / 2
        return to_centre @ matrix @ from_centre


def _sampled(source: torch.Tensor, matrix: np.ndarray, grid: torch.Tensor, mode: str) -> torch.Tensor:
    """Return the patch (C, X, Y, Z) of a volume (C, X', Y', Z') at the places of a sampling grid (1, X, Y, Z, 3)."""
    size = list(grid.shape[1:4])
    patch = torch.zeros(len(source), *size, device=source.device)
    # A mask's lesions are a small part of it.
    nearest = mode == "nearest"
    occupied = bounding_box((source != 0).any(dim=0).cpu().numpy()) if nearest else tuple(map(slice, [0] * 3, source.shape[1:]))
    box = None if occupied is None else destination(occupied, matrix, size)
    if box is not None:
        place = (slice(None), *box)
        patch[place] = grid_sample(source[None], grid[place].to(source.device), mode=mode, align_corners=False)[0]
    return patch


def sampling_grid(matrix: np.ndarray, size: Sequence[int], source: Sequence[int]) -> torch.Tensor:
    """Where `torch.nn.functional.grid_sample` (align_corners=False) shall look for the voxels of an affinely transformed volume.

    Each coordinate is a sum of one term an axis, which takes a fifth of the time of `affine_grid`'s matrix product.

    Args:
        matrix: (4, 4), from voxels of the result to voxels of the source.
        size: voxels of the result along x, y, z.
        source: voxels of the source along x, y, z.

    Returns:
        float32 (1, X, Y, Z, 3) from -1 to 1 within the source, in the order z, y, x that `grid_sample` wants.
    """
    grid = torch.empty(1, *size, 3)
    for axis, length in enumerate(source):
        x, y, z = (torch.arange(side, dtype=torch.float64) * (2 / length * matrix[axis, i]) for i, side in enumerate(size))
        offset = (2 * matrix[axis, 3] + 1) / length - 1
        plane = (x[:, None] + y + offset).float()
        torch.add(plane[:, :, None], z.float(), out=grid[0, ..., 2 - axis])
    return grid


def destination(box: Sequence[slice], matrix: np.ndarray, size: Sequence[int]) -> tuple[slice, ...] | None:
    """Where a box of a volume comes to lie when the volume is transformed affinely.

    Args:
        box: a slice of voxels along each of x, y, z of the source.
        matrix: (4, 4), from voxels of the result to voxels of the source.
        size: voxels of the result along x, y, z.

    Returns:
        A box of the result, outside of which nothing is interpolated from a voxel of the source's box; None where there is no
        such box.
    """
    inverse = np.linalg.inv(matrix)
    # Interpolation reaches less than a voxel beyond the outermost.
    corners = np.array([*itertools.product(*((part.start - 1, part.stop) for part in box))]) @ inverse[:3, :3].T + inverse[:3, 3]
    first = np.clip(np.floor(corners.min(axis=0)), 0, size).astype(int)
    stop = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, size).astype(int)
    return tuple(map(slice, first.tolist(), stop.tolist())) if (first < stop).all() else None


def read_box(
    file: str | os.PathLike, start: Sequence[int], size: Sequence[int], outside: float, grid: Sequence[int]
) -> MetaTensor:
    """Read a box of a NIfTI file that may reach beyond it.

    Args:
        file: a file (X, Y, Z) or (X, Y, Z, channels); when it is not compressed, only the box is read.
        start: the box's first voxel along x, y, z; may be negative.
        size: its number of voxels along x, y, z.
        outside: value of the voxels outside of the file.
        grid: the size (X, Y, Z) that the file must have.

    Returns:
        float32 (channels, *size), with the affine of the box and the file's name in `meta["filename_or_obj"]`.

    Raises:
        InputError: when the file has another size.
    """
    image = open_volume(file)
    _check_grid(file, image.shape, grid)
    voxels = np.asanyarray(image.dataobj).reshape(*image.shape[:3], -1, order="F")
    inside = [
        slice(max(first, 0), max(min(first + length, side), 0)) for first, length, side in zip(start, size, grid, strict=True)
    ]
    place = [slice(part.start - first, max(part.stop, part.start) - first) for part, first in zip(inside, start, strict=True)]
    box = np.full((voxels.shape[3], *size), outside, np.float32)
    filled = (slice(None), *place)
    box[filled] = np.moveaxis(voxels[tuple(inside)], 3, 0)
    affine = affine_of_part(image.affine, start)
    return MetaTensor(torch.from_numpy(box), affine=torch.from_numpy(affine), meta={"filename_or_obj": str(file)})


def _check_grid(file: str | os.PathLike, shape: Sequence[int], grid: Sequence[int]) -> None:
    """Refuse a file of another size than the label's."""
    if tuple(shape[:3]) != tuple(grid):
        raise InputError(
            f"{file} is of another preparation: its size is {shape[:3]}, and the label's {tuple(grid)}: make it again"
        )


def _lesion_indices(label: np.ndarray, padding: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Where a label (X, Y, Z) is not zero: sorted indices into the flattened (last axis fastest) padded study."""
    # In the order of the file, so that it is read once from front to back.
    flat = np.flatnonzero(label.ravel(order="K") != 0)
    order: Literal["F", "C"] = "F" if label.flags.f_contiguous else "C"
    voxels = np.unravel_index(flat, label.shape, order=order)
    return np.sort(np.ravel_multi_index([axis + before for axis, before in zip(voxels, padding, strict=True)], shape))


def _nth_missing(present: np.ndarray, number: int) -> int:
    """The whole number with index `number` among those from 0 on that a sorted array does not hold.

    Example:
        >>> _nth_missing(np.array([1, 2, 5]), 2)
        4
    """
    # Before present[i] lie present[i] - i missing numbers.
    return number + int(np.searchsorted(present - np.arange(len(present)), number, side="right"))
