"""What several test modules share: where things are, and a tiny prepared data set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

# Tests run side by side, one a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
BUNDLES = ROOT / "bundles"
ENSEMBLE = "autopet_ensemble"
STAGE1 = "autopet_stage1_dynunet"
STAGE2 = ("autopet_stage2_segresnet", "autopet_stage2_swinunetr", "autopet_stage2_unet")
NETWORKS = (STAGE1, *STAGE2)
# For tests that run whole commands: one network of each stage is fast enough, and stands for the others until the slow tests.
NETWORKS_ONE_OF_EACH_STAGE_FIRST = (STAGE1, STAGE2[0], *(pytest.param(bundle, marks=pytest.mark.slow) for bundle in STAGE2[1:]))
# The smallest windows that the demo profile's networks take.
WINDOWS = {"DynUNet": [32, 32, 32], "SegResNet": [32, 32, 32], "SwinUNETR": [64, 64, 32], "UNet": [32, 32, 32]}
FINGERPRINT = {
    "spacing": [3, 3.5, 4],
    "ct": {"percentile_00_5": -100, "percentile_99_5": 150, "mean": 50, "std": 40},
    "pet": {"percentile_00_5": 1, "percentile_99_5": 12, "mean": 6, "std": 3},
    "num_cases": 2,
    "source": "made up",
}


def write_prepared(folder: Path, num_studies: int = 6, shape: tuple[int, int, int] = (40, 30, 56), seed: int = 0) -> Path:
    """Write a prepared data set of noise with bright spheres, voxels of 5 mm, the last two studies for validation."""
    rng = np.random.default_rng(seed)
    for name in ("images", "labels", "coarse_masks"):
        (folder / name).mkdir(parents=True)
    affine = np.diag([-5.0, 5, 5, 1])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    items = []
    for number in range(num_studies):
        pet, ct, label = rng.normal(1, 0.2, shape), rng.normal(40, 20, shape), np.zeros(shape, np.uint8)
        for _ in range(4):
            centre, radius = rng.uniform(5, np.array(shape) - 5), rng.uniform(2.5, 5)
            inside = ((grid - centre) ** 2).sum(-1) < radius**2
            label[inside] = 1
            pet[inside] += rng.uniform(4, 10)
        case = f"fdg_{number:04d}_10-12-2003-NA-PET-CT Ganzkoerper  primaer v1.{number}"
        coarse = label * (rng.random(shape) > 0.1)
        nib.save(nib.Nifti1Image(np.stack([ct, pet], -1).astype(np.float32), affine), folder / f"images/{case}.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / f"labels/{case}.nii")
        nib.save(nib.Nifti1Image(coarse.astype(np.uint8), affine), folder / f"coarse_masks/{case}.nii.gz")
        items.append(
            {
                "case": case,
                "patient": f"{number:04d}",
                "tracer": "fdg",
                "image": f"images/{case}.nii",
                "label": f"labels/{case}.nii",
                "original": {"ct": f"images/{case}.nii", "pet": f"images/{case}.nii", "label": f"labels/{case}.nii"},
            }
        )
    datalist = {"studies_dir": ".", "training": items[:-2], "validation": items[-2:], "excluded": []}
    (folder / "datalist.json").write_text(json.dumps(datalist))
    fingerprint = {
        "spacing": [5, 5, 5],
        "ct": {"percentile_00_5": -100, "percentile_99_5": 150, "mean": 50, "std": 40},
        "pet": {"percentile_00_5": 1, "percentile_99_5": 12, "mean": 6, "std": 3},
        "num_cases": num_studies - 2,
        "source": "spheres in noise",
    }
    (folder / "fingerprint.json").write_text(json.dumps(fingerprint))
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A tiny prepared data set that no test changes."""
    return write_prepared(tmp_path_factory.mktemp("prepared") / "set")


def parser_of(bundle: str, *configs: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([BUNDLES / bundle / f"configs/{name}.json" for name in configs])
    return parser


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with random weights of the demo profile's cascade, and their fingerprint."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = parser_of(ENSEMBLE, "inference", "demo").get_parsed_content("network_def")
    for name, parameter in network.named_parameters():
        # Weights by chance give probabilities on one side of 0.5: spread them.
        if name.endswith("weight"):
            parameter.data *= 1.5
    torch.save(network.state_dict(), folder / "model.pt")
    (folder / "fingerprint.json").write_text(json.dumps(FINGERPRINT))
    return folder
