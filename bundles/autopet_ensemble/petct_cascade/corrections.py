"""What a person puts in the place of stage 1's answer, as MONAI transforms that configs name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from petct_cascade.coarse_mask import read_coarse_mask
from petct_cascade.loading import STUDY_AFFINE, STUDY_SHAPE
from petct_cascade.resampling import mask_on_grid
from petct_cascade.volumes import Volume, as_source
from petct_training.errors import InputError


class AddCoarseMaskd(MapTransform):
    """Add a coarse mask to CT and PET as their third channel, which `petct_cascade.cascade.Cascade` takes in place of stage 1's.

    The mask, on any grid, is brought to the grid of the study's PET, and from there to that of the image: each voxel takes the
    nearest one. What lies outside of the body's box is left out. The mask is taken out of the item. An item without one stays as it
    is.

    Args:
        keys: keys of images (2, x, y, z), normalised, on the network's grid.
        study_key: key of what `petct_cascade.loading.CropToBodyd` has cropped, whose metadata say where the study's PET lies.
        mask_key: key of the mask: a file, a `petct_cascade.dicom.source.DicomSource`, or a `petct_cascade.volumes.Volume`.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        InputError: when the mask cannot be that of the study; the sentence begins with its name.
    """

    def __init__(
        self, keys: KeysCollection, study_key: str, mask_key: str = "coarse_mask", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.study_key, self.mask_key = study_key, mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        source = item.pop(self.mask_key, None)
        if source is None:
            return item
        shape, affine = (np.asarray(item[self.study_key].meta[name]) for name in (STUDY_SHAPE, STUDY_AFFINE))
        mask = _read(source, shape, affine)
        for key in self.key_iterator(item):
            item[key] = with_channel(item[key], mask, affine)
        return item


def with_channel(image: MetaTensor, voxels: np.ndarray, affine: np.ndarray) -> MetaTensor:
    """Return an image (C, x, y, z) with one more channel: whole numbers (X, Y, Z), uint8, on the grid of an affine (4, 4), of which
    each voxel of the image takes the nearest.
    """
    channel = mask_on_grid(voxels, affine, image.shape[1:], image.affine.cpu().numpy())
    together = torch.cat([image.as_tensor(), torch.from_numpy(channel)[None].to(image)])
    return MetaTensor(together, meta=image.meta, applied_operations=image.applied_operations)


def _read(source: Any, shape: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return a coarse mask on the grid of the PET, or raise a sentence that begins with its name."""
    source = source if isinstance(source, Volume) else as_source(source)
    name = source.file.name if isinstance(source, Volume) else source.name
    try:
        return read_coarse_mask(source, [int(length) for length in shape], affine)
    except InputError as error:
        raise InputError(f"{name} {error}") from error
