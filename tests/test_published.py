"""Promises of taking the authors' published weights: files in their format, networks built as they built theirs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers import (
    BUNDLES,
    ENVIRONMENT,
    FLAG_OF,
    NAMES,
    NETWORKS,
    STAGE1,
    STAGE2,
    MergingOfMonai14,
    make_cascade,
    networks_of,
    of_weights,
    save_as_published,
)
from monai.bundle import ConfigParser
from monai.networks.nets import DynUNet, SegResNetDS, SwinUNETR, UNet
from processes import run_python

from petct_cascade.assemble import networks_of as cascade_networks
from petct_cascade.commands import import_weights

ENSEMBLE = BUNDLES / "autopet_ensemble"
PREFIX_OF = {
    STAGE1: "stage1.network.",
    **{bundle: f"members.{name}.network." for bundle, name in zip(STAGE2, ("SegResNet", "SwinUNETR", "UNet"), strict=True)},
}
# Outputs of deep supervision, the final one among them.
HEADS = {STAGE1: 4, STAGE2[0]: 3}
PUBLISHED = json.loads((ENSEMBLE / "configs/import_weights.json").read_text())["published_fingerprint"]


def published_networks() -> dict[str, torch.nn.Module]:
    """The four networks as the published code calls the MONAI of its time for them, one output channel each."""
    strides = [1, 2, 2, 2, 2, (2, 2, 1)]
    return {
        STAGE1: DynUNet(
            spatial_dims=3,
            in_channels=2,
            out_channels=1,
            kernel_size=[3] * 6,
            strides=strides,
            upsample_kernel_size=strides[1:],
            norm_name="instance",
            act_name=("leakyrelu", {"inplace": False, "negative_slope": 0.01}),
            deep_supervision=True,
            deep_supr_num=3,
            res_block=True,
        ),
        STAGE2[0]: SegResNetDS(
            in_channels=3, out_channels=1, init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), dsdepth=3
        ),
        STAGE2[1]: SwinUNETR(
            in_channels=3, out_channels=1, feature_size=48, use_checkpoint=True, use_v2=False, downsample=MergingOfMonai14
        ),
        STAGE2[2]: UNet(
            spatial_dims=3,
            in_channels=3,
            out_channels=1,
            channels=(32, 64, 128, 256, 512),
            strides=(2, 2, 2, 2),
            kernel_size=3,
            up_kernel_size=3,
            num_res_units=2,
            act="PRELU",
            norm="BATCH",
            dropout=0.2,
            bias=True,
        ),
    }


@torch.no_grad()
def outputs(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The network's one output."""
    return network.eval()(image)


