"""Promises of clicks: what files of points say, how far a click reaches, and what it makes of a mask."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import las, make_cascade
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from nibabel.affines import apply_affine, from_matvec
from scipy import ndimage

from petct_cascade.clicks import MOST_POINTS, Clicks, PointsFile, clicks_of, read_points
from petct_cascade.corrections import BindPointsd, EncodePointsd, marks_on_grid
from petct_cascade.loading import LoadImagePETCTd
from petct_cascade.volumes import Volume
from petct_training.clicks import (
    BACKGROUND,
    FOREGROUND,
    REACHED,
    Reach,
    corrected,
    corrected_locally,
    map_of,
    marks_in,
    marks_of,
    reached_by,
)
from petct_training.errors import InputError
from petct_training.records import Plan, Records, SeveralFiles

SHAPE = (24, 20, 22)
REACH = Reach(15, 0.41)
# Lesions have 18 neighbours.
STRUCTURE = ndimage.generate_binary_structure(3, 2)


def spheres(*centres: tuple[float, float, float], radius: float = 8, spacing: tuple[float, ...] = (2, 2, 3)) -> np.ndarray:
    """A mask of 40 x 40 x 30 voxels of spheres, in mm."""
    places = np.stack(
        np.meshgrid(*(np.arange(length) * step for length, step in zip((40, 40, 30), spacing, strict=True)), indexing="ij")
    )
    return np.any([((places - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2 for centre in centres], axis=0)


# ---------------------------------------------------------------- files of points


def challenge(*points: tuple[object, object]) -> dict:
    """Grand Challenge's format."""
    return {
        "version": {"major": 1, "minor": 0},
        "type": "Multiple points",
        "points": [{"point": point, "name": name} for point, name in points],
    }


def test_points_are_voxels_of_the_pet_in_the_order_of_the_file(tmp_path):
    file = tmp_path / "points.json"
    points = [([0, 0, 0], "background"), ([23, 19, 21], "tumor"), ([3.2, 4.0, 5.9], "tumor"), ([23, 19, 21], "tumor")]
    file.write_text(json.dumps(challenge(*points)))
    assert read_points(file, SHAPE) == Clicks([(23, 19, 21), (3, 4, 6)], [(0, 0, 0)])
    file.write_text(json.dumps({"foreground": [[23, 19, 21], [3.2, 4.0, 5.9]], "background": [[0, 0, 0]]}))
    assert read_points(file, SHAPE) == Clicks([(23, 19, 21), (3, 4, 6)], [(0, 0, 0)])
    for empty in (challenge(), {"foreground": []}):
        assert clicks_of(empty, SHAPE) == Clicks([], [])


def test_point_between_voxels_is_the_nearest_and_halfway_the_one_with_the_higher_index():
    points = [[0.49, 1.5, 2.5], [-0.5, 19.49, 21.4999]]
    assert clicks_of({"foreground": points}, SHAPE).foreground == [(0, 2, 3), (0, 19, 21)]


