"""Turning the members' probabilities into one, and its uncertainty, as MONAI transforms that configs name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch.nn.functional import avg_pool3d, max_pool3d, pad

from petct_training.components import labelled_components
from petct_training.grids import voxel_volume_ml


class MeanOfMembersd(MapTransform):
    """Put the mean of the members' probabilities under one key.

    `EnsembleEvaluator` gives one prediction a member, MONAI Label one prediction of the whole cascade: when none of the members'
    keys is in the item, the prediction that is there is left as it is.

    Args:
        keys: keys of the members' probabilities, tensors of one shape.
        output_key: key of the mean.
        spread_key: key for the standard deviation over the members, their disagreement; None for none.
        keep_members: whether the members' own probabilities stay in the item.
        weights: weight of each member in the mean, in the order of the keys; None for one weight for all. The disagreement knows no
            weights.
        stage1_key: key of what stage 1 says, which is taken out of the item; see `with_stage1`. An item may lack it.
        stage1_weight: its share of the result; None for nothing.
        keep_found_above: probability from which on a lesion of stage 1 that the result would lose stays, see `with_found_kept`;
            None for none.
        threshold: probability from which on a voxel belongs to stage 1's mask.
        final_threshold: the same of the result.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_key: str = "pred",
        spread_key: str | None = None,
        keep_members: bool = False,
        weights: Sequence[float] | None = None,
        stage1_key: str | None = None,
        stage1_weight: float | None = None,
        keep_found_above: float | None = None,
        threshold: float = 0.5,
        final_threshold: float = 0.5,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.output_key, self.spread_key, self.keep_members = output_key, spread_key, keep_members
        self.weights = weights
        self.stage1_key, self.stage1_weight = stage1_key, stage1_weight
        self.keep_found_above, self.threshold, self.final_threshold = keep_found_above, threshold, final_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        present = list(self.key_iterator(item))
        members = [item[key] if self.keep_members else item.pop(key) for key in present]
        if members:
            said = item.pop(self.stage1_key, None)
            answer = with_stage1(mean(members, self.weights), said, self.stage1_weight)
            item[self.output_key] = with_found_kept(answer, said, self.keep_found_above, self.threshold, self.final_threshold)
            if self.spread_key is not None:
                item[self.spread_key] = standard_deviation(members)
        return item


