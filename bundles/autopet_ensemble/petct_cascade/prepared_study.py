"""Making one study of a prepared data set: cropped to the body, turned to LAS, resampled, uncompressed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd

from petct_cascade.judging import read_study
from petct_cascade.loading import BODY_START, CropToBodyd, LoadImagePETCTd
from petct_cascade.preparation import CroppedStudy, Preparation, PrepareOptions, write_image_and_label
from petct_cascade.resampling import SeparableSpacingd
from petct_cascade.studies import Study
from petct_cascade.volumes import Volume
from petct_training.files import make_folder
from petct_training.grids import las_spacing

# Spacings that differ by less, as a share, are one: a volume of 1000 voxels then ends within a hundredth of a voxel.
SAME_SPACING = 1e-5


def make_study(preparation: Preparation, spacing: Sequence[float], study: Study) -> str | None:
    """Make one study's volumes, and at last the record that they are finished.

    Args:
        preparation: where the volumes go.
        spacing: [x, y, z] in mm.
        study: it was checked.

    Returns:
        The case if its files are no longer what they were when they were checked.

    Raises:
        InputError: when the disk is full.
    """
    case = study.case
    # Of the files as they are before they are read: when they change meanwhile, the next run makes the volumes again.
    settings = preparation.settings(preparation.sources(study))
    plan = preparation.plan(study, settings, spacing)
    preparation.remove_coarse_mask(case)
    preparation.records.begin(plan)
    cropped = preparation.cropped(case)
    # Without a cropped study it was checked by an earlier run, or it is healthy.
    if not cropped.is_complete(settings) and not _read_and_crop(preparation, study, settings):
        return case
    if np.allclose(las_spacing(_open_volume(cropped.files[0]).affine), spacing, rtol=SAME_SPACING, atol=0):
        cropped.move(preparation.outputs(case))
    else:
        _resample(cropped, spacing, preparation.outputs(case))
    preparation.records.finish(plan)
    return None


def crop_to_body(volumes: Mapping[str, Volume], options: PrepareOptions) -> tuple[MetaTensor, MetaTensor, np.ndarray]:
    """Crop a study to its body and turn it to LAS, as inference does.

    Args:
        volumes: "ct" in HU, on any grid; "pet" in SUV and "label" on the PET's grid (X, Y, Z).
        options: what the body is.

    Returns:
        Image (2, X, Y, Z), CT in HU and PET in SUV; label (1, X, Y, Z); and the values (2, n) of all lesions, also of what of them
        lies outside of the body.
    """
    ct, pet, whole = (volumes[role] for role in ("ct", "pet", "label"))
    study = LoadImagePETCTd("image").join(ct, pet)
    image = CropToBodyd("image", options.body_suv, options.body_margin).crop(study)
    box = tuple(slice(first, first + length) for first, length in zip(image.meta[BODY_START], image.shape[1:], strict=True))
    label = np.ascontiguousarray(whole.array[box], dtype=np.uint8)
    values = image.as_tensor()[:, torch.from_numpy(label).bool()]
    if values.shape[1] < np.count_nonzero(whole.array):
        values = study.as_tensor()[:, torch.from_numpy(whole.array.astype(bool))]
    item: dict[Hashable, Any] = {"image": image, "label": MetaTensor(torch.from_numpy(label)[None], affine=image.affine)}
    turned: Mapping[Hashable, Any] = Orientationd(keys=["image", "label"], axcodes="LAS", labels=None)(item)
    return turned["image"], turned["label"], values.numpy()


def _read_and_crop(preparation: Preparation, study: Study, settings: Mapping[str, Any]) -> bool:
    """Read a study and keep it cropped, with its settings; return whether it can still be used."""
    problems, volumes = read_study(study)
    if any(problem.error for problem in problems):
        return False
    preparation.cropped(study.case).write(settings, *crop_to_body(volumes, preparation.options))
    return True


def _resample(cropped: CroppedStudy, spacing: Sequence[float], outputs: Sequence[Path]) -> None:
    """Make the results of a cropped study by resampling it to a spacing (mm), and remove it."""
    image_file, label_file, values_file = outputs
    image, label = (_open_volume(file) for file in cropped.files[:2])
    channels = torch.from_numpy(np.moveaxis(np.asarray(image.dataobj), -1, 0))
    item: dict[Hashable, Any] = {
        "image": MetaTensor(channels, affine=torch.from_numpy(image.affine)),
        "label": MetaTensor(torch.from_numpy(np.asarray(label.dataobj))[None], affine=torch.from_numpy(label.affine)),
    }
    resample = SeparableSpacingd(keys=["image", "label"], pixdim=list(spacing), mode=["bilinear", "nearest"])
    resampled: Mapping[Hashable, Any] = resample(item)
    write_image_and_label(resampled["image"], resampled["label"], image_file, label_file)
    make_folder(values_file.parent)
    os.replace(cropped.files[2], values_file)
    shutil.rmtree(cropped.folder)


def _open_volume(file: Path) -> nib.Nifti1Image:
    """Open a file that `write_volume` has written; its voxels are copied into memory when they are asked for."""
    return cast(nib.Nifti1Image, nib.load(file, mmap=False))
