"""The whole method as a chain of the commands that a person would type, each skipped when its result is already there."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petct_training.commands import SOME_FAILED
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import read_json, write_json

ENSEMBLE = "autopet_ensemble"


STAGE1 = "autopet_stage1_dynunet"


STAGE2 = ("autopet_stage2_segresnet", "autopet_stage2_swinunetr", "autopet_stage2_unet")


@dataclass(frozen=True)
class Step:
    """One command of the method.

    Attributes:
        name: what the step is called when it is announced, and the name of its record.
        bundle: folder of the bundle in which the command runs.
        run_id: id that `monai.bundle run` evaluates.
        configs: config files, named from the bundle's `configs` and without suffix, later ones patching earlier ones.
        overrides: ids and their values on the command line; a `Path` is written relative to the bundle's folder.
        inputs: files and folders from which the result is made.
        outputs: files and folders that the step makes.
        resumes: whether the command understands `--resume true`.
        processes: number of processes; more than one runs under torchrun.
        fresh: folders that are emptied when the step begins anew.
        problems: file that names the studies that the step could not use.
    """

    name: str
    bundle: Path
    run_id: str
    configs: tuple[str, ...]
    overrides: Mapping[str, Any]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    resumes: bool = False
    processes: int = 1
    fresh: tuple[Path, ...] = ()
    problems: Path | None = None

    @property
    def files(self) -> list[str]:
        """The config files, relative to the bundle's folder."""
        return [posixpath.normpath(f"configs/{config}.json") for config in self.configs]

    def arguments(self, resume: bool = False) -> list[str]:
        """What follows `python` on the command line."""
        files = self.files
        launcher = ["-m", "monai.bundle"]
        if self.processes > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}", *launcher]
        result = [*launcher, "run", self.run_id, "--config_file", files[0] if len(files) == 1 else repr(files)]
        overrides = {**self.overrides, **({"resume": True} if resume else {})}
        for name, value in overrides.items():
            result += [f"--{name}", os.path.relpath(value, self.bundle) if isinstance(value, Path) else str(value)]
        return result

    def state(self) -> dict[str, Any]:
        """What the result depends on: the command, the configs' content, and size and time of every input file."""
        configs = {name: hashlib.sha256((self.bundle / name).read_bytes()).hexdigest() for name in self.files}
        return {"command": self.arguments(), "configs": configs, "inputs": {str(path): _listing(path) for path in self.inputs}}

    def result(self) -> dict[str, Any]:
        """Name, size and time of every file that the step has made."""
        return {str(path): _listing(path) for path in self.outputs}


