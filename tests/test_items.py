"""Promises of finding masks, references and images by the names of their files, and of what is written about problems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from petct_cascade.items import images_of_case, item_of_case, items_of_cases, masks_in_folder, reference_items, validation_items
from petct_cascade.problems import Problem, in_order
from petct_cascade.results import row_of_problem
from petct_training.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_masks_are_found_by_case_and_everything_else_is_left(tmp_path):
    folder = touch(tmp_path, "b.nii.gz", "a.b.nii", ".hidden.nii", "notes.txt")
    files, problems = masks_in_folder(folder)
    assert files == {"a.b": folder / "a.b.nii", "b": folder / "b.nii.gz"}
    assert problems == []


def test_ct_and_pet_of_a_study_are_no_masks(tmp_path):
    folder = touch(tmp_path, "a_0000.nii.gz", "a_0001.mha", "a.nii.gz", "b_0000.nii", "c_0001.nii")
    files, problems = masks_in_folder(folder)
    assert list(files) == ["a", "b_0000", "c_0001"]
    assert problems == []


def test_mask_whose_suffix_is_in_capitals_is_named(tmp_path):
    files, (problem,) = masks_in_folder(touch(tmp_path, "a.NII.GZ", "b.nii.gz", "c.TXT"))
    assert list(files) == ["b"]
    assert str(problem) == "study a: a.NII.GZ ends with .NII.GZ: rename it, with .nii.gz in small letters"


def test_a_data_list_whose_raw_studies_are_elsewhere_says_how_to_find_them_again(tmp_path):
    (tmp_path / "datalist.json").write_text(json.dumps({"studies_dir": "../raw 2026", "training": [], "validation": []}))
    with pytest.raises(
        InputError, match=r"datalist\.json says that the raw studies lie in .*raw 2026, .*: prepare the data set again"
    ):
        validation_items(tmp_path)


def test_case_with_two_masks_is_a_problem_that_names_both(tmp_path):
    files, (problem,) = masks_in_folder(touch(tmp_path, "a.nii", "a.nii.gz", "b.nii"))
    assert list(files) == ["b"]
    assert problem.case == "a"
    assert str(problem) == "study a: a.nii.gz is not this study's only mask, there is a second file a.nii: take one of them away"


def test_case_with_three_masks_has_none(tmp_path):
    files, problems = masks_in_folder(touch(tmp_path, "a.mha", "a.nii", "a.nii.gz", "b.nii"))
    assert list(files) == ["b"]
    assert [problem.file.name for problem in problems] == ["a.nii", "a.nii.gz"]


def test_images_that_are_there_twice_are_a_problem_of_their_study_alone(tmp_path):
    folder = touch(tmp_path, "a_0000.nii", "a_0001.nii.gz", "a_0001.nii", "b_0001.nii")
    items, problems = items_of_cases(["a", "b"], folder)
    assert [item["case"] for item in items] == ["b"]
    assert [str(problem) for problem in problems] == [
        "study a: its PET a_0001.nii is there as a_0001.nii.gz, too: keep one of the two"
    ]


@pytest.mark.parametrize(("name", "sentence"), [("none", "is not a folder"), (".", "holds no masks")])
def test_folder_without_masks_is_one_sentence(tmp_path, name, sentence):
    with pytest.raises(InputError, match=sentence):
        masks_in_folder(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["fdg_7_x_0000.nii.gz", "fdg_7_x_0001.nii"], {"ct": "fdg_7_x_0000.nii.gz", "pet": "fdg_7_x_0001.nii"}),
        (["fdg_7_x_0001.nii.gz", "fdg_8_x_0000.nii"], {"pet": "fdg_7_x_0001.nii.gz"}),
        ([], {}),
    ],
)
def test_images_of_a_case_are_found_by_the_challenges_numbers(tmp_path, names, expected):
    touch(tmp_path, *names)
    assert images_of_case("fdg_7_x", tmp_path) == {role: tmp_path / name for role, name in expected.items()}


def test_item_knows_the_tracer_and_patient_of_the_challenges_names_only(tmp_path):
    touch(tmp_path, "psma_p7_2020_0001.nii")
    pet = str(tmp_path / "psma_p7_2020_0001.nii")
    assert item_of_case("psma_p7_2020", tmp_path) == {
        "case": "psma_p7_2020",
        "tracer": "psma",
        "patient": "p7",
        "image": [None, pet],
    }
    assert item_of_case("somebody", tmp_path) == {"case": "somebody"}


def test_references_of_the_challenges_layout_come_with_its_images(tmp_path):
    touch(tmp_path / "labelsTr", "fdg_a_1.nii.gz")
    touch(tmp_path / "imagesTr", "fdg_a_1_0000.nii.gz", "fdg_a_1_0001.nii.gz")
    (item,), _ = reference_items(tmp_path)
    assert item["label"] == str(tmp_path / "labelsTr/fdg_a_1.nii.gz")
    assert item["image"] == [str(tmp_path / f"imagesTr/fdg_a_1_{number}.nii.gz") for number in ("0000", "0001")]


def test_prepared_data_set_gives_its_validation_studies_with_their_original_files(tmp_path):
    original = {"ct": "ct.nii", "pet": "pet.nii", "label": "label.nii"}
    entry = {"case": "a", "patient": "7", "tracer": "fdg", "image": "images/a.nii", "label": "labels/a.nii", "original": original}
    content = {"studies_dir": "../raw", "training": [], "validation": [entry], "excluded": []}
    prepared = touch(tmp_path / "prepared")
    touch(tmp_path / "raw")
    (prepared / "datalist.json").write_text(json.dumps(content))
    raw = prepared / "../raw"
    expected = {"image": [str(raw / "ct.nii"), str(raw / "pet.nii")], "label": str(raw / "label.nii")}
    assert validation_items(prepared) == [{"case": "a", "patient": "7", "tracer": "fdg", **expected}]
    assert reference_items(dataset_dir=prepared) == (validation_items(prepared), [])


def test_row_of_a_problem_names_case_file_and_reason(tmp_path):
    about_a_file = Problem("a", tmp_path / "pet.nii", "is empty: copy it again", error=True)
    about_a_study = Problem("a", None, "there is no PET of this study", error=True)
    assert row_of_problem(about_a_file) == {
        "case": "a",
        "file": str(tmp_path / "pet.nii"),
        "reason": "pet.nii is empty: copy it again",
    }
    assert row_of_problem(about_a_study) == {"case": "a", "file": "", "reason": "there is no PET of this study"}
    assert in_order([about_a_file, about_a_study]) == [about_a_study, about_a_file]
