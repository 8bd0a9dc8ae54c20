"""Running a network's inference: no answer holds NaN, and each mask appears in its folder when it is complete, and is recorded."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import IterationEvents

from petct_training.claims import Claims
from petct_training.data import Item, mask_file
from petct_training.errors import InputError
from petct_training.files import make_folder
from petct_training.masks import Masks


class StopIfNoNumber:
    """Stop an inference in which a network answers with NaN, which would be written as a mask without a lesion.

    A handler of the evaluator.
    """

    def attach(self, engine: Engine) -> None:
        """Let an evaluator call this after each study, before its post-processing."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        try:
            check_answer(engine.state.output["pred"], type(engine.network).__name__)
        except InputError as error:
            studies = ", ".join(map(str, engine.state.batch["image"].meta["filename_or_obj"]))
            raise InputError(f"{studies}: {error}") from error


def check_answer(answer: torch.Tensor, network: str) -> None:
    """Refuse what a network answers to a study if it holds NaN, which is below every threshold.

    Args:
        answer: its probabilities or logits, of any shape; they are read once.
        network: its name.

    Raises:
        InputError: with the reasons that there can be.
    """
    # The maximum of what holds NaN is NaN.
    if bool(torch.isnan(answer.max())):
        raise InputError(
            f"{network} answers with what is no number (NaN): pass --amp false, in case its values overflow in reduced precision, "
            "or name other weights"
        )


class MoveFinished:
    """Move masks that are complete from the folder in which they are written to the one in which they are found; record them.

    A handler of the evaluator.

    Args:
        unfinished_dir: where they are written, on the same file system.
        items: the studies that are segmented.
        masks: what is made of them, and where.
    """

    def __init__(self, unfinished_dir: str | os.PathLike, items: Sequence[Item], masks: Masks) -> None:
        self.unfinished_dir, self.masks = Path(unfinished_dir), masks
        self.plans = {os.path.basename(mask_file(item, "")): masks.plan(item) for item in items}

    def attach(self, engine: Engine) -> None:
        """Let an evaluator call this after each study."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, _engine: Engine) -> None:
        for file in list(self.unfinished_dir.iterdir()):
            plan = self.plans[file.name]
            with self.masks.records.making(plan):
                os.replace(file, self.masks.records.folder / plan.outputs[0])


def infer(evaluator: Engine, items: Sequence[Item], masks: Masks, unfinished_dir: str | os.PathLike) -> None:
    """Write the masks of some studies, or say that there is nothing to do.

    Args:
        evaluator: writes them to `unfinished_dir`.
        items: the studies that its data loader gives.
        masks: what is made of them, and where.
        unfinished_dir: of this process alone; what is in it, left by a run that was killed, is removed.

    Raises:
        InputError: when the folder cannot be written, another run does the same studies at the moment, a file that this program
            has not written has come into a mask's place, or the network answers with NaN.
    """
    if not items:
        print("Every mask was made from these very files and options: nothing to do.")
        return
    unfinished, claims = Path(unfinished_dir), Claims(masks.records.folder)
    refusal = f"{masks.records.folder}: another run segments these studies at the moment: wait for it"
    with claims.holding(unfinished.name, refusal):
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(unfinished)
        StopIfNoNumber().attach(evaluator)
        MoveFinished(unfinished, items, masks).attach(evaluator)
        ProgressBar(persist=False).attach(evaluator)
        evaluator.run()
        os.rmdir(unfinished)
        with contextlib.suppress(OSError):
            # Others may still write.
            unfinished.parent.rmdir()
