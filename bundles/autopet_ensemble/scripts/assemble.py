"""Gathering the weights of the four networks into one file for the cascade."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scripts.cascade import Cascade
from scripts.errors import InputError, command
from scripts.files import atomic, read_json, write_json

# Entries of a fingerprint that decide what a network gets to see.
NUMBERS = ("spacing", "ct", "pet")


@command
def assemble(network: Cascade, sources: Mapping[str, str | os.PathLike], ckpt_dir: str | os.PathLike) -> None:
    """Write the cascade's `model.pt` and `fingerprint.json` from those of its networks' bundles.

    Args:
        network: the cascade that takes the weights; its networks must be those that were trained.
        sources: folder with `model.pt` and `fingerprint.json` for "stage1" and for each member by its name. `model.pt` is a state
            dict, or a dictionary that holds one as "state_dict", as the authors' published checkpoints do.
        ckpt_dir: folder for the two files.

    Raises:
        InputError: when a file is missing or unreadable, does not fit its network, or belongs to another fingerprint than the
            others do.
    """
    parts = {"stage1": network.stage1, **network.members}
    if set(sources) != set(parts):
        raise InputError(f"sources name {', '.join(sources)}: name {', '.join(parts)}, each with its folder")
    folders = {name: Path(sources[name]) for name in parts}
    fingerprint = _common_fingerprint(folders)
    for name, part in parts.items():
        _load(part.network, folders[name] / "model.pt")
    # Until both are there, nothing shall take the new weights for those of another fingerprint.
    (Path(ckpt_dir) / "fingerprint.json").unlink(missing_ok=True)
    with atomic(Path(ckpt_dir) / "model.pt") as file:
        torch.save(network.state_dict(), file)
    write_json(Path(ckpt_dir) / "fingerprint.json", fingerprint)
    print(f"{Path(ckpt_dir) / 'model.pt'} holds the weights of {', '.join(parts)}.", flush=True)


@command
def check_weights(network: Cascade, model_file: str | os.PathLike) -> None:
    """Load the cascade's weights, before any study is read.

    Args:
        network: the cascade that takes the weights.
        model_file: what `assemble` wrote.

    Raises:
        SystemExit: with one sentence when the file is unreadable or does not fit the network.
    """
    _load(network, Path(model_file))


def _common_fingerprint(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Give the fingerprint of the first folder, to which those of all others must be equal in their numbers."""
    first, *others = (_required(folder / "fingerprint.json") for folder in folders.values())
    fingerprint = _read_fingerprint(first)
    for file in others:
        other = _read_fingerprint(file)
        different = [name for name in NUMBERS if other.get(name) != fingerprint.get(name)]
        if different:
            raise InputError(
                f"{file} differs from {first} in {', '.join(different)}, so that the networks would not see the same image: "
                "train all four on one prepared data set"
            )
    return fingerprint


def _read_fingerprint(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error}): train again, or copy it from where the weights come") from error


def _load(network: torch.nn.Module, file: Path) -> None:
    """Load a network's weights; every tensor must be there, and no other."""
    try:
        content = torch.load(_required(file), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise InputError(f"{file} cannot be read as weights of PyTorch: train again, or copy it again") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise InputError(f"{file} holds a {type(state).__name__}, not a state dict: give the file that the training wrote")
    expected = network.state_dict()
    faults = {
        "lacks": sorted(expected.keys() - state.keys()),
        "holds besides": sorted(map(str, state.keys() - expected.keys())),
        "has in another shape": sorted(
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ),
    }
    if any(faults.values()):
        said = ", ".join(f"{what} {_shorten(names)}" for what, names in faults.items() if names)
        raise InputError(
            f"{file} does not fit {type(network).__name__}: it {said}; name the configs with which it was trained, such as demo.json"
        )
    network.load_state_dict(state)


def _required(file: Path) -> Path:
    if not file.is_file():
        raise InputError(
            f"{file} is missing: train its network with `python -m monai.bundle run training --config_file configs/train.json "
            "--dataset_dir ...` in that network's bundle"
        )
    return file


def _shorten(names: list[str], most: int = 3) -> str:
    return " and ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