@torch.no_grad()
def heads(network: torch.nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """All outputs of deep supervision, as in training: DynUNet stacks them, SegResNetDS lists them."""
    result = network.train()(image)
    return list(result.unbind(dim=1)) if isinstance(result, torch.Tensor) else result


@pytest.mark.slow
def test_published_weights_give_the_same_outputs_in_our_bundles(tmp_path):
    torch.manual_seed(0)
    networks, image = published_networks(), torch.randn(1, 3, 64, 64, 32)
    for network in networks.values():
        # Batch statistics that differ from those of a new network.
        for name, tensor in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                tensor.uniform_(0.5, 1.5)
    files = {bundle: save_as_published(network, tmp_path / f"{bundle}.pth") for bundle, network in networks.items()}
    for bundle in NETWORKS:
        (tmp_path / "models" / bundle).mkdir(parents=True)
        (tmp_path / "models" / bundle / "fingerprint.json").write_text('{"spacing": [9, 9, 9], "source": "another data set"}')

    configs = str([f"configs/{name}.json" for name in ("inference", "assemble", "import_weights")])
    command = [sys.executable, "-m", "monai.bundle", "run", "import_weights", "--config_file", configs]
    command += [text for bundle, file in files.items() for text in (f"--{FLAG_OF[bundle]}", str(file))]
    command += ["--models_dir", str(tmp_path / "models"), "--ckpt_dir", str(tmp_path / "models/autopet_ensemble")]
    done = run_python(command, ENSEMBLE, ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]

    assembled = torch.load(tmp_path / "models/autopet_ensemble/model.pt", weights_only=True)
    whole = ConfigParser()
    whole.read_config(ENSEMBLE / "configs/inference.json")
    cascade = whole.get_parsed_content("network_def")
    cascade.load_state_dict(assembled)
    for bundle, network in networks.items():
        parser = ConfigParser()
        own = [BUNDLES / bundle / "configs/published_weights.json"] if bundle == STAGE2[1] else []
        parser.read_config([BUNDLES / bundle / "configs/inference.json", *own])
        ours = parser.get_parsed_content("network_def")
        folder = tmp_path / "models" / bundle / ("published" if own else ".")
        ours.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        channels = image[:, : 2 if bundle == STAGE1 else 3]
        torch.testing.assert_close(outputs(ours, channels), outputs(network, channels), rtol=0, atol=1e-6)
        if own:
            # The ensemble computes attention in one piece, which rounds otherwise.
            joined = cascade_networks(cascade)["SwinUNETR"]
            torch.testing.assert_close(outputs(joined, channels), outputs(network, channels), rtol=0, atol=1e-5)
        if bundle in HEADS:
            expected = heads(network, channels)
            assert len(expected) == HEADS[bundle]
            torch.testing.assert_close(heads(ours, channels), expected, rtol=0, atol=1e-6)
        for name, tensor in torch.load(files[bundle], weights_only=False)["state_dict"].items():
            torch.testing.assert_close(assembled[PREFIX_OF[bundle] + name], tensor, rtol=0, atol=0)
    folders = {bundle: tmp_path / "models" / bundle / ("published" if bundle == STAGE2[1] else ".") for bundle in NETWORKS}
    for folder in folders.values():
        assert json.loads((folder / "fingerprint.json").read_text()) == of_weights(PUBLISHED, folder / "model.pt")
    of_ensemble = tmp_path / "models/autopet_ensemble"
    expected = of_weights(PUBLISHED | {"members": ["SegResNet", "SwinUNETR", "UNet"]}, of_ensemble / "model.pt")
    assert json.loads((of_ensemble / "fingerprint.json").read_text()) == expected
    # A gigabyte that nobody needs any more.
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("bundle", [*NETWORKS, "autopet_ensemble"])
def test_fingerprint_in_every_bundle_is_the_published_one_and_belongs_to_no_weights_yet(bundle):
    expected = {**PUBLISHED, "weights_sha256": None}
    assert json.loads((BUNDLES / bundle / "models/fingerprint.json").read_text()) == expected


@pytest.fixture
def shared(tmp_path) -> dict[str, Path]:
    """Files in the published format for a tiny cascade."""
    networks = networks_of(make_cascade())
    return {name: save_as_published(networks[name], tmp_path / f"{name}.pth") for name in NAMES}


def refusal(files: dict, tmp_path: Path) -> str:
    """The sentence with which the import is refused; nothing may have been written."""
    folders = {name: tmp_path / "bundles" / name for name in NAMES}
    with pytest.raises(SystemExit) as end:
        import_weights(make_cascade(), files, folders, PUBLISHED, tmp_path / "bundles/ensemble")
    assert not (tmp_path / "bundles").exists()
    assert "\n" not in str(end.value)
    return str(end.value)


def test_tensors_that_do_not_fit_are_listed_and_nothing_is_written(shared, tmp_path):
    content = torch.load(shared["UNet"], weights_only=False)
    state = content["state_dict"]
    first, second = list(state)[:2]
    del state[first]
    state[second] = torch.zeros(1, 2, 3)
    state["head.surplus"] = torch.zeros(1)
    torch.save(content, shared["UNet"])
    sentence = refusal(shared, tmp_path)
    assert f"{shared['UNet']} does not fit UNet: it lacks {first}, holds besides head.surplus" in sentence
    assert f"has in another shape {second} (1, 2, 3) instead of" in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor.fill_(torch.nan), "has values that are no numbers in"),
        (lambda tensor: torch.where(tensor == tensor.max(), -torch.inf, tensor), "has values that are no numbers in"),
        (lambda tensor: tensor.double().fill_(1e300), "has values that are no numbers in"),
        (lambda tensor: tensor.to(torch.complex64), "does not fit UNet: it has complex numbers in"),
    ],
    ids=["nan", "infinity", "double", "complex"],
)
def test_weights_that_are_no_numbers_are_refused_with_their_tensors_and_nothing_is_written(shared, tmp_path, change, words):
    content = torch.load(shared["UNet"], weights_only=False)
    state = content["state_dict"]
    first, second = sorted(name for name, tensor in state.items() if tensor.ndim > 1)[:2]
    for name in (second, first):
        state[name] = change(state[name])
    torch.save(content, shared["UNet"])
    sentence = refusal(shared, tmp_path)
    assert f"{shared['UNet']} {words} {first} and 1 more" in sentence


def test_weights_in_half_precision_that_are_numbers_are_taken(shared, tmp_path):
    content = torch.load(shared["UNet"], weights_only=False)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in content["state_dict"].items()}
    torch.save({**content, "state_dict": half}, shared["UNet"])
    folders = {name: tmp_path / "bundles" / name for name in NAMES}
    import_weights(make_cascade(), shared, folders, PUBLISHED, tmp_path / "bundles/ensemble")
    written = torch.load(folders["UNet"] / "model.pt", weights_only=True)
    assert all(torch.equal(written[name], tensor.to(written[name].dtype)) for name, tensor in half.items())


def test_two_files_that_are_confused_are_noticed(shared, tmp_path):
    sentence = refusal({**shared, "UNet": shared["SegResNet"], "SegResNet": shared["UNet"]}, tmp_path)
    assert "does not fit SegResNetDS: it lacks" in sentence


def test_file_that_would_run_code_is_refused(shared, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": {}, "config": Code()}, shared["stage1"])
    assert f"{shared['stage1']} cannot be read as weights" in refusal(shared, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (None, "no file is given for UNet"),
        ("nowhere.pth", "nowhere.pth does not exist for UNet"),
        (os.curdir, r". is a folder for UNet"),
    ],
)
def test_missing_file_is_one_sentence_with_the_options_to_give(shared, tmp_path, file, reason):
    sentence = refusal({**shared, "UNet": file}, tmp_path)
    assert f"{reason}: name all four published files with --dynunet, --segresnet, --swinunetr, --unet" in sentence
