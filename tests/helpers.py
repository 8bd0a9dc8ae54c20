"""What several test modules share: where things are, tiny studies and data sets, small networks, and the commands of bundles."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from monai.bundle import ConfigParser
from monai.networks.nets import DynUNet, SegResNetDS, UNet
from monai.networks.nets.swin_unetr import PatchMerging
from processes import run_python
from zoo import SHARED

from petct_cascade import cli
from petct_cascade.cascade import Cascade, SlidingWindow
from petct_cascade.readouts import STUDY_COLUMNS

ROOT = Path(__file__).parents[1]
BUNDLES = ROOT / "bundles"
# Real studies that are not part of the repository.
SARCOMA = SHARED / "data/soft_tissue_sarcoma"
ENSEMBLE = "autopet_ensemble"
STAGE1 = "autopet_stage1_dynunet"
STAGE2 = ("autopet_stage2_segresnet", "autopet_stage2_swinunetr", "autopet_stage2_unet")
NETWORKS = (STAGE1, *STAGE2)
# For tests that run whole commands or convert whole networks: one network, with coarse mask and deep supervision, stands for the
# others until the slow tests.
ONE_NETWORK_FIRST = (STAGE2[0], *(pytest.param(bundle, marks=pytest.mark.slow) for bundle in (STAGE1, *STAGE2[1:])))
# The smallest windows that the demo profile's networks take.
WINDOWS = {"DynUNet": [32, 32, 32], "SegResNet": [32, 32, 32], "SwinUNETR": [64, 64, 32], "UNet": [32, 32, 32]}
FINGERPRINT = {
    "spacing": [3, 3.5, 4],
    "ct": {"percentile_00_5": -100, "percentile_99_5": 150, "mean": 50, "std": 40},
    "pet": {"percentile_00_5": 1, "percentile_99_5": 12, "mean": 6, "std": 3},
    "num_cases": 2,
    "source": "made up",
}
FLAG_OF = dict(zip((STAGE1, *STAGE2), ("dynunet", "segresnet", "swinunetr", "unet"), strict=True))
NAMES = ("stage1", "SegResNet", "UNet")
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
SMALL = {"patch_size": [24, 28, 32], "translation": 6}


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skip a test where a package is not installed that only it needs."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


def needs_shared(path: Path) -> pytest.MarkDecorator:
    """Skip a test where a file or folder of `SHARED` is absent."""
    return pytest.mark.skipif(not path.exists(), reason=f"{path} is absent: name its folder with PETCT_SHARED")


# ---------------------------------------------------------------- studies


def write_nifti(file: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write an array (X, Y, Z) with its affine, in the array's type."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner")
    image.header.set_xyzt_units("mm")
    nib.save(image, file)
    return file


def las(spacing: Sequence[float], origin: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """Affine of a grid stored LAS, as the challenge's data, with voxel (0, 0, 0) at the origin (mm)."""
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = origin
    return affine


