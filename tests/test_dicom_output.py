"""Promises to those whose viewers read DICOM: masks as segmentations, read-outs as reports, that other programs read rightly."""

from __future__ import annotations

import datetime
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_writer import VARIANTS, Variant, small_study, write_study
from helpers import SHARED, needs_shared
from highdicom.seg import segread

from petct_cascade.dicom.finding import find_in_folder
from petct_cascade.dicom.labels import segmentation_mask
from petct_cascade.dicom.segmentation_writer import MOST_SEGMENTS, write_segmentation
from petct_cascade.dicom.source import DicomSource, grid_of
from petct_cascade.readouts import study_readouts
from petct_cascade.volumes import read_volume
from petct_training.errors import InputError

SARCOMA_DICOM = SHARED / "data/soft_tissue_sarcoma_dicom"
# The small study's voxels have three different lengths.
LAYOUTS = {"plain": Variant(), **{name: VARIANTS[name] for name in ("oblique", "feet first", "enhanced", "enhanced, oblique")}}
VERSION = "1.2.3"


def segimage2itkimage() -> str | None:
    """The program of dcmqi, on the PATH or in its package."""
    package = importlib.util.find_spec("dcmqi")
    inside = [Path(folder, "bin") for folder in (package.submodule_search_locations or ())] if package else []
    return next((found for place in (None, *inside) if (found := shutil.which("segimage2itkimage", path=place))), None)


needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is absent: install dicom3tools")
needs_dcmqi = pytest.mark.skipif(segimage2itkimage() is None, reason="segimage2itkimage is absent: install dcmqi")


def pet_of(folder: Path) -> DicomSource:
    (study,) = find_in_folder(folder, needs_ct=False)[0]
    return study.pet


@cache
def written(layout: str, tmp: Path):
    """A study in a layout, its PET, and masks of it: three lesions, one, three hundred, none."""
    study = write_study(tmp / layout, small_study(), LAYOUTS[layout])
    many = np.zeros_like(study.label)
    many[::2, ::2, ::2] = 1
    places = np.flatnonzero(many)
    many.flat[places[300:]] = 0
    one = np.zeros_like(study.label)
    one[3:6, 4:9, 5:7] = 1
    masks = {"lesions": study.label, "one lesion": one, "300 lesions": many, "no lesion": np.zeros_like(one)}
    return study, pet_of(tmp / layout), masks


MASKS = ("lesions", "one lesion", "300 lesions", "no lesion")
NUMBERS = dict(zip(MASKS, (3, 1, 300, 1), strict=True))
# The masks of which there is something to be told, in every layout; those that take long, in one.
FULL = [*((layout, "lesions") for layout in LAYOUTS), ("oblique", "one lesion"), ("oblique", "300 lesions")]
ALL = [*FULL, *((layout, "no lesion") for layout in LAYOUTS)]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    return lambda layout: written(layout, folder)


def errors_of(file: Path) -> list[str]:
    """What dciodvfy says is wrong."""
    done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@contextmanager
