"""The whole method as a chain of the commands that a person would type, each skipped when its result is already there."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from petct_cascade.command_line import bundle_command
from petct_training.commands import SOME_FAILED
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import read_json, read_json_or_none, relative_path, stamp, write_json
from petct_training.records import RECORDS, digest_of, path_from, read_record

ENSEMBLE = "autopet_ensemble"
STAGE1 = "autopet_stage1_dynunet"
STAGE2 = ("autopet_stage2_segresnet", "autopet_stage2_swinunetr", "autopet_stage2_unet")
PROFILES = ("full", "demo")


@dataclass(frozen=True)
class Method:
    """What the whole method is run on and how; the attributes are the arguments of `run_pipeline`."""

    studies: Path
    work_dir: Path
    bundles_dir: Path
    profile: str = "full"
    num_gpus: int = 0
    prepare_options: Mapping[str, Any] = field(default_factory=dict)
    train_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prepared(self) -> Path:
        """Folder of the prepared data set."""
        return self.work_dir / "prepared"

    @property
    def data(self) -> tuple[Path, Path]:
        """The two files that every step after `prepare` reads."""
        return self.prepared / "datalist.json", self.prepared / "fingerprint.json"

    @property
    def volumes(self) -> Path:
        """Folder of the records of the prepared volumes, which change when a volume does."""
        return self.prepared / RECORDS

    @property
    def coarse_masks(self) -> Path:
        """Folder of stage 1's masks."""
        return self.prepared / "coarse_masks"

    @property
    def results(self) -> Path:
        """Folder of Table 1, scores and report."""
        return self.work_dir / "results"

    @property
    def demo(self) -> tuple[str, ...]:
        """The config that patches the others to the demo profile, or none."""
        return ("demo",) if self.profile == "demo" else ()

    def weights(self, bundle: str) -> tuple[Path, Path]:
        """Return the two files in which the weights of a bundle lie."""
        return self.models(bundle) / "model.pt", self.models(bundle) / "fingerprint.json"

    def models(self, bundle: str) -> Path:
        """Return the folder for the weights of a bundle."""
        return self.work_dir / "models" / bundle


@dataclass(frozen=True)
class Step:
    """One command of the method.

    Attributes:
        name: what the step is called when it is announced, and the name of its record.
        home: folder of all that the method makes. What lies in it is known by its content, so that the folder may be moved or
            copied.
        bundle: folder of the bundle in which the command runs.
        run_id: id that `monai.bundle run` evaluates.
        configs: config files, named from the bundle's `configs` and without suffix, later ones patching earlier ones.
        overrides: ids and their values on the command line; a `Path` is written relative to the bundle's folder.
        inputs: files and folders from which the result is made.
        outputs: files and folders that the step makes.
        resumes: whether the command understands `--resume true`.
        processes: number of processes; more than one runs under torchrun.
        problems: file that names the studies that the step could not use.
    """

    name: str
    home: Path
    bundle: Path
    run_id: str
    configs: tuple[str, ...]
    overrides: Mapping[str, Any]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    resumes: bool = False
    processes: int = 1
    problems: Path | None = None

    @property
    def files(self) -> list[str]:
        """The config files, relative to the bundle's folder."""
        return [f"configs/{config}.json" for config in self.configs]

    def arguments(self, resume: bool = False) -> list[str]:
        """Return what follows `python` on the command line."""
        overrides = {**self.overrides, **({"resume": True} if resume else {})}
        values = {
            name: relative_path(value, self.bundle) if isinstance(value, Path) else value for name, value in overrides.items()
        }
        return bundle_command(self.run_id, self.files, values, self.processes)

    def state(self) -> dict[str, Any]:
        """Return what the result depends on: the command wherever its files lie, the content of its configs, and its inputs."""
        values = {name: self._place(value) if isinstance(value, Path) else value for name, value in self.overrides.items()}
        return {
            "command": [self.run_id, self.processes, json.loads(json.dumps(values, default=str))],
            "configs": {name: digest_of(self.bundle / name) for name in self.files},
            "inputs": [self._listing(path) for path in self.inputs],
        }

    def result(self) -> list[list[list[Any]]]:
        """Return name and content of every file that the step has made."""
        return [self._listing(path) for path in self.outputs]

    def _place(self, path: Path) -> str:
        """Return where a path lies in the home, or which input it is."""
        return path_from(path, self.home) if path.is_relative_to(self.home) else f"input {self.inputs.index(path)}"

    def _listing(self, path: Path) -> list[list[Any]]:
        """Return the name of a file, or of every file in a folder, and its digest; outside of the home, its size and time.

        Of a folder of records those digests are returned that they hold. Elsewhere records are left out: they hold clocks, too.
        """
        if path.name == RECORDS:
            return [[file.name, _written(file)] for file in sorted(path.glob("*.json"))]
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        files = [file for file in files if file.is_file() and RECORDS not in file.relative_to(path).parts]
        at_home = path.is_relative_to(self.home)
        return [[file.name, *([_content(file)] if at_home else stamp(file))] for file in files]


