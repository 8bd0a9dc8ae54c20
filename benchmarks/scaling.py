"""Time and memory of preparing and of inference against a study's size, 10 to 106 million voxels: python benchmarks/scaling.py

The studies are a phantom in coarser voxels, at full size (400 x 400 x 326), and with its slices again above them, up to the 661 slices of
the largest study in the challenge's geometry. They are prepared on one core, at twice their spacing, where nothing was kept by an
earlier run. The networks of the inference are those of the demo profile with random weights, since it is the volumes whose
cost is looked for; their windows do not overlap, and the threshold leaves the masks empty: a random mask has more components than
any tumour, and reading them out would be a quarter of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import common
import nibabel as nib
import numpy as np
import torch
from common import ENSEMBLE
from helpers import parser_of
from isal import igzip
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from petct_cascade.phantom import plan_studies, render
from petct_cascade.preparation import PrepareOptions
from petct_cascade.prepare import prepare
from petct_training.commands import command
from petct_training.files import read_json
from petct_training.saving import save_weights

# How many times larger than the scanner's the voxels are along each axis, and the number of slices, None for those of the phantom.
SIZES = ((1.733, None), (1, None), (1, 489), (1, 661))
PREPARE, INFER = "prepare", "inference"
PICTURE = common.RESULTS / "scaling.png"
COLOURS = {PREPARE: "tab:blue", INFER: "tab:orange"}


def write_study(folder: Path, shrink: float, slices: int | None) -> None:
    """Write a study, and that of another patient, since a split needs two; no two PETs are equal."""
    study = plan_studies(1, seed=0, shrink=shrink)[0]
    ct, pet, label = render(study)
    files = {
        "imagesTr/fdg_a_1_0000": ct,
        "imagesTr/fdg_a_1_0001": pet,
        "imagesTr/fdg_b_1_0001": pet * 0.99,
        "labelsTr/fdg_a_1": label,
    }
    for name, image in files.items():
        if slices is not None:
            image = np.tile(image, (1, 1, -(-slices // image.shape[2])))[..., :slices]
        file = folder / f"{name}.nii.gz"
        file.parent.mkdir(exist_ok=True)
        image = nib.Nifti1Image(image.astype(label.dtype if name.startswith("labels") else np.float32), study.patient.grid.affine)
        image.header.set_xyzt_units("mm")
        # Several times faster than nibabel's gzip.
        with igzip.open(file, "wb", compresslevel=1) as stream:
            image.to_stream(stream)
    for name in ("imagesTr/fdg_{}_1_0000.nii.gz", "labelsTr/fdg_{}_1.nii.gz"):
        shutil.copyfile(folder / name.format("a"), folder / name.format("b"))


def prepare_studies(folder: Path, num_workers: int) -> float:
    """Seconds a study."""
    spacing = nib.load(next(folder.glob("imagesTr/*"))).header.get_zooms()
    start = time.perf_counter()
    prepare(folder, folder / "prepared", PrepareOptions(spacing=[2 * float(size) for size in spacing]))
    return (time.perf_counter() - start) / 2


def infer(folder: Path, num_workers: int) -> float:
    """Seconds of the whole command for one study."""
    torch.manual_seed(0)
    network = parser_of("autopet_ensemble", "inference", "demo").get_parsed_content("network_def")
    save_weights(network, read_json(ENSEMBLE / "models/fingerprint.json"), folder)
    ct, pet = sorted(folder.glob("imagesTr/fdg_a_*"))
    options = {
        "overlap": 0,
        "threshold": 0.999,
        "ct": ct,
        "pet": pet,
        "ckpt_dir": folder,
        "output_dir": folder / "masks",
        "num_workers": num_workers,
    }
    start = time.perf_counter()
    common.run_bundle(common.ENSEMBLE, "inferring", ["configs/inference.json", "configs/demo.json"], options)
    return time.perf_counter() - start


MEASURES = {PREPARE: (prepare_studies, resource.RUSAGE_SELF), INFER: (infer, resource.RUSAGE_CHILDREN)}


def measure(name: str, folder: Path, num_workers: int) -> dict[str, float]:
    """Seconds, and the peak resident memory (GiB) of the process that does the work."""
    function, process = MEASURES[name]
    seconds = function(folder, num_workers)
    return {"seconds": seconds, "peak_gib": common.peak_gib(process)}


def draw(figures: dict[str, list[dict[str, float]]]) -> None:
    """Plot seconds and memory with their straight lines."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, key, label in zip(figure.subplots(1, 2), ("seconds", "peak_gib"), ("seconds", "peak memory, GiB"), strict=True):
        for name, points in figures.items():
            voxels, values = ([point[k] for point in points] for k in ("million_voxels", key))
            axes.plot(voxels, values, "o", color=COLOURS[name], label=name)
            ends = np.array([0, max(voxels)])
            axes.plot(ends, np.polyval(np.polyfit(voxels, values, 1), ends), "-", color=COLOURS[name], linewidth=1)
        axes.set(xlabel="million voxels", ylabel=label, xlim=(0, None), ylim=(0, None))
        axes.grid(color="0.9")
        axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


@command
def main() -> None:
    """Measure each size in processes of its own, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_workers", type=int, default=0, help="loading processes of the inference")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.folder, arguments.num_workers)))
        return
    common.RESULTS.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in MEASURES}
    rows = []
    for shrink, slices in SIZES:
        with tempfile.TemporaryDirectory(dir=common.RESULTS) as folder:
            write_study(Path(folder), shrink, slices)
            shape = nib.load(next(Path(folder).glob("labelsTr/*"))).shape
            row = [" x ".join(map(str, shape)), f"{np.prod(shape) / 1e6:.0f}"]
            options = ["--folder", folder, "--num_workers", str(arguments.num_workers)]
            for name in MEASURES:
                # One core prepares, as each of several processes would; all cores infer.
                threads = 1 if name == PREPARE else os.cpu_count()
                figure = common.in_a_process("scaling.py", "--measure", name, *options, threads=threads)
                figures[name].append({"million_voxels": float(np.prod(shape) / 1e6), **figure})
                row += [f"{figure['seconds']:.1f}", f"{figure['peak_gib']:.1f}"]
            rows.append(row)
            print("  " + ", ".join(row), file=sys.stderr, flush=True)
    draw(figures)
    header = ["voxels", "million", "prepare, s", "GiB", "inference, s", "GiB"]
    common.report("scaling", header, rows, figures)
    print(f"Plot: {PICTURE.relative_to(common.ROOT)}")


if __name__ == "__main__":
    main()
