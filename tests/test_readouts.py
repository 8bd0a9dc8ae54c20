"""The read-outs equal closed forms, a slow implementation, and the phantom's table of lesions."""

from __future__ import annotations

import csv
import itertools
import json
import math

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_writer import Variant, small_study, write_study
from helpers import BUNDLES, ENSEMBLE, SARCOMA, needs_shared
from highdicom.spatial import PixelToReferenceTransformer
from scipy import ndimage
from zoo import SHARED

import petct_cascade.readouts
from petct_cascade.changes import CHANGE_DEFINITIONS
from petct_cascade.commands import write_phantoms
from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.finding import find_in_folder
from petct_cascade.distances import largest_distance, largest_voxel_distance
from petct_cascade.metrics import case_metrics
from petct_cascade.readouts import (
    LESION_COLUMNS,
    LESION_DEFINITIONS,
    PEAK_RADIUS_MM,
    REFERENCE_DEFINITIONS,
    STUDY_COLUMNS,
    STUDY_DEFINITIONS,
    reference_lesions,
    study_readouts,
    write_readouts,
)
from petct_cascade.volumes import read_volume, write_volume
from petct_training.errors import InputError

LAS = np.array([[-2.0, 0, 0, 100], [0, 2.5, 0, -50], [0, 0, 3.0, -200], [0, 0, 0, 1]])


def slow_suv_peak(mask: np.ndarray, pet: np.ndarray, spacing: np.ndarray, samples: int = 11) -> float:
    """The highest mean in a 1 ml sphere: sum over sample points of every voxel of the image, for each centre."""
    points = (np.arange(samples) + 0.5) / samples - 0.5
    best = -math.inf
    for centre in np.argwhere(mask):
        total = weight = 0.0
        for voxel in np.ndindex(pet.shape):
            x, y, z = ((np.array(voxel) - centre)[:, None] + points) * spacing[:, None]
            inside = (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= PEAK_RADIUS_MM**2).sum()
            total += inside * pet[voxel]
            weight += inside
        best = max(best, total / weight)
    return best


def test_box_has_its_closed_form_values():
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[5:15, 8:16, 10:20] = 1  # 20 x 20 x 30 mm
    pet = np.full(mask.shape, 1.0, np.float32)
    pet[mask == 1] = 4
    found = study_readouts(mask, pet, LAS)
    volume = 20 * 20 * 30 / 1000
    volumes = dict.fromkeys(("tmtv_ml", "tmtv_suv4_ml", "tmtv_41pct_ml"), volume)
    glycolysis = dict.fromkeys(("tlg_g", "tlg_suv4_g", "tlg_41pct_g"), 4 * volume)
    distances = {"dmax_mm": 0, "dmax_voxels_mm": math.hypot(9 * 2, 7 * 2.5, 9 * 3)}
    uptake = {"suv_max": 4, "suv_mean": 4, "suv_peak": 4, "lesions": 1}
    assert found["study"] == pytest.approx(volumes | glycolysis | distances | uptake)
    lesion = found["lesions"][0]
    assert tuple(lesion) == LESION_COLUMNS
    assert [lesion[f"centroid_{axis}_mm"] for axis in "xyz"] == pytest.approx([100 - 2 * 9.5, -50 + 2.5 * 11.5, -200 + 3 * 14.5])


def test_places_run_to_the_sides_that_their_definitions_name_and_have_the_sign_that_they_say_of_dicom(tmp_path):
    written = write_study(tmp_path, small_study(), Variant())
    slices = [pydicom.dcmread(file) for file in written.pet_files]
    hottest = max(slices, key=lambda ds: float(ds.pixel_array.max()) * float(ds.RescaleSlope))
    row, column = np.argwhere(hottest.pixel_array == hottest.pixel_array.max())[0]
    to_patient = PixelToReferenceTransformer.for_image(hottest)
    (in_dicom,) = to_patient(np.array([[column, row]]))
    (study,) = find_in_folder(tmp_path)[0]
    pet = read_volume(study.pet)[0]
    (lesion,) = study_readouts(pet.array == pet.array.max(), pet.array, pet.affine)["lesions"]
    # The axes of the identity run to the right, to the front and to the head; those of DICOM to the left, the back and the head.
    words = {"R": "grows to the patient's right", "A": "grows to the patient's front", "S": "grows to the patient's head"}
    for index, (axis, code) in enumerate(zip("xyz", nib.aff2axcodes(np.eye(4)), strict=True)):
        for definition in (LESION_DEFINITIONS[f"centroid_{axis}_mm"], CHANGE_DEFINITIONS[f"centroid_{axis}_mm"]):
            assert words[code] in definition
            sign = -1 if "DICOM has the other sign" in definition else 1
            assert lesion[f"centroid_{axis}_mm"] == pytest.approx(sign * in_dicom[index], abs=1e-3)


