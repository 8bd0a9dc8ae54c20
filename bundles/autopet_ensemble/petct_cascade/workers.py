"""A pool of processes that does one task after another, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import TypeVar

import torch
from tqdm import tqdm

from petct_training.errors import InputError
from petct_training.sockets import shorten_socket_paths

# Why a pool broke; with the number of its processes.
OUT_OF_MEMORY = "a process was ended from outside, most likely for lack of memory: use fewer than {number} with --num_workers"

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """Processes that call a function for each of some tasks; with one or none, the tasks are done in this process.

    Args:
        number: number of processes.

    Example:
        >>> with Workers(1) as workers:
        ...     list(workers.map(abs, [-1, 2], "count", unit="number"))
        [1, 2]
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pool = ProcessPoolExecutor(number, _context(), _start_process) if number > 1 else None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close(cancel=True)

    def close(self, cancel: bool = False) -> None:
        """Wait until all that was begun is done; and all that was submitted, unless it is cancelled."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=cancel)

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Call a function for one task, as soon as a process has time; where there are none, now."""
        if self.pool is not None:
            return self.pool.submit(function, task)
        future: Future[Result] = Future()
        try:
            future.set_result(function(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], description: str, unit: str = "study"
    ) -> Iterator[Result]:
        """Yield a function's results in the order in which they come, and show a progress bar.

        Raises:
            InputError: when a process was ended from outside.
        """
        results = map(function, tasks) if self.pool is None else _as_completed(self.pool, function, tasks)
        try:
            yield from tqdm(results, total=len(tasks), desc=description, unit=unit, disable=not tasks)
        except BrokenProcessPool as error:
            raise InputError(OUT_OF_MEMORY.format(number=self.number)) from error


def _context() -> BaseContext:
    """Return how processes begin, which must not be forked from this one: they would inherit the locks of PyTorch's threads.

    Where a server can be forked safely, it loads MONAI once for all of them, which takes several seconds of a processor, and they
    share its memory. Elsewhere each loads it.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    # The server has one.
    shorten_socket_paths()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai"])
    return context


def _as_completed(pool: ProcessPoolExecutor, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Yield a function's results as they come from the processes of a pool."""
    for future in as_completed([pool.submit(function, task) for task in tasks]):
        yield future.result()


def _start_process() -> None:
    """Set up a process: one thread for its work, since there are others, and one that ends it when its parent is killed."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the parent process is gone, and end this one, which otherwise would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
