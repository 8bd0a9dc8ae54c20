"""Promises of the items of a prepared data set: which files belong to a study, and which masks are still to be made."""

from __future__ import annotations

import json
import os

import torch
from monai.data import MetaTensor

from petct_training.data import metadata_of_images, read_items


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


def test_metadata_says_which_study_an_image_is_of():
    batch = [{"image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": name})} for name in "ab"]
    assert [meta["filename_or_obj"] for meta in metadata_of_images(batch)] == ["a", "b"]
