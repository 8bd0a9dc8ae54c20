"""What is wrong with a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from petct_cascade.volumes import Source
from petct_training.errors import InputError, SomeFailedError, with_problems


@dataclass(frozen=True)
class Problem:
    """What is wrong with a study.

    Attributes:
        case: the study's name.
        file: the file that is meant, if it is one.
        message: the end of a sentence that begins with the file's name, or a sentence of its own when there is no file: what is
            wrong, and what to do.
        error: True when the study cannot be used, False for a warning.
    """

    case: str
    file: Path | Source | None
    message: str
    error: bool

    @property
    def sentence(self) -> str:
        """File, what is wrong, and what to do."""
        return self.message if self.file is None else f"{self.file.name} {self.message}"

    def __str__(self) -> str:
        return f"study {self.case}: {self.sentence}"


def first_names(names: Sequence[str], most: int = 10) -> str:
    """Return the first names of many, and how many more there are.

    Example:
        >>> first_names(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def number_of_studies(number: int) -> str:
    """Return a number of studies in words, such as "2 studies"."""
    return f"{number} {'study' if number == 1 else 'studies'}"


def problem_of_sentence(sentence: str, case: str) -> Problem:
    """Return the error of a study that a sentence tells, which may begin with the study's name."""
    return Problem(case, None, sentence.removeprefix(f"study {case}: "), error=True)


def raise_if_any(problems: Iterable[Problem], what: str, anything_done: bool, others: str = "all others were") -> None:
    """End a command that has met errors.

    Args:
        problems: the errors.
        what: how many studies or masks have them; the beginning of a sentence.
        anything_done: whether any study has its result.
        others: what became of these; the end of the sentence.

    Raises:
        InputError: where there are errors, and nothing was done.
        SomeFailedError: where there are errors beside results.
    """
    errors = in_order(problems)
    if errors and not anything_done:
        raise InputError(with_problems(f"{what}, and nothing was done", errors))
    if errors:
        raise SomeFailedError(f"{what}, {others}", errors)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems sorted by case, file and message."""
    return sorted(problems, key=lambda problem: (problem.case, str(problem.file or ""), problem.message))


def raise_if_strict(strict: bool, problems: Iterable[Problem]) -> None:
    """End a run at the first error, if `strict`.

    Raises:
        InputError: with the problem as its sentence.
    """
    first = next((problem for problem in problems if problem.error), None)
    if strict and first is not None:
        raise InputError(str(first))
