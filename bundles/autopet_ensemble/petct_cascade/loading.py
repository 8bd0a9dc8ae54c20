"""Loading a PET/CT study onto one grid, and putting results back, as MONAI transforms."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from petct_cascade.resampling import FLOAT32, SeparableResample, is_same_grid
from petct_cascade.studies import problem_of_name
from petct_cascade.volumes import Volume, as_source, read_mask, read_volume, without_suffix
from petct_training.errors import InputError
from petct_training.grids import affine_of_part, bounding_box

AIR_HU = -1024

# Channel of the PET in an image of CT and PET.
PET = 1

# Keys of an image's metadata: where the body's box begins in its study, in voxels, and the study's shape and affine.
BODY_START, STUDY_SHAPE, STUDY_AFFINE = "body_start", "study_shape", "study_affine"


class LoadImagePETCTd(MapTransform):
    """Read CT and PET of a study from any two grids onto the PET's grid.

    The value of each key is either `[ct, pet]`, two files or volumes (`petct_cascade.volumes.Volume`), or one 4-D file (X, Y, Z, 2)
    that holds CT and PET in this order, as MONAI Label gives it. It becomes a channel-first float32 `MetaTensor` (2, X, Y, Z):
    CT in HU, PET in body-weight SUV, with the PET's affine. When the grids differ, the CT is interpolated linearly, and is
    -1024 HU (air) outside of its field.

    MONAI Label and MONAI Deploy recognise a loader by `LoadImage` in its name. MONAI Deploy takes it away and gives the volumes
    itself, so that nothing else may be done here: `CropToBodyd` crops.

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
        self.resample = SeparableResample(mode="bilinear", padding_mode="zeros", align_corners=False, dtype=FLOAT32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.load(item[key], item.get(self.case_key))
        return item

    def load(self, source: str | os.PathLike | Sequence[str | os.PathLike | Volume], case: str | None = None) -> MetaTensor:
        """Return a study (2, X, Y, Z) of `[ct, pet]` or of a 4-D file."""
        if case is not None and (problem := problem_of_name(case)):
            raise InputError(f"{_named(case)}{problem}")
        if isinstance(source, (str, os.PathLike)):
            both = _volume_of(source, case, channels=2)
            ct, pet = (replace(both, array=both.array[..., channel]) for channel in (0, 1))
        else:
            if len(source) != 2:
                raise InputError(
                    f"{_named(case)}{len(source)} files are given as its image: give two, first the CT and then the PET"
                )
            ct, pet = (_volume_of(file, case) for file in source)
        return self.join(ct, pet, case)

    def join(self, ct: Volume, pet: Volume, case: str | None = None) -> MetaTensor:
        """Return CT and PET of a study, as they were read, on one grid (2, X, Y, Z).

        The voxels lie in memory in the order of the PET's array, so that copying a whole study takes no time.
        """
        reverse = pet.array.flags.f_contiguous
        shape = pet.array.shape[::-1] if reverse else pet.array.shape
        image = torch.empty((2, *shape), dtype=torch.float32)
        image = image.permute(0, 3, 2, 1) if reverse else image
        channels = image.numpy()
        channels[0] = self._on_grid(ct, pet)
        channels[PET] = pet.array
        name = case if case is not None else without_suffix(pet.file.name).removesuffix("_0001")
        meta = {
            "filename_or_obj": str(pet.file.parent / f"{name}.nii.gz"),
            "original_channel_dim": 0,
            "original_affine": np.array(pet.affine),
            "spatial_shape": np.array(pet.array.shape),
        }
        return MetaTensor(image, affine=torch.as_tensor(pet.affine), meta=meta)

    def _on_grid(self, ct: Volume, pet: Volume) -> np.ndarray:
        """Return the CT (X, Y, Z) in HU on the PET's grid."""
        if is_same_grid(ct.array.shape, ct.affine, pet.array.shape, pet.affine):
            return ct.array
        # Outside of the CT's field the interpolation takes zero: counted from air, zero is air.
        above_air = MetaTensor(_as_tensor(ct.array)[None].sub_(AIR_HU), affine=torch.as_tensor(ct.affine))
        resampled = self.resample(above_air, dst_affine=torch.as_tensor(pet.affine), spatial_size=list(pet.array.shape))
        return cast(MetaTensor, resampled).as_tensor()[0].add_(AIR_HU).numpy()


class CropToBodyd(MapTransform):
    """Crop CT and PET to the box around the body, five sixths smaller than a study; `PadToStudyd` puts results back.

    It is a transform of its own, not a part of the loader, since hosts bring loaders of their own. It moves the channel's axis,
    where the metadata names it as `original_channel_dim`, to the front. The `spatial_shape` in the metadata stays the
    study's: MONAI Label resizes each mask to it in the end.

    Args:
        keys: keys of images with the channels CT in HU and PET in body-weight SUV: (2, X, Y, Z), or as the metadata says.
        body_suv: SUV above which a voxel belongs to the body; a PET without such a voxel is kept whole.
        body_margin: voxels that are kept around the body.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        InputError: when an image does not have two channels.
    """

    def __init__(self, keys: KeysCollection, body_suv: float, body_margin: int = 0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.body_suv, self.body_margin = body_suv, body_margin

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.crop(item[key])
        return item

    def crop(self, image: MetaTensor) -> MetaTensor:
        """Return the box around the body (2, x, y, z) of an image, with its place in the study in the metadata."""
        voxels, shape = channel_first(image)
        box = self._box(voxels[PET])
        x, y, z = box
        start = [part.start for part in box]
        study_affine = image.affine.cpu().numpy()
        meta = dict(image.meta) | {
            "original_channel_dim": 0,
            "spatial_shape": np.array(shape),
            "affine": torch.as_tensor(affine_of_part(study_affine, start)),
            BODY_START: np.array(start),
            STUDY_SHAPE: np.array(shape),
            STUDY_AFFINE: study_affine,
        }
        # A copy, not a view, so that the study's memory is given back.
        part = voxels[:, x, y, z].clone(memory_format=torch.contiguous_format)
        return MetaTensor(part, meta=meta, applied_operations=image.applied_operations)

    def _box(self, pet: torch.Tensor) -> tuple[slice, slice, slice]:
        """Return the box of the body in a PET (X, Y, Z) with the margin around it; all of it where nothing is above `body_suv`."""
        body = bounding_box((pet > self.body_suv).cpu().numpy())
        x, y, z = (
            slice(0, length)
            if body is None
            else slice(max(0, body[axis].start - self.body_margin), min(body[axis].stop + self.body_margin, length))
            for axis, length in enumerate(pet.shape)
        )
        return x, y, z


class PadToStudyd(MapTransform):
    """Put what lies in the body's box, to which `CropToBodyd` has cropped, back into the whole study, among zeros.

    What was not cropped there stays as it is.

    Args:
        keys: keys of tensors (C, X, Y, Z) on the cropped PET's grid.
        allow_missing_keys: whether an item may lack a key.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.pad(item[key])
        return item

    def pad(self, part: MetaTensor) -> MetaTensor:
        """Return (C, X, Y, Z) of the whole study, in the type of the part."""
        if BODY_START not in part.meta:
            return part
        meta = dict(part.meta)
        start, shape, affine = (np.asarray(meta.pop(name)) for name in (BODY_START, STUDY_SHAPE, STUDY_AFFINE))
        study = torch.zeros((part.shape[0], *(int(length) for length in shape)), dtype=part.dtype, device=part.device)
        x, y, z = (slice(int(low), int(low) + length) for low, length in zip(start, part.shape[1:], strict=True))
        study[:, x, y, z] = part.as_tensor()
        return MetaTensor(study, meta=meta | {"spatial_shape": shape, "affine": torch.as_tensor(affine)})


class LoadMaskd(MapTransform):
    """Read a binary mask as a channel-first `MetaTensor` (1, X, Y, Z), in the file's type and with its affine.

    Args:
        keys: keys of the items under which the files are named.

    Raises:
        InputError: when a file cannot be read, or is no mask of 0 and 1.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            mask = read_mask(item[key])
            item[key] = MetaTensor(torch.from_numpy(mask.array)[None], affine=torch.from_numpy(mask.affine))
        return item


def _volume_of(file: str | os.PathLike | Volume, case: str | None, channels: int = 1) -> Volume:
    """Return the volume in a file, in the type in which the file stores it; a volume is returned as it is."""
    if isinstance(file, Volume):
        return file
    try:
        return read_volume(as_source(file), channels)[0]
    except InputError as error:
        raise InputError(f"{_named(case)}{file} {error}") from error


def channel_first(image: MetaTensor) -> tuple[torch.Tensor, list[int]]:
    """Return the voxels (2, X, Y, Z) of an image of CT and PET, a view of them, and the shape [X, Y, Z].

    Raises:
        InputError: when it is not one volume of two channels.
    """
    axis = image.meta.get("original_channel_dim", 0)
    known = isinstance(axis, (int, np.integer)) and image.ndim == 4
    voxels = image.as_tensor().movedim(int(axis), 0) if known else image.as_tensor()[None]
    if voxels.ndim != 4 or len(voxels) != 2:
        raise InputError(
            f"the image has the shape {tuple(image.shape)} and its channels' axis is {axis}: give two channels, "
            "the CT in HU and the PET in SUV, on one grid"
        )
    return voxels, [int(length) for length in voxels.shape[1:]]


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return float32 voxels (X, Y, Z), a copy in the order in which tensors hold them, of an array of any type and order."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _named(case: str | None) -> str:
    """Return the beginning of a sentence about a study."""
    return "" if case is None else f"study {case}: "