@pytest.mark.parametrize(
    "points",
    [
        np.argwhere(np.arange(8).reshape(2, 2, 2) > 5),
        list(np.argwhere(np.arange(8).reshape(2, 2, 2) > 5)),
        [np.unravel_index(index, (2, 2, 2)) for index in (6, 7)],
        [[np.float32(1), np.int16(1), np.uint8(0)], [1, 1, 1.0]],
        torch.tensor([[1, 1, 0], [1, 1, 1]]),
    ],
)
def test_points_from_python_may_be_arrays_and_their_numbers(points):
    assert clicks_of({"foreground": points}, SHAPE).foreground == [(1, 1, 0), (1, 1, 1)]
    assert clicks_of(challenge(*((point, "tumor") for point in points)), SHAPE).foreground == [(1, 1, 0), (1, 1, 1)]
    with pytest.raises(InputError, match="has no three numbers as foreground point 1"):
        clicks_of({"foreground": np.ones((1, 3), bool)}, SHAPE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "is not a file of points: give JSON with"),
        ({}, "is not a file of points"),
        ({"foreground": [[1, 1, 1]], "points": []}, "has points and foreground beside each other: give all in one"),
        ({"foreground": [[1, 1, 1]], "space": "LPS"}, 'has \'LPS\' as the space of voxels: give "unit": "mm"'),
        ({"points": {}}, "is not a file of points"),
        ({"foreground": 3}, "is not a file of points"),
        ({"foreground": [], "backgrounds": []}, "has an entry 'backgrounds': give foreground, background, unit, space"),
        ({"points": [3]}, "as the name of point 1"),
        (challenge(([1, 2, 3], "tumour")), "has no tumor or background as the name of point 1"),
        (challenge(([1, 2, 3], ["tumor"])), "as the name of point 1"),
        (challenge(([1, 2, 3], "tumor"), (None, "tumor")), "has no three numbers as point 2: give"),
        (challenge(([1, 2], "tumor")), "has no three numbers as point 1"),
        ({"foreground": [[1, 2, "3"]]}, "has no three numbers as foreground point 1"),
        ({"background": [[1, 2, 3], [1, 2, True]]}, "has no three numbers as background point 2"),
        ({"foreground": [[1, 2, float("nan")]]}, "has no three numbers as foreground point 1"),
        ({"foreground": [[1, 2, float("inf")]]}, "has no three numbers as foreground point 1"),
        ({"foreground": [[1, 2, 10**400]]}, "has no three numbers as foreground point 1"),
        ({"background": [[1, 2, 1e300]]}, "has background point 1 so far away that no voxel can be there: give points"),
        # In voxels of this PET more than a number can be.
        ({"foreground": [[1, 1.7e308, -1.7e308]], "unit": "mm", "space": "RAS"}, "has foreground point 1 so far away that no"),
        (
            {"foreground": [[1, 2, -1]]},
            r"has foreground point 1 at voxel \[1, 2, -1\], outside of the PET, which has 24 x 20 x 22",
        ),
        (challenge(([1, 2, 3], "tumor"), ([24, 2, 1], "background")), r"has point 2 at voxel \[24, 2, 1\], outside of the PET"),
        ({"foreground": [[1, 2, 3]], "unit": "mm"}, "has points in mm and None as their space: give RAS"),
        ({"foreground": [[1, 2, 3]], "unit": "mm", "space": "LAS"}, "and 'LAS' as their space: give RAS"),
        ({"foreground": [[1, 2, 3]], "unit": "cm"}, "has the unit 'cm': give voxel or mm"),
        ({"foreground": [[900, 2, 3]], "unit": "mm", "space": "RAS"}, "outside of the PET"),
        (
            {"foreground": [[5, 5, 5], [1, 2, 3]], "background": [[1.2, 2, 3]]},
            r"has voxel \[1, 2, 3\] in the foreground \(foreground point 2\) and in the background \(background point 1\): leave one",
        ),
        ({"foreground": [[1, 2, 3]] * (MOST_POINTS + 1)}, "has 10001 points, more than 10000: draw a mask"),
    ],
)
def test_points_that_make_no_sense_are_one_sentence(content, words):
    with pytest.raises(InputError, match=words) as error:
        clicks_of(content, SHAPE, las((4, 4, 5)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a file of points"),
        (b"\xff\xfe", "is not a file of points"),
        (b'{"foreground": [[1, 1, 1]], "foreground": [[2, 2, 2]]}', "has an entry 'foreground' twice: join them into one"),
        (b'{"points": ', "is not a file of points"),
        (b"[" * 100_000, "is not a file of points"),
        (b'{"points": [{"point": [1, 2, NaN], "name": "tumor"}]}', "no three numbers as point 1"),
        (b'{"points": [{"point": [1, 2, 1e999], "name": "tumor"}]}', "no three numbers as point 1"),
        (None, "does not exist in"),
    ],
)
def test_files_that_hold_no_points_are_one_sentence(tmp_path, content, words):
    if content is not None:
        (tmp_path / "points.json").write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        read_points(tmp_path / "points.json", SHAPE)
    assert "\n" not in str(error.value)


def test_a_folder_in_place_of_a_file_of_points_is_called_a_folder(tmp_path):
    folder = tmp_path / "points.json"
    folder.mkdir()
    with pytest.raises(InputError, match=r"is a folder in .*, and no file: name the file of points itself"):
        read_points(folder, SHAPE)


def test_record_keeps_the_points(tmp_path):
    (tmp_path / "points.json").write_text(json.dumps(challenge(([1, 2, 3], "tumor"), ([4, 5, 6.5], "background"))))
    points = PointsFile(tmp_path / "points.json")
    assert isinstance(points, SeveralFiles)
    records = Records(tmp_path, "inference")
    with records.making(Plan("a", {"points": points}, {}, [])):
        pass
    kept = {"foreground": [[1, 2, 3]], "background": [[4, 5, 6.5]], "unit": "voxel"}
    assert records.read("a")["about"]["points"] == kept


# ---------------------------------------------------------------- places


