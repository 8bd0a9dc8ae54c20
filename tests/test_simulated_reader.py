"""The simulated reader corrects the largest error where its shape says, and scores rounds as the challenge does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from simulated_reader import (
    KINDS,
    SCRIBBLES,
    SimulatedReader,
    area,
    border,
    centre_line,
    click,
    largest_error,
    lost_lesions,
    random_line,
    round_dice,
    round_f1,
)

SHAPE = (30, 20, 16)
SPACING = (2.0, 2.0, 3.0)
STRUCTURE = ndimage.generate_binary_structure(3, 2)


def box(*sides: tuple[int, int], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A mask that holds one box, from a first to a last voxel along each axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, last + 1) for first, last in sides)] = True
    return mask


SMALL, LARGE, SINGLE = box((1, 3), (1, 3), (1, 3)), box((8, 22), (2, 16), (3, 11)), box((5, 5), (5, 5), (5, 5))
EMPTY = np.zeros(SHAPE, bool)


def read(answer: np.ndarray, reference: np.ndarray, kind: str = "click") -> dict[str, list[list[int]]]:
    """The points of a reader after one round."""
    reader = SimulatedReader(reference, SPACING, kinds=(kind,))
    reader.correct(answer)
    return reader.points


# ---------------------------------------------------------------- which error


@pytest.mark.parametrize("mask", [EMPTY, SMALL | LARGE])
def test_no_click_where_answer_and_reference_are_equal(mask):
    reader = SimulatedReader(mask.astype(np.uint8), SPACING)
    assert reader.correct(mask.astype(np.uint8)) == []
    assert reader.points == {"foreground": [], "background": []}


def test_largest_error_is_clicked_whether_missed_or_false():
    assert read(SMALL, LARGE) == {"foreground": [[15, 9, 7]], "background": []}
    assert read(LARGE, SMALL) == {"foreground": [], "background": [[15, 9, 7]]}
    assert read(LARGE, LARGE | SMALL) == {"foreground": [[2, 2, 2]], "background": []}


def test_lesion_free_study_gets_background_clicks_alone():
    reader = SimulatedReader(EMPTY, SPACING)
    answer = SMALL | LARGE
    assert reader.correct(answer) == [[15, 9, 7]]
    assert reader.correct(answer & ~LARGE) == [[2, 2, 2]]
    assert reader.correct(EMPTY) == []
    assert reader.points == {"foreground": [], "background": [[15, 9, 7], [2, 2, 2]]}


def test_of_errors_of_one_size_a_missed_one_comes_first_and_then_the_first_in_the_array():
    early, late = box((1, 3), (1, 3), (1, 3)), box((11, 13), (1, 3), (1, 3))
    assert read(late, early) == {"foreground": [[2, 2, 2]], "background": []}
    assert read(early, late) == {"foreground": [[12, 2, 2]], "background": []}
    assert read(EMPTY, early | late)["foreground"] == [[2, 2, 2]]
    assert read(early | late, EMPTY)["background"] == [[2, 2, 2]]


def test_voxels_with_a_common_edge_are_one_error_and_with_a_common_corner_two():
    by_edge, by_corner = box((4, 4), (3, 3), (4, 4)), box((4, 4), (4, 4), (4, 4))
    assert np.array_equal(largest_error(EMPTY, SMALL | by_edge | box((4, 4), (3, 3), (5, 5))).voxels.sum(), 29)
    assert np.array_equal(largest_error(EMPTY, SMALL | by_corner).voxels, SMALL)


# ---------------------------------------------------------------- where in it


def test_click_is_farthest_from_the_border_in_millimetres():
    # A cube of 5 voxels is deeper than a plate of 3 x 9 x 9, unless the voxels are longer across the plate.
    both = box((10, 14), (2, 6), (2, 6)) | box((15, 17), (4, 4), (4, 4)) | box((18, 20), (2, 10), (2, 10))
    assert click(both, (1, 1, 1)).tolist() == [[12, 4, 4]]
    assert click(both, (4, 1, 1)).tolist() == [[19, 6, 6]]
    # A ball of 8 mm with a long thin tail: the middle of the ball, not of the error.
    x, y, z = np.ogrid[:30, :20, :16]
    ball = ((x - 8) * 2) ** 2 + ((y - 9) * 2) ** 2 + ((z - 7) * 3) ** 2 <= 8**2
    assert click(ball | box((8, 29), (9, 9), (7, 7)), SPACING).tolist() == [[8, 9, 7]]


def test_what_lies_beyond_the_volume_is_outside_of_an_error():
    assert click(box((0, 4), (0, 4), (0, 4)), (1, 1, 1)).tolist() == [[2, 2, 2]]


def test_centre_line_runs_through_the_length_of_an_error_along_its_axis():
    rod = box((3, 25), (7, 11), (5, 9))
    line = centre_line(rod, (1, 1, 1))
    assert set(line[:, 0].tolist()) == set(range(3, 26))
    # From a corner, the axis is four steps to an 18-neighbour away.
    inner = line[(line[:, 0] >= 7) & (line[:, 0] <= 21)]
    assert (inner[:, 1:] == [9, 7]).all()


def test_centre_line_stays_inside_of_a_bent_error():
    bent = box((3, 25), (3, 5), (5, 7)) | box((23, 25), (3, 17), (5, 7))
    line = centre_line(bent, SPACING)
    ends = sorted([line[0].tolist(), line[-1].tolist()])
    assert (ends[0][0], ends[1][1]) == (3, 17)
    assert bent[tuple(line.T)].all()


@pytest.mark.parametrize("kind", SCRIBBLES)
def test_scribble_lies_inside_of_the_error_and_hangs_together(kind):
    for seed in range(5):
        shapes = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2) > 0.05
        error = largest_error(EMPTY, shapes)
        drawn = KINDS[kind](error.voxels, SPACING, np.random.default_rng(seed))
        marked = np.zeros(SHAPE, bool)
        marked[tuple(drawn.T)] = True
        assert error.voxels[marked].all()
        # The border of an error with a hole has several parts.
        assert kind == "border" or ndimage.label(marked, STRUCTURE)[1] == 1


def test_random_line_is_the_shortest_way_between_two_voxels_and_depends_on_the_seed():
    lines = [random_line(LARGE, SPACING, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(lines[0], lines[1])
    assert not np.array_equal(lines[0], lines[2])
    # In a box, a shortest way never turns back along an axis.
    for line in lines[1:]:
        steps = np.abs(np.diff(line, axis=0))
        assert steps.sum(axis=1).max() <= 2
        assert steps.sum(axis=0).tolist() == np.abs(line[-1] - line[0]).tolist()


def test_border_scribble_is_the_outline_of_the_slice_of_the_click():
    outline = [[x, y, 7] for x in range(8, 23) for y in range(2, 17) if x in (8, 22) or y in (2, 16)]
    assert sorted(border(LARGE, SPACING).tolist()) == outline


@pytest.mark.parametrize("kind", KINDS)
def test_error_of_one_voxel_gets_this_voxel(kind):
    assert read(EMPTY, SINGLE, kind) == {"foreground": [[5, 5, 5]], "background": []}


# ---------------------------------------------------------------- rounds


def test_reader_who_is_obeyed_comes_to_the_reference_and_stops():
    reference, answer = LARGE | SINGLE, SMALL | SINGLE
    reader = SimulatedReader(reference, SPACING)
    rounds = 0
    while reader.correct(answer):
        error = largest_error(answer, reference)
        answer = np.where(error.voxels, error.missed, answer)
        rounds += 1
    assert rounds == 2
    assert np.array_equal(answer, reference)


def test_rounds_of_one_seed_are_equal_and_draw_all_kinds():
    def points(seed: int) -> dict:
        reader = SimulatedReader(LARGE, SPACING, seed, SCRIBBLES)
        for _ in range(6):
            reader.correct(EMPTY)
        return reader.points

    assert points(0) == points(0) != points(1)
    reader, lengths = SimulatedReader(LARGE, SPACING, 0, ("click", "border")), set()
    for _ in range(20):
        lengths.add(len(reader.correct(EMPTY)))
    assert lengths == {1, 56}


# ---------------------------------------------------------------- scores of rounds


def test_study_without_lesions_scores_one_for_an_empty_answer_and_else_zero():
    assert (round_dice(EMPTY, EMPTY), round_f1(EMPTY, EMPTY)) == (1, 1)
    assert (round_dice(SMALL, EMPTY), round_f1(SMALL, EMPTY)) == (0, 0)
    assert (round_dice(EMPTY, SMALL), round_f1(EMPTY, SMALL)) == (0, 0)


def test_lesion_is_found_from_an_intersection_over_union_of_a_tenth():
    lesion = box((5, 14), (5, 5), (5, 5))
    assert round_f1(box((14, 14), (5, 5), (5, 5)), lesion) == 1
    # 1 of 11 voxels.
    assert round_f1(box((14, 15), (5, 5), (5, 5)), lesion) == 0
    assert round_dice(box((14, 15), (5, 5), (5, 5)), lesion) == 2 / 12
    # One lesion found, one missed, one false.
    assert round_f1(LARGE | SINGLE | box((25, 26), (1, 2), (1, 2)), LARGE | SINGLE | box((25, 26), (17, 18), (1, 2))) == 4 / 6


def test_lesion_is_lost_where_the_answer_overlapped_it_and_does_no_more():
    reference, before = SMALL | LARGE | SINGLE, LARGE | box((3, 5), (3, 5), (3, 5))
    # The small component of the answer before overlaps two lesions. A point beside it touches both.
    assert lost_lesions(before, before, reference, []) == (0, 0)
    assert lost_lesions(before, LARGE, reference, [[6, 5, 6]]) == (2, 0)
    assert lost_lesions(before, LARGE, reference, [[15, 9, 7]]) == (0, 2)
    assert lost_lesions(before, LARGE | SMALL, reference, [[15, 9, 7]]) == (0, 1)
    # What the answer has never held is not lost.
    assert lost_lesions(EMPTY, EMPTY, reference, [[2, 2, 2]]) == (0, 0)


def test_area_of_constant_rounds_is_their_score_and_of_a_straight_line_its_middle():
    assert area([0.7] * 6) == pytest.approx(0.7)
    assert area([0, 0.2, 0.4, 0.6, 0.8, 1]) == pytest.approx(0.5)
    assert area([0, 1, 1, 1, 1, 1]) == pytest.approx(0.9)
