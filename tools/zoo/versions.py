"""Whether metadata.json names the packages that a bundle imports, in versions that the zoo's continuous integration can install."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

from lowest import requirements
from packaging.utils import canonicalize_name
from packaging.version import Version

from zoo.copies import read
from zoo.verdicts import FaultError, SkippedError

# What MONAI imports only for a component that a config names.
OPTIONAL_IMPORTS = {
    "nibabel": ("LoadImage", "Nibabel"),
    "pytorch-ignite": ("Trainer", "Evaluator"),
    "tensorboard": ("TensorBoard",),
    "tqdm": ("ProgressBar",),
    "einops": ("SwinUNETR",),
}
# The zoo installs `name==version` of everything in metadata.json for this Python (ci/run_premerge_gpu.sh in its repository),
# on Linux. A version without a wheel for it ends a pull request before any check.
ZOO_PYTHON = "3.10"
ZOO_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def named_versions(bundle: Path) -> dict[str, str]:
    """Return name and version of every package in a bundle's metadata.json."""
    content = read(bundle / "configs/metadata.json")
    fields = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    return {**content["required_packages_version"], **{name: content[field] for name, field in fields.items()}}


def imported_packages(bundle: Path) -> set[str]:
    """Return the packages that a bundle's configs and Python import, MONAI's own included."""
    configs = [file for file in (bundle / "configs").glob("*.json") if file.name != "metadata.json"]
    text = "".join(file.read_text(encoding="utf-8") for file in configs)
    modules = set(re.findall(r'"\$import (\w+)', text))
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in bundle.glob("petct_*/**/*.py")]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    distributions = importlib.metadata.packages_distributions()
    others = modules - set(sys.stdlib_module_names) - {"petct_cascade", "petct_training"}
    # Python 3.10 does not find out the modules of all distributions; such a module has the distribution's name.
    used = {canonicalize_name(distributions.get(module, [module])[0]) for module in others}
    used |= {name for name, words in OPTIONAL_IMPORTS.items() if any(word in text for word in words)}
    # What pydicom finds by itself: it decodes compressed pixels.
    used |= {"python-gdcm"} if "pydicom" in used else set()
    # The command line of monai.bundle.
    return used | {"fire"}


def packages(bundle: Path) -> str:
    """The packages in metadata.json are those that configs and Python import, in versions that pyproject.toml allows."""
    named = named_versions(bundle)
    required = set(read(bundle / "configs/metadata.json")["required_packages_version"])
    different = sorted(required ^ (imported_packages(bundle) - {"monai", "torch", "numpy"}))
    if different:
        words = {True: "named and not imported", False: "imported and not named"}
        raise FaultError("; ".join(f"{name} is {words[name in required]}" for name in different))
    for requirement in requirements():
        if requirement.name in named and named[requirement.name] not in requirement.specifier:
            raise FaultError(
                f"{requirement.name} {named[requirement.name]} is not {requirement.specifier}, as pyproject.toml asks"
            )
    return ", ".join(sorted(named))


@functools.cache
def versions_for_the_zoo(name: str) -> list[str]:
    """Return the versions of a package that the package index has as a wheel for the zoo's Python, the newest first.

    Raises:
        SkippedError: when the index names none: it cannot be reached.
    """
    platforms = [option for platform in ZOO_PLATFORMS for option in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "index", "versions", name, "--python-version", ZOO_PYTHON, *platforms]
    done = subprocess.run([*command, "--only-binary", ":all:"], capture_output=True, text=True, check=False)
    found = re.search(r"^Available versions: (.*)$", done.stdout, flags=re.MULTILINE)
    if found is None:
        raise SkippedError(f"the package index that pip is set up for names no version of {name} for Python {ZOO_PYTHON}")
    return found[1].split(", ")


def resolvable(bundle: Path) -> str:
    """Every version in metadata.json can be installed by the zoo's Python."""
    faults = []
    for name, version in named_versions(bundle).items():
        versions = versions_for_the_zoo(name)
        if Version(version) not in {Version(found) for found in versions}:
            faults.append(
                f"{name} {version} does not exist for Python {ZOO_PYTHON}, which the zoo runs: {versions[0]} is the last"
            )
    if faults:
        raise FaultError("; ".join(faults))
    return f"all exist for Python {ZOO_PYTHON}"
