"""Promises of reading CT and PET, of averaging probabilities and of writing masks."""

from __future__ import annotations

import itertools
import threading
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import las, make_study, write_nifti, write_study
from monai.data import MetaTensor
from monai.transforms import CropForegroundd, LoadImaged, SaveImaged, Spacingd, SpatialResample

from petct_cascade.loading import AIR_HU, CropToBodyd, LoadImagePETCTd, PadToStudyd
from petct_cascade.resampling import SeparableResample, SeparableSpacingd, mask_on_grid
from petct_cascade.transforms import MeanOfMembersd, Roundd
from petct_cascade.volumes import read_volume
from petct_cascade.writing import AtomicNibabelWriter, SaveMasksd, after_writing, writing_behind
from petct_training.errors import InputError

PET_SHAPE, PET_AFFINE = (20, 18, 16), las((4, 4, 5), (30, -20, 100))


def load(image, **item):
    return LoadImagePETCTd(keys="image")({"image": image, **item})["image"]


def world(affine, shape) -> np.ndarray:
    """World coordinates (X, Y, Z, 3) of the voxels' centres, mm."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]


def ramp(points: np.ndarray) -> np.ndarray:
    """A function of the place that linear interpolation gives back exactly."""
    return points @ [2.0, -3.0, 1.5] + 40


def rotated(affine: np.ndarray, degrees: float) -> np.ndarray:
    """An affine turned about the z axis."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine


def test_ct_and_pet_on_one_grid_are_read_as_they_are(tmp_path):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    image = load([ct, pet])
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image[0], nib.load(ct).get_fdata())
    np.testing.assert_array_equal(image[1], nib.load(pet).get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(image.affine, nib.load(pet).affine)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((80, 70, 60), las((1.5, 1.5, 2), (45, -30, 90))),
        ((9, 9, 9), las((15, 14, 16), (45, -30, 90))),
        ((80, 70, 60), np.array([[1.5, 0, 0, -50], [0, -1.5, 0, 65], [0, 0, -2, 205], [0, 0, 0, 1.0]])),
        ((60, 80, 70), np.array([[0, -1.5, 0, 45], [0, 0, 1.5, -30], [2, 0, 0, 90], [0, 0, 0, 1.0]])),
        ((90, 90, 60), rotated(las((1.5, 1.5, 2), (60, -50, 90)), 10)),
    ],
    ids=["finer", "coarser", "other-orientation", "other-axes", "oblique"],
)
def test_ct_on_another_grid_lands_on_that_of_the_pet(tmp_path, shape, affine):
    ct = write_nifti(tmp_path / "ct.nii", ramp(world(affine, shape)).astype(np.float32), affine)
    pet = write_nifti(tmp_path / "pet.nii", np.ones(PET_SHAPE, np.float32), PET_AFFINE)
    image = load([ct, pet])
    points = world(PET_AFFINE, PET_SHAPE)
    index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    inside = ((index >= 0) & (index <= np.array(shape) - 1)).all(-1)
    outside = ((index < -1) | (index > np.array(shape))).any(-1)
    assert inside.sum() > 500
    np.testing.assert_allclose(image[0].numpy()[inside], ramp(points)[inside], atol=0.02)
    np.testing.assert_array_equal(image[0].numpy()[outside], AIR_HU)
    np.testing.assert_array_equal(image.affine, PET_AFFINE)
    np.testing.assert_array_equal(image[1], np.ones(PET_SHAPE))


def test_what_the_ct_does_not_cover_is_air(tmp_path):
    ct = write_nifti(tmp_path / "ct.nii", np.full((10, 18, 16), 40, np.int16), PET_AFFINE)
    pet = write_nifti(tmp_path / "pet.nii", np.ones(PET_SHAPE, np.float32), PET_AFFINE)
    image = load([ct, pet])
    np.testing.assert_allclose(image[0, :10], 40, atol=0.001)
    np.testing.assert_array_equal(image[0, 10:], AIR_HU)


