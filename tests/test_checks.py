"""Promises of the network bundles' checks: what cannot be trained or used is refused at the start with one sentence."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BUNDLES, NETWORKS, STAGE1, STAGE2, of_weights, parser_of, write_nifti
from monai.bundle import ConfigWorkflow

from petct_cascade.monai_label import TakeRequestd
from petct_training import checks
from petct_training.data import read_items
from petct_training.errors import InputError
from petct_training.files import read_json, write_json


@pytest.fixture
def data(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


@pytest.fixture
def models(prepared, tmp_path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copyfile(prepared / "fingerprint.json", folder / "fingerprint.json")
    return folder


def state_dict(bundle: str, *profile: str) -> dict[str, torch.Tensor]:
    return parser_of(bundle, "train", *profile).get_parsed_content("network_def").state_dict()


def start(bundle: str, configs: list[str], data: Path, models: Path, monkeypatch, **overrides) -> None:
    """Do what comes before the first step of a run in the demo profile."""
    monkeypatch.chdir(BUNDLES / bundle)
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}.json" for name in [*configs, "demo"]],
        meta_file=None,
        logging_file=False,
        workflow_type="train",
        dataset_dir=str(data),
        ckpt_dir=str(models),
        output_dir=str(models.parent / "output"),
        **overrides,
    )
    workflow.initialize()
    if "inference" in configs:
        workflow.run()


def refusal(*arguments, **overrides) -> str:
    with pytest.raises(SystemExit) as end:
        start(*arguments, **overrides)
    sentence = str(end.value)
    assert sentence.startswith("error: ")
    assert "\n" not in sentence
    return sentence


def change_json(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def empty_labels(data: Path) -> None:
    for file in (data / "labels").iterdir():
        label = nib.load(file)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), file)


def other_spacing(folder: Path) -> None:
    change_json(folder / "fingerprint.json", lambda content: content.update(spacing=[2, 2, 3]))


def move(mask: Path) -> None:
    image = nib.load(mask)
    affine = image.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), mask)


def shorten(mask: Path) -> None:
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), mask)


def first(data: Path, split: str = "training") -> dict:
    return json.loads((data / "datalist.json").read_text())[split][0]


@pytest.mark.parametrize("bundle", NETWORKS)
def test_data_that_can_be_trained_with_is_not_refused(bundle, data, models, monkeypatch):
    start(bundle, ["train"], data, models, monkeypatch)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda data: change_json(data / "datalist.json", lambda c: c.update(training=[])),
            "datalist.json names no studies for training",
        ),
        (
            lambda data: change_json(data / "datalist.json", lambda c: c.pop("validation")),
            "datalist.json names no studies for validation",
        ),
        (empty_labels, "no label of the training studies in .*datalist.json marks a lesion"),
        (
            other_spacing,
            r"fingerprint.json does not belong to the data: its spacing is \[2, 2, 3\] mm, and that of .* is \[5.0, 5.0, 5.0\]",
        ),
        (lambda data: (data / first(data)["image"]).unlink(), r"is incomplete \(.*images/fdg_0000.*nii is missing\)"),
        (
            lambda data: (data / first(data, "validation")["label"]).unlink(),
            r"is incomplete \(.*labels/fdg_0004.*nii is missing\)",
        ),
    ],
    ids=["no training", "no validation", "no lesion", "fingerprint", "image", "label"],
)
@pytest.mark.parametrize("bundle", NETWORKS)
def test_training_refuses_data_that_it_cannot_learn_from(bundle, damage, words, data, models, monkeypatch):
    damage(data)
    with pytest.raises(SystemExit, match=f"^error: .*{words}"):
        start(bundle, ["train"], data, models, monkeypatch)


@pytest.mark.parametrize("damage", [move, shorten])
@pytest.mark.parametrize("configs", [["train"], ["train", "evaluate"], ["inference"]], ids="+".join)
@pytest.mark.parametrize("bundle", STAGE2)
def test_coarse_mask_of_another_preparation_is_refused(bundle, configs, damage, data, models, monkeypatch):
    torch.save(state_dict(bundle, "demo"), models / "model.pt")
    case = first(data, "validation")["case"]
    damage(data / f"coarse_masks/{case}.nii.gz")
    said = refusal(bundle, configs, data, models, monkeypatch)
    assert f"{case}.nii.gz is of another preparation: it lies on another grid than" in said


@pytest.mark.parametrize("configs", [["train", "evaluate"], ["inference"]], ids="+".join)
@pytest.mark.parametrize("bundle", NETWORKS)
def test_weights_of_another_network_or_damaged_ones_are_refused(bundle, configs, data, models, monkeypatch):
    file = models / "model.pt"
    for weights in (state_dict(bundle), state_dict(NETWORKS[NETWORKS.index(bundle) - 1], "demo"), torch.zeros(3)):
        torch.save(weights, file)
        assert "model.pt holds the weights of another network" in refusal(bundle, configs, data, models, monkeypatch)
    torch.save(state_dict(bundle, "demo"), file)
    file.write_bytes(file.read_bytes()[:-500])
    assert "model.pt cannot be read as weights of PyTorch: it is damaged" in refusal(bundle, configs, data, models, monkeypatch)


@pytest.mark.parametrize("configs", [["train", "evaluate"], ["inference"]], ids="+".join)
def test_weights_without_the_fingerprint_that_belongs_to_them_are_refused(configs, data, models, monkeypatch):
    torch.save(state_dict(STAGE1, "demo"), models / "model.pt")
    shutil.copyfile(BUNDLES / STAGE1 / "models/fingerprint.json", models / "fingerprint.json")
    assert "fingerprint.json does not belong to" in refusal(STAGE1, configs, data, models, monkeypatch)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_evaluation_refuses_data_of_another_spacing_than_the_weights(bundle, data, models, monkeypatch):
    torch.save(state_dict(bundle, "demo"), models / "model.pt")
    other_spacing(models)
    assert "models/fingerprint.json does not belong to the data" in refusal(
        bundle, ["train", "evaluate"], data, models, monkeypatch
    )


@pytest.mark.parametrize("bundle", NETWORKS)
def test_training_is_not_resumed_from_another_network_fingerprint_or_number_of_epochs(bundle, data, models, monkeypatch):
    last = models / "last.pt"
    torch.save({"network": state_dict(bundle)}, last)
    assert "last.pt holds the weights of another network" in refusal(bundle, ["train"], data, models, monkeypatch, resume=True)
    content = {"network": state_dict(bundle, "demo"), "trainer": {"max_epochs": 774}}
    torch.save(content | {"data": read_json(data / "fingerprint.json")}, last)
    assert "a training of 774 epochs" in refusal(bundle, ["train"], data, models, monkeypatch, resume=True)
    torch.save(content | {"data": {"spacing": [1, 1, 1]}}, last)
    assert "last.pt was trained with another fingerprint" in refusal(bundle, ["train"], data, models, monkeypatch, resume=True)
    start(bundle, ["train"], data, models, monkeypatch, resume="false")
    last.write_bytes(last.read_bytes()[:1000])
    assert "last.pt cannot be read as weights of PyTorch: it is damaged" in refusal(
        bundle, ["train"], data, models, monkeypatch, resume="true"
    )
    start(bundle, ["train"], data, models, monkeypatch)


# ---------------------------------------------------------------- the checks as functions, which raise


def test_the_tensors_that_differ_are_named(tmp_path):
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"of another size \(it has in another shape weight \(2, 3\) instead of \(2, 4\)\)"):
        checks.check_weights(torch.nn.Linear(4, 2), tmp_path / "model.pt")
    with pytest.raises(InputError, match="it holds besides bias"):
        checks.check_weights(torch.nn.Linear(3, 2, bias=False), tmp_path / "model.pt")
    checks.check_weights(torch.nn.Linear(3, 2), tmp_path / "model.pt")


def test_weights_that_are_no_numbers_are_refused_with_a_sentence_of_their_own(tmp_path):
    network = torch.nn.Linear(3, 2)
    torch.save({**network.state_dict(), "bias": torch.tensor([0, torch.nan])}, tmp_path / "model.pt")
    with pytest.raises(
        InputError, match=r"model\.pt has values that are no numbers in bias: a training failed, or the file is damaged"
    ):
        checks.check_weights(network, tmp_path / "model.pt")


def test_a_fingerprint_belongs_to_the_weights_that_it_names_or_to_any_where_it_names_none(tmp_path):
    numbers, weights, beside = {"spacing": [2, 2, 3]}, tmp_path / "model.pt", tmp_path / "fingerprint.json"
    weights.write_bytes(b"weights")
    for fingerprint in (numbers, of_weights(numbers, weights)):
        write_json(beside, fingerprint)
        assert checks.fingerprint_of(weights, beside) == fingerprint
    weights.write_bytes(b"other weights")
    for foreign in (fingerprint, {**numbers, "weights_sha256": None}):
        write_json(beside, foreign)
        with pytest.raises(InputError, match=r"fingerprint\.json does not belong to .*model\.pt, whose masks would be wrong"):
            checks.fingerprint_of(weights, beside)
        # A bundle without weights is opened for its transforms.
        assert checks.fingerprint_of(tmp_path / "none.pt", beside) == foreign


def test_a_missing_fingerprint_is_one_sentence_where_nothing_else_has_looked_for_it(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(InputError, match=r"fingerprint\.json is missing: train again, or copy it from where the weights come$"):
        TakeRequestd(tmp_path / "model.pt", tmp_path / "fingerprint.json")


@pytest.mark.parametrize(
    ("content", "words"), [("[]", "holds a list, and no fingerprint"), ("3", "holds a int"), ("{", "is not valid JSON")]
)
def test_a_damaged_fingerprint_is_one_sentence(tmp_path, content, words):
    (tmp_path / "model.pt").touch()
    (tmp_path / "fingerprint.json").write_text(content)
    with pytest.raises(
        InputError, match=rf"fingerprint\.json {words}[^\n]*: train again, or copy it from where the weights come$"
    ):
        checks.check_trained(tmp_path / "model.pt", tmp_path / "fingerprint.json")


def test_a_list_that_is_not_json_is_one_sentence(tmp_path):
    (tmp_path / "datalist.json").write_text('{"training": [')
    with pytest.raises(InputError, match=r"datalist\.json is damaged \(.*\): prepare the data set again"):
        checks.check_prepared(tmp_path / "datalist.json", ["training"])


def test_only_the_splits_that_are_needed_must_have_studies(data):
    change_json(data / "datalist.json", lambda content: content.update(training=[]))
    checks.check_prepared(data / "datalist.json", ["validation"])
    checks.check_prepared(data / "datalist.json")
    with pytest.raises(InputError, match="names no studies for training"):
        checks.check_prepared(data / "datalist.json", ["training", "validation"])


@pytest.mark.parametrize(("lesions", "said"), [(0, "warning: 0 validation studies have"), (2, "warning: 2"), (3, ""), (4, "")])
def test_two_or_fewer_validation_studies_with_lesions_are_a_warning(tmp_path, capsys, lesions, said):
    items = []
    for number in range(4):
        label = np.full((2, 2, 2), number < lesions, np.uint8)
        items.append({"label": write_nifti(tmp_path / f"{number}.nii", label, np.eye(4))})
    checks.warn_of_few_studies(items)
    printed = capsys.readouterr().out
    assert printed.startswith(said)
    assert bool(printed) == bool(said)


def test_more_processes_than_validation_studies_are_refused(data, monkeypatch):
    items = read_items(data / "datalist.json", ["validation"], data)
    checks.check_processes(items)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: len(items))
    checks.check_processes(items)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: len(items) + 1)
    with pytest.raises(InputError, match=f"{len(items) + 1} processes cannot share .*: start at most {len(items)}"):
        checks.check_processes(items)


def test_a_label_is_asked_for_only_where_it_is_needed(data):
    items = read_items(data / "datalist.json", ["training"], data)
    Path(items[0]["label"]).unlink()
    checks.check_studies(items, keys=["image"])
    with pytest.raises(InputError, match=r"is incomplete \(.* is missing\)"):
        checks.check_studies(items)


@pytest.mark.parametrize("configs", [["train"], ["train", "evaluate"], ["inference"]], ids="+".join)
@pytest.mark.parametrize("bundle", STAGE2)
def test_the_former_name_of_the_coarse_masks_folder_is_refused(bundle, configs, data, models, monkeypatch):
    names = [f"configs/{name}.json" for name in configs]
    monkeypatch.setattr(sys, "argv", ["monai/bundle/__main__.py", "run", "run", "--config_file", str(names), "--stage1_dir", "a"])
    said = refusal(bundle, configs, data, models, monkeypatch)
    assert said == "error: --stage1_dir is not known any more: give --coarse_mask_dir"


@pytest.mark.parametrize(("bundle", "in_channels"), [(STAGE1, 2), *((bundle, 3) for bundle in STAGE2)])
def test_a_patch_size_that_the_network_does_not_take_is_refused_with_the_next_larger_one(bundle, in_channels):
    parser = parser_of(bundle, "inference", "demo")
    network, taken = parser.get_parsed_content("network_def").eval(), parser.get_parsed_content("patch_size")
    checks.check_patch_size(network, in_channels, taken)
    smaller = [size - 3 for size in taken]
    with pytest.raises(InputError, match=re.escape(f"does not take: the next size that it takes is {taken}")):
        checks.check_patch_size(network, in_channels, smaller)
    with torch.no_grad():
        assert network(torch.zeros(1, in_channels, *taken)).shape[-3:] == tuple(taken)
        with pytest.raises((RuntimeError, ValueError)):
            network(torch.zeros(1, in_channels, *smaller))


@pytest.mark.parametrize(("bundle", "in_channels"), [(STAGE1, 2), *((bundle, 3) for bundle in STAGE2)])
def test_a_patch_size_is_refused_exactly_where_the_network_fails(bundle, in_channels):
    network = parser_of(bundle, "inference", "demo").get_parsed_content("network_def").eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for size in ([4, 4, 4], [8, 8, 16], [12, 20, 28], [16, 16, 16], [24, 32, 40], [32, 32, 64], [33, 32, 32]):
        try:
            with torch.no_grad():
                taken = network(torch.zeros(1, in_channels, *size)).shape[-3:] == tuple(size)
        except (RuntimeError, ValueError):
            taken = False
        with contextlib.nullcontext() if taken else pytest.raises(InputError, match="does not take"):
            checks.check_patch_size(network, in_channels, size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
