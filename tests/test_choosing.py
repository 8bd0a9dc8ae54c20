"""Promises of choosing the members' weights and the threshold: by Dice, on studies that no network has seen."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import BUNDLES, ENSEMBLE, WINDOWS, write_validation
from monai.bundle import ConfigWorkflow

from petct_cascade import choosing
from petct_cascade.choosing import (
    THRESHOLDS,
    ScoreCandidatesd,
    best_candidate,
    candidates_of_weights,
    choose_members,
    dice_of_candidates,
    left_out,
    weights_of_members,
)
from petct_cascade.metrics import case_metrics
from petct_training.errors import InputError

MEMBERS = ["SegResNet", "SwinUNETR", "UNet"]


def test_candidates_are_all_weights_of_a_grid_with_the_sum_1():
    tried = candidates_of_weights(3, 4)
    assert tried[0] == (1 / 3, 1 / 3, 1 / 3)
    # Ways to share 4 among 3.
    assert len(set(tried)) == len(tried) == 1 + 15
    assert all(sum(weights) == pytest.approx(1) for weights in tried)
    assert (0.25, 0.5, 0.25) in tried
    assert candidates_of_weights(2, 2) == [(0.5, 0.5), (0.0, 1.0), (1.0, 0.0)]


def test_the_dice_of_each_candidate_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    label = rng.random((8, 7, 6)) < 0.2
    probabilities = np.clip(0.5 * label + rng.normal(0.25, 0.25, (3, *label.shape)), 0, 1).astype(np.float32)
    weights = [(1 / 3, 1 / 3, 1 / 3), (0.7, 0.1, 0.2), (0.0, 1.0, 0.0)]
    dice = dice_of_candidates(probabilities, label, weights)
    for row, candidate in enumerate(weights):
        average = np.tensordot(np.array(candidate, np.float32), probabilities, 1)
        for column, threshold in enumerate(THRESHOLDS):
            assert dice[row, column] == pytest.approx(case_metrics(average >= threshold, label, (1, 1, 1))["dice"])


def test_a_member_that_is_noise_gets_no_weight():
    rng = np.random.default_rng(0)
    score = ScoreCandidatesd(MEMBERS, steps=4)
    for _ in range(3):
        label = torch.from_numpy(rng.random((1, 10, 10, 10)) < 0.1)
        good = torch.where(label, 0.45, 0.05)
        noise = torch.from_numpy(rng.random((1, 10, 10, 10)))
        score({"SegResNet": good, "SwinUNETR": noise, "UNet": noise.flip(1), "label": label})
    weights, threshold = best_candidate(np.stack(score.dice), score.weights)
    assert weights == (1, 0, 0)
    assert threshold == 0.45, "the nearest to the paper's of those that are as good"


def test_each_candidate_is_scored_with_the_share_of_stage_1_that_the_answer_has():
    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.random((1, 8, 7, 6)) < 0.2)
    item = {name: torch.from_numpy(rng.random((1, 8, 7, 6), np.float32)) for name in ("a", "b", "stage1")}
    score = ScoreCandidatesd(["a", "b"], steps=2, stage1_key="stage1", stage1_weight=0.4)
    score({**item, "label": label})
    for row, (a, b) in enumerate(score.weights):
        answer = (0.6 * (a * item["a"] + b * item["b"]) + 0.4 * item["stage1"])[0].numpy()
        for column, threshold in enumerate(THRESHOLDS):
            expected = case_metrics(answer >= threshold, label[0].numpy(), (1, 1, 1))["dice"]
            assert score.dice[0][row, column] == pytest.approx(expected)


def test_where_nothing_is_better_the_papers_mean_is_kept():
    table = np.full((3, 16, len(THRESHOLDS)), 0.7)
    assert best_candidate(table, candidates_of_weights(3, 4)) == ((1 / 3, 1 / 3, 1 / 3), 0.5)


def test_each_study_is_scored_with_what_all_others_choose():
    """The first study is for one candidate, and the two others for another."""
    table = np.zeros((3, 2, len(THRESHOLDS)))
    table[0, 0, 0], table[1:, 1, 1] = 1, 0.6
    # The others of the first choose (1, 1), with which it has 0; those of the second choose (0, 0).
    assert left_out(table).tolist() == [0, 0, 0]
    table[1:, 1, 1] = 1
    table[:, 0, 0] = [1, 0, 0.5]
    # Of the second: (0, 0) has 1 + 0.5, (1, 1) has 0 + 1.
    assert left_out(table).tolist() == [0, 0, 1]


def test_studies_without_a_lesion_do_not_choose():
    score = ScoreCandidatesd(["a", "b"], steps=1)
    score({"a": torch.zeros(1, 2, 2, 2), "b": torch.zeros(1, 2, 2, 2), "label": torch.zeros(1, 2, 2, 2)})
    assert score.dice == []


def test_other_studies_are_refused():
    with pytest.raises(InputError, match="networks have not seen: leave --studies out"):
        choose_members(None, None, ScoreCandidatesd(["a"]), "chosen.json", studies="somewhere")


@pytest.mark.parametrize(
    "given", [{"UNet": 1}, {"SegResNet": 1, "SwinUNETR": 1, "UNet": 1, "Net": 1}, [1, 1, 1], dict.fromkeys(MEMBERS, 0)]
)
def test_weights_that_fit_no_members_are_one_sentence(given):
    with pytest.raises(InputError, match=r"give a number of 0 or more for each of SegResNet, SwinUNETR, UNet, such as \{'Seg"):
        weights_of_members(given, MEMBERS)
    with pytest.raises(InputError):
        weights_of_members({**dict.fromkeys(MEMBERS, 1), "UNet": -1}, MEMBERS)


@pytest.mark.parametrize("share", [{}, {"stage1_weight": 0.5}], ids=["members alone", "half of stage 1"])
def test_the_command_leaves_a_patch_of_the_inference(models, tmp_path, monkeypatch, capsys, share):
    prepared = write_validation(tmp_path / "raw")
    monkeypatch.chdir(BUNDLES / ENSEMBLE)
    given = {"dataset_dir": str(prepared), "ckpt_dir": str(models), "output_dir": str(tmp_path / "out"), "num_workers": 0}

    def make(*configs: str, **options) -> ConfigWorkflow:
        files = [str(config) if isinstance(config, Path) else f"configs/{config}.json" for config in configs]
        workflow = ConfigWorkflow(
            config_file=files, meta_file=None, logging_file=False, workflow_type="infer", patch_sizes=WINDOWS, **given, **options
        )
        workflow.initialize()
        return workflow

    make("inference", "evaluate", "choose", "demo", weight_steps=2, **share).run()
    chosen = tmp_path / "out/chosen.json"
    content = json.loads(chosen.read_text())
    assert sum(content["member_weights"].values()) == pytest.approx(1)
    said = capsys.readouterr().out
    assert f"the threshold {content['final_threshold']}: mean Dice" in said
    best = float(said.split("mean Dice ")[1].split(" ")[0])

    given["output_dir"] = str(tmp_path / "scored")
    workflow = make("inference", "evaluate", "demo", chosen)
    workflow.run()
    assert workflow.parser.get_parsed_content("evaluator").state.metrics["dice"] == pytest.approx(best, abs=1e-4)
    with pytest.raises(SystemExit, match="leave --studies out"):
        make("inference", "evaluate", "choose", "demo", studies=str(tmp_path / "raw")).run()


@pytest.mark.parametrize(("studies", "warned"), [(2, True), (3, False)])
def test_a_warning_says_where_so_few_studies_choose_that_it_is_chance(studies, warned, tmp_path, monkeypatch, capsys):
    candidates = ScoreCandidatesd(MEMBERS, steps=1)
    candidates.dice = [np.full((len(candidates.weights), len(THRESHOLDS)), 0.5)] * studies
    monkeypatch.setattr(choosing, "run_each_study", lambda *_, **__: [])
    choose_members(SimpleNamespace(), SimpleNamespace(check=None), candidates, tmp_path / "chosen.json")
    said = capsys.readouterr().out
    assert said.startswith("warning: 2 studies with lesions choose, so that chance") == warned
