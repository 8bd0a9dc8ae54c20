"""Patches per second fed to the training of the bundle in the current folder, with its own Python: python alone.py DATASET_DIR

It imports nothing else of this project, so that a bundle copied to an empty folder stands alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
from monai.bundle import ConfigParser
from monai.data import DataLoader

PROCESSES, BATCH_SIZE = 2, 2
# Batches drawn before the clock starts, since loaders make some ahead, and batches that are timed.
BEFORE, TIMED = 10, 60


def main(dataset_dir: str) -> None:
    """Feed as the bundle's train.json does, and print the figure as JSON."""
    sys.path.insert(0, str(Path.cwd()))
    parser = ConfigParser()
    parser.read_config("configs/train.json")
    parser.update({"dataset_dir": dataset_dir})
    import petct_training.cpu

    assert Path(petct_training.cpu.__file__).is_relative_to(Path.cwd())
    petct_training.cpu.keep_freed_memory()
    dataset = parser.get_parsed_content("train::dataset")
    # One epoch without end, so that no time goes into starting its processes.
    dataset.data = list(dataset.data) * 10_000
    loader = iter(DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=PROCESSES))
    for _ in range(BEFORE):
        next(loader)
    start, busy = time.perf_counter(), cpu_seconds()
    for _ in range(TIMED):
        next(loader)
    seconds, busy = time.perf_counter() - start, cpu_seconds() - busy
    patches = TIMED * BATCH_SIZE
    print(json.dumps({"patches_per_second": patches / seconds, "cpu_seconds_per_patch": busy / patches}))


def cpu_seconds() -> float:
    """Processor time that this process and the feeding ones have used, which a busy machine hardly changes."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


if __name__ == "__main__":
    main(sys.argv[1])
