"""Sharing work among processes: a plan of who does which studies, and claims by which no two do the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from petct_training.errors import InputError
from petct_training.files import make_folder
from petct_training.records import RECORDS, SeveralFiles

Study = TypeVar("Study")

# What a training claims in the folder of its weights.
TRAINING = "training"


def share_of(studies: Sequence[Study], part: int, of: int, size: Callable[[Study], float]) -> list[Study]:
    """Return the studies that one of several processes does, in their order.

    The largest study that is left goes to the process that has the least to do so far (Graham, SIAM J Appl Math 1969;17:416: no
    process gets more than 4/3 of what it would get by the best plan). Every process finds the same plan.

    Args:
        studies: all of them, in the same order in every process.
        part: number of this process, from 1.
        of: number of processes.
        size: how much there is to do in a study, in any unit.

    Raises:
        InputError: when there is no such part.

    Example:
        >>> share_of([5, 4, 3, 2], 1, 2, float), share_of([5, 4, 3, 2], 2, 2, float)
        ([5, 2], [4, 3])
    """
    if not 1 <= part <= of:
        raise InputError(f"part {part} of {of} does not exist: give --part from 1 to {of}")
    totals = [0.0] * of
    mine = []
    sizes = [size(study) for study in studies]
    for index in sorted(range(len(studies)), key=lambda index: (-sizes[index], index)):
        least = totals.index(min(totals))
        totals[least] += sizes[index]
        if least == part - 1:
            mine.append(index)
    return [studies[index] for index in sorted(mine)]


def bytes_of(path: str | os.PathLike) -> int:
    """Return the bytes of a file, or of several; 0 where one is not there.

    They stand for the work in a study: of compressed ones, air takes hardly any.
    """
    files = path.files if isinstance(path, SeveralFiles) else [Path(path)]
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0


def is_one_of_torchrun() -> bool:
    """Whether this is one of several processes of torchrun, which ends them all when one has an exit code other than 0."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


class Claims:
    """Studies, or whole folders, at which this process works. The system lets go of them when it ends, however it ends.

    Args:
        folder: output folder.
        place: folder inside of it, which no process takes away, for the files by which others see the claims; "" for itself.
    """

    def __init__(self, folder: str | os.PathLike, place: str = RECORDS) -> None:
        # No folder of their own, which one process would take away while another one claims.
        self.folder = Path(folder) / place
        self.held: dict[str, FileLock] = {}
        self.possible = True

    def claim(self, name: str) -> bool:
        """Claim a study by its name; return whether nobody else has claimed it.

        Where the file system has no locks, every claim succeeds, with a warning.
        """
        if not self.possible:
            return True
        make_folder(self.folder)
        # It is let go of in another thread, when the study's files are written.
        lock = FileLock(self.folder / f"{name}.lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        except NotImplementedError:
            self.possible = False
            print(
                f"warning: {self.folder} is on a file system without locks: do not let two runs write to one folder", flush=True
            )
            return True
        self.held[name] = lock
        return True

    @contextlib.contextmanager
    def holding(self, name: str, refusal: str) -> Iterator[None]:
        """Hold around a block a claim of what only one process may do at a time.

        Raises:
            InputError: with the sentence `refusal`, when somebody else has claimed it.
        """
        if not self.claim(name):
            raise InputError(refusal)
        try:
            yield
        finally:
            self.release(name)

    def is_claimed(self, name: str) -> bool:
        """Whether somebody else has claimed a study."""
        if name in self.held or not (self.folder / f"{name}.lock").exists():
            return False
        claimed = not self.claim(name)
        self.release(name)
        return claimed

    def release(self, name: str) -> None:
        """Let go of a study; one that is not claimed is passed over."""
        lock = self.held.pop(name, None)
        if lock is None:
            return
        # Before it is let go of, so that nobody else holds it; Windows deletes no open file.
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


def training_in(folder: str | os.PathLike) -> contextlib.AbstractContextManager[None]:
    """Hold around a block the claim of a training on the folder of its weights.

    Raises:
        InputError: when another training runs in the folder.
    """
    return Claims(folder, "").holding(TRAINING, _another_training(folder))


def check_no_training(folder: str | os.PathLike) -> None:
    """See that no other training runs in a folder of weights, before anything that it writes is read.

    Raises:
        InputError: when one does.
    """
    if Claims(folder, "").is_claimed(TRAINING):
        raise InputError(_another_training(folder))


def _another_training(folder: str | os.PathLike) -> str:
    return f"{folder}: another training runs in this folder at the moment: wait for it, or name another folder"
