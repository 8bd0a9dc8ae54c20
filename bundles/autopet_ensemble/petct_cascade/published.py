"""The authors' published weights in our bundles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petct_cascade.assemble import assemble, networks_of
from petct_cascade.cascade import Cascade
from petct_training.errors import InputError
from petct_training.weights import load_weights, save_weights

REMEDY = "give the file that the authors published for this network, with its full-size configs"


def import_weights(
    network: Cascade,
    files: Mapping[str, str | os.PathLike | None],
    sources: Mapping[str, str | os.PathLike],
    fingerprint: Mapping[str, Any],
    ckpt_dir: str | os.PathLike,
) -> None:
    """Write the published weights and their fingerprint into each network's bundle, then assemble the cascade.

    Nothing is written before all four files are found to fit.

    Args:
        network: the cascade whose networks are the published ones.
        files: checkpoint of "stage1" and of each member by its name: a dictionary with "state_dict", or a state dict.
        sources: folder of each network's `model.pt` and `fingerprint.json`, which are replaced.
        fingerprint: the numbers with which the published networks were trained.
        ckpt_dir: folder for the cascade's `model.pt` and `fingerprint.json`.

    Raises:
        InputError: when a file is missing, unreadable, or does not fit its network in every tensor.
    """
    networks = networks_of(network)
    for name, part in networks.items():
        file = files.get(name)
        if file is None or not Path(file).is_file():
            given = "no file is given" if file is None else f"{file} does not exist"
            raise InputError(
                f"{given} for {type(part).__name__}: name all four published files with --dynunet, --segresnet, --swinunetr, --unet"
            )
        load_weights(part, file, REMEDY)
    for name, part in networks.items():
        save_weights(part, fingerprint, Path(sources[name]))
    assemble(network, sources, ckpt_dir)
