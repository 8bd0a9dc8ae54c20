"""Fixtures that several test modules share: a tiny prepared data set, and weights of a small cascade."""

from __future__ import annotations

import os

# The tests compare with what a CPU computes, bit for bit. So neither they nor the commands that they start see a GPU. It is
# hidden before anything looks for one, since PyTorch looks only once.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Tests run side by side, one a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import BUNDLES, ENSEMBLE, FINGERPRINT, parser_of, write_prepared
from hypothesis import settings

from petct_cascade.assemble import MEMBERS_ENTRY

# Whether a change passes does not hang on chance: cases are drawn alike in each run, unless others are asked for.
settings.register_profile("alike", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "alike"))


# The loggers that the bundles' logging configs name, and the root.
CONFIGURED_LOGGERS = {""} | {
    name for path in BUNDLES.glob("*/configs/logging*.conf") for name in re.findall(r"^qualname=(.+)", path.read_text(), re.M)
}


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """No test leaves a logger that writes to a stream which closes with the test."""
    loggers = [logging.getLogger(name) for name in CONFIGURED_LOGGERS]
    before = [(logger, logger.level, logger.propagate, [*logger.handlers]) for logger in loggers]
    yield
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A tiny prepared data set that no test changes."""
    return write_prepared(tmp_path_factory.mktemp("prepared") / "set")


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with random weights of the demo profile's cascade without SwinUNETR, its slowest network, and their fingerprint."""
    return write_models(tmp_path_factory.mktemp("models"), ["SegResNet", "UNet"])


@pytest.fixture(scope="session")
def whole_models(tmp_path_factory) -> Path:
    """The same with all members."""
    return write_models(tmp_path_factory.mktemp("models"), ["SegResNet", "SwinUNETR", "UNet"])


def write_models(folder: Path, members: list[str]) -> Path:
    """Write random weights of the demo profile's cascade with some members, and their fingerprint."""
    (folder / "fingerprint.json").write_text(json.dumps(FINGERPRINT | {MEMBERS_ENTRY: members}))
    torch.manual_seed(0)
    parser = parser_of(ENSEMBLE, "inference", "demo")
    parser["ckpt_dir"] = str(folder)
    network = parser.get_parsed_content("network_def")
    for name, parameter in network.named_parameters():
        # Random weights give probabilities on one side of 0.5: spread them.
        if name.endswith("weight"):
            parameter.data *= 1.5
    torch.save(network.state_dict(), folder / "model.pt")
    return folder
