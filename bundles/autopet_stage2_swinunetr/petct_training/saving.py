"""What a training writes: the best weights with their fingerprint, and its whole state, from which it is resumed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint

from petct_training.checks import check_fit
from petct_training.claims import check_no_training
from petct_training.errors import InputError, cannot_write
from petct_training.files import LAST, atomic, read_json, read_json_or_none, write_json
from petct_training.folds import remembering
from petct_training.processes import rank
from petct_training.records import OF_WEIGHTS, digest_of
from petct_training.seen import TRAINED_ON
from petct_training.weights import check_state, read_weights

# File beside weights that says which of them come from files of others.
SOURCES = "sources.json"


class BestWeights(Checkpoint):
    """Write a network's weights, and the fingerprint that belongs to them, whenever a validation scores higher than all before.

    As long as no score is above 0, because no validation study has a lesion or none was found, the last weights are kept. A handler
    of the evaluator. Only the first process writes.

    Args:
        network: whose state dict is written, without that of `DistributedDataParallel` around it.
        model_file: where the weights go.
        fingerprint_file: the training's fingerprint; its copy lies beside the weights as `fingerprint.json`.
        held_out: which studies a fold holds out, which the copy then remembers; see `petct_training.folds.held_out`.
        metric: name of the metric; higher is better.
        trained_on: the studies of the training, which the copy remembers, too; see `petct_training.seen.studies_of_training`.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        model_file: str | os.PathLike,
        fingerprint_file: str | os.PathLike,
        held_out: Mapping[str, Any] | None = None,
        metric: str = "val_mean_dice",
        trained_on: Sequence[str] = (),
    ) -> None:
        self.model_file, self.fingerprint_file, self.held_out = Path(model_file), Path(fingerprint_file), held_out
        self.trained_on = trained_on
        super().__init__(
            {"network": network},
            save_handler=self.write,
            # No file's name: what is remembered of the validation that scored best.
            filename_pattern="{global_step}",
            global_step_transform=lambda engine, _: engine.state.epoch,
            score_function=self._score,
            score_name=metric,
        )
        self.metric = metric

    def attach(self, engine: Engine) -> None:
        """Let an evaluator call this at its end, and know the best score from before an interruption at its start."""
        engine.add_event_handler(Events.STARTED, self._remind)
        engine.add_event_handler(Events.COMPLETED, self)

    def summary(self) -> str:
        """Say which weights were written: the best or the last, and of which epoch."""
        if not self._saved:
            return "No validation has run, and no weights were written."
        score, epoch = self._saved[-1]
        if score > 0:
            return f"{self.model_file} holds the best weights, of epoch {epoch}: {self.metric} {score:.4f}."
        return (
            f"{self.model_file} holds the last weights, of epoch {epoch}, and not the best: no validation found a lesion, or its "
            "studies have none."
        )

    def check_written(self, last: str | os.PathLike) -> None:
        """See that the weights which a training had written before it was interrupted are still there; write their fingerprint
        where it is missing, as after a process was killed between the two. Only the first process does.

        Args:
            last: the state with which the training goes on.

        Raises:
            InputError: when the weights are missing, damaged, or those of another training.
        """
        if not self._saved or rank() > 0:
            return
        anew = f"delete {last}, and the training begins anew"
        if not self.model_file.is_file():
            raise InputError(f"{self.model_file} is missing, the best weights of the training so far: put it back, or {anew}")
        remedy = f"put back the best weights of the training so far, or {anew}"
        network = self.to_save["network"]
        check_state(getattr(network, "module", network), read_weights(self.model_file, remedy), self.model_file, remedy)
        beside = self.model_file.parent / "fingerprint.json"
        found = read_json_or_none(beside)
        # Which studies these were is known less well once the files have been moved from which they were made.
        if isinstance(found, dict):
            self.trained_on = sorted({*self.trained_on, *(found.get(TRAINED_ON) or ())})
        own = {**self._fingerprint(), OF_WEIGHTS: digest_of(self.model_file)}
        # That of an earlier version says less.
        if found is not None and (not isinstance(found, dict) or {**own, **found, TRAINED_ON: None} != {**own, TRAINED_ON: None}):
            raise InputError(f"{beside} is not that of the training, nor are the weights beside it: {remedy}")
        if found != own:
            write_json(beside, own)

    def _remind(self, engine: Any) -> None:
        """Tell an evaluator of MONAI, whose log names the best score, of that score."""
        if self._saved and self._saved[-1].priority > 0:
            engine.state.best_metric, engine.state.best_metric_epoch = self._saved[-1].priority, int(self._saved[-1].filename)

    def _score(self, engine: Engine) -> float:
        score = float(engine.state.metrics[self.metric])
        # Below every score, and higher from epoch to epoch; not a number is the score of studies without a lesion.
        return score if score > 0 else -1 / engine.state.epoch

    def write(self, weights: Mapping[str, torch.Tensor], *_: Any) -> None:
        """Write weights and fingerprint, each complete or not at all.

        Raises:
            InputError: when the disk is full or the folder must not be written.
        """
        if rank() == 0:
            _write_together(weights, self._fingerprint(), self.model_file)

    def _fingerprint(self) -> dict[str, Any]:
        """Return what lies beside the weights, but for their digest."""
        return remembering(read_json(self.fingerprint_file), self.held_out, self.trained_on)


