"""Running an evaluator over studies, where one that fails costs no other."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from typing import cast

from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import Evaluator
from tqdm import tqdm

from petct_cascade.deidentification import Words
from petct_cascade.keeping import Keeper
from petct_cascade.problems import Problem, raise_if_strict
from petct_cascade.stream import Reading, StudyStream, problem_of, study_loader
from petct_cascade.volumes import without_suffix
from petct_cascade.writing import after_writing, writing_behind
from petct_training.errors import InputError
from petct_training.sockets import shorten_socket_paths


def run_each_study(
    evaluator: Evaluator,
    strict: bool = False,
    judge: bool = False,
    keeper: Keeper | None = None,
    words: Words | None = None,
) -> list[Problem]:
    """Run an evaluator over all studies; one that fails is named and left out, and the others are done.

    While a study is segmented, the next ones are read, and the last one is written.

    Args:
        evaluator: its data loader has one study a batch, and its dataset's `data` is a list of items with "case", in the order in
            which they are loaded. Unless `strict`, what its post-processing writes by `AtomicNibabelWriter` is written behind.
        strict: whether the first study that fails ends the run.
        judge: whether each study is judged when it is read; see `petct_cascade.stream.StudyReader`.
        keeper: asked whether each study is to be done, and told what becomes of it.
        words: what must not be said of the studies; None where all may be.

    Returns:
        An error for each study that failed, also where only its mask could not be written.

    Raises:
        InputError: if `strict`, when a study fails; when the loading itself has ended.
        Exception: whatever goes wrong before the first study, which is the fault of none.
    """
    # Failures are told below, and the engine would log them with a traceback.
    evaluator.logger.setLevel(logging.CRITICAL)
    given = cast(DataLoader, evaluator.data_loader)
    shorten_socket_paths()
    # A mask that cannot be written must stop a strict run before the next study.
    unwritten: dict[str, Exception] = {}
    with tqdm(total=len(given), desc="segment", unit="study") as progress:
        run = _Run(strict, progress, keeper or Keeper(), words)
        loader = study_loader(given, judge, run.keeper.claim, lambda case: progress.update())
        with nullcontext(unwritten) if strict else writing_behind() as unwritten:
            _follow(evaluator, StudyStream(iter(loader), run.take), run)
    for name, error in unwritten.items():
        run.note(problem_of(error, without_suffix(name)))
    # The engine keeps all volumes of the last study.
    evaluator.state.batch = evaluator.state.output = None
    return run.problems


class _Run:
    """What has become of the studies so far.

    Args:
        strict: whether the first problem ends the run.
        progress: the bar of the studies that are done, one way or the other.
        keeper: told what becomes of each study.
        words: what must not be said.
    """

    def __init__(self, strict: bool, progress: tqdm, keeper: Keeper, words: Words | None = None) -> None:
        self.strict, self.progress, self.keeper, self.words = strict, progress, keeper, words
        self.problems: list[Problem] = []
        # The study that has a PET, by the digest of its content.
        self.pets: dict[str, str] = {}

    def note(self, problem: Problem) -> None:
        """Tell an error, and keep it.

        Raises:
            InputError: with its sentence, if `strict`.
        """
        problem = self._fit_to_say(problem)
        self.problems.append(problem)
        self.keeper.fail(problem)
        raise_if_strict(self.strict, self.problems)
        tqdm.write(f"error: {problem}")

    def take(self, reading: Reading) -> bool:
        """Tell what is to be said of a study that was read; return whether it can be segmented."""
        for problem in reading.problems:
            if problem.error:
                self.note(problem)
            elif reading.usable:
                tqdm.write(f"warning: {self._fit_to_say(problem)}")
        if reading.usable and self._begin(reading):
            return True
        self.progress.update()
        return False

    def _fit_to_say(self, problem: Problem) -> Problem:
        return problem if self.words is None else self.words.problem(problem)

    def _begin(self, reading: Reading) -> bool:
        if reading.digest is not None:
            twin = self.pets.setdefault(reading.digest, reading.case)
            if twin != reading.case:
                # Each of the two masks is right, but perhaps not that of the patient after whom it is called.
                message = f"its PET is, voxel by voxel, that of study {twin}: put the right file in place if they are two studies"
                tqdm.write(f"warning: {Problem(reading.case, None, message, error=False)}")
        try:
            self.keeper.begin(reading)
        except InputError as error:
            self.note(problem_of(error, reading.case))
            return False
        return True


def _follow(evaluator: Evaluator, stream: StudyStream, run: _Run) -> None:
    """Run an evaluator over a stream, again after each study that fails."""
    watch = _Watch(evaluator, stream, run)
    evaluator.data_loader = stream
    while (error := watch.run(evaluator)) is not None:
        raise_if_strict(run.strict, run.problems)
        if stream.broken is not None:
            raise InputError(
                "a process that loads studies was ended from outside, most likely for lack of memory: use fewer with --num_workers"
            ) from error
        run.note(problem_of(error, stream.case))
        run.progress.update()


class _Watch:
    """Tells of each study that an engine has done, and keeps the error that ends its run."""

    def __init__(self, engine: Engine, stream: StudyStream, run: _Run) -> None:
        self.stream, self.progress, self.keeper = stream, run.progress, run.keeper
        self.error: Exception | None = None
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._tell)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._keep)

    def run(self, evaluator: Evaluator) -> Exception | None:
        """Run an evaluator until the stream's end or the first error, which is returned."""
        self.error = None
        # Nobody knows how many of the studies can be used.
        evaluator.state.epoch_length = None
        evaluator.run()
        return self.error

    def _tell(self, engine: Engine) -> None:
        case = self.stream.case
        self.progress.update()
        after_writing(case, partial(self.keeper.finish, case))

    def _keep(self, engine: Engine, error: BaseException) -> None:
        if engine.state.epoch == 0 or not isinstance(error, Exception):
            raise error
        self.error = error
