"""The tests' own DICOM writer: what it writes means, by pydicom alone and by formulas written out here, what it says it wrote."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_writer import (
    COLLECTIONS,
    VARIANTS,
    export_phantom,
    small_study,
    write_rtstruct,
    write_seg,
    write_study,
    write_tcia,
)
from dicom_writer.physics import lean_body_mass
from dicom_writer.study import CENTRE, HOT_SPOTS
from dicom_writer.variants import CODING
from highdicom.seg import segread
from matplotlib import path as outline

STUDY = small_study()


def moment(ds: pydicom.Dataset, name: str) -> datetime.datetime:
    return datetime.datetime.strptime(ds[f"{name}Date"].value + ds[f"{name}Time"].value, "%Y%m%d%H%M%S.%f")


def values_of(ds: pydicom.Dataset) -> np.ndarray:
    """The values (X, Y) of a slice in its units."""
    return ds.pixel_array.T * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


def body_weight_suv(ds: pydicom.Dataset) -> np.ndarray:
    """The SUV (X, Y) of a slice in Bq/ml whose SeriesTime is the time of decay correction."""
    tracer = ds.RadiopharmaceuticalInformationSequence[0]
    injection = datetime.datetime.strptime(tracer.RadiopharmaceuticalStartDateTime, "%Y%m%d%H%M%S.%f")
    half_life, dose = float(tracer.RadionuclideHalfLife), float(tracer.RadionuclideTotalDose)
    if ds.DecayCorrection == "START":
        dose *= 0.5 ** ((moment(ds, "Series") - injection).total_seconds() / half_life)
    if ds.DecayCorrection == "NONE":
        exponent = math.log(2) / half_life * ds.ActualFrameDuration / 1000
        dose *= 0.5 ** ((moment(ds, "Acquisition") - injection).total_seconds() / half_life)
        dose *= (1 - math.exp(-exponent)) / exponent
    return values_of(ds) * 1000 * float(ds.PatientWeight) / dose


def frames_of(files: Sequence[Path]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Position (3,), orientation (6,), spacing (2,) and values (X, Y) in their units of each slice or frame."""
    frames = []
    for ds in map(pydicom.dcmread, files):
        if "PerFrameFunctionalGroupsSequence" not in ds:
            place = (ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing)
            frames.append((*(np.array(part, float) for part in place), values_of(ds)))
            continue
        shared = ds.SharedFunctionalGroupsSequence[0]
        for frame, stored in zip(ds.PerFrameFunctionalGroupsSequence, ds.pixel_array, strict=True):
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
            spacing = shared.PixelMeasuresSequence[0].PixelSpacing
            scale = frame.PixelValueTransformationSequence[0]
            place = (np.array(part, float) for part in (position, orientation, spacing))
            frames.append((*place, stored.T * float(scale.RescaleSlope) + float(scale.RescaleIntercept)))
    return frames


