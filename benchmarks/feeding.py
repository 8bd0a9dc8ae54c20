"""Augmented patches of 128 x 160 x 112 voxels per second that two processes feed to a training: python benchmarks/feeding.py

Ours reads the prepared data set as train.json does; MONAI's transforms read the same studies whole, and take the same patches out of
them. nnU-Net v2 reads what its own preprocessor has made, with its default augmentation. Plain MONAI reads the raw files, orients,
resamples and crops each time, as the challenge's datacentric baseline does, and then takes and augments patches with MONAI's
transforms; its studies have the wanted spacing already, so that the resampling costs it nothing. Patch, batch size and the number of
processes are the same for all.

With --alone, each network bundle is copied to an empty folder and fed from there, against the same in place.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import common
import nnunet
import psutil
from common import PREPARED, RAW, ROOT
from plain_chain import plain_chain

from petct_cascade.method import STAGE1, STAGE2
from petct_training.commands import command
from petct_training.cpu import keep_freed_memory
from petct_training.files import read_json

BUNDLES = ROOT / "bundles"
PROCESSES, BATCH_SIZE, ROUNDS = 2, 2, 3
OURS, CHAIN, NNUNET, MONAI = "train.json", "MONAI's transforms", "nnU-Net v2", "plain MONAI"
# Batches drawn before the clock starts, since loaders make some ahead, and batches that are timed: as many of each process, which may
# finish theirs at the same moment.
BATCHES = {OURS: (10, 120), CHAIN: (4, 8), NNUNET: (12, 60), MONAI: (2, 2)}
# Patches of which the steps are timed, and those before the clock starts.
READ, STEPS_BEFORE, STEPS_TIMED = "reading, affine, scaling", 5, 200
INTENSITIES = {
    "RandGaussianNoised": "noise",
    "RandGaussianSmoothd": "smooth",
    "RandScaleIntensityd": "intensity",
    "RandSimulateLowResolutiond": "low_resolution",
    "RandAdjustContrastd, inverted": "gamma_inverted",
    "RandAdjustContrastd": "gamma",
}
# Ids of the transforms of each step, in train.json and in MONAI's chain.
QUICK_STEPS = {
    READ: ["train::patch"],
    "flips": ["train::flip"],
    **{label: [f"train::{name}"] for label, name in INTENSITIES.items()},
    "normalising, joining": ["train::normalise", "train::select"],
}
PLAIN_STEPS = {
    READ: ["plain::read", "plain::window", "plain::scale", "plain::crop"],
    "flips": ["plain::flips"],
    **{label: [f"plain::intensity::{number}"] for number, label in enumerate(INTENSITIES)},
    "normalising, joining": ["plain::normalise"],
}
TARGETS = {NNUNET: 3, MONAI: 10}
# A bundle that was copied must be fed as fast as in place; what rounds differ by on a busy machine.
ALONE_TARGET = 0.9


def training(name: str) -> Any:
    """Parser of stage 1's training as a competitor runs it."""
    from monai.bundle import ConfigParser

    os.chdir(BUNDLES / STAGE1)
    if name == OURS:
        keep_freed_memory()
    parser = ConfigParser()
    parser.read_config("configs/train.json")
    parser.update({"dataset_dir": str(PREPARED)} | ({} if name == OURS else plain_chain(coarse_mask=False)))
    parser.update(raw_reading() if name == MONAI else {})
    return parser


def monai_batches(name: str, processes: int) -> Iterator:
    """Batches of stage 1's training without end, as its configs build them."""
    from monai.data import DataLoader

    dataset = training(name).get_parsed_content("train::dataset")
    # One epoch without end, so that no time goes into starting its processes.
    dataset.data = list(dataset.data) * 10_000
    return iter(DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=processes))


def raw_reading() -> dict[str, Any]:
    """What makes MONAI's transforms read raw files: overrides of the plain chain."""
    datalist, spacing = read_json(PREPARED / "datalist.json"), read_json(PREPARED / "fingerprint.json")["spacing"]
    images = ["ct", "pet"]
    keys = [*images, "label"]
    items = [{key: str(RAW / item["original"][key]) for key in keys} for item in datalist["training"]]
    transforms = [
        {"_target_": "LoadImaged", "keys": keys},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "LAS", "labels": None},
        {"_target_": "Spacingd", "keys": keys, "pixdim": spacing, "mode": ["bilinear", "bilinear", "nearest"]},
        {"_target_": "CropForegroundd", "keys": keys, "source_key": "pet", "select_fn": "$lambda pet: pet > 0.3", "margin": 2},
        {"_target_": "ConcatItemsd", "keys": images, "name": "image"},
        {"_target_": "SelectItemsd", "keys": ["image", "label"]},
    ]
    return {"train::items": items, "plain::read": transforms}


def batches(name: str, processes: int) -> Iterator:
    """Batches of a competitor, without end."""
    return nnunet.training_loader(processes) if name == NNUNET else monai_batches(name, processes)


