"""Checks before the first step of a run: what cannot be trained, evaluated or used is refused with one sentence."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from petct_training.data import Item
from petct_training.errors import InputError
from petct_training.files import read_json, stamp
from petct_training.grids import open_volume
from petct_training.merging import OCTANTS
from petct_training.processes import number_of_processes, rank
from petct_training.records import OF_WEIGHTS, digest_of
from petct_training.weights import check_numbers, misfit, read_weights

PREPARE = "python -m monai.bundle run prepare --config_file configs/prepare.json"
TRAIN = "python -m monai.bundle run training --config_file configs/train.json --dataset_dir ..."
PREDICT = "python -m monai.bundle run inferring --config_file configs/inference.json --dataset_dir ..."

COPY = "train again, or copy it from where the weights come"
DAMAGED = "it is damaged, or no file of weights; train again, or copy it again"

# So few validation studies choose weights by chance.
FEW = 2

# Layers that give the shape which they get. Without numbers, PyTorch computes them in Python, slowly.
SAME_SHAPE = (
    nn.BatchNorm3d,
    nn.LayerNorm,
    nn.Dropout,
    nn.Dropout3d,
    nn.GELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ReLU,
    nn.Softmax,
)

# What headers round: mm of a voxel's size, and of its place.
TOLERANCE_MM = 0.001


def check_prepared(
    datalist: str | os.PathLike, splits: Sequence[str] = (), fingerprint_file: str | os.PathLike | None = None
) -> None:
    """Refuse a folder that is no prepared data set, or one without studies in a split.

    Args:
        datalist: its `datalist.json`.
        splits: names of the lists that must hold studies.
        fingerprint_file: its `fingerprint.json`, where it is needed.

    Raises:
        InputError: with the command that makes what is missing.
    """
    if not os.path.isfile(datalist):
        raise InputError(
            f"{datalist} is missing: prepare a data set with `{PREPARE}` in autopet_ensemble, and name its folder "
            "with --dataset_dir"
        )
    try:
        content = read_json(datalist)
    except json.JSONDecodeError as error:
        raise InputError(f"{datalist} is damaged ({error}): prepare the data set again") from error
    # With folds, every study is in the training list, and each fold holds some out.
    with_folds = any("fold" in entry for entry in content.get("training", ()))
    for split in ["training"] if with_folds else splits:
        if not content.get(split):
            raise InputError(f"{datalist} names no studies for {split}: prepare a data set with more patients")
    if fingerprint_file is not None and not os.path.isfile(fingerprint_file):
        raise InputError(f"{fingerprint_file} is missing: prepare the data set again")


def check_trained(model_file: str | os.PathLike, fingerprint_file: str | os.PathLike) -> None:
    """Refuse a folder that lacks a network's weights, or the fingerprint that belongs to them.

    Raises:
        InputError: with the command that makes what is missing; or as `fingerprint_of`.
    """
    if not os.path.isfile(model_file):
        raise InputError(f"{model_file} is missing: train it with `{TRAIN}` in this bundle's folder")
    if not os.path.isfile(fingerprint_file):
        raise InputError(
            f"{fingerprint_file} is missing: it belongs to the weights beside it; train again, or copy it from where they come"
        )
    fingerprint_of(model_file, fingerprint_file)


def fingerprint_of(model_file: str | os.PathLike, fingerprint_file: str | os.PathLike) -> dict[str, Any]:
    """Return the fingerprint with which weights were trained: what lies beside them, if it belongs to them.

    Args:
        model_file: the weights; where there are none, there is nothing that the fingerprint could not belong to.
        fingerprint_file: the fingerprint beside them.

    Raises:
        InputError: when it is missing or damaged, or belongs to other weights.
    """
    try:
        fingerprint = read_json(fingerprint_file)
    except FileNotFoundError as error:
        raise InputError(f"{fingerprint_file} is missing: {COPY}") from error
    except ValueError as error:
        raise InputError(f"{fingerprint_file} is not valid JSON ({error}): {COPY}") from error
    if not isinstance(fingerprint, dict):
        raise InputError(f"{fingerprint_file} holds a {type(fingerprint).__name__}, and no fingerprint: {COPY}")
    at = tuple(stamp(model_file))
    if at and OF_WEIGHTS in fingerprint and fingerprint[OF_WEIGHTS] != _digest_at(os.fspath(model_file), at):
        raise InputError(
            f"{fingerprint_file} does not belong to {model_file}, whose masks would be wrong with its spacing and its "
            "normalisation: copy both files from the folder from which the weights come"
        )
    return fingerprint


@functools.lru_cache(maxsize=16)
def _digest_at(file: str, at: tuple[int, ...]) -> str:
    """Return the digest of a file as it is at a stamp, which several steps of a run ask for; see `petct_training.files.stamp`."""
    return digest_of(file)


def check_studies(
    items: Iterable[Item],
    keys: Sequence[str] = ("image", "label"),
    fingerprint: Mapping[str, Any] | None = None,
    fingerprint_file: str | os.PathLike | None = None,
) -> None:
    """Refuse items with missing files, images of another spacing than the fingerprint's, and coarse masks on another grid.

    Args:
        items: items of a prepared data set; the coarse mask is looked at where an item has one.
        keys: keys of the files that each item must have.
        fingerprint: whose spacing (mm) the images must have; without one, any spacing will do.
        fingerprint_file: where it was read from.

    Raises:
        InputError: when a file is missing or does not belong to the others; the sentence names it.
    """
    items = list(items)
    for item in items:
        _check_files(item, keys)
    if fingerprint is not None:
        for item in items:
            _check_spacing(item, fingerprint["spacing"], fingerprint_file)
    for item in items:
        if "coarse_mask" in item:
            _check_coarse_mask(item)


def check_lesions(items: Iterable[Item], datalist: str | os.PathLike) -> None:
    """Refuse training studies none of which has a lesion.

    Raises:
        InputError: when every label is empty.
    """
    if not any(map(has_lesion, items)):
        raise InputError(f"no label of the training studies in {datalist} marks a lesion: prepare a data set that has lesions")


def check_processes(items: Sequence[Item]) -> None:
    """Refuse more processes than there are validation studies for them to share: an evaluator does not run on none.

    Raises:
        InputError: with the greatest number of processes.
    """
    processes = number_of_processes()
    if processes > len(items):
        raise InputError(
            f"{processes} processes cannot share {len(items)} validation studies: start at most {len(items)}, or prepare the data "
            "set with a larger validation_fraction"
        )


def warn_of_few_studies(items: Iterable[Item]) -> None:
    """Warn when hardly any validation study has a lesion, whose Dice chooses the best weights. Only the first process prints."""
    number = len(list(itertools.islice(filter(has_lesion, items), FEW + 1)))
    if number <= FEW and rank() == 0:
        print(
            f"warning: {number} validation {'study has' if number == 1 else 'studies have'} lesions, so that chance has a large "
            "part in which weights are the best: prepare the data set with more patients, or with --folds",
            flush=True,
        )


def check_patch_size(network: nn.Module, in_channels: int, patch_size: Sequence[int]) -> None:
    """Refuse a patch size that a network does not take, before anything is read.

    The network is run without numbers, on PyTorch's device "meta": only shapes are computed.

    Args:
        network: takes (1, in_channels, X, Y, Z).
        in_channels: number of channels.
        patch_size: [X, Y, Z] in voxels.

    Raises:
        InputError: with the next larger size that it takes.
    """
    shapes = _without_numbers(network)
    if not _takes(shapes, in_channels, patch_size):
        multiples = ([-(-size // step) * step for size in patch_size] for step in (2, 4, 8, 16, 32, 64, 128))
        fitting = next((sizes for sizes in multiples if _takes(shapes, in_channels, sizes)), None)
        remedy = "give that of the config" if fitting is None else f"the next size that it takes is {fitting}"
        raise InputError(f"patch_size is {list(patch_size)}, which {type(network).__name__} does not take: {remedy}")


def _without_numbers(network: nn.Module) -> nn.Module:
    """Return a network that computes the shapes of another one alone, on PyTorch's device "meta"; no weights are copied."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    shapes = copy.deepcopy(network, {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors})
    for module in list(shapes.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.InstanceNorm3d):
                setattr(module, name, _InstanceShape())
            elif isinstance(layer, SAME_SHAPE):
                setattr(module, name, nn.Identity())
    return shapes.eval()


