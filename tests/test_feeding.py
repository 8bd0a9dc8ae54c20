"""Promises of the training's patches: they are those that MONAI's own transforms make, and only their voxels are read."""

from __future__ import annotations

import pickle
import platform
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import (
    BUNDLES,
    ENSEMBLE,
    NETWORKS,
    STAGE1,
    assert_same_weights,
    train,
)
from monai.data.utils import set_rnd
from monai.transforms import Compose, OneOf, RandAffined, RandCropByPosNegLabeld
from monai.transforms.utils import generate_pos_neg_label_crop_centers, map_binary_to_indices
from plain_chain import parse
from torch.nn.functional import grid_sample

from petct_training.errors import InputError
from petct_training.patches import ReadAffinePatchd, ReadPatchd, destination, read_box, sampling_grid

UNCHANGED = {
    **dict.fromkeys(
        ("noise_prob", "smooth_prob", "intensity_prob", "low_resolution_prob", "gamma_prob", "gamma_inverted_prob"), 0
    ),
    "flip_prob": 0,
}
FIXED_AFFINE = {"affine_prob": 1, "rotation": [0.3, 0.3], "scaling": [0.2, 0.2], "translation": [3, 3]}


def patches(bundle: str, data: Path, *, quick: bool, times: int = 6, **overrides) -> list[dict]:
    """Patches of a bundle whose windows are drawn with the seeds 0, 1, 2 ..."""
    dataset = parse(bundle, data, quick=quick, **overrides).get_parsed_content("train::dataset")
    (drawing,) = {id(item): item for item in leaves(dataset.transform, (RandCropByPosNegLabeld, ReadPatchd))}.values()
    result = []
    for seed in range(times):
        (drawing if quick else drawing.cropper).set_random_state(seed)
        patch = dataset[seed % len(dataset)]
        result += patch if isinstance(patch, list) else [patch]
    return result


def leaves(transform, kinds: tuple[type, ...]) -> list:
    """The transforms of some classes within a chain."""
    inner = list(transform.transforms) if isinstance(transform, Compose) else []
    inner += [transform.reader, transform.transforms] if isinstance(transform, ReadAffinePatchd) else []
    return [item for part in inner for item in leaves(part, kinds)] + ([transform] if isinstance(transform, kinds) else [])


@pytest.mark.parametrize("bundle", NETWORKS)
def test_without_affine_every_patch_is_the_plain_chains_voxel_by_voxel(bundle, prepared):
    for fast, plain in zip(
        *(patches(bundle, prepared, quick=quick, affine_prob=0, **UNCHANGED) for quick in (True, False)), strict=True
    ):
        for key in ("image", "label"):
            assert fast[key].dtype == plain[key].dtype
            assert torch.equal(fast[key].as_tensor(), plain[key].as_tensor())
            torch.testing.assert_close(fast[key].affine, plain[key].affine)
        assert fast["image"].meta["filename_or_obj"] == plain["image"].meta["filename_or_obj"]


@pytest.mark.parametrize("bundle", NETWORKS)
def test_with_an_affine_every_patch_is_the_plain_chains_but_for_rounding(bundle, prepared):
    for fast, plain in zip(
        *(patches(bundle, prepared, quick=quick, **{**UNCHANGED, **FIXED_AFFINE}) for quick in (True, False)), strict=True
    ):
        # Normalised values, whose unit is the fingerprint's standard deviation.
        torch.testing.assert_close(fast["image"][:2].as_tensor(), plain["image"][:2].as_tensor(), rtol=0, atol=5e-5)
        # The nearest voxel is another only where two are equally near but for rounding.
        for left, right in ((fast["label"], plain["label"]), (fast["image"][2:], plain["image"][2:])):
            assert (left.as_tensor() != right.as_tensor()).float().sum() <= 3
        torch.testing.assert_close(fast["image"].affine, plain["image"].affine, rtol=1e-5, atol=1e-3)


