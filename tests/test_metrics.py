"""The metrics equal a slow, obvious implementation, and follow the challenge's rules."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import hundred_lesions
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy import ndimage

from petct_cascade.metrics import COUNT_NAMES, METRIC_NAMES, LesionMetrics, case_metrics, lesions_by_size
from petct_training.errors import InputError
from petct_training.grids import bounding_box

FACE_AND_EDGE = [step for step in itertools.product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= 2]


def components_by_flood_fill(mask: np.ndarray) -> list[set[tuple[int, int, int]]]:
    """The 18-connected components as sets of voxels: take a voxel, follow its neighbours, repeat."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    components = []
    while left:
        waiting = [left.pop()]
        component = set(waiting)
        while waiting:
            voxel = waiting.pop()
            for step in FACE_AND_EDGE:
                neighbour = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if neighbour in left:
                    left.remove(neighbour)
                    component.add(neighbour)
                    waiting.append(neighbour)
        components.append(component)
    return components


def slow_metrics(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """The definitions of the challenge, word by word, with a loop over components."""
    voxel = spacing[0] * spacing[1] * spacing[2] / 1000
    predicted, lesions = components_by_flood_fill(prediction), components_by_flood_fill(reference)
    p = {voxel for component in predicted for voxel in component}
    g = {voxel for component in lesions for voxel in component}
    false = [component for component in predicted if not component & g]
    missed = [component for component in lesions if not component & p]
    sensitivity = 1 - len(missed) / len(lesions) if lesions else math.nan
    precision = 1 - len(false) / len(predicted) if predicted else math.nan
    f1 = math.nan if not lesions else 0.0
    if lesions and sensitivity and precision:
        f1 = 2 / (1 / sensitivity + 1 / precision)
    return {
        "dice": 2 * len(p & g) / (len(p) + len(g)) if g else math.nan,
        "fpv_ml": sum(map(len, false)) * voxel,
        "fnv_ml": sum(map(len, missed)) * voxel if g else math.nan,
        "sensitivity": sensitivity,
        "precision": precision,
        "f1": f1,
        "lesions_reference": len(lesions),
        "lesions_found": len(lesions) - len(missed),
        "lesions_predicted": len(predicted),
        "lesions_false": len(false),
    }


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_metrics_equal_a_loop_over_components_on_random_masks(density, order):
    generator = np.random.default_rng(int(density * 1000))
    for dtype in (np.uint8, bool, np.int64):
        for _ in range(20):
            shape = tuple(generator.integers(3, 11, 3))
            spacing = tuple(generator.uniform(0.5, 6, 3))
            prediction, reference = (np.asarray(generator.random(shape) < density, dtype, order) for _ in range(2))
            assert_same(case_metrics(prediction, reference, spacing), slow_metrics(prediction, reference, spacing))


def test_empty_reference_counts_all_of_the_prediction_as_false():
    prediction = np.zeros((6, 6, 6), np.uint8)
    prediction[1:3, 1, 1] = 1
    found = case_metrics(prediction, np.zeros_like(prediction), (10, 10, 10))
    assert math.isnan(found["dice"])
    assert math.isnan(found["fnv_ml"])
    assert found["fpv_ml"] == pytest.approx(2.0)
    assert_same(found, slow_metrics(prediction, np.zeros_like(prediction), (10, 10, 10)))


def test_empty_prediction_has_dice_zero_and_misses_everything():
    reference = np.zeros((6, 6, 6), np.uint8)
    reference[1:3, 1, 1] = 1
    found = case_metrics(np.zeros_like(reference), reference, (10, 10, 5))
    assert (found["dice"], found["fpv_ml"], found["fnv_ml"]) == (0, 0, pytest.approx(1.0))
    assert (found["sensitivity"], found["f1"]) == (0, 0)
    assert math.isnan(found["precision"])


def test_two_empty_masks_have_no_dice_and_no_false_positive_volume():
    empty = np.zeros((4, 5, 6), np.uint8)
    found = case_metrics(empty, empty, (1, 1, 1))
    assert_same(found, slow_metrics(empty, empty, (1, 1, 1)))
    assert found["fpv_ml"] == 0


@pytest.mark.parametrize(("second", "lesions"), [((2, 1, 1), 1), ((2, 2, 1), 1), ((2, 2, 2), 2)])
def test_voxels_that_touch_at_a_face_or_edge_are_one_lesion_and_at_a_corner_two(second, lesions):
    reference = np.zeros((5, 5, 5), np.uint8)
    reference[1, 1, 1] = reference[second] = 1
    prediction = np.zeros_like(reference)
    prediction[1, 1, 1] = 1
    found = case_metrics(prediction, reference, (10, 10, 10))
    assert found["lesions_reference"] == lesions
    assert found["fnv_ml"] == pytest.approx(1.0 if lesions == 2 else 0.0)


def test_masks_that_fill_the_volume_agree_completely():
    full = np.ones((7, 6, 5), np.uint8)
    found = case_metrics(full, full, (2, 2, 2))
    assert (found["dice"], found["fpv_ml"], found["fnv_ml"], found["f1"]) == (1, 0, 0, 1)


def test_any_label_above_zero_belongs_to_the_mask():
    reference = np.zeros((4, 4, 4), np.int16)
    reference[1, 1, 1] = 7
    assert case_metrics(reference, reference > 0, (1, 1, 1))["dice"] == 1


@pytest.mark.parametrize("value", [0.3, 0.5, 2.0, -1.0, np.nan, np.inf, 1j])
def test_an_array_that_is_no_mask_is_refused_and_named(value):
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    other = np.where(mask, value, 0)
    with pytest.raises(InputError, match=r"^the prediction holds .*: a mask is 0, and 1 inside of lesions$"):
        case_metrics(other, mask, (1, 1, 1))
    with pytest.raises(InputError, match=r"^the reference holds .*: a mask is 0, and 1 inside of lesions$"):
        case_metrics(mask, other, (1, 1, 1))


def test_a_mask_that_is_rounded_as_in_a_file_counts_as_0_and_1():
    mask = np.zeros((6, 6, 6))
    mask[2:4, 2:4, 2:4] = 1
    rounded = mask * 0.99999999977 + 1e-9
    assert case_metrics(rounded, np.roll(mask, 1, axis=0), (1, 1, 1)) == case_metrics(mask, np.roll(mask, 1, axis=0), (1, 1, 1))


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, -2), (1, 1, math.nan)])
def test_impossible_spacing_is_refused(spacing):
    with pytest.raises(InputError, match="three positive numbers"):
        case_metrics(np.ones((2, 2, 2)), np.ones((2, 2, 2)), spacing)


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(2, 2, 2\).*\(2, 2, 3\)"):
        case_metrics(np.ones((2, 2, 2)), np.ones((2, 2, 3)), (1, 1, 1))


