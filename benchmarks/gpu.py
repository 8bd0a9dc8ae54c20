"""Seconds and peak memory of the default networks on a GPU, in training and in inference: python benchmarks/gpu.py

Windows are forwards of two at once, as the inference takes them. Steps are forward, loss, backward and optimiser in mixed precision, of
the paper's batch, on data in memory. Studies are full-size phantoms that `run inferring` segments one after the other, from files to files,
with and without the check and the read-outs, which the CPU does. Weights are random, with a threshold above which almost no voxel lies.
Memory is what PyTorch has allocated at the peak, and in brackets what it has reserved.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import common
import inference
import torch
from common import ENSEMBLE, RAW
from helpers import parser_of
from monai.bundle import ConfigWorkflow

from petct_cascade.method import STAGE1, STAGE2
from petct_cascade.phantom import write_phantoms

# Calls before the clock starts, and those that are timed.
BEFORE, TIMED = 2, 5
WINDOWS, COMPILED, STEPS, STUDIES = "windows", "compiled", "steps", "studies"


def seconds_of(function: Callable[..., object], *arguments: object) -> float:
    """Seconds of a call, on average, once the GPU has done all of them."""
    for _ in range(BEFORE):
        function(*arguments)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(TIMED):
        function(*arguments)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / TIMED


def peak() -> dict[str, float]:
    """Peak memory (GiB) since the last call, and forget it."""
    gib = {"allocated": torch.cuda.max_memory_allocated() / 2**30, "reserved": torch.cuda.max_memory_reserved() / 2**30}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return gib


def windows(compiled: bool) -> dict[str, dict[str, float]]:
    """Of each network the seconds of a window in float32 and in the inference's precision, or compiled in that precision."""
    parser = parser_of("autopet_ensemble", "inference")
    results = {}
    for name, module, images in inference.networks_and_windows(parser):
        figures = {}
        with torch.no_grad():
            if not compiled:
                figures["float32"] = seconds_of(module.network, images) / len(images)
                peak()
            with module.computing("cuda") as bare:
                if compiled:
                    bare = torch.compile(bare)
                    start = time.perf_counter()
                    bare(images)
                    torch.cuda.synchronize()
                    figures["compiling"] = time.perf_counter() - start
                figures["seconds"] = seconds_of(bare, images) / len(images)
        results[name] = figures | peak()
        print(name, results[name], file=sys.stderr, flush=True)
    return results


def steps() -> dict[str, dict[str, float]]:
    """Of each network the seconds of a training step without the reading."""
    common.prepared_studies()
    results = {}
    for bundle in (STAGE1, *STAGE2):
        parser = parser_of(bundle, "train")
        parser.update({"dataset_dir": str(common.PREPARED)})
        network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss_function", "optimizer"))
        batch, channels = parser.get_parsed_content("batch_size"), parser.get_parsed_content("network_def::in_channels")
        size = parser.get_parsed_content("patch_size")
        image = torch.randn(batch, channels, *size, device="cuda")
        label = (torch.rand(batch, 1, *size, device="cuda") > 0.99).float()
        scaler = torch.amp.GradScaler("cuda")

        def step(network=network, loss=loss, optimizer=optimizer, image=image, label=label, scaler=scaler) -> None:
            optimizer.zero_grad()
            with torch.autocast("cuda"):
                value = loss(network(image), label)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()

        peak()
        results[bundle] = {"batch": batch, "seconds": seconds_of(step)} | peak()
        del parser, network, loss, optimizer, image, label, step
        print(bundle, results[bundle], file=sys.stderr, flush=True)
    return results


def studies(body_margin: int) -> dict[str, float]:
    """Seconds a study of a run over nine full-size phantoms, from the first file to the last."""
    common.prepared_studies()
    inference.write_models()
    raw = RAW.parent / "raw9"
    write_phantoms(raw, num_patients=6, seed=1, shrink=1, num_workers=9)
    os.chdir(ENSEMBLE)
    with tempfile.TemporaryDirectory() as output:
        workflow = ConfigWorkflow(
            config_file="configs/inference.json",
            workflow_type="infer",
            run_id="inferring",
            logging_file=False,
            studies=str(raw),
            ckpt_dir=str(inference.MODELS),
            output_dir=output,
            body_margin=body_margin,
            threshold=0.999,
        )
        workflow.initialize()
        start = time.perf_counter()
        workflow.run()
        whole = time.perf_counter() - start
        evaluator = workflow.parser.get_parsed_content("evaluator")
        number = len(evaluator.data_loader.dataset)
        return {
            "seconds": evaluator.state.times["COMPLETED"] / number,
            "with_read_outs": whole / number,
            "studies": number,
        } | peak()


MEASURES: dict[str, Callable[[], object]] = {
    WINDOWS: partial(windows, compiled=False),
    STUDIES: partial(studies, body_margin=2),
    f"{STUDIES}, larger body": partial(studies, body_margin=30),
    STEPS: steps,
    COMPILED: partial(windows, compiled=True),
}


def main() -> None:
    """Measure each in a process of its own, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: there is no GPU that PyTorch can use")
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure]()))
        return
    common.RESULTS.mkdir(parents=True, exist_ok=True)
    figures = {}
    for name in MEASURES:
        figures[name] = common.in_a_process("gpu.py", "--measure", name, threads=os.cpu_count())
        print(name, figures[name], file=sys.stderr, flush=True)
    rows = []
    for name, figure in figures[WINDOWS].items():
        compiled = figures[COMPILED][name]
        milliseconds = [f"{1000 * value:.1f}" for value in (figure["float32"], figure["seconds"], compiled["seconds"])]
        rows.append([name, *milliseconds, f"{compiled['compiling']:.0f}", _gib(figure)])
    common.print_table(["window", "float32, ms", "mixed, ms", "compiled, ms", "compiling, s", "GiB"], rows)
    rows = [[name, str(f["batch"]), f"{1000 * f['seconds']:.0f}", _gib(f)] for name, f in figures[STEPS].items()]
    common.print_table(["training step", "batch", "ms", "GiB"], rows)
    rows = [
        [name, str(f["studies"]), f"{f['seconds']:.1f}", f"{f['with_read_outs']:.1f}", _gib(f)]
        for name, f in figures.items()
        if name.startswith(STUDIES)
    ]
    common.report("gpu", ["inference", "studies", "s a study", "with check and read-outs", "GiB"], rows, figures)
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)


def _gib(figure: dict[str, float]) -> str:
    return f"{figure['allocated']:.1f} ({figure['reserved']:.1f})"


if __name__ == "__main__":
    main()
