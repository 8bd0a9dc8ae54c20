"""What the phantoms promise: the same bytes for a seed, lesions known exactly, physiology that cannot be thresholded away."""

from __future__ import annotations

import copy
import csv
import dataclasses
import datetime
import filecmp
import inspect
import itertools
import json
import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import cc3d
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from petct_cascade.commands import write_phantoms
from petct_cascade.phantom import plan_studies, render, rendering, writing
from petct_cascade.phantom.difficulty import DIFFICULTIES
from petct_cascade.phantom.scanners import SCANNERS
from petct_cascade.phantom.solids import Ellipsoid, Outline, Tube

PARAMETERS = {"num_patients": 12, "seed": 0, "shrink": 4}
# Matrix and voxel size (mm) of the challenge's scanners.
CHALLENGE_GRIDS = {
    (400, (2.036, 2.036, 3.0)): "fdg",
    (200, (4.073, 4.073, 2.0)): "psma",
    (256, (2.734, 2.734, 3.27)): "psma",
    (168, (4.073, 4.073, 5.0)): "psma",
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, **PARAMETERS)
    return folder


@pytest.fixture(scope="module")
def lesions(studies) -> dict[str, list[dict]]:
    """The rows of lesions.csv by case, figures as numbers."""
    table = defaultdict(list)
    with open(studies / "lesions.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            table[row["case"]].append(
                {key: float(value) if key.endswith(("_mm", "_ml", "suv")) else value for key, value in row.items()}
            )
    return table


def cases_of(studies: Path) -> list[str]:
    return sorted(file.name.removesuffix(".nii.gz") for file in (studies / "labelsTr").iterdir())


def load(studies: Path, case: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image, nib.Nifti1Image]:
    ct, pet = (nib.load(studies / "imagesTr" / f"{case}_{channel}.nii.gz") for channel in ("0000", "0001"))
    return ct, pet, nib.load(studies / "labelsTr" / f"{case}.nii.gz")


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def assert_same_bytes(first: Path, second: Path) -> None:
    assert files_of(first) == files_of(second)
    for name in files_of(first):
        assert filecmp.cmp(first / name, second / name, shallow=False), name


def centre_of(lesion: dict) -> np.ndarray:
    return np.array([lesion[f"{axis}_mm"] for axis in "xyz"])


def radii_of(lesion: dict) -> np.ndarray:
    return np.array([lesion[f"radius_{axis}_mm"] for axis in "xyz"])


def component_of(lesion: dict, components: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxels (n, 3) of the component that holds the lesion's centre, or the voxel next to it."""
    at = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), centre_of(lesion))).astype(int)
    number = components[tuple(at)]
    assert number, lesion
    return np.argwhere(components == number)


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(studies, tmp_path):
    write_phantoms(tmp_path, **PARAMETERS, num_workers=1)
    assert_same_bytes(studies, tmp_path)


def test_another_seed_gives_other_patients():
    names = [{study.case for study in plan_studies(4, seed, 4)} for seed in (0, 1)]
    assert not names[0] & names[1]


def test_images_lie_on_one_grid_stored_las(studies):
    for case in cases_of(studies):
        images = load(studies, case)
        assert {image.shape for image in images} == {images[0].shape}
        for image in images:
            assert nib.aff2axcodes(image.affine) == ("L", "A", "S")
            np.testing.assert_array_equal(image.affine, images[0].affine)


@pytest.mark.parametrize("shrink", [1, 4])
def test_all_four_grids_of_the_challenge_appear(shrink):
    found = set()
    for study in plan_studies(PARAMETERS["num_patients"], 0, shrink):
        grid = study.patient.grid
        (name,) = (
            (matrix, spacing)
            for matrix, spacing in CHALLENGE_GRIDS
            if grid.shape[0] == grid.shape[1] == round(matrix / shrink) and np.allclose(grid.spacing, shrink * np.array(spacing))
        )
        assert study.case.startswith(CHALLENGE_GRIDS[name] + "_")
        found.add(name)
    assert found == set(CHALLENGE_GRIDS)


