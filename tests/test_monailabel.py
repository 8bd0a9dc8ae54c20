"""Promises to those who use the bundles in MONAI Label, whose real server is started for them and ended by its process id."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import zoo
from helpers import BUNDLES, ENSEMBLE, SARCOMA, STAGE1, needs_shared, write_nifti
from monai_label import copy_app, infer, request, running_server, segment
from processes import run_python

from petct_cascade.loading import LoadImagePETCTd
from petct_cascade.predict import load_cascade
from petct_training.files import read_json, write_json

REAL = SARCOMA / "imagesTr"
# Of both types of models that get clicks, whether they keep what no click touches.
KEEPS_UNTOUCHED = {"deepgrow": False, "deepedit": True}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("monailabel") is None, reason="monailabel is not installed"),
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, prepared) -> Path:
    """An app of MONAI Label with stage 1 and the ensemble in the demo profile; stage 1 finds a prepared data set in its place."""
    app = copy_app(tmp_path_factory.mktemp("label"))
    for name in (STAGE1, ENSEMBLE):
        bundle = zoo.copy_bundle(BUNDLES / name, app / "model", "demo")
        file = zoo.make_weights(bundle)
        weights = torch.load(file, weights_only=True)
        # Random weights give probabilities on one side of 0.5: spread them.
        torch.save({key: tensor * 1.5 if key.endswith("weight") else tensor for key, tensor in weights.items()}, file)
        shutil.copyfile(prepared / "fingerprint.json", bundle / "models/fingerprint.json")
    shutil.copytree(prepared, app / f"model/{STAGE1}/data/prepared")
    # By their names the extension of 3D Slicer offers clicks for them.
    for type_of_model, keep in KEEPS_UNTOUCHED.items():
        shutil.copytree(app / "model" / ENSEMBLE, app / f"model/{ENSEMBLE}_{type_of_model}")
        file = app / f"model/{ENSEMBLE}_{type_of_model}/configs/inference.json"
        write_json(file, read_json(file) | {"keep_untouched": keep})
    return app


@pytest.fixture(scope="module")
def server(bundles, prepared, tmp_path_factory):
    """Address of a server on 127.0.0.1 that shows the prepared studies, some of them with labels."""
    studies = tmp_path_factory.mktemp("studies")
    (studies / "labels/final").mkdir(parents=True)
    for number, image in enumerate(sorted((prepared / "images").iterdir())):
        shutil.copyfile(image, studies / f"study{number}.nii")
        shutil.copyfile(prepared / "labels" / image.name, studies / f"labels/final/study{number}.nii")
    if REAL.is_dir():
        image = LoadImagePETCTd(keys="image").load([real_file("0000"), real_file("0001")])
        write_nifti(studies / "real.nii", image.as_tensor().movedim(0, -1).numpy(), image.affine.numpy())
    models = [STAGE1, ENSEMBLE, f"{ENSEMBLE}_deepgrow", f"{ENSEMBLE}_deepedit"]
    with running_server(bundles, studies, models) as address:
        yield address


def real_file(channel: str) -> Path:
    """CT (0000) or PET (0001) of the first real study."""
    return sorted(REAL.glob(f"*_{channel}.nii.gz"))[0]


def run(bundle: Path, *arguments: str) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "monai.bundle",
        "run",
        "inferring",
        "--config_file",
        "configs/inference.json",
        *arguments,
    ]
    done = run_python(command, bundle)
    assert done.returncode == 0, done.stderr[-3000:]


def answer(server: str, model: str, folder: Path, study: str = "study0") -> np.ndarray:
    """The mask that the server sends for a study."""
    return np.asarray(nib.load(segment(server, model, study, folder)).dataobj)


def test_server_offers_stage_1_and_the_ensemble_and_trains_stage_1(server):
    info = json.loads(request(f"{server}/info/"))
    assert {STAGE1, ENSEMBLE} <= set(info["models"])
    assert list(info["trainers"]) == [STAGE1]


def test_stage_1_gives_the_mask_of_monai_bundle_run(server, bundles, prepared, tmp_path):
    run(bundles / "model" / STAGE1, "--dataset_dir", str(prepared), "--output_dir", str(tmp_path / "masks"))
    case = sorted((prepared / "images").iterdir())[0].name
    expected = np.asarray(nib.load(tmp_path / f"masks/{case}.gz").dataobj)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(answer(server, STAGE1, tmp_path), expected)


def test_ensemble_gives_the_mask_of_monai_bundle_run(server, bundles, prepared, tmp_path):
    image = nib.load(sorted((prepared / "images").iterdir())[0])
    pair = [
        text
        for channel, role in enumerate(("ct", "pet"))
        for text in (
            f"--{role}",
            str(write_nifti(tmp_path / f"{role}.nii.gz", image.get_fdata(dtype=np.float32)[..., channel], image.affine)),
        )
    ]
    run(bundles / "model" / ENSEMBLE, *pair, "--check", "false", "--output_dir", str(tmp_path / "masks"))
    (mask,) = (tmp_path / "masks").glob("*.nii.gz")
    expected = np.asarray(nib.load(mask).dataobj)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(answer(server, ENSEMBLE, tmp_path), expected)


@pytest.mark.parametrize(("type_of_model", "keep"), KEEPS_UNTOUCHED.items())
def test_clicks_and_label_map_of_slicer_give_the_mask_of_python(server, bundles, prepared, tmp_path, type_of_model, keep):
    image = nib.load(sorted((prepared / "images").iterdir())[0])
    ct, pet = np.moveaxis(image.get_fdata(dtype=np.float32), -1, 0)
    cascade = load_cascade(bundles / "model" / ENSEMBLE / "models", "demo", device="cpu", keep_untouched=keep)
    study = cascade.open(ct, image.affine, pet, image.affine)
    automatic = study.segment()
    inside = automatic[5:-5, 5:-5, 5:-5]
    missed, found = (np.argwhere(inside == value)[7] + 5 for value in (0, 1))
    clicks = {"foreground": [missed.tolist()], "background": [found.tolist()]}
    # As the extension sends them for the two types of models: lists by their meaning, or one a label.
    params = {"deepgrow": clicks, "deepedit": {"lesion": clicks["foreground"], "background": clicks["background"]}}[type_of_model]
    params = {"label": "lesion", **params, "device": "cpu", "result_dtype": "uint8"}
    model = f"{ENSEMBLE}_{type_of_model}"
    mask = np.asarray(nib.load(infer(server, model, "study0", tmp_path, params)).dataobj)
    np.testing.assert_array_equal(mask, study.segment(points=clicks))
    assert (mask[tuple(missed)], mask[tuple(found)]) == (1, 0)
    edited = write_nifti(tmp_path / "edited.nii.gz", np.roll(automatic, 2, axis=0), image.affine)
    params = {"foreground": clicks["foreground"], "background": [], "device": "cpu", "result_dtype": "uint8"}
    mask = np.asarray(nib.load(infer(server, model, "study0", tmp_path, params, edited)).dataobj)
    expected = study.segment(coarse_mask=edited, points={"foreground": clicks["foreground"]})
    np.testing.assert_array_equal(mask, expected)
    assert (mask != automatic).any()


@needs_shared(REAL)
def test_real_study_with_ct_on_another_grid_gives_the_mask_of_monai_bundle_run(server, bundles, tmp_path):
    run(
        bundles / "model" / ENSEMBLE,
        "--ct",
        str(real_file("0000")),
        "--pet",
        str(real_file("0001")),
        "--output_dir",
        str(tmp_path / "masks"),
    )
    (mask,) = (tmp_path / "masks").glob("*.nii.gz")
    expected = np.asarray(nib.load(mask).dataobj)
    assert expected.shape == nib.load(real_file("0001")).shape
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(answer(server, ENSEMBLE, tmp_path, "real"), expected)


def test_stage_1_trains_on_labelled_studies(server, bundles):
    bundle = bundles / "model" / STAGE1
    before = torch.load(bundle / "models/model.pt", weights_only=True)
    options = {"device": "cpu", "max_epochs": 1, "val_split": 0.34, "pretrained": True}
    request(f"{server}/train/{STAGE1}?run_sync=true", json.dumps(options).encode())
    # The best weights are written when a validation is due, the last ones after every epoch.
    after = torch.load(bundle / "models/last.pt", weights_only=True)["network"]
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
