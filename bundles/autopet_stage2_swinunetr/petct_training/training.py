"""Running a training: seeding, stopping, showing the loss."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import ignite.engine.engine
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data.utils import set_rnd
from monai.engines import Evaluator
from monai.handlers import StatsHandler, ValidationHandler
from monai.utils import set_determinism

from petct_training.claims import training_in
from petct_training.errors import InputError
from petct_training.processes import rank
from petct_training.saving import BestWeights, set_aside
from petct_training.weights import not_finite

# Far more than there are processes, so that no two epochs and processes have one seed.
SEEDS_PER_EPOCH = 1000


class SeedEachEpoch:
    """Seed every random number at the start of each epoch, so that a training that is resumed draws what it would have drawn.

    Args:
        dataset: whose random transforms are seeded.
        seed: of the training.
        rank: number of this process; each draws other patches.
    """

    def __init__(self, dataset: Any, seed: int, rank: int = 0) -> None:
        self.dataset, self.seed, self.rank = dataset, seed, rank

    def attach(self, engine: Engine) -> None:
        """Let a trainer call this at the start of each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + SEEDS_PER_EPOCH * engine.state.epoch + self.rank
        set_determinism(seed)
        set_rnd(self.dataset, seed)


class ValidationAtEnd(ValidationHandler):
    """Validate every so many epochs and after the last one, so that no epoch is trained for nothing.

    Args:
        validator: validates the network.
        interval: number of epochs.
    """

    def __init__(self, validator: Evaluator, interval: int) -> None:
        super().__init__(interval, validator)

    def attach(self, engine: Engine) -> None:
        """Let a trainer validate."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._is_due), self)

    def _is_due(self, engine: Engine, epoch: int) -> bool:
        return epoch % self.interval == 0 or epoch == engine.state.max_epochs


class StopIfNotFinite:
    """Stop a training whose loss is not finite, and name the studies of the batch; or whose weights are not, before they are kept.

    Args:
        network: that is trained.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Let a trainer call this after each step and each epoch; what writes weights must be attached after."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_weights)

    def __call__(self, engine: Engine) -> None:
        """Look at the loss of a step.

        Raises:
            InputError: when it is not finite.
        """
        output = cast(list[dict[str, Any]], engine.state.output)
        if not math.isfinite(output[0]["loss"]):
            studies = ", ".join(sample["image"].meta["filename_or_obj"] for sample in output)
            raise InputError(
                f"the loss is not finite in epoch {engine.state.epoch}, studies {studies}: look at these images, "
                "or begin anew, without --resume, with a lower --learning_rate"
            )

    def check_weights(self, engine: Engine) -> None:
        """Look at the weights, which the last step of an epoch may have spoilt with no further loss to tell.

        Raises:
            InputError: when they are not finite.
        """
        names = not_finite(self.network.state_dict())
        if names:
            raise InputError(
                f"the weights are not finite after epoch {engine.state.epoch}, such as {names[0]}: those of earlier epochs stay; "
                "begin anew, without --resume, with a lower --learning_rate"
            )


class LossBar(ProgressBar):
    """A progress bar of each epoch that shows the loss of the last step, and is taken away at the epoch's end.

    Where no terminal shows it, as in the log of a job, each epoch is a line instead; see `LossLog`.
    """

    def __init__(self) -> None:
        super().__init__(persist=False)

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Show the progress of a trainer."""
        if sys.stderr.isatty():
            super().attach(engine, output_transform=_loss_of)
        else:
            LossLog().attach(engine)


class LossLog:
    """Log the mean loss of each epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.logger = logging.getLogger("training")

    def attach(self, engine: Engine) -> None:
        """Let a trainer call this after each step and each epoch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log)

    def note(self, engine: Engine) -> None:
        """Keep the loss of a step."""
        self.losses.append(_loss_of(cast(Any, engine.state.output))["loss"])

    def log(self, engine: Engine) -> None:
        """Log the epoch that has ended."""
        mean = sum(self.losses) / len(self.losses)
        self.logger.info(f"epoch {engine.state.epoch} of {engine.state.max_epochs}: mean loss {mean:.4f}")
        self.losses.clear()


class ScoreLog(StatsHandler):
    """Log the score of each validation; an error is left to whoever runs the engine."""

    def __init__(self, name: str = "validation") -> None:
        super().__init__(iteration_log=False, name=name)

    def exception_raised(self, _engine: Engine, e: Exception) -> None:
        """Raise the error again, without logging its traceback."""
        raise e


def train(trainer: Engine, max_epochs: int, best: BestWeights, resume: bool = False) -> None:
    """Run a training to its end, or say that it has already reached it, and then which weights it has left.

    Until then no other training may run in the folder of its weights. Those of an earlier one are kept aside.

    Args:
        trainer: the training.
        max_epochs: its last epoch.
        best: what writes the weights.
        resume: whether an earlier training goes on, see `petct_training.saving.set_aside`.

    Raises:
        InputError: when another training runs in the folder, the loss is not finite, or something cannot be written.
    """
    folder = best.model_file.parent
    with _alone_in(folder):
        set_aside(resume, folder)
        if trainer.state.epoch >= max_epochs:
            print("The training has already reached max_epochs.")
        else:
            with _quiet_engines():
                trainer.run()
    if rank() == 0:
        print(best.summary(), flush=True)


def _alone_in(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep other trainings out of a folder of weights. Only the first process does: the others are of the same training."""
    return contextlib.nullcontext() if rank() > 0 else training_in(folder)


@contextlib.contextmanager
def _quiet_engines() -> Iterator[None]:
    """Keep the engines from logging an error that passes through them: it is raised."""
    logger = logging.getLogger(ignite.engine.engine.__name__)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _loss_of(output: list[dict[str, Any]]) -> dict[str, float]:
    return {"loss": output[0]["loss"]}
