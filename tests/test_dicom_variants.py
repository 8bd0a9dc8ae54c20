"""Promises to those who have DICOM from any scanner: the SUV, the HU and the places that the tests' own writer has put there."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_writer import VARIANTS, small_study, write_study

from petct_cascade.dicom.finding import find_in_folder
from petct_cascade.volumes import read_volume
from petct_training.errors import InputError

STUDY = small_study()
READ = [name for name, variant in VARIANTS.items() if not variant.refusal]
REFUSED = [name for name, variant in VARIANTS.items() if variant.refusal]
# Of 16-bit integers with a slope, a share of the value; of the HU of a tilted CT, whose slices are interpolated.
RELATIVE = 1e-4


def on_grid(ct: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray) -> np.ndarray:
    """Values (X, Y, Z) of a CT at another grid's voxels, interpolated linearly; NaN where it does not reach."""
    from scipy.ndimage import map_coordinates

    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    matrix = np.linalg.inv(affine) @ target
    places = matrix[:3, :3] @ voxels + matrix[:3, 3:]
    return map_coordinates(ct.astype(float), places, order=1, cval=np.nan).reshape(shape)


@pytest.mark.parametrize("name", READ)
def test_study_of_any_scanner_gives_its_suv_its_hu_and_its_place(name, tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS[name])
    studies, problems = find_in_folder(tmp_path)
    assert [str(problem) for problem in problems if problem.error] == []
    by_pet = {study.pet.series: study for study in studies}
    assert written.pet_uid in by_pet
    study = by_pet[written.pet_uid]
    assert study.ct is not None
    assert study.ct.series == written.ct_uid
    ct, ct_warnings = read_volume(study.ct)
    pet, pet_warnings = read_volume(study.pet)
    np.testing.assert_allclose(pet.array, written.pet, rtol=RELATIVE, atol=1e-5)
    np.testing.assert_allclose(pet.affine, written.pet_affine, atol=1e-3)
    sheared = written.ct_affine[:3, :3] / np.linalg.norm(written.ct_affine[:3, :3], axis=0)
    if np.abs(sheared.T @ sheared - np.eye(3)).max() > 0.01:
        expected = on_grid(written.ct, written.ct_affine, ct.array.shape, ct.affine)
        seen = np.isfinite(expected)
        assert seen.mean() > 0.5
        np.testing.assert_allclose(ct.array[seen], expected[seen], atol=0.01)
    else:
        np.testing.assert_allclose(ct.array, written.ct, atol=0.01)
        np.testing.assert_allclose(ct.affine, written.ct_affine, atol=1e-3)
    said = " ".join([*map(str, problems), *ct_warnings, *pet_warnings])
    assert [word for word in VARIANTS[name].warning if word not in said] == []


@pytest.mark.parametrize("name", REFUSED)
def test_study_that_cannot_be_right_is_refused_in_a_sentence(name, tmp_path):
    write_study(tmp_path, STUDY, VARIANTS[name])
    studies, problems = find_in_folder(tmp_path)
    sentences = [str(problem) for problem in problems]
    for study in studies:
        for source in (study.ct, study.pet):
            try:
                read_volume(source)
            except InputError as error:
                sentences.append(f"{source.name} {error}")
    assert [word for word in VARIANTS[name].refusal if not any(word in sentence for sentence in sentences)] == [], sentences
