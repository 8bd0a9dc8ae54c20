"""What benchmarks/fair_fight.py promises: the same processor time for each, and a table of paired differences to nnU-Net."""

from __future__ import annotations

import sys

import fair_fight
import laboratory
import pytest
from helpers import write_study

NAMES = (laboratory.PAPER, fair_fight.NNUNET, fair_fight.ALONE)


def rows_of(model: str, *dice: float) -> list[dict[str, str]]:
    return [
        {"case": f"case_{number}", "model": model, "dice": str(value), "fpv_ml": "1", "fnv_ml": "2", "f1": ""}
        for number, value in enumerate(dice)
    ]


def result(*models: list[dict[str, str]]) -> dict:
    return {"rows": [row for model in models for row in model], "cpu_seconds": 600.0, "settings": {}}


def test_stage_1_alone_gets_as_many_epochs_as_the_time_holds(monkeypatch, tmp_path):
    # A training takes 10 s to start and 3 s an epoch.
    clock, places = [0.0], []

    def run(bundle, run_id, configs, options):
        places.append((options["ckpt_dir"], options["steps_per_epoch"]))
        clock[0] += 10 + 3 * options["max_epochs"]

    monkeypatch.setattr(fair_fight.common, "run_bundle", run)
    monkeypatch.setattr(laboratory, "cpu_seconds", lambda: clock[0])
    epochs = fair_fight.stage1_epochs(tmp_path / "work", 310, tmp_path, {"steps_per_epoch": 5})
    assert epochs == 100
    assert len(set(places)) == 2
    assert {steps for _, steps in places} == {5}


def test_table_has_each_competitors_difference_to_nnunet(capsys):
    paper = result(rows_of("DynUNet", 0.5, 0.3), rows_of("Ensemble", 0.7, 0.5))
    alone = result(rows_of("DynUNet", 0.4, 0.2), rows_of("Ensemble", 0, 0))
    other = result(rows_of("Prediction", 0.6, 0.4))
    fair_fight.print_results(dict(zip(NAMES, (paper, other, alone), strict=True)))
    means, against = capsys.readouterr().out.split("Paired difference")
    assert "| paper, Ensemble | 0.600 | 1.00 | 2.00 | nan | 10 |" in means
    assert "| stage 1 alone | 0.300 |" in means
    assert "| nnU-Net v2 | 0.500 |" in means
    assert "| paper, DynUNet | -0.100 (-0.100 to -0.100) |" in against
    assert "| paper, Ensemble | +0.100 (+0.100 to +0.100) |" in against
    assert "| stage 1 alone | -0.200 (-0.200 to -0.200) |" in against
    assert "| nnU-Net v2" not in against


@pytest.fixture
def fight(monkeypatch, tmp_path):
    """Let competitors fight that are not trained; return the seconds that each got, by name."""
    given: dict[str, float] = {}
    for name in ("train", "test"):
        write_study(tmp_path / name, "fdg_a_1")

    def ours(name, train, test, folder, seed, training, epochs=None):
        given[name] = epochs
        return result(rows_of("DynUNet", 0.5), rows_of("Ensemble", 0.6))

    def nnunet(train, test, folder, seconds, gib, seed):
        given[fair_fight.NNUNET] = seconds
        return result(rows_of("Prediction", 0.4))

    monkeypatch.setattr(fair_fight, "train_ours", ours)
    monkeypatch.setattr(fair_fight, "fight_nnunet", nnunet)
    monkeypatch.setattr(fair_fight, "stage1_epochs", lambda work, seconds, folder, training: int(seconds))
    monkeypatch.setattr(fair_fight.nnunet, "is_installed", lambda: True)
    arguments = ["--train", str(tmp_path / "train"), "--test", str(tmp_path / "test"), "--folder", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["fair_fight.py", *arguments])

    def run() -> dict[str, float]:
        given.clear()
        fair_fight.main()
        return dict(given)

    return run


def test_all_get_the_time_that_the_papers_recipe_took_and_nothing_is_done_twice(fight):
    assert fight() == {laboratory.PAPER: None, fair_fight.NNUNET: 600, fair_fight.ALONE: 600}
    assert fight() == {}
