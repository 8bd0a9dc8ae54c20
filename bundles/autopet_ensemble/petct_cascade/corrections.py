"""What a person puts in the place of stage 1's answer, and says of it by clicks, as MONAI transforms that configs name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import apply_affine

from petct_cascade.clicks import Clicks, clicks_of, read_points
from petct_cascade.coarse_mask import read_named_coarse_mask
from petct_cascade.loading import PET, STUDY_AFFINE, STUDY_SHAPE, channel_first
from petct_cascade.resampling import mask_on_grid
from petct_training.clicks import BACKGROUND, FOREGROUND, REACHED, Reach, corrected, corrected_locally, map_of, marks_of
from petct_training.errors import InputError
from petct_training.grids import spacing_of

# Value of the third channel where stage 1 is to find the coarse mask.
NOT_GIVEN = -1

# Voxels by which places differ for the rounding of affines alone.
ROUNDING = 1e-6


class EncodePointsd(MapTransform):
    """Replace the points of a study by what they say of its voxels, as `petct_training.clicks.marks_of` returns it.

    It comes before `petct_cascade.loading.CropToBodyd`, since it needs the whole PET. An item without points stays as it is.

    Args:
        keys: keys of points: a JSON file, its content, or `petct_cascade.clicks.Clicks`.
        image_key: key of CT in HU and PET in SUV (2, X, Y, Z), or as the metadata says.
        click_reach_mm: see `petct_training.clicks.Reach`.
        click_share: the same.

    Raises:
        InputError: when points are no such list, or do not lie in the PET; the sentence begins with the file's name.
    """

    def __init__(self, keys: KeysCollection, image_key: str, click_reach_mm: float, click_share: float) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key
        self.reach = Reach(click_reach_mm, click_share)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[self.image_key]
            voxels, _ = channel_first(image)
            item[key] = torch.from_numpy(self.encode(item[key], voxels[PET].numpy(), image.affine.cpu().numpy()))
        return item

    def encode(self, points: Any, pet: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Return the marks (k, 4) of points in a PET (X, Y, Z) in SUV with an affine (4, 4)."""
        clicks = _clicks(asdict(points) if isinstance(points, Clicks) else points, pet.shape, affine)
        foreground, background = (
            np.asarray(voxels, dtype=np.int64).reshape(-1, 3) for voxels in (clicks.foreground, clicks.background)
        )
        return marks_of(foreground, background, pet, spacing_of(affine), self.reach)


class AddCorrectionsd(MapTransform):
    """Add to CT and PET what `petct_cascade.cascade.Cascade` takes in place of stage 1's mask: a coarse mask as the third channel,
    and marks of clicks as the fourth.

    The mask, on any grid, is brought to the grid of the study's PET. From there mask and marks come to that of the image: each
    voxel takes the nearest one, and a click marks the voxel in which it lies. What lies outside of the body's box is left out.
    Where there are marks and no mask, the third channel is `NOT_GIVEN`. The mask is taken out of the item, and so are marks that
    mark nothing, unless the mask is kept. An item without both stays as it is.

    Args:
        keys: keys of images (2, x, y, z), normalised, on the network's grid.
        study_key: key of what `petct_cascade.loading.CropToBodyd` has cropped, whose metadata say where the study's PET lies.
        mask_key: key of the mask: a file, a `petct_cascade.dicom.source.DicomSource`, or a `petct_cascade.volumes.Volume`.
        points_key: key of the marks, as `EncodePointsd` leaves them.
        before_key: key under which the mask (1, X, Y, Z), uint8, on the PET's grid is kept for `BindPointsd` where marks are given
            as well, even if they mark nothing; None to keep none.

    Raises:
        InputError: when the mask cannot be that of the study; the sentence begins with its name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        study_key: str,
        mask_key: str = "coarse_mask",
        points_key: str = "points",
        before_key: str | None = None,
    ) -> None:
        super().__init__(keys)
        self.study_key, self.mask_key, self.points_key, self.before_key = study_key, mask_key, points_key, before_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        source, marks = item.pop(self.mask_key, None), item.get(self.points_key)
        keeps = self.before_key is not None and source is not None and marks is not None
        if marks is not None and not len(marks):
            marks = None
            if not keeps:
                del item[self.points_key]
        if source is None and marks is None:
            return item
        shape, affine = (np.asarray(item[self.study_key].meta[name]) for name in (STUDY_SHAPE, STUDY_AFFINE))
        mask = None if source is None else self._read(source, shape, affine)
        if keeps and mask is not None:
            item[self.before_key] = torch.from_numpy(mask[None].astype(np.uint8))
        for key in self.key_iterator(item):
            image = item[key]
            grid = image.shape[1:], image.affine.cpu().numpy()
            channels = [np.full(grid[0], NOT_GIVEN) if mask is None else mask_on_grid(mask, affine, *grid)]
            if marks is not None:
                channels.append(marks_on_grid(marks.numpy(), shape, affine, *grid))
            together = torch.cat([image.as_tensor(), torch.from_numpy(np.stack(channels)).to(image.as_tensor())])
            item[key] = MetaTensor(together, meta=image.meta, applied_operations=image.applied_operations)
        return item

    def _read(self, source: Any, shape: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Return a mask on the PET's grid. What is to be said of one that nobody has read before becomes Python warnings."""
        mask, sentences = read_named_coarse_mask(source, shape, affine)
        for sentence in sentences:
            warnings.warn(sentence, stacklevel=2)
        return mask