@st.composite
def grids(draw) -> np.ndarray:
    """Affines of any orientation, spacing and origin, oblique ones too."""
    axes = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
    spacing = draw(st.tuples(*[st.floats(0.8, 6)] * 3))
    matrix = np.eye(3)[:, axes] * signs * spacing
    for first, second in ((0, 1), (1, 2)):
        angle, turn = draw(st.floats(-0.7, 0.7)), np.eye(3)
        turn[np.ix_([first, second], [first, second])] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = turn @ matrix
    return from_matvec(matrix, draw(st.tuples(*[st.floats(-900, 900)] * 3)))


voxels = st.tuples(*(st.integers(0, length - 1) for length in SHAPE))
within = st.tuples(*[st.floats(-0.49, 0.49)] * 3)


@settings(deadline=None, max_examples=60)
@given(affine=grids(), voxel=voxels, beside=within)
def test_click_lands_in_the_voxel_that_was_clicked_in_whatever_way_it_is_given(affine, voxel, beside):
    place = np.add(voxel, beside)
    ras = apply_affine(affine, place)
    given_as = (
        {"foreground": [place.tolist()]},
        {"foreground": [ras.tolist()], "unit": "mm", "space": "RAS"},
        {"foreground": [(ras * [-1, -1, 1]).tolist()], "unit": "mm", "space": "LPS"},
        challenge((place.tolist(), "tumor")),
    )
    for content in given_as:
        assert clicks_of(content, SHAPE, affine).foreground == [voxel]


@settings(deadline=None, max_examples=40)
@given(affine=grids(), voxel=voxels, beside=within, other=grids())
def test_click_is_in_the_mask_and_in_the_network_marks_the_voxel_in_which_it_lies(affine, voxel, beside, other):
    rng = np.random.default_rng(0)
    pet = Volume(Path("pet"), rng.uniform(0, 9, SHAPE).astype(np.float32), affine)
    world = apply_affine(affine, np.add(voxel, beside)).tolist()
    item = {
        "image": LoadImagePETCTd("image").join(pet, pet, "a"),
        "points": {"foreground": [world], "unit": "mm", "space": "RAS"},
    }
    item = EncodePointsd("points", "image", 15, 0.41)(item)
    item["pred"] = item["image"][1:].new_zeros((1, *SHAPE), dtype=torch.uint8)
    mask = BindPointsd("pred")(item)["pred"][0].numpy()
    assert mask[voxel] == 1
    # A grid in which the click lies well inside.
    other = other.copy()
    other[:3, 3] += apply_affine(affine, voxel) - apply_affine(other, [7.2, 6.9, 7.1])
    marked = np.argwhere(marks_on_grid(item["points"].numpy(), np.array(SHAPE), affine, (15, 14, 15), other) == FOREGROUND)
    np.testing.assert_array_equal(marked, [[7, 7, 7]])


@pytest.mark.parametrize(
    ("origin", "size", "marked"),
    [
        # Voxel 4 ends where the other grid begins, then reaches into it by a fifth of itself.
        (5, 1, []),
        (4.8, 1, [[0, 0, 0]]),
        # The other grid's first voxel is twice as wide, and ends, then begins, at the end of voxel 4.
        (2.5, 2, [[1, 1, 1]]),
        (5.5, 2, []),
    ],
)
def test_click_on_a_voxel_outside_of_the_networks_grid_marks_none_there(origin, size, marked):
    other = np.diag([size, size, size, 1.0])
    other[:3, 3] = origin
    volume = marks_on_grid(np.array([[BACKGROUND, 4, 4, 4]]), np.array(SHAPE), np.eye(4), (5, 5, 5), other)
    np.testing.assert_array_equal(np.argwhere(volume == BACKGROUND), np.reshape(marked, (-1, 3)))


def test_clicks_that_fall_into_one_voxel_of_a_coarser_grid_are_not_lost():
    marks = np.array([[BACKGROUND, 4, 4, 4], [FOREGROUND, 5, 4, 4], [BACKGROUND, 12, 12, 12]])
    volume = marks_on_grid(marks, np.array(SHAPE), np.eye(4), (5, 5, 5), np.diag([4.5, 4.5, 4.5, 1]))
    assert marks_in(volume).tolist() == [[FOREGROUND, 1, 1, 1], [BACKGROUND, 3, 3, 3]]


# ---------------------------------------------------------------- how far a click reaches