def measure(name: str, processes: int = PROCESSES) -> dict[str, float]:
    """Patches per second that some processes make, processor time (s) of all of them for one, and memory (GiB) of the largest one."""
    before, timed = BATCHES[name]
    loader = batches(name, processes)
    for _ in range(before):
        next(loader)
    start, busy = time.perf_counter(), cpu_seconds()
    for _ in range(timed):
        next(loader)
    seconds, busy = time.perf_counter() - start, cpu_seconds() - busy
    if name == NNUNET:
        loader._finish()
    del loader
    patches = timed * BATCH_SIZE
    return {
        "patches_per_second": patches / seconds,
        "cpu_seconds_per_patch": busy / patches,
        "peak_gib": common.peak_gib(resource.RUSAGE_CHILDREN),
    }


def steps(name: str) -> dict[str, float]:
    """Milliseconds a patch of each step of a chain, in one process alone, on average over those patches that draw it and those that do not."""
    from monai.data.utils import set_rnd
    from monai.transforms import apply_transform

    parser = training(name)
    dataset = parser.get_parsed_content("train::dataset")
    set_rnd(dataset, 0)
    names = QUICK_STEPS if name == OURS else PLAIN_STEPS
    groups: dict[str, list[Callable]] = {}
    for label, ids in names.items():
        found = [parser.get_parsed_content(id) for id in ids]
        groups[label] = [transform for part in found for transform in (part if isinstance(part, list) else [part])]
    seconds = dict.fromkeys(groups, 0.0)
    for number in range(STEPS_BEFORE + STEPS_TIMED):
        data = dataset.data[number % len(dataset.data)]
        for label, transforms in groups.items():
            start = time.perf_counter()
            for transform in transforms:
                data = apply_transform(transform, data)
            if number >= STEPS_BEFORE:
                seconds[label] += time.perf_counter() - start
    return {label: 1000 * total / STEPS_TIMED for label, total in seconds.items()}


def report_steps() -> None:
    """Measure the steps of both chains, and print them."""
    figures = {name: common.in_a_process("feeding.py", "--steps", "--measure", name) for name in (OURS, CHAIN)}
    rows = [[label, *(f"{figures[name][label]:.1f}" for name in (CHAIN, OURS))] for label in figures[OURS]]
    rows.append(["all", *(f"{sum(figures[name].values()):.1f}" for name in (CHAIN, OURS))])
    common.report("feeding-steps", ["step", f"{CHAIN}, ms a patch", f"{OURS}, ms a patch"], rows, figures)


def report_alone(rounds: int) -> None:
    """Feed each network bundle in place and from a copy in an empty folder, in turn, and print the ratios."""
    with tempfile.TemporaryDirectory() as empty:
        places = {}
        for bundle in (STAGE1, *STAGE2):
            copy = Path(empty) / bundle
            shutil.copytree(BUNDLES / bundle, copy, ignore=shutil.ignore_patterns("*.pt", "output", "data", "__pycache__"))
            places |= {f"{bundle} in place": BUNDLES / bundle, f"{bundle} copied": copy}
        figures = common.side_by_side({name: partial(alone, folder) for name, folder in places.items()}, rounds)
    rows = []
    for bundle in (STAGE1, *STAGE2):
        copied, own = (
            [round_["patches_per_second"] for round_ in figures[f"{bundle} {where}"]] for where in ("copied", "in place")
        )
        speeds = [f"{statistics.median(speed):.2f}" for speed in (own, copied)]
        rows.append([bundle, *speeds, f"{common.ratio(copied, own):.2f}", f"at least {ALONE_TARGET}"])
    header = ["feeding", "patches per second in place", "copied alone", "ratio", "target"]
    common.report("feeding-alone", header, rows, figures)


def alone(folder: Path) -> dict[str, float]:
    """Patches per second of the bundle in a folder, in a process that knows nothing else of this project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("alone.py")), str(PREPARED)]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def cpu_seconds() -> float:
    """Processor time that this process and the feeding ones have used, which a busy machine hardly changes."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


@command
def main() -> None:
    """Let the competitors feed in turn, each in a process of its own, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--steps", action="store_true", help="print instead what each step of a chain takes, of ours and of MONAI's"
    )
    parser.add_argument(
        "--alone", action="store_true", help="print instead how fast each bundle is fed when copied to an empty folder"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps((steps if arguments.steps else measure)(arguments.measure)))
        return
    common.prepared_studies()
    if arguments.steps:
        report_steps()
        return
    if arguments.alone:
        report_alone(arguments.rounds)
        return
    competitors, skipped = [OURS, CHAIN, MONAI], []
    if nnunet.is_installed():
        nnunet.preprocessed()
        competitors.append(NNUNET)
    else:
        skipped.append(nnunet.MISSING)
    measures: dict[str, Callable[[], dict[str, float]]] = {
        name: partial(common.in_a_process, "feeding.py", "--measure", name) for name in competitors
    }
    figures = common.side_by_side(measures, arguments.rounds)
    speed = {name: [figure["patches_per_second"] for figure in rounds] for name, rounds in figures.items()}
    rows = []
    for name in competitors:
        target = f"at least {TARGETS[name]}" if name in TARGETS else ""
        peak = max(figure["peak_gib"] for figure in figures[name])
        ratio = f"{common.ratio(speed[OURS], speed[name]):.1f}"
        rows.append([name, f"{statistics.median(speed[name]):.2f}", ratio, target, f"{peak:.1f}"])
    header = ["feeding", "patches per second", "train.json is faster by", "target", "GiB of a feeding process"]
    common.report("feeding", header, rows, figures, skipped)


if __name__ == "__main__":
    main()
