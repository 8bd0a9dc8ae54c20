"""Those of the recipe's transforms that take MONAI's own classes longest: the same results in a fraction of the time.

`Quick` classes draw by the chances of the MONAI class of the same name, and take those of its arguments that the recipe gives.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.networks.layers import gaussian_1d
from monai.transforms import (
    Flip,
    MapTransform,
    RandAdjustContrast,
    RandAdjustContrastd,
    RandGaussianNoise,
    RandGaussianNoised,
    RandGaussianSmooth,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandSimulateLowResolution,
    RandSimulateLowResolutiond,
)
from monai.utils import MAX_SEED
from torch.nn.functional import grid_sample

from petct_training.patches import sampling_grid

# Planes along x that are worked on at once: some hundred kilobytes of a patch, which stay in a core's cache from one step to
# the next.
PLANES = 8


# Rows of a banded matrix that are multiplied at once: with more of them, more of what is multiplied is zero.
BLOCK = 16


class ScaleChannelsd(MapTransform):
    """Scale each channel of an image to a range of its own, in place, as `ScaleIntensityRange` does with one range for all.

    Args:
        keys: keys of float32 tensors (channels, X, Y, Z), which are changed.
        a_min: lower end of each channel's range; other values are scaled alike.
        a_max: upper end of each channel's range.
        b_min: what `a_min` becomes in each channel.
        b_max: what `a_max` becomes in each channel.
        clip: whether results below `b_min` and above `b_max` become these.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        a_min: Sequence[float],
        a_max: Sequence[float],
        b_min: Sequence[float],
        b_max: Sequence[float],
        clip: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ranges = list(zip(a_min, a_max, b_min, b_max, strict=True))
        self.clip = clip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key].as_tensor()
            for channel, (a_min, a_max, b_min, b_max) in zip(image, self.ranges, strict=True):
                for part in channel.split(PLANES):
                    if a_min != 0:
                        part -= a_min
                    if a_max - a_min != 1:
                        part /= a_max - a_min
                    if b_max - b_min != 1:
                        part *= b_max - b_min
                    if b_min != 0:
                        part += b_min
                    if self.clip:
                        part.clamp_(b_min, b_max)
        return item


class RandFlipAxesd(RandomizableTransform, MapTransform):
    """Flip along each axis with the same probability, as three `RandFlipd` after one another do, in one pass.

    Args:
        keys: keys of tensors (channels, X, Y, Z), which are flipped alike.
        prob: probability of a flip, for each axis.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.1, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        flip = Flip(np.flatnonzero(self.R.rand(3) < self.prob).tolist())
        for key in self.key_iterator(item) if flip.spatial_axis else ():
            item[key] = flip(item[key])
        return item


class RandMoveCTd(RandomizableTransform, MapTransform):
    """Shift and turn the CT against the PET, as breathing and a patient who moves between the two do, and nothing else.

    What comes in from outside of the patch is 0.

    Args:
        keys: keys of CT and PET, float32 tensors (2, X, Y, Z), whose first channel is moved.
        prob: probability that it is.
        shift: the most voxels along each axis by which it is shifted, to either side.
        rotation: the largest angle around each axis through the middle of the patch, in radians, to either side.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        shift: Sequence[float] = (2, 2, 0),
        rotation: Sequence[float] = (0.087, 0.087, 0.087),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.shift, self.rotation = np.array(shift, float), np.array(rotation, float)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return item
        shift, angles = self.R.uniform(-self.shift, self.shift), self.R.uniform(-self.rotation, self.rotation)
        for key in self.key_iterator(item):
            image = item[key].clone()
            matrix = rigid_motion(shift, angles, image.shape[1:])
            grid = sampling_grid(matrix, image.shape[1:], image.shape[1:])
            ct = image.as_tensor()[:1]
            ct[:] = grid_sample(ct[None], grid.to(ct.device), mode="bilinear", align_corners=False)[0]
            item[key] = image
        return item


def rigid_motion(shift: np.ndarray, angles: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return the matrix (4, 4) from voxels of a moved volume to voxels of the volume.

    Args:
        shift: voxels along x, y, z by which what is in the volume moves.
        angles: around x, y, z, in radians, one after another, through the middle of the volume. Voxels are taken as cubes.
        size: voxels along x, y, z.
    """
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        around = np.eye(3)
        around[[first, second], [first, second]] = np.cos(angle)
        around[first, second], around[second, first] = -np.sin(angle), np.sin(angle)
        turn = around @ turn
    matrix = np.eye(4)
    middle = (np.array(size) - 1) / 2
    # What comes to lie at a voxel was, before turning and shifting, where the inverse motion leads.
    matrix[:3, :3] = turn.T
    matrix[:3, 3] = middle - turn.T @ (middle + shift)
    return matrix


class QuickRandGaussianNoised(RandGaussianNoised):
    """`RandGaussianNoised` with noise from PyTorch, in float32 and on the image's device, where MONAI's is from NumPy in
    float64.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.1, std: float = 0.1) -> None:
        super().__init__(keys, prob, std=std)
        self.rand_gaussian_noise = _Noise(prob=1.0, std=std)


class _Noise(RandGaussianNoise):
    def randomize(self, img: torch.Tensor, mean: float | None = None) -> None:  # type: ignore[override]
        RandomizableTransform.randomize(self, None)
        std = self.R.uniform(0, self.std)
        generator = torch.Generator(img.device).manual_seed(int(self.R.randint(MAX_SEED, dtype="uint32")))
        self.noise: Any = torch.empty(img.shape, device=img.device).normal_(self.mean, std, generator=generator)


