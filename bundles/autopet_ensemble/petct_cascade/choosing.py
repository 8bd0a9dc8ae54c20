"""Choosing the weights of the members and the threshold of their mean, on studies that the networks have not seen."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.engines import Evaluator
from monai.transforms import MapTransform

from petct_cascade.running import run_each_study
from petct_cascade.selection import Selection
from petct_training.checks import FEW
from petct_training.errors import InputError, is_number, with_problems
from petct_training.files import write_json

THRESHOLDS = tuple(round(0.05 * number, 2) for number in range(4, 17))

# The paper's, which is kept where nothing is better.
PAPER_THRESHOLD = 0.5


def weights_of_members(member_weights: Mapping[str, float] | None, members: Sequence[str]) -> list[float] | None:
    """Return the weight of each member, in their order, so that the sum is 1; None for one weight for all.

    Args:
        member_weights: weight of each member by its name; None for one weight for all.
        members: their names.

    Raises:
        InputError: when a member has no weight, another one has, or the weights are not numbers of 0 or more.

    Example:
        >>> weights_of_members({"UNet": 3, "SegResNet": 1}, ["SegResNet", "UNet"])
        [0.25, 0.75]
    """
    if member_weights is None:
        return None
    given = dict(member_weights) if isinstance(member_weights, Mapping) else {}
    numbers = [given[name] for name in members if is_number(given.get(name)) and given[name] >= 0]
    if len(given) != len(members) or len(numbers) != len(members) or not sum(numbers):
        raise InputError(
            f"member_weights is {member_weights}: give a number of 0 or more for each of {', '.join(members)}, such as "
            f"{dict.fromkeys(members, 1)}"
        )
    return [number / sum(numbers) for number in numbers]


def candidates_of_weights(members: int, steps: int) -> list[tuple[float, ...]]:
    """Return the weights that are tried: all multiples of 1 / steps whose sum is 1, and before them one weight for all."""
    shares = itertools.product(range(steps + 1), repeat=members)
    equal = (1 / members,) * members
    tried = [tuple(share / steps for share in choice) for choice in shares if sum(choice) == steps]
    return [equal, *(weights for weights in tried if weights != equal)]


class ScoreCandidatesd(MapTransform):
    """Score every candidate of weights and threshold on each study that passes, by its Dice.

    Args:
        keys: keys of the members' probabilities (1, X, Y, Z) on the label's grid.
        label_key: key of the reference (1, X, Y, Z).
        steps: steps of a weight from 0 to 1.
        stage1_key: key of what stage 1 says, where it has a weight.
        stage1_weight: its share of each candidate's answer; None for nothing.

    Attributes:
        weights: the candidates, W of them.
        dice: of each study the Dice (W, T) with each weights and each of `THRESHOLDS`; studies without a lesion are left out.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str = "label",
        steps: int = 10,
        stage1_key: str | None = None,
        stage1_weight: float | None = None,
    ) -> None:
        super().__init__(keys)
        self.label_key, self.stage1_key, self.stage1_weight = label_key, stage1_key, stage1_weight
        self.weights = candidates_of_weights(len(self.keys), steps)
        self.dice: list[np.ndarray] = []

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        label = item[self.label_key][0].cpu().numpy() != 0
        if label.any():
            keys: list[Hashable] = [*self.keys]
            weights: Sequence[Sequence[float]] = self.weights
            if share := self.stage1_weight:
                keys.append(self.stage1_key)
                weights = [[*((1 - share) * weight for weight in candidate), share] for candidate in weights]
            probabilities = np.stack([item[key][0].cpu().numpy() for key in keys])
            self.dice.append(dice_of_candidates(probabilities, label, weights))
        return item


