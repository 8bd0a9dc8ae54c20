"""nnU-Net v2 with its own classes and defaults, on the benchmarks' studies: its preprocessor, its training's loader, its predictor."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from common import PREPARED, RAW, RESULTS, ROOT

from petct_training.files import read_json, write_json

FOLDER = RESULTS / "nnunet"
DATASET, CONFIGURATION = "Dataset001_Phantoms", "3d_fullres"
DATASET_JSON = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
# nnU-Net's arrays are z, y, x.
SPACING = (3.0, 2.036, 2.036)
# Environment variables in which nnU-Net looks for its folders.
PLACES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
MISSING = "nnU-Net v2 is not installed: make bench installs requirements-bench.txt, which has it"


def is_installed() -> bool:
    """Whether nnU-Net v2 is there."""
    return importlib.util.find_spec("nnunetv2") is not None


def plans(spacing: tuple[float, float, float] = SPACING, with_mask: bool = False) -> dict[str, Any]:
    """nnU-Net's plans, as its planner writes them, with the patch and batch size of the paper's DynUNet and a given spacing.

    The images are CT and PET, and after them a mask, as stage 2 takes it, where that is asked for.
    """
    train = read_json(ROOT / "bundles/autopet_stage1_dynunet/configs/train.json")
    fingerprint = read_json(PREPARED / "fingerprint.json")
    resampling = {"order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": train["batch_size"],
        "patch_size": train["patch_size"][::-1],
        "median_image_size_in_voxels": [326, 400, 400],
        "spacing": list(spacing),
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization", *(["NoNormalization"] if with_mask else [])],
        "use_mask_for_norm": [False] * (3 if with_mask else 2),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **resampling},
        "batch_dice": True,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {"strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]},
            "_kw_requires_import": [],
        },
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "original_median_spacing_after_transp": list(SPACING),
        "configurations": {CONFIGURATION: configuration},
        # nnU-Net looks up a mask's as well, and has no use for them.
        "foreground_intensity_properties_per_channel": {str(i): fingerprint[key] for i, key in enumerate(("ct", "pet", "pet"))},
    }


def preprocess(case: str, output: Path, spacing: tuple[float, float, float] = SPACING) -> None:
    """Preprocess a raw study with nnU-Net's default preprocessor into `output`, a path without suffix."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans(spacing))
    images = [str(RAW / f"imagesTr/{case}_{channel:04d}.nii.gz") for channel in (0, 1)]
    DefaultPreprocessor(verbose=False).run_case_save(
        str(output), images, str(RAW / f"labelsTr/{case}.nii.gz"), manager, manager.get_configuration(CONFIGURATION), DATASET_JSON
    )


def preprocessed() -> None:
    """Preprocess the studies of the prepared data set at their own spacing, with the same split, or what is missing of them."""
    datalist = read_json(PREPARED / "datalist.json")
    folder = FOLDER / DATASET / f"nnUNetPlans_{CONFIGURATION}"
    folder.mkdir(parents=True, exist_ok=True)
    for case in (item["case"] for split in ("training", "validation") for item in datalist[split]):
        # The properties are written last.
        if not (folder / f"{case}.pkl").is_file():
            preprocess(case, folder / case)
    splits = [
        {"train": [item["case"] for item in datalist["training"]], "val": [item["case"] for item in datalist["validation"]]}
    ]
    write_json(FOLDER / DATASET / "splits_final.json", splits)


def training_loader(processes: int):
    """The training loader of nnU-Net's trainer, with its default augmentation, in that many processes."""
    for name in PLACES:
        os.environ[name] = str(FOLDER)
    os.environ["nnUNet_n_proc_DA"] = str(processes)  # noqa: SIM112
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    with contextlib.redirect_stdout(sys.stderr):
        trainer = nnUNetTrainer({**plans(), "continue_training": False}, CONFIGURATION, 0, DATASET_JSON, torch.device("cpu"))
        trainer._set_batch_size_and_oversample()
        training, validation = trainer.get_dataloaders()
    # It would go on filling its queue, and take from the training's time.
    validation._finish()
    return training


def predict(network: Any, images: list[Path], output: Path) -> None:
    """Predict a study with nnU-Net's predictor, from its files to `output`, a path without suffix.

    Windows overlap by half and are weighted by a Gaussian, as nnU-Net does by default, but not mirrored, which would take eight times
    as long.

    Args:
        network: takes windows (1, 3, Z, Y, X) of CT, PET and a mask, gives logits (1, 1, Z, Y, X).
        images: CT, PET and mask.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans(with_mask=True))
    # One logit instead of one a class, which is nnU-Net's way for regions.
    dataset = DATASET_JSON | {
        "channel_names": {"0": "CT", "1": "PET", "2": "noNorm"},
        "labels": {"background": 0, "lesion": [1, 2]},
        "regions_class_order": [1],
    }
    with contextlib.redirect_stdout(sys.stderr):
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"))
        predictor.manual_initialization(
            network, manager, manager.get_configuration(CONFIGURATION), [network.state_dict()], dataset, "nnUNetTrainer", None
        )
        predictor.predict_from_files_sequential([list(map(str, images))], [str(output)])
