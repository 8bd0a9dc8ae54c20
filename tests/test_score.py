"""Promises of scoring folders of masks: every bad file is named, and all others are scored."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import BUNDLES, ENSEMBLE, damage_middle, las, make_study, rewrite, studies_shown, write_nifti, write_study
from processes import run_python

import petct_cascade.tasks
from petct_cascade.commands import read_out_folder, reference_items, score_folder
from petct_cascade.gathering import gather
from petct_cascade.items import References
from petct_cascade.metrics import METRIC_NAMES
from petct_cascade.readouts import READOUT_FILES
from petct_cascade.report import write_report
from petct_cascade.results import write_results
from petct_cascade.scoring import score_studies, score_tasks
from petct_cascade.study_results import StudyResults
from petct_cascade.summary import METRICS, SCORE_FILES
from petct_cascade.tasks import ReadoutOptions, Results
from petct_training.errors import SomeFailedError
from petct_training.records import Records

SHAPE = (16, 14, 18)


MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda file: file.unlink(), "there is no mask of Prediction"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "damaged": (damage_middle, "is damaged or cut off"),
    "text": (lambda file: file.write_text("mask"), "is not compressed"),
    "probability": (lambda file: rewrite(file, np.full(SHAPE, 0.5, np.float32)), "holds the values 0.5: a mask is 0, and 1"),
    "NaN": (lambda file: rewrite(file, np.full(SHAPE, np.nan, np.float32)), "voxels without a number"),
    "larger": (lambda file: rewrite(file, np.zeros((17, 14, 18), np.uint8)), "resample it to the grid of the reference"),
    "elsewhere": (lambda file: rewrite(file, affine=las((4, 4, 5), (3, 0, 0))), "lies up to 3.0 mm beside the reference"),
    "4-D": (lambda file: rewrite(file, np.zeros((*SHAPE, 2), np.uint8)), "has 4 dimensions"),
    "twice": (lambda file: nib.save(nib.load(file), str(file).removesuffix(".gz")), "there is a second file"),
    "in metres": (lambda file: rewrite(file, affine=las((0.004, 0.004, 0.005))), "is not in mm"),
}


@pytest.fixture
def raw(tmp_path) -> Path:
    """A data set with a study of each kind and two good ones, and a folder `masks` with a copy of each label."""
    for number, name in enumerate((*MASKS, "good one", "good.two")):
        files = write_study(tmp_path / "raw", f"fdg_{number}_{name}", seed=number)
        label = nib.load(files[2])
        write_nifti(tmp_path / f"masks/fdg_{number}_{name}.nii.gz", np.asarray(label.dataobj), label.affine)
        if name in MASKS:
            MASKS[name][0](tmp_path / f"masks/fdg_{number}_{name}.nii.gz")
    write_nifti(tmp_path / "masks/nobody.nii.gz", np.zeros(SHAPE, np.uint8), las((4, 4, 5)))
    return tmp_path / "raw"


def test_every_bad_mask_is_named_and_all_others_are_scored(raw, tmp_path):
    with pytest.raises(SystemExit, match=rf"^error: {len(MASKS) + 1} studies could not be scored, all others were:") as end:
        score_folder(tmp_path / "masks", reference_items(raw), tmp_path / "out")
    assert end.value.code == 3
    for number, (name, (_, words)) in enumerate(MASKS.items()):
        assert re.search(rf"^  study fdg_{number}_{name}: .*{re.escape(words)}", str(end.value), flags=re.MULTILINE), name
    assert "study nobody: nobody.nii.gz of Prediction belongs to no study" in str(end.value)
    with open(tmp_path / "out/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"].split("_")[2] for row in rows] == ["good one", "good.two"]
    assert {float(row["dice"]) for row in rows} == {1.0}
    assert len(json.loads((tmp_path / "out/problems.json").read_text())) == len(MASKS) + 1


def new_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def few(tmp_path) -> tuple[Path, Path]:
    """A data set of three studies, and a folder with a copy of each label as a mask."""
    for number, name in enumerate("abc"):
        files = write_study(tmp_path / "few", name, seed=number)
        shutil.copy(files[2], new_folder(tmp_path / "copies") / files[2].name)
    return tmp_path / "few", tmp_path / "copies"


def test_scores_of_a_study_whose_reference_has_become_unusable_do_not_come_back_with_a_report(few, tmp_path):
    raw, masks = few
    score_folder(masks, reference_items(raw), tmp_path / "out")
    shutil.copy(raw / "labelsTr/b.nii.gz", raw / "labelsTr/b.mha")
    with pytest.raises(SystemExit, match="there is a second file"):
        score_folder(masks, reference_items(raw), tmp_path / "out")
    gather(tmp_path / "out")
    with (tmp_path / "out/scores.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["a", "c"]
    assert [row["case"] for row in json.loads((tmp_path / "out/problems.json").read_text())] == ["b"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda raw: shutil.copy(raw / "labelsTr/b.nii.gz", raw / "labelsTr/b.mha"),
            r"b\.nii\.gz of the references is not this study's only mask, there is a second file b\.mha: take one of them away",
        ),
        (
            lambda raw: (raw / "labelsTr/b.nii.gz").rename(raw / "labelsTr/b.NII.GZ"),
            r"b\.NII\.GZ of the references ends with \.NII\.GZ: rename it, with \.nii\.gz in small letters",
        ),
        (
            lambda raw: shutil.copy(raw / "imagesTr/b_0001.nii.gz", raw / "imagesTr/b_0001.mha"),
            r"its PET b_0001\.mha is there as b_0001\.nii\.gz, too: keep one of the two",
        ),
    ],
    ids=["two references", "capitals", "two PET"],
)
def test_reference_that_cannot_be_used_is_named_and_all_others_are_scored(few, tmp_path, damage, words):
    raw, masks = few
    score_folder(masks, reference_items(raw), tmp_path / "whole")
    damage(raw)
    with pytest.raises(SystemExit, match=rf"could not be scored, all others were:\n  study b: {words}$") as end:
        score_folder(masks, reference_items(raw), tmp_path / "out")
    assert end.value.code == 3
    whole, scored = ((tmp_path / name / "scores.csv").read_text().splitlines() for name in ("whole", "out"))
    assert scored == [line for line in whole if not line.startswith("b,")] != whole
    assert [row["case"] for row in json.loads((tmp_path / "out/problems.json").read_text())] == ["b"]
    for case in "ac":
        (raw / f"labelsTr/{case}.nii.gz").unlink()
    with pytest.raises(SystemExit, match=rf"labelsTr can be scored, and nothing was done:\n  study b: {words}$") as end:
        reference_items(raw)
    assert end.value.code == str(end.value), "a message is the exit code 1"


def tables_in(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*SCORE_FILES, *READOUT_FILES) if (folder / name).exists()}


def test_masks_that_are_numbered_0000_and_0001_are_scored(tmp_path):
    masks = new_folder(tmp_path / "masks")
    for number in range(3):
        files = write_study(tmp_path / "raw", f"case_000{number}", seed=number)
        shutil.copy(files[2], masks / files[2].name)
    score_folder(masks, reference_items(tmp_path / "raw"), tmp_path / "out")
    with open(tmp_path / "out/scores.csv", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["case_0000", "case_0001", "case_0002"]


def test_report_has_the_scores_that_the_run_has_written(few, tmp_path):
    raw, masks = few
    rewrite(masks / "c.nii.gz", np.zeros(SHAPE, np.uint8))
    (raw / "imagesTr/c_0001.nii.gz").unlink()
    with pytest.raises(SystemExit):
        score_folder(masks, reference_items(raw), tmp_path / "out")
    written = tables_in(tmp_path / "out")
    assert b"\nc," in written["scores.csv"]
    gather(tmp_path / "out")
    assert tables_in(tmp_path / "out") == written
    assert [row["case"] for row in json.loads((tmp_path / "out/problems.json").read_text())] == ["c"]
    # The same command does it again, since it may be mended.
    write_study(raw, "c", seed=2)
    score_folder(masks, reference_items(raw), tmp_path / "out")
    assert "c" in json.loads((tmp_path / "out/readouts.json").read_text())
    gather(tmp_path / "out")
    assert json.loads((tmp_path / "out/problems.json").read_text()) == []


def test_tables_of_an_earlier_run_do_not_pass_for_this_runs(few, tmp_path):
    raw, masks = few
    score_folder(masks, reference_items(raw), tmp_path / "scored")
    for file in (raw / "imagesTr").iterdir():
        file.rename(new_folder(tmp_path / "aside") / file.name)
    rewrite(masks / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    score_folder(masks, reference_items(raw / "labelsTr"), tmp_path / "scored")
    assert tables_in(tmp_path / "scored").keys() == set(SCORE_FILES)
    read_out_folder(masks, tmp_path / "aside", tmp_path / "read")
    assert tables_in(tmp_path / "read").keys() == set(READOUT_FILES)
    for mask in masks.iterdir():
        rewrite(mask, np.full(SHAPE, 3, np.uint8))
    with pytest.raises(SystemExit, match="nothing was done"):
        score_folder(masks, reference_items(raw / "labelsTr"), tmp_path / "scored")
    with pytest.raises(SystemExit, match="nothing was done"):
        read_out_folder(masks, tmp_path / "aside", tmp_path / "read")
    assert not tables_in(tmp_path / "scored") | tables_in(tmp_path / "read")


def test_study_that_fails_keeps_no_page_of_an_earlier_run(few, tmp_path):
    raw, masks = few
    read_out_folder(masks, raw, tmp_path / "out")
    own = {file for file in (tmp_path / "out").rglob("b*") if "records" not in file.parts}
    assert {file.name for file in own} >= {"b.html", "b.png", "b.json"}
    rewrite(raw / "imagesTr/b_0001.nii.gz", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(SystemExit):
        read_out_folder(masks, raw, tmp_path / "out")
    assert not [file for file in own if file.is_file()]
    assert (tmp_path / "out/studies/a.html").exists()


def test_thin_study_is_drawn_and_what_cannot_be_costs_no_other(few, tmp_path, monkeypatch):
    raw, masks = few
    ct, pet, label = (array[:, :, 5:10] for array in make_study((110, 70, 18), lesions=0))
    for folder, number, array in (("imagesTr", "_0000", ct), ("imagesTr", "_0001", pet), ("labelsTr", "", label)):
        write_nifti(raw / f"{folder}/thin{number}.nii.gz", array, las((4, 4, 5)))
    shutil.copy(raw / "labelsTr/thin.nii.gz", masks / "thin.nii.gz")
    read_out_folder(masks, raw, tmp_path / "out")
    assert (tmp_path / "out/pictures/thin.png").exists()

    def draw(picture, *_):
        if picture.stem == "a":
            raise ValueError("no such colour")
        new_folder(picture.parent)
        picture.write_bytes(b"")

    monkeypatch.setattr(petct_cascade.tasks, "overlay_picture", draw)
    with pytest.raises(SystemExit, match=r"study a: was not read out \(ValueError: no such colour\)"):
        read_out_folder(masks, raw, new_folder(tmp_path / "again"))
    assert set(json.loads((tmp_path / "again/readouts.json").read_text())) == {"b", "c", "thin"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names of files")
def test_name_that_is_not_text_costs_no_other_study(few, tmp_path):
    raw, masks = few
    name = os.fsdecode(b"M\xfcller")
    write_study(raw, name, seed=9)
    shutil.copy(raw / f"labelsTr/{name}.nii.gz", masks)
    for run, out in (
        (lambda out: score_folder(masks, reference_items(raw), out), "scored"),
        (lambda out: read_out_folder(masks, raw, out), "read"),
    ):
        with pytest.raises(SystemExit, match="the name is not text in UTF-8: rename the files"):
            run(tmp_path / out)
        assert set(json.loads((tmp_path / out / "readouts.json").read_text())) == {"a", "b", "c"}


def test_page_says_the_very_suv_range_of_its_picture(few, tmp_path):
    raw, masks = few
    read_out_folder(masks, raw, tmp_path / "out", options=ReadoutOptions(suv_range=(0, 2.5)))
    assert "SUV 0 (white) to 2.5 (black)" in (tmp_path / "out/studies/a.html").read_text()


def test_maps_of_uncertainty_are_found_though_names_are_hidden(few, tmp_path):
    raw, masks = few
    for name in "abc":
        write_nifti(tmp_path / f"maps/{name}.nii.gz", np.full(SHAPE, 0.25, np.float32), las((4, 4, 5)))
    options = ReadoutOptions(uncertainty_dir=tmp_path / "maps", deidentified=True)
    read_out_folder(masks, raw, tmp_path / "read", options=options)
    score_folder(masks, reference_items(raw), tmp_path / "scored", options=options)
    for folder in ("read", "scored"):
        for content in json.loads((tmp_path / folder / "readouts.json").read_text()).values():
            assert content["lesions"][0]["uncertainty_mean"] == pytest.approx(0.25)


def test_pet_that_is_not_in_suv_is_not_read_out(raw, tmp_path):
    case = f"fdg_{len(MASKS)}_good one"
    pet = raw / f"imagesTr/{case}_0001.nii.gz"
    rewrite(pet, nib.load(pet).get_fdata(dtype=np.float32) * 5000)
    with pytest.raises(SystemExit, match=rf"{case}: was not read out: {pet.name} holds values such as .* which look like Bq/ml"):
        read_out_folder(tmp_path / "masks", raw / "imagesTr", tmp_path / "out")
    assert case not in json.loads((tmp_path / "out/readouts.json").read_text())
    assert f"fdg_{len(MASKS) + 1}_good.two" in json.loads((tmp_path / "out/readouts.json").read_text())


def test_mask_whose_pet_is_missing_is_named_and_all_others_are_read_out(raw, tmp_path):
    case = f"fdg_{len(MASKS)}_good one"
    (raw / f"imagesTr/{case}_0001.nii.gz").unlink()
    for name, run in {
        "read-outs": partial(read_out_folder, tmp_path / "masks", raw / "imagesTr"),
        "scores": partial(score_folder, tmp_path / "masks", reference_items(raw)),
    }.items():
        with pytest.raises(SystemExit, match=rf"{case}: was not read out: there is no PET of this study: put {case}_0001.nii.gz"):
            run(tmp_path / name)
        assert list(json.loads((tmp_path / name / "readouts.json").read_text())) == [f"fdg_{len(MASKS) + 1}_good.two"]


def test_a_study_with_scores_that_is_not_read_out_does_not_count_as_not_scored(raw, tmp_path):
    case = f"fdg_{len(MASKS)}_good one"
    (raw / f"imagesTr/{case}_0001.nii.gz").unlink()
    counts = f"{len(MASKS) + 1} studies could not be scored, and 1 study could not be read out, all others were:"
    with pytest.raises(SystemExit, match=f"^error: {counts}"):
        score_folder(tmp_path / "masks", reference_items(raw), tmp_path / "out")
    assert case in (tmp_path / "out/scores.csv").read_text()


def test_images_may_be_named_by_the_folder_of_their_data_set(raw, tmp_path):
    read_outs = []
    for number, images in enumerate((raw, raw / "imagesTr")):
        with pytest.raises(SystemExit, match=rf"^error: {len(MASKS)} studies could not be read out, all others were"):
            read_out_folder(tmp_path / "masks", images, tmp_path / f"{number}")
        read_outs.append((tmp_path / f"{number}/readouts_lesions.csv").read_bytes())
    assert read_outs[0] == read_outs[1]
    of_labels = reference_items(raw / "labelsTr", images=raw)
    assert [item["image"] for item in of_labels.items] == [item["image"] for item in reference_items(raw).items]


def test_where_no_mask_can_be_used_nothing_was_done_which_is_exit_code_1(raw, tmp_path):
    (tmp_path / "of others").mkdir()
    (tmp_path / "masks/nobody.nii.gz").rename(tmp_path / "of others/nobody.nii.gz")
    for name, run in {
        "1 study could not be read out": partial(read_out_folder, tmp_path / "of others", raw / "imagesTr"),
        f"{len(MASKS) + 3} studies could not be scored": partial(score_folder, tmp_path / "of others", reference_items(raw)),
    }.items():
        with pytest.raises(SystemExit, match=rf"^error: {name}, and nothing was done:\n  study") as end:
            run(tmp_path / name)
        assert end.value.code == str(end.value), "a message is the exit code 1"


def test_read_outs_and_scores_do_not_replace_each_other(raw, tmp_path):
    with pytest.raises(SystemExit, match=r"studies could not be read out"):
        read_out_folder(tmp_path / "masks", raw / "imagesTr", tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    with pytest.raises(SystemExit, match=r"out holds results of another kind \(read-outs, this is scores\)"):
        score_folder(tmp_path / "masks", reference_items(raw), tmp_path / "out")
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_a_study_without_masks_of_two_models_is_one_study_that_could_not_be_scored(few, tmp_path):
    raw, masks = few
    shutil.copytree(masks, tmp_path / "others")
    for folder in (masks, tmp_path / "others"):
        (folder / "b.nii.gz").unlink()
    predictions = {"A": masks, "B": tmp_path / "others"}
    with pytest.raises(
        SomeFailedError, match=r"^1 study could not be scored, all others were:(\n  study b: there is no mask of [AB]){2}$"
    ):
        score_studies(reference_items(raw).items, predictions, tmp_path / "out")


@pytest.mark.parametrize("name", ["read-outs", "scores"])
def test_a_picture_that_somebody_has_edited_costs_no_other_study(few, tmp_path, name):
    raw, masks = few
    output, picture = tmp_path / "out", tmp_path / "out/pictures/a.png"
    run = {
        "read-outs": partial(read_out_folder, masks, raw / "imagesTr", output),
        "scores": partial(score_folder, masks, reference_items(raw), output),
    }[name]
    run()
    picture.write_bytes(picture.read_bytes() + b" ")
    content = {file: file.read_bytes() for file in (picture, output / "studies/a.json", output / "studies/a.html")}
    for case in "ab":
        rewrite(masks / f"{case}.nii.gz", np.ones(SHAPE, np.uint8))
    with pytest.raises(
        SystemExit, match=r"all others were:\n  study a: .*a\.png was changed after this program had written it"
    ) as end:
        run()
    assert end.value.code == 3
    table = json.loads((output / "readouts.json").read_text())
    assert {case: readouts["study"]["tmtv_ml"] > 300 for case, readouts in table.items()} == {"b": True, "c": False}
    assert {file: file.read_bytes() for file in content} == content
    assert [row["case"] for row in json.loads((output / "problems.json").read_text())] == ["a"]


def test_pictures_of_studies_that_are_no_longer_scored_are_taken_away_and_those_of_somebody_else_stay(tmp_path, capsys):
    cases = ("fdg_1_a", "fdg_2_b")
    for seed, case in enumerate(cases):
        label = nib.load(write_study(tmp_path / "raw", case, seed=seed)[2])
        write_nifti(tmp_path / f"masks/{case}.nii.gz", np.asarray(label.dataobj), label.affine)
    references = reference_items(tmp_path / "raw")
    pictures = tmp_path / "out/pictures"
    score_folder(tmp_path / "masks", references, tmp_path / "out")
    (pictures / "mine.png").write_text("mine")
    assert {file.name for file in pictures.iterdir()} == {"fdg_1_a.png", "fdg_2_b.png", "mine.png"}
    assert "taken away" not in capsys.readouterr().out
    (tmp_path / f"masks/{cases[1]}.nii.gz").unlink()
    score_folder(tmp_path / "masks", References(references.items[:1], []), tmp_path / "out")
    assert {file.name for file in pictures.iterdir()} == {"fdg_1_a.png", "mine.png"}
    assert "were taken away, of which this one has none: fdg_2_b.\n" in capsys.readouterr().out


def test_folder_of_a_study_goes_with_its_last_file_unless_somebody_elses_lies_there(few, tmp_path):
    raw, masks = few
    references, out = reference_items(raw), tmp_path / "out"
    score_folder(masks, references, out)
    assert {folder.name for folder in (out / "studies").iterdir() if folder.is_dir()} == {
        "a_files",
        "b_files",
        "c_files",
        "viewer",
    }
    (out / "studies/b_files/mine.txt").write_text("mine")
    for case in "ab":
        (masks / f"{case}.nii.gz").unlink()
    score_folder(masks, References(references.items[2:], []), out)
    assert {folder.name for folder in (out / "studies").iterdir() if folder.is_dir()} == {"b_files", "c_files", "viewer"}
    assert [file.name for file in (out / "studies/b_files").iterdir()] == ["mine.txt"]
    score_folder(masks, References(references.items[2:], []), out, options=ReadoutOptions(single_file=True))
    assert {folder.name for folder in (out / "studies").iterdir() if folder.is_dir()} == {"b_files"}


def test_scores_without_images_say_that_they_take_read_outs_away_and_leave_nothing_that_nobody_needs(few, tmp_path, capsys):
    raw, masks = few
    out, without_images = tmp_path / "out", reference_items(raw / "labelsTr")
    score_folder(masks, reference_items(raw), out)
    assert (out / "studies/viewer/niivue.js").is_file()
    assert "taken away" not in capsys.readouterr().out
    score_folder(masks, without_images, out)
    sentence = (
        "Read-outs of 3 studies of an earlier run, with their pictures and pages, were taken away, since no images are given now: "
        "name the folder of images with --images to have them again.\n"
    )
    assert capsys.readouterr().out.count(sentence) == 1
    left = {file.relative_to(out).as_posix() for file in out.rglob("*") if "records" not in file.parts}
    assert left == {"problems.json", "report.html", "studies", "studies/a.json", "studies/b.json", "studies/c.json", *SCORE_FILES}
    score_folder(masks, without_images, out)
    assert "taken away" not in capsys.readouterr().out, "there was nothing more"
    # With images everything is there again.
    score_folder(masks, reference_items(raw), out)
    assert (out / "studies/viewer/niivue.js").is_file()
    assert (out / "studies/a.html").is_file()


def test_pictures_and_viewer_of_a_study_that_another_run_has_begun_stay(few, tmp_path):
    raw, masks = few
    score_folder(masks, reference_items(raw), tmp_path / "out")
    (item, *_), options = reference_items(raw).items, ReadoutOptions()
    (task,) = score_tasks([item], {"Prediction": {"a": masks / "a.nii.gz"}}, {}, tmp_path / "out", options)
    StudyResults(Records(tmp_path / "out", "scores")).begin(task)
    (tmp_path / "out/pictures/a.png").unlink()
    StudyResults(Records(tmp_path / "out", "scores")).keep_only(["a"])
    assert (tmp_path / "out/pictures").is_dir()
    assert (tmp_path / "out/studies/viewer/niivue.js").is_file()


def test_a_report_of_somebody_else_is_not_replaced(raw, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.html").write_text("my notes")
    with pytest.raises(SystemExit, match=r"report\.html is no result of this program, and is not replaced"):
        read_out_folder(tmp_path / "masks", raw / "imagesTr", tmp_path / "out")
    assert (tmp_path / "out/report.html").read_text() == "my notes"


def test_masks_are_scored_without_images(raw, tmp_path):
    for name in ("fdg_11_good one", "fdg_12_good.two"):
        write_nifti(tmp_path / f"two/{name}.nii.gz", np.zeros(SHAPE, np.uint8), las((4, 4, 5)))
        write_nifti(tmp_path / f"references/{name}.nii", np.ones(SHAPE, np.uint8), las((4, 4, 5)))
    score_folder(tmp_path / "two", reference_items(tmp_path / "references"), tmp_path / "out", model="Another tool")
    with open(tmp_path / "out/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], float(row["dice"]), row["tracer"]) for row in rows] == [("Another tool", 0.0, "fdg")] * 2
    assert float(rows[0]["fnv_ml"]) == pytest.approx(np.prod(SHAPE) * 4 * 4 * 5 / 1000)
    assert not (tmp_path / "out/readouts.json").exists()
    assert "was not read out" not in (tmp_path / "out/report.html").read_text()


@pytest.mark.slow
def test_number_of_processes_changes_no_result(raw, tmp_path):
    references = reference_items(raw)
    for number in (1, 2):
        with pytest.raises(SystemExit):
            score_folder(tmp_path / "masks", references, tmp_path / f"out{number}", options=ReadoutOptions(num_workers=number))
    for file in ("scores.csv", "summary.json", "readouts.json", "problems.json", "report.html"):
        assert (tmp_path / "out1" / file).read_bytes() == (tmp_path / "out2" / file).read_bytes()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"predictions": None}, "no masks are given: name their folder with --predictions"),
        ({"references": None}, "no references are given: name a folder with --references"),
        ({"predictions": "none"}, "none is not a folder: name the folder with the masks"),
    ],
)
def test_what_is_missing_is_one_sentence(raw, tmp_path, options, sentence):
    given = {"predictions": tmp_path / "masks", "references": raw} | options
    with pytest.raises(SystemExit, match=rf"^error: .*{sentence}") as end:
        score_folder(given["predictions"], reference_items(given["references"]), tmp_path / "out")
    assert end.value.code == str(end.value), "a message is the exit code 1"


def test_report_refuses_options_that_it_would_leave_aside(few, tmp_path):
    raw, masks = few
    score_folder(masks, reference_items(raw), tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    done = run("report", output_dir=tmp_path / "out", deidentified="true")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: report takes no --deidentified, which would change nothing: it is an option of score, readout"
    )
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def run(run_id: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", run_id, "--config_file", "configs/score.json"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return run_python(command, BUNDLES / ENSEMBLE)


def test_command_scores_the_good_masks_and_names_the_bad_with_an_exit_code_that_is_not_0(raw, tmp_path):
    masks = {"predictions": tmp_path / "masks", "num_workers": 1}
    done = run("score", **masks, references=raw, output_dir=tmp_path / "out")
    assert done.returncode == 3, done.stderr[-3000:]
    for words in (
        "there is no mask of Prediction",
        "nobody.nii.gz of Prediction belongs to no study",
        "resample it to the grid",
        "a mask is 0, and 1",
    ):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "| – | Prediction | 100.00 |" in done.stdout
    assert len(studies_shown(tmp_path / "out")) == 2

    done = run("readout", **masks, images=raw / "imagesTr", output_dir=tmp_path / "readout")
    assert done.returncode == 3, done.stderr[-3000:]
    assert "is damaged or cut off" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "readout/report.html").is_file()
    assert len(json.loads((tmp_path / "readout/readouts.json").read_text())) >= 2


@pytest.mark.parametrize("single_file", [False, True])
def test_report_has_the_intervals_of_the_summary_whatever_the_seed(tmp_path, single_file):
    chance = np.random.default_rng(0)
    rows = [{"case": f"a{number}", "model": "UNet", **{name: chance.random() for name in METRIC_NAMES}} for number in range(40)]
    for seed in (0, 7):
        write_results(tmp_path, "t", Results(rows=rows), "UNet", single_file=single_file, seed=seed)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        cells = [cell.strip() for cell in (tmp_path / "summary.md").read_text(encoding="utf-8").split("|")]
        intervals = [cell for cell in cells if " to " in cell]
        assert intervals
        assert [interval for interval in intervals if interval not in page] == []
        # What the table of summary.md is followed by: what its figures mean and how the intervals were made.
        notes = cells[-1]
        assert f"bootstrap over patients, 2000 samples, seed {seed}" in notes
        assert notes in page


def meanings_on(page: Path) -> dict[str, str]:
    """The terms that a page explains, with their explanations."""
    found = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page.read_text(encoding="utf-8"))
    return {html.unescape(term): html.unescape(text) for term, text in found}


@pytest.mark.parametrize("name", ["report.html", "studies/a.html", "single file"])
def test_every_score_is_explained_and_no_two_figures_have_one_name(few, tmp_path, name):
    raw, masks = few
    options = ReadoutOptions(single_file=name == "single file")
    score_folder(masks, reference_items(raw), tmp_path / "out", options=options)
    meanings = meanings_on(tmp_path / "out" / name.replace("single file", "report.html"))
    of_reference = {"Reference lesions": "reference", "Found lesions": "reference lesions", "FNV (ml)": "reference lesions"}
    of_prediction = {
        "False lesions": "predicted lesions",
        "FPV (ml)": "predicted lesions",
        "Lesion precision": "predicted lesions",
    }
    for term, words in {**of_reference, **of_prediction, "Lesions": "of the mask"}.items():
        assert words in meanings[term]
    scores = csv.DictReader((tmp_path / "out/scores.csv").open(encoding="utf-8"))
    assert {METRICS[metric][0] for metric in METRIC_NAMES if metric in scores.fieldnames} <= meanings.keys()


def missed(few: tuple[Path, Path]) -> np.ndarray:
    """Let the mask of study a miss all of its reference, and return the voxels (n, 3) of the only lesion there, in world mm."""
    raw, masks = few
    label = nib.load(raw / "labelsTr/a.nii.gz")
    reference = np.zeros(SHAPE, np.uint8)
    reference[4:7, 5:8, 9:12] = 1
    rewrite(raw / "labelsTr/a.nii.gz", reference)
    rewrite(masks / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    return nib.affines.apply_affine(label.affine, np.argwhere(reference))


def test_page_leads_to_the_lesions_of_the_reference_that_were_missed(few, tmp_path):
    voxels = missed(few)
    raw, masks = few
    score_folder(masks, reference_items(raw), tmp_path / "out")
    page = (tmp_path / "out/studies/a.html").read_text(encoding="utf-8")
    (table,) = re.findall(r'<table class="sortable" data-role="reference">(.*?)</table>', page, re.DOTALL)
    (place,) = re.findall(r'data-place="(.*?)"', table)
    assert np.array(place.split(), float).tolist() in voxels.tolist()
    assert '<button type="button" class="go"' in table
    assert re.findall('<td class="text" data-value="(.*?)">', table) == ["no"]
    (row,) = json.loads((tmp_path / "out/readouts.json").read_text())["a"]["reference_lesions"]
    assert [row[f"centroid_{axis}_mm"] for axis in "xyz"] == pytest.approx(voxels.mean(axis=0), abs=1e-4)
    assert (row["found"], row["volume_ml"]) == (False, pytest.approx(27 * 4 * 4 * 5 / 1000))
    other = (tmp_path / "out/studies/b.html").read_text(encoding="utf-8")
    (table,) = re.findall(r'<table class="sortable" data-role="reference">(.*?)</table>', other, re.DOTALL)
    assert set(re.findall('<td class="text" data-value="(.*?)">', table)) == {"yes"}


def test_report_in_one_file_shows_the_lesions_that_were_missed_where_read_outs_know_them(few, tmp_path):
    missed(few)
    raw, masks = few
    score_folder(masks, reference_items(raw), tmp_path / "out", options=ReadoutOptions(single_file=True))
    assert "1 reference lesion, 1 of them not found" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    # Those of an earlier version do not.
    readouts = json.loads((tmp_path / "out/readouts.json").read_text())
    for content in readouts.values():
        del content["reference_lesions"]
    page = write_report(tmp_path / "old.html", "t", readouts=readouts).read_text(encoding="utf-8")
    assert "reference lesion" not in page
    assert "not found" not in page


@pytest.mark.parametrize("deidentified", [False, True])
def test_page_names_every_file_that_a_study_was_scored_and_read_out_from(few, tmp_path, deidentified):
    raw, masks = few
    other = shutil.copytree(masks, tmp_path / "other")
    rewrite(other / "a.nii.gz", np.ones(SHAPE, np.uint8))
    options = ReadoutOptions(deidentified=deidentified)
    if deidentified:
        score_folder(masks, reference_items(raw), tmp_path / "out", options=options)
        files = {}
    else:
        score_studies(reference_items(raw).items, {"UNet": other, "Ensemble": masks}, tmp_path / "out", options)
        files = {"Mask of UNet": other / "a.nii.gz"}
    files |= {"Reference": raw / "labelsTr/a.nii.gz", "Mask": masks / "a.nii.gz"}
    files |= {"CT": raw / "imagesTr/a_0000.nii.gz", "PET": raw / "imagesTr/a_0001.nii.gz"}
    digests = {role: f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}" for role, file in files.items()}
    shown = [meanings_on(page) for page in (tmp_path / "out/studies").glob("*.html")]
    (page,) = [each for each in shown if digests["Reference"] in each.get("Reference", "")]
    for role, digest in digests.items():
        assert page[role] == (digest if deidentified else f"{files[role].name}, {digest}")


@pytest.mark.parametrize("kind", ["scores", "read-outs"])
def test_report_of_what_lies_in_the_folder_is_the_one_that_was_written(raw, tmp_path, kind):
    output = tmp_path / "out"
    if kind == "scores":
        score_folder(raw / "labelsTr", reference_items(raw), output)
    else:
        read_out_folder(raw / "labelsTr", raw / "imagesTr", output)
    before = {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()}
    assert "report.html" in before
    for name in before:
        (output / name).unlink()
    gather(output)
    assert {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()} == before
