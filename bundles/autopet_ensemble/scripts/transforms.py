"""Reading a PET/CT study and turning the members' probabilities into one, as MONAI transforms that configs name."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelWriter
from monai.transforms import LoadImage, MapTransform, Spacingd, SpatialResample
from monai.transforms.inverse import TraceableTransform
from monai.utils import TraceKeys

from scripts.errors import InputError
from scripts.files import atomic
from scripts.studies import PLACE_TOLERANCE_MM, corner_distance, problem_of_name, without_suffix

AIR_HU = -1024


class LoadImagePETCTd(MapTransform):
    """Read CT and PET of a study from any two grids onto the PET's grid.

    The value of each key is either `[ct, pet]`, two files, or one 4-D file (X, Y, Z, 2) that holds CT and PET in this order, as MONAI
    Label gives it. It becomes a channel-first float32 `MetaTensor` (2, X, Y, Z): CT in HU, PET in body-weight SUV, with the PET's affine.
    When the grids differ, the CT is interpolated linearly, and is -1024 HU (air) outside of its field.

    MONAI Label and MONAI Deploy recognise a loader by `LoadImage` in its name.

    Args:
        keys: keys of the items to read.
        case_key: key of the study's name. When it is there, the output is called after it, otherwise after the PET's file,
            without the challenge's `_0001`.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        InputError: when a file cannot be read, a volume is not 3-D, or a 4-D file does not have two channels.
    """

    def __init__(self, keys: KeysCollection, case_key: str = "case", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.case_key = case_key
        self.loader = LoadImage(reader="NibabelReader", image_only=True, dtype=np.float32)
        self.resample = SeparableResample(mode="bilinear", padding_mode="zeros", align_corners=False, dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.load(item[key], item.get(self.case_key))
        return item

    def load(self, source: str | os.PathLike | Sequence[str | os.PathLike], case: str | None = None) -> MetaTensor:
        """Read one study: `[ct, pet]` or a 4-D file. Returns (2, X, Y, Z)."""
        if case is not None and (problem := problem_of_name(case)):
            raise InputError(f"{_study(case)}{problem}")
        if isinstance(source, (str, os.PathLike)):
            image, pet_file = self._read(source, case, dimensions=4), Path(source)
            if image.shape[-1] != 2:
                raise InputError(
                    f"{_study(case)}{source} has {image.shape[-1]} channels: give a file with CT and PET as its two channels, or one file each"
                )
            image = MetaTensor(image.as_tensor().movedim(-1, 0).contiguous(), affine=image.affine)
        else:
            if len(source) != 2:
                raise InputError(
                    f"{_study(case)}{len(source)} files are given as its image: give two, first the CT and then the PET"
                )
            ct, pet = (self._read(file, case, dimensions=3)[None] for file in source)
            image, pet_file = MetaTensor(torch.cat([self._to_grid(ct, pet), pet.as_tensor()]), affine=pet.affine), Path(source[1])
        name = case if case is not None else without_suffix(pet_file.name).removesuffix("_0001")
        image.meta["filename_or_obj"] = str(pet_file.parent / f"{name}.nii.gz")
        image.meta["original_channel_dim"] = 0
        image.meta["spatial_shape"] = np.array(image.shape[1:])
        return image

    def _read(self, file: str | os.PathLike, case: str | None, dimensions: int) -> MetaTensor:
        """Read a volume with its trailing axes of length one taken away."""
        try:
            volume = self.loader(file)
        except Exception as error:
            raise InputError(
                f"{_study(case)}{file} cannot be read ({_first_line(error)}): check that it is a whole NIfTI file"
            ) from error
        while volume.ndim > dimensions and volume.shape[-1] == 1:
            volume = volume[..., 0]
        if volume.ndim != dimensions:
            raise InputError(f"{_study(case)}{file} has {volume.ndim} dimensions: {dimensions} are expected")
        return volume

    def _to_grid(self, ct: MetaTensor, pet: MetaTensor) -> torch.Tensor:
        """CT (1, X, Y, Z) in HU on the grid of the PET (1, X, Y, Z)."""
        if ct.shape == pet.shape and corner_distance(pet.shape[1:], ct.affine, pet.affine) <= PLACE_TOLERANCE_MM:
            return ct.as_tensor()
        # The padding of torch's sampler is zero: counted from air, zero is air.
        above_air = MetaTensor(ct.as_tensor() - AIR_HU, affine=ct.affine)
        return self.resample(above_air, dst_affine=pet.affine, spatial_size=pet.shape[1:]).as_tensor() + AIR_HU


class SeparableResample(SpatialResample):
    """`SpatialResample` for grids whose axes are parallel: one axis after another, with the same result in a fraction of the time.

    Linear interpolation on a grid is a product of interpolations along its axes. Between parallel grids each needs two voxels
    a voxel, where the general way, which this class takes for all other grids and modes, needs eight and their coordinates.
    """

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Sequence[int] | torch.Tensor | None = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        align_corners: bool | None = None,
        dtype: Any = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        """Resample (C, X, Y, Z) to a grid; arguments, result and what is kept for the inverse are those of `SpatialResample`."""
        mode, padding_mode = str(mode or self.mode), str(padding_mode or self.padding_mode)
        general = functools.partial(super().__call__, img, dst_affine, spatial_size, mode, padding_mode, align_corners, dtype)
        if not isinstance(img, MetaTensor) or img.ndim != 4 or dst_affine is None or spatial_size is None:
            return general(lazy=lazy)
        to_source = np.linalg.solve(img.affine.numpy(), np.asarray(dst_affine, dtype=np.float64))
        scale, start = np.diag(to_source)[:3], to_source[:3, 3]
        size = [int(length) for length in spatial_size]
        # A thousandth of a voxel at the far end is less than what the headers' rounding hides.
        parallel = np.abs((to_source[:3, :3] - np.diag(scale)) @ np.array(size)).max() < 1e-3
        known = mode in ("bilinear", "nearest") and padding_mode in ("border", "zeros")
        if lazy or align_corners or not parallel or not known or min(size) < 1:
            return general(lazy=lazy)
        tracked = TraceableTransform.track_transform_meta(
            img,
            sp_size=size,
            affine=torch.as_tensor(to_source),
            extra_info={
                "dtype": "float32",
                "mode": mode,
                "padding_mode": padding_mode,
                "align_corners": TraceKeys.NONE,
                "src_affine": img.affine,
            },
            orig_size=img.shape[1:],
            transform_info=self.get_transform_info(),
        )
        volume = img.as_tensor().float()
        # What shrinks goes first, so that the others have less to do.
        for axis in sorted(range(3), key=lambda axis: size[axis] / img.shape[axis + 1]):
            positions = torch.arange(size[axis], dtype=torch.float64) * scale[axis] + start[axis]
            volume = _interpolate(volume, axis + 1, positions, mode, padding_mode)
        return MetaTensor(volume).copy_meta_from(tracked)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Resample back to the grid from which a tensor came, as `SpatialResample` does."""
        transform = self.pop_transform(data)
        extra = transform[TraceKeys.EXTRA_INFO]
        with self.trace_transform(False):
            return self(data, extra["src_affine"], transform[TraceKeys.ORIG_SIZE], extra["mode"], extra["padding_mode"])