@pytest.mark.parametrize("spacing", [(2.036, 2.036, 3.0), (4.073, 4.073, 5.0), (1.0, 1.0, 1.0)])
def test_sphere_has_its_closed_form_values_within_the_discretisation_error(spacing):
    radius, spacing = 20.0, np.array(spacing)
    shape = tuple(np.ceil(60 / spacing).astype(int))
    axes = np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    centre = np.array([30.3, 29.6, 30.9])
    mask = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2
    found = study_readouts(mask, np.where(mask, 5.0, 0.0), spacing)
    # Only voxels that the surface cuts can be wrong: a shell half a voxel diagonal thick on either side.
    half = np.linalg.norm(spacing) / 2
    low, high = (4 / 3 * math.pi * (radius + sign * half) ** 3 / 1000 for sign in (-1, 1))
    volume = 4 / 3 * math.pi * radius**3 / 1000
    assert low <= found["study"]["tmtv_ml"] <= high
    assert found["study"]["tmtv_ml"] == pytest.approx(volume, rel=0.03)
    assert found["study"]["tlg_g"] == pytest.approx(5 * found["study"]["tmtv_ml"])
    assert found["study"]["suv_peak"] == pytest.approx(5), "a 1 ml sphere fits into the lesion"
    assert [found["lesions"][0][f"centroid_{axis}_mm"] for axis in "xyz"] == pytest.approx(centre, abs=half / 4)


def test_suv_peak_of_a_linear_ramp_is_the_value_at_the_sphere_centre():
    pet = np.broadcast_to(np.arange(40.0)[:, None, None], (40, 20, 20))
    mask = np.zeros(pet.shape, bool)
    mask[10:21, 8:12, 8:12] = True
    assert study_readouts(mask, pet, (2, 2, 2))["study"]["suv_peak"] == pytest.approx(20)


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (4.0, 3.0, 5.0), (15.0, 15.0, 15.0)])
def test_suv_peak_equals_a_loop_over_all_voxels_also_at_the_edge_of_the_image(spacing):
    generator = np.random.default_rng(1)
    pet = generator.random((6, 5, 6))
    mask = np.zeros(pet.shape, bool)
    mask[0:2, 0, 0:2] = mask[3, 2:5, 5] = True
    found = study_readouts(mask, pet, spacing)["study"]["suv_peak"]
    assert found == pytest.approx(slow_suv_peak(mask, pet, np.array(spacing)), rel=1e-9)


def test_sphere_of_suv_peak_has_one_millilitre():
    assert 4 / 3 * math.pi * PEAK_RADIUS_MM**3 == pytest.approx(1000)
    assert pytest.approx(6.2, abs=0.01) == PEAK_RADIUS_MM


def test_dmax_is_the_largest_distance_between_centroids_in_mm():
    mask = np.zeros((40, 40, 40), bool)
    centres = [(5, 5, 5), (30, 6, 20), (12, 33, 34), (20, 20, 7)]
    for x, y, z in centres:
        mask[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = True
    expected = max(math.dist(*(np.array(p) * (2, 2.5, 3) for p in pair)) for pair in itertools.combinations(centres, 2))
    found = study_readouts(mask, np.ones(mask.shape), LAS)["study"]
    assert found["lesions"] == 4
    assert found["dmax_mm"] == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["noise", "ball", "ellipsoid", "two boxes", "plate", "row", "voxel"])