def test_headers_that_differ_by_rounding_are_one_grid(tmp_path):
    ct, pet, _ = make_study()
    files = [
        write_nifti(tmp_path / "ct.nii", ct, las((4.00001, 4, 5))),
        write_nifti(tmp_path / "pet.nii", pet, las((4, 4, 5))),
    ]
    np.testing.assert_array_equal(load(files)[0], ct)


def test_one_4d_file_gives_what_two_files_give(tmp_path):
    ct, pet, _ = make_study()
    affine = las((4, 4, 5), (3, 4, 5))
    both = write_nifti(tmp_path / "both.nii.gz", np.stack([ct, pet], -1).astype(np.float32), affine)
    pair = load([write_nifti(tmp_path / "ct.nii", ct, affine), write_nifti(tmp_path / "pet.nii", pet, affine)])
    image = load(str(both))
    np.testing.assert_array_equal(image, pair)
    np.testing.assert_array_equal(image.affine, pair.affine)


def test_trailing_axes_of_length_one_are_taken_away(tmp_path):
    ct, pet, _ = make_study()
    files = [write_nifti(tmp_path / f"{i}.nii", array[..., None], las((4, 4, 5))) for i, array in enumerate((ct, pet))]
    assert load(files).shape == (2, *pet.shape)


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({}, "psma_7 a  b v1.2"),
        ({"case": "fdg_x.y  z"}, "fdg_x.y  z"),
    ],
    ids=["file", "case"],
)
def test_mask_is_called_after_the_case_and_lies_on_the_pet(tmp_path, item, name):
    ct, pet, _ = write_study(tmp_path, "psma_7 a  b v1.2")
    image = load([ct, pet], **item)
    mask = MetaTensor(image[1:] > 1, meta=image.meta)
    SaveImaged(
        keys="pred",
        output_dir=tmp_path / "masks",
        output_postfix="",
        separate_folder=False,
        resample=False,
        output_dtype=np.uint8,
        print_log=False,
        writer="petct_cascade.writing.AtomicNibabelWriter",
    )({"pred": mask})
    (file,) = (tmp_path / "masks").iterdir()
    saved, reference = nib.load(file), nib.load(pet)
    assert file.name == f"{name}.nii.gz"
    assert saved.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(saved.affine, reference.affine)
    np.testing.assert_array_equal(saved.dataobj, reference.get_fdata(dtype=np.float32) > 1)


