"""Promises of the repository itself: how its tests hang together."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = sorted(Path(__file__).parent.glob("*.py"))


def imported_modules(file: Path) -> set[str]:
    """Return the modules that a Python file imports, at its top or within a function."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_no_test_module_is_imported(file):
    assert not imported_modules(file) & {test.stem for test in TESTS if test.stem.startswith("test_") or test.stem == "conftest"}
