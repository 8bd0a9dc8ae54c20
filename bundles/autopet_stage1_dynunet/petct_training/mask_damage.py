"""Damaging coarse masks in training, so that stage 2 does not trust what it will see too much: faults of networks and readers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch.nn.functional import max_pool3d

from petct_training.components import labelled_components


@dataclass(frozen=True)
class MaskDamage:
    """How a coarse mask is damaged. With every probability 0, it never is.

    A mask becomes empty, as of a stage 1 that finds nothing, or the reference, as of a reader who has corrected it; otherwise each
    of its components may be changed, and uptake be added.

    Attributes:
        empty: probability that nothing is left of the mask.
        reference: probability, where it is not emptied, that it becomes the reference.
        drop: probability of each component to be dropped, as a lesion that was missed.
        click: probability of each component that is not dropped to shrink to a ball around one of its voxels, as a reader's click.
        border: probability of each other component that its border is moved, outwards or inwards.
        add: probability that regions of uptake which are no lesion are added, such as parts of brain, bladder or bowel.
        border_voxels: the least and the largest number of voxels by which a border is moved, and of a ball's radius.
        add_components: the least and the largest number of regions that are added.
        add_suv: the SUV above which uptake may be added.
    """

    empty: float = 0
    reference: float = 0
    drop: float = 0
    click: float = 0
    border: float = 0
    add: float = 0
    border_voxels: Sequence[int] = (1, 3)
    add_components: Sequence[int] = (1, 3)
    add_suv: float = 2.5

    @property
    def is_off(self) -> bool:
        """Whether a mask never changes."""
        return not any((self.empty, self.reference, self.drop, self.click, self.border, self.add))


class RandDamageMaskd(Randomizable, MapTransform):
    """Damage a coarse mask by chance, see `damaged_mask`. The image and the reference stay as they are.

    Args:
        keys: keys of coarse masks, tensors (1, X, Y, Z) of 0 and 1.
        damage: how they are damaged.
        label_key: key of the reference (1, X, Y, Z).
        image_key: key of CT and PET (2, X, Y, Z), scaled so that 0 and 1 are the ends of `pet_range`.
        pet_range: SUV that the image's 0 and 1 are.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        damage: MaskDamage,
        label_key: str = "label",
        image_key: str = "image",
        pet_range: Sequence[float] = (0, 1),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.damage, self.label_key, self.image_key, self.pet_range = damage, label_key, image_key, pet_range

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        low, high = self.pet_range
        label = item[self.label_key][0].numpy() != 0
        suv = low + (high - low) * item[self.image_key][1].numpy()
        for key in self.key_iterator(item):
            mask = item[key]
            damaged = damaged_mask(mask[0].numpy() != 0, label, suv, self.damage, self.R)
            item[key] = MetaTensor(torch.from_numpy(damaged)[None].to(mask.dtype)).copy_meta_from(mask)
        return item


def damaged_mask(
    mask: np.ndarray, reference: np.ndarray, suv: np.ndarray, damage: MaskDamage, state: np.random.RandomState
) -> np.ndarray:
    """Return a coarse mask with faults of a network, or as a reader would have made it.

    Args:
        mask: of stage 1 (X, Y, Z), boolean; it is not changed.
        reference: lesions (X, Y, Z), boolean.
        suv: of the PET (X, Y, Z); where it is clipped from below, its least value is no uptake.
        damage: with which probability what happens.
        state: from which everything is drawn.

    Returns:
        Boolean (X, Y, Z).
    """
    if state.rand() < damage.empty:
        return np.zeros_like(mask)
    if state.rand() < damage.reference:
        return reference.copy()
    farthest = int(damage.border_voxels[1])
    damaged = np.zeros_like(mask)
    labels, _ = labelled_components(mask)
    # Only the surroundings of a component can change with it, and there may be hundreds.
    for label, box in enumerate(cc3d.statistics(labels)["bounding_boxes"][1:], 1):
        around = tuple(slice(max(0, part.start - farthest), part.stop + farthest) for part in box)
        damaged[around] |= _changed(labels[around] == label, damage, state)
    if state.rand() < damage.add:
        for _ in range(_whole_number(damage.add_components, state)):
            damaged |= region_of_uptake(suv, mask | reference | damaged, damage.add_suv, state)
    return damaged


def region_of_uptake(suv: np.ndarray, taken: np.ndarray, least_suv: float, state: np.random.RandomState) -> np.ndarray:
    """Return the connected region of uptake around a randomly drawn voxel; nothing where there is no uptake.

    The region reaches down to an SUV between `least_suv` and that of the voxel, so that a part of an organ is as possible as all
    of it.

    Args:
        suv: of the PET (X, Y, Z).
        taken: voxels (X, Y, Z) that cannot be added, such as those of lesions.
        least_suv: the SUV above which the region lies.
        state: from which is drawn.
    """
    least = max(least_suv, float(suv.min()))
    free = (suv > least) & ~taken
    candidates = np.flatnonzero(free)
    if not len(candidates):
        return np.zeros_like(taken)
    voxel = np.unravel_index(candidates[state.randint(len(candidates))], suv.shape)
    bright = free & (suv >= state.uniform(least, suv[voxel]))
    labels, _ = labelled_components(bright)
    return labels == labels[voxel]


def grown(mask: np.ndarray, voxels: int) -> np.ndarray:
    """Return a boolean mask (X, Y, Z) with all voxels that are at most so many steps along the axes away from it."""
    result = torch.from_numpy(mask.astype(np.float32))[None]
    for _ in range(voxels):
        pooled = [
            max_pool3d(result, [3 if axis == along else 1 for axis in range(3)], 1, [int(axis == along) for axis in range(3)])
            for along in range(3)
        ]
        result = torch.stack(pooled).amax(dim=0)
    return result[0].numpy() > 0


def _changed(component: np.ndarray, damage: MaskDamage, state: np.random.RandomState) -> np.ndarray:
    """Return what becomes of a component (X, Y, Z)."""
    if state.rand() < damage.drop:
        return np.zeros_like(component)
    if state.rand() < damage.click:
        inside = np.flatnonzero(component)
        ball = np.zeros_like(component)
        ball.flat[inside[state.randint(len(inside))]] = True
        return grown(ball, _whole_number(damage.border_voxels, state))
    if state.rand() < damage.border:
        voxels = _whole_number(damage.border_voxels, state)
        return grown(component, voxels) if state.rand() < 0.5 else ~grown(~component, voxels)
    return component


def _whole_number(limits: Sequence[int], state: np.random.RandomState) -> int:
    """Draw a whole number from the first limit to the last."""
    return int(state.randint(int(limits[0]), int(limits[1]) + 1))