def _listing(path: Path) -> list[list[Any]]:
    """Name, size and time of modification of a file, or of every file in a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]


def plan(
    studies: Path,
    work_dir: Path,
    bundles_dir: Path,
    profile: str = "full",
    num_gpus: int = 0,
    prepare_options: Mapping[str, Any] | None = None,
    train_options: Mapping[str, Any] | None = None,
) -> list[Step]:
    """The steps of the method, in their order; the arguments are those of `run_pipeline`."""
    prepared, models, results = work_dir / "prepared", work_dir / "models", work_dir / "results"
    demo = ("demo",) if profile == "demo" else ()
    multi_gpu = ("multi_gpu_train",) if num_gpus > 1 else ()
    data = (prepared / "datalist.json", prepared / "fingerprint.json")
    # Files that the preparation may read, the evaluation reads again.
    allowed = {name: value for name, value in (prepare_options or {}).items() if name == "allow_outside"}

    def train(name: str, extra_inputs: tuple[Path, ...] = ()) -> Step:
        return Step(
            name=f"train {name}",
            bundle=bundles_dir / name,
            run_id="training",
            configs=("train", *demo, *multi_gpu),
            overrides={
                "dataset_dir": prepared,
                "ckpt_dir": models / name,
                "output_dir": work_dir / "logs" / name,
                **(train_options or {}),
            },
            inputs=data + extra_inputs,
            outputs=(models / name / "model.pt", models / name / "fingerprint.json"),
            resumes=True,
            processes=max(1, num_gpus),
            fresh=(models / name, work_dir / "logs" / name),
        )

    predict = Step(
        name="predict the coarse masks",
        bundle=bundles_dir / STAGE1,
        run_id="inferring",
        configs=("inference", *demo),
        overrides={"dataset_dir": prepared, "ckpt_dir": models / STAGE1, "output_dir": prepared / "coarse_masks"},
        inputs=(*data, models / STAGE1 / "model.pt"),
        outputs=(prepared / "coarse_masks",),
    )
    return [
        Step(
            name="prepare",
            bundle=bundles_dir / ENSEMBLE,
            run_id="prepare",
            configs=("prepare",),
            overrides={"studies": studies, "dataset_dir": prepared, **(prepare_options or {})},
            inputs=(studies,),
            outputs=data,
            problems=data[0],
        ),
        train(STAGE1),
        predict,
        *(train(name, (prepared / "coarse_masks",)) for name in STAGE2),
        Step(
            name="assemble",
            bundle=bundles_dir / ENSEMBLE,
            run_id="assemble",
            configs=("inference", "assemble", *demo),
            overrides={"models_dir": models, "ckpt_dir": models / ENSEMBLE},
            inputs=tuple(models / name / "model.pt" for name in (STAGE1, *STAGE2)),
            outputs=(models / ENSEMBLE / "model.pt", models / ENSEMBLE / "fingerprint.json"),
        ),
        Step(
            name="evaluate",
            bundle=bundles_dir / ENSEMBLE,
            run_id="evaluating",
            configs=("inference", "evaluate", *demo),
            overrides={"dataset_dir": prepared, "ckpt_dir": models / ENSEMBLE, "output_dir": results, **allowed},
            inputs=(*data, models / ENSEMBLE / "model.pt"),
            outputs=(results / "table1.md", results / "scores.csv"),
            problems=results / "problems.json",
        ),
    ]


def _run(step: Step, record: Path) -> tuple[bool, bool]:
    """Run a step unless its result is there, and say whether it ran, and whether it left studies out that have errors.

    The record is written when the step begins and again when it has ended. A training that was interrupted, and whose inputs are
    still the same, goes on where it stopped; one whose inputs have changed, or whose weights were taken away, begins anew.

    Raises:
        InputError: when the command ends with another exit code than 0, or 3: done, except for some studies.
    """
    state = step.state()
    known = read_json(record) if record.is_file() else {}
    same = known.get("state") == state
    if same and known.get("outputs") == step.result():
        return False, known["some_failed"]
    interrupted = same and "outputs" not in known
    if not interrupted:
        for folder in step.fresh:
            shutil.rmtree(folder, ignore_errors=True)
    write_json(record, {"state": state})
    arguments = step.arguments(resume=step.resumes and interrupted)
    print(f"$ cd {shlex.quote(os.path.relpath(step.bundle))} && {shlex.join(['python', *arguments])}", flush=True)
    code = subprocess.run([sys.executable, *arguments], cwd=step.bundle, check=False).returncode
    if code not in (0, SOME_FAILED):
        raise InputError(
            f"'{step.name}' ended with exit code {code}: see what its command says above, then run the pipeline again"
        )
    write_json(record, {"state": state, "outputs": step.result(), "some_failed": code == SOME_FAILED})
    return True, code == SOME_FAILED


def run_pipeline(
    studies: str | os.PathLike,
    work_dir: str | os.PathLike,
    bundles_dir: str | os.PathLike,
    profile: str = "full",
    num_gpus: int = 0,
    prepare_options: Mapping[str, Any] | None = None,
    train_options: Mapping[str, Any] | None = None,
) -> None:
    """Run the whole method: prepare, train stage 1, predict with it, train stage 2, assemble, evaluate.

    Every step is a command that is printed before it runs. A step is skipped when it has been finished with the same command,
    the same configs and the same inputs, and its result is still there; an interrupted training goes on where it stopped. Studies
    with errors do not stop the pipeline: it goes on without them, and ends with exit code 3.

    Args:
        studies: raw data set, or a CSV or JSON list of studies, as `prepare` reads it.
        work_dir: folder for all that is made: `prepared`, `models/<bundle>`, `logs/<bundle>` (TensorBoard), `results`, `steps`.
        bundles_dir: folder in which the five bundles lie side by side.
        profile: "full" for the paper's configs, "demo" for a size that two CPU cores train in minutes.
        num_gpus: number of GPUs; with more than one, the networks are trained under torchrun.
        prepare_options: further ids and values for `prepare`, for example {"spacing": "median"}.
        train_options: further ids and values for each training, for example {"max_epochs": 200}.

    Raises:
        SystemExit: with one sentence when the profile is unknown or a step fails; with exit code 3 when all was done, except for
            some studies.
    """
    if profile not in ("full", "demo"):
        raise InputError(f"profile is '{profile}': give 'full' or 'demo'")
    studies, work_dir, bundles_dir = (Path(path).resolve() for path in (studies, work_dir, bundles_dir))
    if not studies.exists():
        raise InputError(f"{studies} does not exist: name the raw data set with --studies")
    steps = plan(studies, work_dir, bundles_dir, profile, num_gpus, prepare_options, train_options)
    seconds: list[tuple[str, str]] = []
    incomplete = []
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.name}", flush=True)
        start = time.monotonic()
        ran, some_failed = _run(step, work_dir / "steps" / f"{step.name.replace(' ', '_')}.json")
        if some_failed:
            incomplete.append(f"{step.name}: {os.path.relpath(step.problems)} names them")
        seconds.append((step.name, f"{time.monotonic() - start:.0f} s" if ran else "was done"))
        if not ran:
            print("was done", flush=True)
    _print_summary(seconds, work_dir / "results")
    if incomplete:
        raise SomeFailedError("some studies have errors, and all was done without them", incomplete)


def _print_summary(seconds: Iterable[tuple[str, str]], results: Path) -> None:
    print("\n" + "\n".join(f"{name:32} {duration:>9}" for name, duration in seconds))
    print(f"\n{(results / 'table1.md').read_text(encoding='utf-8')}\nResults: {os.path.relpath(results)}", flush=True)
