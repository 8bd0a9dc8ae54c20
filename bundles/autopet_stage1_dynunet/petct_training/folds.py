"""Folds of a prepared data set: which studies each holds out, and how weights and masks remember that they have not seen them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from petct_training.data import Item
from petct_training.errors import InputError
from petct_training.files import read_json
from petct_training.records import HELD_OUT, Records
from petct_training.seen import TRAINED_ON


def held_out(datalist: str | os.PathLike, fold: int | None = None) -> dict[str, Any] | None:
    """Return which studies a fold holds out, as weights and masks remember it; None where no fold is asked for and there are none.

    Args:
        datalist: the data set's `datalist.json`.
        fold: number of the fold, from 0.

    Returns:
        "fold", "folds" (their number), and "cases": SHA-256 of the names of the studies that it holds out, sorted, one a line.

    Raises:
        InputError: when the data set has folds and none is named, or it lacks this one.
    """
    cases: dict[int, list[str]] = {}
    for entry in read_json(datalist)["training"]:
        if "fold" in entry:
            cases.setdefault(entry["fold"], []).append(entry["case"])
    if fold is None and not cases:
        return None
    if not cases:
        raise InputError(f"{datalist} has no folds, and fold is {fold}: prepare the data set with --folds, or leave --fold out")
    if fold not in cases:
        said = "no fold is named" if fold is None else f"fold is {fold}"
        raise InputError(f"{datalist} has {len(cases)} folds, and {said}: give --fold, a number from 0 to {len(cases) - 1}")
    names = "\n".join(sorted(cases[fold]))
    return {"fold": fold, "folds": len(cases), "cases": hashlib.sha256(names.encode()).hexdigest()}


def has_folds(datalist: str | os.PathLike) -> bool:
    """Whether a data set is divided into folds."""
    return any("fold" in entry for entry in read_json(datalist)["training"])


def remembering(
    fingerprint: Mapping[str, Any], held_out: Mapping[str, Any] | None, trained_on: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a data set's fingerprint as it lies beside weights, with the studies that they have not seen and those that they have.

    Args:
        fingerprint: the data set's.
        held_out: see `held_out`.
        trained_on: see `petct_training.seen.studies_of_training`.
    """
    unseen = {HELD_OUT: held_out} if held_out else {}
    return {**fingerprint, **unseen, **({TRAINED_ON: list(trained_on)} if trained_on else {})}


def check_unseen(
    items: Iterable[Item], datalist: str | os.PathLike, fold: int | None, fingerprint_file: str | os.PathLike
) -> None:
    """Refuse studies of a data set with folds that weights may have seen in their training.

    Args:
        items: studies that the weights are going to predict.
        datalist: the data set's `datalist.json`.
        fold: the fold that holds them out; None where the data set has none.
        fingerprint_file: the fingerprint beside the weights.

    Raises:
        InputError: when the weights were trained with another fold, or with other folds; the sentence names them.
    """
    wanted = held_out(datalist, fold)
    if wanted is None:
        return
    known = read_json(fingerprint_file).get(HELD_OUT)
    if known != wanted:
        said = "without folds" if known is None else f"with fold {known['fold']} of {known['folds']}, or with other studies in it"
        raise InputError(
            f"the weights beside {fingerprint_file} were trained {said}, so that they may have seen studies of fold {fold} in "
            f"{datalist}: train with --fold {fold}, or name the weights of this fold with --ckpt_dir"
        )
    for item in items:
        if item.get("fold") != fold:
            raise InputError(f"{item['case']} is not held out by fold {fold}, whose weights have seen it: leave --splits out")


def check_coarse_masks(items: Iterable[Item], datalist: str | os.PathLike, coarse_mask_dir: str | os.PathLike) -> None:
    """Refuse coarse masks of a data set with folds that were not made by a stage 1 which had not seen the study.

    Raises:
        InputError: with the first such study.
    """
    if not has_folds(datalist):
        return
    records = Records(Path(coarse_mask_dir), "")
    folds: dict[int, dict[str, Any] | None] = {}
    for item in items:
        fold = item["fold"]
        if fold not in folds:
            folds[fold] = held_out(datalist, fold)
        record = records.read(item["case"]) or {"settings": {}}
        if record["settings"].get(HELD_OUT) != folds[fold]:
            raise InputError(
                f"the coarse mask of {item['case']} in {coarse_mask_dir} may come from a stage 1 that has seen the study: make it "
                f"with --fold {fold} in autopet_stage1_dynunet, from weights that were trained with this fold"
            )