class Roundd(MapTransform):
    """Round tensors to a number of decimals, so that a file of them compresses well.

    Args:
        keys: keys of floating-point tensors of any shape.
        decimals: number of decimals that are kept.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(self, keys: KeysCollection, decimals: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.decimals = decimals

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = torch.round(item[key], decimals=self.decimals)
        return item


class RemoveFaintd(MapTransform):
    """Take small components of low uptake out of a mask: those that are both smaller than a volume and below an SUV.

    Args:
        keys: keys of masks (1, X, Y, Z), zero outside of lesions.
        suv_key: key of the PET (1, X, Y, Z) in SUV on the masks' grid.
        below_ml: components of this volume (ml) or more stay.
        below_suv: components with a voxel of this SUV or more stay.
        allow_missing_keys: whether an item may lack a key.
    """

    def __init__(
        self, keys: KeysCollection, suv_key: str, below_ml: float, below_suv: float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.suv_key, self.below_ml, self.below_suv = suv_key, below_ml, below_suv

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        suv = item[self.suv_key][0].cpu().numpy()
        for key in self.key_iterator(item):
            mask = item[key].clone()
            voxel_ml = voxel_volume_ml(mask.pixdim.tolist())
            faint = _faint_components(mask[0].cpu().numpy() != 0, suv, self.below_ml / voxel_ml, self.below_suv)
            mask[0][torch.from_numpy(faint).to(mask.device)] = 0
            item[key] = mask
        return item


def _faint_components(mask: np.ndarray, suv: np.ndarray, below_voxels: float, below_suv: float) -> np.ndarray:
    """Return the components of a boolean mask (X, Y, Z) that have fewer voxels and a lower maximum than given, as a mask."""
    labels, number = labelled_components(mask)
    inside = labels[mask]
    sizes, highest = np.bincount(inside, minlength=number + 1), _highest(suv, labels, number)
    faint = (sizes < below_voxels) & (highest < below_suv)
    faint[0] = False
    return faint[labels]


def mean(probabilities: Sequence[torch.Tensor], weights: Sequence[float] | None = None) -> torch.Tensor:
    """Return the mean of tensors of one shape, by a running sum, which needs no stack of them.

    Args:
        probabilities: the tensors.
        weights: of each tensor, whose sum is 1; None for one weight for all.
    """
    if weights is not None:
        total = weights[0] * probabilities[0]
        for weight, probability in zip(weights[1:], probabilities[1:], strict=True):
            total += weight * probability
        return total
    total = probabilities[0].clone()
    for probability in probabilities[1:]:
        total += probability
    return total / len(probabilities)


def with_stage1(members: torch.Tensor, stage1: torch.Tensor | None, weight: float | None) -> torch.Tensor:
    """Return the answer of the ensemble: the mean of its members, and as much of stage 1 as its weight says.

    Args:
        members: mean of the members' probabilities.
        stage1: what stage 1 says, of the same shape; None where it says nothing.
        weight: its share, from 0 to 1; None for the members alone.
    """
    return members if stage1 is None or not weight else mean([members, stage1], [1 - weight, weight])


def with_found_kept(
    answer: torch.Tensor, stage1: torch.Tensor | None, above: float | None, threshold: float, final_threshold: float
) -> torch.Tensor:
    """Keep lesions of stage 1 that the answer would lose although it nearly reaches its threshold there.

    Such a lesion stays as stage 1 has drawn it, also on another grid: in it and in the voxels around it, the answer is at least
    what stage 1 says, so that what is interpolated between them is, too. Voxels of other lesions of stage 1 are left as they are,
    and so is a lesion of which the answer has enough to outlast interpolation.

    Args:
        answer: probability of the ensemble, (1, X, Y, Z) or (B, 1, X, Y, Z).
        stage1: what stage 1 says, of the same shape; None where it says nothing.
        above: the least probability that the answer must have somewhere in such a lesion, an 18-connected component of stage 1's
            mask; None to keep nothing.
        threshold: probability from which on a voxel belongs to stage 1's mask.
        final_threshold: probability from which on a voxel belongs to the final mask.

    Returns:
        The answer, higher in and around the lesions that stay.
    """
    if stage1 is None or not above:
        return answer
    result = answer.clone()
    for volume, found in zip(result.flatten(end_dim=-4), stage1.flatten(end_dim=-4), strict=True):
        lesions, number = labelled_components((found >= threshold).cpu().numpy())
        lost = _highest(volume.cpu().numpy(), lesions, number) >= above
        lost &= _highest(_between_voxels(volume).cpu().numpy(), lesions, number) < final_threshold
        lost[0] = False
        if not lost.any():
            continue
        stays = torch.from_numpy(lost[lesions]).to(volume)
        around = (max_pool3d(stays[None], 3, stride=1, padding=1)[0] > 0) & ((stays > 0) | (found < threshold))
        in_mask = (found + (final_threshold - threshold)).clamp(max=1).to(volume)
        volume.copy_(torch.where(around, torch.maximum(volume, in_mask), volume))
    return result


def _between_voxels(volume: torch.Tensor) -> torch.Tensor:
    """Return of each voxel (X, Y, Z) the highest value midway between it and its neighbours, along all three axes.

    That is the mean of eight voxels: of all points between them, the one that linear interpolation makes the least sharp.
    """
    padded = pad(volume[None, None], (1,) * 6, mode="replicate")
    return max_pool3d(avg_pool3d(padded, 2, stride=1), 2, stride=1)[0, 0]


def _highest(volume: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Return the highest value (number + 1,) of a volume (X, Y, Z) in each component, the background being the first of them."""
    highest = np.full(number + 1, -np.inf)
    inside = labels > 0
    np.maximum.at(highest, labels[inside], volume[inside])
    return highest


def standard_deviation(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the standard deviation (divided by their number) over tensors of one shape."""
    centre = mean(probabilities)
    return mean([(probability - centre) ** 2 for probability in probabilities]).sqrt()