def test_loader_is_recognised_by_its_name_and_not_replaced():
    assert "LoadImage" in LoadImagePETCTd.__name__
    assert not issubclass(LoadImagePETCTd, LoadImaged)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda ct, pet, folder: [ct, folder / "none.nii.gz"], "none.nii.gz does not exist"),
        (lambda ct, pet, folder: [ct, pet, pet], "3 files are given as its image: give two, first the CT and then the PET"),
        (lambda ct, pet, folder: str(pet), "has the size (16, 14, 18): give 2 channels as (X, Y, Z, 2), or one file each"),
        (
            lambda ct, pet, folder: str(write_nifti(folder / "three.nii", np.zeros((4, 4, 4, 3), np.float32), np.eye(4))),
            "has the size (4, 4, 4, 3): give 2 channels",
        ),
        (
            lambda ct, pet, folder: [ct, write_nifti(folder / "four.nii", np.zeros((4, 4, 4, 3), np.float32), np.eye(4))],
            "has 4 dimensions (4, 4, 4, 3): give one volume of 3 dimensions",
        ),
    ],
    ids=["missing", "three-files", "one-3d-file", "three-channels", "4d-pet"],
)
def test_unusable_image_is_one_sentence_with_study_and_file(tmp_path, make, words):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    with pytest.raises(InputError, match=r"^study fdg_a_1: ") as error:
        load(make(ct, pet, tmp_path), case="fdg_a_1")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_file_that_is_cut_off_is_one_sentence(tmp_path):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    pet.write_bytes(pet.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"fdg_a_1_0001\.nii\.gz is damaged or cut off") as error:
        load([ct, pet])
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the body's box


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["one-grid", "finer-ct", "one-file"])
def test_body_is_cropped_as_monai_crops_it_and_its_mask_put_back(tmp_path, case):
    files = list(write_study(tmp_path, "fdg_a_1")[:2])
    if case == "finer-ct":
        affine = las((2, 2, 2.5), (1, -1, 3))
        points = world(affine, (33, 29, 37))
        files[0] = write_nifti(tmp_path / "finer.nii", ramp(points).astype(np.float32), affine)
    image = [str(file) for file in files]
    if case == "one-file":
        volumes = [nib.load(file) for file in files]
        both = np.stack([volume.get_fdata(dtype=np.float32) for volume in volumes], -1)
        image = str(write_nifti(tmp_path / "both.nii", both, volumes[1].affine))
    whole = load(image)
    crop = CropForegroundd("image", "image", select_fn=lambda both: both > 0.3, channel_indices=1, margin=2, allow_smaller=True)
    expected = crop({"image": whole})["image"]
    cropped = CropToBodyd(keys="image", body_suv=0.3, body_margin=2)({"image": whole})["image"]
    assert cropped.shape < whole.shape
    torch.testing.assert_close(cropped.as_tensor(), expected.as_tensor(), atol=0, rtol=0)
    torch.testing.assert_close(cropped.affine, expected.affine)
    back = PadToStudyd(keys="image")({"image": cropped > 1})["image"]
    assert back.dtype == torch.bool
    inverse = crop.inverse({"image": expected})["image"]
    torch.testing.assert_close(back.as_tensor(), inverse.as_tensor() > 1)
    torch.testing.assert_close(back.affine, whole.affine)


def test_study_without_uptake_is_not_cropped(tmp_path):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    whole = load([ct, pet])
    assert CropToBodyd(keys="image", body_suv=100, body_margin=2)({"image": whole})["image"].shape == whole.shape


def test_crop_leaves_the_shape_of_the_study_to_hosts_that_resize_to_it_and_the_study_as_it_was(tmp_path):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    whole = load([ct, pet])
    before = whole.clone()
    cropped = CropToBodyd(keys="image", body_suv=0.3)({"image": whole})["image"]
    assert cropped.shape[1:] < whole.shape[1:]
    assert list(cropped.meta["spatial_shape"]) == list(whole.shape[1:]) == list(whole.meta["spatial_shape"])
    np.testing.assert_array_equal(cropped.meta["original_affine"], nib.load(pet).affine)
    torch.testing.assert_close(whole, before, rtol=0, atol=0)
    cropped.fill_(7)
    torch.testing.assert_close(whole, before, rtol=0, atol=0)


@pytest.mark.parametrize("axis", [-1, 3, 0])
def test_channels_of_a_volume_that_a_host_has_read_may_lie_on_any_axis(tmp_path, axis):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    whole = load([ct, pet])
    expected = CropToBodyd(keys="image", body_suv=0.3, body_margin=2)({"image": whole})["image"]
    moved = MetaTensor(whole.as_tensor().movedim(0, axis), affine=whole.affine, meta={"original_channel_dim": axis})
    image = CropToBodyd(keys="image", body_suv=0.3, body_margin=2)({"image": moved})["image"]
    torch.testing.assert_close(image.as_tensor(), expected.as_tensor(), rtol=0, atol=0)
    torch.testing.assert_close(image.affine, expected.affine, rtol=0, atol=0)
    assert list(image.meta["spatial_shape"]) == list(whole.shape[1:])


@pytest.mark.parametrize(
    ("shape", "axis"), [((9, 8, 7), "no_channel"), ((3, 9, 8, 7), 0), ((9, 8, 7, 1), -1), ((2, 9, 8, 7), float("nan"))]
)
def test_volume_without_two_channels_is_one_sentence(shape, axis):
    image = MetaTensor(torch.zeros(shape), meta={"original_channel_dim": axis})
    with pytest.raises(InputError, match=r"^the image has the shape .* give two channels, the CT in HU and the PET in SUV"):
        CropToBodyd(keys="image", body_suv=0.3)({"image": image})


