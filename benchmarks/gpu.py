"""What a GPU makes of training and inference: python benchmarks/gpu.py --weights demo/phantoms

For a GPU that is lent for a quarter of an hour: the parts come in order of worth, each in processes of its own with at most `--seconds`,
and each prints its table as soon as it is done. A part that fails or takes too long is one line, and costs the others nothing.
`--parts windows masks` takes some of them. Figures so far: dist/benchmarks/gpu.json.

- windows: milliseconds of a window of each network in float32, float16 and bfloat16, with channels first and last in memory, and as the
  inference computes it; two windows at once. Random weights, which take as long as trained ones.
- masks: Dice of the demo networks' masks with those in float32, for TRAINED weights (`make demo`), on phantoms that they have not seen.
- studies: seconds a study that `run inferring` takes for phantoms with voxels of the scanner's size, one after the other, from files to
  files; "segmenting" is up to the last mask, "all" has read-outs, pictures and report. Random weights, with a threshold above which almost
  no voxel lies.
- steps: milliseconds of a training step, of the paper's batch, in mixed precision, on data in memory.
- feeding: patches a second that train.json's processes read and augment, one for each core.
- processes: the same studies by one, two and four commands at once, which share the GPU and the output folder.
- compiled windows, compiled masks: the first two with `torch.compile`, which itself takes minutes.

Memory is what PyTorch has allocated at the peak, and in brackets what it has reserved. `--device cpu --profile demo` tries every part without
a GPU; its figures say nothing of one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import common
import feeding
import inference
import numpy as np
import torch
from common import ENSEMBLE, RESULTS
from helpers import parser_of
from monai.bundle import ConfigWorkflow
from simulated_reader import round_dice
from torch import nn

from petct_cascade.cascade import REDUCED_PRECISION, SlidingWindow
from petct_cascade.cli import weights_folder
from petct_cascade.judging import read_study
from petct_cascade.method import STAGE1, STAGE2
from petct_cascade.phantom import write_phantoms
from petct_cascade.predict import load_cascade
from petct_cascade.studies import find_studies
from petct_training.commands import command

# Calls before the clock starts, and those that are timed.
BEFORE, TIMED = 2, 5
SECONDS, PATIENTS, SEED, GOAL = 120, 4, 23, 0.999
NOBODY_ABOVE = 0.999
# Of the demo's size, as its weights want them; and full ones.
SHRINK = {"demo": 2, "full": 1}
PRECISIONS = {"cuda": ("float32", "float16", "bfloat16"), "cpu": ("float32", "bfloat16")}


@dataclass(frozen=True)
class Machine:
    """Where and with which networks is measured.

    Attributes:
        device: "cuda" or "cpu".
        profile: "full" or "demo" networks, for all parts but the masks.
        weights: folder of the demo's trained weights, for the masks.
        patients: of how many phantoms' patients the studies are.
    """

    device: str
    profile: str
    weights: Path | None
    patients: int

    @property
    def patches(self) -> list[str]:
        """The configs that make the profile of a default config."""
        return [] if self.profile == "full" else [self.profile]

    @property
    def models(self) -> Path:
        """Folder of the random weights."""
        return RESULTS / f"gpu_models_{self.profile}"


# ---------------------------------------------------------------- time, memory, variants


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(device: str, function: Callable[..., object], *arguments: object) -> float:
    """Seconds of a call, on average, once the device has done all of them."""
    for _ in range(BEFORE):
        function(*arguments)
    wait(device)
    start = time.perf_counter()
    for _ in range(TIMED):
        function(*arguments)
    wait(device)
    return (time.perf_counter() - start) / TIMED


def peak(device: str) -> dict[str, float]:
    """Peak memory of a GPU (GiB) since the last call, and forget it."""
    if device != "cuda":
        return {"allocated": 0, "reserved": 0}
    gib = {"allocated": torch.cuda.max_memory_allocated() / 2**30, "reserved": torch.cuda.max_memory_reserved() / 2**30}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return gib


def variants(device: str) -> list[tuple[str, str, torch.memory_format]]:
    """Name, precision and order in memory of what is compared, the reference first."""
    layouts = {"": torch.contiguous_format, ", channels last": torch.channels_last_3d}
    return [(precision + words, precision, layout) for precision in PRECISIONS[device] for words, layout in layouts.items()]


@contextlib.contextmanager
def precision_of(device: str, precision: str) -> Iterator[bool]:
    """Let the cascade's mixed precision be another in a block; yields whether there is any."""
    mixed = precision != "float32"
    with mock.patch.dict(REDUCED_PRECISION, {device: getattr(torch, precision)} if mixed else {}):
        yield mixed