def another_day(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let highdicom believe that it is another day."""

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=tz)

    with monkeypatch.context() as patch:
        patch.setattr(datetime, "datetime", Later)
        yield


class TestSegmentation:
    @needs_dciodvfy
    @pytest.mark.parametrize(("layout", "mask"), ALL)
    @pytest.mark.parametrize(
        "options", [{}, {"per_lesion": False, "keep_empty_frames": True}], ids=["default", "one, all frames"]
    )
    def test_keeps_the_standard(self, studies, layout, mask, options, tmp_path):
        _, pet, masks = studies(layout)
        write_segmentation(tmp_path / "seg.dcm", masks[mask], pet, VERSION, **options)
        assert errors_of(tmp_path / "seg.dcm") == []

    @pytest.mark.parametrize(("layout", "mask"), ALL)
    @pytest.mark.parametrize("per_lesion", [True, False])
    def test_is_read_back_by_our_own_reader(self, studies, layout, mask, per_lesion, tmp_path):
        study, pet, masks = studies(layout)
        segmentation, warnings = write_segmentation(tmp_path / "seg.dcm", masks[mask], pet, VERSION, per_lesion)
        assert (len(segmentation.SegmentSequence), warnings) == (NUMBERS[mask] if per_lesion else 1, [])
        label = segmentation_mask([tmp_path / "seg.dcm"], grid_of(pet.files), frame_of_reference=study.frame_uid)
        np.testing.assert_array_equal(label.array, masks[mask])

    @pytest.mark.parametrize(("layout", "mask"), FULL)
    def test_is_read_back_by_highdicom_with_its_geometry_and_source_images(self, studies, layout, mask, tmp_path):
        study, pet, masks = studies(layout)
        write_segmentation(tmp_path / "seg.dcm", masks[mask], pet, VERSION)
        segmentation = segread(tmp_path / "seg.dcm")
        volume = segmentation.get_volume(combine_segments=True)
        to_ras = np.diag([-1, -1, 1, 1]) @ volume.affine
        found = np.zeros_like(study.label)
        # highdicom's axes are slices, rows, columns.
        indices = np.argwhere(volume.array > 0)
        world = to_ras[:3, :3] @ indices.T + to_ras[:3, 3:]
        inverse = np.linalg.inv(study.pet_affine)
        voxels = inverse[:3, :3] @ world + inverse[:3, 3:]
        np.testing.assert_allclose(voxels, np.rint(voxels), atol=1e-3)
        found[tuple(np.rint(voxels).astype(int))] = 1
        np.testing.assert_array_equal(found, masks[mask])
        for groups in segmentation.PerFrameFunctionalGroupsSequence:
            (source,) = groups.DerivationImageSequence[0].SourceImageSequence
            z = (
                np.linalg.inv(study.pet_affine)
                @ np.diag([-1, -1, 1, 1])
                @ [*groups.PlanePositionSequence[0].ImagePositionPatient, 1]
            )
            assert source.ReferencedSOPInstanceUID == study.pet_sop_uids[round(float(z[2]))]
            assert source.SpatialLocationsPreserved == "YES"
            if layout.startswith("enhanced"):
                header = pydicom.dcmread(study.pet_files[0], stop_before_pixels=True)
                place = header.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1].PlanePositionSequence[0]
                assert place.ImagePositionPatient == groups.PlanePositionSequence[0].ImagePositionPatient

    @needs_dcmqi
    @pytest.mark.parametrize(("layout", "mask"), FULL)
    def test_is_read_back_by_dcmqi_with_its_geometry(self, studies, layout, mask, tmp_path):
        study, pet, masks = studies(layout)
        write_segmentation(tmp_path / "seg.dcm", masks[mask], pet, VERSION, keep_empty_frames=True)
        (tmp_path / "out").mkdir()
        command = [segimage2itkimage(), "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path / "out"]
        subprocess.run([*map(str, command), "--outputType", "nii"], check=True, capture_output=True)
        found = np.zeros_like(masks[mask])
        for file in (tmp_path / "out").glob("*.nii.gz"):
            image = nib.load(file)
            np.testing.assert_allclose(image.affine, study.pet_affine, atol=1e-3)
            found[np.asarray(image.dataobj) > 0] = 1
        np.testing.assert_array_equal(found, masks[mask])

    def test_segment_is_the_lesion_of_its_number_in_the_read_outs(self, studies, tmp_path):
        study, pet, masks = studies("oblique")
        write_segmentation(tmp_path / "seg.dcm", masks["lesions"], pet, VERSION)
        lesions = study_readouts(masks["lesions"], study.pet, study.pet_affine)["lesions"]
        for lesion in lesions:
            number = str(lesion["lesion"])
            array = segmentation_mask([tmp_path / "seg.dcm"], grid_of(pet.files), [number]).array
            places = np.argwhere(array) @ study.pet_affine[:3, :3].T + study.pet_affine[:3, 3]
            volume = len(places) * abs(np.linalg.det(study.pet_affine[:3, :3])) / 1000
            assert volume == pytest.approx(lesion["volume_ml"])
            centroid = [lesion[f"centroid_{axis}_mm"] for axis in "xyz"]
            np.testing.assert_allclose(places.mean(axis=0), centroid, atol=1e-2)
        item = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[1]
        assert (item.SegmentLabel, item.TrackingID) == ("Lesion 2 (tracer-avid)", "Lesion 2")
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("autopet_ensemble", VERSION)

    def test_patient_study_and_space_are_those_of_the_pet(self, studies, tmp_path):
        study, pet, masks = studies("plain")
        write_segmentation(tmp_path / "seg.dcm", masks["lesions"], pet, VERSION)
        segmentation, header = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(study.pet_files[0])
        names = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID")
        for name in (*names, "AccessionNumber", "FrameOfReferenceUID"):
            assert segmentation[name].value == header[name].value, name
        (series,) = segmentation.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == study.pet_uid
        referenced = [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
        assert sorted(referenced) == sorted(study.pet_sop_uids)

    @pytest.mark.parametrize("layout", ["plain", "enhanced"])
    def test_same_mask_gives_the_same_bytes_on_another_day_and_another_mask_other_uids(
        self, studies, layout, tmp_path, monkeypatch
    ):
        _, pet, masks = studies(layout)
        write_segmentation(tmp_path / "seg.dcm", masks["lesions"], pet, VERSION)
        with another_day(monkeypatch):
            write_segmentation(tmp_path / "again.dcm", masks["lesions"], pet, VERSION)
            other, _ = write_segmentation(tmp_path / "other.dcm", masks["one lesion"], pet, VERSION)
        assert (tmp_path / "seg.dcm").read_bytes() == (tmp_path / "again.dcm").read_bytes()
        first = pydicom.dcmread(tmp_path / "seg.dcm")
        for name in ("SOPInstanceUID", "SeriesInstanceUID"):
            assert first[name].value != other[name].value
        assert not {item.TrackingUID for item in first.SegmentSequence} & {item.TrackingUID for item in other.SegmentSequence}

    @needs_dciodvfy
    @pytest.mark.parametrize(
        "names",
        [("PatientBirthDate", "PatientSex"), ("StudyTime", "StudyDate", "StudyID", "AccessionNumber"), ("FrameOfReferenceUID",),
         ("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "StudyDate", "StudyTime")],
        ids=lambda names: names[0],
    )  # fmt: skip
    @pytest.mark.parametrize("value", [None, "", "noon"])
    def test_missing_empty_and_senseless_headers_are_left_empty(self, studies, names, value, tmp_path):
        _, pet, masks = studies("plain")
        files = []
        for file in pet.files:
            dataset = pydicom.dcmread(file)
            for name in names:
                if value is None:
                    dataset.pop(name, None)
                elif name != "FrameOfReferenceUID" or value == "":
                    dataset[name] = pydicom.DataElement(
                        name, dataset.get_item(name).VR if name in dataset else "LO", value, validation_mode=0
                    )
            files.append(tmp_path / file.name)
            dataset.save_as(files[-1])
        write_segmentation(tmp_path / "seg.dcm", masks["lesions"], replace(pet, files=tuple(files)), VERSION)
        assert errors_of(tmp_path / "seg.dcm") == []
        label = segmentation_mask([tmp_path / "seg.dcm"], grid_of(pet.files))
        np.testing.assert_array_equal(label.array, masks["lesions"])

    @pytest.mark.parametrize("name", ["UTF-8 name", "Japanese name", "Latin-1 name"])
    def test_name_keeps_its_letters(self, name, tmp_path):
        study = write_study(tmp_path, small_study(), VARIANTS[name])
        write_segmentation(tmp_path / "seg.dcm", study.label, pet_of(tmp_path), VERSION)
        expected = pydicom.dcmread(study.pet_files[0]).PatientName
        assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName) == str(expected)

    def test_slices_that_are_there_twice_are_referred_to_once(self, tmp_path):
        study = write_study(tmp_path, small_study(), VARIANTS["duplicates with new UIDs"])
        segmentation, _ = write_segmentation(tmp_path / "seg.dcm", study.label, pet_of(tmp_path), VERSION)
        assert len(segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == study.label.shape[2]
        np.testing.assert_array_equal(segmentation_mask([tmp_path / "seg.dcm"], grid_of(study.pet_files)).array, study.label)

    def test_more_lesions_than_segments_are_one_segment_with_a_warning(self, studies, tmp_path, monkeypatch):
        _, pet, masks = studies("plain")
        monkeypatch.setattr("petct_cascade.dicom.segmentation_writer.MOST_SEGMENTS", 299)
        assert MOST_SEGMENTS < 2**16
        segmentation, (warning,) = write_segmentation(tmp_path / "seg.dcm", masks["300 lesions"], pet, VERSION)
        assert len(segmentation.SegmentSequence) == 1
        assert "300 lesions" in warning
        np.testing.assert_array_equal(segmentation_mask([tmp_path / "seg.dcm"], grid_of(pet.files)).array, masks["300 lesions"])

    def test_mask_of_another_grid_is_refused_and_nothing_written(self, studies, tmp_path):
        _, pet, masks = studies("plain")
        with pytest.raises(InputError, match="give the mask of this PET"):
            write_segmentation(tmp_path / "seg.dcm", masks["lesions"][:, :, 1:], pet, VERSION)
        assert list(tmp_path.iterdir()) == []

    @needs_shared(SARCOMA_DICOM)
    @pytest.mark.parametrize("patient", ["STS_002", "STS_019"])
    def test_real_study_is_read_back(self, patient, tmp_path):
        study = find_in_folder(SARCOMA_DICOM / patient)[0][0]
        mask = read_volume(study.label)[0].array
        write_segmentation(tmp_path / "seg.dcm", mask, study.pet, VERSION)
        np.testing.assert_array_equal(segmentation_mask([tmp_path / "seg.dcm"], grid_of(study.pet.files)).array, mask)
        if shutil.which("dciodvfy"):
            assert errors_of(tmp_path / "seg.dcm") == []
