"""Promises of the recipe's quick transforms: they give what MONAI's classes give, by the same chances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import NETWORKS
from monai.data import MetaTensor
from monai.transforms import (
    Flip,
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandSimulateLowResolutiond,
    ScaleIntensityRange,
)
from plain_chain import parse

from petct_training.augmentation import (
    QuickRandAdjustContrastd,
    QuickRandGaussianNoised,
    QuickRandGaussianSmoothd,
    QuickRandSimulateLowResolutiond,
    RandFlipAxesd,
    RandMoveCTd,
    ScaleChannelsd,
    rigid_motion,
)

AFFINE = torch.tensor([[-2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]], dtype=torch.float64)
# Longer, and shorter, than the planes and blocks that are worked on at once, and than a kernel.
SIZES = [(2, 37, 20, 18), (2, 5, 3, 2), (1, 1, 70, 9)]
SIGMAS = {f"sigma_{axis}": (0.5, 1.0) for axis in "xyz"}
SAME_DRAWS = [
    (QuickRandGaussianSmoothd, RandGaussianSmoothd, SIGMAS),
    (QuickRandSimulateLowResolutiond, RandSimulateLowResolutiond, {"zoom_range": (0.5, 1.0)}),
    (QuickRandAdjustContrastd, RandAdjustContrastd, {"gamma": (0.7, 1.5)}),
    (QuickRandAdjustContrastd, RandAdjustContrastd, {"gamma": (0.7, 1.5), "invert_image": True}),
]


def noise_image(size: tuple[int, ...] = SIZES[0], seed: int = 0) -> MetaTensor:
    """An image of uniform noise from 0 to 1."""
    voxels = torch.from_numpy(np.random.default_rng(seed).random(size, dtype=np.float32))
    return MetaTensor(voxels, affine=AFFINE, meta={"filename_or_obj": "a.nii"})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("quick", "plain", "arguments"), SAME_DRAWS)
def test_with_the_same_seed_the_result_is_monais_but_for_rounding(quick, plain, arguments, size):
    left, right = (kind("image", prob=0.7, **arguments).set_random_state(3) for kind in (quick, plain))
    changed = 0
    for seed in range(12):
        image = noise_image(size, seed)
        before = image.clone()
        fast, slow = (transform({"image": image})["image"] for transform in (left, right))
        torch.testing.assert_close(fast.as_tensor(), slow.as_tensor(), rtol=0, atol=2e-6)
        assert torch.equal(image, before)
        assert (fast.dtype, fast.meta["filename_or_obj"]) == (torch.float32, "a.nii")
        assert torch.equal(fast.affine, AFFINE)
        changed += not torch.equal(fast.as_tensor(), image.as_tensor())
    assert 4 <= changed <= 12


def test_an_image_of_one_value_keeps_its_value():
    for invert in (True, False):
        image = MetaTensor(torch.full((1, 4, 4, 4), 0.25))
        adjusted = QuickRandAdjustContrastd("image", prob=1, gamma=(0.7, 1.5), invert_image=invert)({"image": image})["image"]
        assert (adjusted == 0.25).all()


def test_noise_is_normal_with_monais_spread_and_another_in_every_voxel():
    image = MetaTensor(torch.zeros(2, 24, 24, 24))
    for seed in range(5):
        noise, expected = (
            kind("image", prob=1, std=0.1).set_random_state(seed)({"image": image})["image"].numpy()
            for kind in (QuickRandGaussianNoised, RandGaussianNoised)
        )
        assert noise.dtype == np.float32
        assert len(np.unique(noise)) > 0.9 * noise.size
        for channel in noise:
            # Kolmogorov and Smirnov: beyond 2.2 / sqrt(n) by chance in one of 10 000 cases.
            below = torch.special.ndtr(torch.from_numpy(np.sort(channel, axis=None) / channel.std())).numpy()
            assert np.abs(below - (np.arange(channel.size) + 0.5) / channel.size).max() < 2.2 / np.sqrt(channel.size)
            assert abs(channel.mean()) < 5 * channel.std() / np.sqrt(channel.size)
        # The spread, from 0 to 0.1, is drawn first of all, and is therefore the same.
        assert abs(noise.std() / expected.std() - 1) < 0.03


def test_noise_strikes_by_its_chance_and_is_the_same_for_the_same_seed():
    image = MetaTensor(torch.zeros(1, 2, 2, 2))

    def draw(seed: int) -> list[MetaTensor]:
        transform = QuickRandGaussianNoised("image", prob=0.15, std=0.1).set_random_state(seed)
        return [transform({"image": image})["image"] for _ in range(1000)]

    first, same, other = draw(0), draw(0), draw(1)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    # Four standard deviations of a share.
    assert abs(np.mean([bool(noisy.any()) for noisy in first]) - 0.15) < 4 * np.sqrt(0.15 * 0.85 / 1000)


@pytest.mark.parametrize("clip", [True, False])
def test_each_channel_is_scaled_to_its_own_range_as_monai_scales_it(clip):
    image = noise_image() * 3 - 1
    ranges = [(-0.5, 1.5, 0, 1), (0, 1, -1.25, 3.5)]
    expected = [ScaleIntensityRange(*limits, clip=clip)(channel) for channel, limits in zip(image.clone(), ranges, strict=True)]
    scaled = ScaleChannelsd("image", *zip(*ranges, strict=True), clip=clip)({"image": image})["image"]
    assert torch.equal(scaled.as_tensor(), torch.stack(expected).as_tensor())


def test_each_axis_is_flipped_by_the_same_chance_and_all_keys_alike():
    image, mask = noise_image(), noise_image(seed=1)
    transform = RandFlipAxesd(["image", "mask", "none"], prob=0.5, allow_missing_keys=True).set_random_state(0)
    every = {axes: Flip(axes)(image) for n in range(1, 4) for axes in itertools.combinations(range(3), n)} | {(): image}
    drawn = []
    for _ in range(400):
        flipped = transform({"image": image, "mask": mask})
        (axes,) = (axes for axes, expected in every.items() if torch.equal(flipped["image"], expected))
        torch.testing.assert_close(flipped["image"].affine, every[axes].affine)
        assert torch.equal(flipped["mask"], torch.flip(mask, [axis + 1 for axis in axes]))
        drawn.append([axis in axes for axis in range(3)])
    # Four standard deviations of a share, and of a correlation.
    assert (np.abs(np.mean(drawn, axis=0) - 0.5) < 4 * np.sqrt(0.25 / 400)).all()
    assert (np.abs(np.corrcoef(np.transpose(drawn))[np.triu_indices(3, 1)]) < 4 / np.sqrt(400)).all()


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_recipes_numbers_are_the_plain_chains(bundle, prepared):
    def numbers(transform) -> dict:
        own = {name: value for name, value in vars(transform).items() if isinstance(value, (bool, int, float, str, tuple))}
        return own | {name: numbers(value) for name, value in vars(transform).items() if hasattr(value, "prob")}

    quick = parse(bundle, prepared, quick=True)
    plain = parse(bundle, prepared, quick=False)
    names = ("noise", "smooth", "intensity", "low_resolution", "gamma_inverted", "gamma")
    own = plain.get_parsed_content("plain::intensity")
    for name, expected in zip(names, own, strict=True):
        transform = quick.get_parsed_content(f"train::{name}")
        assert isinstance(transform, type(expected))
        assert numbers(transform) == numbers(expected)
    flips, each_axis = quick.get_parsed_content("train::flip"), plain.get_parsed_content("plain::flips")
    assert [(flip.flipper.spatial_axis, flip.prob) for flip in each_axis] == [(axis, flips.prob) for axis in range(3)]
    assert {flip.keys for flip in each_axis} == {flips.keys}


class Most(np.random.RandomState):
    """Draws the upper end of every range."""

    def uniform(self, low, high):
        return high


def move(shift: list[float], rotation: list[float], image: MetaTensor) -> MetaTensor:
    """An image whose CT is always moved, by the most that is allowed."""
    transform = RandMoveCTd("image", prob=1, shift=shift, rotation=rotation)
    transform.R = Most(0)
    return transform({"image": image})["image"]


def test_a_known_shift_moves_the_ct_by_it_and_nothing_else():
    image = noise_image((2, 12, 10, 9))
    before = image.clone()
    moved = move([2, -1, 3], [0, 0, 0], image)
    assert torch.equal(image, before)
    assert torch.equal(moved[1].as_tensor(), image[1].as_tensor())
    torch.testing.assert_close(moved[0, 2:, :-1, 3:].as_tensor(), image[0, :-2, 1:, :-3].as_tensor(), rtol=0, atol=1e-5)
    assert not moved[0, :2].any()
    assert not moved[0, :, :, :3].any()
    assert torch.equal(moved.affine, AFFINE)
    assert moved.meta["filename_or_obj"] == "a.nii"


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_is_numpys(axis, plane):
    image = noise_image((2, 9, 9, 9))
    angles = [np.pi / 2 if other == axis else 0 for other in range(3)]
    moved = move([0, 0, 0], angles, image)
    np.testing.assert_allclose(moved[0].numpy(), np.rot90(image[0].numpy(), axes=plane), atol=1e-5)
    assert torch.equal(moved[1].as_tensor(), image[1].as_tensor())


def test_turn_and_shift_are_those_of_a_rigid_motion():
    """A point in the middle of the volume is shifted, and distances stay."""
    shift, angles, size = np.array([1.5, -2, 0.5]), np.array([0.1, -0.2, 0.3]), (20, 16, 12)
    matrix = rigid_motion(shift, angles, size)
    middle = (np.array(size) - 1) / 2
    np.testing.assert_allclose(matrix @ [*(middle + shift), 1], [*middle, 1], atol=1e-12)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_the_ct_is_moved_by_its_chance_and_within_its_limits():
    image = MetaTensor(torch.zeros(2, 21, 21, 21))
    image[:, 10, 10, 10] = 1
    transform = RandMoveCTd("image", prob=0.3, shift=(4, 2, 0), rotation=(0, 0, 0)).set_random_state(0)
    found = []
    for _ in range(400):
        ct = transform({"image": image})["image"][0].as_tensor()
        if not torch.equal(ct, image[0].as_tensor()):
            where = ct.nonzero().double()
            found.append(((ct[ct > 0].double()[:, None] * where).sum(dim=0) - 10).numpy())
    assert abs(len(found) / 400 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 400)
    furthest = np.abs(found).max(axis=0)
    assert (furthest <= [4.001, 2.001, 0.001]).all()
    assert (furthest[:2] > [3.5, 1.7]).all()


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_configs_move_the_ct_only_where_a_probability_is_given(bundle, prepared):
    def moving(**options) -> list[RandMoveCTd]:
        chain = parse(bundle, prepared, quick=True, **options).get_parsed_content("train::preprocessing")
        return [item for item in chain.transforms if isinstance(item, RandMoveCTd)]

    assert moving() == []
    (transform,) = moving(ct_move_prob=0.2, ct_shift=[1, 2, 3], ct_rotation=0.05)
    assert (transform.prob, transform.shift.tolist(), transform.rotation.tolist()) == (0.2, [1, 2, 3], [0.05] * 3)
