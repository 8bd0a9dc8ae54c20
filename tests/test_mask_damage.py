"""Promises of damaged coarse masks: each fault by its probability, and nothing else changed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import STAGE2
from monai.data import MetaTensor
from monai.transforms import Compose
from plain_chain import parse

from petct_training.components import labelled_components
from petct_training.mask_damage import MaskDamage, RandDamageMaskd, damaged_mask, grown, region_of_uptake

SHAPE = (24, 20, 16)
BOXES = [
    (slice(2, 6), slice(2, 6), slice(2, 6)),
    (slice(10, 14), slice(2, 5), slice(8, 12)),
    (slice(17, 20), slice(12, 16), slice(3, 6)),
]
BLADDER = (slice(3, 8), slice(12, 17), slice(8, 12))


def phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coarse mask, reference and SUV: three lesions, of which the mask has all but a voxel each, and a bladder."""
    reference, suv = np.zeros(SHAPE, bool), np.full(SHAPE, 1.0)
    for box in BOXES:
        reference[box] = True
    suv[reference] = 8
    suv[BLADDER] = 20
    mask = reference.copy()
    for x, y, z in BOXES:
        mask[x.start, y.start, z.start] = False
    return mask, reference, suv


def components(mask: np.ndarray) -> list[np.ndarray]:
    """The components of a mask, each as a mask."""
    labels, number = labelled_components(mask)
    return [labels == label for label in range(1, number + 1)]


def damaged(times: int, **probabilities) -> list[np.ndarray]:
    """Masks of the phantom, damaged one after another."""
    state = np.random.RandomState(0)
    return [damaged_mask(*phantom(), MaskDamage(**probabilities), state) for _ in range(times)]


def assert_share(number: int, times: int, probability: float) -> None:
    """Compare by four standard deviations."""
    assert abs(number / times - probability) < 4 * np.sqrt(probability * (1 - probability) / times)


def test_without_probabilities_the_mask_stays_and_is_a_copy():
    mask, reference, suv = phantom()
    result = damaged_mask(mask, reference, suv, MaskDamage(), np.random.RandomState(0))
    assert MaskDamage().is_off
    assert np.array_equal(result, mask)
    assert not np.shares_memory(result, mask)


def test_each_component_is_dropped_whole_by_its_probability():
    mask, *_ = phantom()
    dropped = 0
    for result in damaged(300, drop=0.3):
        for box in BOXES:
            kept = result[box].any()
            assert np.array_equal(result[box], mask[box] if kept else np.zeros_like(mask[box]))
            dropped += not kept
    assert_share(dropped, 900, 0.3)


def test_masks_become_empty_or_the_reference_by_their_probabilities():
    mask, reference, _ = phantom()
    results = damaged(400, empty=0.25, reference=0.5)
    empty = sum(not result.any() for result in results)
    same = sum(np.array_equal(result, reference) for result in results)
    assert empty + same + sum(np.array_equal(result, mask) for result in results) == 400
    assert_share(empty, 400, 0.25)
    assert_share(same, 400, 0.75 * 0.5)


@pytest.mark.parametrize("voxels", [1, 2, 4])
def test_a_mask_grows_by_steps_along_the_axes(voxels):
    mask = np.random.default_rng(0).random((9, 8, 7)) < 0.01
    inside = np.argwhere(mask)
    expected = np.zeros_like(mask)
    for voxel in itertools.product(*map(range, mask.shape)):
        expected[voxel] = np.abs(inside - voxel).sum(axis=1).min() <= voxels
    assert np.array_equal(grown(mask, voxels), expected)


def test_borders_are_moved_outwards_or_inwards_as_often():
    mask, *_ = phantom()
    parts = components(mask)
    outwards = inwards = 0
    for result in damaged(200, border=1, border_voxels=(1, 1)):
        for part in parts:
            near = grown(part, 2)
            larger, smaller = grown(part, 1), ~grown(~part, 1)
            assert np.array_equal(result & near, larger) or np.array_equal(result & near, smaller)
            outwards += np.array_equal(result & near, larger)
            inwards += np.array_equal(result & near, smaller)
    assert outwards + inwards == 600
    assert_share(outwards, 600, 0.5)


def test_a_component_at_a_face_changes_as_if_nothing_lay_beyond_it():
    mask = np.random.default_rng(3).random((14, 12, 10)) < 0.08
    state = np.random.RandomState(0)
    for part in components(mask):
        suv = part.astype(float)
        moved = damaged_mask(part, part, suv, MaskDamage(border=1, border_voxels=(2, 2)), state)
        assert np.array_equal(moved, grown(part, 2)) or np.array_equal(moved, ~grown(~part, 2))
        ball = damaged_mask(part, part, suv, MaskDamage(click=1, border_voxels=(1, 1)), state)
        voxels = (np.eye(1, mask.size, voxel, dtype=bool).reshape(mask.shape) for voxel in np.flatnonzero(part))
        assert any(np.array_equal(ball, grown(voxel, 1)) for voxel in voxels)