def test_dmax_of_voxels_equals_comparing_all_with_all(shape):
    generator = np.random.default_rng(8)
    grid = np.moveaxis(np.indices((15, 13, 17)), 0, -1) - (7, 6, 8)
    sheared = np.array([[-2.0, 0.3, 0, 9], [0.2, 2.5, -0.4, 8], [0, 0.1, 3.0, 7], [0, 0, 0, 1]])
    masks = {
        "noise": generator.random(grid.shape[:3]) < 0.02,
        "ball": np.linalg.norm(grid, axis=-1) < 6.1,
        "ellipsoid": np.linalg.norm(grid / (7, 4, 8), axis=-1) <= 1,
        "two boxes": (abs(grid - (4, 4, 6)).max(-1) < 2) | (abs(grid - (-5, -4, -5)).max(-1) < 3),
        "plate": (grid[..., 1] == 2) & (abs(grid[..., 0]) < 5),
        "row": (grid[..., :2] == 1).all(-1),
        "voxel": (grid == (1, 2, 3)).all(-1),
    }
    for affine in (LAS, sheared):
        places = np.argwhere(masks[shape]) @ affine[:3, :3].T
        expected = np.sqrt(((places[:, None] - places) ** 2).sum(-1)).max()
        found = largest_voxel_distance(masks[shape], affine)
        assert found == pytest.approx(expected, rel=1e-12)


def test_volumes_above_thresholds_equal_their_formulas():
    generator = np.random.default_rng(11)
    mask, pet = generator.random((20, 22, 24)) < 0.06, generator.gamma(2, 2, (20, 22, 24)).astype(np.float32)
    pet[5:8, 5:8, 5:8], mask[5:8, 5:8, 5:8] = 4, True  # exactly at the threshold
    found = study_readouts(mask, pet, LAS)
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
    assert count == len(found["lesions"])
    expected = []
    for number in range(1, count + 1):
        suv = pet[labels == number].astype(float)
        high, upper = suv[suv >= 4], suv[suv >= 0.41 * suv.max()]
        expected.append([len(suv), suv.sum(), len(high), high.sum(), len(upper), upper.sum()])
    expected = 0.015 * np.array(expected)
    names = ("volume_ml", "tlg_g", "volume_suv4_ml", "tlg_suv4_g", "volume_41pct_ml", "tlg_41pct_g")
    rows = np.array([[lesion[name] for name in names] for lesion in found["lesions"]])
    np.testing.assert_allclose(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)], rtol=1e-9)
    of_study = [found["study"][name.replace("volume", "tmtv")] for name in names]
    np.testing.assert_allclose(of_study, expected.sum(axis=0), rtol=1e-9)
    assert 0 < of_study[2] < of_study[4] < of_study[0]


@pytest.mark.parametrize(("sex", "first", "second"), [("M", 6680, 216), ("F", 8780, 244)])
def test_sul_is_suv_by_the_lean_body_mass_of_janmahasatian_and_absent_without_a_body(sex, first, second):
    mask, pet = np.zeros((9, 9, 9), np.uint8), np.random.default_rng(3).gamma(2, 2, (9, 9, 9))
    mask[2:4, 2:5, 2] = mask[6, 6, 6] = 1
    weight, height = 83.0, 1.71
    found = study_readouts(mask, pet, LAS, body=Body(weight, height, sex))
    lean = 9270 * weight / (first + second * weight / height**2)
    for row in (found["study"], *found["lesions"]):
        for name in ("max", "mean", "peak"):
            assert row[f"sul_{name}"] == pytest.approx(row[f"suv_{name}"] * lean / weight)
    assert found["body"] == pytest.approx({"weight_kg": weight, "height_m": height, "sex": sex, "lean_mass_kg": lean})
    without = study_readouts(mask, pet, LAS)
    assert "body" not in without
    assert not [name for row in (without["study"], *without["lesions"]) for name in row if name.startswith("sul")]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ((80, 180, "M"), "height is 180: give a number from 0.3 to 2.6, in m"),
        ((80_000, 1.8, "M"), "weight is 80000: give a number from 1 to 500, in kg"),
        ((-5, 1.8, "F"), "weight is -5: give a number from 1 to 500, in kg"),
        ((float("nan"), 1.8, "F"), "weight is nan: give a number from 1 to 500, in kg"),
        (("80", 1.8, "F"), "weight is '80': give a number from 1 to 500, in kg"),
        ((80, 1.8, "male"), "sex is 'male': give M, F or O"),
        ((80, 1.8, None), "sex is None: give M, F or O"),
    ],
)
def test_a_body_that_cannot_be_is_refused_before_it_gives_a_sul(body, sentence):
    with pytest.raises(InputError) as refusal:
        Body(*body)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("sex", "MFO")
def test_a_body_takes_the_sex_in_small_letters_and_numbers_of_numpy(sex):
    small = Body(np.float32(80), np.float64(1.8), sex.lower())
    assert small == Body(80, 1.8, sex)
    assert json.loads(json.dumps(small.lean_mass)) == Body(80, 1.8, sex).lean_mass


