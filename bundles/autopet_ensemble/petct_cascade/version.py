"""The version of this program, as its metadata say it, and those of the packages that change voxels."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from pathlib import Path

from petct_training.files import read_json_or_none


def versions() -> dict[str, str]:
    """Return the versions of this program, of MONAI and of PyTorch, by their names."""
    return {"autopet_ensemble": program_version(), **{name: importlib.metadata.version(name) for name in ("monai", "torch")}}


def program_version() -> str:
    """Return the version in the bundle's `configs/metadata.json`, beside this package or among the installed bundles; "unknown"
    when there is none.
    """
    folder = Path(str(importlib.resources.files("petct_cascade"))).parent
    for place in (folder, folder / "autopet_bundles/autopet_ensemble"):
        metadata = read_json_or_none(place / "configs/metadata.json")
        if metadata is not None:
            return str(metadata["version"])
    return "unknown"
