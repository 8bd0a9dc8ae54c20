"""Which studies a training draws: each as often, or by the share of healthy ones and by tracer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset, RandomSampler, Sampler, WeightedRandomSampler

from petct_training.checks import has_lesion
from petct_training.data import Item
from petct_training.errors import InputError, boolean


def study_weights(
    items: Sequence[Item], healthy_fraction: float | None = None, balance_tracers: bool | str = False
) -> list[float] | None:
    """Return with which probability each study of a training is drawn; None where all are drawn as often.

    Args:
        items: of the training, each with its label's file and "tracer".
        healthy_fraction: share of the draws that studies without a lesion have together; None for as many as there are.
        balance_tracers: whether each tracer is drawn as often as each other; with `healthy_fraction`, among the healthy studies and
            among the others.

    Raises:
        InputError: when a share of healthy studies, or of others, is asked for, and the data set has none.
    """
    balanced = boolean("balance_tracers", balance_tracers)
    if healthy_fraction is None and not balanced:
        return None
    healthy = [healthy_fraction is not None and not has_lesion(item) for item in items]
    share = 0 if healthy_fraction is None else healthy_fraction
    for kind, wanted, remedy in (
        (True, share, "prepare the data set with --keep_healthy true"),
        (False, 1 - share, "prepare a data set that has lesions"),
    ):
        if wanted and kind not in healthy:
            what = "without" if kind else "with"
            raise InputError(f"healthy_fraction is {healthy_fraction}, and no training study is {what} lesions: {remedy}")
    groups = [(kind, item["tracer"] if balanced else None) for kind, item in zip(healthy, items, strict=True)]
    sizes, kinds = Counter(groups), Counter(kind for kind, _ in set(groups))
    return [(share if kind else 1 - share) / kinds[kind] / sizes[kind, tracer] for kind, tracer in groups]


def studies_of_epoch(
    dataset: Dataset, steps: int | None, batch_size: int, weights: Sequence[float] | None = None
) -> Sampler[Any] | None:
    """Return what draws the studies of an epoch; None for each study once.

    Args:
        dataset: from which is drawn.
        steps: of an epoch; None for as many as its studies take.
        batch_size: studies of a step.
        weights: with which probability each study is drawn; None for all as often.
    """
    number = len(dataset) if steps is None else steps * batch_size  # type: ignore[arg-type]
    if weights is not None:
        return WeightedRandomSampler(weights, number)
    return None if steps is None else RandomSampler(dataset, num_samples=number)  # type: ignore[arg-type]
