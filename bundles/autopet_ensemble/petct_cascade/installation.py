"""Where the bundles lie: in a clone of the repository, or beside the installed package."""

from __future__ import annotations

import importlib.resources
from pathlib import Path


def ensemble_folder() -> Path:
    """Return the folder of the ensemble's bundle: that in which this package lies, or else the installed one."""
    parent = Path(str(importlib.resources.files("petct_cascade"))).resolve().parent
    return parent if (parent / "configs").is_dir() else parent / "autopet_bundles/autopet_ensemble"
