"""How much memory the ensemble's inference takes on the largest study of the challenge's geometry: python tests/benchmarks/memory.py

The study has 400 x 400 x 661 voxels of 2.036 x 2.036 x 3 mm: a phantom of 326 slices twice, one above the other. The networks are
those of the demo profile with weights by chance, since the volumes and not the networks are what takes memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENSEMBLE = ROOT / "bundles/autopet_ensemble"
sys.path[:0] = [str(ENSEMBLE), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from conftest import parser_of  # noqa: E402
from tiny import write_nifti  # noqa: E402

from scripts.phantom import plan_studies, render  # noqa: E402

SLICES = 661


def largest_study(folder: Path) -> tuple[Path, Path]:
    """Write CT and PET of the study."""
    study = plan_studies(1, seed=0, shrink=1)[0]
    images = render(study)[:2]
    fills = (-1024, 0)
    files = (folder / "fdg_large_1_0000.nii", folder / "fdg_large_1_0001.nii")
    for file, image, fill in zip(files, images, fills, strict=True):
        air = np.full((*image.shape[:2], SLICES - 2 * image.shape[2]), fill, image.dtype)
        write_nifti(file, np.concatenate([image, image, air], axis=2), study.patient.grid.affine)
    return files


def main() -> None:
    """Print the peak resident memory of the command, and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_workers", type=int, default=0, help="loading processes; the figure is that of the largest process")
    num_workers = parser.parse_args().num_workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ct, pet = largest_study(folder)
        network = parser_of("autopet_ensemble", "inference", "demo").get_parsed_content("network_def")
        torch.save(network.state_dict(), folder / "model.pt")
        shutil.copy(ENSEMBLE / "models/fingerprint.json", folder)
        command = [sys.executable, "-m", "monai.bundle", "run", "inferring"]
        command += ["--config_file", "['configs/inference.json', 'configs/demo.json']", "--overlap", "0"]
        options = {"ct": ct, "pet": pet, "ckpt_dir": folder, "output_dir": folder / "masks", "num_workers": num_workers}
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        start = time.perf_counter()
        subprocess.run(command, cwd=ENSEMBLE, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"peak resident memory {peak / 2**30:.1f} GiB, {seconds:.0f} s, {num_workers} loading processes")


if __name__ == "__main__":
    main()
