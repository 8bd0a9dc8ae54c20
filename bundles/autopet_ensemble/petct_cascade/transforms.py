"""Turning the members' probabilities into one, and its uncertainty, as MONAI transforms that configs name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


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


def mean(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean of tensors of one shape, by a running sum, which needs no stack of them."""
    total = probabilities[0].clone()
    for probability in probabilities[1:]:
        total += probability
    return total / len(probabilities)


def standard_deviation(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the standard deviation (divided by their number) over tensors of one shape."""
    centre = mean(probabilities)
    return mean([(probability - centre) ** 2 for probability in probabilities]).sqrt()