def test_result_that_was_not_cropped_stays_as_it_is():
    mask = MetaTensor(torch.ones(1, 3, 4, 5), affine=torch.as_tensor(PET_AFFINE))
    assert PadToStudyd(keys="pred")({"pred": mask})["pred"] is mask


# ---------------------------------------------------------------- mean of the members


@pytest.fixture
def members() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand((1, 5, 6, 7), generator=generator) for name in "abc"}


def test_mean_and_spread_are_those_of_the_members(members):
    item = MeanOfMembersd(keys=["a", "b", "c"], spread_key="spread")(members)
    stacked = np.stack([members[name].numpy() for name in "abc"]).astype(np.float64)
    np.testing.assert_allclose(item["pred"], stacked.mean(0), atol=1e-6)
    np.testing.assert_allclose(item["spread"], stacked.std(0), atol=1e-6)
    assert set(item) == {"pred", "spread"}


def test_averaging_changes_no_members_probability(members):
    before = {name: tensor.clone() for name, tensor in members.items()}
    item = MeanOfMembersd(keys=["a", "b", "c"], output_key="mean", keep_members=True)(members)
    assert set(item) == {"a", "b", "c", "mean"}
    for name in "abc":
        torch.testing.assert_close(item[name], before[name], rtol=0, atol=0)


def test_prediction_of_the_whole_cascade_is_left_as_it_is(members):
    item = {"pred": members["a"]}
    assert MeanOfMembersd(keys=["a", "b", "c"])(item)["pred"] is members["a"]


# ---------------------------------------------------------------- writing


def writer_of_a_mask() -> AtomicNibabelWriter:
    writer = AtomicNibabelWriter()
    writer.set_data_array(np.ones((4, 4, 4), np.uint8), channel_dim=None)
    writer.set_metadata({"affine": np.eye(4)}, resample=False)
    return writer


def test_mask_that_could_not_be_written_whole_is_not_there(tmp_path, monkeypatch):
    def full_disk(image, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full_disk)
    with pytest.raises(InputError, match=r"mask\.nii\.gz cannot be written \(No space left on device\)"):
        writer_of_a_mask().write(tmp_path / "mask.nii.gz")
    assert not list(tmp_path.iterdir())


def test_masks_are_written_while_the_next_study_is_computed_and_one_that_fails_costs_no_other(tmp_path, monkeypatch):
    save, computed = nib.save, threading.Event()

    def save_later(image, file):
        assert computed.wait(60), "the study after it was not computed meanwhile"
        if file.name == "full.nii.gz":
            raise OSError(28, "No space left on device")
        save(image, file)

    monkeypatch.setattr(nib, "save", save_later)
    files = [tmp_path / folder / name for name in ("full.nii.gz", "good.nii.gz") for folder in ("a", "b")]
    with writing_behind() as failures:
        for file in files[:2]:
            writer_of_a_mask().write(file)
        assert not any(file.is_file() for file in files)
        computed.set()
        for file in files[2:]:
            writer_of_a_mask().write(file)
    assert list(failures) == ["full.nii.gz"]
    assert "full.nii.gz cannot be written (No space left on device)" in str(failures["full.nii.gz"])
    assert [file.is_file() for file in files] == [False, False, True, True]
    writer_of_a_mask().write(tmp_path / "after.nii.gz")
    assert (tmp_path / "after.nii.gz").is_file()


def test_what_is_to_be_done_after_a_study_is_written_is_not_where_its_mask_could_not_be(tmp_path, monkeypatch):
    save, done = nib.save, []

    def fail(image, file):
        if file.name == "full.nii.gz":
            raise OSError(28, "No space left on device")
        save(image, file)

    monkeypatch.setattr(nib, "save", fail)
    with writing_behind() as failures:
        for case in ("full", "good"):
            writer_of_a_mask().write(tmp_path / f"{case}.nii.gz")
            after_writing(case, partial(done.append, case))
    assert (list(failures), done) == (["full.nii.gz"], ["good"])


