"""What benchmarks/laboratory.py promises: paired differences with intervals, and that a second run goes on where the first stopped."""

from __future__ import annotations

import json
import math
import re
import sys

import laboratory
import numpy as np
import pytest
from helpers import BUNDLES

from petct_cascade.method import NETWORKS, options_of_network
from petct_training.files import read_json, write_json


def test_interval_of_one_seed_is_that_of_the_mean_of_paired_differences():
    random = np.random.default_rng(0)
    others = random.random((1, 400))
    values = others + random.normal(0.1, 0.05, (1, 400))
    mean, low, high = laboratory.difference(values, others, [str(number) for number in range(400)])
    error = (values - others).std(ddof=1) / math.sqrt(400)
    assert mean == pytest.approx((values - others).mean())
    assert low == pytest.approx(mean - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.3 * error)


def test_seeds_that_differ_widen_the_interval_and_studies_without_a_value_are_left_out():
    others, patients = np.zeros((3, 50)), [str(number) for number in range(50)]
    alike = np.full((3, 50), 0.1)
    assert laboratory.difference(alike, others, patients) == pytest.approx((0.1, 0.1, 0.1))
    apart = alike + np.array([[-0.1], [0.0], [0.1]])
    mean, low, high = laboratory.difference(apart, others, patients)
    # Of three seeds drawn with replacement, all are the lowest in one of 27 draws: more than 2.5 %.
    assert (mean, low, high) == pytest.approx((0.1, 0.0, 0.2))
    alike[0, 7] = math.nan
    assert laboratory.difference(alike, others, patients) == pytest.approx((0.1, 0.1, 0.1))
    assert all(map(math.isnan, laboratory.difference(np.full((1, 2), math.nan), np.zeros((1, 2)), patients[:2])))


