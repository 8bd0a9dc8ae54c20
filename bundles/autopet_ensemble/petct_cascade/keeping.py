"""Keeping book of the studies that a run does: who does which, what is done, and what has failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from petct_cascade.problems import Problem
from petct_cascade.provenance import today
from petct_cascade.results import row_of_problem
from petct_cascade.stream import Reading
from petct_cascade.studies import problem_of_name
from petct_training.claims import Claims
from petct_training.errors import InputError
from petct_training.files import read_json_or_none, write_json
from petct_training.masks import Masks
from petct_training.records import RECORDS, Records

# Folder, among the records, of why a study could not be done; no case has a name of two parts.
PROBLEMS = f"{RECORDS}/problems"


class Keeper:
    """What a run tells of its studies as it does them; this one keeps in mind which have failed, and nothing else."""

    def __init__(self) -> None:
        self.failed: set[str] = set()

    def claim(self, case: str) -> bool:
        """Return whether this run is to do a study; it is asked just before the study is read."""
        return case not in self.failed

    def begin(self, reading: Reading) -> None:
        """Learn that a study was read, and is going to be segmented.

        Raises:
            InputError: when it cannot be.
        """

    def finish(self, case: str) -> None:
        """Learn that a study's files are written."""

    def fail(self, problem: Problem) -> None:
        """Learn why a study cannot be done, before or after it is claimed."""
        self.failed.add(problem.case)


class RecordKeeper(Keeper):
    """Keeps the records of the masks that a run makes, beside other runs over the same output folder.

    Args:
        masks: what is made of each study, and where.
        items: the studies of this run.
        then: called with the case of each study whose masks are written, and with what is to be called when the study needs nobody
            any more, until when no other run does it.
    """

    def __init__(
        self,
        masks: Masks,
        items: Iterable[Mapping[str, Any]],
        then: Callable[[str, Callable[[], object]], object] | None = None,
    ) -> None:
        super().__init__()
        self.masks, self.records, self.claims, self.then = masks, masks.records, Claims(masks.records.folder), then
        # What has no name for a file fails when it is loaded.
        self.plans = {item["case"]: masks.plan(item) for item in items if problem_of_name(item["case"]) is None}

    def claim(self, case: str) -> bool:
        if case not in self.plans:
            return True
        if not super().claim(case) or not self.claims.claim(case):
            return False
        self.excuse(case)
        try:
            # Another run may have done it since this one has begun.
            wanted = not self.records.is_current(self.plans[case])
        except InputError:
            # It is told when the study begins.
            wanted = True
        if not wanted:
            self.claims.release(case)
        return wanted

    def begin(self, reading: Reading) -> None:
        self.records.learn(reading.states)
        self.records.begin(self.plans[reading.case])

    def finish(self, case: str) -> None:
        self.records.finish(self.plans[case], today())
        release = partial(self.claims.release, case)
        if self.then is None:
            release()
        else:
            self.then(case, release)

    def fail(self, problem: Problem) -> None:
        super().fail(problem)
        if problem.case in self.plans or self._has_record(problem.case):
            # On a full disk this run tells it, and the others wait for a rerun.
            with contextlib.suppress(InputError):
                write_json(self._problem_file(problem.case), row_of_problem(problem))
            self.claims.release(problem.case)

    def excuse(self, case: str) -> None:
        """Forget why an earlier run could not do a study."""
        self._problem_file(case).unlink(missing_ok=True)

    def _has_record(self, case: str) -> bool:
        return problem_of_name(case) is None and self.records.read(case) is not None

    def unsettled(self, items: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the cases, of this run's studies and those of others, that are neither done nor known to fail, or that another
        run has in its hands.
        """
        named = [item for item in items if problem_of_name(item["case"]) is None]
        return [item["case"] for item in named if not self._is_settled(item)]

    def _is_settled(self, item: Mapping[str, Any]) -> bool:
        case = item["case"]
        if self.records.is_finished(self.masks.plan(item)):
            return not self.claims.is_claimed(case)
        return self._problem_file(case).is_file()

    def problems_of(self, items: Iterable[Mapping[str, Any]]) -> list[Problem]:
        """Return why studies, also those of other runs, could not be done."""
        missing = [item for item in items if not self.records.is_finished(self.masks.plan(item))]
        return _problems_in(self._problem_file(item["case"]) for item in missing)

    def _problem_file(self, case: str) -> Path:
        return self.records.folder / PROBLEMS / f"{case}.json"


def known_problems(records: Records) -> list[Problem]:
    """Return why studies could not be done, as far as the runs over an output folder know."""
    return _problems_in(sorted((records.folder / PROBLEMS).glob("*.json")))


def _problems_in(files: Iterable[Path]) -> list[Problem]:
    """Return the problems that files hold; of a file that is not there, none."""
    return [problem_of_row(row) for file in files if (row := read_json_or_none(file))]


def problem_of_row(row: Mapping[str, str]) -> Problem:
    """Return the problem of which `petct_cascade.results.row_of_problem` made a row."""
    file = Path(row["file"]) if row["file"] else None
    begins = file is not None and row["reason"].startswith(f"{file.name} ")
    message = row["reason"].removeprefix(f"{file.name} ") if file is not None and begins else row["reason"]
    return Problem(row["case"], file if begins else None, message, error=True)
