"""Patches per second of the training in the bundle that is the current folder, with its own Python: python alone.py DATASET_DIR

It imports nothing else of this project, so that a bundle copied to an empty folder stands alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

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
    start = time.perf_counter()
    for _ in range(TIMED):
        next(loader)
    print(json.dumps({"patches_per_second": TIMED * BATCH_SIZE / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main(sys.argv[1])