def test_sul_of_sex_other_is_between_those_of_men_and_women_and_the_columns_come_where_they_are_known(tmp_path):
    mask = np.ones((3, 3, 3), np.uint8)
    found = {sex: study_readouts(mask, mask * 2.0, LAS, body=Body(70, 1.8, sex)) for sex in "MFO"}
    sul = {sex: content["study"]["sul_max"] for sex, content in found.items()}
    assert sul["O"] == pytest.approx((sul["M"] + sul["F"]) / 2)
    write_readouts(tmp_path, found | {"unknown": study_readouts(mask, mask * 2.0, LAS)})
    with open(tmp_path / "readouts_studies.csv", newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["unknown"]["sul_max"] == ""
    assert float(rows["M"]["sul_peak"]) == found["M"]["study"]["sul_peak"]
    assert "sul_max" not in json.loads((tmp_path / "readouts.json").read_text())["unknown"]["study"]


def test_every_column_is_defined():
    mask = np.ones((3, 3, 3), np.uint8)
    found = study_readouts(mask, mask * 2.0, LAS, mask * 0.1, Body(70, 1.8, "M"))
    assert set(found["study"]) == set(STUDY_DEFINITIONS)
    assert set(found["lesions"][0]) == set(LESION_DEFINITIONS)


SARCOMA_DICOM = SHARED / "data/soft_tissue_sarcoma_dicom"


@needs_shared(SARCOMA_DICOM)
@pytest.mark.parametrize("patient", ["STS_002", "STS_019"])
def test_real_study_has_the_same_read_outs_in_dicom_and_in_nifti(patient, tmp_path):
    study = find_in_folder(SARCOMA_DICOM / patient)[0][0]
    label, pet = (read_volume(source)[0] for source in (study.label, study.pet))
    write_volume(tmp_path / "pet.nii.gz", pet.array, pet.affine)
    write_volume(tmp_path / "label.nii.gz", label.array, label.affine)
    body = study.pet.body()
    first = study_readouts(label.array, pet.array, pet.affine, body=body)
    label, pet = (read_volume(tmp_path / f"{name}.nii.gz")[0] for name in ("label", "pet"))
    second = study_readouts(label.array, pet.array, pet.affine, body=body)
    # NIfTI keeps the affine in float32.
    assert second["study"] == pytest.approx(first["study"], rel=1e-5)
    assert second["lesions"] == [pytest.approx(lesion, rel=1e-5, abs=1e-3) for lesion in first["lesions"]]
    assert first["study"]["tmtv_ml"] >= first["study"]["tmtv_41pct_ml"] > 0


@needs_shared(SARCOMA)
@pytest.mark.parametrize("patient", ["STS001", "STS002", "STS003"])
def test_read_outs_of_a_real_study_equal_their_formulas(patient):
    case = f"fdg_{patient}_pre-treatment"
    label = nib.load(SARCOMA / f"labelsTr/{case}.nii.gz")
    pet = nib.load(SARCOMA / f"imagesTr/{case}_0001.nii.gz").get_fdata(dtype=np.float32)
    mask, millilitres = np.asarray(label.dataobj) > 0.5, abs(np.linalg.det(label.affine[:3, :3])) / 1000
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
    of_lesions = [pet[labels == number].astype(float) for number in range(1, count + 1)]
    centroids = np.array(ndimage.center_of_mass(mask, labels, range(1, count + 1))) @ label.affine[:3, :3].T
    expected = {
        "lesions": count,
        "tmtv_ml": mask.sum() * millilitres,
        "tlg_g": pet[mask].sum(dtype=float) * millilitres,
        "tmtv_suv4_ml": (pet[mask] >= 4).sum() * millilitres,
        "tmtv_41pct_ml": sum((suv >= 0.41 * suv.max()).sum() for suv in of_lesions) * millilitres,
        "suv_max": max(suv.max() for suv in of_lesions),
        "suv_mean": pet[mask].mean(dtype=float),
    }
    if count > 1:
        expected["dmax_mm"] = max(math.dist(*pair) for pair in itertools.combinations(centroids, 2))
    found = study_readouts(mask, pet, label.affine)["study"]
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert found["suv_mean"] < found["suv_peak"] < found["suv_max"]


@pytest.mark.parametrize("shape", ["box", "ball", "line", "one place"])
def test_dmax_of_many_lesions_equals_comparing_all_with_all(shape):
    points = np.random.default_rng(4).uniform(-1, 1, (300, 3)) * (200, 100, 400)
    if shape == "ball":
        points = 100 * points / np.linalg.norm(points, axis=1, keepdims=True)
    points = {"line": points * (1, 0, 0), "one place": points * 0 + 7}.get(shape, points)
    expected = max(math.dist(first, second) for first, second in itertools.combinations(points, 2))
    assert largest_distance(points) == pytest.approx(expected, rel=1e-12)


def test_lesions_add_up_to_the_study_and_the_largest_comes_first():
    generator = np.random.default_rng(0)
    mask, pet = generator.random((25, 25, 25)) < 0.05, generator.gamma(2, 2, (25, 25, 25))
    found = study_readouts(mask, pet, LAS, uncertainty=np.full(mask.shape, 0.25))
    study, lesions = found["study"], found["lesions"]
    assert sum(lesion["volume_ml"] for lesion in lesions) == pytest.approx(study["tmtv_ml"])
    assert sum(lesion["tlg_g"] for lesion in lesions) == pytest.approx(study["tlg_g"])
    assert study["tlg_g"] == pytest.approx(pet[mask].sum() * 0.015)
    assert max(lesion["suv_max"] for lesion in lesions) == study["suv_max"] == pet[mask].max()
    volumes = [lesion["volume_ml"] for lesion in lesions]
    assert volumes == sorted(volumes, reverse=True)
    assert {lesion["uncertainty_mean"] for lesion in lesions} == {0.25}


def test_values_do_not_depend_on_how_many_voxels_are_worked_on_at_once(monkeypatch):
    generator = np.random.default_rng(2)
    mask, pet, spread = generator.random((12, 14, 16)) < 0.1, generator.gamma(2, 2, (12, 14, 16)), generator.random((12, 14, 16))
    whole = study_readouts(mask, pet, LAS, spread)
    monkeypatch.setattr(petct_cascade.readouts, "VOXELS_AT_ONCE", 7)
    parts = study_readouts(mask, pet, LAS, spread)
    assert parts["study"] == pytest.approx(whole["study"])
    assert parts["lesions"] == [pytest.approx(lesion) for lesion in whole["lesions"]]


def test_values_do_not_depend_on_how_the_array_is_stored():
    generator = np.random.default_rng(5)
    mask, pet = generator.random((12, 14, 16)) < 0.02, generator.random((12, 14, 16)).astype(np.float32)
    image, mask_image = nib.Nifti1Image(pet, LAS), nib.Nifti1Image(mask.astype(np.uint8), LAS)
    first = study_readouts(mask, pet, LAS)
    turn = nib.orientations.ornt_transform(nib.io_orientation(LAS), nib.orientations.axcodes2ornt("SPR"))
    image, mask_image = image.as_reoriented(turn), mask_image.as_reoriented(turn)
    second = study_readouts(np.asarray(mask_image.dataobj), np.asarray(image.dataobj), image.affine)
    assert second["study"] == pytest.approx(first["study"])
    ordered = [sorted(tuple(lesion[name] for name in LESION_COLUMNS[1:]) for lesion in r["lesions"]) for r in (first, second)]
    np.testing.assert_allclose(*ordered, rtol=1e-9)


def test_study_without_lesions_has_no_volume_and_no_uptake():
    found = study_readouts(np.zeros((4, 4, 4)), np.ones((4, 4, 4)), LAS)
    assert tuple(found["study"]) == STUDY_COLUMNS
    assert found["lesions"] == []
    zero = {name for name in STUDY_COLUMNS if name.startswith(("tmtv", "tlg", "lesions"))}
    assert {name: found["study"][name] for name in zero} == dict.fromkeys(zero, 0)
    assert all(math.isnan(found["study"][name]) for name in set(STUDY_COLUMNS) - zero)


def test_different_grids_are_refused():
    with pytest.raises(InputError, match="one grid"):
        study_readouts(np.ones((2, 2, 2)), np.ones((2, 2, 3)), LAS)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mask": 0.3}, "^the mask holds the values 0, 0.3: a mask is 0, and 1 inside of lesions$"),
        ({"pet": np.nan}, "^the PET holds voxels without a number"),
        ({"pet": np.inf}, "^the PET holds voxels without a number"),
        ({"pet": 1j}, "^the PET holds values of the type complex128: give one real number a voxel$"),
        ({"uncertainty": np.nan}, "^the uncertainty holds voxels without a number"),
        ({"affine": np.diag([0.002, 0.002, 0.003, 1])}, r"^the mask has a voxel spacing of .* that is not in mm"),
        ({"affine": np.array([[2, 1, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])}, "^the mask has axes .*sheared"),
    ],
)
def test_arrays_without_sense_are_refused_and_named(changed, sentence):
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[3:6, 3:6, 3:6] = 1
    whole = {"mask": mask, "pet": mask * 5.0, "affine": LAS, "uncertainty": mask * 0.1}
    ((name, value),) = changed.items()
    given = {name: value if np.ndim(value) else np.where(mask, value, 0)}
    assert study_readouts(**whole)["study"]["suv_max"] == 5
    with pytest.raises(InputError, match=sentence):
        study_readouts(**whole | given)


