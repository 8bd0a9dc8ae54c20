"""Promises of the command line's options: an unknown name or a senseless value is refused with a sentence."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from helpers import BUNDLES, NETWORKS
from monai.bundle import ConfigParser

from petct_cascade.gathering import gather
from petct_cascade.method import RECIPES, Method, plan
from petct_training.errors import InputError, boolean
from petct_training.options import (
    BEYOND_THE_PAPER,
    COUNTS,
    NUMBERS,
    RANGES,
    SHARES,
    SWITCHES,
    TRIPLES,
    check_names,
    check_options,
    check_taken,
    check_values,
)


@pytest.fixture
def config(tmp_path) -> str:
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"learning_rate": 0.1, "train": {"trainer": 1}, "coarse_mask_dir": "."}))
    return str(file)


@pytest.mark.parametrize("name", ["learning_rate", "train::trainer::max_epochs", "train#trainer", "+train", "config_file"])
def test_ids_of_the_configs_and_options_of_monai_are_known(name, config):
    check_names({name: "1"}, [config], {})


def test_ids_of_experiment_tracking_are_known_where_it_is_asked_for(config, tmp_path):
    check_names({"tracking": "mlflow", "tracking_uri": "sqlite:///a.db", "experiment_name": "mine"}, [config], {})
    own = tmp_path / "own.json"
    own.write_text('{"handlers_id": {}, "configs": {"project": "mine"}}')
    check_names({"tracking": str(own), "project": "other"}, [config], {})
    with pytest.raises(InputError, match="--tracking_uri is not known"):
        check_names({"tracking_uri": "sqlite:///a.db"}, [config], {})


def test_an_unknown_option_is_refused_with_the_nearest_known_one(config):
    with pytest.raises(InputError, match=r"^--learning_rat is not known: did you mean --learning_rate"):
        check_names({"learning_rat": "1"}, [config], {})


def test_an_unknown_option_that_is_like_no_other_is_refused_with_the_file_that_has_them_all(config):
    with pytest.raises(InputError, match=f"^--formats is not known: options are the ids of {re.escape(config)}$"):
        check_names({"formats": "['seg']"}, [config], {})


def test_a_former_name_is_refused_with_the_present_one(config):
    with pytest.raises(InputError, match=r"^--stage1_dir is not known any more: give --coarse_mask_dir$"):
        check_names({"stage1_dir": "a"}, [config], {"stage1_dir": "coarse_mask_dir"})


SCORE = BUNDLES / "autopet_ensemble/configs/score.json"


def plain_ids(file: Path) -> list[str]:
    """The ids of a config that are values of their own, and so options."""
    return [name for name, value in json.loads(file.read_text()).items() if not isinstance(value, dict) and str(value)[:1] != "@"]


@pytest.mark.parametrize(
    ("run_id", "left_aside"),
    [
        # What `gather` has no argument for, and neither does what its config runs before.
        (
            "report",
            {*plain_ids(SCORE)} - {*inspect.signature(gather).parameters, "_desc_", "imports", "bundle_root", "initialize"},
        ),
        ("score", {"weight", "height", "sex"}),
        ("run", {"weight", "height", "sex"}),
        ("readout", {"references", "dataset_dir", "allow_outside", "seed"}),
    ],
)
def test_an_option_that_only_another_run_of_the_config_reads_is_refused(run_id, left_aside):
    refused = set()
    for name in plain_ids(SCORE):
        with contextlib.suppress(InputError):
            check_taken({name: "1"}, [str(SCORE)], run_id)
            continue
        refused.add(name)
    assert refused == left_aside
    with pytest.raises(
        InputError, match=r"^report takes no --deidentified, which would change nothing: it is an option of score, readout$"
    ):
        check_taken({"deidentified": "true"}, [str(SCORE)], "report")


def test_the_windows_that_are_checked_are_those_of_the_ensembles_networks():
    windows = json.loads((BUNDLES / "autopet_ensemble/configs/inference.json").read_text())["patch_sizes"]
    check_values({"patch_sizes": str(windows)})
    with pytest.raises(InputError, match="give a size for each of "):
        check_values({"patch_sizes": str({**windows, "another": [96, 96, 96]})})


def test_an_option_of_no_run_of_the_configs_is_left_out():
    configs = [str(BUNDLES / f"autopet_ensemble/configs/{name}.json") for name in ("inference", "assemble")]
    with pytest.raises(InputError, match=r"^assemble takes no --viewer, which would change nothing: leave it out$"):
        check_taken({"viewer": "false"}, configs, "assemble")


def test_an_option_that_another_option_names_is_read(tmp_path):
    check_taken({"output_dir": "$@predictions + '/report'", "predictions": "a"}, [str(SCORE)], "report")


def test_every_option_of_the_steps_of_the_method_is_read(tmp_path):
    steps = [
        step
        for recipe in RECIPES
        for folds in (0, 3)
        for step in plan(Method(tmp_path / "raw", tmp_path / "work", BUNDLES, "demo", folds=folds, num_gpus=2, recipe=recipe))
    ]
    assert len(steps) > 20
    for step in steps:
        given = {name: str(value) for name, value in step.overrides.items()}
        check_taken(given, [str(step.bundle / file) for file in step.files], step.run_id)


def test_a_run_of_monai_bundle_ends_with_the_sentence(config, monkeypatch):
    arguments = ["/lib/monai/bundle/__main__.py", "run", "training", "--config_file", f"['{config}']", "--momentun", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"^error: --momentun is not known"):
        check_options()


def test_another_program_has_nothing_to_check(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/server", "run", "--momentun", "1"])
    check_options()


CUDA = torch.cuda.device_count()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("amp", word) for word in ("true", "False", "yes", "NO", "on", "off", "1", "0", "None")),
        *(("threshold", text) for text in ("0.5", "0", "1", "1e-3", "$@overlap")),
        *(("max_epochs", "1"), ("num_workers", "0"), ("overlap", "0.5")),
        *(
            ("output_dir", text)
            for text in ("out", "./2026_11_26", "'2026_11_26'", "/data/2026", "a b", "C:\\data", "true story")
        ),
        *(("device", "cpu"), ("suv_range", "[0,7]"), ("patch_size", "(64,64,32)"), ("case", "Anna 2"), ("gamma", "[1,1]")),
        ("network_def::channels", "[1, 2]"),
        ("config_file", "['configs/train.json','configs/demo.json']"),
    ],
)
def test_values_that_make_sense_are_taken(name, text):
    check_values({name: text})


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("threshold", "50", "--threshold is 50: give a number from 0 to 1"),
        ("threshold", "half", "--threshold is half: give a number from 0 to 1"),
        ("flip_prob", "-0.1", "--flip_prob is -0.1: give a number from 0 to 1"),
        ("overlap", "1", "--overlap is 1: give a share from 0 to 0.99 of a window"),
        ("max_epochs", "0", "--max_epochs is 0: give a whole number, 1 or more"),
        ("part", "0", "--part is 0: give a whole number from 1 to --of, since parts count from 1"),
        ("max_epochs", "2.5", "--max_epochs is 2.5: give a whole number, 1 or more"),
        ("num_workers", "True", "--num_workers is True: give a whole number, 0 or more"),
        ("amp", "maybe", "amp is 'maybe': give true or false"),
        ("mirror", "[[0],[1]]", "--mirror is [[0],[1]]: give axes among 0, 1 and 2, such as [0,1]"),
        (
            "patch_sizes",
            "{'UNet':[96,96,96]}",
            "--patch_sizes is {'UNet':[96,96,96]}: give a size for each of DynUNet, SegResNet, SwinUNETR, UNet, such as "
            "{'DynUNet': [96,96,96], ...}",
        ),
        ("ct_shift", "[2,-1,0]", "--ct_shift is [2,-1,0]: give the most voxels along x, y, z, such as [2,2,0]"),
        ("patch_size", "[96,96]", "--patch_size is [96,96]: give three whole numbers of voxels, such as [96,96,96]"),
        ("output_dir", "2026_11_26", "--output_dir is 2026_11_26, which is read as 20261126: write --output_dir ./2026_11_26"),
        ("output_dir", "20261126", "--output_dir is 20261126, which is read as 20261126: write --output_dir ./20261126"),
        ("studies", "Doe,Jane", "--studies is Doe,Jane, which is read as ('Doe', 'Jane'): write --studies ./Doe,Jane"),
        (
            "ckpt_dir",
            "run#2",
            "--ckpt_dir is run#2, and MONAI changes the sign # in it: use the command petct, or a name without it",
        ),
        ("model_file", "1.0", "--model_file is 1.0, which is read as 1.0: write --model_file ./1.0"),
    ],
)
def test_values_that_make_no_sense_are_refused(name, text, sentence):
    with pytest.raises(InputError) as refusal:
        check_values({name: text})
    assert str(refusal.value) == sentence


def test_every_number_of_the_configs_has_a_range():
    """Of the ids on the top level, which `--help` and the tables of the READMEs name."""
    ranged = {*SWITCHES, *SHARES, *COUNTS, *NUMBERS, *RANGES, *TRIPLES}
    for file in BUNDLES.glob("*/configs/*.json"):
        for name, value in ConfigParser.load_config_file(file).items():
            if "::" not in name and is_number_or_numbers(value):
                assert name in ranged, f"{file}: {name}"
                check_values({name: str(value)})


def is_number_or_numbers(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(number, (int, float)) for number in values)


@pytest.mark.parametrize("value", ["", "2", 2, None, "truefalse", [True]])
def test_what_is_no_truth_value_is_refused(value):
    with pytest.raises(InputError, match="give true or false"):
        boolean("amp", value)


def test_word_that_is_no_choice_is_refused_with_the_choices():
    check_values({"dicom_segments": "one"})
    with pytest.raises(InputError, match="--dicom_segments is two: give lesions or one"):
        check_values({"dicom_segments": "two"})


@pytest.mark.parametrize("bundle", NETWORKS)
def test_every_option_beyond_the_paper_is_off_and_part_of_a_trainings_state(bundle):
    config = ConfigParser.load_config_file(BUNDLES / bundle / "configs/train.json")
    remembered = {name: value for name, value in config["beyond_the_paper"].items() if name != "_target_"}
    assert remembered == {name: f"@{name}" for name in remembered}
    assert {*remembered} == {name for name in BEYOND_THE_PAPER if name in config}
    for name in remembered:
        assert config[name] == BEYOND_THE_PAPER[name], name
