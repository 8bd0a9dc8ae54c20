"""Promises of finding and judging studies."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from damages import (
    CT,
    ERRORS,
    PET,
    WARNINGS,
)
from helpers import las, make_study, rewrite, rotated, write_nifti, write_study

from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.finding import dicom_options
from petct_cascade.judging import check_study, find_repeated_images, read_study
from petct_cascade.selection import source_of
from petct_cascade.studies import Study, find_studies, problem_of_name, study_of_files, study_of_places
from petct_cascade.volumes import read_mask, read_volume
from petct_training.errors import InputError
from petct_training.records import Plan, Records

CASE = "fdg_0cda25453b_10-12-2003-NA-PET-CT Ganzkoerper  primaer v1.5 mit KM-47333"


@pytest.fixture
def study(tmp_path) -> Study:
    """A study with which nothing is wrong."""
    return Study(CASE, "0cda25453b", "fdg", *write_study(tmp_path, CASE))


# ---------------------------------------------------------------- finding


def test_challenge_layout_is_found_with_patient_and_tracer(tmp_path):
    files = write_study(tmp_path, CASE)
    write_study(tmp_path, "psma_95b833d46f153cd2_2018-04-16", seed=1)
    studies, problems = find_studies(tmp_path, labels=True)
    assert problems == []
    assert studies[0] == Study(CASE, "0cda25453b", "fdg", *files)
    assert (studies[1].patient, studies[1].tracer) == ("95b833d46f153cd2", "psma")


def test_test_images_are_found_only_without_labels(tmp_path):
    write_study(tmp_path, "fdg_a_1")
    shutil.copytree(tmp_path / "imagesTr", tmp_path / "imagesTs")
    for file in (tmp_path / "imagesTs").iterdir():
        file.rename(file.with_name(file.name.replace("fdg_a_1", "fdg_b_1")))
    assert [study.case for study in find_studies(tmp_path, labels=True)[0]] == ["fdg_a_1"]
    assert [study.case for study in find_studies(tmp_path, labels=False)[0]] == ["fdg_a_1", "fdg_b_1"]


def test_plain_folder_is_found_with_labels_beside_the_images(tmp_path):
    files = [shutil.copy(file, tmp_path) for file in write_study(tmp_path / "elsewhere", "fdg_a_1")]
    studies, problems = find_studies(tmp_path, labels=True)
    assert problems == []
    assert studies == [Study("fdg_a_1", "a", "fdg", *map(Path, files))]


def test_images_folder_is_found_with_labels_in_the_folder_next_to_it(tmp_path):
    files = write_study(tmp_path, "fdg_a_1")
    studies, _ = find_studies(tmp_path / "imagesTr", labels=True)
    assert studies == [Study("fdg_a_1", "a", "fdg", *files)]


def test_labels_are_those_beside_a_linked_folder_of_images_and_else_those_beside_what_it_links_to(tmp_path):
    *_, others = write_study(tmp_path / "elsewhere", "fdg_a_1")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/imagesTr").symlink_to(tmp_path / "elsewhere/imagesTr")
    ((study,), _) = find_studies(tmp_path / "own", labels=True)
    assert study.label == others
    (tmp_path / "own/labelsTr").mkdir()
    mine = Path(shutil.copy(others, tmp_path / "own/labelsTr"))
    ((study,), _) = find_studies(tmp_path / "own", labels=True)
    assert study.label == mine


@pytest.mark.parametrize(
    ("pet", "case"),
    [
        ("anna/SUV.nii.gz", "anna_SUV"),
        ("bert/SUV.nii.gz", "bert_SUV"),
        ("anna/x/../suv.nii", "anna_suv"),
        (".hidden/pet.nii", "hidden_pet"),
        ("anna/fdg_0cda_day 1_0001.nii.gz", "fdg_0cda_day 1"),
        ("PETCT_0011f3deaf/03-23-2003 PET-CT/SUV.nii.gz", "fdg_0011f3deaf_03-23-2003 PET-CT"),
    ],
)
def test_the_name_of_two_files_is_what_tells_patients_apart(pet, case):
    assert study_of_files(Path("ct.nii"), Path("/data") / pet).case == case
    assert study_of_files(Path("ct.nii"), Path("/data") / pet, "Anna 2").case == "Anna 2"


def test_a_study_of_tcia_has_one_name_alone_and_in_its_data_set(tmp_path):
    ct, pet, _ = write_study(tmp_path / "elsewhere", "x")
    folder = tmp_path / "data/PETCT_0011f3deaf/03-23-2003"
    folder.mkdir(parents=True)
    for name, file in {"CTres": ct, "SUV": pet}.items():
        shutil.copy(file, folder / f"{name}.nii.gz")
    assert find_studies(tmp_path / "data", labels=False)[0] == [study_of_files(folder / "CTres.nii.gz", folder / "SUV.nii.gz")]


# e with an acute accent as one sign, as Linux and Windows write it, and as two, as macOS does.
@pytest.mark.parametrize(("first", "second"), [("Anna", "ANNA"), ("Ren\u00e9", "Rene\u0301")])
def test_names_that_many_file_systems_take_for_one_are_refused(first, second, tmp_path):
    write_study(tmp_path, first)
    write_study(tmp_path, second, seed=1)
    write_study(tmp_path, "bert", seed=2)
    studies, problems = find_studies(tmp_path, labels=True)
    assert [study.case for study in studies] == ["bert"]
    assert sorted(problem.case for problem in problems) == sorted([first, second])
    assert all("are one name for many file systems" in problem.message for problem in problems)


@pytest.mark.parametrize("case", ["10:30", 'a"b', "a?", "a.", "a ", "con", "NUL.2", "lpt1"])
def test_names_that_windows_cannot_write_are_refused_there_and_nowhere_else(case):
    assert problem_of_name(case, on_windows=False) is None
    assert "Windows" in problem_of_name(case, on_windows=True)


def test_a_name_for_many_studies_or_one_that_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(InputError, match="--case Anna names one study"):
        source_of(tmp_path, case="Anna")
    with pytest.raises(InputError, match=r"study a/b: the name cannot be used for a file.*or name it with --case"):
        source_of(tmp_path, "ct.nii", "pet.nii", case="a/b")


@pytest.mark.parametrize("parent", ["", "FDG-PET-CT-Lesions"])
def test_tcia_layout_is_found_and_prefers_the_resampled_ct_and_the_suv(tmp_path, parent):
    ct, pet, label = write_study(tmp_path / "elsewhere", "x")
    folder = tmp_path / "data" / parent / "PETCT_0011f3deaf/03-23-2003-NA-PET-CT Ganzkoerper-10445"
    folder.mkdir(parents=True)
    for name, file in {"CT": ct, "CTres": ct, "PET": pet, "SUV": pet, "SEG": label}.items():
        shutil.copy(file, folder / f"{name}.nii.gz")
    studies, problems = find_studies(tmp_path / "data", labels=True)
    assert problems == []
    files = [folder / f"{name}.nii.gz" for name in ("CTres", "SUV", "SEG")]
    assert studies == [Study("fdg_0011f3deaf_03-23-2003-NA-PET-CT Ganzkoerper-10445", "0011f3deaf", "fdg", *files)]
    (folder / "CTres.nii.gz").unlink()
    assert find_studies(tmp_path / "data", labels=True)[0][0].ct == folder / "CT.nii.gz"
    (folder / "SUV.nii.gz").unlink()
    studies, problems = find_studies(tmp_path / "data", labels=True)
    assert studies == []
    assert "PET.nii.gz is not in SUV" in str(problems[0])


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_list_is_read_with_paths_relative_to_it(tmp_path, delimiter):
    files = write_study(tmp_path / "sub", "x")
    relative = [str(file.relative_to(tmp_path)) for file in files]
    with open(tmp_path / "list.csv", "w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["case", "ct", "pet", "label", "Patient", "tracer", "centre"])
        writer.writerow(["Müller, 2", *relative, "Müller", "PSMA", "LMU"])
    studies, problems = find_studies(tmp_path / "list.csv", labels=True)
    assert problems == []
    assert studies == [Study("Müller, 2", "Müller", "psma", *files, centre="LMU")]


def test_json_list_is_read_with_ct_and_pet_or_image(tmp_path):
    ct, pet, _ = write_study(tmp_path, "x")
    rows = [{"case": "fdg_a_1", "ct": str(ct), "pet": str(pet)}, {"case": "fdg_b_1", "image": [str(ct), str(pet)]}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert problems == []
    assert [(study.patient, study.ct, study.pet, study.label) for study in studies] == [
        ("a", ct, pet, None),
        ("b", ct, pet, None),
    ]


def test_columns_are_known_however_they_are_written_and_others_are_passed_over(tmp_path):
    ct, pet, label = (file.relative_to(tmp_path) for file in write_study(tmp_path, "x"))
    (tmp_path / "list.csv").write_text(f"Case,CT,PET,Coarse-Mask,age,Half Life\nx,{ct},{pet},{label},71,\n")
    (tmp_path / "list.json").write_text(
        json.dumps([{"Case": "x", "CT": str(ct), "PET": str(pet), "Coarse-Mask": str(label), "age": [71], "Half Life": None}])
    )
    for name in ("list.csv", "list.json"):
        ((study,), problems) = find_studies(tmp_path / name, labels=False)
        assert problems == []
        assert study.coarse_mask == tmp_path / label


def test_rows_are_those_of_the_table_whatever_signs_are_in_them(tmp_path):
    ct, pet, _ = (file.relative_to(tmp_path) for file in write_study(tmp_path, "x"))
    rows = [
        "case,ct,pet,patient",
        f'"u\u2028v",{ct},{pet},"two\nlines"',
        ",,,",
        " , , , ",
        f"w,{ct},{pet},Doe,Anna",
        f",{ct},{pet},",
    ]
    (tmp_path / "list.csv").write_text("\r\n".join(rows), encoding="utf-8", newline="")
    studies, problems = find_studies(tmp_path / "list.csv", labels=False)
    assert [(study.case, study.patient) for study in studies] == [("u\u2028v", "two\nlines")]
    assert [str(problem) for problem in problems] == [
        "study list.csv, line 7: the study has no name: fill in its case",
        "study w: list.csv, line 6 has more cells than there are columns: put texts with ',' in quotes",
    ]


def test_values_of_json_are_texts_and_numbers(tmp_path):
    rows = [{"case": 0, "ct": "ct.nii", "pet": "pet.nii"}, {"case": "b", "ct": "ct.nii", "pet": ["pet.nii"], "label": {}}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert [study.case for study in studies] == ["0"]
    assert [str(problem) for problem in problems] == [
        "study b: list.json, entry 2 has no text as its pet and its label: write one in quotes"
    ]


def test_an_entry_of_json_that_is_no_object_costs_itself_alone(tmp_path):
    rows = [{"case": "a", "ct": "ct.nii", "pet": "pet.nii"}, "x", {"case": "b", "ct": "ct.nii", "pet": "pet.nii"}, 4, ["c"], None]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert [study.case for study in studies] == ["a", "b"]
    assert [problem.case for problem in problems] == [f"list.json, entry {number}" for number in (2, 4, 5, 6)]
    assert all(problem.error and "the entry is no object: write " in problem.sentence for problem in problems)


@pytest.mark.skipif(os.name == "nt", reason="a backslash parts folders there")
def test_a_path_of_windows_in_a_list_is_told_how_to_be_written(tmp_path):
    ct, pet, _ = write_study(tmp_path, "fdg_a_1")
    rows = [
        f"a,imagesTr/{ct.name},imagesTr\\{pet.name}",
        f"b,imagesTr/{ct.name},imagesTr/{pet.name}",
        f"c,C:\\x.nii,imagesTr/{pet.name}",
    ]
    (tmp_path / "list.csv").write_text("case,ct,pet\n" + "\n".join(rows))
    studies, problems = find_studies(tmp_path / "list.csv", labels=False)
    assert [study.case for study in studies] == ["b", "c"]
    assert [str(problem) for problem in problems] == [
        f"study a: list.csv names imagesTr\\{pet.name}, which is a path of Windows: write slashes, as in imagesTr/{pet.name}"
    ]


def test_a_folder_that_is_called_like_a_volume_is_called_a_folder(study):
    study.pet.unlink()
    study.pet.mkdir()
    assert [str(problem) for problem in check_study(study)] == [
        f"study {CASE}: {study.pet.name} is a folder in {study.pet.parent}, and no file: put the volume itself in its place"
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "list.csv",
            "case,ct,pet,coarsemask\na,b,c,d",
            "has a column 'coarsemask', which is not known: did you mean coarse_mask?",
        ),
        ("list.csv", "case,ct,pet,Weights\na,b,c,d", "has a column 'weights', .* did you mean weight?"),
        ("list.csv", "case,ct,pet,center\na,b,c,d", "has a column 'center', .* did you mean centre?"),
        ("list.csv", "case,ct,pet,label,CT\na,b,c,d,e", "gives ct twice for one study: keep one of the two"),
        ("list.json", '[{"case": "a", "ct": "b", "pet": "c", "ct": "d"}]', "gives ct twice for one study"),
        ("list.json", '[{"case": "a", "image": ["b", "c"], "pet": "d"}]', "gives pet twice for one study"),
        ("list.json", '[{"case": "a", "ct": "b", "pet": "c", "injectiontime": "10:00"}]', "did you mean injection_time?"),
        (
            "list.csv",
            "case,ct,pet,label,split\na,b,c,d,training",
            "has a column 'split', which would not be kept: preparing splits",
        ),
        ("list.csv", "case,ct,pet,label,Cv Fold\na,b,c,d,1", "has a column 'cv_fold', which would not be kept"),
        ("list.json", '[{"case": "a", "ct": "b", "pet": "c"}, {"case": "b", "fold": 1}]', "has a column 'fold', which would not"),
        ("list.json", "[[1]]", "not a list of studies"),
        ("list.csv", "name;ct\na;b", "no column case and no column pet"),
        ("list.csv", "", "no column case"),
        ("list.json", "{", "not valid JSON"),
        ("list.json", "{}", "not a list of studies"),
        ("missing.csv", None, "does not exist"),
    ],
)
def test_list_that_cannot_be_read_is_one_sentence(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        find_studies(tmp_path / name, labels=True)


@pytest.mark.parametrize("column", ["split", "fold", "set", "subset", "partition"])
def test_a_split_in_a_list_does_no_harm_where_all_studies_are_segmented(tmp_path, column):
    ct, pet, label = write_study(tmp_path, "fdg_a_1")
    row = f"a,imagesTr/{ct.name},imagesTr/{pet.name},labelsTr/{label.name}"
    (tmp_path / "list.csv").write_text(f"case,ct,pet,label,{column}\n{row},training")
    assert [study.case for study in find_studies(tmp_path / "list.csv", labels=False)[0]] == ["a"]
    with pytest.raises(InputError, match="scores every study; keep only the studies that are meant"):
        find_studies(tmp_path / "list.csv", labels=True)
    (tmp_path / "list.csv").write_text(f"case,ct,pet,label,my {column}\n{row},training")
    assert [study.case for study in find_studies(tmp_path / "list.csv", labels=True)[0]] == ["a"]


def test_folder_without_studies_says_which_layouts_are_read(tmp_path):
    with pytest.raises(InputError, match=r"imagesTr.*_0001.*SUV.*CSV"):
        find_studies(tmp_path, labels=True)


def test_study_without_ct_pet_or_label_is_named(tmp_path):
    for case, lost in (("fdg_a_1", 0), ("fdg_b_1", 1), ("fdg_c_1", 2), ("fdg_d_1", None)):
        files = write_study(tmp_path, case)
        if lost is not None:
            files[lost].unlink()
    studies, problems = find_studies(tmp_path, labels=True)
    assert [study.case for study in studies] == ["fdg_d_1"]
    assert [(problem.case, problem.error) for problem in problems] == [(case, True) for case in ("fdg_a_1", "fdg_b_1", "fdg_c_1")]
    for problem, words in zip(problems, ("no CT", "no PET", "no label"), strict=True):
        assert words in str(problem)


def test_other_formats_and_double_files_are_named(tmp_path):
    write_study(tmp_path, "fdg_a_1")
    (tmp_path / "imagesTr/fdg_b_1_0000.nrrd").write_text("")
    (tmp_path / "imagesTr/fdg_a_1_0000.nii").write_text("")
    (tmp_path / "imagesTr/._fdg_a_1_0001.nii.gz").write_text("")
    studies, problems = find_studies(tmp_path, labels=True)
    assert studies == []
    assert [problem.case for problem in problems] == ["fdg_a_1", "fdg_b_1"]
    assert "too: keep one of the two" in str(problems[0])
    assert "fdg_b_1_0000.nrrd does not end with .nii.gz" in str(problems[1])


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
@pytest.mark.parametrize("name", ["labelsTr/fdg_a_1", "PETCT_a/1/SUV", "PETCT_a/1/CTres", "PETCT_a/1/SEG"])
def test_a_volume_that_is_there_with_two_suffixes_is_an_error(tmp_path, name, suffix):
    ct, pet, label = write_study(tmp_path, "fdg_a_1")
    if name.startswith("PETCT"):
        folder = tmp_path / "PETCT_a/1"
        folder.mkdir(parents=True)
        for file, role in ((ct, "CTres"), (pet, "SUV"), (label, "SEG")):
            shutil.move(file, folder / f"{role}.nii.gz")
            shutil.rmtree(file.parent) if not any(file.parent.iterdir()) else None
    (tmp_path / f"{name}{suffix}").write_text("another one")
    studies, (problem,) = find_studies(tmp_path, labels=True)
    assert studies == []
    stem = Path(name).name
    assert str(problem) == f"study fdg_a_1: {stem}{suffix} is there as {stem}.nii.gz, too: keep one of the two"


def test_a_label_that_is_there_twice_costs_no_study_where_no_label_is_wanted(tmp_path):
    write_study(tmp_path, "fdg_a_1")
    (tmp_path / "labelsTr/fdg_a_1.mha").write_text("another one")
    ((study,), problems) = find_studies(tmp_path, labels=False)
    assert (study.case, study.label, problems) == ("fdg_a_1", None, [])
    folder = tmp_path / "of TCIA/PETCT_a/1"
    folder.mkdir(parents=True)
    for name in ("CTres.nii.gz", "SUV.nii.gz", "SEG.nii.gz", "SEG.nii"):
        (folder / name).touch()
    ((study,), problems) = find_studies(tmp_path / "of TCIA", labels=False)
    assert (study.case, study.label, problems) == ("fdg_a_1", None, [])


def test_what_lies_beside_the_volumes_of_a_study_takes_it_not_away(tmp_path):
    files = write_study(tmp_path, "fdg_a_1")
    for name in ("fdg_a_1_0001.json", "fdg_a_1_0000.txt"):
        (tmp_path / "imagesTr" / name).write_text("")
    ((study,), problems) = find_studies(tmp_path, labels=True)
    assert (study.ct, study.pet, study.label) == files
    assert problems == []


def test_suffix_in_capitals_is_named(tmp_path):
    _ct, pet, label = write_study(tmp_path, "fdg_a_1")
    label = label.rename(label.with_name("fdg_a_1.NII.GZ"))
    ((study,), _) = find_studies(tmp_path, labels=True)
    assert [str(problem) for problem in check_study(study)][:1] == [
        "study fdg_a_1: fdg_a_1.NII.GZ ends with .NII.GZ: rename it, with .nii.gz in small letters"
    ]
    pet.rename(pet.with_name("fdg_a_1_0001.Nii.gz"))
    studies, (problem,) = find_studies(tmp_path, labels=True)
    assert studies == []
    assert str(problem) == "study fdg_a_1: fdg_a_1_0001.Nii.gz ends with .Nii.gz: rename it, with .nii.gz in small letters"


def test_mask_that_this_program_has_written_among_the_studies_is_no_label_unless_somebody_changes_it(tmp_path):
    ct, pet, label = write_study(tmp_path / "made", "fdg_a_1")
    ct, pet, mask = ct.rename(tmp_path / ct.name), pet.rename(tmp_path / pet.name), tmp_path / label.name
    with Records(tmp_path, "inference").making(Plan("fdg_a_1", {"ct": ct, "pet": pet}, {}, [mask.name])):
        label.rename(mask)
    ((study,), problems) = find_studies(tmp_path, labels=False)
    assert (study.label, problems) == (None, [])
    studies, (problem,) = find_studies(tmp_path, labels=True)
    assert studies == []
    assert "fdg_a_1.nii.gz is a mask that this program has written here, and nobody's label" in str(problem)
    shutil.copyfile(write_study(tmp_path / "corrected", "fdg_a_1", seed=1)[2], mask)
    ((study,), problems) = find_studies(tmp_path, labels=True)
    assert (study.label, problems) == (mask, [])


def test_stray_quotation_mark_in_a_list_swallows_no_study(tmp_path):
    for number in range(5):
        write_study(tmp_path, f"fdg_{number}_1", seed=number)
    rows = [f"fdg_{n}_1,imagesTr/fdg_{n}_1_0000.nii.gz,imagesTr/fdg_{n}_1_0001.nii.gz,fine" for n in range(5)]
    source = tmp_path / "list.csv"

    def write(*marks: int) -> None:
        marked = [row.replace("fine", '"fine') if number in marks[:1] else row for number, row in enumerate(rows)]
        marked = [row + '"' if number in marks[1:] else row for number, row in enumerate(marked)]
        source.write_text("\n".join(["case,ct,pet,comment", *marked]) + "\n")

    write()
    assert len(find_studies(source, labels=False)[0]) == 5
    write(1)
    with pytest.raises(InputError, match=r"list\.csv, line 6 cannot be read .*: look for a quotation mark"):
        find_studies(source, labels=False)
    write(1, 3)
    studies, (problem,) = find_studies(source, labels=False)
    assert [study.case for study in studies] == ["fdg_0_1", "fdg_4_1"]
    assert "line 5 ends a text that holds whole rows" in problem.sentence
    # A comment of several lines is none of that.
    for comment in ('"fine\nand small, too, on the left, faint"', '"a,b,c,d"'):
        source.write_text("\n".join(["case,ct,pet,comment", rows[0].replace("fine", comment)]) + "\n")
        assert len(find_studies(source, labels=False)[0]) == 1


def test_list_in_json_that_is_nested_without_end_is_a_sentence(tmp_path):
    (tmp_path / "list.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not valid JSON"):
        find_studies(tmp_path / "list.json", labels=False)


@pytest.mark.parametrize("case", ["../../etc/x", "a/b", "a\\b", "..", ".hidden", "a\tb", "x" * 201, "ü" * 101])
def test_case_that_could_leave_the_output_folder_or_name_no_file_is_refused(tmp_path, case):
    rows = [{"case": case, "ct": "ct.nii", "pet": "pet.nii"}, {"case": "good", "ct": "ct.nii", "pet": "pet.nii"}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert [study.case for study in studies] == ["good"]
    assert [(problem.case, problem.error) for problem in problems] == [(case, True)]


def test_a_path_that_is_too_long_for_the_file_system_costs_its_own_study(tmp_path):
    rows = [{"case": "long", "ct": "c" * 300, "pet": "p.nii"}, {"case": "good", "ct": "c.nii", "pet": "p.nii"}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert "good" in [study.case for study in studies]
    assert {problem.case for problem in problems} <= {"long"}


def test_repeated_and_empty_cases_and_missing_columns_are_named(tmp_path):
    rows = [{"case": case, "ct": "ct.nii", "pet": "pet.nii"} for case in ("a", "a", "b", "", "c")]
    del rows[4]["pet"]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert [study.case for study in studies] == ["b"]
    assert [problem.case for problem in problems] == ["a", "c", "list.json, entry 4"]


@pytest.mark.parametrize("spellings", [("P 01", "p-01"), ("M\u00fcller", "Mu\u0308ller"), ("a", "A"), ("7_x", "7X")])
def test_patient_spelt_in_two_ways_counts_as_one_which_is_a_warning(tmp_path, spellings):
    patients = {"A1": spellings[0], "a2": spellings[1], "b": "another"}
    rows = [{"case": case, "ct": "c.nii", "pet": "p.nii", "patient": patient} for case, patient in patients.items()]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert [study.patient for study in studies] == [spellings[0], spellings[0], "another"]
    assert [(problem.case, problem.error) for problem in problems] == [("a2", False)]


def test_warning_of_a_patient_spelt_in_two_ways_that_look_alike_shows_how_they_differ(tmp_path):
    patients = {"A1": "M\u00fcller", "a2": "Mu\u0308ller"}
    rows = [{"case": case, "ct": "c.nii", "pet": "p.nii", "patient": patient} for case, patient in patients.items()]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert r"its patient 'Mu\u0308ller' counts as 'M\xfcller' of study A1" in str(
        find_studies(tmp_path / "list.json", labels=False)[1][0]
    )


@pytest.mark.parametrize("outside", ["../elsewhere/pet.nii", "sub/../../pet.nii", "/data/pet.nii"])
@pytest.mark.parametrize("role", ["ct", "pet", "label"])
def test_list_that_names_files_outside_of_its_folder_is_refused_unless_allowed(tmp_path, role, outside):
    inside = {"ct": "sub/ct.nii", "pet": str(tmp_path / "set/pet.nii"), "label": "sub/../label.nii"}
    rows = [{"case": "good", **inside}, {"case": "bad", **inside, role: outside}]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "set/list.json", labels=False)
    assert [study.case for study in studies] == ["good"]
    assert [(problem.case, problem.error) for problem in problems] == [("bad", True)]
    assert f"names {outside}, which lies outside of the list's folder" in str(problems[0])
    assert len(find_studies(tmp_path / "set/list.json", labels=False, allow_outside=True)[0]) == 2


# ---------------------------------------------------------------- judging


def test_good_study_has_no_problems(study):
    assert check_study(study) == []


def test_empty_label_is_not_an_error(tmp_path):
    healthy = Study("h", "h", "fdg", *write_study(tmp_path, "h", lesions=0))
    problems, volumes = read_study(healthy)
    assert problems == []
    assert not volumes["label"].array.any()


def test_study_through_symbolic_links_has_no_problems(study, tmp_path):
    links = []
    for role, file in study.files.items():
        links.append(tmp_path / f"{role}.nii.gz")
        links[-1].symlink_to(file)
    assert check_study(Study("linked", "a", "fdg", *links)) == []


@pytest.mark.parametrize("kind", ERRORS)
def test_broken_study_is_an_error_that_names_the_file(study, kind):
    role, damage, words = ERRORS[kind]
    damage(study.files[role])
    problems = check_study(study)
    assert problems
    assert problems[0].error
    assert problems[0].file == study.files[role]
    assert words in str(problems[0])
    assert str(problems[0]).startswith(f"study {CASE}: {study.files[role].name} ")
    # What is to be done stands behind the colon.
    assert len(problems[0].message.partition(": ")[2].split()) >= 3


@pytest.mark.parametrize("kind", ["CT elsewhere", "exchanged"])
def test_where_ct_and_pet_contradict_each_other_nothing_is_said_of_the_grid_of_the_label(study, kind):
    rewrite(study.label, affine=las((4, 4, 5), (40, 0, 0)))
    if kind == "CT elsewhere":
        rewrite(study.ct, affine=las((4, 4, 5), (500, 0, 0)))
    else:
        study = replace(study, ct=study.pet, pet=study.ct)
    assert not any(problem.file == study.label for problem in check_study(study))
    assert any(problem.error for problem in check_study(study))


@pytest.mark.parametrize("kind", WARNINGS)
def test_remarkable_study_is_used_with_a_warning(study, kind):
    role, change, words = WARNINGS[kind]
    change(study.files[role])
    if kind == "oblique":
        rewrite(study.label, affine=rotated(30))
        rewrite(study.ct, affine=rotated(30))
    problems = check_study(study)
    assert problems
    assert not any(problem.error for problem in problems)
    assert words in str(next(problem for problem in problems if problem.file == study.files[role]))


def test_file_that_is_cut_off_anywhere_is_called_so(study):
    whole = study.pet.read_bytes()
    for length in (3, 20, 100, 400, 500, 700, 1000, 2000, len(whole) - 100, len(whole) - 1):
        study.pet.write_bytes(whole[:length])
        assert "is damaged or cut off" in str(check_study(study)[0]), length


def test_one_changed_bit_of_a_compressed_file_is_noticed(study):
    content = bytearray(study.pet.read_bytes())
    # The checksum is what cannot be decompressed into other voxels.
    content[-8] ^= 1
    study.pet.write_bytes(content)
    assert "is damaged or cut off" in str(check_study(study)[0])


def test_exchanged_ct_and_pet_are_recognised(study):
    problems = check_study(Study(CASE, "p", "fdg", study.pet, study.ct, study.label))
    assert ["exchange the two files" in str(problem) for problem in problems if problem.error] == [True]


def test_ct_in_place_of_the_pet_is_recognised(study):
    problems = check_study(Study(CASE, "p", "fdg", study.ct, study.ct))
    assert [(problem.error, "same image" in str(problem)) for problem in problems] == [(True, True)]


def test_trailing_axes_of_length_one_are_accepted(study):
    rewrite(study.pet, PET[..., None])
    assert check_study(study) == []


def test_scaled_integers_are_judged_by_their_values(study):
    image = nib.Nifti1Image(PET, las((4, 4, 5)))
    image.set_data_dtype(np.int16)
    image.header.set_xyzt_units("mm")
    nib.save(image, study.pet)
    assert nib.load(study.pet).dataobj.slope != 1
    assert check_study(study) == []


def test_wrong_suffix_and_folder_are_errors(study, tmp_path):
    other = shutil.copy(study.pet, tmp_path / "pet.img")
    assert "convert it to NIfTI" in str(check_study(Study("a", "a", "fdg", study.ct, Path(other)))[0])
    for name in ("folder.nii", "folder"):
        (tmp_path / name).mkdir()
        assert "is a folder in" in str(check_study(Study("a", "a", "fdg", study.ct, tmp_path / name))[0])


def test_errors_come_before_warnings(study):
    rewrite(study.ct, np.maximum(CT, -100))
    rewrite(study.pet, PET * 5000)
    assert [problem.error for problem in check_study(study)] == [True, False]


def test_same_pet_in_two_studies_is_an_error_of_the_second(tmp_path):
    studies = [Study(case, case, "fdg", *write_study(tmp_path, case, seed)) for case, seed in (("b", 1), ("a", 1), ("c", 2))]
    digests = {study.case: read_study(study)[1]["pet"].digest for study in studies}
    assert [(problem.case, problem.error) for problem in find_repeated_images(digests)] == [("b", True)]
    assert "study a" in str(find_repeated_images(digests)[0])


# ---------------------------------------------------------------- files of other programs


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int8])
def test_mask_saved_from_floats_under_an_integer_header_is_zero_and_one(tmp_path, dtype):
    mask = np.zeros((20, 20, 20))
    mask[5:9, 5:9, 5:9] = 1
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    file = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(mask, las((4, 4, 5)), header), file)
    stored = np.asanyarray(nib.load(file).dataobj)
    assert stored.dtype.kind == "f", "the file must have a slope"
    volume = read_mask(file)
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array, mask)


def test_values_of_a_refused_mask_are_shown_so_that_they_differ_from_zero_and_one(tmp_path):
    file = tmp_path / "mask.nii.gz"
    write_nifti(file, np.linspace(0, 1.002, 27, dtype=np.float32).reshape(3, 3, 3)[[0, 0, 2]], las((4, 4, 5)))
    with pytest.raises(InputError, match=r"holds the values 0, 0\.03853846"):
        read_mask(file)


@pytest.mark.parametrize("dtype", [">i2", ">f4", ">u2"])
def test_big_endian_volumes_become_tensors(tmp_path, dtype):
    file, array = tmp_path / "label.nii.gz", (np.indices((4, 5, 6)).sum(axis=0) % 2).astype(dtype)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(array, las((4, 4, 5)), header), file)
    np.testing.assert_array_equal(torch.from_numpy(read_mask(file).array).numpy(), array)
    np.testing.assert_array_equal(torch.from_numpy(read_volume(file)[0].array).numpy(), array)


def test_places_that_contradict_each_other_are_a_warning(study):
    image = nib.load(study.pet)
    moved = image.affine.copy()
    moved[0, 3] += 25
    image.set_sform(image.affine, 2)
    image.set_qform(moved, 1)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), study.pet)
    (problem,) = check_study(study)
    assert not problem.error
    assert "two places that lie 25.0 mm apart (sform and qform)" in problem.sentence


@pytest.mark.parametrize("system", ["__MACOSX", ".Trash-1000", "@eaDir"])
def test_folders_of_the_system_beside_the_patients_are_no_studies(tmp_path, system):
    for patient in ("aaa", "bbb"):
        for name, array in zip(("CTres", "SUV", "SEG"), make_study(), strict=True):
            write_nifti(tmp_path / f"PETCT_{patient}/01-01-2000/{name}.nii.gz", array, las((4, 4, 5)))
            shadow = tmp_path / f"{system}/PETCT_{patient}/01-01-2000/._{name}.nii.gz"
            shadow.parent.mkdir(parents=True, exist_ok=True)
            shadow.write_bytes(b"\0\5\x16\7" + bytes(100))
    studies, problems = find_studies(tmp_path, labels=True)
    assert [found.case for found in studies] == ["fdg_aaa_01-01-2000", "fdg_bbb_01-01-2000"]
    assert not problems


class TestBody:
    """What a user says of the body of a patient whose PET is no DICOM."""

    def test_list_and_options_say_it_and_incomplete_is_none(self, tmp_path):
        write_study(tmp_path, "a")
        ct, pet, _ = (path.relative_to(tmp_path) for path in write_study(tmp_path, "a"))
        rows = [f"full,{ct},{pet},70.5,1.8,m", f"part,{ct},{pet},70.5,,m", f"none,{ct},{pet},,,"]
        (tmp_path / "list.csv").write_text("\n".join(["case,ct,pet,weight,height,sex", *rows]))
        studies, problems = find_studies(tmp_path / "list.csv", labels=False)
        bodies = {study.case: study.body for study in studies}
        assert bodies == {"full": Body(70.5, 1.8, "M"), "part": None, "none": None}
        assert [str(problem) for problem in problems] == ["study part: SUL needs weight, height and sex: there is none"]

    def test_folder_of_one_study_takes_it_and_of_two_refuses_it(self, tmp_path):
        options = dicom_options(weight=70.5, height=1.8, sex="F")
        ct, pet, _ = write_study(tmp_path, "a")
        ((study,), _) = find_studies(tmp_path, labels=False, dicom=options)
        assert study.body == study_of_places(ct, pet, dicom=options)[0].body == Body(70.5, 1.8, "F")
        write_study(tmp_path, "b")
        with pytest.raises(InputError, match="there are 2 studies, and weight, height, sex can be that of one patient"):
            find_studies(tmp_path, labels=False, dicom=options)

    def test_dose_of_a_pet_in_suv_is_refused(self, tmp_path):
        ct, pet, _ = write_study(tmp_path, "a")
        with pytest.raises(InputError, match="are for a PET in DICOM, and this one is in SUV"):
            study_of_places(ct, pet, dicom=dicom_options(dose=200))
