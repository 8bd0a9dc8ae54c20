"""Promises of the items of a prepared data set: which files belong to a study, and which masks are still to be made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from petct_training.data import mask_file, metadata_of_images, read_items, unfinished_items


def test_items_have_whole_paths_in_the_order_of_the_list(prepared):
    datalist = json.loads((prepared / "datalist.json").read_text())
    items = read_items(prepared / "datalist.json", ["validation", "training"], prepared)
    listed = datalist["validation"] + datalist["training"]
    assert [item["case"] for item in items] == [item["case"] for item in listed]
    assert [item["image"] for item in items] == [str(prepared / item["image"]) for item in listed]
    assert [item["label"] for item in items] == [str(prepared / item["label"]) for item in listed]
    assert not any("coarse_mask" in item for item in items)


def test_coarse_masks_and_original_labels_are_those_of_the_case(prepared):
    items = read_items(prepared / "datalist.json", ["training"], prepared, coarse_mask_dir="masks", studies_dir="/raw")
    for item in items:
        assert item["coarse_mask"] == os.path.join("masks", item["case"] + ".nii.gz")
        assert item["label"] == os.path.join("/raw", item["original"]["label"])
        assert item["image"].startswith(str(prepared))


@pytest.fixture
def study(tmp_path) -> dict:
    item = {"case": "a b", "image": str(tmp_path / "image.nii"), "coarse_mask": str(tmp_path / "coarse.nii.gz")}
    for number, file in enumerate([item["image"], item["coarse_mask"], tmp_path / "model.pt", mask_file(item, tmp_path)]):
        touch(Path(file), number)
    return item


def touch(file: Path, second: int) -> None:
    file.touch()
    # Files come to be long before now, since their status changes now.
    os.utime(file, (2e9 + second, 2e9 + second))


def unfinished(item: dict, folder: Path) -> bool:
    return unfinished_items([item], folder, [folder / "model.pt"]) == [item]


def test_a_mask_that_is_newer_than_its_sources_is_finished(study, tmp_path):
    assert not unfinished(study, tmp_path)


@pytest.mark.parametrize("name", ["image.nii", "coarse.nii.gz", "model.pt"])
def test_a_mask_is_made_again_when_a_source_is_newer(name, study, tmp_path):
    touch(tmp_path / name, 10)
    assert unfinished(study, tmp_path)


def test_a_missing_mask_is_made(study, tmp_path):
    Path(mask_file(study, tmp_path)).unlink()
    assert unfinished(study, tmp_path)


def test_metadata_says_which_study_an_image_is_of():
    batch = [{"image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": name})} for name in "ab"]
    assert [meta["filename_or_obj"] for meta in metadata_of_images(batch)] == ["a", "b"]
