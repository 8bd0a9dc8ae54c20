"""What the benchmarks share: full-size studies, timing side by side, tables and records."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[1]
ENSEMBLE = ROOT / "bundles/autopet_ensemble"
RESULTS = ROOT / "dist/benchmarks"
RAW, PREPARED = RESULTS / "raw", RESULTS / "prepared"
sys.path[:0] = [str(ENSEMBLE), str(ROOT / "tests"), str(ROOT / "tools")]

import nibabel as nib  # noqa: E402

from petct_cascade.phantom import write_phantoms  # noqa: E402
from petct_cascade.preparation import PrepareOptions  # noqa: E402
from petct_cascade.prepare import prepare  # noqa: E402
from petct_training.files import write_json  # noqa: E402

Figure = TypeVar("Figure")


def full_size_studies() -> Path:
    """Write three phantoms of two patients, 400 x 400 x 326 voxels of 2.036 x 2.036 x 3 mm, or what is missing of them.

    Returns:
        The raw data set.
    """
    write_phantoms(RAW, num_patients=2, seed=0, shrink=1)
    return RAW


def prepared_studies() -> Path:
    """Prepare the full-size studies at their own spacing, with the labels as coarse masks.

    Returns:
        The prepared data set.
    """
    prepare(full_size_studies(), PREPARED, PrepareOptions(num_workers=os.cpu_count() or 1))
    for label in (PREPARED / "labels").glob("*.nii"):
        mask = PREPARED / "coarse_masks" / f"{label.name}.gz"
        if not mask.is_file():
            mask.parent.mkdir(exist_ok=True)
            nib.save(nib.load(label), mask)
    return PREPARED


def run_bundle(bundle: Path, run_id: str, configs: Sequence[str | Path], options: Mapping[str, Any]) -> None:
    """Run an id of a bundle as a user does, in its folder, with configs and overrides; what it prints goes to stderr."""
    subprocess.run(bundle_command(run_id, configs, options), cwd=bundle, check=True, stdout=sys.stderr, env=quiet())


def bundle_command(run_id: str, configs: Sequence[str | Path], options: Mapping[str, Any]) -> list[str]:
    """The command line of an id of a bundle with configs and overrides, to be run in its folder."""
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(list(map(str, configs)))]
    return command + [text for name, value in options.items() for text in (f"--{name}", str(value))]


def quiet() -> dict[str, str]:
    """This process's environment, without Python's warnings."""
    return {**os.environ, "PYTHONWARNINGS": "ignore"}


def in_a_process(script: str, *arguments: str, threads: int = 1) -> Any:
    """Run a script of this folder in a fresh process, in which no other competitor has left anything, and read its last line as JSON."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / script), *arguments]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_a_command(script: str, *arguments: str) -> None:
    """Run a script in a fresh process with all cores; what it prints goes to stderr."""
    subprocess.run([sys.executable, script, *arguments], check=True, stdout=sys.stderr, env=quiet())


def side_by_side(competitors: Mapping[str, Callable[[], Figure]], rounds: int) -> dict[str, list[Figure]]:
    """Let each competitor measure itself in turn, `rounds` times, so that a busy machine is busy for all."""
    figures: dict[str, list[Figure]] = {name: [] for name in competitors}
    for number in range(rounds):
        for name, measure in competitors.items():
            figures[name].append(measure())
            print(f"  round {number + 1} of {rounds}, {name}: {figures[name][-1]}", file=sys.stderr, flush=True)
    return figures


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median over the rounds of the quotient of two figures of one round."""
    return statistics.median(above / below for above, below in zip(numerator, denominator, strict=True))


def peak_gib(processes: int) -> float:
    """Peak resident memory (GiB) of `resource.RUSAGE_SELF`, or of the largest of `resource.RUSAGE_CHILDREN` that have ended."""
    return resource.getrusage(processes).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def machine() -> str:
    """Processor, number of cores this process may use, and Python."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        names = [
            line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {model}, Python {platform.python_version()}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, and an empty line."""
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def report(
    name: str, header: Sequence[str], rows: Sequence[Sequence[str]], figures: Mapping[str, Any], skipped: Sequence[str] = ()
) -> None:
    """Print a table in Markdown, and write the figures of all rounds to dist/benchmarks/<name>.json."""
    print_table(header, rows)
    for sentence in skipped:
        print(f"Skipped: {sentence}")
    record(name, figures, skipped)


def record(name: str, figures: Mapping[str, Any], skipped: Sequence[str] = ()) -> None:
    """Write the figures of all rounds to dist/benchmarks/<name>.json, and print machine and date."""
    file = RESULTS / f"{name}.json"
    entry = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "skipped": list(skipped), "figures": figures}
    write_json(file, entry)
    print(f"{entry['machine']}, {entry['date']}. All rounds: {file.relative_to(ROOT)}")
