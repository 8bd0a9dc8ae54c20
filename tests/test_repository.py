"""Promises of the repository itself: one version, and how its tests hang together."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
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
