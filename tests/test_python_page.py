"""Promises of docs/python.md: every example runs as it stands, and does what the commands do."""

from __future__ import annotations

import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BUNDLES, ENSEMBLE, ROOT, WINDOWS, las, make_study, write_nifti
from monai.bundle import ConfigWorkflow

import petct_cascade.predict
from petct_cascade.predict import load_cascade
from petct_cascade.readouts import study_readouts
from petct_cascade.volumes import read_mask, read_volume, write_volume
from petct_training.errors import InputError

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def study(tmp_path_factory, models) -> Path:
    """A folder with the files that the page names, the CT on a finer grid, and the mask that the command writes as `command.nii.gz`."""
    folder = tmp_path_factory.mktemp("study")
    ct, pet, label = make_study((24, 18, 22))
    write_nifti(folder / "CT.nii.gz", np.kron(ct, np.ones((2, 2, 2), np.int16)), las((2, 2, 2.5), (1, -1, -1.25)))
    write_nifti(folder / "PET.nii.gz", pet, las((4, 4, 5)))
    write_nifti(folder / "LABEL.nii.gz", label, las((4, 4, 5)))
    shutil.copytree(models, folder / "WEIGHTS")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUNDLES / ENSEMBLE)
        workflow = ConfigWorkflow(
            config_file=["configs/inference.json", "configs/demo.json"],
            logging_file=False,
            workflow_type="infer",
            ct=str(folder / "CT.nii.gz"),
            pet=str(folder / "PET.nii.gz"),
            case="PET",
            ckpt_dir=str(models),
            output_dir=str(folder / "output"),
            patch_sizes=WINDOWS,
        )
        workflow.initialize()
        workflow.run()
    shutil.copy(folder / "output/PET.nii.gz", folder / "command.nii.gz")
    return folder


def execute(number: int, folder: Path, monkeypatch) -> dict[str, Any]:
    """Run an example in a folder, with the demo profile's networks in place of the full ones, and return its names."""
    monkeypatch.chdir(folder)
    small = partial(load_cascade, profile="demo", patch_sizes=WINDOWS)
    monkeypatch.setattr(petct_cascade.predict, "load_cascade", small)
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[number], f"example {number} of docs/python.md", "exec"), names)
    return names


def test_page_has_three_examples_of_at_most_ten_lines():
    assert len(EXAMPLES) == 3
    assert all(len(example.splitlines()) <= 10 for example in EXAMPLES)


def test_mask_from_arrays_is_the_mask_of_the_command(study, monkeypatch):
    expected = nib.load(study / "command.nii.gz")
    mask = execute(0, study, monkeypatch)["mask"]
    assert mask.dtype == np.uint8
    assert 0 < mask.mean() < 1, "a mask that is empty or full shows nothing"
    np.testing.assert_array_equal(mask, np.asarray(expected.dataobj))
    np.testing.assert_array_equal(nib.load(study / "MASK.nii.gz").affine, expected.affine)


def test_scores_of_two_masks_are_those_counted_by_hand(study, monkeypatch, capsys):
    shutil.copy(study / "command.nii.gz", study / "MASK.nii.gz")
    scores = execute(1, study, monkeypatch)["scores"]
    mask, label = (np.asarray(nib.load(study / name).dataobj) > 0 for name in ("MASK.nii.gz", "LABEL.nii.gz"))
    assert scores["dice"] == pytest.approx(2 * (mask & label).sum() / (mask.sum() + label.sum()))
    assert capsys.readouterr().out.startswith(str(scores["dice"]))


def test_readouts_are_those_of_the_masks_voxels(study, monkeypatch, capsys):
    shutil.copy(study / "LABEL.nii.gz", study / "MASK.nii.gz")
    readouts = execute(2, study, monkeypatch)["readouts"]
    label, pet = (np.asarray(nib.load(study / name).dataobj) for name in ("LABEL.nii.gz", "PET.nii.gz"))
    assert readouts["study"]["tmtv_ml"] == pytest.approx(label.sum() * 4 * 4 * 5 / 1000)
    assert readouts["study"]["suv_max"] == pytest.approx(pet[label == 1].max())
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(readouts["lesions"])


# ---------------------------------------------------------------- what is wrong is one sentence


@pytest.fixture(scope="module")
def cascade(models):
    return load_cascade(models, profile="demo", patch_sizes=WINDOWS)


CT, PET, _ = make_study((24, 18, 22))
AFFINE = las((4, 4, 5))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ((CT, AFFINE, PET * 5000, AFFINE), r"PET holds values such as .*Bq/ml: convert it to body-weight SUV"),
        ((PET, AFFINE, CT.astype(np.float32), AFFINE), "exchange"),
        ((CT[..., None], AFFINE, PET, AFFINE), r"CT has the shape \(24, 18, 22, 1\) and its affine \(4, 4\): give \(X, Y, Z\)"),
        ((CT, AFFINE[:3], PET, AFFINE), r"its affine \(3, 4\)"),
        ((CT, AFFINE, np.where(PET > 5, np.nan, PET), AFFINE), "PET holds values that are no numbers"),
    ],
    ids=["not-in-SUV", "exchanged", "4-D", "affine", "NaN"],
)
def test_arrays_that_cannot_be_a_study_are_refused_with_a_sentence(cascade, arrays, sentence):
    with pytest.raises(InputError, match=sentence):
        cascade.predict(*arrays)