def test_one_voxel_without_a_number_beside_a_lesion_is_found_and_one_far_away_changes_nothing():
    mask = np.zeros((40, 9, 9), np.uint8)
    mask[3:6, 3:6, 3:6] = 1
    pet = mask * 5.0 + 1
    expected = study_readouts(mask, pet, LAS)
    pet[39, 8, 8] = np.nan
    assert str(study_readouts(mask, pet, LAS)) == str(expected)
    pet[6, 4, 4] = np.nan
    with pytest.raises(InputError, match="in or around lesions"):
        study_readouts(mask, pet, LAS)


def test_files_hold_every_value_and_nothing_instead_of_nan(tmp_path):
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2, 2, 2] = mask[6, 6, 6] = 1
    readouts = {"b  c.d": study_readouts(mask, mask * 3.0, LAS), "a": study_readouts(mask * 0, mask * 1.0, LAS)}
    write_readouts(tmp_path, readouts)
    content = json.loads((tmp_path / "readouts.json").read_text())
    assert content["a"]["study"]["suv_max"] is None
    assert content["b  c.d"]["study"] == pytest.approx(readouts["b  c.d"]["study"])
    with open(tmp_path / "readouts_studies.csv", newline="") as file:
        studies = list(csv.DictReader(file))
    assert [row["case"] for row in studies] == ["a", "b  c.d"]
    assert studies[0]["dmax_mm"] == ""
    with open(tmp_path / "readouts_lesions.csv", newline="") as file:
        lesions = list(csv.DictReader(file))
    assert [float(row["volume_ml"]) for row in lesions] == pytest.approx([0.015, 0.015])


