"""Promises to those whose studies are in DICOM: found wherever they lie, read rightly, converted, segmented, prepared."""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_writer import Person, Variant, edits, small_study, write_seg, write_study, write_tcia
from dicom_writer import layouts as dicom_layouts
from dicom_writer.beside import second_pet
from dicom_writer.damages import patched
from dicom_writer.headers import make_uid
from dicom_writer.variants import VARIANTS
from helpers import SARCOMA, SHARED, needs_shared
from helpers import write_study as write_pair
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from petct_cascade.convert import convert
from petct_cascade.deidentification import Words
from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.finding import DicomOptions, find_in_folder
from petct_cascade.dicom.headers import scan
from petct_cascade.dicom.reading import read_ct, read_pet
from petct_cascade.dicom.suv import SuvOptions
from petct_cascade.preparation import PrepareOptions
from petct_cascade.prepare import prepare
from petct_cascade.selection import SelectOptions, select_studies, source_of
from petct_cascade.studies import find_studies, study_of_places
from petct_cascade.volumes import read_volume
from petct_training.errors import InputError, SomeFailedError
from petct_training.masks import Masks
from petct_training.records import Records

SARCOMA_DICOM = SHARED / "data/soft_tissue_sarcoma_dicom"
STUDY = small_study()
PLAIN = Variant()


def written(folder: Path, **changes):
    return write_study(folder, STUDY, replace(PLAIN, **changes))


def voxels(file: Path) -> np.ndarray:
    return np.asarray(nib.load(file).dataobj)


# ---------------------------------------------------------------- real studies


@needs_shared(SARCOMA_DICOM)
@pytest.mark.parametrize("patient", ["STS_002", "STS_019"])
def test_real_study_in_dicom_is_that_in_nifti(patient):
    studies, problems = find_in_folder(SARCOMA_DICOM / patient)
    assert not any(problem.error for problem in problems)
    (study,) = studies
    stem = SARCOMA / f"imagesTr/fdg_{patient.replace('_', '')}_pre-treatment"
    for source, number, tolerance in ((study.ct, "0000", 0), (study.pet, "0001", 1e-4)):
        volume, _ = read_volume(source)
        expected = nib.load(f"{stem}_{number}.nii.gz")
        np.testing.assert_allclose(volume.array, np.asarray(expected.dataobj), atol=tolerance, rtol=0)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-3)
    label = voxels(SARCOMA / f"labelsTr/fdg_{patient.replace('_', '')}_pre-treatment.nii.gz") > 0
    mask = read_volume(study.label)[0].array > 0
    assert 2 * (mask & label).sum() / (mask.sum() + label.sum()) >= 0.97


