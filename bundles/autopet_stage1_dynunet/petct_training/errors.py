"""What the project says when an input is wrong: sentences, no traceback, and an exit code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class InputError(ValueError):
    """An input that the user can fix.

    The message is one sentence: which study, which file, what is wrong, what to do.
    """


class SomeFailedError(InputError):
    """Some studies could not be used; all others have their results.

    Args:
        what: what is said before the studies are named.
        problems: a sentence for each problem.
    """

    def __init__(self, what: str, problems: Sequence[object]) -> None:
        # Both arguments as they are, so that the error can be pickled.
        super().__init__(what, problems)

    def __str__(self) -> str:
        return with_problems(*self.args)


def with_problems(what: str, problems: Iterable[object]) -> str:
    """Return a sentence, and under it one for each problem."""
    return f"{what}:" + "".join(f"\n  {problem}" for problem in problems)


def cannot_write(path: object, error: OSError) -> str:
    """Say that a file or folder cannot be written, and why."""
    return f"{path} cannot be written ({error.strerror or error}): see that there is room and that the folder may be written"


def boolean(name: str, value: object) -> bool:
    """Return true or false, also of the words that a command line gives, which would all count as true.

    Args:
        name: of the option.
        value: a truth value, 0 or 1, or a word such as "true", "no" or "off".

    Raises:
        InputError: when it is none of these.

    Example:
        >>> boolean("amp", "False"), boolean("amp", "yes"), boolean("amp", 0)
        (False, True, False)
    """
    word = str(value).strip().lower()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise InputError(f"{name} is {value!r}: give true or false")


def is_number(value: object, whole: bool = False) -> bool:
    """Whether a value is a finite number, or, if asked for, a whole one; True and False are none."""
    if not isinstance(value, int if whole else (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        # A whole number of hundreds of digits, which JSON may hold, and with which nothing can be computed.
        return False
