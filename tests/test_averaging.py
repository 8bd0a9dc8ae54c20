"""Promises of averaged weights: they are the formula's, what is kept, and go on where a training stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import NETWORKS, STAGE1, train, weights
from ignite.engine import Engine
from plain_chain import parse

from petct_training.averaging import UpdateAverage, averaged, network_to_keep
from petct_training.saving import LastState, resume

DECAY = 0.9


def training(epochs: int = 4) -> dict:
    """A training's objects, whose every step adds 1 to the weights and changes the statistics of a batch norm."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = averaged(network, DECAY)

    def step(engine: Engine, batch: float) -> None:
        with torch.no_grad():
            network(torch.full((3, 2), batch))
            for parameter in network.parameters():
                parameter += 1

    trainer = Engine(step)
    UpdateAverage(average, network).attach(trainer)
    trainer.state.max_epochs, trainer.state.epoch_length = epochs, 3
    return {"network": network, "trainer": trainer, "average": average}


def test_the_average_is_the_formulas():
    objects = training()
    steps = []
    objects["trainer"].add_event_handler(
        "ITERATION_COMPLETED", lambda: steps.append({k: v.clone() for k, v in objects["network"].state_dict().items()})
    )
    objects["trainer"].run([0.0, 1.0, 2.0], max_epochs=4)
    assert len(steps) == 12
    own = objects["average"].module.state_dict()
    for name, value in own.items():
        if value.is_floating_point():
            expected = DECAY ** (len(steps) - 1) * steps[0][name].double()
            for number, step in enumerate(steps[1:], 1):
                expected = expected + (1 - DECAY) * DECAY ** (len(steps) - 1 - number) * step[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert own.keys() == objects["network"].state_dict().keys()


def test_a_resumed_training_goes_on_with_its_average_to_the_byte(tmp_path):
    whole, first, second = training(), training(), training()
    whole["trainer"].run([0.0, 1.0, 2.0], max_epochs=4)
    last = LastState(first, tmp_path / "last.pt", {})
    last.attach(first["trainer"])
    first["trainer"].add_event_handler("EPOCH_COMPLETED", lambda engine: engine.terminate() if engine.state.epoch == 2 else None)
    first["trainer"].run([0.0, 1.0, 2.0], max_epochs=4)
    assert resume(True, tmp_path / "last.pt", second, {}, max_epochs=4)
    second["trainer"].run([0.0, 1.0, 2.0], max_epochs=4)
    for name, value in whole["average"].state_dict().items():
        assert torch.equal(value, second["average"].state_dict()[name]), name


def test_without_a_decay_there_is_no_average_and_the_network_is_kept():
    network = torch.nn.Linear(2, 2)
    assert averaged(network, 0) is None
    assert network_to_keep(network, None) is network


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_average_is_validated_and_kept_only_where_it_is_asked_for(bundle, prepared):
    off = parse(bundle, prepared, quick=True)
    assert off.get_parsed_content("validate::evaluator").network is off.get_parsed_content("network")
    assert {"average", "options"}.isdisjoint(off.get_parsed_content("train::state"))
    on = parse(bundle, prepared, quick=True, average_weights=0.99)
    state, network = on.get_parsed_content("train::state"), on.get_parsed_content("network")
    kept = state["average"].module
    assert kept is not network
    assert on.get_parsed_content("validate::evaluator").network is kept
    assert on.get_parsed_content("validate::best").to_save["network"] is kept
    (update,) = [handler for handler in on.get_parsed_content("train::handlers") if isinstance(handler, UpdateAverage)]
    assert (update.average, update.network) == (state["average"], network)
    assert state["options"].options == {"average_weights": 0.99}


@pytest.mark.slow
def test_a_training_writes_the_average_of_its_network(prepared, tmp_path):
    train(STAGE1, prepared, tmp_path, "train", "demo", max_epochs=1, average_weights=0.5)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    model = weights(Path(tmp_path / "model.pt"))
    assert last["average"]["n_averaged"] == 1
    assert all(torch.equal(value, last["average"][f"module.{name}"]) for name, value in model.items())
