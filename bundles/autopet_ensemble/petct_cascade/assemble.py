"""Gathering the weights of the four networks into one file for the cascade."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from petct_cascade.cascade import Cascade, MeanOfFolds, SlidingWindow
from petct_cascade.method import OF_ANSWER, check_share, chosen_members
from petct_training.checks import check_patch_size, fingerprint_of
from petct_training.errors import InputError, boolean
from petct_training.files import read_json_or_none, write_json
from petct_training.folds import remembering
from petct_training.records import HELD_OUT, digest_of
from petct_training.saving import SOURCES, save_weights
from petct_training.seen import TRAINED_ON
from petct_training.weights import load_weights

# Entries of a fingerprint that decide what a network gets to see.
NUMBERS = ("spacing", "ct", "pet")

# Between the name of a network and the number of its fold.
OF_FOLD = " of fold "

# Entry of a cascade's fingerprint: the members that it has, of those of the ensemble's configs.
MEMBERS_ENTRY = "members"

# Where imported weights come from; of each network by its name: "file", "sha256", and a list "assumed".
Sources = dict[str, dict[str, Any]]

REMEDY = "train again, or name the configs with which it was trained, such as demo.json (--profile demo of petct)"

COMMAND = "python -m monai.bundle run assemble --config_file \"['configs/inference.json','configs/assemble.json']\""


def assemble(
    network: Cascade,
    sources: Mapping[str, str | os.PathLike],
    ckpt_dir: str | os.PathLike,
    stage1_weight: float | None = None,
    keep_found_above: float | None = None,
) -> None:
    """Write the cascade's `model.pt` and `fingerprint.json` from those of its networks' bundles.

    The fingerprint names the members that the cascade has, see `members_in`, and how it answers, see `share_of_answer`. Where
    weights were imported, a `sources.json` says so; see `write_sources`.

    Args:
        network: the cascade that takes the weights; its networks must be those that were trained.
        sources: folder with `model.pt` and `fingerprint.json` for "stage1" and for each member by its name; of a network that was
            trained once a fold, for each fold, such as "stage1 of fold 0". `model.pt` is a state dict, or a dictionary that holds
            one as "state_dict", as the authors' published checkpoints do.
        ckpt_dir: folder for the two files.
        stage1_weight: stage 1's share of the ensemble's answer; None for the members alone, as in the paper.
        keep_found_above: see `petct_cascade.transforms.with_found_kept`; None to keep nothing, as in the paper.

    Raises:
        InputError: when a file is missing or unreadable, does not fit its network, or belongs to another fingerprint than the
            others do, or a fingerprint to other weights than those beside it.
    """
    parts = networks_of(network)
    if set(sources) != set(parts):
        raise InputError(f"sources name {', '.join(sources)}: name {', '.join(parts)}, each with its folder")
    folders = {name: Path(sources[name]) for name in parts}
    fingerprints = {name: _fingerprint_in(folder) for name, folder in folders.items()}
    trained_on = sorted(set().union(*(known.get(TRAINED_ON) or () for known in fingerprints.values())))
    fingerprint = remembering(_common_fingerprint(folders, fingerprints), _held_out(folders, fingerprints), trained_on)
    fingerprint |= {MEMBERS_ENTRY: list(network.members)}
    fingerprint |= {name: share for name, share in zip(OF_ANSWER, (stage1_weight, keep_found_above), strict=True) if share}
    for name, part in parts.items():
        load_weights(part, _trained(folders[name] / "model.pt"), REMEDY)
    imported = {name: facts for folder in folders.values() for name, facts in read_sources(folder).items()}
    save_weights(network, fingerprint, Path(ckpt_dir))
    write_sources(Path(ckpt_dir), imported)
    print(f"{Path(ckpt_dir) / 'model.pt'} holds the weights of {', '.join(parts)}.", flush=True)


def source_folders(
    bundles: Mapping[str, str],
    bundle_root: str | os.PathLike,
    models_dir: str | os.PathLike | None = None,
    folds_of: Mapping[str, int] | None = None,
    members: Sequence[str] | None = None,
) -> dict[str, str]:
    """Return the folder of each network's weights.

    Args:
        bundles: name of the bundle of "stage1" and of each member by its name.
        bundle_root: folder of the ensemble's bundle, beside which the others lie.
        models_dir: folder with a folder of each bundle's name that holds the weights, as the pipeline leaves them; None for the
            bundles' own.
        folds_of: number of folds of those that were trained once a fold; their weights lie in folders `fold_0` and so on.
        members: the members that the cascade has; None for all.

    Raises:
        InputError: when `folds_of` or `members` name another network.

    Example:
        >>> source_folders({"UNet": "autopet_stage2_unet"}, ".")
        {'UNet': './../autopet_stage2_unet/models'}
        >>> source_folders({"UNet": "autopet_stage2_unet"}, ".", "WORK/models")
        {'UNet': 'WORK/models/autopet_stage2_unet'}
    """
    folds_of = folds_of or {}
    if members is not None:
        chosen = chosen_members(members, [name for name in bundles if name != "stage1"])
        bundles = {name: bundle for name, bundle in bundles.items() if name == "stage1" or name in chosen}
    for name, number in folds_of.items():
        if name not in bundles or not isinstance(number, int) or number < 2:
            raise InputError(
                f"folds_of names {name!r} with {number!r} folds: name {', '.join(bundles)}, each with 2 folds or more"
            )
    folders: dict[str, str] = {}
    for name, bundle in bundles.items():
        folder = os.path.join(models_dir, bundle) if models_dir else os.path.join(bundle_root, "..", bundle, "models")
        if name in folds_of:
            folders |= {f"{name}{OF_FOLD}{fold}": os.path.join(folder, f"fold_{fold}") for fold in range(folds_of[name])}
        else:
            folders[name] = folder
    return folders


def members_in(fingerprint_file: str | os.PathLike, known: Sequence[str]) -> list[str]:
    """Return the members of a cascade's weights, as the fingerprint beside them says; all where it says nothing.

    Args:
        fingerprint_file: what `assemble` wrote.
        known: names of all members of the ensemble.

    Raises:
        InputError: when the weights have none of these members, or another one.
    """
    members = (read_json_or_none(fingerprint_file) or {}).get(MEMBERS_ENTRY)
    try:
        return list(known) if members is None else chosen_members(members, known)
    except InputError as error:
        raise InputError(f"{fingerprint_file} does not fit this version of the ensemble: {error}") from error


def with_uncertainty(uncertainty: object, members: Sequence[str]) -> bool:
    """Return whether a map of the members' disagreement is asked for.

    Args:
        uncertainty: true or false, or a word for one of them.
        members: of the cascade's weights, see `members_in`.

    Raises:
        InputError: when it is neither, or there is one member alone, which contradicts nobody.
    """
    wanted = boolean("uncertainty", uncertainty)
    if wanted and len(members) == 1:
        raise InputError(
            f"uncertainty is how much the members of the ensemble disagree, and these weights have one alone, {members[0]}: leave "
            "it out, or take weights of several"
        )
    return wanted


def share_of_answer(name: str, value: object, fingerprint_file: str | os.PathLike) -> float | None:
    """Return an option of how the ensemble answers; None where it is off.

    Args:
        name: one of `petct_cascade.method.OF_ANSWER`.
        value: as it is asked for, from 0 to 1; None for what the fingerprint beside the weights says.
        fingerprint_file: what `assemble` wrote.

    Raises:
        InputError: when it is no number from 0 to 1.
    """
    share = (read_json_or_none(fingerprint_file) or {}).get(name) if value is None else value
    check_share(name, share, "" if value is not None else f" in {fingerprint_file}")
    return cast(float, share) or None


def folds_in(fingerprint_file: str | os.PathLike) -> dict[str, int]:
    """Return the number of folds of the networks of a cascade's weights, as the fingerprint beside them says; see `Cascade`."""
    known = (read_json_or_none(fingerprint_file) or {}).get(HELD_OUT) or {}
    return {name: len(entries) for name, entries in known.items() if len(entries) > 1}


