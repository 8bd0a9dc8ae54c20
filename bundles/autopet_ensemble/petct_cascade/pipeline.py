"""The whole method as a chain of the commands that a person would type, each skipped when its result is already there."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from petct_cascade.children import child, ending_children, environment, exit_code, run_child
from petct_cascade.command_line import shell_line
from petct_cascade.method import ENSEMBLE, NETWORKS, SET_BY_METHOD, Method, Step, options_of_network, plan
from petct_training.claims import Claims, check_no_training
from petct_training.commands import SOME_FAILED
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import make_folder, read_json, relative_path, write_json
from petct_training.nested import check_kept, check_nested, first_part, ids_named
from petct_training.options import check_values, is_path
from petct_training.records import digest_of

# Folder, inside of the work folder, of what each step's result was made from.
STEPS = "steps"
# How often the logs of trainings that run side by side are looked at.
LOOK_SECONDS = 2.0
# What `petct_training.training.LossLog` says of an epoch.
EPOCH = re.compile(rb"epoch \d+ of \d+: .*")


class Outcome(NamedTuple):
    """Whether a step ran, and whether it left out studies that have errors."""

    ran: bool
    some_failed: bool


def run_unless_done(step: Step, record: Path, beside: bool = False, share: Mapping[str, str] | None = None) -> Outcome:
    """Run a step unless its result is there.

    A step that has left out studies with errors runs each time, and does what is missing: what was wrong may be mended where no
    file shows it, as a permission or a disk that was away.

    The record is written when the step begins and again when it has ended. A training that was interrupted, and whose inputs are
    still the same, goes on where it stopped; one whose inputs have changed, or whose weights were taken away, begins anew, and
    keeps earlier weights aside. The state of an earlier training that still lies there is none of it. Where a step ends before it
    has touched an earlier result, as of a wrong option, that result is still known.

    Args:
        step: the step.
        record: file of what its result was made from.
        beside: whether other steps run at the same time, so that what it prints goes to its log.
        share: its share of the machine, see `shares_of_trainings`; None for all of it.

    Raises:
        InputError: when the command ends with another exit code than 0, or 3: done, except for some studies; or without its result;
            or when another training runs in the folder of its weights.
    """
    state = step.state()
    known: dict[str, Any] = read_json(record) if record.is_file() else {}
    finished: dict[str, Any] | None = known if "outputs" in known else known.get("finished")
    if finished is not None and finished["outputs"] != step.result():
        finished = None
    if finished is not None and finished["state"] == state and not finished["some_failed"]:
        return Outcome(False, False)
    last = None if step.last is None or not step.last.is_file() else digest_of(step.last)
    begun = known.get("state") == state and "outputs" not in known
    resume = begun and last is not None and last != known.get("last_before")
    before = known.get("last_before") if resume else last
    if step.last is not None:
        # Of a killed pipeline; its state must not pass for one of this step.
        check_no_training(step.last.parent)
    write_json(record, {"state": state, "last_before": before, "finished": finished})
    arguments = step.arguments(resume=resume)
    print(f"$ {shell_line(['cd', str(relative_path(step.bundle))])} && {shell_line(['python', *arguments])}", flush=True)
    code = _run(step, arguments, step.log if beside else None, share or {})
    if code not in (0, SOME_FAILED):
        said = f"in {relative_path(step.log)}" if beside and step.log else "above"
        raise InputError(
            f"{step.name!r} ended with exit code {code}: see what its command says {said}, then run the pipeline again"
        )
    missing = [path for path in step.outputs if not path.exists()]
    if missing and code == 0:
        # Recorded, it would pass for the result ever after.
        raise InputError(f"{step.name!r} has ended, and {relative_path(missing[0])} is not there: run the pipeline again")
    write_json(record, {"state": state, "outputs": step.result(), "some_failed": code == SOME_FAILED})
    return Outcome(True, code == SOME_FAILED)


def _run(step: Step, arguments: Sequence[str], log: Path | None, share: Mapping[str, str]) -> int:
    """Run a step's command, and return its exit code. Of what goes to a log, if there is one, the epochs are printed, too."""
    command, variables = [sys.executable, *arguments], environment(**share)
    if log is None:
        return run_child(command, cwd=step.bundle, env=variables)
    make_folder(log.parent)
    with open(log, "ab") as stream:
        shown = stream.tell()
        with child(command, cwd=step.bundle, env=variables, stdout=stream, stderr=subprocess.STDOUT) as process:
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
                shown = _show_epochs(step.name, log, shown)
    return exit_code(process.returncode)


