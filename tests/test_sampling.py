"""Promises of which studies a training draws, and where in them its patches lie, when it goes beyond the paper."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BUNDLES, ENSEMBLE, NETWORKS, STAGE1
from plain_chain import parse

from petct_training.errors import InputError
from petct_training.patches import Background, ReadPatchd
from petct_training.processes import StepsSampler
from petct_training.sampling import studies_of_epoch, study_weights

SHAPE = (40, 30, 24)
DRAWN = 4000
# Patches of one voxel say which voxel was drawn.
ONE = [1, 1, 1]


def phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, image and PET of a body in air, with a bladder, a liver and a lesion."""
    pet = np.zeros(SHAPE, np.float32)
    pet[10:30, 8:22, 2:22] = 1
    pet[12:20, 10:18, 4:10] = 4
    pet[22:26, 10:14, 4:8] = 20
    label = np.zeros(SHAPE, np.uint8)
    label[14:16, 12:14, 14:16] = 1
    pet[label == 1] = 8
    return label, np.stack([np.zeros_like(pet), pet], -1), pet


def drawn_voxels(background: Background, **options) -> np.ndarray:
    """Background voxels (N, 3) around which patches of one voxel are drawn."""
    label, image, _ = phantom()
    reader = ReadPatchd(
        "image", "label", ONE, ONE, [5, 5, 5], lesion_fraction=0, background=background, **options
    ).set_random_state(0)
    return np.array([reader.randomize(label, image) for _ in range(DRAWN)])


def assert_shares(drawn: np.ndarray, expected: np.ndarray) -> None:
    """Compare the PETs of drawn voxels with the share that each SUV shall have, by four standard deviations."""
    _, _, pet = phantom()
    values = pet[tuple(drawn.T)]
    for suv in (0, 1, 4, 20):
        share = expected[pet == suv].sum() / expected.sum()
        assert abs((values == suv).mean() - share) <= 4 * np.sqrt(share * (1 - share) / DRAWN)


def test_background_in_the_body_has_every_voxel_of_it_with_the_same_probability():
    label, _, pet = phantom()
    drawn = drawn_voxels(Background(in_body=1))
    assert not label[tuple(drawn.T)].any()
    assert_shares(drawn, ((pet > 0.3) & (label == 0)).astype(float))


def test_background_by_uptake_has_voxels_by_their_suv_up_to_the_most():
    label, _, pet = phantom()
    drawn = drawn_voxels(Background(by_uptake=1, most_suv=10))
    assert not label[tuple(drawn.T)].any()
    assert_shares(drawn, np.minimum(pet, 10) * (label == 0))


def test_uptake_comes_before_the_body_and_the_rest_lies_anywhere_in_the_padded_study():
    label, _, pet = phantom()
    drawn = drawn_voxels(Background(in_body=0.5, by_uptake=0.4, most_suv=10))
    inside = ((drawn >= 0) & (drawn < SHAPE)).all(axis=1)
    background = label == 0
    padded = np.prod(np.array(SHAPE) + 10) - label.sum()
    # The parts that are drawn by uptake, in the body, and anywhere.
    parts = {"uptake": 0.4, "body": 0.3, "anywhere": 0.3}
    bright = {
        "uptake": (20 * 0 + 10 * (pet == 20)).sum() / (np.minimum(pet, 10) * background).sum(),
        "body": (pet == 20).sum() / ((pet > 0.3) & background).sum(),
        "anywhere": (pet == 20).sum() / padded,
    }
    expected = sum(parts[name] * bright[name] for name in parts)
    share = (pet[tuple(drawn[inside].T)] == 20).sum() / DRAWN
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / DRAWN)
    outside = 0.3 * (padded - background.sum()) / padded
    assert abs((~inside).mean() - outside) < 4 * np.sqrt(outside * (1 - outside) / DRAWN)


def test_a_study_without_a_body_gives_patches_anywhere():
    label = np.zeros((6, 6, 6), np.uint8)
    reader = ReadPatchd("image", "label", ONE, ONE, [2, 2, 2], background=Background(in_body=1)).set_random_state(0)
    drawn = np.array([reader.randomize(label, np.zeros((6, 6, 6, 2))) for _ in range(200)])
    assert drawn.min() == -2
    assert drawn.max() == 7


def test_options_that_are_off_draw_nothing():
    """The very windows of a reader that knows no options, of which `test_feeding` says that they are MONAI's."""
    label, image, _ = phantom()
    plain = ReadPatchd("image", "label", [8, 8, 8], [12, 12, 12], [4, 4, 4]).set_random_state(3)
    off = ReadPatchd(
        "image", "label", [8, 8, 8], [12, 12, 12], [4, 4, 4], background=Background(0, 0), inside="false"
    ).set_random_state(3)
    assert [plain.randomize(label) for _ in range(50)] == [off.randomize(label, image) for _ in range(50)]