def dice_of_candidates(probabilities: np.ndarray, label: np.ndarray, weights: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the Dice of each candidate (W, T): each weights with each of `THRESHOLDS`.

    Args:
        probabilities: of the members (M, X, Y, Z).
        label: lesions (X, Y, Z), boolean, not empty.
        weights: of the members (W, M), each with the sum 1.
    """
    # A mean reaches a threshold only where a member does.
    considered = (probabilities >= THRESHOLDS[0]).any(axis=0)
    probabilities, lesion = probabilities[:, considered].astype(np.float32), label[considered]
    dice = np.empty((len(weights), len(THRESHOLDS)))
    for row, candidate in enumerate(weights):
        total = np.asarray(candidate, np.float32) @ probabilities
        for column, threshold in enumerate(THRESHOLDS):
            predicted = total >= threshold
            overlap = np.count_nonzero(predicted & lesion)
            dice[row, column] = 2 * overlap / (np.count_nonzero(predicted) + np.count_nonzero(label))
    return dice


def choose_members(
    evaluator: Evaluator,
    selection: Selection,
    candidates: ScoreCandidatesd,
    chosen_file: str | os.PathLike,
    studies: object = None,
) -> None:
    """Predict the studies that the networks have not seen, and write the best weights and threshold as a patch of inference.json.

    Best is the highest mean Dice. What it gains is told twice: on the studies that have chosen, and, more honestly, on each study
    with what all others would have chosen. A warning says where the studies are so few that chance chooses.

    Args:
        evaluator: its post-processing ends with `candidates`.
        selection: the validation studies, or those that each fold holds out; see `petct_cascade.selection.labelled_items`.
        candidates: scores each study.
        chosen_file: the patch, which holds `member_weights`, `stage1_weight` and `final_threshold`.
        studies: what was given as other studies, which must be nothing: networks may have seen them.

    Raises:
        InputError: when other studies are given, one cannot be predicted, or fewer than two have lesions.
    """
    if studies is not None:
        raise InputError(
            "weights of members are chosen on studies that the networks have not seen: leave --studies out, and name the prepared "
            "data set with --dataset_dir"
        )
    problems = run_each_study(evaluator, judge=selection.check)
    if problems:
        raise InputError(with_problems("nothing was chosen, since studies cannot be used", problems))
    if len(candidates.dice) < 2:
        raise InputError(
            "fewer than two of the studies have lesions, and nothing was chosen: prepare a data set with more patients"
        )
    table = np.stack(candidates.dice)
    if len(table) <= FEW:
        print(
            f"warning: {len(table)} studies with lesions choose, so that chance has a large part in what is best: prepare the data "
            "set with more patients, or with --folds",
            flush=True,
        )
    weights, threshold = best_candidate(table, candidates.weights)
    paper = table[:, 0, THRESHOLDS.index(PAPER_THRESHOLD)]
    write_json(
        Path(chosen_file),
        {
            "_desc_": f"Patches inference.json with what choose.json has chosen on {len(table)} studies that no network had seen.",
            "member_weights": dict(zip(candidates.keys, weights, strict=True)),
            # With which they were chosen.
            "stage1_weight": candidates.stage1_weight or 0,
            "final_threshold": threshold,
        },
    )
    said = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(candidates.keys, weights, strict=True))
    print(
        f"{chosen_file} holds the weights {said} and the threshold {threshold}: mean Dice {table.mean(axis=0).max():.4f} on the "
        f"{len(table)} studies that have chosen, {left_out(table).mean():.4f} on each with what the others choose, and "
        f"{paper.mean():.4f} with one weight for all and {PAPER_THRESHOLD}.",
        flush=True,
    )


def best_candidate(table: np.ndarray, weights: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], float]:
    """Return the weights and threshold with the highest mean Dice of a table (studies, W, T).

    Of equal ones it is the threshold that is nearest to the paper's, and then one weight for all.
    """
    row, column = divmod(_best(table.mean(axis=0)), len(THRESHOLDS))
    return weights[row], THRESHOLDS[column]


def left_out(table: np.ndarray) -> np.ndarray:
    """Return the Dice of each study (S) of a table (S, W, T) with the candidate that all other studies would have chosen."""
    total = table.sum(axis=0)
    return np.array([study.flat[_best(total - study)] for study in table])


def _best(scores: np.ndarray) -> int:
    """Return the index in the flattened (W, T) of the highest score; of those that are equal, of the nearest to the paper's."""
    rows, columns = np.nonzero(np.isclose(scores, scores.max(), rtol=0, atol=1e-12))
    far = np.abs(np.array(THRESHOLDS)[columns] - PAPER_THRESHOLD)
    # One weight for all is the first of the candidates.
    nearest = np.lexsort((rows, far.round(6)))[0]
    return int(np.ravel_multi_index((rows[nearest], columns[nearest]), scores.shape))