class _InstanceShape(nn.Module):
    """What an instance normalisation does to shapes: it takes all but single voxels, and changes none."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image (B, C, X, Y, Z) as it is."""
        if image.shape[2:].numel() == 1:
            raise ValueError("a single voxel has no spread")
        return image


def _takes(network: nn.Module, in_channels: int, patch_size: Sequence[int]) -> bool:
    try:
        with torch.no_grad():
            output = network(torch.empty(1, in_channels, *patch_size, device="meta"))
    except (RuntimeError, ValueError):
        return False
    first = output[0] if isinstance(output, (list, tuple)) else output
    return tuple(first.shape[-3:]) == tuple(patch_size)


def check_weights(network: nn.Module, file: str | os.PathLike) -> None:
    """Refuse a file whose weights are not those of a network.

    Raises:
        InputError: when the file is damaged, or its tensors have other names or shapes, or hold what is no number.
    """
    check_fit(network, read_weights(file, DAMAGED), file)


def check_fit(network: nn.Module, state: object, file: str | os.PathLike) -> None:
    """Refuse what a file holds as a network's weights when its tensors have other names or shapes, or hold what is no number.

    Raises:
        InputError: with the tensors that differ.
    """
    fault = misfit(network, state)
    if fault:
        example = "configs/published_weights.json" if f".{OCTANTS}" in fault else "configs/demo.json (--profile demo of petct)"
        raise InputError(
            f"{file} holds the weights of another network, or of one of another size ({fault}): name the configs "
            f"with which it was trained, such as {example}, or another folder with --ckpt_dir"
        )
    check_numbers(network, cast("Mapping[str, torch.Tensor]", state), file)


