"""Running a network's inference: each mask appears in its folder when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from petct_training.data import Item
from petct_training.files import make_folder


class MoveFinished:
    """Move the masks that are complete from the folder in which they are written to the one in which they are found.

    A handler of the evaluator.

    Args:
        unfinished_dir: where they are written, on the same file system.
        output_dir: where they go.
    """

    def __init__(self, unfinished_dir: str | os.PathLike, output_dir: str | os.PathLike) -> None:
        self.unfinished_dir, self.output_dir = Path(unfinished_dir), Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Let an evaluator call this after each study."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, _engine: Engine) -> None:
        for file in list(self.unfinished_dir.iterdir()):
            os.replace(file, self.output_dir / file.name)


def infer(evaluator: Engine, items: Sequence[Item], output_dir: str | os.PathLike, unfinished_dir: str | os.PathLike) -> None:
    """Write the masks of some studies, or say that there is nothing to do.

    Args:
        evaluator: writes them to `unfinished_dir`.
        items: the studies that its data loader gives.
        output_dir: where they are found.
        unfinished_dir: what is in it, left by a run that was killed, is removed.

    Raises:
        InputError: when the folder cannot be written.
    """
    if not items:
        print("Every mask is newer than the weights and its image: nothing to do.")
        return
    shutil.rmtree(unfinished_dir, ignore_errors=True)
    make_folder(unfinished_dir)
    MoveFinished(unfinished_dir, output_dir).attach(evaluator)
    ProgressBar(persist=False).attach(evaluator)
    evaluator.run()
    os.rmdir(unfinished_dir)
