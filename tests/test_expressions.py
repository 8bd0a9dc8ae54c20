"""Promises of the configs' expressions: short, and no program of their own."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import BUNDLES

LONGEST = 120
CONFIGS = sorted(BUNDLES.glob("*/configs/*.json"))


def expressions(content: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every `$` expression of a config, with its path."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from expressions(value, f"{path}::{key}")
    elif isinstance(content, str) and content.startswith("$"):
        yield path, content[1:]


def parsed(expression: str) -> ast.AST:
    """The syntax of an expression, whose references become names."""
    return ast.parse(re.sub(r"@[\w:#]+", "reference", expression.strip()))


def is_an_attribute_of_its_argument(function: ast.Lambda) -> bool:
    """Whether a lambda takes one argument and gives an attribute of it, as `lambda x: x.attr` does."""
    names = [argument.arg for argument in function.args.args]
    body = function.body
    while isinstance(body, ast.Attribute):
        body = body.value
    return isinstance(function.body, ast.Attribute) and isinstance(body, ast.Name) and names == [body.id]


def faults(expression: str) -> list[str]:
    """What an expression has that it must not have."""
    found = [f"{len(expression) + 1} characters"] if len(expression) + 1 > LONGEST else []
    for node in ast.walk(parsed(expression)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rsplit(".", 1)[-1] in ("exit", "_exit", "quit", "abort", "throw", "eval", "exec"):
                found.append(f"calls {name}")
        if isinstance(node, ast.Lambda) and not is_an_attribute_of_its_argument(node):
            found.append("holds a function")
    return found


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_every_expression_is_short_ends_nothing_and_holds_no_function(file: Path):
    found = [
        f"{path}: {', '.join(faults(text))}: ${text}" for path, text in expressions(json.loads(file.read_text())) if faults(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("1 if @a else sys.exit('error')", "calls sys.exit"),
        ("(_ for _ in ()).throw(@error)", "throw"),
        ("lambda x: x.meta.name", None),
        ("lambda x: x + 1", "holds a function"),
        ("lambda x: @picture.attr", "holds a function"),
        ("lambda x, y: x.attr", "holds a function"),
        ("'" + "a" * LONGEST + "'", "characters"),
        ("@train::items + @validate::items", None),
        ("import os", None),
    ],
)
def test_this_test_finds_what_it_looks_for(expression, fault):
    found = faults(expression)
    assert (fault in " ".join(found)) if fault else not found