def test_click_reaches_the_lesion_in_which_it_lies_and_no_other():
    spacing = (2, 2, 3)
    lesion, other = spheres((30, 30, 40)), spheres((60, 60, 60))
    pet = np.where(lesion | other, 10.0, 1.0)
    # 26 neighbours climb from the lesion's edge to its hottest voxel.
    pet[15, 15, 13] = 20
    for point in ((15, 15, 13), (12, 15, 13), (15, 18, 14)):
        reached = reached_by(point, pet, spacing, REACH)
        np.testing.assert_array_equal(map_of(np.insert(reached, 0, 1, axis=1), pet.shape), lesion)


def test_click_reaches_no_farther_than_its_radius():
    reached = reached_by((20, 20, 15), np.ones((40, 40, 30)), (2, 2, 3), REACH)
    np.testing.assert_array_equal(map_of(np.insert(reached, 0, 1, axis=1), (40, 40, 30)), spheres((40, 40, 45), radius=15))


@pytest.mark.parametrize("uptake", [0.0, -0.1])
def test_click_without_uptake_is_its_voxel(uptake):
    assert reached_by((0, 39, 3), np.full((40, 40, 30), uptake), (2, 2, 3), REACH).tolist() == [[0, 39, 3]]


def test_what_two_kinds_of_clicks_reach_belongs_to_the_nearer():
    pet = np.ones((40, 40, 30))
    marks = marks_of(np.array([[18, 20, 15]]), np.array([[23, 20, 15]]), pet, (2, 2, 3), REACH)
    reached = marks[marks[:, 0] == REACHED, 1:]
    # Halfway, at 20.5, nothing lies.
    assert reached[:, 0].max() == 20
    assert len(np.unique(marks[:, 1:], axis=0)) == len(marks)


# ---------------------------------------------------------------- what clicks make of a mask


@settings(deadline=None, max_examples=80)
@given(data=st.data(), mask=arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=3, max_side=9)))
def test_foreground_is_in_the_mask_background_is_not_and_components_without_clicks_stay(data, mask):
    all_voxels = list(itertools.product(*map(range, mask.shape)))
    points = data.draw(st.lists(st.sampled_from(all_voxels), max_size=8, unique=True))
    share = data.draw(st.integers(0, len(points)))
    foreground, background = (np.array(some, int).reshape(-1, 3) for some in (points[:share], points[share:]))
    pet = np.random.default_rng(0).uniform(0, 9, mask.shape)
    marks = marks_of(foreground, background, pet, (4, 4, 5), Reach(7, 0.41))
    result = corrected(mask, marks, (4, 4, 5))
    assert result[tuple(foreground.T)].all()
    assert not result[tuple(background.T)].any()
    labels, count = ndimage.label(mask, STRUCTURE)
    clicked = set(labels[tuple(background.T)])
    for number in set(range(1, count + 1)) - clicked:
        assert result[labels == number].all(), "a lesion without a click has lost voxels"
    reached = map_of(marks, mask.shape) != 0
    assert not (result & ~mask & ~reached).any()


@settings(deadline=None, max_examples=80)
@given(data=st.data(), before=arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=3, max_side=9)))
def test_where_clicks_are_local_no_other_lesion_changes(data, before):
    answer = data.draw(arrays(bool, before.shape))
    all_voxels = list(itertools.product(*map(range, before.shape)))
    points = data.draw(st.lists(st.sampled_from(all_voxels), max_size=4, unique=True))
    share = data.draw(st.integers(0, len(points)))
    foreground, background = (np.array(some, int).reshape(-1, 3) for some in (points[:share], points[share:]))
    pet = np.random.default_rng(0).uniform(0, 9, before.shape)
    marks = marks_of(foreground, background, pet, (4, 4, 5), Reach(5, 0.41))
    result = corrected_locally(answer, before, marks, (4, 4, 5))
    assert result[tuple(foreground.T)].all()
    assert not result[tuple(background.T)].any()
    marked = map_of(marks, before.shape) != 0
    labels, count = ndimage.label(before, STRUCTURE)
    for number in set(range(1, count + 1)) - set(labels[marked]):
        assert result[labels == number].all(), "a lesion that nobody has touched has lost voxels"
    together, count = ndimage.label(before | answer | marked, STRUCTURE)
    for number in set(range(1, count + 1)) - set(together[marked]):
        np.testing.assert_array_equal(result[together == number], before[together == number])