# ---------------------------------------------------------------- geometry


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_series_of_any_direction_spacing_and_place_keeps_each_voxel_where_it_is(data, tmp_path_factory):
    angles = data.draw(st.tuples(*[st.floats(-80, 80)] * 3))
    flips = data.draw(st.tuples(*[st.sampled_from([1, -1])] * 3))
    spacing = data.draw(st.tuples(*[st.floats(0.7, 6)] * 3))
    origin = data.draw(st.tuples(*[st.floats(-900, 900)] * 3))
    turn = np.eye(3)
    for (first, second), degrees in zip(((0, 1), (1, 2), (0, 2)), angles, strict=True):
        step, angle = np.eye(3), np.deg2rad(degrees)
        step[np.ix_([first, second], [first, second])] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn = turn @ step
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag(np.array(spacing) * flips), origin
    study = replace(STUDY, ct=STUDY.pet * 100 - 1000, ct_affine=affine, pet_affine=affine)
    folder = tmp_path_factory.mktemp("geometry")
    write_study(folder, study, PLAIN)
    files = sorted(folder.rglob("*.dcm"))
    pet = read_pet([file for file in files if pydicom.dcmread(file, stop_before_pixels=True).Modality == "PT"])
    # The slices may come in the other order; each voxel must then lie where it lay.
    other_way = np.linalg.det(affine[:3, :3]) < 0
    expected, place = (study.pet[:, :, ::-1], affine @ last_slice_first(study.pet.shape)) if other_way else (study.pet, affine)
    # To half a step of 16 bits.
    np.testing.assert_allclose(pet.array, expected, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(pet.affine, place, atol=2e-3)


def last_slice_first(shape: tuple[int, ...]) -> np.ndarray:
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = shape[2] - 1
    return flip


# ---------------------------------------------------------------- finding


def test_files_without_suffix_among_junk_in_deep_folders_are_one_study(tmp_path):
    written(tmp_path / "Anna 2/12.03.2024", path=dicom_layouts.deep)
    for number in range(300):
        (tmp_path / f"junk{number:03d}.txt").write_bytes(b"\x08\x00" + os.urandom(number))
    (tmp_path / "empty").touch()
    (tmp_path / "picture.dcm").write_bytes(bytes(128) + b"DICM" + os.urandom(400))
    studies, problems = find_in_folder(tmp_path)
    assert [study.case for study in studies] == ["fdg_0042_2023-05-04"]
    assert not any(problem.error for problem in problems)


def test_two_studies_of_one_day_get_two_names(tmp_path):
    for key in ("first", "second"):
        written(tmp_path / key, study_key=key)
    names = [study.case for study in find_in_folder(tmp_path)[0]]
    assert len(set(names)) == 2
    assert all(name.startswith("fdg_0042_2023-05-04_") for name in names)
    # Whatever folders are called, and whichever is found first.
    shutil.move(tmp_path / "first", tmp_path / "zzz")
    assert [study.case for study in find_in_folder(tmp_path)[0]] == names


def test_label_that_has_lost_its_patient_belongs_to_the_study_of_its_uid(tmp_path):
    study = write_tcia(tmp_path, STUDY)
    file = next(tmp_path.rglob("*Segmentation*/*.dcm"))
    dataset = pydicom.dcmread(file)
    dataset.PatientID = dataset.PatientName = ""
    dataset.save_as(file)
    (found,), _ = find_in_folder(tmp_path)
    np.testing.assert_array_equal(read_volume(found.label)[0].array, study.label)


def test_ct_that_has_lost_its_patient_belongs_to_the_study_of_its_uid(tmp_path):
    study = written(tmp_path, edit_ct=edits.removing("PatientID", "PatientName"))
    (found,), problems = find_in_folder(tmp_path)
    assert (found.ct.series, problems) == (study.ct_uid, [])
    np.testing.assert_array_equal(read_volume(found.ct)[0].array, study.ct)
    # Nothing says whose it is where several patients have that UID.
    for file in study.pet_files:
        dataset = pydicom.dcmread(file)
        dataset.PatientID, dataset.SeriesInstanceUID = "another", make_uid("second series")
        dataset.SOPInstanceUID = make_uid(dataset.SOPInstanceUID, "second series")
        dataset.save_as(file.with_suffix(".second"))
    studies, problems = find_in_folder(tmp_path)
    assert studies == []
    said = [problem.sentence for problem in problems if problem.error]
    assert ["is of somebody else: 'CT WB 3.0 B30f'" in sentence for sentence in said] == [True, True]
    assert ["of no patient that is named; if both are of one person" in sentence for sentence in said] == [True, True]


def test_ct_of_another_patient_in_the_space_of_a_pet_is_named(tmp_path, capsys):
    study = written(tmp_path / "dicom", person=Person(identifier="P07"), edit_ct=edits.setting(PatientID="p07"))
    studies, problems = find_in_folder(tmp_path / "dicom")
    assert studies == []
    (sentence,) = [problem.sentence for problem in problems if problem.error]
    assert f"25 slices, {study.ct_uid}) of patient 'p07'; if both are of one person, name both with --ct and --pet" in sentence
    assert "is of patient 'P07'" in sentence
    # So it does where no CT is needed, which is then none.
    convert(tmp_path / "dicom", tmp_path / "nifti")
    assert "of patient 'p07'; if both are of one person" in capsys.readouterr().out
    convert(tmp_path / "dicom", tmp_path / "without names", deidentified=True)
    assert "p07" not in capsys.readouterr().out.casefold()
    for folder in ("nifti", "without names"):
        assert len(list((tmp_path / folder / "imagesTr").iterdir())) == 1
    found, said = study_of_places(study.ct_files[0].parent, study.pet_files[0].parent)
    assert (found.ct.series, len(said)) == (study.ct_uid, 1)
    assert "check that both are of one person" in said[0].sentence


def test_patients_are_quoted_so_that_de_identified_results_do_not_name_them(tmp_path):
    study = written(tmp_path, person=Person(identifier="Mueller"), edit_ct=edits.setting(PatientID="Schmidt"))
    _, (said,) = study_of_places(study.ct_files[0].parent, study.pet_files[0].parent)
    assert "Schmidt" in said.sentence
    assert not any(name in Words({}, frozenset()).hide(said.sentence) for name in ("Schmidt", "Mueller"))


def test_ct_that_is_stored_as_a_study_of_its_own_is_converted_with_its_pet(tmp_path):
    study = written(tmp_path / "dicom", edit_ct=edits.setting(StudyInstanceUID=make_uid("a study of its own")))
    convert(tmp_path / "dicom", tmp_path / "nifti")
    np.testing.assert_array_equal(voxels(next((tmp_path / "nifti/imagesTr").glob("*_0000*"))), study.ct)


def test_patients_whose_series_have_one_uid_are_told_apart(tmp_path):
    folders = []
    for identifier, weight in (("A", 60.0), ("B", 90.0)):
        folders.append(written(tmp_path / identifier, person=Person(identifier="same", weight=weight)).folder)
        for file in folders[-1].rglob("*.dcm"):
            dataset = pydicom.dcmread(file)
            dataset.PatientID = identifier
            dataset.save_as(file)
    studies = find_in_folder(tmp_path)[0]
    assert [study.patient for study in studies] == ["A", "B"]
    for study, folder in zip(studies, folders, strict=True):
        assert all(folder in file.parents for file in (*study.pet.files, *study.ct.files))


def test_links_to_folders_of_patients_are_followed_once(tmp_path):
    written(tmp_path / "archive/patient")
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "patient").symlink_to(tmp_path / "archive/patient", target_is_directory=True)
    (chosen / "round").symlink_to(chosen, target_is_directory=True)
    assert len(find_in_folder(chosen)[0]) == 1


