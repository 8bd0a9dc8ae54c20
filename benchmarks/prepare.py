"""Seconds in which one core prepares a full-size study: python benchmarks/prepare.py

"prepare" is the whole command, which judges every study too. nnU-Net v2's default preprocessor judges nothing; it writes the format
that its own training reads. The study has the wanted spacing already, or is resampled to voxels twice as large along each axis
(coarser), or, with --finer, to voxels of 1.5 x 1.5 x 2 mm. "reading" is decompressing CT and PET with nibabel, and nothing more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import common
import nibabel as nib
import nnunet
import numpy as np
import torch
from common import RAW

from petct_cascade.preparation import PrepareOptions
from petct_cascade.prepare import prepare
from petct_training.commands import command

ROUNDS = 2
SPACINGS = {"same spacing": (2.036, 2.036, 3.0), "coarser": (4.072, 4.072, 6.0), "finer": (1.5, 1.5, 2.0)}
READING, OURS, NNUNET = "reading", "prepare", "nnU-Net v2"


def cases() -> list[str]:
    """The studies of the raw data set."""
    return sorted(file.name.removesuffix(".nii.gz") for file in (RAW / "labelsTr").glob("*.nii.gz"))


def measure(name: str, grid: str) -> float:
    """Seconds a study, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if name == NNUNET:
        # Its modules are imported before the clock starts.
        import nnunetv2.preprocessing.preprocessors.default_preprocessor  # noqa: F401
    with tempfile.TemporaryDirectory(dir=common.RESULTS) as folder, contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        if name == READING:
            for channel in (0, 1):
                np.asanyarray(nib.load(RAW / f"imagesTr/{cases()[0]}_{channel:04d}.nii.gz").dataobj)
            return time.perf_counter() - start
        if name == NNUNET:
            # nnU-Net's arrays are z, y, x.
            nnunet.preprocess(cases()[0], Path(folder) / "study", SPACINGS[grid][::-1])
            return time.perf_counter() - start
        prepare(RAW, folder, PrepareOptions(spacing=SPACINGS[grid]))
        return (time.perf_counter() - start) / len(cases())


@command
def main() -> None:
    """Let the competitors prepare in turn, each in a process of its own, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--finer", action="store_true", help="resample to 1.5 x 1.5 x 2 mm too; nnU-Net then takes minutes")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--grid", choices=SPACINGS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.grid)))
        return
    common.prepared_studies()
    competitors, skipped = [OURS], []
    if nnunet.is_installed():
        competitors.append(NNUNET)
    else:
        skipped.append(nnunet.MISSING)
    measures = {READING: partial(common.in_a_process, "prepare.py", "--measure", READING)}
    for grid in list(SPACINGS)[: 3 if arguments.finer else 2]:
        for name in competitors:
            measures[f"{name}, {grid}"] = partial(common.in_a_process, "prepare.py", "--measure", name, "--grid", grid)
    figures = common.side_by_side(measures, arguments.rounds)
    rows = []
    for name, seconds in figures.items():
        rival = f"{NNUNET}, {name.rsplit(', ', 1)[1]}" if name != READING else None
        faster = f"{common.ratio(figures[rival], seconds):.1f}" if rival in figures else ""
        rows.append([name, f"{statistics.median(seconds):.1f}", f"{common.ratio(seconds, figures[READING]):.1f}", faster])
    header = ["preparing", "seconds a study", "times the reading of its two files", "times faster than nnU-Net v2"]
    common.report("prepare", header, rows, figures, skipped)


if __name__ == "__main__":
    main()
