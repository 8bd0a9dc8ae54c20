"""Promises of what a training writes, and of how it goes on from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import of_weights
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.engines import Evaluator

from petct_training.claims import training_in
from petct_training.errors import InputError
from petct_training.saving import BestWeights, LastState, remembered, resume, save, save_weights, set_aside

FINGERPRINT = {"spacing": [2, 2, 3]}


def network(value: float = 0) -> torch.nn.Linear:
    linear = torch.nn.Linear(2, 1)
    for parameter in linear.parameters():
        torch.nn.init.constant_(parameter, value)
    return linear


def state(value: float = 0, epochs: int = 5) -> dict:
    """A training's objects: network, optimiser, and a trainer that has done two epochs."""
    linear = network(value)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9)
    linear(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    trainer = Engine(lambda engine, batch: None)
    trainer.run([0, 1], max_epochs=2)
    trainer.state.max_epochs = epochs
    return {"network": linear, "optimizer": optimizer, "trainer": trainer}


class AsGiven(Metric):
    """A metric that has the values that are given, one a validation."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)
        super().__init__()

    def reset(self) -> None:
        """Nothing."""

    def update(self, output: object) -> None:
        """Nothing."""

    def compute(self) -> float:
        return next(self.values)


@pytest.fixture
def best(tmp_path) -> BestWeights:
    (tmp_path / "data.json").write_text(json.dumps(FINGERPRINT))
    (tmp_path / "models").mkdir()
    return BestWeights(network(), tmp_path / "models/model.pt", tmp_path / "data.json", metric="dice")


def validate(best: BestWeights, score: float, value: float) -> torch.Tensor:
    """Score the network with some weights; return the weights that are then on the disk."""
    torch.nn.init.constant_(best.to_save["network"].weight, value)
    evaluator = Engine(lambda engine, batch: setattr(engine.state, "metrics", {"dice": score}))
    best.attach(evaluator)
    evaluator.state.epoch = int(value) - 1
    evaluator.run([0], max_epochs=int(value))
    return torch.load(best.model_file, weights_only=True)["weight"]


def test_only_a_higher_score_replaces_the_weights(best):
    kept = [validate(best, score, value)[0, 0].item() for value, score in enumerate([0.5, 0.4, 0.6, 0.6], 1)]
    assert kept == [1, 1, 3, 3]

    assert best.summary() == f"{best.model_file} holds the best weights, of epoch 3: dice 0.6000."


@pytest.mark.parametrize("nothing", [0.0, float("nan")])
def test_the_last_weights_are_kept_as_long_as_there_is_no_best(best, nothing):
    assert best.summary() == "No validation has run, and no weights were written."
    assert [validate(best, nothing, value)[0, 0].item() for value in (1, 2, 3)] == [1, 2, 3]
    assert best.summary().startswith(f"{best.model_file} holds the last weights, of epoch 3, and not the best: no validation")
    assert validate(best, 0.1, 4)[0, 0] == 4
    assert validate(best, nothing, 5)[0, 0] == 4
    assert "holds the best weights, of epoch 4: dice 0.1000" in best.summary()


def test_the_fingerprint_lies_beside_the_weights(best):
    validate(best, 0.5, 1)
    beside = json.loads((best.model_file.parent / "fingerprint.json").read_text())
    assert beside == of_weights(FINGERPRINT, best.model_file)
    assert sorted(file.name for file in best.model_file.parent.iterdir()) == ["fingerprint.json", "model.pt"]


def test_the_best_score_is_part_of_the_state(best, tmp_path):
    validate(best, 0.5, 1)
    again = BestWeights(network(), best.model_file, best.fingerprint_file, metric="dice")
    again.load_state_dict(best.state_dict())
    assert validate(again, 0.4, 7)[0, 0] == 1


def resumed(best: BestWeights, tmp_path: Path) -> BestWeights:
    """Go on, in new objects, with a training that has written its weights and then its state."""
    last = tmp_path / "models/last.pt"
    LastState({**state(), "best": best}, last, FINGERPRINT)(Engine(lambda engine, batch: None))
    return again(best, last)


def again(best: BestWeights, last: Path) -> BestWeights:
    objects = {**state(), "best": BestWeights(network(), best.model_file, best.fingerprint_file, metric="dice")}
    assert resume(True, last, objects, FINGERPRINT, max_epochs=5)
    return objects["best"]


def test_a_training_does_not_go_on_without_the_best_weights_that_it_had_written(best, tmp_path):
    def refusal() -> str:
        with pytest.raises(InputError) as error:
            again(best, tmp_path / "models/last.pt")
        assert f"or delete {tmp_path / 'models/last.pt'}, and the training begins anew" in str(error.value)
        return str(error.value)

    validate(best, 0.5, 1)
    assert resumed(best, tmp_path).summary() == best.summary()
    whole = best.model_file.read_bytes()
    best.model_file.unlink()
    assert f"{best.model_file} is missing, the best weights of the training so far: put it back" in refusal()
    best.model_file.write_bytes(whole[:500])
    assert f"{best.model_file} cannot be read as weights of PyTorch: put back" in refusal()
    save(torch.nn.Linear(3, 1).state_dict(), best.model_file)
    assert f"{best.model_file} does not fit Linear" in refusal()
    save(network(float("nan")).state_dict(), best.model_file)
    with pytest.raises(InputError, match=r"model\.pt has values that are no numbers"):
        again(best, tmp_path / "models/last.pt")
    save(network(4).state_dict(), best.model_file)
    (tmp_path / "models/fingerprint.json").write_text('{"of": "another training"}')
    assert "fingerprint.json is not that of the training, nor are the weights beside it" in refusal()


def test_a_training_that_was_killed_between_its_best_weights_and_their_fingerprint_or_its_state_goes_on(best, tmp_path):
    validate(best, 0.5, 1)
    resumed(best, tmp_path)
    validate(best, 0.6, 2)
    (tmp_path / "models/fingerprint.json").unlink()
    assert "of epoch 1: dice 0.5000" in again(best, tmp_path / "models/last.pt").summary(), "the second epoch is trained again"
    assert json.loads((tmp_path / "models/fingerprint.json").read_text()) == of_weights(FINGERPRINT, tmp_path / "models/model.pt")


def test_weights_remember_the_studies_of_their_training_also_where_these_are_known_less_well_when_it_goes_on(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps(FINGERPRINT))
    (tmp_path / "models").mkdir()
    files = tmp_path / "models/model.pt", tmp_path / "data.json"
    first = BestWeights(network(), *files, metric="dice", trained_on=["a", "b"])
    validate(first, 0.5, 1)
    LastState({**state(), "best": first}, tmp_path / "models/last.pt", FINGERPRINT)(Engine(lambda engine, batch: None))
    objects = {**state(), "best": BestWeights(network(), *files, metric="dice", trained_on=["a"])}
    assert resume(True, tmp_path / "models/last.pt", objects, FINGERPRINT, max_epochs=5)
    for _ in range(2):
        assert json.loads((tmp_path / "models/fingerprint.json").read_text())["trained_on"] == ["a", "b"]
        validate(objects["best"], 0.6, 2)


@pytest.mark.parametrize("goes_on", [True, False])
def test_nothing_is_read_in_a_folder_where_another_training_runs(best, tmp_path, goes_on):
    (tmp_path / "models/last.pt").write_text("half written")
    with training_in(tmp_path / "models"), pytest.raises(InputError, match="another training runs in this folder at the moment"):
        resume(goes_on, tmp_path / "models/last.pt", state(), FINGERPRINT, max_epochs=5)


def test_a_training_without_best_weights_so_far_takes_none_of_an_earlier_one_for_its_own(best, tmp_path):
    (tmp_path / "models/model.pt").write_text("of an earlier training, or damaged")
    assert "no weights were written" in resumed(best, tmp_path).summary()
    assert not (tmp_path / "models/fingerprint.json").exists()


@pytest.mark.parametrize("scores", [[0.5, 0.4, 0.45], [0.0, 0.2, 0.1], [0.0, 0.0, 0.0]])
def test_the_log_names_the_best_score_of_all_epochs_also_after_an_interruption(best, tmp_path, scores):
    """MONAI's evaluator, which was there from the beginning, says what is right; for equal ones any of their epochs is."""

    def evaluator(best: BestWeights, scores: list[float]) -> Evaluator:
        engine = Evaluator("cpu", [0], iteration_update=lambda engine, batch: None, key_val_metric={"dice": AsGiven(scores)})
        best.attach(engine)
        return engine

    whole = evaluator(best, scores)
    for epoch in (1, 2):
        whole.run(epoch)
    after = resumed(best, tmp_path)
    whole.run(3)
    interrupted = evaluator(after, scores[2:])
    interrupted.run(3)
    assert interrupted.state.best_metric == whole.state.best_metric == max(scores)
    assert interrupted.state.best_metric_epoch == (whole.state.best_metric_epoch if max(scores) > 0 else 3)


def test_a_state_is_written_after_every_epoch_and_resumed(tmp_path):
    objects = state(value=3)
    last = LastState(objects, tmp_path / "last.pt", FINGERPRINT)
    epochs = []
    last.attach(objects["trainer"])
    trainer = objects["trainer"]
    trainer.add_event_handler("EPOCH_COMPLETED", lambda engine: epochs.append(written(tmp_path)["trainer"]["iteration"]))
    trainer.run([0, 1])
    assert epochs == [6, 8, 10]
    other = state(value=-1)
    assert resume(True, tmp_path / "last.pt", other, FINGERPRINT, max_epochs=5)
    assert torch.equal(other["network"].weight, objects["network"].weight)
    assert other["trainer"].state.epoch == 5
    momentum = [torch.cat([s["momentum_buffer"].flatten() for s in o["optimizer"].state.values()]) for o in (other, objects)]
    assert torch.equal(*momentum)


def written(folder: Path) -> dict:
    return torch.load(folder / "last.pt", weights_only=True)


@pytest.fixture
def last(tmp_path) -> Path:
    LastState(state(), tmp_path / "last.pt", FINGERPRINT)(Engine(lambda engine, batch: None))
    return tmp_path / "last.pt"


def test_the_state_is_read_once(last, monkeypatch):
    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: (reads.append(args), load(*args, **options))[1])
    assert resume(True, last, state(1), FINGERPRINT, max_epochs=5)
    assert len(reads) == 1