@pytest.mark.parametrize("patch", [[8, 10, 12], [9, 11, 13], [8, 64, 12]])
def test_patches_lie_inside_and_those_of_the_background_anywhere_there(patch):
    label, _, _ = phantom()
    window = [size + 9 for size in patch]
    for fraction in (0, 1):
        reader = ReadPatchd("image", "label", patch, window, patch, fraction, inside=True).set_random_state(0)
        drawn = np.array([reader.randomize(label) for _ in range(2000)])
        first = drawn + [w // 2 - p // 2 for w, p in zip(window, patch, strict=True)]
        for axis, (size, side) in enumerate(zip(patch, SHAPE, strict=True)):
            places = first[:, axis]
            if size > side:
                assert set(places) == {side // 2 - size // 2}
            elif fraction == 0:
                assert set(places) == set(range(side - size + 1))
                # Four standard deviations of the mean of a uniform distribution.
                spread = np.sqrt(((side - size + 1) ** 2 - 1) / 12 / 2000)
                assert abs(places.mean() - (side - size) / 2) < 4 * spread
            else:
                middle = 14.5 if axis == 0 else 12.5 if axis == 1 else 14.5
                assert abs(places.mean() - min(middle - size // 2, side - size)) <= 1


def test_a_patch_around_a_lesion_at_the_border_is_pushed_back_no_further_than_needed():
    label = np.zeros((20, 20, 20), np.uint8)
    label[0, 19, 10] = 1
    reader = ReadPatchd("image", "label", [8, 8, 8], [12, 12, 12], [4, 4, 4], 1, inside=True)
    assert reader.randomize(label) == (0 - 2, 12 - 2, 6 - 2)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_configs_hand_the_options_to_the_reader(bundle, prepared):
    options = {"background_in_body": 0.5, "background_uptake": 0.25, "patch_inside": "true"}
    reader = parse(bundle, prepared, quick=True, **options).get_parsed_content("train::patch_around_voxel")
    # The uppermost SUV that the networks can tell, of the fingerprint.
    assert reader.background == Background(0.5, 0.25, most_suv=12)
    assert reader.inside is True
    off = parse(bundle, prepared, quick=True).get_parsed_content("train::patch_around_voxel")
    assert not off.background.looks_at_pet
    assert off.inside is False


def test_the_body_is_that_of_preparing():
    config = json.loads((BUNDLES / ENSEMBLE / "configs/prepare.json").read_text())
    assert Background().body_suv == config["body_suv"]


def test_patches_are_read_where_the_pet_says(prepared):
    """The spheres of the data set are the brightest; outside of them its PET is 1 on average."""
    dataset = parse(
        STAGE1, prepared, quick=True, background_uptake=1, lesion_fraction=0, patch_inside=True, affine_prob=0.5
    ).get_parsed_content("train::dataset")
    dataset.transform.set_random_state(0)
    for number in range(4):
        assert dataset[number % len(dataset)]["image"].shape[1:] == (24, 28, 32)


def test_an_image_of_another_grid_is_one_sentence(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "label.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 5, 2), np.float32), np.eye(4)), tmp_path / "image.nii")
    reader = ReadPatchd("image", "label", ONE, ONE, ONE, background=Background(in_body=1))
    with pytest.raises(InputError, match=r"image\.nii is of another preparation: its size is \(4, 4, 5\)"):
        reader.draw({"image": tmp_path / "image.nii", "label": tmp_path / "label.nii"})


# ---------------------------------------------------------------- lesions


def test_each_lesion_is_drawn_with_the_same_probability_and_each_of_its_voxels():
    label = np.zeros((30, 20, 20), np.uint8, order="F")
    lesions = [
        (slice(2, 12), slice(2, 12), slice(2, 12)),
        (slice(20, 22), slice(5, 6), slice(5, 6)),
        (slice(25, 28), slice(15, 16), slice(15, 16)),
    ]
    for lesion in lesions:
        label[lesion] = 1
    # Joined by an edge, and therefore one lesion.
    label[28, 16, 15] = 1
    reader = ReadPatchd("image", "label", ONE, ONE, ONE, 1, by_lesion="true").set_random_state(0)
    drawn = np.array([reader.randomize(label) for _ in range(DRAWN)])
    assert label[tuple(drawn.T)].all()
    spread = 4 * np.sqrt(1 / 3 * 2 / 3 / DRAWN)
    for first, last in ((0, 15), (16, 23), (24, 30)):
        assert abs(((drawn[:, 0] >= first) & (drawn[:, 0] <= last)).mean() - 1 / 3) < spread
    _, counts = np.unique(drawn[drawn[:, 0] > 23], axis=0, return_counts=True)
    assert len(counts) == 4
    assert np.abs(counts / counts.sum() - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / counts.sum())


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_configs_balance_lesions_only_where_it_is_asked_for(bundle, prepared):
    for given, expected in ((False, False), ("true", True)):
        parser = parse(bundle, prepared, quick=True, balance_lesions=given)
        assert parser.get_parsed_content("train::patch_around_voxel").by_lesion is expected


# ---------------------------------------------------------------- studies


@pytest.fixture
def items(tmp_path) -> list[dict]:
    """Six FDG studies, of which two are healthy, and three PSMA studies, of which one is."""
    result = []
    for number in range(9):
        label = np.zeros((3, 3, 3), np.uint8)
        label[1, 1, 1] = number not in (1, 4, 7)
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / f"{number}.nii")
        result.append({"case": str(number), "tracer": "fdg" if number < 6 else "psma", "label": str(tmp_path / f"{number}.nii")})
    return result


def shares(items: list[dict], weights: list[float]) -> dict[tuple[str, bool], float]:
    """Sum of the weights of each tracer's studies with and without lesions."""
    result: dict[tuple[str, bool], float] = {}
    for item, weight in zip(items, weights, strict=True):
        group = item["tracer"], item["case"] in "147"
        result[group] = result.get(group, 0) + weight
    return result


def test_without_a_wish_all_studies_are_drawn_as_often(items):
    assert study_weights(items) is None
    assert study_weights(items, balance_tracers="false") is None


def test_healthy_studies_have_their_share_and_studies_of_a_kind_are_drawn_as_often(items):
    weights = study_weights(items, healthy_fraction=0.25)
    found = shares(items, weights)
    assert found["fdg", True] + found["psma", True] == pytest.approx(0.25)
    assert len({round(weights[number], 9) for number in (1, 4, 7)}) == 1
    assert len({round(weights[number], 9) for number in (0, 2, 3, 5, 6, 8)}) == 1
    assert sum(study_weights(items, healthy_fraction=0)[number] for number in (1, 4, 7)) == 0


def test_tracers_are_drawn_as_often_among_healthy_studies_and_others(items):
    assert shares(items, study_weights(items, 0.2, True)) == {
        ("fdg", False): pytest.approx(0.4),
        ("psma", False): pytest.approx(0.4),
        ("fdg", True): pytest.approx(0.1),
        ("psma", True): pytest.approx(0.1),
    }
    weights = study_weights(items, balance_tracers=True)
    assert weights == pytest.approx([1 / 12] * 6 + [1 / 6] * 3)


@pytest.mark.parametrize(
    ("cases", "kind", "remedy"), [((0, 2), "without", "--keep_healthy true"), ((1, 4), "with", "has lesions")]
)
def test_a_share_of_studies_that_are_not_there_is_one_sentence(items, cases, kind, remedy):
    with pytest.raises(InputError, match=f"healthy_fraction is 0.5, and no training study is {kind} lesions: .*{remedy}"):
        study_weights([items[number] for number in cases], 0.5)


def test_studies_are_drawn_by_their_weights_in_one_process_and_in_many(items):
    weights = [0.0, 0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0]
    torch.manual_seed(0)
    alone = list(studies_of_epoch(items, 1000, 4, weights))
    samplers = [
        StepsSampler(items, 1000, 2, weights=weights, num_replicas=2, rank=rank, shuffle=True, seed=1) for rank in range(2)
    ]
    parts = [list(sampler) for sampler in samplers]
    assert [len(part) for part in parts] == [len(sampler) for sampler in samplers] == [2000, 2000]
    assert parts[0] != parts[1]
    for drawn in (alone, parts[0] + parts[1]):
        found = np.bincount(drawn, minlength=9) / len(drawn)
        assert len(drawn) == 4000
        assert (np.abs(found - weights) <= 4 * np.sqrt(np.array(weights) * (1 - np.array(weights)) / 4000)).all()
    samplers[0].set_epoch(1)
    assert list(samplers[0]) != parts[0]


def test_an_epoch_stays_as_long_as_without_weights(items):
    assert studies_of_epoch(items, None, 2) is None
    assert len(studies_of_epoch(items, None, 2, [1] * 9)) == 9
    assert len(studies_of_epoch(items, 5, 2)) == len(studies_of_epoch(items, 5, 2, [1] * 9)) == 10
    assert len(StepsSampler(items, None, 2, weights=[1] * 9, num_replicas=2, rank=0)) == 5


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_configs_draw_studies_by_weights_only_where_it_is_asked_for(bundle, prepared):
    off = parse(bundle, prepared, quick=True)
    assert off.get_parsed_content("train::sampler") is None
    on = parse(bundle, prepared, quick=True, balance_tracers=True)
    loader = on.get_parsed_content("train::dataloader")
    assert loader.sampler is on.get_parsed_content("train::sampler")
    assert loader.sampler.weights.tolist() == pytest.approx([1 / 4] * 4)
    with pytest.raises(SystemExit, match="no training study is without lesions"):
        parse(bundle, prepared, quick=True, healthy_fraction=0.5).get_parsed_content("train::sampler")