class SeparableSpacingd(Spacingd):
    """`Spacingd`, which never turns an image, by `SeparableResample`. The arguments are those of `Spacingd`."""

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float], mode: str | Sequence[str] = "bilinear") -> None:
        super().__init__(keys, pixdim, mode=mode, padding_mode="border", dtype=torch.float32)
        self.spacing_transform.sp_resample = SeparableResample(mode="bilinear", padding_mode="border", dtype=torch.float32)


class MeanOfMembersd(MapTransform):
    """Put the mean of the members' probabilities under one key.

    `EnsembleEvaluator` gives one prediction a member, MONAI Label one prediction of the whole cascade: when none of the members'
    keys is in the item, the prediction that is there is left as it is.

    Args:
        keys: keys of the members' probabilities, tensors of one shape.
        output_key: key of the mean.
        spread_key: key for the standard deviation over the members, their disagreement; None for none.
        keep_members: whether the members' own probabilities stay in the item.
    """

    def __init__(
        self, keys: KeysCollection, output_key: str = "pred", spread_key: str | None = None, keep_members: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.output_key, self.spread_key, self.keep_members = output_key, spread_key, keep_members

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        present = list(self.key_iterator(item))
        members = [item[key] if self.keep_members else item.pop(key) for key in present]
        if members:
            item[self.output_key] = mean(members)
            if self.spread_key is not None:
                item[self.spread_key] = standard_deviation(members)
        return item


class AtomicNibabelWriter(NibabelWriter):
    """Write a NIfTI file that appears complete or not at all; `SaveImaged` takes the class's name as its `writer`."""

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write what was set to `filename`."""
        with atomic(filename) as part:
            super().write(part, verbose=verbose, **obj_kwargs)


def _interpolate(volume: torch.Tensor, axis: int, positions: torch.Tensor, mode: str, padding_mode: str) -> torch.Tensor:
    """Interpolate along one axis at positions (n,), counted in voxels; outside lies zero, or the outermost voxel ("border")."""
    length = volume.shape[axis]
    if padding_mode == "border":
        positions = positions.clamp(0, length - 1)
    # Affines hold rounded numbers: what is a voxel's place but for rounding is that voxel.
    whole = positions.round()
    positions = torch.where((positions - whole).abs() < 1e-4, whole, positions)
    lower = whole if mode == "nearest" else positions.floor()
    fraction = torch.zeros_like(positions) if mode == "nearest" else positions - lower
    shape = [-1 if other == axis else 1 for other in range(volume.ndim)]

    def neighbour(index: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Voxels at an index along the axis, and their weights, zero where there is no voxel."""
        weight = torch.where((index >= 0) & (index < length), weight, 0.0)
        index = index.clamp(0, length - 1).long().to(volume.device)
        return volume[(slice(None),) * axis + (index,)], weight.to(volume).reshape(shape)

    result, weight = neighbour(lower, 1 - fraction)
    if (weight != 1).any():
        result *= weight
        result.addcmul_(*neighbour(lower + 1, fraction))
    return result


def mean(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of tensors of one shape, as a running sum, which needs no stack of them."""
    total = probabilities[0].clone()
    for probability in probabilities[1:]:
        total += probability
    return total / len(probabilities)


def standard_deviation(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Standard deviation (divided by their number) over tensors of one shape."""
    centre = mean(probabilities)
    return mean([(probability - centre) ** 2 for probability in probabilities]).sqrt()


def _study(case: str | None) -> str:
    return "" if case is None else f"study {case}: "


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error.__context__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