def test_a_click_leaves_a_ball_around_a_voxel_of_the_component():
    mask, *_ = phantom()
    numbers = np.arange(mask.size).reshape(mask.shape)
    balls_of = [[grown(numbers == voxel, 2) for voxel in np.flatnonzero(part)] for part in components(mask)]
    for result in damaged(20, click=1, border_voxels=(2, 2)):
        for balls in balls_of:
            assert any((result & ball).sum() == ball.sum() for ball in balls)
        # A ball of radius 2 has 25 voxels where nothing cuts it off.
        assert result.sum() <= 3 * 25


def test_added_components_are_connected_uptake_that_is_no_lesion():
    mask, reference, suv = phantom()
    rng = np.random.default_rng(1)
    suv[BLADDER] = rng.uniform(10, 20, suv[BLADDER].shape)
    state = np.random.RandomState(0)
    sizes = set()
    for _ in range(100):
        result = damaged_mask(mask, reference, suv, MaskDamage(add=1, add_components=(1, 1), add_suv=5), state)
        added = result & ~mask
        assert added.any()
        assert not (added & reference).any()
        assert len(components(added)) == 1
        assert suv[added].min() >= 10
        sizes.add(int(added.sum()))
    assert len(sizes) > 10, "parts of an organ as well as all of it"


def test_components_are_added_by_their_probability_and_never_without_uptake():
    mask, reference, suv = phantom()
    added = sum(bool((result & ~mask).any()) for result in damaged(400, add=0.4))
    assert_share(added, 400, 0.4)
    suv[BLADDER] = 1
    assert not (damaged_mask(mask, reference, suv, MaskDamage(add=1, add_suv=0), np.random.RandomState(0)) & ~mask).any()
    assert not region_of_uptake(np.zeros(SHAPE), np.zeros(SHAPE, bool), 0, np.random.RandomState(0)).any()


def test_the_transform_changes_the_mask_alone_and_one_seed_gives_one_mask():
    mask, reference, suv = phantom()
    item = {
        "coarse_mask": MetaTensor(torch.from_numpy(mask)[None].float(), meta={"filename_or_obj": "a.nii"}),
        "label": MetaTensor(torch.from_numpy(reference)[None].float()),
        # The SUV from 1 to 21 become 0 to 1.
        "image": MetaTensor(torch.from_numpy(np.stack([suv * 0, (suv - 1) / 20])).float()),
    }
    before = {key: value.clone() for key, value in item.items()}
    damage = MaskDamage(drop=0.5, border=0.5, add=0.5, click=0.2)

    def draw(seed: int) -> list[torch.Tensor]:
        transform = RandDamageMaskd("coarse_mask", damage, pet_range=[1, 21]).set_random_state(seed)
        results = [transform(item) for _ in range(10)]
        for result in results:
            assert all(torch.equal(result[key], before[key]) for key in ("image", "label"))
            assert result["coarse_mask"].dtype == torch.float32
            assert result["coarse_mask"].meta["filename_or_obj"] == "a.nii"
            assert set(result["coarse_mask"].unique().tolist()) <= {0.0, 1.0}
        return [result["coarse_mask"].as_tensor() for result in results]

    assert torch.equal(item["coarse_mask"], before["coarse_mask"])
    first, same, other = draw(3), draw(3), draw(4)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("bundle", STAGE2)
def test_the_configs_damage_masks_only_where_a_probability_is_given(bundle, prepared):
    off = parse(bundle, prepared, quick=True).get_parsed_content("train::preprocessing")
    assert isinstance(off, Compose)
    assert not [item for item in off.transforms if isinstance(item, RandDamageMaskd)]
    options = {"mask_drop_prob": 0.25, "mask_add_suv": 4, "mask_border_voxels": [2, 5]}
    on = parse(bundle, prepared, quick=True, **options).get_parsed_content("train::preprocessing")
    (transform,) = [item for item in on.transforms if isinstance(item, RandDamageMaskd)]
    assert transform.damage == MaskDamage(drop=0.25, add_suv=4, border_voxels=[2, 5], add_components=[1, 3])
    assert transform.pet_range == [1, 12]


def test_with_the_reference_as_its_mask_stage_2_sees_the_label(prepared):
    dataset = parse(STAGE2[0], prepared, quick=True, mask_reference_prob=1, affine_prob=0.5).get_parsed_content("train::dataset")
    dataset.transform.set_random_state(0)
    found = 0
    for number in range(8):
        patch = dataset[number % len(dataset)]
        assert torch.equal(patch["image"][2].as_tensor(), patch["label"][0].as_tensor())
        found += bool(patch["label"].any())
    assert found