def _content(file: Path) -> Any:
    """Return a file's digest; of a data list what it says of the studies, since the folder of raw studies may be moved."""
    content = read_json_or_none(file) if file.name == "datalist.json" else None
    if not isinstance(content, dict):
        return digest_of(file)
    return {name: value for name, value in content.items() if name != "studies_dir"}


def _written(record: Path) -> dict[str, str] | None:
    """Return the digest of each file that a record says was written; None for a result that is not finished."""
    written = (read_record(record) or {}).get("written")
    return written and {output: state["sha256"] for output, state in written.items()}


class Outcome(NamedTuple):
    """Whether a step ran, and whether it left out studies that have errors."""

    ran: bool
    some_failed: bool


def plan(method: Method) -> list[Step]:
    """Return the steps of the method in their order."""
    return [
        _prepare(method),
        _train(method, STAGE1),
        _predict(method),
        *(_train(method, bundle, method.coarse_masks) for bundle in STAGE2),
        _assemble(method),
        _evaluate(method),
    ]


def _prepare(method: Method) -> Step:
    return Step(
        name="prepare",
        home=method.work_dir,
        bundle=method.bundles_dir / ENSEMBLE,
        run_id="prepare",
        configs=("prepare",),
        overrides={"studies": method.studies, "dataset_dir": method.prepared, **method.prepare_options},
        inputs=(method.studies,),
        outputs=method.data,
        problems=method.data[0],
    )


def _train(method: Method, bundle: str, *further_inputs: Path) -> Step:
    models, logs = method.models(bundle), method.work_dir / "logs" / bundle
    return Step(
        name=f"train {bundle}",
        home=method.work_dir,
        bundle=method.bundles_dir / bundle,
        run_id="training",
        configs=("train", *method.demo, *(["multi_gpu_train"] if method.num_gpus > 1 else [])),
        overrides={"dataset_dir": method.prepared, "ckpt_dir": models, "output_dir": logs, **method.train_options},
        inputs=(*method.data, method.volumes, *further_inputs),
        outputs=method.weights(bundle),
        resumes=True,
        processes=max(1, method.num_gpus),
    )


def _predict(method: Method) -> Step:
    return Step(
        name="predict the coarse masks",
        home=method.work_dir,
        bundle=method.bundles_dir / STAGE1,
        run_id="inferring",
        configs=("inference", *method.demo),
        overrides={"dataset_dir": method.prepared, "ckpt_dir": method.models(STAGE1), "output_dir": method.coarse_masks},
        inputs=(*method.data, method.weights(STAGE1)[0]),
        outputs=(method.coarse_masks,),
    )


def _assemble(method: Method) -> Step:
    return Step(
        name="assemble",
        home=method.work_dir,
        bundle=method.bundles_dir / ENSEMBLE,
        run_id="assemble",
        configs=("inference", "assemble", *method.demo),
        overrides={"models_dir": method.work_dir / "models", "ckpt_dir": method.models(ENSEMBLE)},
        inputs=tuple(method.weights(bundle)[0] for bundle in (STAGE1, *STAGE2)),
        outputs=method.weights(ENSEMBLE),
    )