def test_without_a_state_or_the_wish_to_resume_nothing_is_loaded(last, tmp_path):
    objects = state(value=3)
    before = objects["network"].weight.clone()
    assert not resume(False, last, objects, FINGERPRINT, max_epochs=5)
    assert not resume(True, tmp_path / "other.pt", objects, FINGERPRINT, max_epochs=5)
    assert torch.equal(objects["network"].weight, before)


def test_the_state_of_another_network_fingerprint_or_number_of_epochs_is_refused(last):
    def refusal(objects: dict, epochs: int = 5) -> str:
        with pytest.raises(InputError) as error:
            resume(True, last, objects, FINGERPRINT, epochs)
        return str(error.value)

    assert "holds the weights of another network" in refusal({**state(), "network": torch.nn.Linear(3, 1)})
    assert "is of a training of 5 epochs" in refusal(state(), 6)
    # Best weights of an earlier training, beside the state: its fingerprint is not that of the state.
    (last.parent / "fingerprint.json").write_text("{}")
    assert resume(True, last, state(), FINGERPRINT, max_epochs=5)
    LastState(state(), last, {"of": "other studies"})(Engine(lambda engine, batch: None))
    assert "was trained with another fingerprint" in refusal(state())
    LastState(state(), last, FINGERPRINT, {"fold": 1})(Engine(lambda engine, batch: None))
    assert "was trained with another fingerprint" in refusal(state())
    whole = last.read_bytes()
    for damaged in (whole[:500], (save(network(1).state_dict(), last), last.read_bytes())[1]):
        last.write_bytes(damaged)
        assert "it is damaged" in refusal(state())
        assert "delete it, and the training begins anew" in refusal(state())


