"""Promises of the command line's options: one that no config knows is refused with a sentence."""

from __future__ import annotations

import json
import sys

import pytest

from petct_training.errors import InputError
from petct_training.options import check_names, check_options


@pytest.fixture
def config(tmp_path) -> str:
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"learning_rate": 0.1, "train": {"trainer": 1}, "coarse_mask_dir": "."}))
    return str(file)


@pytest.mark.parametrize("name", ["learning_rate", "train::trainer::max_epochs", "train#trainer", "+train", "config_file"])
def test_ids_of_the_configs_and_options_of_monai_are_known(name, config):
    check_names({name: "1"}, [config], {})


def test_an_unknown_option_is_refused_with_the_nearest_known_one(config):
    with pytest.raises(InputError, match=r"^--learning_rat is not known: did you mean --learning_rate"):
        check_names({"learning_rat": "1"}, [config], {})


def test_a_former_name_is_refused_with_the_present_one(config):
    with pytest.raises(InputError, match=r"^--stage1_dir is not known any more: give --coarse_mask_dir$"):
        check_names({"stage1_dir": "a"}, [config], {"stage1_dir": "coarse_mask_dir"})


def test_a_run_of_monai_bundle_ends_with_the_sentence(config, monkeypatch):
    arguments = ["/lib/monai/bundle/__main__.py", "run", "training", "--config_file", f"['{config}']", "--momentun", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"^error: --momentun is not known"):
        check_options()


def test_another_program_has_nothing_to_check(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/server", "run", "--momentun", "1"])
    check_options()