def ordered(network: nn.Module, layout: torch.memory_format) -> None:
    network.to(memory_format=layout)  # type: ignore[call-overload]


# ---------------------------------------------------------------- the parts: what a child measures


def windows(machine: Machine, compiled: bool = False) -> dict[str, dict[str, dict[str, float]]]:
    """Of each network and variant the seconds of a window, and its memory."""
    parser = parser_of("autopet_ensemble", "inference", *machine.patches)
    parser.update({"device": machine.device})
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, module, images in inference.networks_and_windows(parser):
        results[name] = {}
        with torch.no_grad():
            if compiled:
                results[name] = {"compiled": compiled_window(machine, module, images)}
            else:
                for variant, precision, layout in variants(machine.device):
                    ordered(module.network, layout)
                    placed = images.contiguous(memory_format=layout)
                    dtype = getattr(torch, precision)
                    with torch.autocast(machine.device, dtype=dtype, enabled=precision != "float32"):
                        seconds = seconds_of(machine.device, module.network, placed) / len(images)
                    results[name][variant] = {"seconds": seconds} | peak(machine.device)
                ordered(module.network, torch.contiguous_format)
                with module.computing(machine.device) as network:
                    seconds = seconds_of(machine.device, network, images) / len(images)
                results[name]["as inferred"] = {"seconds": seconds} | peak(machine.device)
        print(name, results[name], file=sys.stderr, flush=True)
    return results


def compiled_window(machine: Machine, module: SlidingWindow, images: torch.Tensor) -> dict[str, float]:
    """Seconds of compiling a network in the inference's precision, and of a window."""
    with module.computing(machine.device) as network:
        network = torch.compile(network)
        start = time.perf_counter()
        network(images)
        wait(machine.device)
        compiling = time.perf_counter() - start
        return {"seconds": seconds_of(machine.device, network, images) / len(images), "compiling": compiling} | peak(
            machine.device
        )


def masks(machine: Machine, compiled: bool = False) -> dict[str, list[float]]:
    """Of each variant the Dice of each study's mask with that in float32; 1 where both are empty."""
    if machine.weights is None:
        raise SystemExit("error: masks need trained weights: give --weights WORK, as make demo leaves them in demo/phantoms")
    folder = phantoms(machine, "demo")
    cascade = load_cascade(weights_folder(machine.weights), "demo", device=machine.device)
    network = [module for module in cascade.network.modules() if isinstance(module, SlidingWindow)]
    inputs = [(volumes["ct"], volumes["pet"]) for _, volumes in map(read_study, find_studies(folder, labels=False)[0])]

    def segment(precision: str, layout: torch.memory_format) -> list[np.ndarray]:
        with precision_of(machine.device, precision) as mixed:
            for module in network:
                module.amp = mixed
                ordered(module.network, layout)
            return [cascade.open_volumes(*volumes).segment() > 0 for volumes in inputs]

    (_, first, layout), *others = variants(machine.device)
    reference = segment(first, layout)
    if compiled:
        for module in network:
            module.network = torch.compile(module.network)  # type: ignore[assignment]
        others = [(f"{precision}, compiled", precision, layout) for precision in PRECISIONS[machine.device][1:]]
    return {
        name: [round_dice(*pair) for pair in zip(segment(precision, layout), reference, strict=True)]
        for name, precision, layout in others
    }


def studies(machine: Machine) -> dict[str, dict[str, float]]:
    """Seconds a study of a run over the phantoms, in the inference's precision and in float32."""
    raw = phantoms(machine, machine.profile)
    number = len(find_studies(raw, labels=False)[0])
    results = {}
    for name, options in {"default": {}, "--amp false": {"amp": False}}.items():
        os.chdir(ENSEMBLE)
        with tempfile.TemporaryDirectory() as output:
            workflow = ConfigWorkflow(
                config_file=[f"configs/{config}.json" for config in ("inference", *machine.patches)],
                workflow_type="infer",
                run_id="inferring",
                logging_file=False,
                studies=str(raw),
                ckpt_dir=str(machine.models),
                output_dir=output,
                device=machine.device,
                threshold=NOBODY_ABOVE,
                **options,
            )
            workflow.initialize()
            start = time.perf_counter()
            workflow.run()
            whole = time.perf_counter() - start
            segmenting = workflow.parser.get_parsed_content("evaluator").state.times["COMPLETED"]
        figures = {"seconds": segmenting / number, "all": whole / number, "studies": number}
        results[name] = figures | peak(machine.device)
        print(name, results[name], file=sys.stderr, flush=True)
    return results