def test_full_size_fdg_study_has_the_median_size_of_the_challenge():
    assert plan_studies(1, 0, 1)[0].patient.grid.shape == (400, 400, 326)


def test_two_of_three_studies_are_fdg():
    tracers = Counter(study.case.split("_")[0] for study in plan_studies(60, 0, 4))
    # 1014 of the challenge's 1611 studies; a patient's second and third study may overshoot by two.
    assert tracers["fdg"] / tracers.total() == pytest.approx(1014 / 1611, abs=0.03)


def test_some_studies_of_either_tracer_are_healthy(studies, lesions):
    plan = plan_studies(30, 0, 4)
    healthy = [study.case for study in plan if not study.lesions]
    assert {case.split("_")[0] for case in healthy} == {"fdg", "psma"}
    assert 0.1 < len(healthy) / len(plan) < 0.3
    for case in cases_of(studies):
        assert load(studies, case)[2].get_fdata().any() == bool(lesions[case])


def test_repeated_studies_show_the_same_anatomy_and_changed_lesions(studies, lesions):
    patients = defaultdict(list)
    for case in cases_of(studies):
        patients[case.split("_")[1]].append(case)
    repeated = [cases for cases in patients.values() if len(cases) > 1]
    assert {cases[0].split("_")[0] for cases in repeated} == {"fdg", "psma"}
    assert max(map(len, repeated)) <= 3
    for cases in repeated:
        bodies = [np.asarray(load(studies, case)[0].dataobj) > -300 for case in cases]
        assert np.mean(bodies[0] != bodies[1]) < 0.01
        volumes = [{lesion["volume_ml"] for lesion in lesions[case]} for case in cases]
        assert volumes[0] != volumes[1]
        # The first visit's lesions are all still there, where they were.
        ordered = sorted(cases, key=visit_date)
        centres = [{tuple(centre_of(lesion)) for lesion in lesions[case]} for case in ordered]
        assert all(earlier <= later for earlier, later in itertools.pairwise(centres))


def visit_date(case: str) -> datetime.date:
    tracer, _, date = case.split("_")
    return datetime.datetime.strptime(date[:10], "%m-%d-%Y" if tracer == "fdg" else "%Y-%m-%d").date()


def test_names_are_as_awkward_as_the_challenges():
    cases = [study.case for study in plan_studies(30, 0, 4)]
    assert len(set(cases)) == len(cases)
    assert any("  " in case for case in cases)
    assert any("." in case for case in cases)
    for case in cases:
        tracer, patient, rest = case.split("_")
        assert (tracer, len(patient)) in {("fdg", 10), ("psma", 16)}
        int(patient, 16)
        assert visit_date(case).year >= 2014
        assert (tracer == "fdg") == ("KM" in rest)


def test_table_gives_the_volume_of_the_ellipsoid(lesions):
    for lesion in (row for rows in lesions.values() for row in rows):
        volume = 4 / 3 * math.pi * radii_of(lesion).prod() / 1000
        # Radii and volume are rounded to four decimals.
        rounding = 5e-5 * (1 + volume * (1 / radii_of(lesion)).sum())
        assert lesion["volume_ml"] == pytest.approx(volume, rel=0, abs=rounding)


def test_every_lesion_is_one_component_of_the_label(studies, lesions):
    for case in cases_of(studies):
        label = load(studies, case)[2]
        components = cc3d.connected_components(np.asarray(label.dataobj), connectivity=18)
        assert components.max() == len(lesions[case])
        for lesion in lesions[case]:
            component_of(lesion, components, label.affine)


