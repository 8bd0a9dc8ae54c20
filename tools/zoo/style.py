"""The Model Zoo's style, in which bundles are packed.

The options are those of runtests.sh, setup.cfg, pyproject.toml and .pre-commit-config.yaml in the zoo's repository.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from zoo.verdicts import FaultError

LINE_LENGTH = "120"
ISORT = ("isort", "--quiet", "--profile", "black", "--line-length", LINE_LENGTH, "--project", "models")
BLACK = ("black", "--quiet", "--line-length", LINE_LENGTH, "--skip-magic-trailing-comma")
# It writes what black would, up to rare exceptions, and black needs a third of the time where nothing is left to change.
RUFF = (
    "ruff",
    "format",
    "--quiet",
    "--isolated",
    "--line-length",
    LINE_LENGTH,
    "--config",
    "format.skip-magic-trailing-comma=true",
)
FLAKE8 = (
    *("flake8", "--isolated", "--max-line-length", LINE_LENGTH, "--select", "B,C,E,F,N,P,T4,W,B9"),
    *("--ignore", "E203,E501,E741,W503,W504,C408,N812,B023", "--per-file-ignores", "__init__.py: F401, __main__.py: F401"),
)
JSON = ("pre_commit_hooks.pretty_format_json", "--no-sort-keys", "--indent=4")


def _run(tool: tuple[str, ...], *arguments: str | Path) -> str:
    """Run a tool, and return what it says; empty if it finds nothing."""
    done = subprocess.run([sys.executable, "-m", *tool, *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr or f"{tool[0]} finds something"


def _json_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def apply_style(folder: Path) -> Path:
    """Rewrite the Python and JSON files of a folder in the zoo's style, and return the folder."""
    for tool in (ISORT, RUFF, BLACK):
        _run(tool, folder)
    _run(JSON, "--autofix", *_json_files(folder))
    return folder


def style(folder: Path) -> str:
    """What runtests.sh and the hooks of the zoo find: nothing."""
    said = [_run((*ISORT, "--check"), folder), _run((*BLACK, "--check"), folder), _run(FLAKE8, folder)]
    said.append(_run(JSON, *_json_files(folder)))
    found = "".join(said).replace(f"{folder}/", "")
    if found:
        raise FaultError(found)
    return f"isort, black, flake8 and pretty-format-json, {LINE_LENGTH} columns"