def test_where_clicks_are_local_the_answer_counts_around_them_and_the_mask_before_elsewhere():
    before = spheres((20, 20, 20), (60, 60, 60), (20, 60, 30))
    # The networks would lose the second lesion, invent a fourth one, and make the first one larger.
    answer = spheres((20, 20, 20), radius=11) | spheres((60, 20, 70))
    marks = marks_of(np.array([[10, 10, 9]]), np.array([[10, 30, 10]]), np.zeros(before.shape), (2, 2, 3), REACH)
    expected = spheres((20, 20, 20), radius=11) | spheres((60, 60, 60))
    np.testing.assert_array_equal(corrected_locally(answer, before, marks, (2, 2, 3)), expected)


def test_click_on_the_background_removes_exactly_its_component():
    mask = spheres((20, 20, 20), (60, 60, 60), (20, 60, 30))
    marks = marks_of(np.zeros((0, 3), int), np.array([[10, 10, 8]]), np.ones(mask.shape), (2, 2, 3), REACH)
    np.testing.assert_array_equal(corrected(mask, marks, (2, 2, 3)), spheres((60, 60, 60), (20, 60, 30)))


def test_component_with_both_clicks_is_divided_between_them():
    mask = np.zeros((40, 40, 30), bool)
    mask[5:35, 10:12, 10:12] = True
    marks = marks_of(np.array([[6, 10, 10]]), np.array([[31, 10, 10]]), np.zeros(mask.shape), (2, 2, 3), REACH)
    expected = mask.copy()
    expected[19:] = False
    np.testing.assert_array_equal(corrected(mask, marks, (2, 2, 3)), expected)


def test_click_on_a_missed_lesion_adds_it_and_one_on_a_found_lesion_adds_nothing():
    found, missed = spheres((20, 20, 20)), spheres((60, 60, 60))
    pet = np.where(found | missed, 10.0, 1.0)
    smaller = spheres((20, 20, 20), radius=4)
    marks = marks_of(np.array([[10, 10, 7], [30, 29, 20]]), np.zeros((0, 3), int), pet, (2, 2, 3), REACH)
    np.testing.assert_array_equal(corrected(smaller, marks, (2, 2, 3)), smaller | missed)


def test_memory_for_what_clicks_reach_does_not_grow_with_their_number():
    pet = np.full((40, 40, 40), 5, np.float32)
    points = np.argwhere(np.ones((1, 12, 12), bool)) + 14
    peaks = []
    for number in (2, len(points)):
        tracemalloc.start()
        marks_of(points[:number], np.zeros((0, 3), int), pet, (1, 1, 1), Reach(100, 0.41))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_hundreds_of_points_of_scribbles_are_taken():
    lesion = spheres((40, 40, 45), radius=14)
    points = np.argwhere(lesion)[::3]
    assert len(points) > 300
    marks = marks_of(points, np.argwhere(spheres((70, 70, 70), radius=6)), np.where(lesion, 10.0, 1.0), (2, 2, 3), REACH)
    result = corrected(np.zeros(lesion.shape, bool), marks, (2, 2, 3))
    np.testing.assert_array_equal(result, lesion)


@torch.no_grad()
def test_network_corrects_stage_1s_mask_or_a_given_one_as_the_same_function_does():
    cascade = make_cascade().eval()
    cascade.spacing = (3, 3.5, 4)
    image = torch.randn((1, 2, 30, 21, 27), generator=torch.Generator().manual_seed(1))
    pet = np.abs(image[0, 1].numpy())
    marks = marks_of(np.array([[4, 4, 4], [20, 10, 13]]), np.array([[9, 9, 9], [15, 15, 20]]), pet, cascade.spacing, REACH)
    volume = torch.from_numpy(map_of(marks, pet.shape))[None, None].float()
    own = cascade.with_coarse_mask(image)[1][:, 2:]
    given_mask = (torch.rand(own.shape, generator=torch.Generator().manual_seed(2)) > 0.8).float()
    for mask, channel in ((own, torch.full_like(own, -1)), (given_mask, given_mask)):
        _, stacked = cascade.with_coarse_mask(torch.cat([image, channel, volume], dim=1))
        expected = corrected(mask[0, 0].numpy(), marks, cascade.spacing)
        assert (expected != mask[0, 0].numpy()).any()
        np.testing.assert_array_equal(stacked[0, 2].numpy(), expected)
        torch.testing.assert_close(stacked[:, :2], image, rtol=0, atol=0)


def test_a_file_that_begins_with_a_mark_as_windows_writes_it_is_read(tmp_path):
    file = tmp_path / "points.json"
    file.write_bytes(b'\xef\xbb\xbf{"foreground": [[1, 2, 3]]}')
    assert read_points(file, (5, 5, 5)).foreground == [(1, 2, 3)]