def test_studies_of_one_patient_count_as_one_observation():
    random = np.random.default_rng(0)
    values, others = np.repeat(random.normal(0.1, 0.05, (1, 100)), 4, axis=1), np.zeros((1, 400))
    # Each patient four times is no more than each patient once.
    once = laboratory.difference(values[:, ::4], others[:, ::4], [str(number) for number in range(100)])
    assert laboratory.difference(values, others, [str(number // 4) for number in range(400)]) == pytest.approx(once)


def test_scores_of_a_variant_are_not_those_of_one_whose_name_begins_alike(tmp_path):
    for name, seed in (("folds", 0), ("folds without SwinUNETR", 0), ("folds without SwinUNETR", 1)):
        found = {"rows": [], "name": name, "variant": read_json(laboratory.VARIANTS)[name]}
        write_json(laboratory.scores_file(tmp_path, name, seed), found)
    assert {seed: found["name"] for seed, found in laboratory.scores_of(tmp_path, "folds").items()} == {0: "folds"}


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, int, str]]:
    """The name of the work folder, folds, and what was scored, of each variant that was trained, though none really was."""
    trainings: list[tuple[str, int, str]] = []
    row = {"case": "a", "dice": "0.5", "fpv_ml": "1", "fnv_ml": "2", "f1": ""}

    def train(variant, raw, work, seed, training, folds):
        trainings.append((work.name, folds, raw.name))
        (work / "results").mkdir(parents=True, exist_ok=True)
        (work / "results/scores.csv").write_text("model,dice\nDynUNet,0.25\n")

    def score(tested, work, variant):
        return [row | {"model": model, "scored": str(*tested.values())} for model in laboratory.MODELS]

    monkeypatch.setattr(laboratory, "write_phantoms", lambda *arguments, **options: None)
    monkeypatch.setattr(laboratory, "train", train)
    monkeypatch.setattr(laboratory, "score", score)
    return trainings


def test_a_second_run_goes_on_and_results_are_kept(trained, tmp_path, capsys):
    lab = laboratory.Laboratory(tmp_path)
    laboratory.run(lab, ["patch inside", "paper"], seeds=2, minutes=0)
    assert not trained
    assert "run the same command again" in capsys.readouterr().out
    laboratory.run(lab, ["paper"], seeds=1, minutes=1)
    laboratory.run(lab, ["patch inside", "paper"], seeds=2, minutes=1)
    assert [name for name, _, _ in trained] == ["paper 0", "patch inside 0", "paper 1", "patch inside 1"]
    kept = json.loads((tmp_path / "scores/patch inside 1.json").read_text())
    assert {row["model"] for row in kept["rows"]} >= {"DynUNet", "Ensemble"}
    assert {row["scored"] for row in kept["rows"]} == {str(tmp_path / "test")}


def test_an_interrupted_variant_begins_again_so_that_all_of_its_time_is_counted(trained, tmp_path):
    lab = laboratory.Laboratory(tmp_path)
    half_done = tmp_path / "work/paper 0/steps/train.json"
    half_done.parent.mkdir(parents=True)
    half_done.touch()
    laboratory.run(lab, ["paper"], seeds=1, minutes=1)
    assert [name for name, _, _ in trained] == ["paper 0"]
    assert not half_done.exists()
    # What is done stays: further variants take its steps.
    (tmp_path / "work/paper 0/steps").mkdir()
    half_done.touch()
    laboratory.run(lab, ["paper", "patch inside"], seeds=1, minutes=1)
    assert half_done.exists()
    assert (tmp_path / "work/patch inside 0/steps/train.json").exists()


def test_results_of_a_variant_that_has_other_options_now_are_refused(trained, tmp_path, monkeypatch):
    lab = laboratory.Laboratory(tmp_path / "lab")
    laboratory.run(lab, ["paper", "patch inside"], seeds=1, minutes=1)
    variants = read_json(laboratory.VARIANTS)
    changed = tmp_path / "laboratory.json"
    monkeypatch.setattr(laboratory, "VARIANTS", changed)
    write_json(changed, variants | {"patch inside": variants["patch inside"] | {"gains": "said in other words"}})
    laboratory.print_tables(tmp_path / "lab")
    write_json(changed, variants | {"patch inside": {"training": {"max_epochs": 7}}})
    with pytest.raises(SystemExit, match=r"patch inside 0\.json is a result of .* delete it"):
        laboratory.print_tables(tmp_path / "lab")
    with pytest.raises(SystemExit, match=r"patch inside 0\.json is a result of .* delete it"):
        laboratory.run(lab, ["patch inside"], seeds=1, minutes=1)


def test_a_variant_that_scores_more_studies_is_compared_on_those_in_common(tmp_path, capsys):
    def keep(name, dice):
        rows = [
            {"case": case, "model": model, "dice": str(value), "fpv_ml": "1", "fnv_ml": "2", "f1": ""}
            for case, value in dice.items()
            for model in laboratory.MODELS
        ]
        found = {"rows": rows, "variant": read_json(laboratory.VARIANTS)[name], "training_seconds": 60, "scoring_seconds": 60}
        write_json(laboratory.scores_file(tmp_path, name, 0), found)

    keep("paper", {"a": 0.5, "c": 0.5})
    keep("healthy studies", {"a": 0.6, "b": 0.1, "c": 0.6})
    laboratory.print_tables(tmp_path)
    assert "| healthy studies | Ensemble | 1 | +0.100 (+0.100 to +0.100) |" in capsys.readouterr().out


def test_own_studies_are_cross_validated_and_variants_that_need_studies_set_aside_left_out(trained, tmp_path):
    lab = laboratory.Laboratory(tmp_path / "lab", studies=tmp_path / "raw", folds=4)
    laboratory.run(lab, ["paper", "folds", "chosen members", "mirrored"], seeds=1, minutes=1)
    assert trained == [("paper 0", 4, "raw"), ("mirrored 0", 4, "raw")]
    kept = json.loads((tmp_path / "lab/scores/mirrored 0.json").read_text())
    assert {row["scored"] for row in kept["rows"]} == {str(tmp_path / "lab/work/mirrored 0/prepared")}
    assert json.loads((tmp_path / "lab/scores/paper 0.json").read_text())["rows"] == [{"model": "DynUNet", "dice": "0.25"}]


def test_with_members_all_variants_have_them_and_those_about_members_are_left_out(trained, tmp_path, monkeypatch):
    members = {}
    monkeypatch.setattr(laboratory, "train", lambda variant, raw, work, *_: members.update({work.name: variant["members"]}))
    lab = laboratory.Laboratory(tmp_path, members=["UNet"])
    names = ["paper", "mirrored", "without SwinUNETR", "folds without SwinUNETR", "chosen members"]
    laboratory.run(lab, names, seeds=1, minutes=1)
    assert members == {"paper 0": ["UNet"], "mirrored 0": ["UNet"]}


def test_a_folder_never_mixes_results_of_other_studies_folds_trainings_or_members(trained, tmp_path):
    lab = laboratory.Laboratory(tmp_path, training={"steps_per_epoch": 8})
    laboratory.run(lab, ["paper"], seeds=1, minutes=1)
    for other in (
        lab._replace(training={"steps_per_epoch": 9}),
        lab._replace(training={}),
        lab._replace(studies=tmp_path / "raw"),
        lab._replace(members=["UNet"]),
    ):
        with pytest.raises(SystemExit, match="name another --folder"):
            laboratory.run(other, ["paper"], seeds=2, minutes=1)
    laboratory.run(lab, ["paper"], seeds=1, minutes=1)
    assert len(trained) == 1


def test_help_lists_the_variants_so_that_each_name_can_be_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["laboratory.py", "--help"])
    with pytest.raises(SystemExit):
        laboratory.main()
    words = " ".join(capsys.readouterr().out.split())
    (listed,) = re.findall(r"by default all of them: (.*?) --seeds", words)
    assert listed.split("; ") == list(read_json(laboratory.VARIANTS))


def test_every_variant_is_made_of_options_that_the_bundles_know():
    prepare, inference = (read_json(BUNDLES / f"autopet_ensemble/configs/{name}.json") for name in ("prepare", "inference"))
    known = {"gains", "folds", "cross_validation", "members", "prepare", "training", "stage2", "inference", "choose"}
    for name, variant in read_json(laboratory.VARIANTS).items():
        assert set(variant) <= known, name
        assert set(variant.get("prepare", {})) <= set(prepare), name
        assert set(variant.get("inference", {})) <= set(inference), name
        for bundle in NETWORKS.values():
            ids = read_json(BUNDLES / bundle / "configs/train.json")
            assert set(options_of_network(variant.get("training", {}), bundle)) <= set(ids), name
            if bundle != laboratory.STAGE1:
                assert set(variant.get("stage2", {})) <= set(ids), name


def test_a_variant_that_draws_healthy_studies_has_them_prepared(tmp_path, monkeypatch):
    """Which `prepare` leaves out by default, and no training can draw then."""
    prepared = {}
    monkeypatch.setattr(laboratory, "run_pipeline", lambda *_, prepare_options, **__: prepared.update(prepare_options))
    for name, variant in read_json(laboratory.VARIANTS).items():
        prepared.clear()
        laboratory.train(variant, tmp_path, tmp_path, 0, {})
        assert prepared.get("keep_healthy", False) == ("healthy_fraction" in variant.get("training", {})), name