METRES = np.diag([0.001, 0.001, 0.001, 1])
SHEARED = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
FLAT = np.array([[1, -1, 0, 0], [1, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        (slice(None), METRES @ AFFINE),
        (slice(None), SHEARED @ AFFINE),
        (slice(None), FLAT @ AFFINE),
        (slice(None), np.diag([50, 50, 50, 1]) @ AFFINE),
        (slice(1), AFFINE),
    ],
    ids=["in metres", "sheared", "flat", "huge", "single slice"],
)
@pytest.mark.parametrize("role", ["CT", "PET"])
def test_a_geometry_with_which_a_file_is_refused_is_refused_with_its_sentence(cascade, tmp_path, role, part, change):
    arrays = {"CT": (CT, AFFINE), "PET": (PET, AFFINE)}
    arrays[role] = arrays[role][0][part], change
    image = nib.Nifti1Image(*arrays[role])
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError) as by_file:
        read_volume(tmp_path / "a.nii")
    with pytest.raises(InputError) as by_array:
        cascade.predict(*arrays["CT"], *arrays["PET"])
    assert str(by_array.value) == f"{role} {by_file.value}"


def test_an_oblique_geometry_is_a_warning_as_of_a_file(cascade):
    sine, cosine = np.sin(np.deg2rad(30)), np.cos(np.deg2rad(30))
    oblique = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]]) @ AFFINE
    with pytest.warns(UserWarning, match="oblique") as told:
        cascade.open(CT, oblique, PET, oblique)
    words = "lies more than 15 degrees oblique to the body's axes: check that its orientation is right"
    assert [str(warning.message) for warning in told] == [f"CT {words}", f"PET {words}"]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ((CT, AFFINE, PET + 1j, AFFINE), "^PET holds values of the type complex64: give real numbers$"),
        ((CT.astype(object), AFFINE, PET, AFFINE), "^CT holds values of the type object: give real numbers$"),
        ((CT, AFFINE.astype(str), PET, AFFINE), "^CT's affine holds values of the type <U"),
        ((CT[:0], AFFINE, PET[:0], AFFINE), "^CT has no voxels"),
        ((CT, np.vstack([AFFINE[:3], [1, 2, 3, 4]]), PET, AFFINE), "^CT has an affine whose last row is not 0, 0, 0, 1"),
        ((CT, AFFINE * np.nan, PET, AFFINE), "^CT holds values that are no numbers"),
    ],
)
def test_arrays_without_real_numbers_are_refused_with_a_sentence(cascade, arrays, sentence):
    with pytest.raises(InputError, match=sentence):
        cascade.predict(*arrays)


def test_tensors_and_other_orders_of_bytes_give_the_mask_of_arrays(cascade):
    expected = cascade.predict(CT, AFFINE, PET, AFFINE)
    assert expected.any()
    ct, pet = torch.from_numpy(CT).float(), torch.from_numpy(PET).clone().requires_grad_()
    np.testing.assert_array_equal(cascade.predict(ct, torch.from_numpy(AFFINE), pet, AFFINE), expected)
    np.testing.assert_array_equal(cascade.predict(CT.astype(">i2"), AFFINE, PET.astype(">f4"), AFFINE), expected)
    study, mask = cascade.open(CT, AFFINE, PET, AFFINE), (PET > 5).astype(np.uint8)
    np.testing.assert_array_equal(study.segment(torch.from_numpy(mask)), study.segment(mask))


def test_loading_moves_no_random_number_and_leaves_the_output_as_it_is(models):
    before = sys.stdout.errors
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_cascade(models, profile="demo", patch_sizes=WINDOWS)
    assert torch.equal(torch.rand(4), expected)
    assert sys.stdout.errors == before != "backslashreplace"


@pytest.mark.parametrize("name", ["missing.nii.gz", Path("missing.nii.gz")])
def test_a_mask_that_cannot_be_read_is_named(name):
    with pytest.raises(InputError, match=r"^missing\.nii\.gz does not exist in \."):
        read_mask(name)


