"""The paper's numbers, read out of the objects that the default configs build, and the promises of the augmentation.

Numbers: Safdari et al., arXiv 2409.13006, and the authors' published code.
"""

from __future__ import annotations

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BUNDLES, NETWORKS, SMALL, STAGE1, STAGE2
from monai.bundle import ConfigParser
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.transforms import (
    Compose,
    Invertd,
    OneOf,
    RandAdjustContrastd,
    RandCoarseDropoutd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
)
from monai.utils import set_determinism

from petct_training.augmentation import RandFlipAxesd

PATCH = {
    "autopet_stage1_dynunet": [128, 160, 112],
    "autopet_stage2_segresnet": [192, 192, 192],
    "autopet_stage2_swinunetr": [96, 96, 96],
    "autopet_stage2_unet": [128, 160, 112],
}
# Outputs that the loss compares with the label.
DEEP_SUPERVISION = {
    "autopet_stage1_dynunet": 4,
    "autopet_stage2_segresnet": 3,
    "autopet_stage2_swinunetr": 1,
    "autopet_stage2_unet": 1,
}


def parse(bundle: str, data, **overrides) -> ConfigParser:
    """The training config of a bundle over a data set."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs/train.json")
    parser.update({"bundle_root": str(BUNDLES / bundle), "dataset_dir": str(data), "num_workers": 0, **overrides})
    return parser


def transforms(parser: ConfigParser, kind: type) -> list:
    return [item for item in parser.get_parsed_content("train::preprocessing").transforms if isinstance(item, kind)]


@pytest.mark.parametrize("bundle", NETWORKS)
def test_optimiser_and_schedule_are_the_papers(bundle, prepared):
    parser = parse(bundle, prepared)
    optimiser, schedule = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    assert isinstance(optimiser, torch.optim.SGD)
    group = optimiser.param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (1e-3, 0.99, True, 3e-5)
    assert parser.get_parsed_content("train::trainer").state.max_epochs == 774
    rates = []
    for _ in range(774):
        rates.append(group["lr"])
        optimiser.step()
        schedule.step()
    np.testing.assert_allclose(rates, [1e-3 * (1 - epoch / 774) ** 0.9 for epoch in range(774)], rtol=1e-9)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_patch_and_sliding_window_are_the_papers(bundle, prepared):
    parser = parse(bundle, prepared)
    inferer = parser.get_parsed_content("validate::evaluator").inferer
    assert list(inferer.roi_size) == PATCH[bundle]
    assert (inferer.overlap, inferer.mode) == (0.5, "constant")
    reader, affine = (parser.get_parsed_content(f"train::{name}") for name in ("patch_around_voxel", "affine"))
    assert list(reader.window_size) == [int(math.sqrt(2) * 1.2 * size) for size in PATCH[bundle]]
    assert reader.lesion_fraction == 0.5
    assert list(reader.spatial_size) == list(affine.rand_affine.spatial_size) == PATCH[bundle]
    assert list(reader.border) == [size // 2 for size in PATCH[bundle]]


@pytest.mark.parametrize("bundle", NETWORKS)
def test_augmentation_is_the_papers(bundle, prepared):
    parser = parse(bundle, prepared)
    (choice,) = [item for item in parser.get_parsed_content("train::preprocessing").transforms if isinstance(item, OneOf)]
    centre, affine_patch = choice.transforms
    assert list(choice.weights) == [0.8, 0.2]
    assert centre.transforms[0] is affine_patch.reader is parser.get_parsed_content("train::patch_around_voxel")
    affine = affine_patch.affine
    assert affine.rand_affine.prob == 1
    grid = affine.rand_affine
    assert grid.rand_affine_grid.rotate_range == (0.52,) * 3
    assert [tuple(scale) for scale in grid.rand_affine_grid.scale_range] == [(-0.3, 0.4)] * 3
    assert grid.rand_affine_grid.translate_range == (20,) * 3
    noise, smooth = transforms(parser, RandGaussianNoised)[0], transforms(parser, RandGaussianSmoothd)[0]
    assert (noise.prob, noise.rand_gaussian_noise.std) == (0.15, 0.1)
    assert (smooth.prob, smooth.rand_smooth.sigma_x, smooth.rand_smooth.sigma_z) == (0.2, (0.5, 1.0), (0.5, 1.0))
    scale, low = transforms(parser, RandScaleIntensityd)[0], transforms(parser, RandSimulateLowResolutiond)[0]
    assert (scale.prob, scale.scaler.factors) == (0.15, (-0.25, 0.25))
    assert (low.prob, low.sim_lowres_tfm.zoom_range) == (0.25, (0.5, 1.0))
    gamma = [(item.prob, item.adjuster.gamma, item.adjuster.invert_image) for item in transforms(parser, RandAdjustContrastd)]
    assert gamma == [(0.1, (0.7, 1.5), True), (0.3, (0.7, 1.5), False)]
    assert [item.prob for item in transforms(parser, RandFlipAxesd)] == [0.5]


@pytest.mark.parametrize("bundle", STAGE2)
def test_coarse_dropout_is_the_papers(bundle, prepared):
    (dropout,) = transforms(parse(bundle, prepared), RandCoarseDropoutd)
    assert dropout.keys == ("coarse_mask",)
    assert dropout.prob == 0.8
    assert (dropout.dropper.holes, dropout.dropper.max_holes) == (3, 5)
    assert (dropout.dropper.spatial_size, dropout.dropper.max_spatial_size) == (10, 32)
    assert dropout.dropper.fill_value == 0


def test_stage_1_has_no_coarse_dropout(prepared):
    assert transforms(parse(STAGE1, prepared), RandCoarseDropoutd) == []


@pytest.mark.parametrize("bundle", NETWORKS)
def test_loss_is_dice_over_the_batch_with_cross_entropy_and_halving_normalised_weights(bundle, prepared):
    heads = DEEP_SUPERVISION[bundle]
    loss = parse(bundle, prepared).get_parsed_content("loss")
    assert isinstance(loss, DeepSupervisionLoss)
    np.testing.assert_allclose(sum(loss.weights), 1)
    np.testing.assert_allclose([a / b for a, b in zip(loss.weights[1:], loss.weights, strict=False)], [0.5] * (heads - 1))
    loss = loss.loss
    assert isinstance(loss, DiceCELoss)
    torch.manual_seed(0)
    logits, label = torch.randn(2, 1, 4, 4, 4), (torch.rand(2, 1, 4, 4, 4) > 0.7).float()
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * label).sum() + loss.dice.smooth_nr) / (probability.sum() + label.sum() + loss.dice.smooth_dr)
    entropy = -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()
    torch.testing.assert_close(loss(logits, label), dice + entropy)


@pytest.mark.parametrize("bundle", ["autopet_stage1_dynunet", "autopet_stage2_segresnet"])
def test_every_deep_supervision_head_is_compared_at_full_size(bundle, prepared):
    """The sum of the heads' losses, each upsampled to the label's size, weighted 1, 1/2, 1/4 ... and normalised."""
    parser = parse(bundle, prepared)
    heads, size = DEEP_SUPERVISION[bundle], (32, 32, 32)
    torch.manual_seed(0)
    label = (torch.rand(1, 1, *size) > 0.7).float()
    if bundle == STAGE1:
        output = torch.randn(1, heads, 1, *size)
        full = list(output.unbind(1))
    else:
        output = [torch.randn(1, 1, *(side // 2**head for side in size)) for head in range(heads)]
        full = [torch.nn.functional.interpolate(head, size=size, mode="trilinear") for head in output]
    single = DiceCELoss(sigmoid=True, batch=True)
    weights = [2.0**-head for head in range(heads)]
    expected = sum(w * single(head, label) for w, head in zip(weights, full, strict=True)) / sum(weights)
    torch.testing.assert_close(parser.get_parsed_content("loss_function")(output, label), expected)


@pytest.mark.parametrize("cuda", [False, True])
def test_mixed_precision_is_on_with_cuda_only(prepared, monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    parser = parse(STAGE1, prepared)
    assert parser.get_parsed_content("mixed_precision") is cuda
    assert parser["train::trainer::amp"] == parser["validate::evaluator::amp"] == "@mixed_precision"


# ------------------------------------------------------------------ augmentation


def write_aligned(folder, shape=(50, 46, 54)) -> None:
    """One study whose label and coarse mask are functions of its image: lesion where CT (HU) > 70, which is where PET (SUV) > 8."""
    rng = np.random.default_rng(1)
    blobs = rng.normal(size=shape)
    for axis in range(3):
        for _ in range(8):
            blobs = (np.roll(blobs, 1, axis) + blobs + np.roll(blobs, -1, axis)) / 3
    blobs = (blobs - blobs.min()) / np.ptp(blobs)
    # Nothing near the border, where the transforms mix in the zeros outside of the volume.
    for axis, side in enumerate(shape):
        rise = np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) - 2) / 5, 0, 1)
        blobs *= rise.reshape([-1 if other == axis else 1 for other in range(3)])
    ct, pet = 100 * blobs, 2 + 60 / 7 * blobs
    label = ct > 70
    affine = np.diag([-5.0, 5, 5, 1])
    for name in ("images", "labels", "coarse_masks"):
        (folder / name).mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.stack([ct, pet], -1).astype(np.float32), affine), folder / "images/a.nii")
    nib.save(nib.Nifti1Image(label.astype(np.uint8), affine), folder / "labels/a.nii")
    nib.save(nib.Nifti1Image(label.astype(np.uint8), affine), folder / "coarse_masks/a.nii.gz")
    item = {"case": "a", "patient": "a", "tracer": "fdg", "image": "images/a.nii", "label": "labels/a.nii", "original": {}}
    (folder / "datalist.json").write_text(
        json.dumps({"studies_dir": ".", "training": [item], "validation": [item], "excluded": []})
    )
    ranges = {
        "ct": {"percentile_00_5": 0, "percentile_99_5": 100, "mean": 0, "std": 1},
        "pet": {"percentile_00_5": 0, "percentile_99_5": 12, "mean": 0, "std": 1},
    }
    (folder / "fingerprint.json").write_text(json.dumps({"spacing": [5, 5, 5], **ranges, "num_cases": 1, "source": "blobs"}))


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned") / "set"
    write_aligned(folder)
    return folder


NO_INTENSITY = dict.fromkeys(
    ("noise_prob", "smooth_prob", "intensity_prob", "low_resolution_prob", "gamma_prob", "gamma_inverted_prob"), 0
)


def augment(bundle, data, times, **overrides):
    """Patches of the training chain."""
    parser = parse(bundle, data, **SMALL, **overrides)
    set_determinism(3)
    dataset = parser.get_parsed_content("train::dataset")
    dataset.transform.set_random_state(3)
    return [dataset[0] for _ in range(times)]


@pytest.mark.parametrize("bundle", STAGE2)
def test_image_mask_and_label_stay_aligned_under_spatial_transforms(bundle, aligned):
    patches = augment(bundle, aligned, 30, affine_prob=1, dropout_prob=0, **NO_INTENSITY)
    for patch in patches:
        ct, pet, coarse = patch["image"]
        label = patch["label"][0].bool()
        assert torch.equal(coarse.bool(), label), "mask and label are the same function of the image"
        # Linear interpolation (image) and the nearest voxel (label) disagree only within a voxel of the surface.
        # Where the affine reaches beyond the window there are zeros, which interpolation mixes into their neighbours.
        surrounded = torch.nn.functional.pad(pet.as_tensor(), [1] * 6)[None]
        whole = -torch.nn.functional.max_pool3d(-surrounded, 3, 1)[0] > 1.999
        assert not (label & whole).any() or ct[label & whole].min() > 55
        assert ct[~label].max() < 80
        torch.testing.assert_close(pet[whole], 2 + 60 / 700 * ct[whole], atol=1e-3, rtol=0)
    assert sum(int(patch["label"].sum() > 0) for patch in patches) >= 10, "half of the patches are taken around a lesion"


@pytest.mark.parametrize("bundle", STAGE2)
def test_the_whole_random_chain_keeps_the_mask_binary_and_within_the_label(bundle, aligned):
    for patch in augment(bundle, aligned, 30):
        coarse, label = patch["image"][2], patch["label"][0]
        assert set(coarse.unique().tolist()) <= {0.0, 1.0}
        assert set(label.unique().tolist()) <= {0.0, 1.0}
        assert not (coarse.bool() & ~label.bool()).any(), "dropout only removes, and nothing else may move or blur the mask"


@pytest.mark.parametrize("bundle", STAGE2)
def test_dropout_removes_from_the_mask_and_changes_nothing_else(bundle, aligned):
    with_dropout = augment(bundle, aligned, 10, dropout_prob=1)
    without = augment(bundle, aligned, 10, dropout_prob=0)
    removed = 0
    for left, right in zip(with_dropout, without, strict=True):
        torch.testing.assert_close(left["image"][:2], right["image"][:2], rtol=0, atol=0)
        torch.testing.assert_close(left["label"], right["label"], rtol=0, atol=0)
        assert (left["image"][2] <= right["image"][2]).all()
        removed += int((right["image"][2] - left["image"][2]).sum())
    assert removed > 0


@pytest.mark.parametrize("bundle", NETWORKS)
def test_a_patch_without_affine_holds_the_studys_own_voxels(bundle, aligned):
    """Between window and patch there may be half a voxel, which must not be interpolated."""
    ct = torch.from_numpy(np.asarray(nib.load(aligned / "images/a.nii").dataobj)[..., 0])
    for patch in augment(bundle, aligned, 5, affine_prob=0, **NO_INTENSITY):
        values = patch["image"][0][patch["image"][0] > 0]
        nearest = (ct.ravel().sort().values - values[:200, None].as_tensor()).abs().min(dim=1).values
        assert nearest.max() < 1e-4


@pytest.mark.parametrize("bundle", NETWORKS)
def test_a_volume_smaller_than_the_patch_is_padded(bundle, aligned):
    parser = parse(bundle, aligned, patch_size=[64, 64, 64])
    patch = parser.get_parsed_content("train::dataset")[0]
    assert patch["image"].shape[1:] == patch["label"].shape[1:] == (64, 64, 64)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_validation_is_free_of_randomness(bundle, aligned):
    parser = parse(bundle, aligned)
    preprocessing = parser.get_parsed_content("validate::preprocessing")
    assert isinstance(preprocessing, Compose)
    assert not [item for item in preprocessing.transforms if type(item).__name__.startswith("Rand")]
    dataset = parser.get_parsed_content("validate::dataset")
    torch.testing.assert_close(dataset[0]["image"], dataset[0]["image"], rtol=0, atol=0)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_intensity_changes_touch_ct_and_pet_alone(bundle, aligned):
    changed = augment(
        bundle, aligned, 10, affine_prob=0, flip_prob=0, noise_prob=1, **({"dropout_prob": 0} if bundle != STAGE1 else {})
    )
    plain = augment(
        bundle, aligned, 10, affine_prob=0, flip_prob=0, **NO_INTENSITY, **({"dropout_prob": 0} if bundle != STAGE1 else {})
    )
    for left, right in zip(changed, plain, strict=True):
        assert not torch.equal(left["image"][:2], right["image"][:2])
        torch.testing.assert_close(left["image"][2:], right["image"][2:], rtol=0, atol=0)
        torch.testing.assert_close(left["label"], right["label"], rtol=0, atol=0)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_small_volumes_are_padded_with_what_lies_outside_of_a_study_in_training(bundle, prepared):
    parser = parse(
        bundle, prepared, patch_size=[64, 64, 64], affine_prob=0, flip_prob=0, noise_prob=0, smooth_prob=0, intensity_prob=0
    )
    parser.update({**dict.fromkeys(("low_resolution_prob", "gamma_inverted_prob", "gamma_prob"), 0), "num_workers": 0})
    patch = parser.get_parsed_content("train::dataset")[0]["image"]
    # A study of 40 x 30 x 56 voxels leaves room on both sides of y in a patch of 64.
    outside = parser.get_parsed_content("validate::dataset")[0]["image"][:, 0, 0, 0]
    for channel in (0, 1):
        values, counts = patch[channel].unique(return_counts=True)
        assert outside[channel] == pytest.approx(float(values[counts.argmax()]), abs=1e-6)
    assert (outside[2:] == 0).all()


@pytest.mark.parametrize("bundle", NETWORKS)
def test_prediction_of_a_small_volume_comes_back_to_its_own_grid(bundle, prepared):
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs/inference.json")
    parser.update({"dataset_dir": str(prepared), "ckpt_dir": str(prepared), "patch_size": [64, 64, 64]})
    parser.update({"coarse_mask_dir": str(prepared / "coarse_masks")})
    preprocessing = parser.get_parsed_content("preprocessing")
    file = next((prepared / "images").iterdir())
    item = {"image": str(file)}
    if bundle != STAGE1:
        item["coarse_mask"] = str(prepared / "coarse_masks" / f"{file.stem}.nii.gz")
    item = preprocessing(item)
    assert min(item["image"].shape[1:]) >= 64
    item["pred"] = item["image"][1:2].clone()
    back = Invertd("pred", preprocessing, orig_keys="image_pet", nearest_interp=False, to_tensor=True)(item)["pred"]
    pet = nib.load(file)
    assert back.shape[1:] == pet.shape[:3]
    np.testing.assert_allclose(back.affine, pet.affine, atol=1e-4)
