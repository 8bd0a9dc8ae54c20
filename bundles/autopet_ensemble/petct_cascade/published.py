"""The authors' published weights in our bundles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from petct_cascade.assemble import Sources, assemble, networks_of, write_sources
from petct_cascade.cascade import Cascade
from petct_training.errors import InputError
from petct_training.merging import MONAI_1_4, as_tensor, names_of_octants
from petct_training.records import digest_of
from petct_training.saving import save_weights
from petct_training.weights import put_weights, read_state_dict

REMEDY = "give the file that the authors published for this network, with its full-size configs"

# The weights were published in September 2024, and MONAI 1.4.0 in October: until then all releases had these octants.
ASSUMED = "trained with MONAI 1.4.0 or earlier, whose PatchMerging takes two octants twice and two never"

# Folder, beside a network's own weights, of those that the network of its bundle refuses.
PUBLISHED = "published"


def import_weights(
    network: Cascade,
    files: Mapping[str, str | os.PathLike | None],
    sources: Mapping[str, str | os.PathLike],
    fingerprint: Mapping[str, Any],
    ckpt_dir: str | os.PathLike,
) -> None:
    """Write the published weights and their fingerprint into each network's bundle, then assemble the cascade.

    Nothing is written before all four files are found to fit. Beside each `model.pt` lies a `sources.json`, which names the file
    that was imported, its SHA-256 and what was assumed of it.

    Args:
        network: the cascade whose networks are the published ones.
        files: checkpoint of "stage1" and of each member by its name: a dictionary with "state_dict", or a state dict. One that
            does not say which octants its SwinUNETR takes gets those of MONAI 1.4.0.
        sources: folder of each network's `model.pt` and `fingerprint.json`; other weights there are kept aside. A network with
            octants of its own goes to the folder `published` there, since the plain network of the bundle would refuse it.
        fingerprint: the numbers with which the published networks were trained.
        ckpt_dir: folder for the cascade's `model.pt` and `fingerprint.json`.

    Raises:
        InputError: when a file is missing, unreadable, or does not fit its network in every tensor.
    """
    networks = networks_of(network)
    imported: dict[str, Sources] = {}
    for name, part in networks.items():
        file = files.get(name)
        if file is None or not Path(file).is_file():
            given = "no file is given" if file is None else f"{file} {'is a folder' if Path(file).is_dir() else 'does not exist'}"
            raise InputError(
                f"{given} for {type(part).__name__}: name all four published files with --dynunet, --segresnet, --swinunetr, --unet"
            )
        assumed = _load(part, file)
        imported[name] = {name: {"file": Path(file).name, "sha256": digest_of(file), "assumed": assumed}}
    folders = {name: _folder(part, Path(sources[name])) for name, part in networks.items()}
    for name, part in networks.items():
        save_weights(part, fingerprint, folders[name])
        write_sources(folders[name], imported[name])
    assemble(network, folders, ckpt_dir)


def _load(network: nn.Module, file: str | os.PathLike) -> list[str]:
    """Load published weights, and return what had to be assumed of them."""
    state = read_state_dict(file, REMEDY)
    unsaid = {name: as_tensor(MONAI_1_4) for name in names_of_octants(network) if name not in state}
    put_weights(network, state | unsaid, file, REMEDY)
    return [ASSUMED] if unsaid else []


def _folder(network: nn.Module, folder: Path) -> Path:
    """Return the folder for the weights of a network, given that of its bundle's own weights."""
    return folder / PUBLISHED if names_of_octants(network) else folder