def spacing_in(fingerprint_file: str | os.PathLike) -> list[float]:
    """Return the voxel size (mm) of the images that a cascade's networks see, as the fingerprint beside its weights says; 1 mm
    where there is none.
    """
    return list((read_json_or_none(fingerprint_file) or {}).get("spacing") or (1, 1, 1))


def require_weights(model_file: str | os.PathLike, fingerprint_file: str | os.PathLike) -> None:
    """See that the cascade's weights and their fingerprint are there, and belong together, before a network is built.

    Raises:
        InputError: when one is missing, where the sentence says how it is made; or as `petct_training.checks.fingerprint_of`.
    """
    if not Path(model_file).is_file():
        raise InputError(f"{model_file} is missing: make it with `{COMMAND}` in autopet_ensemble")
    if not Path(fingerprint_file).is_file():
        raise InputError(
            f"{fingerprint_file} is missing: it belongs to the weights beside it; assemble again, or copy it from where they come"
        )
    fingerprint_of(model_file, fingerprint_file)


def check_weights(network: Cascade, model_file: str | os.PathLike) -> None:
    """Load the cascade's weights, before any study is read.

    Args:
        network: the cascade that takes the weights.
        model_file: what `assemble` wrote.

    Raises:
        InputError: when the file is unreadable or does not fit the network.
    """
    load_weights(network, model_file, REMEDY)