def make_study(shape: Sequence[int] = (16, 14, 18), seed: int = 0, lesions: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT (HU), PET (SUV) and label of a body in air with bright cubes of 3 voxels; each (X, Y, Z)."""
    rng = np.random.default_rng(seed)
    body = np.zeros(shape, bool)
    body[3:-3, 3:-3, 2:-2] = True
    ct = np.where(body, rng.normal(40, 20, shape), -1000)
    ct[shape[0] // 2, shape[1] // 2, 2:-2] = 700
    pet = np.where(body, rng.uniform(0.5, 1.5, shape), rng.uniform(0, 0.1, shape))
    label = np.zeros(shape, np.uint8)
    for _ in range(lesions):
        corner = [int(rng.integers(4, size - 6)) for size in shape]
        inside = tuple(slice(start, start + 3) for start in corner)
        pet[inside] = rng.uniform(4, 12, (3, 3, 3))
        label[inside] = 1
    return np.round(ct).astype(np.int16), pet.astype(np.float32), label


def write_study(
    folder: Path,
    case: str,
    seed: int = 0,
    spacing: Sequence[float] = (4, 4, 5),
    shape: Sequence[int] = (16, 14, 18),
    lesions: int = 2,
) -> tuple[Path, Path, Path]:
    """Write a study into a folder in the challenge's layout, and return the files of CT, PET and label."""
    files = (
        folder / f"imagesTr/{case}_0000.nii.gz",
        folder / f"imagesTr/{case}_0001.nii.gz",
        folder / f"labelsTr/{case}.nii.gz",
    )
    for file, array in zip(files, make_study(shape, seed, lesions), strict=True):
        write_nifti(file, array, las(spacing))
    return files


def write_validation(folder: Path) -> Path:
    """Write two tiny studies in the challenge's layout, and a prepared data set's list that has them for validation."""
    items = []
    for seed, case in enumerate(("fdg_a_1", "psma_b_2018")):
        write_study(folder, case, seed=seed, shape=(24, 18, 22))
        files = {"ct": f"imagesTr/{case}_0000.nii.gz", "pet": f"imagesTr/{case}_0001.nii.gz", "label": f"labelsTr/{case}.nii.gz"}
        items.append({"case": case, "patient": case.split("_")[1], "tracer": case.split("_")[0], "original": files})
    prepared = folder.with_name(folder.name + "_prepared")
    prepared.mkdir()
    datalist = {"studies_dir": os.path.relpath(folder, prepared), "training": [], "validation": items, "excluded": []}
    (prepared / "datalist.json").write_text(json.dumps(datalist))
    return prepared


def hundred_lesions(shape: tuple[int, int, int] = (400, 400, 282), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and reference mask of a hundred boxes that stand apart; each is predicted two voxels beside itself, and overlaps.

    Args:
        shape: 400 x 400 x 282 voxels or more; the axes are stored as in a NIfTI file.
        seed: of the boxes' sizes, 3 to 11 voxels along each axis.
    """
    generator = np.random.default_rng(seed)
    prediction, reference = np.zeros(shape, np.uint8, order="F"), np.zeros(shape, np.uint8, order="F")
    for position in itertools.product(range(20, 400, 80), range(20, 400, 80), range(20, 280, 65)):
        box = tuple(slice(start, start + int(size)) for start, size in zip(position, generator.integers(3, 12, 3), strict=True))
        reference[box] = 1
        prediction[tuple(slice(part.start + 2, part.stop + 2) for part in box)] = 1
    return prediction, reference


def rewrite(file: Path, array=None, affine=None, **header) -> None:
    """Write a file anew with another array, affine, or entries of the header."""
    image = nib.load(file)
    array = np.asanyarray(image.dataobj) if array is None else array
    affine = image.affine if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    image.set_qform(None, 0)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, file)


def rotated(degrees):
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ las((4, 4, 5))


def with_value(array, value):
    changed = array.astype(np.float32)
    changed[5, 5, 5] = value
    return changed


def damage_middle(file):
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    file.write_bytes(content)


# ---------------------------------------------------------------- data sets, configs, commands


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


def parser_of(bundle: str, *configs: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([BUNDLES / bundle / f"configs/{name}.json" for name in configs])
    return parser


def of_weights(fingerprint: Mapping, model_file: Path) -> dict:
    """A fingerprint as it is written beside weights, to which it then belongs."""
    return {**fingerprint, "weights_sha256": hashlib.sha256(model_file.read_bytes()).hexdigest()}


def bundle_command(run_id: str, *configs: str, **overrides) -> list[str]:
    """The command line of a bundle's config files, to be run in its folder."""
    files = str([f"configs/{name}.json" for name in configs])
    result = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files]
    return result + [text for name, value in overrides.items() for text in (f"--{name}", str(value))]


def training_command(
    bundle: str, data: Path, models: Path, *configs: str, processes: int = 1, run_id: str = "training", **overrides
) -> list[str]:
    files = str([config if config.endswith(".json") else f"configs/{config}.json" for config in configs])
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    result = [sys.executable, *launcher, "-m", "monai.bundle", "run", run_id, "--config_file", files, "--dataset_dir", str(data)]
    overrides = {"ckpt_dir": models, "output_dir": models / "logs", "val_interval": 1, **overrides}
    return result + [text for name, value in overrides.items() for text in (f"--{name}", str(value))]


def train(bundle: str, data: Path, models: Path, *configs: str, **options) -> str:
    done = run_python(training_command(bundle, data, models, *configs, **options), BUNDLES / bundle, ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def run_petct(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `petct` with its words in this process, and the bundle's command that it starts by `run_python`."""
    started: list[subprocess.CompletedProcess[str]] = []

    def start(command: Sequence[str], env: Mapping[str, str]) -> int:
        started.append(run_python(command, env={**env, **ENVIRONMENT}))
        return started[-1].returncode

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "run_child", start)
        done = CliRunner().invoke(cli.main, [str(word) for word in words])
    output = "".join([done.output, *(command.stdout for command in started)])
    return subprocess.CompletedProcess(words, done.exit_code, output, "".join(command.stderr for command in started))


# ---------------------------------------------------------------- networks and weights


def make_cascade(spread: float = 3) -> Cascade:
    """Small networks with random weights, of kinds that behave differently while they train.

    Random weights give probabilities near 0.5: weights of `spread` times their size spread them.
    """
    torch.manual_seed(0)
    stage1 = DynUNet(
        3, 2, 1, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8], deep_supervision=True, deep_supr_num=1, res_block=True
    )
    segresnet = SegResNetDS(init_filters=8, in_channels=3, out_channels=1, blocks_down=(1, 1), blocks_up=(1,), dsdepth=2)
    unet = UNet(3, 3, 1, channels=(4, 8, 8), strides=(2, 2), num_res_units=1, norm="BATCH", dropout=0.2)
    for network in (stage1, segresnet, unet):
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                parameter.data *= spread
    return Cascade(
        SlidingWindow(stage1, (24, 16, 16), overlap=0.5),
        {
            "SegResNet": SlidingWindow(segresnet, (16, 16, 24), overlap=0.5, sw_batch_size=1),
            "UNet": SlidingWindow(unet, (16, 16, 16), overlap=0.25, sw_batch_size=4),
        },
    )


class MergingOfMonai14(PatchMerging):
    """`PatchMerging` as MONAI 1.4.0 and all earlier releases compute it, octant by octant."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Merge channels-last features (B, X, Y, Z, C) whose lengths are even."""
        octants = [
            x[:, 0::2, 0::2, 0::2],
            x[:, 1::2, 0::2, 0::2],
            x[:, 0::2, 1::2, 0::2],
            x[:, 0::2, 0::2, 1::2],
            x[:, 1::2, 0::2, 1::2],
            x[:, 0::2, 1::2, 0::2],
            x[:, 0::2, 0::2, 1::2],
            x[:, 1::2, 1::2, 1::2],
        ]
        return self.reduction(self.norm(torch.cat(octants, dim=-1)))


def networks_of(cascade) -> dict:
    return {"stage1": cascade.stage1.network, **{name: member.network for name, member in cascade.members.items()}}


def save_as_published(network: torch.nn.Module, file: Path) -> Path:
    """A file as the authors share it; its score is a NumPy number."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    content = {"config": {"lr": 1e-3, "patch": [128, 160, 112]}, "state_dict": network.state_dict(), "epoch": 199}
    torch.save({**content, "dice": np.float64(0.6657), "optimizer": optimizer.state_dict()}, file)
    return file


def weights(file: Path) -> dict[str, torch.Tensor]:
    content = torch.load(file, weights_only=True)
    return content.get("network", content)


def assert_same_weights(left: Path, right: Path) -> None:
    left, right = weights(left), weights(right)
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def studies_shown(folder: Path) -> list[str]:
    """The cases in an index of a report, each of which must have its picture and its page."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    rows = re.search(r'id="readouts">.*?<script type="application/json">(.*?)</script>', text, re.DOTALL)
    cases = [row[0] for row in json.loads(rows[1])] if rows else []
    for case in cases:
        assert (folder / f"pictures/{case}.png").is_file()
        assert (folder / f"studies/{case}.html").is_file()
    return cases


def readouts_of(number: int) -> dict[str, dict]:
    """Read-outs of so many studies; every ninth has no lesion."""
    generator = np.random.default_rng(0)
    result = {}
    for index in range(number):
        study = {key: float(generator.lognormal(3, 1)) for key in STUDY_COLUMNS} | {"lesions": 1 + int(generator.poisson(4))}
        if index % 9 == 0:
            study = {key: 0.0 if key.endswith(("_ml", "_g")) else math.nan for key in STUDY_COLUMNS} | {"lesions": 0}
        tracer = ("fdg", "psma")[index % 2]
        result[f"{tracer}_p{index:05}_10-12-2003-NA-PET-CT Ganzkoerper"] = {
            "study": study, "lesions": [], "tracer": tracer, "centre": ("LMU", "UKT")[index % 3 == 0],
        }  # fmt: skip
    return result