@pytest.mark.parametrize("case", ["../outside", "a/b", "..", "", "x" * 300])
def test_case_that_could_leave_the_output_folder_is_refused(tmp_path, case):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    with pytest.raises(InputError, match=r"^study .*: the (name|study)"):
        load([ct, pet], case=case)


SPACINGS = {
    "finer": ((4.0, 4.1, 5.0), (2.036, 2.036, 3.0)),
    "coarser": ((2.036, 2.036, 3.0), (2.6, 2.7, 7.1)),
    # No voxel lies half-way between two others, where the nearest is a matter of rounding.
    "mixed": ((4.0, 2.0, 3.0), (2.63, 2.61, 3.0)),
    "same": ((2.6, 2.6, 3.0), (2.6, 2.6, 3.0)),
}


@pytest.mark.parametrize("degrees", [0, 12], ids=["upright", "oblique"])
@pytest.mark.parametrize("kind", SPACINGS)
def test_separable_spacing_gives_monais_voxels_there_and_back(kind, degrees):
    before, after = SPACINGS[kind]
    generator = torch.Generator().manual_seed(0)
    affine = torch.as_tensor(rotated(las(before, (30, -20, 100)), degrees))
    ct = MetaTensor(torch.rand(1, 21, 18, 16, generator=generator), affine=affine)
    label = MetaTensor((torch.rand(1, 21, 18, 16, generator=generator) > 0.7).float(), affine=affine)
    item, mode = {"ct": ct, "label": label}, ["bilinear", "nearest"]
    monais = Spacingd(["ct", "label"], after, mode=mode, padding_mode="border", dtype=torch.float64)
    ours = SeparableSpacingd(["ct", "label"], after, mode=mode)
    there = monais(dict(item)), ours(dict(item))
    back = monais.inverse(there[0]), ours.inverse(there[1])
    for expected, resampled in (there, back):
        for key, tolerance in (("ct", 1e-4), ("label", 0)):
            torch.testing.assert_close(resampled[key].as_tensor(), expected[key].as_tensor(), atol=tolerance, rtol=0)
            torch.testing.assert_close(resampled[key].affine, expected[key].affine)


