"""Promises of how a training and an inference run: seeds, stopping, moving what is finished."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, DistributedSampler, MetaTensor
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import RandGaussianNoise

from petct_training import saving, training
from petct_training.claims import Claims
from petct_training.errors import InputError
from petct_training.inference import MoveFinished, infer
from petct_training.masks import masks_in, unfinished_items
from petct_training.processes import StepsSampler
from petct_training.saving import BestWeights
from petct_training.training import LossBar, ScoreLog, SeedEachEpoch, StopIfNotFinite, train


def drawn(seed: int, rank: int = 0, epochs: range = range(1, 4)) -> list[list[float]]:
    """What PyTorch, NumPy and a random transform draw in some epochs."""
    dataset = Dataset([torch.zeros(1)], RandGaussianNoise(prob=1))
    seeding, result = SeedEachEpoch(dataset, seed, rank), []
    engine = Engine(lambda engine, batch: None)
    engine.state.epoch = epochs.start
    for epoch in epochs:
        engine.state.epoch = epoch
        seeding(engine)
        result.append([torch.rand(1).item(), np.random.rand(), float(dataset[0])])
    return result


def test_an_epoch_draws_the_same_whatever_came_before():
    assert drawn(7)[1:] == drawn(7, epochs=range(2, 4))


def test_epochs_seeds_and_processes_draw_differently():
    for other in (drawn(8), drawn(7, rank=1)):
        values = [value for run in (drawn(7), other) for epoch in run for value in epoch]
        assert len(set(values)) == len(values)


def places(steps: int | None, studies: int = 5, processes: int = 2, epoch: int = 1) -> list[list[int]]:
    """The studies that each of some processes draws in an epoch, with a batch size of 2."""
    samplers = [StepsSampler(range(studies), steps, 2, seed=3, num_replicas=processes, rank=rank) for rank in range(processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    drawn = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(studies) for studies in drawn]
    return drawn


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_processes_share_as_many_studies_as_the_steps_of_an_epoch_take_and_draw_each_as_often(steps):
    drawn = places(steps)
    assert [len(studies) for studies in drawn] == [2 * steps] * 2
    times = np.bincount([*drawn[0], *drawn[1]], minlength=5)
    assert times.max() - times.min() <= 1
    assert places(steps) == drawn
    assert places(steps, epoch=2) != drawn


def test_without_a_number_of_steps_the_processes_share_every_study_as_monais_sampler_does():
    reference = [DistributedSampler(range(5), num_replicas=2, rank=rank, shuffle=True, seed=3) for rank in range(2)]
    for sampler in reference:
        sampler.set_epoch(1)
    assert places(None) == [list(sampler) for sampler in reference]


def losses_as_given() -> Engine:
    """A trainer whose batches are its losses, on an image with a name."""
    image = MetaTensor(torch.zeros(1), meta={"filename_or_obj": "images/a.nii"})
    trainer = Engine(lambda engine, loss: [{"loss": loss, "image": image}])
    StopIfNotFinite(torch.nn.Linear(1, 1)).attach(trainer)
    return trainer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_epoch_and_studies(value):
    trainer = losses_as_given()
    with pytest.raises(InputError, match=r"the loss is not finite in epoch 1, studies images/a\.nii: look at"):
        trainer.run([1.0, value])
    assert trainer.state.iteration == 2


def test_finite_losses_do_not_stop():
    trainer = losses_as_given()
    trainer.run([1.0, 1e30])
    assert trainer.state.iteration == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_the_last_step_of_an_epoch_has_spoilt_stop_before_anything_is_written(value):
    network, written = torch.nn.Linear(2, 1), []

    def step(engine: Engine, last: bool) -> list[dict[str, float]]:
        if last and engine.state.epoch == 2:
            network.weight.data[0, 1] = value
        return [{"loss": 1.0}]

    trainer = Engine(step)
    StopIfNotFinite(network).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: written.append(engine.state.epoch))
    with pytest.raises(
        InputError, match=r"^the weights are not finite after epoch 2, such as weight: those of earlier epochs stay"
    ):
        trainer.run([False, True], max_epochs=3)
    assert written == [1]


@pytest.fixture
def best(tmp_path) -> BestWeights:
    return BestWeights(torch.nn.Linear(1, 1), tmp_path / "model.pt", tmp_path / "fingerprint.json")


def test_a_finished_training_does_nothing_and_says_so(best, capsys):
    trainer = Engine(lambda engine, batch: pytest.fail("it trained"))
    trainer.state.epoch = 3
    train(trainer, 3, best)
    said = capsys.readouterr().out
    assert "already reached max_epochs" in said
    assert best.summary() in said


def test_a_second_training_in_one_folder_is_refused_and_no_other_process_of_the_first_is(best, tmp_path, monkeypatch):
    def step(engine: Engine, batch: object) -> None:
        ran.append(batch)

    ran: list[object] = []
    trainer = Engine(step)
    trainer.state.max_epochs, trainer.state.epoch_length, trainer.state.dataloader = 1, 1, [0]
    best.model_file.write_text("of the first training")
    said = "another training runs in this folder at the moment: wait for it, or name another folder"
    with Claims(tmp_path, "").holding("training", "never said"):
        with pytest.raises(InputError, match=f"^{re.escape(f'{tmp_path}: {said}')}$"):
            train(trainer, 1, best)
        assert not ran
        assert not list(tmp_path.glob("earlier_*"))
        monkeypatch.setattr(training, "rank", lambda: 1)
        monkeypatch.setattr(saving, "rank", lambda: 1)
        train(trainer, 1, best)
    assert len(ran) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_an_error_of_a_step_is_raised_and_not_logged(best, tmp_path, caplog):
    def step(engine: Engine, batch: object) -> None:
        raise InputError("a sentence")

    trainer = Engine(step)
    trainer.state.max_epochs, trainer.state.epoch_length, trainer.state.dataloader = 1, 1, [0]
    level = logging.getLogger("ignite.engine.engine").level
    with pytest.raises(InputError, match="a sentence"):
        train(trainer, 1, best)
    assert not caplog.records
    assert Claims(tmp_path, "").claim("training"), "a notebook could not train in this folder again"
    assert logging.getLogger("ignite.engine.engine").level == level


def test_the_log_of_scores_leaves_errors_to_the_caller(caplog):
    evaluator = Engine(lambda engine, batch: 1 / 0)
    ScoreLog().attach(evaluator)
    with pytest.raises(ZeroDivisionError):
        evaluator.run([0])
    assert not [record for record in caplog.records if record.name == "validation"]


def test_the_progress_bar_of_a_terminal_shows_the_loss(capsys, monkeypatch):
    trainer = Engine(lambda engine, batch: [{"loss": 0.125}])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    LossBar().attach(trainer)
    trainer.run([0, 1])
    assert "loss=0.125" in capsys.readouterr().err


def test_a_log_that_is_no_terminal_gets_a_line_an_epoch_with_its_mean_loss(capsys, caplog):
    trainer = Engine(lambda engine, loss: [{"loss": loss * engine.state.epoch}])
    LossBar().attach(trainer)
    with caplog.at_level(logging.INFO, "training"):
        trainer.run([0.25, 0.5, 0.75], max_epochs=2)
    assert [record.getMessage() for record in caplog.records] == [
        "epoch 1 of 2: mean loss 0.5000",
        "epoch 2 of 2: mean loss 1.0000",
    ]
    assert capsys.readouterr().err.count("\n") <= 2


class Writer(Engine):
    """An evaluator of two studies that writes their names to a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda engine, name: (folder / f"{name}.nii.gz").write_text(name))
        self.register_events(*IterationEvents)

    def run(self) -> None:
        super().run(["a", "b"])


