"""Commands: functions that configs and the command line call, and what they say when an input is wrong."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import signal
import sys
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from petct_training.errors import InputError, SomeFailedError, boolean

P = ParamSpec("P")
R = TypeVar("R")

# Exit code of a batch in which some studies could not be used, and all others were done. It is 1 when nothing was done, and 2 is
# that of a wrong command line.
SOME_FAILED = 3
# That of a program which Ctrl-C has ended, as shells say it.
STOPPED = 128 + signal.SIGINT


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function be named by a config: an `InputError`, or what the disk says, ends the program with its sentence and exit code
    1, a `SomeFailedError` with exit code 3, and Ctrl-C without a word with 130.

    Arguments that are annotated as `bool` may be words such as "true" and "off", as the command line gives them. A name that the
    output's encoding lacks, such as a Chinese one in a Windows console, is printed with escapes instead of ending the program.

    MONAI wraps an exception raised while a config is evaluated into a `RuntimeError` with a long traceback, in which the
    sentence is lost; `SystemExit` passes through and prints the sentence alone.
    """

    signature = inspect.signature(function)
    # Annotations are texts where a module postpones their evaluation.
    switches = [name for name, parameter in signature.parameters.items() if parameter.annotation in (bool, "bool")]

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        try:
            with printing_every_name():
                for name in switches:
                    if name in bound.arguments:
                        bound.arguments[name] = boolean(name, bound.arguments[name])
                return function(*bound.args, **bound.kwargs)
        except SomeFailedError as error:
            end = SystemExit(f"error: {error}")
            # Python prints the message only where there is no other exit code.
            end.code = SOME_FAILED
            print(end, file=sys.stderr, flush=True)
            raise end from error
        except InputError as error:
            raise SystemExit(f"error: {error}") from error
        except KeyboardInterrupt:
            # Whoever has stopped it wants no traceback.
            raise SystemExit(STOPPED) from None
        except OSError as error:
            raise SystemExit(
                f"error: {error.filename or 'a file'}: {error.strerror or error}: see that it is there, that "
                "there is room, and that this user may read and write it"
            ) from error

    return wrapper


@contextlib.contextmanager
def printing_every_name() -> Iterator[None]:
    """Let the output show characters that its encoding lacks as escapes in a block."""
    streams = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream, _ in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, before in streams:
            if not stream.closed:
                stream.reconfigure(errors=before)