@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_separable_resampling_takes_what_lies_outside_as_monai_does(padding_mode):
    image = MetaTensor(torch.rand(1, 9, 8, 7, generator=torch.Generator().manual_seed(0)), affine=torch.as_tensor(las((2, 2, 3))))
    target = torch.as_tensor(las((1.3, 1.7, 2.2), (5, -4, -6)))
    options = {"mode": "bilinear", "padding_mode": padding_mode, "dtype": torch.float64}
    expected = SpatialResample(**options)(image, target, [22, 21, 19])
    torch.testing.assert_close(SeparableResample(**options)(image, target, [22, 21, 19]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [0.5, -0.5, 1.5])
def test_mask_that_moves_by_half_a_voxel_keeps_all_its_slices_once(shift):
    mask = np.zeros((4, 3, 12), np.uint8)
    mask[:, :, [3, 6, 7]] = 1
    other = np.eye(4)
    other[2, 3] = shift
    moved = mask_on_grid(mask, np.eye(4), mask.shape, other)
    assert moved.sum() == mask.sum()
    np.testing.assert_array_equal(np.diff(np.flatnonzero(moved[0, 0])), [3, 1])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flipped", [(), (0,), (0, 1, 2)])
def test_nearest_voxel_of_a_mask_does_not_depend_on_the_way_in_which_its_axes_are_stored(order, flipped):
    mask = (np.random.default_rng(0).random((9, 7, 8)) > 0.6).astype(np.uint8)
    # Each second voxel of the finer grid lies halfway between two of the mask and takes the one after, beyond the last of them none.
    after = np.ix_(*[(np.arange(2 * length) + 1) // 2 for length in mask.shape])
    expected = np.pad(mask, (0, 1))[after]
    affine = las((4, 4, 6), (30, -20, 100))
    finer = affine @ np.diag([0.5, 0.5, 0.5, 1])
    stored, its_affine = np.flip(mask.transpose(order), flipped).copy(), affine[:, [*order, 3]]
    for axis in flipped:
        its_affine[:3, 3] += its_affine[:3, axis] * (stored.shape[axis] - 1)
        its_affine[:3, axis] *= -1
    np.testing.assert_array_equal(mask_on_grid(stored, its_affine, expected.shape, finer), expected)


def test_grid_that_is_turned_about_its_diagonal_is_not_taken_for_a_parallel_one():
    # By Rodrigues' formula, about (1, 1, 1): at the far corner its axes' shears cancel, elsewhere they do not.
    angle, along = 0.004, np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -along[2], along[1]], [along[2], 0, -along[0]], [-along[1], along[0], 0]])
    turned = np.eye(4)
    turned[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    image = MetaTensor(torch.rand(1, 48, 48, 48, generator=torch.Generator().manual_seed(0)), affine=torch.eye(4).double())
    options = {"mode": "bilinear", "padding_mode": "border", "dtype": torch.float64}
    expected = SpatialResample(**options)(image, torch.as_tensor(turned), [48, 48, 48])
    torch.testing.assert_close(
        SeparableResample(**options)(image, torch.as_tensor(turned), [48, 48, 48]), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_mask_is_written_in_any_order_of_the_axes(tmp_path, order, signs):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * np.multiply(signs, (2.0, 3.0, 4.0)))[:, order]
    voxels = (np.random.default_rng(0).random((5, 6, 7)) > 0.5).astype(np.uint8)
    writer = AtomicNibabelWriter(output_dtype=np.uint8)
    writer.set_data_array(MetaTensor(torch.from_numpy(voxels)[None], affine=affine), channel_dim=0)
    writer.set_metadata({"affine": affine}, resample=False)
    writer.write(tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, affine)
    np.testing.assert_array_equal(mask.dataobj, voxels)


def test_rounding_keeps_the_nearest_number_of_so_many_decimals():
    spread = torch.tensor([[0.12349, 0.1235001, 0.0004, 0.9996]])
    item = Roundd("uncertainty", decimals=3, allow_missing_keys=True)({"uncertainty": spread, "other": spread})
    np.testing.assert_allclose(item["uncertainty"], [[0.123, 0.124, 0.0, 1.0]], atol=1e-7)
    assert item["other"] is spread
    assert Roundd("uncertainty", decimals=3, allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_each_mask_of_a_study_is_saved_to_its_own_folder(tmp_path):
    masks = {}
    for number, model in enumerate(("UNet", "Ensemble")):
        mask = MetaTensor(torch.zeros(1, 4, 3, 5, dtype=torch.uint8), affine=torch.from_numpy(PET_AFFINE))
        mask[0, number] = 1
        mask.meta["filename_or_obj"] = "raw/fdg_a.b_1.nii.gz"
        masks[model] = mask
    SaveMasksd({model: tmp_path / model for model in masks})(masks)
    for model, mask in masks.items():
        (file,) = (tmp_path / model).iterdir()
        assert file.name == "fdg_a.b_1.nii.gz"
        saved = nib.load(file)
        assert saved.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(saved.dataobj), mask[0])
        np.testing.assert_array_equal(saved.affine, PET_AFFINE)


def test_volumes_in_memory_are_read_as_files_are(tmp_path):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    volumes = [read_volume(file)[0] for file in (ct, pet)]
    expected, image = load([ct, pet]), load(volumes)
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(image.affine, expected.affine)
    assert image.meta["filename_or_obj"] == expected.meta["filename_or_obj"]