def steps(machine: Machine) -> dict[str, dict[str, float]]:
    """Of each network the seconds of a training step without the reading."""
    results = {}
    for bundle in (STAGE1, *STAGE2):
        parser = parser_of(bundle, "train", *machine.patches)
        parser.update({"dataset_dir": str(common.PREPARED), "device": machine.device})
        network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss_function", "optimizer"))
        batch, channels = parser.get_parsed_content("batch_size"), parser.get_parsed_content("network_def::in_channels")
        size = parser.get_parsed_content("patch_size")
        image = torch.randn(batch, channels, *size, device=machine.device)
        label = (torch.rand(batch, 1, *size, device=machine.device) > 0.99).float()
        scaler = torch.amp.GradScaler(machine.device, enabled=machine.device == "cuda")

        def step(network=network, loss=loss, optimizer=optimizer, image=image, label=label, scaler=scaler) -> None:
            optimizer.zero_grad()
            with torch.autocast(machine.device):
                value = loss(network(image), label)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()

        peak(machine.device)
        results[bundle] = {"batch": batch, "seconds": seconds_of(machine.device, step)} | peak(machine.device)
        del parser, network, loss, optimizer, image, label, step
        print(bundle, results[bundle], file=sys.stderr, flush=True)
    return results


def fed(machine: Machine) -> dict[str, dict[str, float]]:
    """Patches a second of stage 1's training, and how many processes made them."""
    cores = os.cpu_count() or 1
    return {"train.json": {"processes": cores} | feeding.measure(feeding.OURS, cores)}


def processes(machine: Machine) -> dict[str, dict[str, float]]:
    """Seconds of one, two and four commands at once, each with its own part of the phantoms."""
    raw = phantoms(machine, machine.profile)
    number = len(find_studies(raw, labels=False)[0])
    results = {}
    for of in (1, 2, 4):
        with tempfile.TemporaryDirectory() as output:
            options = {"studies": raw, "ckpt_dir": machine.models, "output_dir": output, "threshold": NOBODY_ABOVE, "of": of}
            options["device"] = machine.device
            configs = [f"configs/{config}.json" for config in ("inference", *machine.patches)]
            start = time.perf_counter()
            commands = [
                subprocess.Popen(
                    common.bundle_command("inferring", configs, options | {"part": part + 1}),
                    cwd=ENSEMBLE,
                    stdout=sys.stderr,
                    env=common.quiet(),
                )
                for part in range(of)
            ]
            codes = [command.wait() for command in commands]
            seconds = time.perf_counter() - start
        if any(codes):
            raise SystemExit(f"error: a command of {of} ended with {codes}")
        results[f"{of} at once"] = {"seconds": seconds, "studies": number}
        print(results, file=sys.stderr, flush=True)
    return results


def phantoms(machine: Machine, profile: str) -> Path:
    """Write the raw phantoms of a profile's size, or what is missing of them; no training of the demo has seen their seed."""
    raw = RESULTS / f"gpu_raw_{profile}_{machine.patients}"
    shrink = SHRINK[profile]
    with contextlib.redirect_stdout(sys.stderr):
        write_phantoms(raw, num_patients=machine.patients, seed=SEED, shrink=shrink, num_workers=os.cpu_count() or 1)
    return raw


def written(machine: Machine) -> dict[str, float]:
    """Write the data that later parts need."""
    with contextlib.redirect_stdout(sys.stderr):
        common.prepared_studies()
        inference.write_weights(machine.models, machine.patches)
    phantoms(machine, machine.profile)
    return {}


# ---------------------------------------------------------------- tables


def _gib(figure: dict[str, float]) -> str:
    return f"{figure['allocated']:.1f} ({figure['reserved']:.1f})"


def _milliseconds(figure: dict[str, float]) -> str:
    return f"{1000 * figure['seconds']:.1f}"


def table_of_windows(figures: dict) -> tuple[list[str], list[list[str]]]:
    names = list(next(iter(figures.values())))
    rows = [
        [name, *(_milliseconds(found[variant]) for variant in names), _gib(found["as inferred"])]
        for name, found in figures.items()
    ]
    return ["window, ms", *names, "as inferred, GiB"], rows


def table_of_compiled(figures: dict) -> tuple[list[str], list[list[str]]]:
    rows = [[name, _milliseconds(f["compiled"]), f"{f['compiled']['compiling']:.0f}"] for name, f in figures.items()]
    return ["window", "compiled, ms", "compiling, s"], rows