def _evaluate(method: Method) -> Step:
    # Files that the preparation may read, the evaluation reads again.
    allowed = {name: value for name, value in method.prepare_options.items() if name == "allow_outside"}
    return Step(
        name="evaluate",
        home=method.work_dir,
        bundle=method.bundles_dir / ENSEMBLE,
        run_id="evaluating",
        configs=("inference", "evaluate", *method.demo),
        overrides={
            "dataset_dir": method.prepared,
            "ckpt_dir": method.models(ENSEMBLE),
            "output_dir": method.results,
            **allowed,
        },
        inputs=(*method.data, method.volumes, method.weights(ENSEMBLE)[0]),
        outputs=(method.results / "table1.md", method.results / "scores.csv"),
        problems=method.results / "problems.json",
    )


def run_unless_done(step: Step, record: Path) -> Outcome:
    """Run a step unless its result is there.

    The record is written when the step begins and again when it has ended. A training that was interrupted, and whose inputs are
    still the same, goes on where it stopped; one whose inputs have changed, or whose weights were taken away, begins anew, and
    keeps earlier weights aside.

    Raises:
        InputError: when the command ends with another exit code than 0, or 3: done, except for some studies.
    """
    state = step.state()
    known = read_json(record) if record.is_file() else {}
    same = known.get("state") == state
    if same and known.get("outputs") == step.result():
        return Outcome(False, known["some_failed"])
    interrupted = same and "outputs" not in known
    write_json(record, {"state": state})
    arguments = step.arguments(resume=step.resumes and interrupted)
    print(f"$ cd {shlex.quote(str(relative_path(step.bundle)))} && {shlex.join(['python', *arguments])}", flush=True)
    code = subprocess.run([sys.executable, *arguments], cwd=step.bundle, check=False).returncode
    if code not in (0, SOME_FAILED):
        raise InputError(
            f"{step.name!r} ended with exit code {code}: see what its command says above, then run the pipeline again"
        )
    write_json(record, {"state": state, "outputs": step.result(), "some_failed": code == SOME_FAILED})
    return Outcome(True, code == SOME_FAILED)


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
        InputError: when the profile is unknown or a step fails.
        SomeFailedError: when all was done, except for some studies.
    """
    if profile not in PROFILES:
        raise InputError(f"profile is {profile!r}: give 'full' or 'demo'")
    method = Method(
        studies=Path(studies).resolve(),
        work_dir=Path(work_dir).resolve(),
        bundles_dir=Path(bundles_dir).resolve(),
        profile=profile,
        num_gpus=num_gpus,
        prepare_options=prepare_options or {},
        train_options=train_options or {},
    )
    if not method.studies.exists():
        raise InputError(f"{method.studies} does not exist: name the raw data set with --studies")
    steps = plan(method)
    durations: dict[str, str] = {}
    incomplete = []
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.name}", flush=True)
        start = time.monotonic()
        outcome = run_unless_done(step, method.work_dir / "steps" / f"{step.name.replace(' ', '_')}.json")
        durations[step.name] = f"{time.monotonic() - start:.0f} s" if outcome.ran else "was done"
        if outcome.some_failed and step.problems:
            incomplete.append(f"{step.name}: {relative_path(step.problems)} names them")
        if not outcome.ran:
            print("was done", flush=True)
    _print_summary(durations, method.results)
    if incomplete:
        raise SomeFailedError("some studies have errors, and all was done without them", incomplete)


def _print_summary(durations: Mapping[str, str], results: Path) -> None:
    """Print how long each step took, and Table 1."""
    print("\n" + "\n".join(f"{name:32} {duration:>9}" for name, duration in durations.items()))
    print(f"\n{(results / 'table1.md').read_text(encoding='utf-8')}\nResults: {relative_path(results)}", flush=True)
