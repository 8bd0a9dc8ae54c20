"""Promises of grids: affines, spacings and boxes agree with those of nibabel and scipy, and with what a voxel's faces say."""

from __future__ import annotations

import doctest
import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

import petct_training.grids
from petct_training.errors import InputError
from petct_training.grids import (
    affine_of_part,
    as_affine,
    bounding_box,
    corner_distance,
    extent,
    las_spacing,
    spacing_of,
    voxel_volume_ml,
)

SHAPE = (5, 7, 9)


def turned_affine(degrees: float = 25) -> np.ndarray:
    """An affine with voxels of 2 x 3 x 4 mm, turned about the z axis, its origin elsewhere."""
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= [2, 3, 4]
    affine[:3, 3] = [-30, 12, 700]
    return affine


def axis_aligned_affines() -> list[np.ndarray]:
    """Every order and direction of the axes, with voxels of 1.5, 2.5 and 3.5 mm along the world's axes."""
    affines = []
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((-1, 1), repeat=3)):
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, world in enumerate(order):
            affine[world, axis] = signs[axis] * (1.5, 2.5, 3.5)[world]
        affines.append(affine)
    return affines


def test_examples_of_the_docstrings():
    assert doctest.testmod(petct_training.grids).failed == 0


def test_spacing_is_the_distance_of_neighbouring_voxels():
    affine = turned_affine()
    origin = affine @ [0, 0, 0, 1]
    neighbours = [affine @ [*index, 1] for index in np.eye(3)]
    assert spacing_of(affine) == pytest.approx([np.linalg.norm(neighbour - origin) for neighbour in neighbours])


@pytest.mark.parametrize("affine", axis_aligned_affines())
def test_las_spacing_is_that_of_the_image_that_nibabel_turns_to_las(affine):
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine)
    to_las = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt("LAS"))
    assert las_spacing(affine) == pytest.approx(image.as_reoriented(to_las).header.get_zooms())


def test_affine_stays_as_it_is():
    assert np.array_equal(as_affine(turned_affine()), turned_affine())


def test_affine_of_a_part_leads_its_voxels_to_where_they_were():
    part = affine_of_part(turned_affine(), [1, 2, 3])
    assert part @ [2, 2, 2, 1] == pytest.approx(turned_affine() @ [3, 4, 5, 1])


def test_affine_of_a_part_is_that_of_nibabels_slicer():
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), turned_affine())
    assert affine_of_part(turned_affine(), [1, 2, 3]) == pytest.approx(image.slicer[1:, 2:, 3:].affine)


def test_affine_of_a_part_leaves_that_of_the_whole_alone():
    affine = turned_affine()
    affine_of_part(affine, [1, 2, 3])
    assert np.array_equal(affine, turned_affine())


def test_voxel_volume_is_in_ml():
    assert voxel_volume_ml([10, 10, 10]) == 1
    assert voxel_volume_ml(np.array([2.0, 2.0, 3.0])) == pytest.approx(0.012)


@pytest.mark.parametrize("spacing", [[1, 2], [1, 2, 0], [1, 2, -3], [1, 2, np.nan], [1, 2, np.inf]])
def test_spacing_that_is_not_three_positive_numbers_is_refused(spacing):
    with pytest.raises(InputError, match="three positive numbers"):
        voxel_volume_ml(spacing)


@given(mask=arrays.arrays(bool, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 9).map(lambda n: n == 0)))
@settings(max_examples=100, deadline=None)
def test_bounding_box_is_that_of_scipy(mask):
    expected = ndimage.find_objects(mask.astype(int))
    assert bounding_box(mask) == (expected[0] if expected else None)
    assert bounding_box(np.asfortranarray(mask)) == bounding_box(mask)


def test_corner_distance_is_the_largest_of_all_voxels():
    affine, other = turned_affine(), turned_affine(27)
    voxels = np.moveaxis(np.indices(SHAPE), 0, -1)
    places = [nib.affines.apply_affine(matrix, voxels) for matrix in (affine, other)]
    assert corner_distance(SHAPE, affine, other) == pytest.approx(np.linalg.norm(places[0] - places[1], axis=-1).max())


def test_corner_distance_of_a_shift_is_its_length():
    shifted = turned_affine()
    shifted[:3, 3] += [3, 0, 4]
    assert corner_distance(SHAPE, turned_affine(), shifted) == pytest.approx(5)


def test_extent_holds_every_corner_of_every_voxel_and_no_more():
    affine = turned_affine()
    voxels = np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 1, 3)
    corners = nib.affines.apply_affine(affine, voxels + np.array([*itertools.product((-0.5, 0.5), repeat=3)]))
    low, high = extent(SHAPE, affine)
    assert low == pytest.approx(corners.min(axis=(0, 1)))
    assert high == pytest.approx(corners.max(axis=(0, 1)))
