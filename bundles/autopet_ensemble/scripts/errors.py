"""What the project says when an input is wrong: one sentence, and no traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class InputError(ValueError):
    """An input that the user can put right.

    The message is one sentence: which study, which file, what is wrong, what to do.
    """


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function be named by a config: an `InputError` ends the program with its sentence and exit code 1.

    MONAI wraps an exception raised while a config is evaluated into a `RuntimeError` with a long traceback, in which the
    sentence is lost; `SystemExit` passes through and prints the sentence alone.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise SystemExit(f"error: {error}") from error

    return wrapper
