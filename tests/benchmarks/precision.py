"""Dice of the ensemble's masks in reduced precision with those in float32, with trained weights: python tests/benchmarks/precision.py

The weights and the studies are those that `make demo` has left in demo/phantoms. Studies whose masks are both empty are left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import nibabel as nib
import numpy as np
from common import ENSEMBLE, ROOT

DEMO = ROOT / "demo/phantoms"
FLOAT32 = "all in float32 (--amp false)"
# Options of the command in each precision.
OPTIONS = {
    FLOAT32: ["--amp", "false"],
    "members in bfloat16 (default on CPUs)": [],
    "all in bfloat16 (--amp true)": ["--amp", "true"],
}


def infer(output: Path, options: list[str]) -> dict[str, np.ndarray]:
    """Masks of all of the demo's studies."""
    command = [sys.executable, "-m", "monai.bundle", "run", "inferring"]
    command += ["--config_file", "['configs/inference.json', 'configs/demo.json']", *options]
    command += [
        "--dataset_dir",
        str(DEMO / "raw"),
        "--ckpt_dir",
        str(DEMO / "models/autopet_ensemble"),
        "--output_dir",
        str(output),
    ]
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    subprocess.run(command, cwd=ENSEMBLE, check=True, stdout=sys.stderr, env={**os.environ, **threads})
    return {file.name: np.asanyarray(nib.load(file).dataobj) > 0 for file in sorted(output.glob("*.nii.gz"))}


def main() -> None:
    """Infer in each precision and print how well the masks agree."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not (DEMO / "models/autopet_ensemble/model.pt").is_file():
        sys.exit("error: demo/phantoms has no trained weights: run make demo first")
    figures, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        masks = {name: infer(Path(folder) / str(number), options) for number, (name, options) in enumerate(OPTIONS.items())}
    for name in [other for other in OPTIONS if other != FLOAT32]:
        pairs = [(mask, masks[name][file]) for file, mask in masks[FLOAT32].items() if mask.any() or masks[name][file].any()]
        shared, both = ([2 * int((a & b).sum()) for a, b in pairs], [int(a.sum() + b.sum()) for a, b in pairs])
        dice = [above / below for above, below in zip(shared, both, strict=True)]
        figures[name] = dice
        numbers = (statistics.median(dice), statistics.mean(dice), min(dice), sum(shared) / sum(both))
        rows.append([name, str(len(dice)), *(f"{number:.4f}" for number in numbers)])
    common.report(
        "precision", ["Dice with the masks in float32", "studies", "median", "mean", "lowest", "of all voxels"], rows, figures
    )


if __name__ == "__main__":
    main()
