"""The wheel's Python as packages of its own, beside the bundles, so that `import petct_cascade` works.

An editable installation takes both packages from the bundle's folder instead: copies would grow old.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("petct_cascade", "petct_training")


class PackagesBesideBundles(BuildHookInterface):
    """Add the ensemble's packages to the top of the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Say what a wheel of a version ("standard" or "editable") holds besides what pyproject.toml names."""
        if version == "standard":
            build_data["force_include"] |= {f"bundles/autopet_ensemble/{package}": package for package in PACKAGES}