def volume_of(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The array (X, Y, Z) in its units and its affine (4, 4), slices sorted by position, one kept at each."""
    frames = frames_of(files)
    _, orientation, spacing, _ = frames[0]
    normal = np.cross(orientation[:3], orientation[3:])
    by_place = {round(float(position @ normal), 3): (position, values) for position, _, _, values in frames}
    positions, slices = zip(*(by_place[place] for place in sorted(by_place)), strict=True)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * spacing[1], orientation[3:] * spacing[0]
    affine[:3, 2], affine[:3, 3] = (positions[-1] - positions[0]) / (len(positions) - 1), positions[0]
    return np.stack(slices, -1), np.diag([-1, -1, 1, 1]) @ affine


def value_at(array: np.ndarray, affine: np.ndarray, place: np.ndarray) -> float:
    """The value of the voxel that holds a place of NIfTI's world (mm)."""
    return array[tuple(np.rint(np.linalg.solve(affine, [*place, 1])[:3]).astype(int))]


@pytest.mark.parametrize("name", ["plain", "one slope a slice", "unsigned PET", "gallium", "decay to ADMIN", "decay NONE"])
def test_activity_in_the_files_gives_the_suv(name, tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS[name])
    found = np.stack([body_weight_suv(pydicom.dcmread(file)) for file in written.pet_files], -1)
    np.testing.assert_allclose(found, written.pet, rtol=1e-8)


def test_philips_factors_agree_with_each_other(tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS["CNTS with both factors"])
    ds = pydicom.dcmread(written.pet_files[5])
    np.testing.assert_allclose(values_of(ds) * float(ds[0x70531000].value), written.pet[:, :, 5], rtol=1e-8)
    ds.RescaleSlope = str(float(ds.RescaleSlope) * float(ds[0x70531009].value))[:16]
    np.testing.assert_allclose(body_weight_suv(ds), written.pet[:, :, 5], rtol=1e-8)


def test_frame_reference_time_leads_back_to_the_time_of_decay_correction(tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS["Siemens late series"])
    for file in written.pet_files:
        ds = pydicom.dcmread(file)
        rate = math.log(2) / float(ds.RadiopharmaceuticalInformationSequence[0].RadionuclideHalfLife)
        exponent = rate * ds.ActualFrameDuration / 1000
        mean = math.log(exponent / (1 - math.exp(-exponent))) / rate
        start = moment(ds, "Acquisition") + datetime.timedelta(seconds=mean - float(ds.FrameReferenceTime) / 1000)
        assert abs((start - written.variant.timing.reference).total_seconds()) < 1e-3


def test_quantisation_costs_less_than_a_ten_thousandth_of_the_maximum(tmp_path):
    written = write_study(tmp_path, STUDY)
    assert np.abs(written.pet - STUDY.pet).max() < 1e-4 * STUDY.pet.max()
    np.testing.assert_array_equal(written.ct, STUDY.ct)


@pytest.mark.parametrize("name", CODING)
def test_every_coding_holds_the_same_hounsfield_units(name, tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS[name])
    slices = [pydicom.dcmread(file) for file in written.ct_files]
    stored = np.stack([ds.pixel_array.T for ds in slices], -1)
    stored = stored & 0x0FFF if slices[0].BitsStored == 12 else stored
    np.testing.assert_array_equal(stored + float(slices[0].RescaleIntercept), STUDY.ct)


@pytest.mark.parametrize("oblique", [False, True])
def test_simpleitk_finds_the_geometry_of_the_affine(oblique, tmp_path):
    written = write_study(tmp_path, small_study(oblique=oblique))
    reader = sitk.ImageSeriesReader()
    for uid, folder, affine in (
        (written.pet_uid, "pet", written.pet_affine),
        (written.ct_uid, "ct", written.ct_affine),
    ):
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / folder), uid))
        image = reader.Execute()
        found = np.eye(4)
        found[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        found[:3, 3] = image.GetOrigin()
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ found, affine, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "shuffled",
        "oblique",
        "tilted gantry",
        "duplicates with new UIDs",
        "enhanced, signed CT, one slope a slice",
        "enhanced, shuffled frames",
    ],
)
def test_positions_in_the_files_give_the_sorted_array_and_its_affine(name, tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS[name])
    for files, values, affine in (
        (written.ct_files, written.ct, written.ct_affine),
        (written.pet_files, written.pet, written.pet_affine),
    ):
        found, found_affine = volume_of(files)
        np.testing.assert_allclose(found_affine, affine, atol=1e-6)
        assert found.shape == values.shape
        # Up to the factor between the file's units and SUV.
        np.testing.assert_allclose(found * (values.max() / found.max()), values, atol=1e-6)