def test_labels_volume_lies_within_the_discretisation_bound(studies, lesions):
    ratios = []
    for case in cases_of(studies):
        label = load(studies, case)[2]
        components = cc3d.connected_components(np.asarray(label.dataobj), connectivity=18)
        spacing = np.array(label.header.get_zooms())
        voxel = spacing.prod() / 1000
        for lesion in lesions[case]:
            volume = len(component_of(lesion, components, label.affine)) * voxel
            # A voxel that is cut by the surface lies wholly within a voxel's half diagonal of it, hence between the ellipsoids
            # scaled by 1 -+ half diagonal / smallest half-axis.
            relative = np.linalg.norm(spacing) / 2 / radii_of(lesion).min()
            assert lesion["volume_ml"] * max(0, 1 - relative) ** 3 <= volume
            assert volume <= max(voxel, lesion["volume_ml"] * (1 + relative) ** 3)
            ratios.append((volume, lesion["volume_ml"]))
    # The voxel count is unbiased: over all lesions the errors cancel.
    assert np.sum(ratios, axis=0)[0] == pytest.approx(np.sum(ratios, axis=0)[1], rel=0.05)


def test_labels_centroid_lies_within_a_voxel_of_the_centre(studies, lesions):
    for case in cases_of(studies):
        label = load(studies, case)[2]
        components = cc3d.connected_components(np.asarray(label.dataobj), connectivity=18)
        for lesion in lesions[case]:
            centroid = nib.affines.apply_affine(label.affine, component_of(lesion, components, label.affine).mean(0))
            assert (np.abs(centroid - centre_of(lesion)) <= label.header.get_zooms()).all()


def test_a_lesion_smaller_than_a_voxel_is_still_labelled():
    study = plan_studies(1, 0, 10)[0]
    lesion = dataclasses.replace(study.lesions[0], radii=np.full(3, 0.01))
    label = render(dataclasses.replace(study, lesions=[lesion]))[2]
    assert label.sum() == 1


def test_no_threshold_separates_lesions_from_physiology(studies):
    """Even the best threshold, chosen for the study with its label known, fails in the middle study of either tracer."""
    best = defaultdict(list)
    for case in cases_of(studies):
        _, pet, label = load(studies, case)
        pet, label = np.asarray(pet.dataobj), np.asarray(label.dataobj) > 0
        if label.any():
            scores = []
            for threshold in np.unique(np.quantile(pet[label], np.linspace(0, 1, 21))):
                mask = pet >= threshold
                scores.append(2 * (mask & label).sum() / (mask.sum() + label.sum()))
            best[case.split("_")[0]].append(max(scores))
            # Some healthy voxels take up more than the median of the lesions.
            assert pet[~label].max() > np.median(pet[label])
    for tracer, scores in best.items():
        assert np.median(scores) < 0.5, (tracer, scores)


def best_of_thresholds(study) -> float:
    """The highest Dice that any threshold of a study's PET reaches."""
    _, pet, label = render(study)
    label = label > 0
    scores = [2 * (mask & label).sum() / (mask.sum() + label.sum()) for mask in (pet >= suv for suv in np.geomspace(1, 60, 40))]
    return max(scores)


def test_hard_lesions_are_smaller_fainter_nearer_to_organs_and_worse_to_tell_by_uptake():
    plain, hard = ([study for study in plan_studies(12, 0, 4, DIFFICULTIES[name]) if study.lesions] for name in ("plain", "hard"))
    of_plain, of_hard = ([lesion for study in plan for lesion in study.lesions] for plan in (plain, hard))
    assert min(lesion.volume for lesion in of_plain) > 4 / 3 * math.pi * (0.75 / 1.25) ** 2 * 6**3 / 1000 > 0.3
    assert min(lesion.volume for lesion in of_hard) < 0.3
    for study in (*plain, *hard):
        faintest = 4.0 if study.case.startswith("fdg") else 6.0
        lowest = faintest * (0.6 if study in hard else 1)
        assert all(lesion.suv >= lowest for lesion in study.lesions)
    assert any(lesion.suv < 4.0 for study in hard if study.case.startswith("fdg") for lesion in study.lesions)
    assert np.median([best_of_thresholds(study) for study in hard]) < np.median([best_of_thresholds(study) for study in plain])