def test_a_training_goes_on_with_the_options_beyond_the_paper_that_it_began_with(tmp_path):
    def refusal(objects: dict) -> str:
        with pytest.raises(InputError) as error:
            resume(True, tmp_path / "last.pt", objects, FINGERPRINT, max_epochs=5)
        return str(error.value)

    with_option = {**state(), "options": remembered({"background_uptake": 0.5})}
    LastState(with_option, tmp_path / "last.pt", FINGERPRINT)(Engine(lambda engine, batch: None))
    assert resume(True, tmp_path / "last.pt", with_option, FINGERPRINT, max_epochs=5)
    assert "is of a training with another background_uptake: give the same options" in refusal(state())
    both = remembered({"background_uptake": 0.5, "patch_inside": True})
    assert "with another patch_inside" in refusal({**state(), "options": both})
    LastState(state(), tmp_path / "last.pt", FINGERPRINT)(Engine(lambda engine, batch: None))
    assert "with another background_uptake" in refusal(with_option)
    assert remembered({}) is None, "without options the state is that of a training which knows none"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.01}, "learning_rate"),
        ({"momentum": 0.8}, "momentum"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"power": 0.5}, "poly_power"),
    ],
)
def test_options_of_the_optimiser_that_the_state_would_overwrite_are_refused(tmp_path, options, named):
    def scheduled(power=0.9, **other) -> dict:
        objects = state()
        optimizer = torch.optim.SGD(objects["network"].parameters(), **{"lr": 0.1, "momentum": 0.9} | other)
        return objects | {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.PolynomialLR(optimizer, 10, power)}

    before = scheduled()
    before["optimizer"].step()
    before["lr_scheduler"].step()
    LastState(before, tmp_path / "last.pt", FINGERPRINT)(Engine(lambda engine, batch: None))
    assert resume(True, tmp_path / "last.pt", scheduled(), FINGERPRINT, max_epochs=5)
    with pytest.raises(InputError, match=f"is of a training with another {named}: give the same, or begin anew without --resume"):
        resume(True, tmp_path / "last.pt", scheduled(**options), FINGERPRINT, max_epochs=5)


