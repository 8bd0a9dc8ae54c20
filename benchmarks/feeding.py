"""Augmented patches of 128 x 160 x 112 voxels per second that two processes feed to a training: python tests/benchmarks/feeding.py

Ours reads the prepared data set as feeding.json does, or with the network bundle's own MONAI chain. nnU-Net v2 reads what its own
preprocessor has made, with its default augmentation. Plain MONAI reads the raw files, orients, resamples and crops each time, as
the challenge's datacentric baseline does, and then takes and augments patches as ours; its studies have the wanted spacing
already, so that the resampling costs it nothing. Patch, batch size and the number of processes are the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import common
import nnunet
import psutil
from common import ENSEMBLE, PREPARED, RAW, ROOT

from petct_training.files import read_json

PROCESSES, BATCH_SIZE, ROUNDS = 2, 2, 3
OURS, CHAIN, NNUNET, MONAI = "feeding.json", "train.json", "nnU-Net v2", "plain MONAI"
# Batches drawn before the clock starts, since loaders make some ahead, and batches that are timed: as many of each process, which may
# finish theirs at the same moment.
BATCHES = {OURS: (10, 120), CHAIN: (4, 8), NNUNET: (12, 60), MONAI: (2, 2)}
# Patches of which the steps are timed, and those before the clock starts.
READ, STEPS_BEFORE, STEPS_TIMED = "reading, affine, scaling", 5, 200
TARGETS = {NNUNET: 3, MONAI: 10}


def training(name: str) -> Any:
    """Parser of stage 1's training as a competitor runs it."""
    from monai.bundle import ConfigParser

    os.chdir(ROOT / "bundles/autopet_stage1_dynunet")
    parser = ConfigParser()
    parser.read_config(["configs/train.json"] + ([str(ENSEMBLE / "configs/feeding.json")] if name == OURS else []))
    parser.update({"dataset_dir": str(PREPARED)} | (raw_chain() if name == MONAI else {}))
    return parser


def monai_batches(name: str) -> Iterator:
    """Batches of stage 1's training without end, as its configs build them."""
    from monai.data import DataLoader

    dataset = training(name).get_parsed_content("train::dataset")
    # One epoch without end, so that no time goes into starting its processes.
    dataset.data = list(dataset.data) * 10_000
    return iter(DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=PROCESSES))


def raw_chain() -> dict[str, Any]:
    """What makes the training chain read raw files: overrides of train.json."""
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
    return {"train::items": items, "train::read_transforms": transforms}


def batches(name: str) -> Iterator:
    """Batches of a competitor, without end."""
    return nnunet.training_loader(PROCESSES) if name == NNUNET else monai_batches(name)


def measure(name: str) -> dict[str, float]:
    """Patches per second, processor time (s) of all processes for one, and the memory (GiB) of the largest process that feeds."""
    before, timed = BATCHES[name]
    loader = batches(name)
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
    groups = {
        READ: parser.get_parsed_content("train::patch_transforms"),
        "flips": parser.get_parsed_content("train::flip_transforms"),
    }
    for transform in parser.get_parsed_content("train::intensity_transforms"):
        # Those of feeding.json derive from MONAI's, whose names they are told by.
        label = next(c.__name__ for c in type(transform).__mro__ if c.__module__.startswith("monai."))
        groups.setdefault(label, []).append(transform)
    groups["normalising, joining"] = parser.get_parsed_content("train::normalise_transforms")
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


def cpu_seconds() -> float:
    """Processor time that this process and the feeding ones have used, which a busy machine hardly changes."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def main() -> None:
    """Let the competitors feed in turn, each in a process of its own, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--steps", action="store_true", help="print instead what each step of a chain takes, of ours and of MONAI's"
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
    header = ["feeding", "patches per second", "feeding.json is faster by", "target", "GiB of a feeding process"]
    common.report("feeding", header, rows, figures, skipped)


if __name__ == "__main__":
    main()