def test_other_scanners_are_none_of_the_challenges():
    studies = plan_studies(8, 0, 1, scanners=SCANNERS["other"])
    grids = {(study.patient.grid.shape, study.patient.grid.spacing) for study in studies}
    assert len(grids) == 4
    assert not grids & {(scanner.matrix, scanner.spacing) for scanner in SCANNERS["challenge"].values()}
    known = {scanner.spacing for scanner in SCANNERS["challenge"].values()}
    assert not known & {spacing for _, spacing in grids}
    for study in studies:
        # All of them see the whole body across.
        assert study.patient.grid.shape[0] * study.patient.grid.spacing[0] > 500


def test_lesions_stand_out_from_their_surroundings(studies, lesions):
    contrasts = []
    for case in cases_of(studies):
        _, pet, label = load(studies, case)
        pet, mask = np.asarray(pet.dataobj), np.asarray(label.dataobj) > 0
        axes = [
            step * np.arange(n) + start
            for step, start, n in zip(np.diag(label.affine), label.affine[:3, 3], pet.shape, strict=False)
        ]
        for lesion in lesions[case]:
            offsets = [axis - centre for axis, centre in zip(axes, centre_of(lesion), strict=True)]
            near = np.ix_(*(np.abs(offset) <= radius + 20 for offset, radius in zip(offsets, radii_of(lesion), strict=True)))
            # Along every axis, the offset from the centre in half-axes.
            x, y, z = (offset[at.ravel()] / radius for offset, at, radius in zip(offsets, near, radii_of(lesion), strict=True))
            inside = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= 1
            if inside.any():
                contrasts.append(pet[near][inside].max() / np.median(pet[near][~mask[near]]))
    assert np.quantile(contrasts, 0.1) > 1.5
    assert np.median(contrasts) > 3


def test_noise_of_the_pet_tells_nothing_about_that_of_the_ct():
    study = plan_studies(1, 0, 4)[0]
    # Two renderings that differ in their noise alone, so that their difference holds nothing else.
    (ct, pet, _), (other_ct, other_pet, _) = render(study), render(dataclasses.replace(study, key=(0, 0, 1)))
    body = ndimage.binary_erosion((ct > -200) & (other_ct > -200) & (pet > 0.3) & (other_pet > 0.3), iterations=2)
    difference = ct.astype(np.float32) - other_ct
    for sigma in (0, 0.5, 1):  # as it is, and blurred as a PET's noise is
        blurred = ndimage.gaussian_filter(difference, sigma)[body]
        correlation = np.corrcoef(blurred, ((pet - other_pet) / np.sqrt(pet + 0.01))[body])[0, 1]
        # Blurred noise has fewer independent values than voxels, one in ten at the least: five standard errors.
        assert abs(correlation) < 5 / math.sqrt(body.sum() / 10)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("scanners", SCANNERS)
def test_every_lesion_takes_up_more_than_what_it_replaces(difficulty, scanners):
    for study in plan_studies(12, 0, 3, DIFFICULTIES[difficulty], SCANNERS[scanners]):
        healthy = copy.copy(study.patient)
        healthy.difficulty = dataclasses.replace(healthy.difficulty, noise=0)
        healthy.scanner = healthy.scanner._replace(resolution=0.1)  # no blur to speak of
        background = render(dataclasses.replace(study, patient=healthy, lesions=[]))[1]
        for lesion in study.lesions:
            label = rendering._paint_label([lesion], study.patient.grid)
            assert lesion.suv >= 1.49 * np.median(background[label > 0]), (study.case, lesion)


def test_ct_and_pet_have_the_units_of_the_challenge(studies):
    for case in cases_of(studies):
        ct, pet, _ = (np.asarray(image.dataobj) for image in load(studies, case))
        assert ct.min() == ct[0, 0, 0] == -1024
        assert 500 < ct.max() < 3000
        assert pet.min() >= 0
        # Air takes up nothing, so that the body can be cropped by its uptake.
        assert pet[:2].max() < 0.3 < np.median(pet[(ct > 30) & (ct < 80)])


def test_a_second_run_writes_no_image_again(studies, monkeypatch):
    monkeypatch.setattr(writing, "render", lambda study: pytest.fail(f"{study.case} was painted again"))
    write_phantoms(studies, **PARAMETERS)