def test_series_is_named_by_uid_or_description(tmp_path):
    study = written(tmp_path)
    named = find_in_folder(tmp_path, DicomOptions(pet_series=study.pet_uid, ct_series="ct wb 3.0 b30f"))[0]
    assert [(each.pet.series, each.ct.series) for each in named] == [(study.pet_uid, study.ct_uid)]
    studies, problems = find_in_folder(tmp_path, DicomOptions(pet_series="PET wrong"))
    assert studies == []
    assert "PET WB AC" in str(problems[0])
    assert "--pet_series" in str(problems[0])


def test_weight_of_one_patient_is_not_taken_for_several(tmp_path):
    written(tmp_path / "a", study_key="a")
    written(tmp_path / "b", study_key="b")
    with pytest.raises(InputError, match="2 studies, and weight"):
        find_in_folder(tmp_path, DicomOptions(suv=SuvOptions(weight=80)))


def test_study_without_weight_is_read_once_it_is_given(tmp_path):
    def without_weight(ds):
        del ds.PatientWeight

    study = written(tmp_path, edit_pet=without_weight)
    (found,) = find_in_folder(tmp_path)[0]
    with pytest.raises(InputError, match="--weight"):
        read_volume(found.pet)
    (found,) = find_in_folder(tmp_path, DicomOptions(suv=SuvOptions(weight=study.variant.person.weight)))[0]
    np.testing.assert_allclose(read_volume(found.pet)[0].array, study.pet, rtol=1e-4, atol=1e-5)
    assert found.pet.describe()["suv"]["given"] == ["weight"]


