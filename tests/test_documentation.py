"""Promises of the documents: every `monai.bundle run` in them names an id, configs and options that exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import BUNDLES, ROOT

ENSEMBLE = "autopet_ensemble"
# Options of monai.bundle itself, and ids that only its experiment tracking reads.
OPTIONS = {"config_file", "tracking", "tracking_uri"}


def documented() -> list[tuple[str, str, str]]:
    """Document, bundle and command of every `monai.bundle run` in the documents, with continued lines joined."""
    found = []
    for file in sorted({ROOT / "README.md", *ROOT.glob("docs/*.md"), *BUNDLES.glob("*/docs/*.md")}):
        if not file.is_file():
            continue
        bundle = file.parents[1].name if file.is_relative_to(BUNDLES) else ENSEMBLE
        for line in file.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            if change := re.match(r"^    cd bundles/(\w+)", line):
                bundle = change.group(1)
            if re.match(r"^    .*-m monai\.bundle run ", line):
                found.append((str(file.relative_to(ROOT)), bundle, line.strip()))
    return found


@pytest.mark.parametrize(("document", "bundle", "command"), documented())
def test_every_documented_run_names_what_exists(document, bundle, command):
    words = shlex.split(command)
    run_id = words[words.index("run") + 1]
    options = {
        word.removeprefix("--"): words[index + 1]
        for index, word in enumerate(words)
        if word.startswith("--") and index > words.index("run")
    }
    files = options["config_file"]
    configs: dict = {}
    for name in ast.literal_eval(files) if files.startswith("[") else [files]:
        configs |= json.loads((Path(BUNDLES) / bundle / name).read_text())
    assert run_id in configs, f"{document}: {run_id} is no id of {files}"
    assert set(options) - OPTIONS <= set(configs), f"{document}: {set(options) - OPTIONS - set(configs)} are no ids of {files}"


@pytest.mark.parametrize("document", ["docs/integrations.md", "README.md"])
def test_every_documented_make_has_a_target(document):
    if not (ROOT / document).is_file():
        pytest.skip(f"{document} is absent")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"^    make ([a-z-]+)", (ROOT / document).read_text(), flags=re.MULTILINE)
    assert named
    assert set(named) <= set(targets)