class LastState(Checkpoint):
    """Write the state of a training after every epoch. Only the first process writes.

    Args:
        state: the objects of which it consists, by name.
        file: where it goes.
        fingerprint: of the data set, which the state remembers as "data".
        held_out: which studies a fold holds out, which it remembers, too; see `petct_training.folds.held_out`.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        file: str | os.PathLike,
        fingerprint: Mapping[str, Any],
        held_out: Mapping[str, Any] | None = None,
    ) -> None:
        self.file, self.data = Path(file), remembering(fingerprint, held_out)
        super().__init__(dict(state), save_handler=self.write, filename_pattern=self.file.name)

    def attach(self, engine: Engine) -> None:
        """Let a trainer call this after each epoch; what is to be in the state must be attached before."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def write(self, state: Mapping[str, Any], *_: Any) -> None:
        """Write a state, complete or not at all.

        Raises:
            InputError: when the disk is full or the folder must not be written.
        """
        if rank() == 0:
            save({**state, "data": self.data}, self.file)


class RememberedOptions:
    """Options of a training that are part of its state, so that it goes on with no others.

    Args:
        options: their values by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def state_dict(self) -> dict[str, Any]:
        """Return the options."""
        return self.options

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing: `resume` refuses a state with others."""


def remembered(options: Mapping[str, Any]) -> RememberedOptions | None:
    """Return the options that go beyond the paper as a part of a training's state; None where all are off."""
    return RememberedOptions(options) if options else None


def save(content: object, file: Path) -> None:
    """Write tensors, atomically. The bytes do not depend on the file's name, which PyTorch else writes into it.

    Raises:
        InputError: when the disk is full or the folder must not be written.
    """
    with atomic(file) as part:
        _write(content, part, file)