def table_of_masks(figures: dict) -> tuple[list[str], list[list[str]]]:
    rows = [
        [name, str(len(dice)), str(sum(value >= GOAL for value in dice)), f"{statistics.mean(dice):.5f}", f"{min(dice):.5f}"]
        for name, dice in figures.items()
    ]
    return ["Dice with the masks in float32", "studies", f"at least {GOAL}", "mean", "lowest"], rows


def table_of_studies(figures: dict) -> tuple[list[str], list[list[str]]]:
    rows = [[name, str(f["studies"]), f"{f['seconds']:.1f}", f"{f['all']:.1f}", _gib(f)] for name, f in figures.items()]
    return ["inference", "studies", "segmenting, s a study", "all, s a study", "GiB"], rows


def table_of_steps(figures: dict) -> tuple[list[str], list[list[str]]]:
    rows = [[name, str(f["batch"]), _milliseconds(f), _gib(f)] for name, f in figures.items()]
    return ["training step", "batch", "ms", "GiB"], rows


def table_of_feeding(figures: dict) -> tuple[list[str], list[list[str]]]:
    rows = [[name, str(f["processes"]), f"{f['patches_per_second']:.2f}"] for name, f in figures.items()]
    return ["feeding", "processes", "patches a second"], rows


def table_of_processes(figures: dict) -> tuple[list[str], list[list[str]]]:
    rows = [[name, str(f["studies"]), f"{f['seconds']:.1f}"] for name, f in figures.items()]
    return ["commands on one device", "studies", "s"], rows


@dataclass(frozen=True)
class Part:
    """What is measured, and how its figures become a table; None for what only prepares."""

    measure: Callable[[Machine], object]
    table: Callable[[dict], tuple[list[str], list[list[str]]]] | None


PARTS = {
    "windows": Part(windows, table_of_windows),
    "masks": Part(masks, table_of_masks),
    "data": Part(written, None),
    "studies": Part(studies, table_of_studies),
    "steps": Part(steps, table_of_steps),
    "feeding": Part(fed, table_of_feeding),
    "processes": Part(processes, table_of_processes),
    "compiled windows": Part(partial(windows, compiled=True), table_of_compiled),
    "compiled masks": Part(partial(masks, compiled=True), table_of_masks),
}
NEED_DATA = ("studies", "steps", "feeding", "processes")


def measured(part: str, words: Sequence[str], seconds: float) -> dict | str:
    """Run a part in a process of its own, and return its figures, or a sentence on why there are none."""
    command = [sys.executable, "-W", "ignore", __file__, *words, "--measure", part]
    # Of a session of its own, so that its end is the end of all that it has started.
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        answer, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"took more than {seconds:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return json.loads(answer.strip().splitlines()[-1]) if child.returncode == 0 else f"ended with {child.returncode}, see above"


@command
def main() -> None:
    """Measure each part, and print its table at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of `make demo`, demo/phantoms, or of its model.pt; masks need it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which, in the order above")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that a part may take")
    parser.add_argument("--patients", type=int, default=PATIENTS, help="how many phantoms' patients")
    parser.add_argument("--device", choices=PRECISIONS, default="cuda")
    parser.add_argument("--profile", choices=SHRINK, default="full", help="of the networks, but for the masks")
    parser.add_argument("--measure", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: there is no GPU that PyTorch can use")
    if given.measure:
        weights = given.weights and given.weights.resolve()
        print(json.dumps(PARTS[given.measure].measure(Machine(given.device, given.profile, weights, given.patients))))
        return
    wanted = [part for part in PARTS if part in given.parts or (part == "data" and set(given.parts) & set(NEED_DATA))]
    # So that what is ended from outside ends the part that runs, too, which has a session of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words = ["--device", given.device, "--profile", given.profile, "--patients", str(given.patients)]
    words += ["--weights", str(given.weights)] if given.weights else []
    RESULTS.mkdir(parents=True, exist_ok=True)
    print(torch.cuda.get_device_name() if given.device == "cuda" else "CPU", "PyTorch", torch.__version__, flush=True)
    figures, failed = {}, []
    for part in wanted:
        start = time.perf_counter()
        found = measured(part, words, given.seconds)
        print(f"\n{part}: {time.perf_counter() - start:.0f} s\n", flush=True)
        if isinstance(found, str):
            failed.append(f"{part} {found}")
            print(f"error: {failed[-1]}", flush=True)
        elif (table := PARTS[part].table) is not None:
            figures[part] = found
            common.report("gpu", *table(found), figures, failed)
    if failed:
        sys.exit(f"error: {len(failed)} of {len(wanted)} parts have no figures")


if __name__ == "__main__":
    main()
