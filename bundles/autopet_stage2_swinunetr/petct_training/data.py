"""Items of a prepared data set: the studies of a split, with the files that belong to each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monai.data import load_decathlon_datalist

Item = dict[str, Any]


def read_items(
    datalist: str | os.PathLike,
    splits: Sequence[str],
    dataset_dir: str | os.PathLike,
    coarse_mask_dir: str | os.PathLike | None = None,
    studies_dir: str | os.PathLike | None = None,
    fold: int | None = None,
) -> list[Item]:
    """Return the items of some splits of a prepared data set, in the order of its list.

    Args:
        datalist: the data set's `datalist.json`.
        splits: names of lists in it: "training", "validation".
        dataset_dir: folder to which the names of images and labels are relative.
        coarse_mask_dir: folder of stage 1's masks; each item then has its own, `<case>.nii.gz`, as "coarse_mask".
        studies_dir: folder of the raw data set; the labels are then the original ones, on the grid of each study's PET.
        fold: number of the fold whose studies are the validation's, while those of all others are the training's; None for a data
            set without folds.

    Returns:
        Per study what the list says of it, with whole paths.
    """
    items = [item for split in splits for item in _items_of_split(datalist, split, dataset_dir, fold)]
    for item in items:
        if coarse_mask_dir is not None:
            item["coarse_mask"] = mask_file(item, coarse_mask_dir)
        if studies_dir is not None:
            item["label"] = os.path.join(studies_dir, item["original"]["label"])
    return items


def _items_of_split(datalist: str | os.PathLike, split: str, dataset_dir: str | os.PathLike, fold: int | None) -> list[Item]:
    """Return the items of a split. A data set with folds has all studies in one list, each with its fold."""
    name = split if fold is None else "training"
    items = [dict(item) for item in load_decathlon_datalist(str(datalist), True, name, str(dataset_dir))]
    return items if fold is None else [item for item in items if (item["fold"] == fold) == (split == "validation")]


def mask_file(item: Mapping[str, Any], folder: str | os.PathLike) -> str:
    """Return the file of an item's mask in a folder of masks."""
    return os.path.join(folder, item["case"] + ".nii.gz")


def metadata_of_images(batch: Iterable[Item]) -> list[dict[str, Any]]:
    """Return the metadata of each image of a batch; `filename_or_obj` says which study it is."""
    return [item["image"].meta for item in batch]
