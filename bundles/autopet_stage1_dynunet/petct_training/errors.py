"""What the project says when an input is wrong: sentences, no traceback, and an exit code."""

from __future__ import annotations

from collections.abc import Iterable


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

    def __init__(self, what: str, problems: Iterable[object]) -> None:
        super().__init__(f"{what}:" + "".join(f"\n  {problem}" for problem in problems))


def cannot_write(path: object, error: OSError) -> str:
    """Say that a file or folder cannot be written, and why."""
    return f"{path} cannot be written ({error.strerror or error}): see that there is room and that the folder may be written"


def boolean(name: str, value: object) -> bool:
    """Return true or false, also of the texts "true" and "false" that the command line gives; every other text would count as true.

    Raises:
        InputError: when it is neither.
    """
    value = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}: give true or false")
    return value