def test_a_killed_run_is_completed_to_the_same_bytes(studies, tmp_path, monkeypatch):
    parameters = PARAMETERS | {"num_patients": 3, "shrink": 8}
    write_phantoms(tmp_path / "whole", **parameters)
    save, saved = writing.write_volume, []

    def killed(path, image, affine):
        if len(saved) == 4:
            (path.parent / ".part-0").mkdir()
            (path.parent / ".part-0/a.nii.gz").write_bytes(b"half an image")
            raise KeyboardInterrupt
        saved.append(path)
        save(path, image, affine)

    monkeypatch.setattr(writing, "write_volume", killed)
    with pytest.raises(SystemExit, match=r"^130$"):
        write_phantoms(tmp_path / "killed", **parameters, num_workers=1)
    monkeypatch.undo()
    assert files_of(tmp_path / "killed") < files_of(tmp_path / "whole") | {"imagesTr/.part-0/a.nii.gz"}
    write_phantoms(tmp_path / "killed", **parameters)
    assert_same_bytes(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, "made with"),
        ({"num_patients": 0}, "num_patients"),
        ({"shrink": 0.5}, "shrink"),
        ({"num_workers": "many"}, "num_workers"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_sentence(studies, change, sentence):
    before = files_of(studies)
    with pytest.raises(SystemExit, match=rf"error: .*{sentence}"):
        write_phantoms(studies, **(PARAMETERS | change))
    assert files_of(studies) == before


def test_phantoms_of_another_version_are_not_mixed_with_todays(tmp_path):
    parameters = PARAMETERS | {"num_patients": 1, "shrink": 10}
    write_phantoms(tmp_path, **parameters)
    record = tmp_path / "phantoms.json"
    # Those of the first version do not say it.
    record.write_text(json.dumps({key: value for key, value in json.loads(record.read_text()).items() if key != "version"}))
    with pytest.raises(SystemExit, match=r"'version': 1.*'version': 2.*another folder"):
        write_phantoms(tmp_path, **parameters)


def test_other_data_are_not_overwritten(tmp_path):
    (tmp_path / "labelsTr").mkdir()
    with pytest.raises(SystemExit, match="not phantoms"):
        write_phantoms(tmp_path, **PARAMETERS)
    assert not files_of(tmp_path)


@pytest.mark.parametrize("name", ["lesions.csv", "phantoms.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'{"name": "my phantoms"}', b"case,lesion\n", b"\xff\xfe"])
def test_files_of_the_users_own_with_the_names_of_phantoms_are_not_overwritten(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=rf"^error: .*{re.escape(name)}.* name another folder\.$") as end:
        write_phantoms(tmp_path, **PARAMETERS)
    assert "\n" not in str(end.value)
    assert files_of(tmp_path) == {name}
    assert (tmp_path / name).read_bytes() == content


def test_table_of_lesions_that_the_user_has_changed_is_not_replaced(tmp_path):
    parameters = PARAMETERS | {"num_patients": 1, "shrink": 10}
    write_phantoms(tmp_path, **parameters)
    table = (tmp_path / "lesions.csv").read_bytes()
    (tmp_path / "lesions.csv").write_bytes(table + b"a note\n")
    with pytest.raises(SystemExit, match=r"lesions\.csv was changed after this program had written it, and is not replaced"):
        write_phantoms(tmp_path, **parameters)
    assert (tmp_path / "lesions.csv").read_bytes() == table + b"a note\n"
    (tmp_path / "lesions.csv").unlink()
    write_phantoms(tmp_path, **parameters)
    assert (tmp_path / "lesions.csv").read_bytes() == table


def test_config_names_the_defaults_of_the_function():
    config = json.loads((Path(writing.__file__).parents[2] / "configs" / "phantom.json").read_text())
    parameters = inspect.signature(write_phantoms).parameters
    assert set(parameters) == set(config["run"]) - {"_target_"}
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            assert config[name] == parameter.default


# ---------------------------------------------------------------- parts

# Points (n, 3) in mm around the origin, some inside and some outside of the solids below.
POINTS = np.random.default_rng(0).uniform(-30, 30, (500, 3))


def test_distance_from_a_sphere_is_that_from_its_centre_less_the_radius():
    centre = np.array([3.0, -2.0, 5.0])
    sphere = Ellipsoid(centre, np.full(3, 12.0), angle=(20, 30, 40))
    expected = np.linalg.norm(POINTS - centre, axis=1) - 12
    np.testing.assert_allclose(sphere.distance(*POINTS.T), expected, atol=1e-9)


def test_turned_ellipsoid_contains_its_turned_axes():
    ellipsoid = Ellipsoid(np.zeros(3), np.array([20.0, 10.0, 5.0]), angle=(0, 0, 90))
    # A quarter turn about z brings the x axis to y, and y to -x.
    tips = np.array([(0, 20, 0), (-10, 0, 0), (0, 0, 5)], float)
    np.testing.assert_allclose(ellipsoid.distance(*tips.T), 0, atol=1e-9)


def test_distance_from_a_tube_is_that_from_its_line_less_the_radius():
    tube = Tube(np.array([(0.0, 0, -15), (0, 0, 15)]), np.array([4.0, 4.0]))
    beyond = np.maximum(np.abs(POINTS[:, 2]) - 15, 0)
    expected = np.sqrt(POINTS[:, 0] ** 2 + POINTS[:, 1] ** 2 + beyond**2) - 4
    np.testing.assert_allclose(tube.distance(*POINTS.T), expected, atol=1e-9)


def test_outline_of_circles_is_a_cylinder():
    outline = Outline(np.array([(20.0, 10, 10, 3), (-20.0, 10, 10, 3)]), power=2)
    radial = np.hypot(POINTS[:, 0], POINTS[:, 1] - 3) - 10
    expected = np.maximum(radial, np.abs(POINTS[:, 2]) - 20)
    np.testing.assert_allclose(outline.distance(*POINTS.T), expected, atol=1e-5)


@pytest.mark.parametrize(
    "solid",
    [
        Ellipsoid(np.array([1.0, 2, 3]), np.array([15.0, 8, 4]), (30, 40, 50), power=2.5),
        Tube(np.array([(-10.0, 0, 0), (0, 10, 0), (10, 0, 5)]), np.array([3.0, 5, 2])),
        Outline(np.array([(20.0, 10, 8, 3), (-20.0, 15, 12, -3)])),
    ],
)
def test_bounds_hold_all_of_a_solid(solid):
    inside = POINTS[solid.distance(*POINTS.T) < 0]
    low, high = solid.bounds()
    assert len(inside)
    assert ((inside >= low) & (inside <= high)).all()


def test_painted_sphere_has_the_uptake_of_its_volume():
    axes = rendering.Axes(*(np.arange(-20, 20, 1.5, dtype=np.float32) for _ in range(3)))
    sphere = rendering.PaintedSolid(Ellipsoid(np.array([0.3, -0.4, 0.2]), np.full(3, 12.0)), hu=50.0, suv=4.0)
    _, pet = rendering._paint_solids([sphere], axes)
    assert pet.sum() * 1.5**3 == pytest.approx(4 * 4 / 3 * math.pi * 12**3, rel=0.01)


def test_blur_of_a_point_has_the_resolution_of_the_scanner():
    spacing, resolution = (4.0, 2.0, 1.0), 6.0
    image = np.zeros((31, 31, 41), np.float32)
    image[15, 15, 20] = 1
    kernels = [rendering._gaussian(resolution / rendering.FWHM_PER_SIGMA / size) for size in spacing]
    blurred = rendering._blur(image, kernels)
    assert blurred.sum() == pytest.approx(1, rel=1e-5)
    for axis, size in enumerate(spacing):
        profile = blurred.sum(axis=tuple({0, 1, 2} - {axis}))
        place = (np.arange(len(profile)) - len(profile) // 2) * size
        variance = (profile * place**2).sum()
        # A voxel's width adds its own variance; three sigma hold all but a 37th of a Gaussian's.
        assert variance == pytest.approx((resolution / 2.3548) ** 2 + size**2 / 12, rel=0.05)