def has_lesion(item: Item) -> bool:
    """Whether the label of an item marks a lesion."""
    return bool(np.asanyarray(open_volume(item["label"]).dataobj).any())


def _check_files(item: Item, keys: Sequence[str]) -> None:
    for key in keys:
        if not os.path.isfile(item[key]):
            raise InputError(f"{item['case']} is incomplete ({item[key]} is missing): prepare the data set again")
    if "coarse_mask" in item and not os.path.isfile(item["coarse_mask"]):
        raise InputError(
            f"{item['case']} has no coarse mask ({item['coarse_mask']} is missing): make it with `{PREDICT}` in "
            "autopet_stage1_dynunet"
        )


def _check_spacing(item: Item, spacing: Sequence[float], fingerprint_file: str | os.PathLike | None) -> None:
    own = [float(size) for size in open_volume(item["image"]).header.get_zooms()[:3]]
    if not np.allclose(own, spacing, atol=TOLERANCE_MM):
        raise InputError(
            f"{fingerprint_file} does not belong to the data: its spacing is {list(spacing)} mm, and that of {item['image']} is "
            f"{[round(size, 4) for size in own]} mm: prepare the data set again, or give the fingerprint beside it"
        )


def _check_coarse_mask(item: Item) -> None:
    mask, image = open_volume(item["coarse_mask"]), open_volume(item["image"])
    if mask.shape != image.shape[:3] or not np.allclose(mask.affine, image.affine, atol=TOLERANCE_MM):
        raise InputError(
            f"{item['coarse_mask']} is of another preparation: it lies on another grid than {item['image']}: take "
            f"it away, and make it again with `{PREDICT}` in autopet_stage1_dynunet"
        )
