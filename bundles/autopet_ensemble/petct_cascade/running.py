"""Running an evaluator over studies, where one that fails costs no other."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import cast

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import DataLoader, Dataset
from monai.engines import Evaluator

from petct_cascade.problems import Problem, raise_if_strict
from petct_cascade.volumes import without_suffix
from petct_cascade.writing import after_writing, writing_behind
from petct_training.errors import InputError


def run_each_study(evaluator: Evaluator, strict: bool = False, finished: Callable[[str], None] | None = None) -> list[Problem]:
    """Run an evaluator over all studies; one that fails is named and left out, and the others are done.

    Args:
        evaluator: its data loader has one study a batch, and its dataset's `data` is a list of items with "case", in the order in
            which they are loaded. Unless `strict`, what its post-processing writes by `AtomicNibabelWriter` is written behind.
        strict: whether the first study that fails ends the run.
        finished: called with the case of each study whose files are written.

    Returns:
        An error for each study that failed, also where only its mask could not be written.

    Raises:
        InputError: if `strict`, when a study fails.
        Exception: whatever goes wrong before the first study, which is the fault of none.
    """
    # Failures are told below, and the engine would log them with the traceback of the loading process.
    evaluator.logger.setLevel(logging.CRITICAL)
    ProgressBar(persist=True, desc="segment").attach(evaluator)
    problems: list[Problem] = []

    def note(case: str, error: Exception) -> None:
        problems.append(Problem(case, None, _reason_of(error, case), error=True))
        raise_if_strict(strict, problems)
        print(f"error: {problems[-1]}", flush=True)

    # A mask that cannot be written must stop a strict run before the next study.
    unwritten: dict[str, Exception] = {}
    with nullcontext(unwritten) if strict else writing_behind() as unwritten:
        for case, error in _failures(evaluator, finished):
            note(case, error)
    for name, error in unwritten.items():
        note(without_suffix(name), error)
    # The engine keeps all volumes of the last study.
    evaluator.state.batch = evaluator.state.output = None
    return problems


def _failures(evaluator: Evaluator, finished: Callable[[str], None] | None) -> Iterator[tuple[str, Exception]]:
    """Run an evaluator, again after each study that fails, and yield the name of that study and its error."""
    watch = _Watch(evaluator, finished)
    dataset = cast(Dataset, cast(DataLoader, evaluator.data_loader).dataset)
    items = list(dataset.data)
    while items:
        dataset.data, evaluator.state.epoch_length = items, len(items)
        error = watch.run(evaluator, [item["case"] for item in items])
        if error is None:
            return
        yield items[watch.done]["case"], error
        items = items[watch.done + 1 :]


class _Watch:
    """Counts the studies that an engine has done, tells of each, and keeps the error that ends its run."""

    def __init__(self, engine: Engine, finished: Callable[[str], None] | None) -> None:
        self.finished = finished
        self.cases: list[str] = []
        self.done = 0
        self.error: Exception | None = None
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._keep)

    def run(self, evaluator: Evaluator, cases: list[str]) -> Exception | None:
        """Run an evaluator over cases until its end or its first error, which is returned."""
        self.cases, self.done, self.error = cases, 0, None
        evaluator.run()
        return self.error

    def _count(self, engine: Engine) -> None:
        case = self.cases[self.done]
        self.done += 1
        if self.finished is not None:
            after_writing(case, partial(self.finished, case))

    def _keep(self, engine: Engine, error: BaseException) -> None:
        if engine.state.epoch == 0 or not isinstance(error, Exception):
            raise error
        self.error = error


def _reason_of(error: BaseException, case: str) -> str:
    """Return why a study failed: the sentence of the `InputError` behind an exception, or else what the exception says.

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
    """Return the sentence of the `InputError` that is behind an exception, None when there is none."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        sentences = re.findall(r"^petct_training\.errors\.InputError: (.+)$", str(error), flags=re.MULTILINE)
        if sentences:
            return sentences[-1]
        error = error.__cause__ or error.__context__
    return None
