"""Reading a PET/CT study and turning the members' probabilities into one, as MONAI transforms that configs name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

# Keys of an image's metadata: where the body's box begins in its study, in voxels, and the study's shape and affine.
BODY_START, STUDY_SHAPE, STUDY_AFFINE = "body_start", "study_shape", "study_affine"


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