class QuickRandGaussianSmoothd(RandGaussianSmoothd):
    """`RandGaussianSmoothd` of volumes by products with banded matrices, where MONAI convolves."""

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        sigma_x: tuple[float, float] = (0.25, 1.5),
        sigma_y: tuple[float, float] = (0.25, 1.5),
        sigma_z: tuple[float, float] = (0.25, 1.5),
    ) -> None:
        super().__init__(keys, sigma_x, sigma_y, sigma_z, prob=prob)
        self.rand_smooth = _Smooth(sigma_x, sigma_y, sigma_z, prob=1.0)


class _Smooth(RandGaussianSmooth):
    def __call__(self, img: MetaTensor, randomize: bool = True) -> MetaTensor:  # type: ignore[override]
        if randomize:
            self.randomize()
        sigmas = (self.x, self.y, self.z)
        return _multiplied(img, img.as_tensor(), [smoothing(n, sigma) for n, sigma in zip(img.shape[1:], sigmas, strict=True)])


class QuickRandSimulateLowResolutiond(RandSimulateLowResolutiond):
    """`RandSimulateLowResolutiond` of volumes, which go back to their size axis by axis."""

    def __init__(self, keys: KeysCollection, prob: float = 0.1, zoom_range: Sequence[float] = (0.5, 1.0)) -> None:
        super().__init__(keys, prob, zoom_range=zoom_range)
        self.sim_lowres_tfm = _LowResolution(prob=1.0, zoom_range=zoom_range)


class _LowResolution(RandSimulateLowResolution):
    def __call__(self, img: MetaTensor, randomize: bool = True) -> MetaTensor:  # type: ignore[override]
        if randomize:
            self.randomize()
        size = [max(1, int(np.round(side * self.zoom_factor))) for side in img.shape[1:]]
        small = torch.nn.functional.interpolate(img.as_tensor()[None], size, mode="nearest")[0]
        return _multiplied(img, small, [upsampling(few, many) for few, many in zip(size, img.shape[1:], strict=True)])


class QuickRandAdjustContrastd(RandAdjustContrastd):
    """`RandAdjustContrastd` without a copy of the whole image for each step of the formula."""

    def __init__(
        self, keys: KeysCollection, prob: float = 0.1, gamma: tuple[float, float] = (0.5, 4.5), invert_image: bool = False
    ) -> None:
        super().__init__(keys, prob, gamma, invert_image)
        self.adjuster = _Contrast(1.0, gamma, invert_image)


class _Contrast(RandAdjustContrast):
    def __call__(self, img: MetaTensor, randomize: bool = True) -> MetaTensor:  # type: ignore[override]
        if randomize:
            self.randomize()
        image = img.as_tensor()
        low, high = torch.aminmax(image)
        # MONAI's guard against an image of one value.
        span, epsilon = high - low, 1e-7
        result = torch.empty_like(image)
        for channel, adjusted in zip(image, result, strict=True):
            for part, out in zip(channel.split(PLANES), adjusted.split(PLANES), strict=True):
                torch.sub(*((high, part) if self.invert_image else (part, low)), out=out)
                out.div_(float(span + epsilon)).pow_(self.gamma_value).mul_(span)
                if self.invert_image:
                    out.sub_(high).neg_()
                else:
                    out.add_(low)
        return MetaTensor(result).copy_meta_from(img)


def smoothing(length: int, sigma: float) -> torch.Tensor:
    """Return the matrix (length, length) that convolves with MONAI's Gaussian kernel of a standard deviation in voxels,
    among zeros.
    """
    taps = gaussian_1d(torch.tensor(sigma))
    radius = len(taps) // 2
    index = torch.arange(length)
    distance = (index[:, None] - index).abs()
    return torch.where(distance <= radius, taps[radius:][distance.clamp(max=radius)], 0)


def upsampling(few: int, many: int) -> torch.Tensor:
    """Return the matrix (many, few) of linear interpolation as `torch.nn.functional.interpolate` does it, with
    align_corners=False.
    """
    position = ((torch.arange(many) + 0.5) * (few / many) - 0.5).clamp(min=0)
    # A voxel counts the more the nearer it is; beyond the last, that one alone does.
    return (1 - (position.clamp(max=few - 1)[:, None] - torch.arange(few)).abs()).clamp(min=0)


def _multiplied(img: MetaTensor, volume: torch.Tensor, matrices: Sequence[torch.Tensor]) -> MetaTensor:
    """Multiply a volume (C, X, Y, Z) along x, y, z by a banded matrix each; the result has the metadata of `img`."""
    # The last axis takes longest: it goes first, while a volume of low resolution is still small.
    for axis in (3, 2, 1):
        volume = multiply(volume, axis, matrices[axis - 1].to(volume))
    return MetaTensor(volume).copy_meta_from(img)


def multiply(volume: torch.Tensor, axis: int, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply (C, X, Y, Z) along an axis by a banded matrix (rows, columns) that has no empty row. That axis then has
    `rows` voxels.
    """
    shape = list(volume.shape)
    shape[axis] = len(matrix)
    # Two axes for the product: what lies behind the axis is as one.
    last = axis == volume.ndim - 1
    columns = volume if last else volume.flatten(axis + 1)
    result = columns.new_empty([*shape[: axis + 1], *([] if last else columns.shape[axis + 1 :])])
    for start in range(0, len(matrix), BLOCK):
        rows = matrix[start : start + BLOCK]
        (reached,) = rows.any(dim=0).nonzero(as_tuple=True)
        reach = slice(int(reached[0]), int(reached[-1]) + 1)
        if last:
            result[..., start : start + BLOCK] = columns[..., reach] @ rows[:, reach].T
        else:
            result[..., start : start + BLOCK, :] = rows[:, reach] @ columns[..., reach, :]
    return result.view(shape)