@pytest.mark.parametrize("name", ["CT from the head down", "feet first", "prone", "coronal", "sagittal", "tilted gantry"])
def test_nothing_moves_in_the_world_however_slices_lie(name, tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS[name])
    for place, _, suv in HOT_SPOTS:
        centre = np.add(CENTRE, place)
        assert value_at(written.pet, written.pet_affine, centre) == pytest.approx(suv, rel=0.11)
        assert value_at(written.label, written.pet_affine, centre) == 1
        assert value_at(written.ct, written.ct_affine, centre) == pytest.approx(60, abs=40)
    for z in (-25, 0, 25):
        spine = np.add(CENTRE, (0, -22, z))
        assert value_at(written.ct, written.ct_affine, spine) == pytest.approx(700, abs=40)


def test_series_beside_have_other_uids_and_names_than_the_study(tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS["all beside"])
    series = {pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID for file in tmp_path.rglob("*.IMA")}
    assert series == {written.ct_uid, written.pet_uid, *written.other_uids.values()}
    assert len(series) == 2 + len(written.other_uids)


def test_a_disk_with_dicomdir_holds_the_same_slices(tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS["disk with DICOMDIR"])
    assert (tmp_path / "DICOMDIR").is_file()
    assert {pydicom.dcmread(file).SOPInstanceUID for file in written.pet_files} == set(written.pet_sop_uids)
    np.testing.assert_array_equal(volume_of(written.ct_files)[0], written.ct)


def test_the_archive_has_folders_by_patient_study_and_series(tmp_path):
    written = write_tcia(tmp_path, STUDY)
    assert written.folder.parent == tmp_path / "FDG-PET-CT-Lesions" / written.variant.person.identifier
    names = sorted(folder.name.rsplit("-", 1)[0] for folder in written.folder.iterdir())
    assert names == ["2.000000-CT WB 3.0 B30f", "300.000000-Segmentation", "4.000000-PET WB AC"]


def test_seg_holds_the_label(tmp_path):
    written = write_study(tmp_path, STUDY, VARIANTS["PET from the head down"])
    seg = segread(write_seg(tmp_path / "seg.dcm", written))
    mask = seg.get_pixels_by_source_instance(written.pet_sop_uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(mask.T, written.label)


def test_contours_enclose_the_centres_of_the_label_s_voxels(tmp_path):
    written = write_study(tmp_path, STUDY)
    label = written.label.copy()
    label[14, 9, 8] = 0  # a hole within a hot spot
    label[2:4, 2:4, 0], label[4, 4, 0] = 1, 1  # two that meet at a corner
    ds = pydicom.dcmread(write_rtstruct(tmp_path / "contours.dcm", written, label))
    found = np.zeros_like(label)
    to_voxels = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ written.pet_affine)
    centres = np.moveaxis(np.indices(label.shape[:2]), 0, -1).reshape(-1, 2)
    for contour in ds.ROIContourSequence[0].ContourSequence:
        points = np.reshape(contour.ContourData, (-1, 3)).astype(float) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        found[:, :, round(points[0, 2])] ^= outline.Path(points[:, :2]).contains_points(centres).reshape(label.shape[:2])
    np.testing.assert_array_equal(found, label)


def test_a_phantom_is_exported_with_its_lesions(tmp_path):
    written = export_phantom(tmp_path)
    assert len(written.pet_files) == written.pet.shape[2]
    assert written.label.any()
    assert written.pet.max() > 5
    assert written.ct.min() == -1024


@pytest.mark.parametrize("name", COLLECTIONS)
def test_studies_of_a_collection_share_no_uid(name, tmp_path):
    written = COLLECTIONS[name](tmp_path)
    uids = [uid for study in written for uid in (study.study_uid, study.ct_uid, study.pet_uid, study.frame_uid)]
    assert len(set(uids)) == 4 * len(written)


def test_lean_body_mass_is_that_of_the_reference_object():
    # DRO_2_1 of "Standardizing SUV computation": a man of 70 kg and 1.75 m, SUV 4 is stored as 3.229 by lean body mass.
    assert lean_body_mass("LBMJAMES128", "M", 70, 1.75) / 70 * 4 == pytest.approx(3.229, abs=1e-3)
