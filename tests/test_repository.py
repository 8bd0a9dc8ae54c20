"""Promises of the repository itself: one version, and how its tests hang together."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import viewer
from helpers import BUNDLES, ENSEMBLE, ENVIRONMENT, NETWORKS, ROOT

TESTS = sorted(Path(__file__).parent.glob("*.py"))


def imported_modules(file: Path) -> set[str]:
    """Return the modules that a Python file imports, at its top or within a function."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_no_test_module_is_imported(file):
    assert not imported_modules(file) & {test.stem for test in TESTS if test.stem.startswith("test_") or test.stem == "conftest"}


def test_no_gpu_is_seen_by_the_tests_nor_by_the_commands_that_they_start():
    assert not torch.cuda.is_available()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ENVIRONMENT["CUDA_VISIBLE_DEVICES"] == ""
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def project_version() -> str:
    """Return the version in pyproject.toml, the one place where it is decided."""
    return re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]


@pytest.mark.parametrize("bundle", [*NETWORKS, ENSEMBLE])
def test_every_bundle_has_the_version_of_the_project(bundle):
    assert json.loads((BUNDLES / bundle / "configs/metadata.json").read_text(encoding="utf-8"))["version"] == project_version()


@pytest.mark.parametrize(("file", "pattern"), [("CHANGELOG.md", r"^## \[(.+?)\]"), ("CITATION.cff", r'^version: "?([^"\n]+)')])
def test_changelog_and_citation_have_the_version_of_the_project(file, pattern):
    versions = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert versions[0] == project_version()


def test_the_changelog_says_nothing_twice():
    entries = re.findall(r"^- .*?(?=^\S|^$)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(entries) > 20
    assert len(set(entries)) == len(entries)


# Folders of users on Linux, macOS and Windows. What a container's image has at a fixed place is none of them.
PLACE = re.compile(r"(?<![\w.:/])(?:/home/|/Users/|/root/|/mnt/|[A-Za-z]:[\\/]+Users)")
OURS = ("bundles", "benchmarks", "tools", "container", "examples", "docs", ".github", ".ci")
TEXTS = (".py", ".json", ".md", ".toml", ".txt", ".yml", ".yaml", ".sh", ".j2", ".js", ".css", ".cff", ".conf", "")


def files_of_ours() -> list[Path]:
    """The text files of the project, but for what others have written, and for tests, which need bad examples."""
    found = [file for folder in OURS for file in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    texts = [file for file in found if file.is_file() and file.suffix in TEXTS and "__pycache__" not in file.parts]
    return sorted(file for file in texts if file.parent != viewer.FOLDER)


def test_no_file_names_a_place_on_somebodys_machine():
    files = files_of_ours()
    assert ROOT / "bundles/autopet_ensemble/configs/inference.json" in files
    assert ROOT / "Makefile" in files
    assert [file for file in files if PLACE.search(file.read_text(encoding="utf-8", errors="replace"))] == []


@pytest.mark.parametrize("text", ["'/home/me/data'", "--studies /Users/me/raw", r'"C:\Users\me"', "/root/.cache", "=/mnt/disk"])
def test_such_a_place_would_be_found(text):
    assert PLACE.search(text)


def test_the_viewer_that_others_have_written_is_unchanged():
    """Any path or address in it is theirs, such as the home that Emscripten makes up for code in WebAssembly."""
    assert hashlib.sha256((viewer.FOLDER / "niivue.js").read_bytes()).hexdigest() == viewer.SHA256
