"""Promises of gathering the four bundles' weights into one file."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
from helpers import BUNDLES, NAMES, STAGE1, STAGE2, make_cascade, networks_of, of_weights
from monai.bundle import ConfigParser

from petct_cascade.assemble import require_weights
from petct_cascade.commands import assemble
from petct_training.errors import InputError

FINGERPRINT = {
    "spacing": [2, 2, 3],
    "ct": {"percentile_00_5": -800, "percentile_99_5": 1000, "mean": 100, "std": 250},
    "pet": {"percentile_00_5": 1, "percentile_99_5": 40, "mean": 7, "std": 8},
    "num_cases": 10,
    "source": "made up",
}


@pytest.fixture
def trained(tmp_path) -> dict:
    """The folders of three trained networks, and the weights in them."""
    networks = networks_of(make_cascade())
    result = {}
    for name in NAMES:
        for tensor in networks[name].state_dict().values():
            if tensor.is_floating_point():
                tensor.normal_()
        folder = tmp_path / name
        folder.mkdir()
        torch.save(networks[name].state_dict(), folder / "model.pt")
        (folder / "fingerprint.json").write_text(json.dumps(FINGERPRINT))
        result[name] = folder
    return result


def refusal(trained, output) -> str:
    """The sentence with which assembling is refused."""
    with pytest.raises(SystemExit) as end:
        assemble(make_cascade(), trained, output)
    assert not output.exists()
    assert "\n" not in str(end.value)
    return str(end.value)


def test_assembled_file_gives_each_network_its_own_weights(trained, tmp_path):
    assemble(make_cascade(), trained, tmp_path / "out")
    cascade = make_cascade()
    cascade.load_state_dict(torch.load(tmp_path / "out/model.pt", weights_only=True))
    for name, network in networks_of(cascade).items():
        expected = torch.load(trained[name] / "model.pt", weights_only=True)
        state = network.state_dict()
        assert set(state) == set(expected)
        for key, tensor in expected.items():
            torch.testing.assert_close(state[key], tensor, rtol=0, atol=0)
    expected = of_weights({**FINGERPRINT, "members": list(NAMES[1:])}, tmp_path / "out/model.pt")
    assert json.loads((tmp_path / "out/fingerprint.json").read_text()) == expected
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["fingerprint.json", "model.pt"]


def test_the_fingerprint_says_how_the_ensemble_answers_where_that_is_not_the_papers(trained, tmp_path):
    for options in ({"stage1_weight": 0.5}, {"stage1_weight": 0.5, "keep_found_above": 0.25}, {}):
        assemble(make_cascade(), trained, tmp_path / "out", **options)
        fingerprint = json.loads((tmp_path / "out/fingerprint.json").read_text())
        assert fingerprint == of_weights({**FINGERPRINT, "members": list(NAMES[1:]), **options}, tmp_path / "out/model.pt")


def test_published_checkpoints_are_taken_too(trained, tmp_path):
    file = trained["UNet"] / "model.pt"
    state = torch.load(file, weights_only=True)
    torch.save({"config": {"lr": 0.001}, "state_dict": state, "epoch": 199, "dice": 0.67, "optimizer": {}}, file)
    assemble(make_cascade(), trained, tmp_path / "out")
    key = next(iter(state))
    assembled = torch.load(tmp_path / "out/model.pt", weights_only=True)
    torch.testing.assert_close(assembled[f"members.UNet.network.{key}"], state[key], rtol=0, atol=0)


def test_weights_that_do_not_fit_are_refused_with_the_tensors_names(trained, tmp_path):
    file = trained["SegResNet"] / "model.pt"
    state = torch.load(file, weights_only=True)
    first, second = list(state)[:2]
    del state[first]
    state[second] = torch.zeros(1, 2, 3)
    state["head.surplus"] = torch.zeros(1)
    torch.save(state, file)
    sentence = refusal(trained, tmp_path / "out")
    assert str(file) in sentence
    assert f"SegResNetDS: it lacks {first}" in sentence
    assert "holds besides head.surplus" in sentence
    assert f"has in another shape {second} (1, 2, 3) instead of" in sentence


@pytest.mark.parametrize("entry", ["spacing", "ct", "pet"])
def test_networks_of_different_fingerprints_are_refused(trained, tmp_path, entry):
    file = trained["UNet"] / "fingerprint.json"
    file.write_text(json.dumps({**FINGERPRINT, entry: [2, 2, 2.9]}))
    sentence = refusal(trained, tmp_path / "out")
    assert f"{file} differs from {trained['stage1'] / 'fingerprint.json'} in {entry}" in sentence


def test_fingerprints_that_differ_in_their_story_only_are_one(trained, tmp_path):
    (trained["UNet"] / "fingerprint.json").write_text(json.dumps({**FINGERPRINT, "source": "told otherwise", "num_cases": 11}))
    assemble(make_cascade(), trained, tmp_path / "out")


@pytest.mark.parametrize("name", ["model.pt", "fingerprint.json"])
def test_missing_file_is_one_sentence_with_the_command_that_makes_it(trained, tmp_path, name):
    (trained["SegResNet"] / name).unlink()
    sentence = refusal(trained, tmp_path / "out")
    assert f"{trained['SegResNet'] / name} is missing: train its network with `python -m monai.bundle run training" in sentence


def test_a_fingerprint_of_other_weights_than_those_beside_it_is_one_sentence(trained, tmp_path):
    file = trained["UNet"] / "fingerprint.json"
    file.write_text(json.dumps(of_weights(FINGERPRINT, trained["SegResNet"] / "model.pt")))
    assert f"{file} does not belong to {trained['UNet'] / 'model.pt'}" in refusal(trained, tmp_path / "out")
    file.write_text(json.dumps(of_weights(FINGERPRINT, trained["UNet"] / "model.pt")))
    assemble(make_cascade(), trained, tmp_path / "out")


@pytest.mark.parametrize("content", ["[]", "3", "{", ""])
def test_a_damaged_fingerprint_is_one_sentence(trained, tmp_path, content):
    file = trained["UNet"] / "fingerprint.json"
    file.write_text(content)
    sentence = refusal(trained, tmp_path / "out")
    assert str(file) in sentence
    assert "train again, or copy it from where the weights come" in sentence


@pytest.mark.parametrize(
    "content", ['{"weights": "ab12", "impor', "[]", "3", "{}", '{"imported": []}', '{"imported": {"UNet": 1}}']
)
def test_a_damaged_note_on_where_weights_come_from_is_one_sentence(trained, tmp_path, content):
    file = trained["UNet"] / "sources.json"
    file.write_text(content)
    assert f"{file} is damaged, and does not say which files the weights beside it come from" in refusal(
        trained, tmp_path / "out"
    )


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut-off"])
def test_unreadable_weights_are_one_sentence(trained, tmp_path, content):
    (trained["stage1"] / "model.pt").write_bytes(content)
    assert f"{trained['stage1'] / 'model.pt'} cannot be read as weights" in refusal(trained, tmp_path / "out")


def test_file_that_is_no_state_dict_is_one_sentence(trained, tmp_path):
    torch.save([1, 2], trained["stage1"] / "model.pt")
    assert "holds a list, not a state dict" in refusal(trained, tmp_path / "out")


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        ([], r"model\.pt is missing: make it with `python -m monai\.bundle run assemble --config_file "),
        (["model.pt"], r"fingerprint\.json is missing: it belongs to the weights beside it; assemble again"),
        (["model.pt", "fingerprint.json"], None),
    ],
)
def test_weights_that_are_required_are_named_with_the_way_to_get_them(tmp_path, there, sentence):
    for name in there:
        (tmp_path / name).write_text("{}")
    with nullcontext() if sentence is None else pytest.raises(InputError, match=sentence):
        require_weights(tmp_path / "model.pt", tmp_path / "fingerprint.json")


def test_weights_are_looked_for_in_the_sister_bundles_or_in_one_folder():
    parser = ConfigParser()
    parser.read_config([BUNDLES / f"autopet_ensemble/configs/{name}.json" for name in ("inference", "assemble")])
    assert list(parser.get_parsed_content("sources").items()) == [
        ("stage1", f"./../{STAGE1}/models"),
        ("SegResNet", f"./../{STAGE2[0]}/models"),
        ("SwinUNETR", f"./../{STAGE2[1]}/models"),
        ("UNet", f"./../{STAGE2[2]}/models"),
    ]
    parser["models_dir"] = "models"
    parser.parse(reset=True)
    assert parser.get_parsed_content("sources")["UNet"] == f"models/{STAGE2[-1]}"