def _write(content: object, part: Path, file: Path) -> None:
    """Write tensors to the part of a file, as `save` does."""
    with open(part, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            # PyTorch closes its archive, and says that this failed, after the disk has said why.
            if isinstance(error.__context__, OSError):
                raise InputError(cannot_write(file, error.__context__)) from error
            raise


def save_weights(network: torch.nn.Module, fingerprint: Mapping[str, Any], folder: Path) -> None:
    """Write a network's `model.pt` and the `fingerprint.json` that belongs to it into a folder, each complete or not at all.

    Weights that lie there are kept aside if they, or what their fingerprint says, are others; see `set_aside`.

    Raises:
        InputError: when the disk is full or the folder must not be written.
    """
    _write_together(network.state_dict(), fingerprint, folder / "model.pt", keep_others=True)


def _write_together(
    weights: Mapping[str, torch.Tensor], fingerprint: Mapping[str, Any], file: Path, keep_others: bool = False
) -> None:
    """Write weights and the fingerprint that belongs to them, which says so; others that lie there may be kept aside."""
    beside = file.parent / "fingerprint.json"
    with atomic(file) as part:
        _write(weights, part, file)
        tied = {**fingerprint, OF_WEIGHTS: digest_of(part)}
        if keep_others and _holds_others(file, beside, tied):
            set_aside(False, file.parent, (file.name,))
        # Until both are there, nothing shall take weights for those of another fingerprint.
        beside.unlink(missing_ok=True)
    write_json(beside, tied)


def _holds_others(file: Path, beside: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Whether other weights than those of a fingerprint lie in a file, or another fingerprint beside it, which may be no JSON."""
    if not file.is_file():
        return False
    earlier = read_json_or_none(beside)
    # That of an earlier version does not say to which weights it belongs.
    others = isinstance(earlier, dict) and {**earlier, OF_WEIGHTS: fingerprint[OF_WEIGHTS]} != fingerprint
    return others or digest_of(file) != fingerprint[OF_WEIGHTS]


def set_aside(resume: bool, ckpt_dir: str | os.PathLike, names: Sequence[str] = ("model.pt", LAST)) -> Path | None:
    """Keep a copy of earlier weights when others are going to be written in their folder. Only the first process does.

    They stay where they are until then: MONAI Label's training begins with the weights of its last one. The state of an earlier
    training goes: else one that is interrupted in its first epoch would be resumed from it.

    Args:
        resume: whether an earlier training goes on, where its state is there; then nothing is kept.
        ckpt_dir: folder of the weights.
        names: files of weights. With them go their fingerprint, and where they come from.

    Returns:
        The folder inside of `ckpt_dir` that keeps them; None when there were none.
    """
    folder = Path(ckpt_dir)
    last = folder / LAST
    if (resume and last.is_file()) or rank() > 0 or not any((folder / name).is_file() for name in names):
        return None
    aside = _kept_aside(folder, names)
    if LAST in names:
        last.unlink(missing_ok=True)
    return aside


def _kept_aside(folder: Path, names: Sequence[str]) -> Path:
    """Copy weights, their fingerprint and where they come from into a folder of their own, or into the one that has the same
    weights and fingerprint already; return it.
    """
    digests = {name: digest_of(folder / name) for name in (*names, "fingerprint.json") if (folder / name).is_file()}
    same = [
        earlier
        for earlier in folder.glob("earlier_*")
        if all((earlier / name).is_file() and digest_of(earlier / name) == digest for name, digest in digests.items())
    ]
    aside = same[0] if same else folder / f"earlier_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    while not same and aside.exists():
        aside = aside.with_name(aside.name + "_")
    for name in (*digests, SOURCES):
        if (folder / name).is_file() and not (aside / name).is_file():
            with atomic(aside / name) as part:
                shutil.copyfile(folder / name, part)
    if not same:
        print(f"Earlier weights are kept in {aside}.", flush=True)
    return aside


def resume(
    resume: bool,
    file: str | os.PathLike,
    state: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    max_epochs: int,
    device: torch.device | str = "cpu",
    held_out: Mapping[str, Any] | None = None,
) -> bool:
    """Load the state of a training that was interrupted, so that it goes on where it stopped.

    Args:
        resume: whether it shall go on; otherwise it begins anew.
        file: the state; where there is none, the training begins anew.
        state: the objects that take it, by name; among them "network".
        fingerprint: of the data set with which it goes on.
        max_epochs: number of epochs over which the learning rate falls.
        device: where the tensors go.
        held_out: which studies a fold holds out; see `petct_training.folds.held_out`.

    Returns:
        Whether a state was loaded.

    Raises:
        InputError: when the state is damaged, or that of another network, fingerprint, number of epochs or of steps, of other
            options of the optimiser, or of others that go beyond the paper; when the best weights so far are not there; or when
            another training runs in the folder, also where this one begins anew.
    """
    if rank() == 0:
        check_no_training(Path(file).parent)
    if not resume or not os.path.isfile(file):
        return False
    damaged = "it is damaged, or no state of a training; delete it, and the training begins anew"
    content = read_weights(file, damaged, device)
    if not isinstance(content, Mapping) or "network" not in content:
        raise InputError(f"{file} cannot be resumed: {damaged}")
    network = state["network"]
    check_fit(getattr(network, "module", network), content["network"], file)
    if content.get("data") != remembering(fingerprint, held_out):
        raise InputError(
            f"{file} was trained with another fingerprint or fold than that of the data set: begin anew without --resume, "
            "or name the data set with which it was trained"
        )
    epochs = content["trainer"]["max_epochs"]
    if epochs != max_epochs:
        raise InputError(
            f"{file} is of a training of {epochs} epochs, over which the learning rate falls, and max_epochs is "
            f"{max_epochs}: give the same number, or begin anew without --resume"
        )
    steps, own_steps = content["trainer"]["epoch_length"], state["trainer"].state.epoch_length
    if steps != own_steps:
        raise InputError(
            f"{file} is of a training of {steps} steps an epoch, and this one has {own_steps}: give the same data set, batch_size "
            "and steps_per_epoch, or begin anew without --resume"
        )
    _check_options(content.get("options", {}), state.get("options"), file)
    if "optimizer" in state:
        _check_optimizer(content, state, file)
    Checkpoint.load_objects(dict(state), content)
    if "best" in state:
        state["best"].check_written(file)
    return True


def _check_optimizer(content: Mapping[str, Any], state: Mapping[str, Any], file: str | os.PathLike) -> None:
    """Refuse to go on with other options of optimiser and schedule, which the state would overwrite, than a training began with."""
    earlier, own = content["optimizer"]["param_groups"], state["optimizer"].param_groups
    # The schedule sets `lr` in each step, from `initial_lr`.
    names = own[0].keys() & earlier[0].keys() - {"params", "lr"}
    pairs = list(zip(earlier, own, strict=True))
    different = sorted(name for name in names if any(before[name] != now[name] for before, now in pairs))
    if "lr_scheduler" in state:
        # A schedule of the user's own may have no power.
        powers = [schedule.get("power") for schedule in (content["lr_scheduler"], state["lr_scheduler"].state_dict())]
        different += ["poly_power"] if powers[0] != powers[1] else []
    if different:
        named = " and ".join("learning_rate" if name == "initial_lr" else name for name in different)
        raise InputError(f"{file} is of a training with another {named}: give the same, or begin anew without --resume")


def _check_options(earlier: Mapping[str, Any], own: RememberedOptions | None, file: str | os.PathLike) -> None:
    """Refuse to go on with other options that go beyond the paper than a training began with."""
    options = {} if own is None else own.options
    different = sorted(name for name in {*earlier, *options} if earlier.get(name) != options.get(name))
    if different:
        raise InputError(
            f"{file} is of a training with another {' and '.join(different)}: give the same options, or begin anew without --resume"
        )
