"""Promises of options inside of a config's objects: what is not there is refused, as MONAI itself would, but in a sentence."""

import contextlib
import json
import sys

import pytest
from helpers import BUNDLES
from monai.bundle import ConfigParser

from petct_training.errors import InputError
from petct_training.nested import check_nested
from petct_training.options import check_options

STAGE1 = BUNDLES / "autopet_stage1_dynunet/configs/train.json"
CONFIG = {
    "amp": True,
    "noise": {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.1},
    "train": {"steps": ["@noise", {"_target_": "Compose"}], "anything": {"_target_": "builtins.dict"}},
    "metrics": {"dice": 1},
    "handler": {"_target_": "builtins.dict", "metrics": "@metrics"},
    "own": {"_target_": "$print"},
}


def check(**given):
    check_nested(given, CONFIG, "--{} is not known")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("noize::prob", "the config has no noize: did you mean noise?"),
        ("train::step::0", "train has no step: did you mean steps?"),
        ("train#step#0", "train has no step: did you mean steps?"),
        ("train::steps::2", "train::steps has 2 entries, which count from 0"),
        ("train::steps::-3", "train::steps has 2 entries, which count from 0"),
        ("train::steps::first", "train::steps has 2 entries, which count from 0"),
        ("amp::on", "amp has no parts"),
        ("noise::probb", "RandGaussianNoised takes no probb: did you mean prob?"),
        ("noise::zzz", "RandGaussianNoised takes no zzz; there are keys, prob, "),
        ("train::steps::1::transform", "Compose takes no transform: did you mean transforms?"),
        ("train::step", "train has no step: did you mean steps?"),
    ],
)
def test_a_part_that_is_not_there_is_refused_with_what_there_is(name, said):
    before = json.dumps(CONFIG)
    with pytest.raises(InputError) as error:
        check(**{name: 1})
    assert str(error.value).startswith(f"--{name} is not known: {said}")
    assert json.dumps(CONFIG) == before


@pytest.mark.parametrize(
    "given",
    [
        {"noise::prob": 0.2},
        # An argument that the config leaves as it is, and what MONAI reads itself.
        {"noise::std": 0.2, "noise::_disabled_": True},
        {"train::steps::0": "@other", "train::steps::1::transforms": []},
        # MONAI counts from the end, too.
        {"train::steps::-2": "@other", "train::steps::-1::transforms": []},
        # What takes any argument, and what only the run knows.
        {"train::anything::more": 1, "own::more": 1},
        # A part that is read: as one of a dictionary, or because another option names it.
        {"metrics::sensitivity": 2},
        {"train::more": 1, "train::steps": ["%train::more"]},
        {"train::more": {"a": 1}, "train::steps::0": "@train::more::a"},
        {"noise": {"_target_": "RandFlipd"}, "noise::spatial_axis": 1},
        {"amp": False},
    ],
)
def test_what_monai_takes_is_taken(given):
    check(**given)
    ConfigParser(json.loads(json.dumps(CONFIG))).update(given)


@pytest.mark.parametrize("name", ["noize::prob", "train::step::0", "train::steps::2", "amp::on"])
def test_monai_has_no_such_path_either(name):
    with pytest.raises((KeyError, IndexError, ValueError, TypeError)):
        ConfigParser(json.loads(json.dumps(CONFIG))).update({name: 1})


def test_the_value_of_an_option_stays_as_it_is():
    own = {"_target_": "RandFlipd"}
    check(**{"noise": own, "noise::prob": 0.5})
    assert own == {"_target_": "RandFlipd"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "train::trainer::max_epoch",
            "--train::trainer::max_epoch is not known: SupervisedTrainer takes no max_epoch: did you mean",
        ),
        ("train::num_worker", "--train::num_worker is not known: train has no num_worker"),
        ("train::trainer::val_handlers", "SupervisedTrainer takes no val_handlers: did you mean train_handlers?"),
        ("optimizer::lrr", "--optimizer::lrr is not known: torch.optim.SGD takes no lrr: did you mean lr?"),
        ("optimizer::dampening", None),
    ],
)
def test_a_training_ends_with_the_sentence_before_it_makes_an_object(monkeypatch, option, said):
    arguments = ["/lib/monai/bundle/__main__.py", "run", "training", "--config_file", str(STAGE1), f"--{option}", "0.5"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) if said else contextlib.nullcontext() as end:
        check_options()
    if said:
        assert said in str(end.value)
        assert "\n" not in str(end.value)