def test_what_is_remarkable_is_a_warning(cascade):
    with pytest.warns(UserWarning, match="highest SUV"):
        cascade.predict(CT, AFFINE, np.where(PET.max() == PET, 5000, PET), AFFINE)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "small"}, "profile is 'small': give full or demo"),
        ({"overlaps": 0.25}, "overlaps is no option of the inference"),
        ({"ckpt_dir": "none"}, r"none/model\.pt is missing: make it with"),
        ({"profile": "full"}, r"model\.pt does not fit Cascade"),
        ({"threshold": 50}, "^threshold is 50: give a number from 0 to 1$"),
        ({"threshold": "0.5"}, "^threshold is '0.5': give a number from 0 to 1$"),
        ({"final_threshold": 50}, "^final_threshold is 50: give a number from 0 to 1$"),
        ({"keep_found_above": 9}, "^keep_found_above is 9: give a number from 0 to 1$"),
        ({"body_margin": -5}, "^body_margin is -5: give a whole number, 0 or more$"),
        ({"body_suv": "x"}, "^body_suv is 'x': give an SUV, 0 or more$"),
        ({"click_reach_mm": -3}, "^click_reach_mm is -3: give a radius from 0 to 100 mm$"),
        ({"overlap": 2}, "^overlap is 2: give a share from 0 to 0.99 of a window$"),
        ({"mirror": [5]}, r"^mirror is \[5\]: give axes among 0, 1 and 2, such as \[0,1\]$"),
        ({"device": "gpu"}, "^device is 'gpu', which PyTorch does not know: give cpu, cuda or mps$"),
        (
            {"device": "cuda:7"},
            "^device is 'cuda:7', and PyTorch finds 0 devices of this kind here: give cpu, or one that is there$",
        ),
        ({"keep_untouched": "maybe"}, "^keep_untouched is 'maybe': give true or false$"),
        (
            {"patch_sizes": {**WINDOWS, "UNet": [31, 32, 32]}},
            r"^UNet: patch_size is \[31, 32, 32\], which UNet does not take: the next",
        ),
        (
            {"patch_sizes": {"UNet": [32, 32, 32]}},
            "^patch_sizes is .*: give a size for each of DynUNet, SegResNet, SwinUNETR, UNet",
        ),
        ({"coarse_mask": "a.nii.gz"}, "^coarse_mask is an option of the command alone, .*: give it to predict or segment$"),
        ({"ct": "a.nii.gz"}, "^ct is an option of the command alone, .*: give it to predict or open$"),
        *(
            ({name: value}, f"^{name} is an option of the command alone, which changes nothing here: leave it out$")
            for name, value in {"uncertainty": True, "studies": "RAW", "part": 2, "weight": 80, "dicom_output": False}.items()
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(models, options, sentence):
    with pytest.raises(InputError, match=sentence):
        load_cascade(**{"ckpt_dir": models, "profile": "demo", "patch_sizes": WINDOWS} | options)


def test_an_option_that_is_none_or_a_number_of_numpy_is_taken(study, models):
    options = {"threshold": 0.52, "overlap": 0.25, "body_margin": 3, "mirror": [0]}
    of_numpy = {"threshold": np.float64(0.52), "overlap": None, "body_margin": np.int64(3), "mirror": (0,)}
    ct, pet = (nib.load(study / name) for name in ("CT.nii.gz", "PET.nii.gz"))
    masks = [
        load_cascade(models, profile="demo", patch_sizes=WINDOWS, device=device, **given).predict(
            np.asarray(ct.dataobj), ct.affine, np.asarray(pet.dataobj), pet.affine
        )
        for device, given in (("cpu", options), (torch.device("cpu"), of_numpy))
    ]
    assert 0 < masks[0].mean() < 1, "a mask that is empty or full shows nothing"
    np.testing.assert_array_equal(masks[0], masks[1])


@pytest.mark.parametrize(
    ("name", "array", "affine", "sentence"),
    [
        ("a.txt", PET, AFFINE, r"a\.txt does not end with \.nii or \.nii\.gz: name a NIfTI file$"),
        ("a.mha", PET, AFFINE, r"a\.mha does not end with \.nii or \.nii\.gz"),
        (
            "a.nii",
            PET[0],
            AFFINE,
            r"a\.nii cannot hold the shape \(18, 22\) with an affine of \(4, 4\): give \(X, Y, Z\)",
        ),
        ("a.nii", PET, AFFINE[:3, :3], r"with an affine of \(3, 3\): give \(X, Y, Z\) and \(4, 4\)$"),
        ("a.nii", PET > 1, AFFINE, "cannot hold voxels of the type bool: give uint8, int16 or float32$"),
        ("a.nii", CT.astype(np.int64), AFFINE, "cannot hold voxels of the type int64: give uint8"),
    ],
)
def test_what_cannot_be_written_as_nifti_is_one_sentence(tmp_path, name, array, affine, sentence):
    with pytest.raises(InputError, match=sentence):
        write_volume(tmp_path / name, array, affine)
    assert not list(tmp_path.iterdir())


def test_the_array_that_does_not_fit_the_mask_is_named():
    mask = PET > 3
    for pet, uncertainty, words in ((PET[1:], None, "the PET (23, 18, 22)"), (PET, PET[0], "the uncertainty (18, 22)")):
        with pytest.raises(InputError) as refusal:
            study_readouts(mask, pet, AFFINE, uncertainty)
        assert str(refusal.value) == f"the mask has the shape (24, 18, 22) and {words}: give arrays (X, Y, Z) on one grid."
