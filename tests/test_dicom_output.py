"""Promises to those whose viewers read DICOM: masks as segmentations, read-outs as reports, that other programs read rightly."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import helpers
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_writer import VARIANTS, Person, Tracer, Variant, small_study, write_study
from helpers import SHARED, needs_shared, write_nifti
from highdicom.seg import segread

import petct_cascade.dicom_output
from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.finding import find_in_folder
from petct_cascade.dicom.labels import segmentation_mask
from petct_cascade.dicom.report_writer import write_report
from petct_cascade.dicom.segmentation_writer import MOST_SEGMENTS, write_segmentation
from petct_cascade.dicom.source import DicomSource, grid_of
from petct_cascade.dicom_output import dicom_files
from petct_cascade.inference import infer
from petct_cascade.provenance import facts_of_run, today
from petct_cascade.readouts import study_readouts
from petct_cascade.selection import select_studies
from petct_cascade.studies import find_studies
from petct_cascade.tasks import ReadoutOptions
from petct_cascade.version import program_version
from petct_cascade.volumes import read_volume
from petct_training.errors import InputError, SomeFailedError
from petct_training.masks import Masks
from petct_training.records import Records

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
    @pytest.mark.parametrize("value", [None, "", "noon", "too long for any of them"])
    def test_missing_empty_and_senseless_headers_are_left_empty_and_no_library_talks_of_them(
        self, studies, names, value, tmp_path, caplog
    ):
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
        assert caplog.messages == []
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


# Names of read-outs in a report, by concept and derivation (PS3.16).
VOLUME, TLG, SUV = ("126032", "DCM"), ("126033", "DCM"), ("126401", "DCM")
MAXIMUM, MEAN, PEAK, TOTAL = ("56851009", "SCT"), ("373098007", "SCT"), ("126031", "DCM"), ("255619001", "SCT")
SUL, OF_SUV, OF_SUL = ("126405", "DCM"), "g/ml{SUVbw}", "g/ml{SUVlbm(Janma)}"
DISTANCE = ("121206", "DCM")
METHODS = {name: (name, "99AUTOPET") for name in ("SUV4", "41PCT", "CENTROIDS", "VOXELS")}
UPTAKE = {
    "suv_max": (SUV, MAXIMUM, None, OF_SUV),
    "suv_mean": (SUV, MEAN, None, OF_SUV),
    "suv_peak": (SUV, PEAK, None, OF_SUV),
    "sul_max": (SUL, MAXIMUM, None, OF_SUL),
    "sul_mean": (SUL, MEAN, None, OF_SUL),
    "sul_peak": (SUL, PEAK, None, OF_SUL),
}
OF_LESION = {
    "volume_ml": (VOLUME, None, None, "ml"),
    "tlg_g": (TLG, None, None, "g"),
    "volume_suv4_ml": (VOLUME, None, METHODS["SUV4"], "ml"),
    "tlg_suv4_g": (TLG, None, METHODS["SUV4"], "g"),
    "volume_41pct_ml": (VOLUME, None, METHODS["41PCT"], "ml"),
    "tlg_41pct_g": (TLG, None, METHODS["41PCT"], "g"),
    **UPTAKE,
}
OF_STUDY = {
    "tmtv_ml": (VOLUME, TOTAL, None, "ml"),
    "tlg_g": (TLG, TOTAL, None, "g"),
    "tmtv_suv4_ml": (VOLUME, TOTAL, METHODS["SUV4"], "ml"),
    "tlg_suv4_g": (TLG, TOTAL, METHODS["SUV4"], "g"),
    "tmtv_41pct_ml": (VOLUME, TOTAL, METHODS["41PCT"], "ml"),
    "tlg_41pct_g": (TLG, TOTAL, METHODS["41PCT"], "g"),
    **UPTAKE,
    "lesions": (("246206008", "SCT"), None, None, "1"),
    "dmax_mm": (DISTANCE, MAXIMUM, METHODS["CENTROIDS"], "mm"),
    "dmax_voxels_mm": (DISTANCE, MAXIMUM, METHODS["VOXELS"], "mm"),
}


def code_of(item: pydicom.Dataset) -> tuple[str, str]:
    return item.CodeValue, item.CodingSchemeDesignator


def items_called(item: pydicom.Dataset, value: str) -> list[pydicom.Dataset]:
    """The children of a content item whose name has a code."""
    return [child for child in item.ContentSequence if child.ConceptNameCodeSequence[0].CodeValue == value]


def groups_of(report: pydicom.Dataset) -> dict[str, pydicom.Dataset]:
    """The measurement groups of a report by their tracking identifiers, read without highdicom."""
    (measurements,) = items_called(report, "126010")
    return {items_called(group, "112039")[0].TextValue: group for group in measurements.ContentSequence}


def numbers_in(group: pydicom.Dataset) -> dict[tuple, float]:
    """The numbers of a group by concept, derivation, method and unit."""
    numbers = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            said = {
                child.ConceptNameCodeSequence[0].CodeValue: code_of(child.ConceptCodeSequence[0])
                for child in item.get("ContentSequence", [])
            }
            (value,) = item.MeasuredValueSequence
            code = value.MeasurementUnitsCodeSequence[0]
            unit = code.get("CodeValue") or code.LongCodeValue
            exact = value.get("FloatingPointValue", value.NumericValue)
            assert float(value.NumericValue) == pytest.approx(exact, rel=1e-12)
            modifiers = (said.pop("121401", None), said.pop("370129005", None))
            assert not said
            numbers[(code_of(item.ConceptNameCodeSequence[0]), *modifiers, unit)] = float(exact)
    return numbers


def write_both(studies, layout: str, mask: str, folder: Path, per_lesion: bool = True):
    """The read-outs of a mask, and its SEG and SR as they are in their files."""
    study, pet, masks = studies(layout)
    readouts = study_readouts(masks[mask], study.pet, study.pet_affine, body=pet.body() or Body(72.5, 1.75, "F"))
    segmentation, _ = write_segmentation(folder / "seg.dcm", masks[mask], pet, VERSION, per_lesion)
    write_report(folder / "sr.dcm", readouts, segmentation, pet, VERSION)
    return readouts, pydicom.dcmread(folder / "seg.dcm"), pydicom.dcmread(folder / "sr.dcm")


class TestReport:
    @needs_dciodvfy
    @pytest.mark.parametrize(("layout", "mask"), ALL)
    def test_keeps_the_standard(self, studies, layout, mask, tmp_path):
        write_both(studies, layout, mask, tmp_path)
        assert errors_of(tmp_path / "sr.dcm") == []

    @pytest.mark.parametrize("per_lesion", [True, False])
    @pytest.mark.parametrize("mask", ["lesions", "one lesion", "no lesion"])
    def test_numbers_are_those_of_the_read_outs(self, studies, mask, per_lesion, tmp_path):
        readouts, _, report = write_both(studies, "oblique", mask, tmp_path, per_lesion)
        groups = groups_of(report)
        study = groups.pop("Study" if "Study" in groups else "Lesions")
        existing = {OF_STUDY[name]: value for name, value in readouts["study"].items() if not np.isnan(value)}
        assert numbers_in(study) == existing
        assert list(groups) == [f"Lesion {lesion['lesion']}" for lesion in readouts["lesions"]]
        for lesion, group in zip(readouts["lesions"], groups.values(), strict=True):
            assert numbers_in(group) == {OF_LESION[name]: lesion[name] for name in OF_LESION}

    def test_each_lesion_shares_its_tracking_uid_with_its_segment_and_refers_to_it(self, studies, tmp_path):
        _, segmentation, report = write_both(studies, "plain", "lesions", tmp_path)
        groups = groups_of(report)
        assert len(groups) == NUMBERS["lesions"] + 1
        for segment in segmentation.SegmentSequence:
            group = groups[segment.TrackingID]
            assert segment.TrackingUID == items_called(group, "112040")[0].UID
            (reference,) = items_called(group, "121191")[0].ReferencedSOPSequence
            assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
            assert reference.ReferencedSegmentNumber == segment.SegmentNumber
            assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"
        assert groups["Study"].ContentTemplateSequence[0].TemplateIdentifier == "1501"

    @pytest.mark.parametrize("mask", ["lesions", "no lesion"])
    def test_single_segment_is_referred_to_by_the_study(self, studies, mask, tmp_path):
        _, segmentation, report = write_both(studies, "plain", mask, tmp_path, per_lesion=False)
        (segment,) = segmentation.SegmentSequence
        group = groups_of(report)["Lesions"]
        assert segment.TrackingUID == items_called(group, "112040")[0].UID
        assert items_called(group, "121191")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber == 1

    def test_is_unverified_and_names_what_made_it_and_from_which_images(self, studies, tmp_path):
        _, segmentation, report = write_both(studies, "plain", "lesions", tmp_path)
        assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
        assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
        group = groups_of(report)["Lesion 1"]
        assert items_called(group, "111001")[0].TextValue == "autopet_ensemble"
        assert items_called(group, "111003")[0].TextValue == VERSION
        assert (report.PatientID, report.StudyInstanceUID) == (segmentation.PatientID, segmentation.StudyInstanceUID)
        sequences = [item for name in ("Current", "Pertinent") for item in evidence(report, name)]
        referred = {reference.ReferencedSOPInstanceUID for reference in sequences}
        assert referred == {segmentation.SOPInstanceUID, *studies("plain")[0].pet_sop_uids}

    def test_same_read_outs_give_the_same_bytes_on_another_day(self, studies, tmp_path, monkeypatch):
        for name in ("first", "again"):
            (tmp_path / name).mkdir()
        write_both(studies, "plain", "lesions", tmp_path / "first")
        with another_day(monkeypatch):
            write_both(studies, "plain", "lesions", tmp_path / "again")
        assert (tmp_path / "first/sr.dcm").read_bytes() == (tmp_path / "again/sr.dcm").read_bytes()

    @pytest.mark.parametrize(
        ("tracer", "code"),
        [
            (Tracer(), "35321007"),
            (Tracer("FDG", agent=("", "")), "35321007"),
            (Tracer("PSMA-1007", agent=("126758", "PSMA-1007 F^18^")), "126758"),
            (Tracer("[68Ga]PSMA-11", agent=("", "")), "C118961"),
            (Tracer("PSMA", agent=("", "")), None),
        ],
    )
    def test_tracer_is_told_by_its_code_where_it_is_known(self, tracer, code, tmp_path):
        study = write_study(tmp_path, small_study(), Variant(tracer=tracer))
        pet = pet_of(tmp_path)
        segmentation, _ = write_segmentation(tmp_path / "seg.dcm", study.label, pet, VERSION)
        readouts = study_readouts(study.label, study.pet, study.pet_affine)
        report = write_report(tmp_path / "sr.dcm", readouts, segmentation, pet, VERSION)
        told = items_called(groups_of(report)["Study"], "349358000")
        assert [item.ConceptCodeSequence[0].CodeValue for item in told] == ([] if code is None else [code])


def evidence(report: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    """What a report was made from: the references to instances in one of its two lists."""
    keyword = {"Current": "CurrentRequestedProcedureEvidenceSequence", "Pertinent": "PertinentOtherEvidenceSequence"}[name]
    return [
        instance
        for study in report.get(keyword, [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


# ---------------------------------------------------------------- what an inference leaves

CASE = "fdg_0042_2023-05-04"


def segment(folder: Path, output: Path, painted: np.ndarray | None = None, mark: int = 0, **options) -> None:
    """An inference whose networks find what is painted; the label of the small study by default.

    Args:
        folder: of studies.
        output: output folder.
        painted: (X, Y, Z).
        mark: a setting that changes voxels: with another one masks are made again.
        options: of `ReadoutOptions`.
    """
    records = Records(output, "inference")
    masks = Masks(records, [output], {"mark": mark})
    for item in select_studies(folder, masks).items:
        mask = small_study().label if painted is None else painted
        pet, _ = read_volume(item["image"][1] if isinstance(item["image"][1], DicomSource) else Path(item["image"][1]))
        with records.making(masks.plan(item)):
            write_nifti(output / f"{item['case']}.nii.gz", mask, pet.affine)
    selection = select_studies(folder, masks)
    assert not selection.items
    infer(None, selection, output, ReadoutOptions(**options))


def one_lesion() -> np.ndarray:
    mask = np.zeros_like(small_study().label)
    mask[3:6, 4:9, 5:7] = 1
    return mask


def state(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*.dcm")}


class TestInference:
    def test_leaves_segmentation_and_report_of_its_mask_and_read_outs(self, tmp_path):
        study = write_study(tmp_path / "studies", small_study())
        segment(tmp_path / "studies", tmp_path / "out")
        seg, sr = dicom_files(tmp_path / "out", CASE)
        assert sorted(file for file in (tmp_path / "out/dicom").rglob("*") if file.is_file()) == [sr, seg]
        np.testing.assert_array_equal(segmentation_mask([seg], grid_of(study.pet_files)).array, study.label)
        readouts = json.loads((tmp_path / "out/readouts.json").read_text())[CASE]
        group = groups_of(pydicom.dcmread(sr))["Lesion 2"]
        lesion = readouts["lesions"][1]
        assert numbers_in(group) == {concept: lesion[name] for name, concept in OF_LESION.items() if name in lesion}
        assert pydicom.dcmread(seg).SoftwareVersions == program_version()
        written = json.loads((tmp_path / f"out/records/studies/{CASE}.json").read_text())["written"]
        assert written[f"dicom/{CASE}/segmentation.dcm"]["sha256"] == hashlib.sha256(seg.read_bytes()).hexdigest()

    def test_page_and_record_say_the_day_of_the_mask_and_the_page_stays_as_it_was_on_another_day(self, tmp_path, monkeypatch):
        class Day(datetime.date):
            @classmethod
            def today(cls):
                return cls(2031, 5, 6)

        write_study(tmp_path / "studies", small_study())
        records = Records(tmp_path / "out", "inference", facts_of_run([]))
        masks = Masks(records, [tmp_path / "out"])
        selection = select_studies(tmp_path / "studies", masks)
        for item in selection.items:
            plan = masks.plan(item)
            records.begin(plan)
            pet, _ = read_volume(item["image"][1])
            write_nifti(tmp_path / f"out/{item['case']}.nii.gz", small_study().label, pet.affine)
            records.finish(plan, today())
        about = json.loads((tmp_path / f"out/records/{CASE}.json").read_text())["about"]
        assert about["date"] == datetime.date.today().isoformat()
        assert about["versions"]["autopet_ensemble"] == program_version()
        infer(None, select_studies(tmp_path / "studies", masks), tmp_path / "out")
        page = (tmp_path / "out/report.html").read_bytes()
        assert f"<dt>Mask made on</dt><dd>{about['date']}</dd>".encode() in page
        monkeypatch.setattr("petct_cascade.provenance.date", Day)
        infer(None, select_studies(tmp_path / "studies", masks), tmp_path / "out")
        assert (tmp_path / "out/report.html").read_bytes() == page

    def test_again_writes_nothing_and_another_mask_writes_them_anew(self, tmp_path):
        write_study(tmp_path / "studies", small_study())
        segment(tmp_path / "studies", tmp_path / "out")
        first = state(tmp_path / "out")
        segment(tmp_path / "studies", tmp_path / "out")
        assert state(tmp_path / "out") == first
        segment(tmp_path / "studies", tmp_path / "out", one_lesion(), mark=1)
        second = state(tmp_path / "out")
        assert second.keys() == first.keys()
        assert all(second[file][0] != first[file][0] for file in first)
        seg, _ = dicom_files(tmp_path / "out", CASE)
        assert len(pydicom.dcmread(seg).SegmentSequence) == 1

    def test_deleted_or_changed_object_is_written_again_or_refused(self, tmp_path):
        write_study(tmp_path / "studies", small_study())
        segment(tmp_path / "studies", tmp_path / "out")
        first = {file: content for file, (content, _) in state(tmp_path / "out").items()}
        seg, sr = dicom_files(tmp_path / "out", CASE)
        seg.unlink()
        segment(tmp_path / "studies", tmp_path / "out")
        assert {file: file.read_bytes() for file in first} == first
        sr.write_bytes(b"corrected by hand")
        with pytest.raises(InputError, match=r"report\.dcm was changed after this program had written it"):
            segment(tmp_path / "studies", tmp_path / "out")
        assert sr.read_bytes() == b"corrected by hand"

    def test_file_of_somebody_else_is_never_replaced(self, tmp_path):
        write_study(tmp_path / "studies", small_study())
        seg, _ = dicom_files(tmp_path / "out", CASE)
        seg.parent.mkdir(parents=True)
        seg.write_text("mine")
        with pytest.raises(InputError, match="no result of this program"):
            segment(tmp_path / "studies", tmp_path / "out")
        assert seg.read_text() == "mine"

    def test_without_dicom_output_there_is_none_and_an_earlier_one_is_taken_away(self, tmp_path):
        write_study(tmp_path / "studies", small_study())
        segment(tmp_path / "studies", tmp_path / "out")
        segment(tmp_path / "studies", tmp_path / "out", dicom_output="false")
        assert state(tmp_path / "out") == {}
        assert (tmp_path / f"out/pictures/{CASE}.png").is_file()
        segment(tmp_path / "studies", tmp_path / "out", dicom_segments="one")
        seg, _ = dicom_files(tmp_path / "out", CASE)
        assert [item.SegmentLabel for item in pydicom.dcmread(seg).SegmentSequence] == ["Lesions (tracer-avid)"]

    def test_nifti_study_gets_no_dicom(self, tmp_path):
        helpers.write_study(tmp_path / "studies", "fdg_a_1")
        segment(tmp_path / "studies", tmp_path / "out", helpers.make_study()[2])
        assert (tmp_path / "out/readouts.json").is_file()
        assert not (tmp_path / "out/dicom").exists()

    def test_studies_of_another_run_keep_theirs(self, tmp_path):
        for name in ("a", "b"):
            write_study(tmp_path / name, small_study(), Variant(person=Person(identifier=name), study_key=name))
        segment(tmp_path / "a", tmp_path / "out")
        first = state(tmp_path / "out")
        segment(tmp_path / "b", tmp_path / "out")
        both = state(tmp_path / "out")
        assert len(both) == 4
        assert {file: both[file] for file in first} == first

    def test_series_that_cannot_be_referred_to_is_named_and_costs_no_other(self, tmp_path):
        def without_uid(dataset):
            dataset.SOPInstanceUID = ""

        study = write_study(tmp_path / "studies/good", small_study(), Variant(person=Person(identifier="good"), study_key="good"))
        bad = write_study(tmp_path / "studies/bad", small_study(), Variant(person=Person(identifier="bad"), study_key="bad"))
        for file in bad.pet_files:
            dataset = pydicom.dcmread(file)
            without_uid(dataset)
            dataset.save_as(file)
        with pytest.raises(SomeFailedError, match=r"study fdg_bad_2023-05-04: its DICOM SEG and SR .* has no SOPInstanceUID"):
            segment(tmp_path / "studies", tmp_path / "out")
        (case,) = {file.parent.name for file in state(tmp_path / "out")}
        assert case == "fdg_good_2023-05-04"
        assert len(json.loads((tmp_path / "out/readouts.json").read_text())) == 2
        assert study.label.any()

    def test_neither_object_is_there_when_one_cannot_be_written(self, tmp_path, monkeypatch):
        write_study(tmp_path / "studies", small_study())

        def fail(*_) -> None:
            raise InputError("it cannot be said in a report")

        monkeypatch.setattr(petct_cascade.dicom_output, "write_report", fail)
        with pytest.raises(SomeFailedError, match=r"its DICOM SEG and SR were not written: it cannot be said"):
            segment(tmp_path / "studies", tmp_path / "out")
        assert state(tmp_path / "out") == {}

    def test_results_among_the_studies_are_no_labels_and_no_series(self, tmp_path):
        write_study(tmp_path, small_study())
        before = find_in_folder(tmp_path)
        segment(tmp_path, tmp_path / "out")
        first = state(tmp_path / "out")
        assert find_in_folder(tmp_path) == before
        assert before[0][0].label is None
        segment(tmp_path, tmp_path / "out")
        assert state(tmp_path / "out") == first

    def test_result_is_a_label_where_a_list_names_it(self, tmp_path):
        study = write_study(tmp_path / "studies", small_study())
        segment(tmp_path / "studies", tmp_path / "out")
        seg, _ = dicom_files(tmp_path / "out", CASE)
        (tmp_path / "list.csv").write_text(f"case,ct,pet,label\na,studies,studies,{seg.relative_to(tmp_path)}\n")
        ((found,), _) = find_studies(tmp_path / "list.csv", labels=True)
        np.testing.assert_array_equal(read_volume(found.label)[0].array, study.label)

    @pytest.mark.parametrize("options", [{"dicom_output": "perhaps"}, {"dicom_segments": "two"}])
    def test_senseless_options_are_refused(self, options):
        with pytest.raises(InputError, match="give"):
            ReadoutOptions(**options)