class BindPointsd(MapTransform):
    """Make masks agree with clicks, as `petct_training.clicks.corrected` does. Masks of items without marks stay as they are.

    Args:
        keys: keys of masks (1, X, Y, Z) on the grid of the study's PET.
        points_key: key of the marks, as `EncodePointsd` leaves them.
        before_key: key of the mask that the clicks were put into, as `AddCorrectionsd` keeps it. Where it is there, what the clicks
            do not touch stays as it was in it, and without a click all of it; see `petct_training.clicks.corrected_locally`.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        points_key: str = "points",
        before_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.points_key, self.before_key = points_key, before_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        marks = item.get(self.points_key)
        if marks is None:
            return item
        before = None if self.before_key is None else item.pop(self.before_key, None)
        for key in self.key_iterator(item):
            mask = item[key]
            answer, spacing = mask.as_tensor()[0].cpu().numpy(), spacing_of(mask.affine.cpu().numpy())
            rows = np.asarray(marks.cpu())
            if before is None:
                bound = corrected(answer, rows, spacing)
            else:
                bound = corrected_locally(answer, np.asarray(before.cpu())[0], rows, spacing)
            item[key] = MetaTensor(torch.from_numpy(bound)[None].to(mask.as_tensor()), meta=mask.meta)
        return item


def marks_on_grid(
    marks: np.ndarray, shape: np.ndarray, affine: np.ndarray, other_shape: tuple[int, ...], other: np.ndarray
) -> np.ndarray:
    """Return marks as a map (x, y, z), uint8, on another grid.

    What clicks on lesions reach comes there by the nearest voxel. A click marks the one voxel in which it lies, so that none is
    lost on a coarser grid; where two lie in one voxel, that on a lesion counts.

    Args:
        marks: rows (k, 4), as `petct_training.clicks.marks_of` returns them.
        shape: of the PET (X, Y, Z).
        affine: (4, 4) of the PET.
        other_shape: of the other grid.
        other: affine (4, 4) of the other grid.
    """
    reached = marks[marks[:, 0] != BACKGROUND]
    reached[:, 0] = REACHED
    volume = mask_on_grid(map_of(reached, [int(length) for length in shape]), affine, other_shape, other).copy()
    to_other = np.linalg.inv(other) @ affine
    centres, last = apply_affine(to_other, marks[:, 1:]), np.array(other_shape) - 1
    # The outermost voxels of two grids may end at different places: a voxel of the PET that reaches into the grid counts.
    reach = 0.5 + np.abs(to_other[:3, :3]).sum(axis=1) / 2 - ROUNDING
    inside = ((centres > -reach) & (centres < last + reach)).all(axis=1)
    places = np.clip(np.floor(centres + 0.5).astype(int), 0, last)
    for mark in (BACKGROUND, FOREGROUND):
        volume[tuple(places[inside & (marks[:, 0] == mark)].T)] = mark
    return volume


def _clicks(points: Any, shape: tuple[int, ...], affine: np.ndarray) -> Clicks:
    """Return the voxels of a file of points or of its content, or raise a sentence that begins with its name."""
    in_file = isinstance(points, (str, os.PathLike))
    try:
        return read_points(Path(points), shape, affine) if in_file else clicks_of(points, shape, affine)
    except InputError as error:
        raise InputError(f"{Path(points).name if in_file else 'the list of points'} {error}") from error
