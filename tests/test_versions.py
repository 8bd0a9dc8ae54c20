"""Promises of the versions that users may have: each lower bound can be run, and private parts of others are held by an upper one."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys

import lowest
import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import petct_cascade
import petct_training

REQUIREMENTS = {requirement.name: requirement for requirement in lowest.requirements()}
OURS = ("petct_cascade", "petct_training")
# PyTorch's documentation of this method says how subclasses replace it.
FOR_SUBCLASSES = ("_load_from_state_dict",)


def our_classes() -> list[type]:
    """Return every class that the bundles' Python defines."""
    found = []
    for package in (petct_cascade, petct_training):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # One that needs what is not installed here, such as MONAI Deploy, is left out.
            with contextlib.suppress(ModuleNotFoundError):
                content = vars(importlib.import_module(module.name)).values()
                found += [item for item in content if inspect.isclass(item) and item.__module__ == module.name]
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in ("_abc_impl", *FOR_SUBCLASSES)


def private_parts(kind: type) -> dict[str, set[str]]:
    """Return the private names of other packages' classes that a class replaces, or uses through `self`, by package."""
    bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in OURS]
    text = "".join(inspect.getsource(base) for base in kind.__mro__ if base not in bases)
    own = set(re.findall(r"self\.(_\w+)\b[^=\n]* = |def (_\w+)\(", text))
    own_names = {name for pair in own for name in pair}
    used = {name for name in re.findall(r"self\.(_[a-z]\w*)", text) if is_private(name)} | set(filter(is_private, vars(kind)))
    found: dict[str, set[str]] = {}
    for base in bases:
        names = {name for name in used if name in vars(base) and name != "_fields"}
        if names:
            found.setdefault(base.__module__.partition(".")[0], set()).update(names)
    unknown = {name for name in used - own_names if not any(name in vars(base) for base in kind.__mro__)}
    if unknown and len(bases) > 1:
        found.setdefault(bases[0].__module__.partition(".")[0], set()).update(unknown)
    return found


def test_private_parts_of_other_packages_are_held_by_an_upper_bound_at_the_next_minor_version():
    modules = importlib.metadata.packages_distributions()
    packages = {package for kind in our_classes() for package in private_parts(kind)} - set(sys.stdlib_module_names)
    assert "monai" in packages
    for name in (canonicalize_name(modules[package][0]) for package in packages):
        here = Version(importlib.metadata.version(name))
        assert f"{here.major}.{here.minor + 1}" not in REQUIREMENTS[name].specifier, f"{name} needs an upper bound"


def test_parts_of_monai_are_private_that_a_class_replaces_or_uses():
    from petct_cascade.metrics import LesionMetrics

    assert private_parts(LesionMetrics) == {"monai": {"_compute_tensor"}}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_has_a_lower_bound_that_the_tested_version_satisfies(name):
    assert Version(lowest.lowest(REQUIREMENTS[name])) <= Version(importlib.metadata.version(name))


def test_constraints_are_the_lower_bounds_but_for_what_is_given_instead():
    done = subprocess.run([sys.executable, ROOT / "tools/lowest.py", "torch==2.13.0"], capture_output=True, text=True, check=True)
    found = {requirement.name: requirement for requirement in map(Requirement, done.stdout.splitlines())}
    assert set(found) == set(REQUIREMENTS)
    assert str(found["torch"]) == "torch==2.13.0"
    # Ignite's 0.5.0 exists only as a post-release.
    assert "0.5.0.post2" in found["pytorch-ignite"].specifier
    assert "0.5.1" not in found["pytorch-ignite"].specifier
    assert "1.6.1" in found["monai"].specifier


def test_requirement_without_a_lower_bound_is_an_error():
    with pytest.raises(ValueError, match="numpy<3 has no lower bound"):
        lowest.lowest(Requirement("numpy<3"))
