"""Running the ensemble over studies, and reading out what it finds."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from ignite.engine import Events
from ignite.handlers import ProgressBar
from monai.engines import Evaluator

from petct_cascade.problems import Problem, raise_if_strict
from petct_cascade.readout_run import read_out_studies
from petct_cascade.scoring import ScoringProblem
from petct_cascade.selection import Selection
from petct_cascade.volumes import without_suffix
from petct_cascade.writing import writing_behind
from petct_training.errors import InputError, SomeFailedError


def infer(
    evaluator: Evaluator,
    selection: Selection,
    output_dir: str | os.PathLike,
    uncertainty_dir: str | os.PathLike | None = None,
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
    strict: bool = False,
) -> None:
    """Write the masks of the selected studies; then read-outs, pictures and report of all of them, also of those done earlier.

    Args:
        evaluator: the evaluator whose post-processing writes the masks to `output_dir`.
        selection: its studies.
        output_dir: folder of masks, in which the read-outs appear; see `petct_cascade.readout_run.read_out_studies`, which names the files.
        uncertainty_dir: folder to which the post-processing writes maps of the members' disagreement; None if it does not.
        num_workers: processes that read out.
        suv_range: SUV shown white and SUV shown black in pictures.
        strict: whether the first study that fails ends the run.

    Raises:
        SystemExit: after all others are done, with exit code 3 and a sentence for each study that could not be used.
    """
    warnings = [problem for problem in selection.problems if not problem.error]
    problems = [problem for problem in selection.problems if problem.error]
    for warning in warnings:
        print(f"warning: {warning}", flush=True)
    if selection.items:
        problems += _run(evaluator, strict)
    elif not problems:
        print("Every mask is newer than the weights and its images: nothing to do.", flush=True)
    failed = {problem.case for problem in problems}
    items = sorted((item for item in [*selection.done, *selection.items] if item["case"] not in failed), key=lambda i: i["case"])
    what = "cannot be used, all others were done"
    try:
        found = read_out_studies(
            items,
            {item["case"]: Path(output_dir) / f"{item['case']}.nii.gz" for item in items},
            output_dir,
            "Ensemble",
            uncertainty=uncertainty_dir,
            problems=[ScoringProblem(problem.case, "", problem.sentence) for problem in problems],
            num_workers=num_workers,
            suv_range=suv_range,
        )
        problems += [Problem(problem.case, None, problem.reason, error=True) for problem in found]
    except InputError as error:
        if not problems:
            raise
        # Why the report could not be written shall not hide what is wrong with studies.
        what = f"cannot be used, and there is no report of the others, since {error}"
    if problems:
        number = len({problem.case for problem in problems})
        what = f"{number} {'study' if number == 1 else 'studies'} {what}"
        raise SomeFailedError(what, sorted(problems, key=lambda problem: problem.case))


def _run(evaluator: Evaluator, strict: bool) -> list[Problem]:
    """Run an evaluator with one study a batch; a study that fails costs no other.

    Returns:
        An error for each study that failed.

    Raises:
        InputError: if `strict`, when a study fails.
    """
    # Failures are told below, and the engine would log them with the traceback of the loading process.
    evaluator.logger.setLevel(logging.CRITICAL)
    ProgressBar(persist=True, desc="segment").attach(evaluator)
    failures: list[BaseException] = []
    done: list[int] = []

    def stop(engine: Evaluator, error: BaseException) -> None:
        if engine.state.epoch == 0 or not isinstance(error, Exception):
            # What goes wrong before the first study is the fault of none.
            raise error
        failures.append(error)

    evaluator.add_event_handler(Events.EXCEPTION_RAISED, stop)
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: done.append(engine.state.iteration))
    dataset = evaluator.data_loader.dataset
    problems: list[Problem] = []
    items = list(dataset.data)

    def fail(case: str, error: Exception) -> None:
        problems.append(Problem(case, None, _reason_of(error, case), error=True))
        raise_if_strict(strict, problems)
        print(f"error: {problems[-1]}", flush=True)

    # A mask that cannot be written must stop a strict run before the next study.
    with nullcontext({}) if strict else writing_behind() as unwritten:
        while items:
            dataset.data, evaluator.state.epoch_length = items, len(items)
            failures.clear()
            done.clear()
            evaluator.run()
            if not failures:
                break
            item, items = items[len(done)], items[len(done) + 1 :]
            fail(item["case"], failures[0])
    for name, error in unwritten.items():
        fail(without_suffix(name), error)
    # The engine keeps all volumes of the last study.
    evaluator.state.batch = evaluator.state.output = None
    return problems


def _reason_of(error: Exception, case: str) -> str:
    """Say why a study failed: the sentence of the `InputError` behind an exception, or else the exception itself.

    MONAI wraps what a transform raises into a `RuntimeError`, and a loading process hands over no more than its text.
    """
    sentence = _sentence_of(error)
    if sentence is not None:
        return sentence.removeprefix(f"study {case}: ")
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    text = str(error).strip() or type(error).__name__
    # Of a text that holds tracebacks, the first error is what has happened.
    told = re.search(r"^[\w.]*(?:Error|Exception): (.+)$", text, flags=re.MULTILINE) if "Traceback" in text else None
    reason = told.group(1) if told else text.splitlines()[0]
    return f"it could not be segmented ({reason}): run it alone to see whether that happens again"


def _sentence_of(error: BaseException | None) -> str | None:
    """The sentence of the `InputError` that is behind an exception, None when there is none."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        sentences = re.findall(r"^petct_training\.errors\.InputError: (.+)$", str(error), flags=re.MULTILINE)
        if sentences:
            return sentences[-1]
        error = error.__cause__ or error.__context__
    return None