@pytest.fixture
def items(tmp_path) -> list[dict[str, str]]:
    for case in "ab":
        (tmp_path / f"{case}.nii").write_text(case)
    return [{"case": case, "image": str(tmp_path / f"{case}.nii")} for case in "ab"]


def test_masks_are_moved_into_place_after_each_study(items, tmp_path):
    unfinished, seen = tmp_path / "out/.unfinished", []
    unfinished.mkdir(parents=True)
    evaluator = Writer(unfinished)
    MoveFinished(unfinished, items, masks_in(tmp_path / "out", "masks")).attach(evaluator)
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda: seen.append([item["case"] for item in unfinished_items(items, masks_in(tmp_path / "out", "masks"))]),
    )
    evaluator.run()
    assert seen == [["b"], []]


def test_inference_takes_away_what_a_killed_run_left_and_its_own_folder(items, tmp_path):
    unfinished = tmp_path / "out/.unfinished/part 1 of 1"
    unfinished.mkdir(parents=True)
    (unfinished / "half.nii.gz").touch()
    infer(Writer(unfinished), items, masks_in(tmp_path / "out", "masks"), unfinished)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.nii.gz", "b.nii.gz", "records"]


def test_a_second_run_over_the_same_studies_is_refused_while_the_first_one_writes(items, tmp_path):
    unfinished, masks = tmp_path / "out/.unfinished/part 1 of 2", masks_in(tmp_path / "out", "masks")
    other = Claims(tmp_path / "out")
    assert other.claim("part 1 of 2")
    with pytest.raises(InputError, match=r"out: another run segments these studies at the moment: wait for it$"):
        infer(Writer(unfinished), items, masks, unfinished)
    other.release("part 1 of 2")
    infer(Writer(unfinished), items, masks, unfinished)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.nii.gz", "b.nii.gz", "records"]


def test_inference_without_studies_says_so_and_makes_no_folder(tmp_path, capsys):
    infer(Engine(lambda engine, batch: None), [], masks_in(tmp_path / "out", "masks"), tmp_path / "out/.unfinished")
    assert "nothing to do" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "stops"), [(float("nan"), True), (float("inf"), False), (-3.0, False)])
def test_answer_of_nan_stops_an_inference_and_names_the_study_instead_of_leaving_an_empty_mask(items, tmp_path, value, stops):
    unfinished, written = tmp_path / "out/.unfinished/part 1 of 1", []
    images = [{"image": MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": item["image"]})} for item in items]
    images[1]["image"][0, 1, 0, 1] = value
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(images)),
        network=torch.nn.Identity(),
        inferer=SimpleInferer(),
        postprocessing=lambda item: written.append(float(item["pred"].min())) or item,
    )
    if stops:
        with pytest.raises(InputError, match=r"/b\.nii: Identity answers with what is no number \(NaN\): pass --amp false"):
            infer(evaluator, items, masks_in(tmp_path / "out", "masks"), unfinished)
    else:
        infer(evaluator, items, masks_in(tmp_path / "out", "masks"), unfinished)
    assert len(written) == (1 if stops else 2)