def _show_epochs(name: str, log: Path, shown: int) -> int:
    """Print what a log says of epochs from a byte on; return the byte from which on it may say more."""
    with open(log, "rb") as stream:
        stream.seek(shown)
        # The last line may still be written.
        lines = stream.read().rpartition(b"\n")[0]
    for epoch in EPOCH.findall(lines):
        print(f"{name}: {epoch.decode()}", flush=True)
    return shown + len(lines)


def shares_of_trainings(num_gpus: int, parallel_trainings: int) -> list[dict[str, str]]:
    """Return what each of the trainings that run side by side has of the machine, as environment variables: GPUs, or CPU cores.

    Args:
        num_gpus: number of GPUs; where the environment names some, they are the first of those.
        parallel_trainings: number of trainings at a time.
    """
    if parallel_trainings == 1:
        return [{}]
    if num_gpus == 0:
        # What the environment says already goes for each of them.
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // parallel_trainings))
        return [{"OMP_NUM_THREADS": threads}] * parallel_trainings
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [str(number) for number in range(num_gpus)]
    each = num_gpus // parallel_trainings
    starts = range(0, each * parallel_trainings, each)
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[first : first + each])} for first in starts]


def check_options_of_steps(method: Method) -> None:
    """Refuse options of preparing and training that the method sets itself, and of training that its commands do not know, before
    any runs.

    Else a step would make its result elsewhere, or from something else, and those after it would take what lies in the work folder
    for it.

    Raises:
        InputError: with the name, and the nearest known one or what to do.
    """
    _check_kept("prepare_options", method.prepare_options, _config(method.bundles_dir / ENSEMBLE, ["prepare"]))
    for bundle in NETWORKS.values():
        own = method.train_options.get(bundle, {})
        if not isinstance(own, Mapping):
            raise InputError(f"train_options holds {own!r} for {bundle}: give its options, such as {{'max_epochs': 100}}")
        options = options_of_network(method.train_options, bundle)
        config = _config(method.bundles_dir / bundle, method.configs_of(bundle))
        for name in options:
            if first_part(name) not in config:
                nearest = difflib.get_close_matches(name, [*config, *NETWORKS.values()], n=1)
                said = f": did you mean {nearest[0]}?" if nearest else ""
                raise InputError(f"train_options holds {name}, which is no bundle of a network, and no option of {bundle}{said}")
            if first_part(name) == "network_def":
                raise InputError(
                    f"train_options holds {name}: the steps after the training of {bundle} would not know of another network; "
                    "change its configs and the ensemble's"
                )
        _check_kept("train_options", options, config)
        check_nested(options, config, f"train_options holds {{}}, which is no option of {bundle}")
        check_values({name: str(value) for name, value in options.items() if not isinstance(value, Mapping)})


def _config(bundle: Path, configs: Sequence[str]) -> dict[str, Any]:
    """Return the content of a bundle's configs, later ones patching earlier ones."""
    return ConfigParser.load_config_files([str(bundle / f"configs/{name}.json") for name in configs])