def test_the_bytes_do_not_depend_on_the_files_name(tmp_path):
    for name in ("a.pt", "b.pt"):
        save(network(2).state_dict(), tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_a_full_disk_is_one_sentence_and_leaves_the_former_file(tmp_path, monkeypatch):
    file = tmp_path / "model.pt"
    save(network(1).state_dict(), file)
    before = file.read_bytes()

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"model\.pt cannot be written \(No space left on device\)"):
        save(network(2).state_dict(), file)
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


def test_best_weights_that_find_no_room_leave_the_former_ones_with_their_fingerprint(best, monkeypatch):
    validate(best, 0.5, 1)
    before = {file.name: file.read_bytes() for file in best.model_file.parent.iterdir()}
    best.fingerprint_file.write_text(json.dumps(FINGERPRINT | {"spacing": [4, 4, 4]}))

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"model\.pt cannot be written \(No space left on device\)"):
        validate(best, 0.6, 2)
    assert {file.name: file.read_bytes() for file in best.model_file.parent.iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no files")
def test_weights_that_find_no_room_are_one_sentence_and_the_former_ones_stay(tmp_path):
    import resource

    save_weights(network(1), {"source": "first"}, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(InputError, match=r"model\.pt cannot be written \(File too large\)"):
            save_weights(network(2), {"source": "second"}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_training_that_begins_anew_keeps_earlier_weights_aside_and_in_place(tmp_path, capsys):
    for name in ("model.pt", "fingerprint.json", "notes.txt"):
        (tmp_path / name).write_text(name)
    aside = set_aside(False, tmp_path)
    assert {file.name: file.read_text() for file in aside.iterdir()} == {name: name for name in ("model.pt", "fingerprint.json")}
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([aside.name, "fingerprint.json", "model.pt", "notes.txt"])
    assert f"kept in {aside}" in capsys.readouterr().out
    assert set_aside(False, tmp_path) == aside, "the same weights are kept once"
    (tmp_path / "last.pt").write_text("of a second training in the same second")
    second = set_aside(False, tmp_path)
    assert second != aside
    assert (second / "last.pt").read_text() == "of a second training in the same second"
    assert not (tmp_path / "last.pt").exists(), "a training that is interrupted at once would be resumed from it"
    assert (tmp_path / "model.pt").read_text() == "model.pt", "MONAI Label's next training begins with it"
    assert (aside / "model.pt").read_text() == "model.pt"


def test_weights_without_a_state_are_kept_aside_where_a_training_was_to_be_resumed(tmp_path):
    (tmp_path / "model.pt").write_text("imported")
    assert (set_aside(True, tmp_path) / "model.pt").read_text() == "imported"


@pytest.mark.parametrize(("resumes", "files"), [(True, ["last.pt", "model.pt"]), (False, ["fingerprint.json"])])
def test_nothing_is_set_aside_where_a_training_goes_on_or_none_was(tmp_path, resumes, files):
    for name in files:
        (tmp_path / name).touch()
    assert set_aside(resumes, tmp_path) is None
    assert sorted(file.name for file in tmp_path.iterdir()) == files


def test_assembled_or_imported_weights_keep_other_ones_aside_and_not_themselves(tmp_path):
    save_weights(network(1), FINGERPRINT, tmp_path)
    first = (tmp_path / "model.pt").read_bytes()
    save_weights(network(1), FINGERPRINT, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fingerprint.json", "model.pt"]
    save_weights(network(2), FINGERPRINT, tmp_path)
    (aside,) = tmp_path.glob("earlier_*")
    assert (aside / "model.pt").read_bytes() == first
    assert json.loads((aside / "fingerprint.json").read_text()) == of_weights(FINGERPRINT, aside / "model.pt")
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"][0, 0] == 2


def test_the_same_weights_that_answer_otherwise_are_kept_aside_too(tmp_path):
    options = {"stage1_weight": 0.5, "keep_found_above": 0.25}
    save_weights(network(1), {**FINGERPRINT, **options}, tmp_path)
    save_weights(network(1), FINGERPRINT, tmp_path)
    (aside,) = tmp_path.glob("earlier_*")
    assert (aside / "model.pt").read_bytes() == (tmp_path / "model.pt").read_bytes()
    earlier, now = (json.loads((folder / "fingerprint.json").read_text()) for folder in (aside, tmp_path))
    assert earlier == {**now, **options}


def test_a_fingerprint_of_an_earlier_version_that_names_no_weights_is_no_other_one(tmp_path):
    save_weights(network(1), FINGERPRINT, tmp_path)
    (tmp_path / "fingerprint.json").write_text(json.dumps(FINGERPRINT))
    save_weights(network(1), FINGERPRINT, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fingerprint.json", "model.pt"]


def test_weights_that_are_kept_aside_still_say_where_they_come_from(tmp_path):
    save_weights(network(1), FINGERPRINT, tmp_path)
    first = set_aside(False, tmp_path)
    (tmp_path / "sources.json").write_text("of files of others")
    assert set_aside(False, tmp_path) == first, "the same weights are kept once"
    assert (first / "sources.json").read_text() == "of files of others"
    (tmp_path / "sources.json").write_text("told otherwise")
    assert set_aside(False, tmp_path) == first
    assert (first / "sources.json").read_text() == "of files of others"
    save_weights(network(2), FINGERPRINT, tmp_path)
    second = set_aside(False, tmp_path)
    assert sorted(file.name for file in second.iterdir()) == ["fingerprint.json", "model.pt", "sources.json"]
