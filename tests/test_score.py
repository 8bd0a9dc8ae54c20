"""Promises of scoring folders of masks: every bad file is named, and all others are scored."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from test_studies import damage_middle, rewrite
from tiny import las, write_nifti, write_study

from scripts.score import read_out_folder, score_folder

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
    with pytest.raises(SystemExit, match=r"^error: \d+ masks could not be scored, all others were:") as end:
        score_folder(tmp_path / "masks", tmp_path / "out", references=raw)
    assert end.value.code == 3
    for number, (name, (_, words)) in enumerate(MASKS.items()):
        assert re.search(rf"^  fdg_{number}_{name}: .*{re.escape(words)}", str(end.value), flags=re.MULTILINE), name
    assert "nobody: there is no study for this mask" in str(end.value)
    with open(tmp_path / "out/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"].split("_")[2] for row in rows] == ["good one", "good.two"]
    assert {float(row["dice"]) for row in rows} == {1.0}
    assert len(json.loads((tmp_path / "out/problems.json").read_text())) == len(MASKS) + 1


def test_pet_that_is_not_in_suv_is_not_read_out(raw, tmp_path):
    case = f"fdg_{len(MASKS)}_good one"
    pet = raw / f"imagesTr/{case}_0001.nii.gz"
    rewrite(pet, nib.load(pet).get_fdata(dtype=np.float32) * 5000)
    with pytest.raises(SystemExit, match=rf"{case}: was not read out: {pet.name} holds values such as .* which look like Bq/ml"):
        read_out_folder(tmp_path / "masks", tmp_path / "out", images=raw / "imagesTr")
    assert case not in json.loads((tmp_path / "out/readouts.json").read_text())
    assert f"fdg_{len(MASKS) + 1}_good.two" in json.loads((tmp_path / "out/readouts.json").read_text())
