"""Dice of the ensemble's masks in reduced precision with those in float32, with trained weights: python benchmarks/precision.py

The weights and the studies, with and without lesions, are those that `make demo` has left in demo/phantoms; most of the studies are the
ones that it trained with. Studies whose masks are both empty are left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import common
import nibabel as nib
import numpy as np
from common import ROOT

from petct_training.commands import command

DEMO = ROOT / "demo/phantoms"
MODELS = DEMO / "models/autopet_ensemble"
FLOAT32 = "all in float32 (--amp false)"
# What the command is told in each precision.
OVERRIDES = {
    FLOAT32: {"amp": "false"},
    "SwinUNETR and UNet in bfloat16 (default on CPUs)": {},
    "all in bfloat16 (--amp true)": {"amp": "true"},
}
GOAL = 0.999
HEADER = [
    "Dice with the masks in float32",
    "studies",
    f"at least {GOAL}",
    "median",
    "mean",
    "lowest, voxels that differ",
    "of all voxels",
]


def infer(output: Path, overrides: dict[str, str]) -> dict[str, np.ndarray]:
    """Return the masks of all of the demo's studies."""
    options = {"studies": DEMO / "raw", "ckpt_dir": MODELS, "output_dir": output}
    common.run_bundle(common.ENSEMBLE, "inferring", ["configs/inference.json", "configs/demo.json"], options | overrides)
    return {file.name: np.asanyarray(nib.load(file).dataobj) > 0 for file in sorted(output.glob("*.nii.gz"))}


@command
def main() -> None:
    """Infer in each precision and print how well the masks agree."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not (MODELS / "model.pt").is_file():
        sys.exit("error: demo/phantoms has no trained weights: run make demo first")
    figures, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        masks = {name: infer(Path(folder) / str(number), told) for number, (name, told) in enumerate(OVERRIDES.items())}
    reference = masks.pop(FLOAT32)
    for name, others in masks.items():
        # Voxels of both masks, and those that are in one of them alone.
        counts = [
            (int(a.sum() + b.sum()), int((a ^ b).sum())) for a, b in ((mask, others[file]) for file, mask in reference.items())
        ]
        counts = [(both, differing) for both, differing in counts if both]
        dice = [1 - differing / both for both, differing in counts]
        of_all = 1 - sum(differing for _, differing in counts) / sum(both for both, _ in counts)
        lowest, (both, differing) = min(zip(dice, counts, strict=True))
        figures[name] = {"dice": dice, "counts": counts}
        reached = sum(value >= GOAL for value in dice)
        rows.append([name, str(len(dice)), str(reached), f"{statistics.median(dice):.4f}", f"{statistics.mean(dice):.4f}"])
        rows[-1] += [f"{lowest:.4f}, {differing} of {both}", f"{of_all:.4f}"]
    common.report("precision", HEADER, rows, figures)


if __name__ == "__main__":
    main()