def check_patch_sizes(network: Cascade) -> None:
    """See that each network of the cascade takes its window, before anything is read.

    Raises:
        InputError: with the network and the next larger size that it takes.
    """
    for name, window in _windows_of(network).items():
        try:
            # The members see the coarse mask as a third channel.
            check_patch_size(window.network, 2 if name.startswith("stage1") else 3, window.roi_size)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error


def networks_of(cascade: Cascade) -> dict[str, nn.Module]:
    """Return the networks of a cascade without their sliding windows: "stage1", then each member by its name.

    Where there is one a fold, each is named as in "stage1 of fold 0".
    """
    return {name: window.network for name, window in _windows_of(cascade).items()}


def _windows_of(cascade: Cascade) -> dict[str, SlidingWindow]:
    """Return "stage1", then each member of a cascade by its name, with its sliding window; see `networks_of`."""
    windows: dict[str, SlidingWindow] = {}
    for name, part in {"stage1": cascade.stage1, **cascade.members}.items():
        if isinstance(part, MeanOfFolds):
            windows |= {f"{name}{OF_FOLD}{fold}": cast(SlidingWindow, window) for fold, window in enumerate(part.folds)}
        else:
            windows[name] = cast(SlidingWindow, part)
    return windows


def write_sources(folder: Path, imported: Sources) -> None:
    """Write beside a folder's `model.pt` which of its networks' weights come from files of others; nothing where none do.

    The file `sources.json` holds the SHA-256 of the `model.pt` that it is about, as `weights`, and `imported`.
    """
    if imported:
        write_json(folder / SOURCES, {"weights": digest_of(folder / "model.pt"), "imported": imported})
    else:
        (folder / SOURCES).unlink(missing_ok=True)


def read_sources(folder: Path) -> Sources:
    """Return which weights in a folder were imported; nothing where `model.pt` was trained since.

    Raises:
        InputError: when the file that says so is damaged.
    """
    file = folder / SOURCES
    if not file.is_file():
        return {}
    content = read_json_or_none(file)
    imported = content.get("imported") if isinstance(content, dict) else None
    if not isinstance(imported, dict) or not all(isinstance(facts, dict) and "file" in facts for facts in imported.values()):
        raise InputError(
            f"{file} is damaged, and does not say which files the weights beside it come from: import them again, or delete it if "
            "they were trained here"
        )
    return imported if content.get("weights") == digest_of(folder / "model.pt") else {}


def _common_fingerprint(folders: Mapping[str, Path], fingerprints: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fingerprint of the first folder, to which those of all others must be equal in their numbers."""
    first = next(iter(folders))
    fingerprint = {name: value for name, value in fingerprints[first].items() if name not in (HELD_OUT, TRAINED_ON)}
    for name, other in fingerprints.items():
        different = [number for number in NUMBERS if other.get(number) != fingerprint.get(number)]
        if different:
            raise InputError(
                f"{folders[name] / 'fingerprint.json'} differs from {folders[first] / 'fingerprint.json'} in "
                f"{', '.join(different)}, so that the networks would not see the same image: train all four on one prepared data "
                "set"
            )
    return fingerprint


def _held_out(folders: Mapping[str, Path], fingerprints: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return of each network that was trained with a fold, or once a fold, which studies its weights have not seen.

    Raises:
        InputError: when the weights in a fold's folder are of another fold, or of other folds than those of the other networks.
    """
    result: dict[str, list[Any]] = {}
    for name, folder in folders.items():
        known = fingerprints[name].get(HELD_OUT)
        network, _, fold = name.partition(OF_FOLD)
        if fold and (known is None or known["fold"] != int(fold)):
            raise InputError(
                f"{folder} does not hold weights that were trained with fold {fold}: train them again with --fold {fold}"
            )
        if known is not None:
            result.setdefault(network, []).append(known)
    without = [name for name in folders if name.partition(OF_FOLD)[0] not in result]
    if result and without:
        raise InputError(
            f"{without[0]} was trained without a fold, and {next(iter(result))} with one: train all networks with folds, or none"
        )
    for network, entries in result.items():
        if len(entries) > 1 and {entry["folds"] for entry in entries} != {len(entries)}:
            raise InputError(
                f"the {len(entries)} networks of {network} are of data sets with other numbers of folds: train all folds again"
            )
    return result


def _fingerprint_in(folder: Path) -> dict[str, Any]:
    """Return the fingerprint of the weights in a folder."""
    return fingerprint_of(folder / "model.pt", _trained(folder / "fingerprint.json"))


def _trained(file: Path) -> Path:
    """Return a file that a training writes; it must be there."""
    if not file.is_file():
        raise InputError(
            f"{file} is missing: train its network with `python -m monai.bundle run training --config_file configs/train.json "
            "--dataset_dir ...` in that network's bundle"
        )
    return file
