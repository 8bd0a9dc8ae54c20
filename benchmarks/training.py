"""Seconds of one training step of each network against its bare forward and backward: python benchmarks/training.py

A step is all that `run training` does from one batch to the next: reading and augmenting, forward, loss, backward, optimiser,
TensorBoard. The bare one is forward, loss, backward and optimiser on a batch that lies in memory. By default the networks are those of
the demo profile, whose steps are so short that whatever is added to them shows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial

import common
from common import PREPARED, ROOT
from ignite.engine import Events
from monai.bundle import ConfigParser

from petct_cascade.method import STAGE1, STAGE2
from petct_training.commands import command
from petct_training.cpu import keep_freed_memory

ROUNDS = 3
# Steps before the clock starts, and those that are timed.
STEPS = {"demo": (3, 10), "full": (1, 2)}


def measure(bundle: str, profile: str) -> dict[str, float]:
    """Seconds of a step in the trainer, and of a bare one."""
    before, timed = STEPS[profile]
    os.chdir(ROOT / "bundles" / bundle)
    parser = ConfigParser()
    parser.read_config(["configs/train.json", *(["configs/demo.json"] if profile == "demo" else [])])
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        parser.update({"dataset_dir": str(PREPARED), "output_dir": folder, "ckpt_dir": folder, "max_epochs": 1})
        parser.update({"train::validation::_disabled_": True})
        dataset, batch_size = parser.get_parsed_content("train::dataset"), parser.get_parsed_content("batch_size")
        dataset.data = (list(dataset.data) * batch_size * (before + timed))[: batch_size * (before + timed)]
        trainer = parser.get_parsed_content("train::trainer")
        times: list[float] = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: times.append(time.perf_counter()))
        trainer.run()
        network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss_function", "optimizer"))
        batch = next(iter(parser.get_parsed_content("train::dataloader")))
        image, label = (batch[key].as_tensor().to(parser.get_parsed_content("device")) for key in ("image", "label"))
    bare = []
    for _ in range(before + timed):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()
        bare.append(time.perf_counter() - start)
    return {"step": (times[-1] - times[before - 1]) / timed, "bare": statistics.mean(bare[before:])}


@command
def main() -> None:
    """Let the networks train in turn, each in a process of its own, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=STEPS, default="demo")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.profile)))
        return
    common.prepared_studies()
    options = ["--profile", arguments.profile]
    figures = common.side_by_side(
        {
            bundle: partial(common.in_a_process, "training.py", *options, "--measure", bundle, threads=os.cpu_count())
            for bundle in (STAGE1, *STAGE2)
        },
        arguments.rounds,
    )
    rows = []
    for bundle, rounds in figures.items():
        step, bare = ([figure[name] for figure in rounds] for name in ("step", "bare"))
        row = [f"{statistics.median(seconds):.3f}" for seconds in (step, bare)]
        rows.append([bundle, *row, f"{common.ratio(step, bare):.2f}"])
    header = ["training", "seconds a step", "forward, backward, optimiser", "ratio"]
    common.report(f"training-{arguments.profile}", header, rows, figures)


if __name__ == "__main__":
    main()