def _check_kept(what: str, options: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse further options of a command that the method sets itself, or in whose place the configs name what it sets, or a file
    or folder that follows from it.

    Args:
        what: "prepare_options" or "train_options".
        options: their values.
        config: what the command's configs say.

    Raises:
        InputError: with what to do.
    """
    instead = SET_BY_METHOD[what]
    for name in options:
        if first_part(name) in instead:
            raise InputError(f"{what} holds {name}: {instead[first_part(name)]}")
    named = {name: ids_named(value) for name, value in config.items()}
    own = {*instead}
    while more := {name for name, ids in named.items() if is_path(name) and ids & own} - own:
        own |= more
    check_kept(options, config, own, what, "the pipeline")


def run_pipeline(studies: str | os.PathLike, work_dir: str | os.PathLike, bundles_dir: str | os.PathLike, **options: Any) -> None:
    """Run the whole method: prepare, train stage 1, predict with it, train stage 2, assemble, evaluate.

    Every step is a command that is printed before it runs. A step is skipped when it has been finished with the same command,
    the same configs and the same inputs, and its result is still there; an interrupted training goes on where it stopped. Studies
    with errors do not stop the pipeline: it goes on without them, and ends with exit code 3.

    Args:
        studies, work_dir, bundles_dir: see `petct_cascade.method.Method`.
        options: its further attributes.

    Raises:
        InputError: when an option makes no sense, another pipeline runs in the work folder, or a step fails.
        SomeFailedError: when all was done, except for some studies.
    """
    exclude = options.get("exclude")
    if isinstance(exclude, (str, os.PathLike)) and exclude != "":
        options["exclude"] = Path(exclude).resolve()
    method = Method(Path(studies).resolve(), Path(work_dir).resolve(), Path(bundles_dir).resolve(), **options)
    method.check()
    check_options_of_steps(method)
    run = _Run(method)
    refusal = f"{method.work_dir}: another pipeline runs in this folder at the moment: wait for it, or name another folder"
    with Claims(method.work_dir, STEPS).holding("pipeline", refusal), ending_children():
        # Trainings that follow one another do not need one another.
        for training, group in itertools.groupby(plan(method), lambda step: step.run_id == "training"):
            steps = list(group)
            if training and method.parallel_trainings > 1 and len(steps) > 1:
                run.side_by_side(steps)
            else:
                for step in steps:
                    run.step(step)
    # Those that ran side by side ended in any order.
    _print_summary({name: run.durations[name] for name in run.numbers}, method.results)
    if run.incomplete:
        raise SomeFailedError("some studies have errors, and all was done without them", run.incomplete)


class _Run:
    """A run of the method's steps.

    Attributes:
        durations: how long each step took.
        incomplete: what to say of steps that left out studies.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.numbers = {step.name: number for number, step in enumerate(plan(method), 1)}
        self.durations: dict[str, str] = {}
        self.incomplete: list[str] = []

    def step(self, step: Step, beside: bool = False, share: Mapping[str, str] | None = None) -> None:
        """Run a step unless its result is there; arguments as those of `run_unless_done`."""
        where = f": {relative_path(step.log)}" if beside and step.log else ""
        print(f"\n[{self.numbers[step.name]}/{len(self.numbers)}] {step.name}{where}", flush=True)
        start = time.monotonic()
        record = self.method.work_dir / STEPS / f"{step.name.replace(' ', '_')}.json"
        outcome = run_unless_done(step, record, beside, share)
        self.durations[step.name] = f"{time.monotonic() - start:.0f} s" if outcome.ran else "was done"
        if outcome.some_failed and step.problems:
            self.incomplete.append(f"{step.name}: {relative_path(step.problems)} names them")
        if not outcome.ran or beside:
            print(f"{f'{step.name} ' if beside else ''}{'is done' if outcome.ran else 'was done'}", flush=True)

    def side_by_side(self, steps: Sequence[Step]) -> None:
        """Run steps that do not need one another, some at a time, each on GPUs or cores of its own.

        Raises:
            InputError: of the first that failed, when those that had begun have ended; no other is begun after it.
        """
        free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        num_gpus, at_once = self.method.num_gpus, self.method.parallel_trainings
        # A command runs on as many GPUs as the plan says; cores can be given to fewer trainings than planned.
        shares = shares_of_trainings(num_gpus, at_once if num_gpus else min(at_once, len(steps)))
        for share in shares:
            free.put(share)

        failed = threading.Event()

        def run(step: Step) -> None:
            if failed.is_set():
                return
            share = free.get()
            try:
                self.step(step, beside=True, share=share)
            except BaseException:
                failed.set()
                raise
            finally:
                free.put(share)

        with ThreadPoolExecutor(len(shares)) as pool:
            running = [pool.submit(run, step) for step in steps]
        for future in running:
            future.result()


def _print_summary(durations: Mapping[str, str], results: Path) -> None:
    """Print how long each step took, and Table 1."""
    width = max(map(len, durations))
    print("\n" + "\n".join(f"{name:{width}} {duration:>9}" for name, duration in durations.items()))
    print(f"\n{(results / 'table1.md').read_text(encoding='utf-8')}\nResults: {relative_path(results)}", flush=True)
