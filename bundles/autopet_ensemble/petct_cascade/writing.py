"""Writing volumes atomically, and while the next study is computed."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import NibabelWriter
from monai.transforms import MapTransform, SaveImaged

from petct_training.files import atomic


class AtomicNibabelWriter(NibabelWriter):
    """Write a NIfTI file that appears complete or not at all; `SaveImaged` takes the class's name as its `writer`."""

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = False, **options: Any) -> None:
        """Take the affine from the metadata.

        MONAI's writer, told not to resample, resamples to the same grid by the affine's first two axes alone, and fails where
        these span no plane of the world, as in a volume that is stored in coronal slices.

        Raises:
            ValueError: when it is to resample.
        """
        if resample:
            raise ValueError("AtomicNibabelWriter does not resample: give resample=False")
        _, self.affine, _ = self.get_meta_info(meta_dict)

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write what was set to `filename`: now, or within `writing_behind` in its thread."""
        behind = _behind.get()
        if behind is None:
            self._write(filename, verbose, **obj_kwargs)
        else:
            behind.submit(Path(filename), functools.partial(self._write, filename, verbose, **obj_kwargs))

    def _write(self, filename: str | os.PathLike, verbose: bool, **obj_kwargs: Any) -> None:
        with atomic(filename) as part:
            super().write(part, verbose=verbose, **obj_kwargs)


class SaveMasksd(MapTransform):
    """Write several masks of one study, each to a folder of its own: `SaveImaged` for each of them.

    Args:
        folders: of each key the folder of its masks (1, X, Y, Z), which are written as `<case>.nii.gz`, of type uint8.
    """

    def __init__(self, folders: Mapping[str, str | os.PathLike]) -> None:
        super().__init__(tuple(folders))
        self.savers = [
            SaveImaged(
                keys=key,
                output_dir=Path(folder),
                output_postfix="",
                separate_folder=False,
                resample=False,
                output_dtype=np.uint8,
                writer=AtomicNibabelWriter,
                print_log=False,
            )
            for key, folder in folders.items()
        ]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for save in self.savers:
            item = dict(save(item))
        return item


class _Behind:
    """A thread that writes files, and what went wrong with them."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool, self.name = pool, ""
        self.waiting: list[Future[None]] = []
        self.failures: dict[str, Exception] = {}

    def submit(self, file: Path, write: Callable[[], None]) -> None:
        if file.name != self.name:
            wait(self.waiting)
            self.waiting.clear()
        self.name = file.name
        self.waiting.append(self.pool.submit(self._write, file, write))

    def _write(self, file: Path, write: Callable[[], None]) -> None:
        if file.name in self.failures:
            # What is done once a study's files are written would take an earlier run's file for this one's.
            return
        try:
            write()
        except Exception as error:
            self.failures.setdefault(file.name, error)


_behind: ContextVar[_Behind | None] = ContextVar("_behind", default=None)


@contextlib.contextmanager
def writing_behind() -> Iterator[dict[str, Exception]]:
    """Let `AtomicNibabelWriter` compress and write in a thread while the next study is computed.

    The files of one study, which have one name in several folders, wait in memory together; those of the next wait until they are
    written.

    Yields:
        Name of each file that could not be written, and why; complete when the block has ended.
    """
    with ThreadPoolExecutor(1) as pool:
        behind = _Behind(pool)
        token = _behind.set(behind)
        try:
            yield behind.failures
        finally:
            _behind.reset(token)


def after_writing(case: str, action: Callable[[], None]) -> None:
    """Do something once the files of a case are written: now, or within `writing_behind` in its thread."""
    behind = _behind.get()
    if behind is None:
        action()
    else:
        behind.submit(Path(f"{case}.nii.gz"), action)