def test_readouts_equal_the_table_of_the_phantoms_lesions(tmp_path):
    write_phantoms(tmp_path, num_patients=3, shrink=2)
    with open(tmp_path / "lesions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    large = 0
    for case in {row["case"] for row in table}:
        image = nib.load(tmp_path / f"labelsTr/{case}.nii.gz")
        label, spacing = np.asarray(image.dataobj) == 1, np.array(image.header.get_zooms(), float)
        pet = nib.load(tmp_path / f"imagesTr/{case}_0001.nii.gz").get_fdata(dtype=np.float32)
        rows = [
            {name: float(row[name]) for name in row if name.endswith(("_mm", "_ml", "suv"))}
            for row in table
            if row["case"] == case
        ]
        centres, radii = (np.array([[row[f"{name}{axis}_mm"] for axis in "xyz"] for row in rows]) for name in ("", "radius_"))
        volumes, suv = np.array([row["volume_ml"] for row in rows]), np.array([row["suv"] for row in rows])
        # Without blur and noise each labelled voxel has the uptake of the ellipsoid in which it lies.
        places = np.argwhere(label) @ image.affine[:3, :3].T + image.affine[:3, 3]
        ideal = np.zeros(label.shape)
        ideal[label] = suv[np.argmin([(((places - c) / r) ** 2).sum(1) for c, r in zip(centres, radii, strict=True)], axis=0)]
        measured, found = study_readouts(label, pet, image.affine), study_readouts(label, ideal, image.affine)

        # The labelled voxels cover the ellipsoid less, and lie in the ellipsoid plus, half a voxel; measured in its radii, half
        # a voxel is at most `part` long.
        part = np.linalg.norm(spacing / 2 / radii, axis=1)
        low, high = volumes * np.maximum(0, 1 - part) ** 3, volumes * (1 + part) ** 3
        centroids = np.array([[lesion[f"centroid_{axis}_mm"] for axis in "xyz"] for lesion in found["lesions"]])
        assert len(found["lesions"]) == len(rows)
        for number, row in enumerate(rows):
            nearest = int(np.argmin(np.linalg.norm(centroids - centres[number], axis=1)))
            lesion = found["lesions"][nearest]
            # All chords of the ellipsoid along an axis have its centre in their middle, and the middle of the voxel centres on a
            # chord is less than half a voxel away from the chord's.
            assert (abs(centroids[nearest] - centres[number]) <= spacing / 2 + 1e-3).all()
            assert low[number] <= lesion["volume_ml"] <= high[number]
            assert lesion["suv_max"] == pytest.approx(row["suv"])
            assert lesion["suv_mean"] == pytest.approx(row["suv"])
            assert lesion["tlg_g"] == pytest.approx(row["suv"] * lesion["volume_ml"])
            if radii[number].min() > PEAK_RADIUS_MM + np.linalg.norm(spacing):
                # Wherever voxel and ellipsoid lie, one voxel's sphere is inside of the lesion.
                assert lesion["suv_peak"] == pytest.approx(row["suv"])
            if radii[number].min() > PEAK_RADIUS_MM + 7:  # the sphere lies inside, away from the blurred rim
                large += 1
                assert measured["lesions"][nearest]["suv_peak"] == pytest.approx(row["suv"], rel=0.1)
        study = found["study"]
        assert study["lesions"] == len(rows)
        assert low.sum() <= study["tmtv_ml"] <= high.sum()
        assert (suv * low).sum() <= study["tlg_g"] <= (suv * high).sum()
        assert study["suv_max"] == pytest.approx(suv.max())
        dmax = max(math.dist(first, second) for first in centres for second in centres)
        # Either centroid is off by half a voxel at most.
        assert abs(study["dmax_mm"] - dmax) <= np.linalg.norm(spacing)
    assert large


@pytest.mark.parametrize("seed", range(5))
def test_lesions_of_a_reference_are_those_that_are_scored_and_found_ones_are_those_that_the_prediction_overlaps(
    seed, monkeypatch
):
    monkeypatch.setattr(petct_cascade.readouts, "VOXELS_AT_ONCE", 50)
    chance = np.random.default_rng(seed)
    reference, prediction = (ndimage.binary_dilation(chance.random((20, 18, 16)) < share) for share in (0.006, 0.02))
    pet = chance.uniform(0, 20, reference.shape).astype(np.float32)
    rows = reference_lesions(reference.astype(np.uint8), prediction.astype(np.uint8), pet, LAS)
    labels, count = ndimage.label(reference, ndimage.generate_binary_structure(3, 2))
    voxel_ml = 2.0 * 2.5 * 3.0 / 1000
    truth = [
        (
            int((labels == number).sum()) * voxel_ml,
            bool(prediction[labels == number].any()),
            float(pet[labels == number].max()),
            *nib.affines.apply_affine(LAS, ndimage.center_of_mass(labels == number)),
        )
        for number in range(1, count + 1)
    ]
    names = ("volume_ml", "found", "suv_max", "centroid_x_mm", "centroid_y_mm", "centroid_z_mm")
    assert np.array(sorted(tuple(row[name] for name in names) for row in rows)) == pytest.approx(np.array(sorted(truth)))
    assert [row["lesion"] for row in rows] == list(range(1, count + 1))
    assert [row["volume_ml"] for row in rows] == sorted((row["volume_ml"] for row in rows), reverse=True)
    scores = case_metrics(prediction, reference, (2.0, 2.5, 3.0))
    assert 0 < sum(row["found"] for row in rows) == scores["lesions_found"] < scores["lesions_reference"] == count
    assert sum(row["volume_ml"] for row in rows if not row["found"]) == pytest.approx(scores["fnv_ml"])
    assert all(row.keys() == REFERENCE_DEFINITIONS.keys() for row in rows)
    assert reference_lesions(np.zeros_like(reference), prediction, pet, LAS) == []


def test_readme_defines_every_column():
    text = (BUNDLES / ENSEMBLE / "docs/README.md").read_text(encoding="utf-8")
    missing = {name for name in (*STUDY_DEFINITIONS, *LESION_DEFINITIONS) if f"`{name}`" not in text}
    assert missing <= {"lesion", "centroid_y_mm", "centroid_z_mm"}
