"""Promises of the operator for MONAI Deploy, in a stand-in for its SDK, or in the real one where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from deploy_stand_in import Ports, forgotten, installed, mask_of_operator, operator_of
from helpers import BUNDLES, ENSEMBLE, FINGERPRINT, STAGE1, las, make_study, of_weights

from petct_training.errors import InputError


@pytest.fixture(params=["stand-in", "sdk"])
def deploy(request):
    """The module `petct_cascade.deploy`."""
    if request.param == "sdk" and importlib.util.find_spec("monai.deploy") is None:
        pytest.skip("monai-deploy-app-sdk is not installed")
    with forgotten() if request.param == "sdk" else installed():
        yield importlib.import_module("petct_cascade.deploy")


@pytest.fixture(scope="module", params=[ENSEMBLE, STAGE1])
def bundle(request, tmp_path_factory) -> Path:
    copy = zoo.copy_bundle(BUNDLES / request.param, tmp_path_factory.mktemp("bundles"), "demo")
    zoo.make_weights(copy)
    (copy / "models/fingerprint.json").write_text(json.dumps(FINGERPRINT))
    return copy


def test_mask_lies_on_the_grid_of_the_pet_wherever_the_operator_is_started(deploy, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ct, pet, _ = make_study((24, 20, 22))
    affine = las((4, 4, 5), (30, -20, 100))
    mask, of_mask = mask_of_operator(deploy, bundle, ct, affine, pet, affine)
    assert mask.dtype == np.uint8
    assert mask.shape == pet.shape
    assert set(np.unique(mask)) <= {0, 1}
    np.testing.assert_array_equal(of_mask, affine)


def test_series_of_dicom_is_taken_with_its_axes_and_its_affine_in_ras(deploy, bundle):
    ct, pet, _ = make_study((24, 20, 22))
    affine = las((4, 4, 5), (30, -20, 100))
    expected, _ = mask_of_operator(deploy, bundle, ct, affine, pet, affine)
    # As `DICOMSeriesToVolumeOperator` emits a series: slices first, and the affine of DICOM under its own name.
    series = {"row_pixel_spacing": 4, "col_pixel_spacing": 4, "depth_pixel_spacing": 5, "nifti_affine_transform": affine}
    series |= {"dicom_affine_transform": np.diag([-1, -1, 1, 1]) @ affine, "affine": np.diag([-1, -1, 1, 1]) @ affine}
    ports = Ports(**{role: deploy.Image(np.swapaxes(array, 0, 2), series) for role, array in (("ct", ct), ("pet", pet))})
    operator_of(deploy, bundle).compute(ports, ports, None)
    np.testing.assert_array_equal(np.swapaxes(ports.sent["pred"].asnumpy(), 0, 2), expected)
    np.testing.assert_array_equal(ports.sent["pred"].metadata()["affine"], affine)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ct, pet, affine: (ct, None, pet, affine), r"the CT has the shape .* and its affine \(\)"),
        (lambda ct, pet, affine: (ct[None, None], affine, pet, affine), r"the CT has the shape \(1, 1, 24, 20, 22\)"),
        (lambda ct, pet, affine: (pet, affine, ct, affine), "CT"),
        (lambda ct, pet, affine: (ct, affine, pet * 5000, affine), "PET|SUV"),
    ],
    ids=["no-affine", "five-axes", "confused", "bq-per-ml"],
)
def test_what_cannot_be_ct_in_hu_and_pet_in_suv_is_refused_with_one_sentence(deploy, bundle, change, words):
    ct, pet, _ = make_study((24, 20, 22))
    with pytest.raises(InputError, match=words) as error:
        mask_of_operator(deploy, bundle, *change(ct, pet, las((4, 4, 5))))
    assert "\n" not in str(error.value)


def test_network_that_answers_with_nan_is_one_sentence_and_never_an_empty_mask(deploy, bundle, tmp_path):
    broken = shutil.copytree(bundle, tmp_path / "broken")
    weights = torch.load(broken / "models/model.pt", weights_only=True)
    torch.save({name: tensor * torch.nan for name, tensor in weights.items()}, broken / "models/model.pt")
    ct, pet, _ = make_study((24, 20, 22))
    with pytest.raises(InputError, match=r"answers with what is no number \(NaN\)"):
        mask_of_operator(deploy, broken, ct, las((4, 4, 5)), pet, las((4, 4, 5)))


def test_weights_without_the_fingerprint_that_belongs_to_them_are_refused_when_the_operator_is_made(deploy, bundle, tmp_path):
    broken = shutil.copytree(bundle, tmp_path / "broken")
    file = broken / "models/fingerprint.json"
    shutil.copyfile(BUNDLES / ENSEMBLE / "models/fingerprint.json", file)
    with pytest.raises(InputError, match=r"fingerprint\.json does not belong to .*model\.pt"):
        operator_of(deploy, broken)
    file.write_text(json.dumps(of_weights(FINGERPRINT, broken / "models/model.pt")))
    assert operator_of(deploy, broken)


def test_folder_that_is_no_bundle_is_refused_when_the_operator_is_made(deploy, tmp_path):
    with pytest.raises(InputError, match=r"is not the folder of a bundle: name the one that holds configs/inference\.json"):
        operator_of(deploy, tmp_path)
