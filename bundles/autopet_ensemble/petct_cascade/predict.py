"""Predicting one study from arrays, as in a notebook: the same parts as the bundle, and the same mask."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from petct_cascade.assemble import check_weights, require_weights
from petct_cascade.cascade import Cascade
from petct_cascade.installation import ensemble_folder
from petct_cascade.judging import judge_volumes
from petct_cascade.volumes import Volume
from petct_training.errors import InputError

CONFIGS = ensemble_folder() / "configs"

# What each profile adds to inference.json.
PROFILES: Mapping[str, tuple[str, ...]] = {"full": (), "demo": ("demo.json",)}


@dataclass(frozen=True)
class Predictor:
    """The cascade with its weights, and the transforms before and after it; `load_cascade` makes one.

    Attributes:
        network: the cascade, on its device.
        preprocessing: makes normalised CT and PET of the volumes of a study.
        postprocessing: makes the mask on the PET's grid of the cascade's probability.
        device: where the cascade computes.
    """

    network: Cascade
    preprocessing: Compose
    postprocessing: Compose
    device: torch.device

    def predict(
        self,
        ct: np.ndarray,
        ct_affine: np.ndarray,
        pet: np.ndarray,
        pet_affine: np.ndarray,
        coarse_mask: np.ndarray | str | os.PathLike | None = None,
    ) -> np.ndarray:
        """Return the lesion mask of a study, 1 inside of lesions and 0 elsewhere, uint8 (X, Y, Z) on the PET's grid.

        Args:
            ct: CT (X, Y, Z) in HU, on any grid.
            ct_affine: (4, 4), from the CT's voxel indices to world coordinates in mm, RAS as in NIfTI.
            pet: PET (X, Y, Z) in body-weight SUV.
            pet_affine: the same of the PET.
            coarse_mask: a mask in place of stage 1's: 0 and 1 (X, Y, Z) on the PET's grid, or a file on any grid.

        Raises:
            InputError: the arrays cannot be a CT in HU and a PET in SUV of one study; the sentence says why. What is only
                remarkable is a Python warning.
        """
        volumes = {"ct": _volume("CT", ct, ct_affine), "pet": _volume("PET", pet, pet_affine)}
        for problem in judge_volumes("array", volumes):
            if problem.error:
                raise InputError(problem.sentence)
            warnings.warn(problem.sentence, stacklevel=2)
        if isinstance(coarse_mask, np.ndarray):
            coarse_mask = _volume("coarse mask", coarse_mask, pet_affine)
        return self.segment(volumes["ct"], volumes["pet"], coarse_mask)

    def segment(self, ct: Volume, pet: Volume, coarse_mask: Volume | str | os.PathLike | None = None) -> np.ndarray:
        """Return the lesion mask as `predict` does, of a CT in HU and a PET in body-weight SUV that have been judged.

        Args:
            ct: on any grid.
            pet: on whose grid the mask is.
            coarse_mask: in place of stage 1's, on any grid; None for stage 1's own.
        """
        given = {} if coarse_mask is None else {"coarse_mask": coarse_mask}
        item = self.preprocessing({"image": [ct, pet], **given})
        with torch.no_grad():
            item["pred"] = self.network(item["image"][None].to(self.device))[0]
        return self.postprocessing(item)["pred"].as_tensor()[0].cpu().numpy()


def load_cascade(ckpt_dir: str | os.PathLike, profile: str = "full", **options: Any) -> Predictor:
    """Return the ensemble with its weights, ready to predict.

    Args:
        ckpt_dir: folder of the ensemble's `model.pt` and `fingerprint.json`.
        profile: "full" or "demo", as the networks were trained.
        options: options of configs/inference.json by their names, such as `device="cpu"` or `overlap=0.25`.

    Raises:
        InputError: a file is missing or does not fit the networks, or a profile or option is unknown.
    """
    parser = _parser(profile, {**options, "ckpt_dir": str(ckpt_dir)})
    files = [parser.get_parsed_content(name) for name in ("model_file", "fingerprint_file")]
    require_weights(*files)
    network = parser.get_parsed_content("network_def")
    check_weights(network, files[0])
    device = torch.device(parser.get_parsed_content("device"))
    after = [parser.get_parsed_content(name) for name in ("invert", "apply_threshold", "pad_to_study")]
    return Predictor(network.to(device).eval(), parser.get_parsed_content("preprocessing"), Compose(after), device)


def _parser(profile: str, options: Mapping[str, Any]) -> ConfigParser:
    """Return the parser of the ensemble's inference in a profile, with options in place of the config's own."""
    if profile not in PROFILES:
        raise InputError(f"profile is {profile!r}: give {' or '.join(PROFILES)}")
    parser = ConfigParser()
    parser.read_config([CONFIGS / name for name in ("inference.json", *PROFILES[profile])])
    for name, value in options.items():
        if name not in parser.get():
            raise InputError(f"{name} is no option of the inference: see the names in {CONFIGS / 'inference.json'}")
        parser[name] = value
    parser["bundle_root"] = str(CONFIGS.parent)
    return parser


def _volume(name: str, array: np.ndarray, affine: np.ndarray) -> Volume:
    """Return an array as a volume, whose name stands for its file in sentences.

    Raises:
        InputError: when it is not (X, Y, Z) with an affine (4, 4), or holds what is no number.
    """
    array, affine = np.asarray(array), np.asarray(affine, dtype=np.float64)
    if array.ndim != 3 or affine.shape != (4, 4):
        raise InputError(f"{name} has the shape {array.shape} and its affine {affine.shape}: give (X, Y, Z) and (4, 4)")
    if not (np.isfinite(array).all() and np.isfinite(affine).all()):
        raise InputError(f"{name} holds values that are no numbers (NaN or infinite): give finite ones")
    return Volume(Path(name), array, affine)
