"""A developer's tool: prints pip's constraints for the lowest version of each requirement that pyproject.toml allows.

    python tools/lowest.py [NAME==VERSION ...]

What is given instead takes the place of the lowest version: `torch==2.13.0` where no earlier one can be had.
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def requirements() -> list[Requirement]:
    """Return the requirements of those who use the package."""
    lines = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [Requirement(line) for line in lines]


def lowest(requirement: Requirement) -> str:
    """Return the lowest version that a requirement allows, such as "1.26".

    Raises:
        ValueError: when it names none: such a requirement promises what nobody can run.
    """
    bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{requirement} has no lower bound: give it one, such as {requirement.name}>=1.0")
    return bounds[0]


def constraints(instead: list[str]) -> list[str]:
    """Return a constraint for each requirement. Pip takes `==1.26` for 1.26.0, and `==0.5.0.*` also for its post-releases.

    Args:
        instead: constraints, such as "torch==2.13.0", that take the place of the one for the same package.
    """
    given = {Requirement(line).name: line for line in instead}
    found = [(requirement.name, lowest(requirement)) for requirement in requirements()]
    return [
        given.get(name, f"{name}=={version}.*" if version.count(".") == 2 else f"{name}=={version}.0.*")
        for name, version in found
    ]


if __name__ == "__main__":
    print("\n".join(constraints(sys.argv[1:])))