def plain_window(label: np.ndarray, window: list[int], border: list[int], fraction: float, seed: int) -> list[int]:
    """First voxel of the window that MONAI draws in the padded label, counted in the label without padding."""
    missing = [max(w - side - 2 * b, 0) for w, side, b in zip(window, label.shape, border, strict=True)]
    before = [b + more // 2 for b, more in zip(border, missing, strict=True)]
    after = [b + more - more // 2 for b, more in zip(border, missing, strict=True)]
    padded = np.pad(label, list(zip(before, after, strict=True)))[None]
    indices = map_binary_to_indices(padded)
    state = np.random.RandomState(seed)
    ((*centre,),) = generate_pos_neg_label_crop_centers(window, 1, fraction, padded.shape[1:], *indices, rand_state=state)
    return [c - w // 2 - b for c, w, b in zip(centre, window, before, strict=True)]


@pytest.mark.filterwarnings("ignore:Num foregrounds")
@pytest.mark.parametrize("density", [0, 0.01, 0.5, 1])
@pytest.mark.parametrize("order", ["C", "F"])
def test_windows_are_the_very_ones_that_monai_draws(density, order):
    """In studies smaller and larger than the window, with few, many, no and nothing but lesion voxels."""
    rng = np.random.default_rng(0)
    for seed in range(150):
        shape, window = rng.integers(2, 14, 3).tolist(), rng.integers(2, 17, 3).tolist()
        border = rng.integers(0, 4, 3).tolist() if density < 1 else [0, 0, 0]
        label = np.asarray(rng.random(shape) < density, np.uint8, order=order)
        reader = ReadPatchd("label", "label", window, window, border, lesion_fraction=0.5).set_random_state(seed)
        assert list(reader.randomize(label)) == plain_window(label, window, border, 0.5, seed)


def test_half_of_the_windows_are_drawn_around_lesions_and_those_of_the_background_everywhere(tmp_path):
    label = np.zeros((20, 20, 20), np.uint8)
    label[3:5, 10, 12] = 1
    # Windows of one voxel say which voxel was drawn.
    reader = ReadPatchd("label", "label", [1, 1, 1], [1, 1, 1], [0, 0, 0], lesion_fraction=0.5).set_random_state(0)
    drawn = np.array([reader.randomize(label) for _ in range(4000)])
    lesion = label[tuple(drawn.T)] == 1
    # Three standard deviations of a share of 4000, and of a mean of 2000 of a uniform distribution over 20.
    assert abs(lesion.mean() - 0.5) < 3 * np.sqrt(0.25 / 4000)
    assert (np.abs(drawn[~lesion].mean(axis=0) - 9.5) < 3 * np.sqrt((20**2 - 1) / 12 / 2000)).all()
    assert {tuple(voxel) for voxel in drawn[lesion]} == {(3, 10, 12), (4, 10, 12)}


def test_a_box_holds_the_files_voxels_and_the_given_value_outside(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7, 2)).astype(np.float32)
    affine = np.array([[-2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    for suffix in ("nii", "nii.gz"):
        file = tmp_path / f"a.{suffix}"
        nib.save(nib.Nifti1Image(voxels, affine), file)
        padded = np.pad(voxels, ((9, 9), (9, 9), (9, 9), (0, 0)), constant_values=-7)
        for start in ((-2, 1, 3), (-9, -9, -9), (4, 5, 6), (-1, -1, -1), (5, 0, 0)):
            box = read_box(file, start, (4, 7, 3), -7, (5, 6, 7))
            expected = padded[tuple(slice(9 + first, 9 + first + side) for first, side in zip(start, (4, 7, 3), strict=True))]
            np.testing.assert_array_equal(box.numpy(), np.moveaxis(expected, 3, 0))
            np.testing.assert_allclose(box.affine[:3, 3], affine[:3, :3] @ start + affine[:3, 3])


def test_only_the_patch_is_copied_from_the_disk(tmp_path):
    file, mask = tmp_path / "a.nii", tmp_path / "m.nii"
    shape = (200, 200, 200)
    nib.save(nib.Nifti1Image(np.zeros((*shape, 2), np.float32), np.eye(4)), file)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), mask)
    size = [32, 32, 32]
    reader = ReadPatchd(["image", "label"], "label", size, size, [16, 16, 16]).set_random_state(0)
    reader({"image": str(file), "label": str(mask)})
    tracemalloc.start()
    reader({"image": str(file), "label": str(mask)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A bit more than a byte a voxel while lesions are looked for; the image alone has eight.
    assert peak < 1.2 * np.prod(shape)


def test_a_mask_of_another_grid_is_one_sentence(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(
        InputError, match=r"a\.nii\.gz is of another preparation: its size is \(5, 6, 7\), and the label's \(5, 6, 8\)"
    ):
        read_box(tmp_path / "a.nii.gz", (0, 0, 0), (2, 2, 2), 0, (5, 6, 8))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_outside_of_a_boxs_destination_nothing_is_interpolated_from_it(mode):
    rng = np.random.default_rng(0)
    size, source, empty = (11, 9, 10), (12, 14, 10), 0
    for _ in range(60):
        first = rng.integers(0, np.array(source) - 2)
        box = tuple(slice(int(low), int(low + rng.integers(1, 3))) for low in first)
        volume = torch.zeros(1, 1, *source)
        volume[(..., *box)] = 1
        matrix = np.eye(4)
        matrix[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.7, 1.4)
        matrix[:3, 3] = rng.uniform(-3, 12, 3)
        patch = grid_sample(volume, sampling_grid(matrix, size, source), mode=mode, align_corners=False)[0, 0]
        reached = destination(box, matrix, size)
        if reached is None:
            empty += 1
        else:
            patch[reached] = 0
        assert not patch.any()
    assert 0 < empty < 60


def test_an_affine_that_pads_with_anything_but_zeros_is_refused():
    size = [4, 4, 4]
    with pytest.raises(ValueError, match="give 'zeros'"):
        ReadAffinePatchd(ReadPatchd("image", "image", size, size, size), [], RandAffined("image", padding_mode="border"))


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_on_linux():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from petct_training.cpu import keep_freed_memory; sys.exit(not keep_freed_memory())"
    assert subprocess.run([sys.executable, "-c", code, str(BUNDLES / ENSEMBLE)], check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_until_the_end_of_a_block_alone():
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from petct_training.cpu import freed_memory_kept
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
size = 2**28
before = resident()
def grown_by_a_freed_array():
    array, after_it = bytearray(b"1") * size, bytearray(b"1") * 2**20
    del array
    return resident() - before
with freed_memory_kept():
    kept = grown_by_a_freed_array()
returned, later = resident() - before, grown_by_a_freed_array()
sys.exit(not (kept > 0.9 * size and max(returned, later) < 0.1 * size))
"""
    assert subprocess.run([sys.executable, "-c", code, str(BUNDLES / ENSEMBLE)], check=False).returncode == 0


def test_the_choice_of_an_affine_is_the_plain_chains(prepared):
    for quick in (True, False):
        parser = parse(STAGE1, prepared, quick=quick)
        (choice,) = leaves(parser.get_parsed_content("train::preprocessing"), (OneOf,))
        assert list(choice.weights) == [0.8, 0.2]


@pytest.mark.parametrize("bundle", NETWORKS)
def test_one_seed_gives_the_same_patches_and_another_seed_others(bundle, prepared):
    def draw(seed: int) -> list[torch.Tensor]:
        dataset = parse(bundle, prepared, quick=True, affine_prob=0.5).get_parsed_content("train::dataset")
        # As the trainer does at the start of each epoch.
        set_rnd(dataset, seed)
        return [dataset[number % len(dataset)]["image"].as_tensor() for number in range(8)]

    first, same, other = draw(7), draw(7), draw(8)
    assert all(torch.equal(left, right) for left, right in zip(first, same, strict=True))
    assert not any(torch.equal(left, right) for left, right in zip(first, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("bundle", NETWORKS)
def test_every_network_trains_with_loading_processes_and_one_seed_gives_the_same_weights(bundle, prepared, tmp_path):
    for name in ("a", "b"):
        train(bundle, prepared, tmp_path / name, "train", "demo", max_epochs=1, num_workers=2)
    assert_same_weights(tmp_path / "a/model.pt", tmp_path / "b/model.pt")


@pytest.mark.parametrize("bundle", NETWORKS)
def test_loading_processes_that_are_spawned_get_the_same_transforms(bundle, prepared):
    """As on macOS and Windows, where a data set is pickled for another process; to start one here would take too long."""
    parser = parse(bundle, prepared, quick=True, affine_prob=0.5)
    for split in ("train", "validate"):
        dataset = parser.get_parsed_content(f"{split}::dataset")
        set_rnd(dataset, 3)
        copy = pickle.loads(pickle.dumps(dataset))
        for number in range(len(dataset)):
            assert torch.equal(copy[number]["image"].as_tensor(), dataset[number]["image"].as_tensor())
