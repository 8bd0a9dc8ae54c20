"""What benchmarks/laboratory.py promises: paired differences with intervals, and that a second run goes on where the first stopped."""

from __future__ import annotations

import json
import math

import laboratory
import numpy as np
import pytest
from helpers import BUNDLES

from petct_cascade.method import NETWORKS
from petct_training.files import read_json


def test_interval_of_one_seed_is_that_of_the_mean_of_paired_differences():
    random = np.random.default_rng(0)
    others = random.random((1, 400))
    values = others + random.normal(0.1, 0.05, (1, 400))
    mean, low, high = laboratory.difference(values, others)
    error = (values - others).std(ddof=1) / math.sqrt(400)
    assert mean == pytest.approx((values - others).mean())
    assert low == pytest.approx(mean - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.3 * error)


def test_seeds_that_differ_widen_the_interval_and_studies_without_a_value_are_left_out():
    others = np.zeros((3, 50))
    alike = np.full((3, 50), 0.1)
    assert laboratory.difference(alike, others) == pytest.approx((0.1, 0.1, 0.1))
    apart = alike + np.array([[-0.1], [0.0], [0.1]])
    mean, low, high = laboratory.difference(apart, others)
    # Of three seeds drawn with replacement, all are the lowest in one of 27 draws: more than 2.5 %.
    assert (mean, low, high) == pytest.approx((0.1, 0.0, 0.2))
    alike[0, 7] = math.nan
    assert laboratory.difference(alike, others) == pytest.approx((0.1, 0.1, 0.1))
    assert all(map(math.isnan, laboratory.difference(np.full((1, 2), math.nan), np.zeros((1, 2)))))


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The work folders that were trained and scored, none of which really was."""
    folders: list[str] = []
    row = {"case": "a", "dice": "0.5", "fpv_ml": "1", "fnv_ml": "2", "f1": ""}
    monkeypatch.setattr(laboratory, "write_phantoms", lambda *arguments, **options: None)
    monkeypatch.setattr(laboratory, "train", lambda variant, raw, work, seed, training: folders.append(work.name))
    monkeypatch.setattr(laboratory, "score", lambda test, work: [row | {"model": model} for model in laboratory.MODELS])
    return folders


def test_a_second_run_goes_on_and_results_are_kept(trained, tmp_path, capsys):
    laboratory.run(["patch inside", "paper"], seeds=2, minutes=0, folder=tmp_path)
    assert not trained
    assert "run the same command again" in capsys.readouterr().out
    laboratory.run(["paper"], seeds=1, minutes=1, folder=tmp_path)
    laboratory.run(["patch inside", "paper"], seeds=2, minutes=1, folder=tmp_path)
    assert trained == ["paper 0", "patch inside 0", "paper 1", "patch inside 1"]
    kept = json.loads((tmp_path / "scores/patch inside 1.json").read_text())
    assert {row["model"] for row in kept["rows"]} == {"DynUNet", "Ensemble"}


def test_every_variant_is_made_of_options_that_the_trainings_know():
    for name, variant in read_json(laboratory.VARIANTS).items():
        assert set(variant) <= {"gains", "folds", "cross_validation", "training", "stage2"}, name
        for bundle in NETWORKS.values():
            ids = read_json(BUNDLES / bundle / "configs/train.json")
            assert set(variant.get("training", {})) <= set(ids), name
            if bundle != laboratory.STAGE1:
                assert set(variant.get("stage2", {})) <= set(ids), name