# ---------------------------------------------------------------- lists and single studies


def test_list_names_folders_files_and_uids_of_series_with_what_headers_lack(tmp_path):
    def without_weight(ds):
        del ds.PatientWeight

    first = written(tmp_path / "one", study_key="one")
    second = written(tmp_path / "two", study_key="two", edit_pet=without_weight)
    with open(tmp_path / "list.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["case", "ct", "pet", "weight"])
        table.writerow(["folders", "one", "one", ""])
        table.writerow(["files", os.path.relpath(first.ct_files[3], tmp_path), os.path.relpath(first.pet_files[5], tmp_path), ""])
        table.writerow(["uids", second.ct_uid, second.pet_uid, "72"])
        table.writerow(["wrong", "one", "1.2.3.4.5", ""])
        table.writerow(["letters", "one", "one", "heavy"])
    studies, problems = find_studies(tmp_path / "list.csv", labels=False)
    assert {study.case: (study.ct.series, study.pet.series) for study in studies} == {
        "folders": (first.ct_uid, first.pet_uid),
        "files": (first.ct_uid, first.pet_uid),
        "uids": (second.ct_uid, second.pet_uid),
    }
    assert {problem.case for problem in problems if problem.error} == {"wrong", "letters"}
    for study, expected in zip(studies, (first, first, second), strict=True):
        np.testing.assert_allclose(read_volume(study.pet)[0].array, expected.pet, rtol=1e-4, atol=1e-5)


def test_single_study_is_named_by_the_folders_of_its_series(tmp_path):
    study = written(tmp_path)
    source, known = source_of(tmp_path, ct=tmp_path, pet=study.pet_files[0].parent)
    assert (source.case, source.patient, source.tracer) == ("fdg_0042_2023-05-04", "PSMA_0042", "fdg")
    assert known == []
    with pytest.raises(InputError, match="holds no PET"):
        source_of(tmp_path, ct=tmp_path, pet=study.ct_files[0].parent)


# ---------------------------------------------------------------- provenance


def select(folder: Path, output: Path, **dicom) -> list[str]:
    """Cases that an inference of a folder has to do, after which their masks are written and recorded."""
    records = Records(output, "inference")
    masks = Masks(records, [output])
    selection = select_studies(folder, masks, SelectOptions(dicom=DicomOptions(**dicom)))
    for item in selection.items:
        with records.making(masks.plan(item)):
            (output / f"{item['case']}.nii.gz").write_text("a mask")
    return [item["case"] for item in selection.items]


def test_moved_or_copied_dicom_is_not_segmented_again_and_changed_dicom_is(tmp_path):
    written(tmp_path / "studies")
    output = tmp_path / "masks"
    case = ["fdg_0042_2023-05-04"]
    assert select(tmp_path / "studies", output) == case
    assert select(tmp_path / "studies", output) == []
    shutil.copytree(tmp_path / "studies", tmp_path / "copy")
    shutil.rmtree(tmp_path / "studies")
    assert select(tmp_path / "copy", output) == []
    assert select(tmp_path / "copy", output, suv=SuvOptions(weight=90)) == case
    pet = next(file for file in sorted((tmp_path / "copy").rglob("*.dcm")) if pydicom.dcmread(file).Modality == "PT")
    dataset = pydicom.dcmread(pet)
    dataset.PatientWeight = "70"
    for file in pet.parent.glob("*"):
        dataset = pydicom.dcmread(file)
        dataset.PatientWeight = "70"
        dataset.save_as(file)
    assert select(tmp_path / "copy", output) == case


def test_record_says_which_series_were_taken_and_how_suv_were_computed(tmp_path):
    study = written(tmp_path / "studies")
    select(tmp_path / "studies", tmp_path / "masks")
    about = json.loads((tmp_path / "masks/records/fdg_0042_2023-05-04.json").read_text())["about"]
    assert about["ct"]["series"] == study.ct_uid
    suv = about["pet"]["suv"]
    person, tracer = study.variant.person, study.variant.tracer
    assert (suv["weight_kg"], suv["dose_mbq"], suv["units"]) == (person.weight, pytest.approx(tracer.dose / 1e6), "BQML")
    decayed = tracer.dose * 0.5 ** (study.variant.timing.uptake / tracer.half_life)
    assert suv["factor"] == pytest.approx(1000 * person.weight / decayed, rel=1e-4)
    assert suv["delay_min"] == pytest.approx(study.variant.timing.uptake / 60, abs=0.1)


# ---------------------------------------------------------------- converting and preparing


def test_convert_writes_ct_suv_and_label_in_the_challenges_layout_once(tmp_path, capsys):
    study = write_tcia(tmp_path / "dicom", STUDY)
    output = tmp_path / "with a space"
    convert(tmp_path / "dicom", output)
    case = find_in_folder(tmp_path / "dicom")[0][0].case
    np.testing.assert_allclose(voxels(output / f"imagesTr/{case}_0001.nii.gz"), study.pet, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(voxels(output / f"imagesTr/{case}_0000.nii.gz"), study.ct, atol=0.01)
    np.testing.assert_array_equal(voxels(output / f"labelsTr/{case}.nii.gz"), study.label)
    about = json.loads((output / f"records/{case}.json").read_text())["about"]
    assert about["pet"]["suv"]["weight_kg"] == study.variant.person.weight
    files = {file: file.stat().st_mtime_ns for file in output.rglob("*.nii.gz")}
    convert(tmp_path / "dicom", output)
    assert {file: file.stat().st_mtime_ns for file in output.rglob("*.nii.gz")} == files
    (found,), _ = find_studies(output, labels=True)
    assert found.case == case


def test_pet_alone_is_converted(tmp_path):
    study = written(tmp_path / "dicom", change_ct=lambda slices: [])
    convert(tmp_path / "dicom", tmp_path / "nifti")
    assert [file.name for file in (tmp_path / "nifti/imagesTr").iterdir()] == ["fdg_0042_2023-05-04_0001.nii.gz"]
    np.testing.assert_allclose(voxels(next((tmp_path / "nifti/imagesTr").iterdir())), study.pet, rtol=1e-4, atol=1e-5)


def test_conversion_never_replaces_a_file_of_somebody_else(tmp_path):
    written(tmp_path / "dicom")
    own = tmp_path / "nifti/imagesTr/fdg_0042_2023-05-04_0001.nii.gz"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(InputError, match=r"1 study could not be converted, and nothing was done:\n.*no result of this program"):
        convert(tmp_path / "dicom", tmp_path / "nifti")
    assert own.read_text() == "mine"


def test_study_that_cannot_be_read_costs_no_other(tmp_path):
    def without_weight(ds):
        del ds.PatientWeight

    written(tmp_path / "good", study_key="good", person=Person(identifier="good"))
    written(tmp_path / "bad", study_key="bad", person=Person(identifier="bad"), edit_pet=without_weight)
    with pytest.raises(SomeFailedError, match=r"study fdg_bad_2023-05-04: PET .* has no patient weight"):
        convert(tmp_path, tmp_path / "nifti")
    assert [file.name for file in (tmp_path / "nifti/imagesTr").glob("*_0001*")] == ["fdg_good_2023-05-04_0001.nii.gz"]


def test_damaged_file_costs_the_study_among_whose_slices_it_lies_and_no_other(tmp_path):
    good = written(tmp_path / "good", study_key="good", person=Person(identifier="good"))
    bad = written(tmp_path / "bad", study_key="bad", person=Person(identifier="bad"))
    # What is none of its slices: an empty file of another kind, and a damaged one in a folder of its own.
    (good.pet_files[0].parent / "notes.txt").write_text("")
    (tmp_path / "good/elsewhere").mkdir()
    (tmp_path / "good/elsewhere/report.dcm").write_bytes(good.pet_files[0].read_bytes()[:1000])
    bad.pet_files[-1].write_bytes(b"")
    (study,), problems = find_in_folder(tmp_path)
    assert study.case == "fdg_good_2023-05-04"
    assert [(problem.case, problem.file, problem.error) for problem in problems] == [
        ("fdg_bad_2023-05-04", bad.pet_files[-1], True),
        ("good/elsewhere", tmp_path / "good/elsewhere/report.dcm", False),
    ]
    # Where slices of several studies lie in one folder, nothing tells whose it is.
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, file in enumerate((*good.ct_files, *good.pet_files, *bad.ct_files, *bad.pet_files)):
        shutil.copyfile(file, mixed / f"{number}.dcm")
    studies, problems = find_in_folder(mixed)
    assert [found.case for found in studies] == ["fdg_bad_2023-05-04", "fdg_good_2023-05-04"]
    assert [(problem.case, problem.error) for problem in problems if "cut off" in problem.sentence] == [("mixed", False)]


@pytest.mark.parametrize("name", ["first slice cut off in the header", "last slice cut off in the header", "last slice empty"])
def test_damaged_slice_of_a_series_that_is_named_is_refused_as_in_a_folder(tmp_path, name):
    write_study(tmp_path, STUDY, VARIANTS[name])
    with pytest.raises(InputError, match=r"\.dcm .*(cut off|empty).*, or take it away if it is no slice"):
        study_of_places(tmp_path / "ct", tmp_path / "pet")
    (tmp_path / "list.csv").write_text("case,ct,pet\na,ct,pet\n")
    studies, (problem,) = find_studies(tmp_path / "list.csv", labels=False)
    assert not studies
    assert problem.error
    file = next((tmp_path / "pet").glob("*.dcm"))
    file.write_bytes(file.read_bytes()[:400])
    (tmp_path / "list.csv").write_text(f"case,ct,pet\na,ct,pet/{file.name}\n")
    assert file.name in find_studies(tmp_path / "list.csv", labels=False)[1][0].sentence


def test_half_of_a_label_is_none(tmp_path):
    study = written(tmp_path)
    write_seg(tmp_path / "seg/one.dcm", study)
    write_seg(tmp_path / "seg/other.dcm", study)
    (tmp_path / "seg/other.dcm").write_bytes((tmp_path / "seg/other.dcm").read_bytes()[:600])
    studies, problems = find_studies(tmp_path, labels=True)
    assert not studies
    assert any(problem.error and "other.dcm" in problem.sentence for problem in problems)
    (tmp_path / "list.csv").write_text("case,ct,pet,label\na,ct,pet,seg\n")
    studies, (problem,) = find_studies(tmp_path / "list.csv", labels=True)
    assert not studies
    assert "other.dcm" in problem.sentence


def test_ct_and_pet_of_two_persons_are_not_one_study(tmp_path):
    written(tmp_path / "A", person=Person(identifier="A1", name="Able^Ann"))
    write_study(tmp_path / "B", small_study(1), replace(PLAIN, person=Person(identifier="B2", name="Baker^Bob"), study_key="b"))
    with pytest.raises(InputError, match=r"is of patient 'A1' and its PET .* of patient 'B2'.*: name CT and PET of one patient"):
        study_of_places(tmp_path / "A/ct", tmp_path / "B/pet")
    (tmp_path / "list.csv").write_text("case,ct,pet\na,A/ct,B/pet\nb,B/ct,B/pet\n")
    studies, (problem,) = find_studies(tmp_path / "list.csv", labels=False)
    assert [study.case for study in studies] == ["b"]
    assert (problem.case, problem.error) == ("a", True)


def test_ct_of_the_same_person_in_another_space_is_a_warning(tmp_path):
    written(tmp_path / "A")
    write_study(tmp_path / "B", STUDY, replace(PLAIN, study_key="b"))
    _, problems = study_of_places(tmp_path / "A/ct", tmp_path / "B/pet")
    assert [problem.sentence for problem in problems if "another frame of reference" in problem.sentence]
    assert not study_of_places(tmp_path / "A/ct", tmp_path / "A/pet")[1]


def test_list_takes_patients_from_the_headers_so_that_no_person_is_in_training_and_validation(tmp_path):
    for name in ("s1", "s2"):
        write_study(tmp_path / name, STUDY, replace(PLAIN, study_key=name, person=Person(identifier="PSMA_0042", name="A^B")))
    (tmp_path / "list.csv").write_text("case,ct,pet,patient\nscan1,s1/ct,s1/pet,\nscan2,s2/ct,s2/pet,\nscan3,s2/ct,s2/pet,Bob\n")
    studies, _ = find_studies(tmp_path / "list.csv", labels=False)
    assert [(study.patient, study.tracer) for study in studies] == [("PSMA_0042", "fdg"), ("PSMA_0042", "fdg"), ("Bob", "fdg")]


def test_pet_that_has_lost_its_end_is_told_by_the_number_in_its_header(tmp_path):
    written(tmp_path)
    files = sorted((tmp_path / "pet").iterdir())
    assert not read_pet(files).warnings
    assert any("has 11 slices, and its header says that there are 16" in warning for warning in read_pet(files[:11]).warnings)


def test_label_that_was_drawn_on_another_pet_of_the_study_is_told(tmp_path):
    study = written(tmp_path, beside=(second_pet("late", 9, "PET late AC", change=lambda slices: slices[:12]),))
    late = sorted((tmp_path / "late").iterdir(), key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))
    of_late = copy.copy(study)
    of_late.pet_files, of_late.pet_sop_uids = late, [pydicom.dcmread(file).SOPInstanceUID for file in late]
    write_seg(tmp_path / "seg/late.dcm", of_late, study.label[:, :, :12])
    (found,), problems = find_in_folder(tmp_path)
    assert found.pet.files[0].parent.name == "pet"
    assert any("was drawn on the PET 'PET late AC'" in problem.sentence for problem in problems)


@pytest.mark.parametrize("names", ["slices", "screenshot"])
def test_files_of_any_name_hide_no_study_in_dicom(tmp_path, names):
    if names == "slices":
        written(tmp_path, path=lambda series, number: f"{series}_{number:04d}.dcm")
    else:
        written(tmp_path / "dicom")
        (tmp_path / "screenshot_0001.png").write_bytes(b"png")
    studies, problems = find_studies(tmp_path, labels=False)
    assert len(studies) == 1
    assert not problems


def test_dicom_among_pairs_of_volumes_is_told(tmp_path):
    written(tmp_path / "dicom")
    write_pair(tmp_path / "volumes", "fdg_a_1")
    for file in (tmp_path / "volumes/imagesTr").iterdir():
        file.rename(tmp_path / file.name)
    studies, (problem,) = find_studies(tmp_path, labels=False)
    assert [study.case for study in studies] == ["fdg_a_1"]
    assert "is DICOM among pairs of NIfTI" in problem.sentence


def test_slices_that_state_different_weights_are_refused(tmp_path):
    written(tmp_path)
    for file in sorted((tmp_path / "pet").iterdir())[8:]:
        ds = pydicom.dcmread(file)
        ds.PatientWeight = 50
        ds.save_as(file)
    files = sorted((tmp_path / "pet").iterdir())
    with pytest.raises(InputError, match=r"says different things in its slices, 50 and .* \(PatientWeight\)"):
        read_pet(files)
    assert read_pet(files, SuvOptions(weight=70)).facts["suv"]["weight_kg"] == 70


def test_slices_that_state_different_heights_give_no_lean_body_mass(tmp_path):
    """SUL by a height that half of the slices state would be wrong without a word."""
    written(tmp_path, change_pet=edits.only(range(8), edits.setting(PatientSize="1.50")))
    (study,) = find_in_folder(tmp_path)[0]
    unread = replace(study.pet)
    read_volume(study.pet)
    assert [source.body() for source in (study.pet, unread)] == [None, None]
    person = PLAIN.person
    (study,) = find_in_folder(tmp_path, DicomOptions(suv=SuvOptions(height=person.height)))[0]
    assert study.pet.body() == Body(person.weight, person.height, person.sex)


def test_enhanced_file_with_an_element_that_cannot_be_decoded_costs_no_other_study(tmp_path):
    damage = patched(0x0008103E, b"xx", vr="ZZ", everywhere=True)
    write_study(tmp_path / "bad", STUDY, replace(PLAIN, enhanced=("CT", "PT"), damage=damage))
    write_study(tmp_path / "good", small_study(1), replace(PLAIN, study_key="good", person=Person(identifier="G", name="G")))
    studies, _ = find_in_folder(tmp_path)
    assert "G" in {study.patient for study in studies}


def test_archives_of_tcia_as_downloaded_are_prepared(tmp_path):
    for number, collection in enumerate(("FDG-PET-CT-Lesions", "FDG-PET-CT-Lesions", "PSMA-PET-CT-Lesions")):
        prefix = "PETCT_" if collection.startswith("FDG") else "PSMA_"
        person = Person(identifier=f"{prefix}{number:04x}")
        write_tcia(
            tmp_path / "manifest", small_study(seed=number), replace(PLAIN, person=person, study_key=str(number)), collection
        )
    data = tmp_path / "prepared"
    prepare(tmp_path / "manifest", data, PrepareOptions(validation_fraction=0.3))
    content = json.loads((data / "datalist.json").read_text())
    items = content["training"] + content["validation"]
    assert sorted(item["patient"] for item in items) == ["PETCT_0000", "PETCT_0001", "PSMA_0002"]
    for item in items:
        label = data / content["studies_dir"] / item["original"]["label"]
        number = int(item["patient"][-1])
        np.testing.assert_array_equal(voxels(label), write_again(number, tmp_path).label)
    before = {file: file.stat().st_mtime_ns for file in data.rglob("*") if file.is_file()}
    prepare(tmp_path / "manifest", data, PrepareOptions(validation_fraction=0.3))
    assert {file: file.stat().st_mtime_ns for file in data.rglob("*") if file.is_file()} == before


def write_again(number: int, folder: Path):
    return write_study(folder / f"again{number}", small_study(seed=number), PLAIN)


# ---------------------------------------------------------------- headers that lie


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_damaged_files_are_read_or_named_and_never_a_traceback(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    name, original = data.draw(st.sampled_from(ORIGINALS))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        how = data.draw(st.sampled_from(["byte", "cut", "letters", "zeros"]))
        if how == "byte":
            damaged[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del damaged[max(place, 200) :]
        else:
            filling = b"\xff\xfe" if how == "letters" else bytes(8)
            damaged[place : place + len(filling)] = filling
    for other, content in ORIGINALS[:12]:
        (folder / other).write_bytes(content)
    (folder / name).write_bytes(damaged)
    studies, problems = find_in_folder(folder, needs_ct=False)
    assert all(problem.sentence for problem in problems)
    for study in studies:
        # Whatever else is raised fails.
        with contextlib.suppress(InputError):
            read_volume(study.pet)


def originals() -> list[tuple[str, bytes]]:
    """Twelve slices of a PET, small, as bytes."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    study = written(folder, change_pet=lambda slices: slices[:12])
    content = [(file.name, file.read_bytes()) for file in sorted(study.pet_files)]
    shutil.rmtree(folder)
    return content


ORIGINALS = originals()


def test_header_that_claims_a_million_times_its_pixels_is_refused_before_memory_is_asked_for(tmp_path):
    study = written(tmp_path)
    dataset = pydicom.dcmread(study.ct_files[0])
    dataset.NumberOfFrames = 1_000_000
    dataset.save_as(study.ct_files[0])
    with pytest.raises(InputError, match="pixels"):
        read_ct(study.ct_files)


def test_scan_passes_over_what_is_no_dicom_by_its_first_bytes(tmp_path):
    (tmp_path / "large.bin").write_bytes(bytes(200))
    with open(tmp_path / "large.bin", "r+b") as stream:
        stream.truncate(10**10)
    assert scan(tmp_path) == ([], [])
