"""Commands that run in processes of their own, and end when this one does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

# How long a command may take to end by itself, after Ctrl-C has reached it, too.
SECONDS_TO_END = 10

_running: set[subprocess.Popen] = set()


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with further variables, in which Python imports nothing that lies in the current folder,
    and prints characters that the output's encoding lacks as escapes.

    The folder may be one of somebody's data; Python 3.10 does not know its variable. Before a command begins, MONAI logs all
    options, and a traceback for each that it cannot print.
    """
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    safe = {"PYTHONSAFEPATH": "1", "PYTHONIOENCODING": f"{encoding}:{errors or 'backslashreplace'}"}
    return {**os.environ, **safe, **more}


def run_child(command: Sequence[str], **options: Any) -> int:
    """Run a command, and return its exit code; 128 and the signal's number where a signal has ended it, as shells say it.

    Args:
        command: the program and its arguments.
        options: of `subprocess.Popen`.
    """
    with child(command, **options) as process:
        return exit_code(process.wait())


def exit_code(returncode: int) -> int:
    """Return the exit code of a process that has ended, as shells say it."""
    return returncode if returncode >= 0 else 128 - returncode


@contextlib.contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a command around a block; if it still runs when the block ends, as by an exception, it is ended, and waited for.

    Else it would go on by itself, and the next run would meet it in its output folder.

    Args:
        command: the program and its arguments.
        options: of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, **options)
    _running.add(process)
    try:
        yield process
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        _running.discard(process)


@contextlib.contextmanager
def ending_children() -> Iterator[None]:
    """Hand the wish that this process ends (SIGTERM) on to all its commands, in whatever threads they run; it ends when they have.

    Only the main thread can hear the wish; in others, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: Any) -> NoReturn:
        for process in list(_running):
            process.terminate()
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