def test_bounding_box_is_the_smallest_that_holds_the_mask():
    mask = np.zeros((9, 8, 7), bool)
    mask[2, 3, 4] = mask[5, 1, 6] = True
    assert bounding_box(mask) == (slice(2, 6), slice(1, 4), slice(4, 7))
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None


def test_lesions_of_a_study_with_a_hundred_of_them_are_told_apart():
    prediction, reference = hundred_lesions()
    found = case_metrics(prediction, reference, (2.04, 2.04, 3))
    assert [found[name] for name in COUNT_NAMES] == [100, 100, 100, 0]
    assert (found["fpv_ml"], found["fnv_ml"], found["f1"]) == (0, 0, 1)
    assert found["dice"] == pytest.approx(2 * np.count_nonzero(prediction & reference) / (prediction.sum() + reference.sum()))


def test_monai_metric_equals_the_function_for_each_study_and_reads_the_spacing_from_the_label():
    generator = np.random.default_rng(3)
    masks = [(generator.random((6, 7, 8)) < 0.1, generator.random((6, 7, 8)) < 0.1) for _ in range(3)]
    masks[1] = (masks[1][0], np.zeros((6, 7, 8), bool))
    affine = torch.diag(torch.tensor([-2.0, -2.0, 3.0, 1.0], dtype=torch.float64))
    metric = LesionMetrics(METRIC_NAMES + COUNT_NAMES)
    for prediction, reference in masks:
        label = MetaTensor(torch.from_numpy(reference[None]).float(), affine=affine)
        metric([torch.from_numpy(prediction[None]).float()], [label])
    expected = np.array([list(case_metrics(*pair, (2, 2, 3)).values()) for pair in masks])
    np.testing.assert_allclose(metric.get_buffer().numpy(), expected, rtol=1e-12)
    means = metric.aggregate()
    assert list(means.values()) == pytest.approx(np.nanmean(expected, axis=0), rel=1e-12)


def test_monai_metric_works_in_an_engine_from_a_config():
    config = {
        "handler": {
            "_target_": "IgniteMetricHandler",
            "metric_fn": {"_target_": "petct_cascade.metrics.LesionMetrics", "names": ["dice", "fpv_ml"], "prefix": "unet_"},
            "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
        },
        "imports": ["$import monai"],
    }
    parser = ConfigParser(config)
    mask = MetaTensor(torch.ones(1, 4, 4, 4), affine=torch.eye(4))
    engine = Engine(lambda engine, batch: [{"pred": mask, "label": mask}])
    engine.state.metric_details = {}
    parser.get_parsed_content("handler").attach(engine, "unet")
    engine.run([0, 1])
    assert engine.state.metrics["unet_dice"] == 1
    assert engine.state.metrics["unet_fpv_ml"] == 0
    assert engine.state.metric_details["unet"].shape == (2, 2)


def test_monai_metric_with_one_name_gives_one_number():
    metric = LesionMetrics("dice", spacing=(1, 1, 1))
    metric(torch.ones(2, 1, 3, 3, 3), torch.ones(2, 1, 3, 3, 3))
    assert metric.aggregate().item() == 1


def test_monai_metric_refuses_unknown_names_channels_and_missing_spacing():
    with pytest.raises(InputError, match="unknown"):
        LesionMetrics("jaccard")
    with pytest.raises(InputError, match="two binary masks"):
        LesionMetrics("dice")(torch.ones(1, 2, 3, 3, 3), torch.ones(1, 2, 3, 3, 3))
    with pytest.raises(InputError, match="voxel size"):
        LesionMetrics("dice")(torch.ones(1, 1, 3, 3, 3), torch.ones(1, 1, 3, 3, 3))


def test_lesions_are_numbered_from_the_largest_whatever_box_they_lie_in():
    mask = np.random.default_rng(0).random((20, 18, 16)) < 0.06
    components, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
    labels, number = lesions_by_size(mask)
    assert number == count
    sizes = np.bincount(labels.ravel())[1:]
    np.testing.assert_array_equal(sizes, np.sort(np.bincount(components.ravel())[1:])[::-1])
    # Each lesion is one component.
    assert len(np.unique(np.stack([labels[mask], components[mask]]), axis=1).T) == count
    padded = np.pad(mask, ((2, 1), (0, 3), (4, 0)))
    np.testing.assert_array_equal(lesions_by_size(padded)[0][2:-1, :-3, 4:], labels)
