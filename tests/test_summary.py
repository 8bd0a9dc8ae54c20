"""Means, intervals and comparisons over studies equal what a reader would work out by hand."""

from __future__ import annotations

import csv
import json
import math
import statistics

import numpy as np
import pytest

from petct_cascade.metrics import METRIC_NAMES
from petct_cascade.summary import BASELINE, summarise, summary_markdown, table1, write_scores
from petct_training.errors import InputError

NAN = math.nan


def row(case: str, model: str, dice: float, fpv: float = 1.0, fnv: float = 2.0, **more) -> dict:
    values = dict.fromkeys(METRIC_NAMES, 0.5) | {"dice": dice, "fpv_ml": fpv, "fnv_ml": fnv}
    return {"case": case, "model": model, "tracer": case.split("_")[0], **values, **more}


ROWS = [
    row("fdg_a", "DynUNet", 0.50),
    row("fdg_b", "DynUNet", 0.70),
    row("psma_c", "DynUNet", NAN, 4.0, NAN),
    row("psma_d", "DynUNet", 0.90),
    row("fdg_a", "UNet", 0.60, 0.0),
    row("fdg_b", "UNet", 0.70, 1.0),
    row("psma_c", "UNet", NAN, 5.0, NAN),
    row("psma_d", "UNet", 0.80, 3.0),
    row("fdg_a", "Ensemble", 0.656789),
]


def find(entries: list[dict], **wanted) -> dict:
    (entry,) = [entry for entry in entries if all(entry[name] == value for name, value in wanted.items())]
    return entry


def test_table_1_has_the_papers_rows_and_the_mean_dice_times_100():
    models = ["Ensemble", "UNet", "SwinUNETR", "DynUNet", "SegResNet"]
    rows = [row(case, model, dice) for model in models for case, dice in (("a", 0.5), ("b", 0.75135), ("c", NAN))]
    lines = table1(rows).splitlines()
    assert lines[0] == "| Stage | Model | Dice |"
    assert lines[2:] == [
        "| 1 | DynUNet | 62.57 |",
        "| 2 | SegResNet | 62.57 |",
        "| 2 | SwinUNETR | 62.57 |",
        "| 2 | UNet | 62.57 |",
        "| 2 | Ensemble | 62.57 |",
    ]


def test_table_1_of_another_tool_has_no_stage_and_no_figure_where_no_dice_exists():
    assert table1([row("a", "Other | tool", NAN)]).splitlines()[2] == "| – | Other \\| tool | – |"


def test_means_leave_out_studies_in_which_the_metric_does_not_exist():
    means = summarise(ROWS)["means"]
    assert find(means, group="All", model="DynUNet")["dice"]["mean"] == pytest.approx(0.7)
    assert find(means, group="All", model="DynUNet")["dice"]["studies"] == 3
    assert find(means, group="All", model="DynUNet")["fpv_ml"]["mean"] == pytest.approx(7 / 4)
    assert find(means, group="FDG", model="UNet")["dice"]["mean"] == pytest.approx(0.65)
    assert find(means, group="PSMA", model="UNet")["fpv_ml"]["mean"] == pytest.approx(4)


def test_groups_are_all_tracers_and_tracer_by_centre_where_a_centre_is_named():
    assert list(dict.fromkeys(entry["group"] for entry in summarise(ROWS)["means"])) == ["All", "FDG", "PSMA"]
    rows = [row(f"{tracer}_{i}", "UNet", 0.1 * i, centre=centre) for i, (tracer, centre) in
            enumerate([("fdg", "A"), ("fdg", "B"), ("psma", "A"), ("psma", "A")])]  # fmt: skip
    means = summarise(rows)["means"]
    assert [entry["group"] for entry in means] == ["All", "FDG", "PSMA", "FDG, A", "FDG, B", "PSMA, A"]
    assert find(means, group="PSMA, A")["dice"]["mean"] == pytest.approx(0.25)


def test_interval_has_the_width_that_theory_gives_and_the_seed_decides_it():
    generator = np.random.default_rng(0)
    values = generator.normal(0.6, 0.2, 400)
    rows = [row(f"fdg_{i}", "UNet", float(value)) for i, value in enumerate(values)]
    found = find(summarise(rows)["means"], group="All")["dice"]
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    assert found["low"] == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.15 * standard_error)
    assert summarise(rows) == summarise(rows)
    assert summarise(rows, seed=1)["means"] != summarise(rows)["means"]


def test_interval_does_not_depend_on_what_patients_are_called():
    values = np.random.default_rng(0).normal(0.6, 0.2, 40).tolist()
    rows = [row(f"fdg_{i}", "UNet", value, patient=f"{i // 3:02}") for i, value in enumerate(values)]
    renamed = [scored | {"patient": str(99 - int(scored["patient"]))} for scored in rows]
    expected, found = (find(summarise(some)["means"], group="All")["dice"] for some in (rows, renamed))
    assert found == pytest.approx(expected)


def test_studies_of_one_patient_count_as_one_observation():
    generator = np.random.default_rng(0)
    values = generator.normal(0.6, 0.2, 100).tolist()
    once = [
        row(f"fdg_{i}", model, rank * value) for i, value in enumerate(values) for rank, model in ((1, "DynUNet"), (2, "UNet"))
    ]
    repeated = [
        scored | {"case": f"{scored['case']}_{visit}", "patient": scored["case"]} for scored in once for visit in range(4)
    ]
    of_once, of_repeated = summarise(once), summarise(repeated)
    for entries, names in (("means", ("dice", "fpv_ml")), ("comparison", ("low", "high"))):
        for expected, found in zip(of_once[entries], of_repeated[entries], strict=True):
            assert found["studies"] == 4 * expected["studies"]
            for name in names:
                wanted = {**expected[name], "studies": 400} if isinstance(expected[name], dict) else expected[name]
                assert found[name] == pytest.approx(wanted), (entries, name)
    # A patient with several studies weighs as many as there are, in the mean as in the samples of the interval.
    uneven = [row("a_1", "UNet", 0.0, patient="a"), *(row(f"b_{i}", "UNet", 1.0, patient="b") for i in range(3))]
    dice = find(summarise(uneven)["means"], group="All")["dice"]
    assert (dice["mean"], dice["low"], dice["high"]) == (0.75, 0.0, 1.0)


def test_several_studies_of_one_patient_have_a_mean_and_no_interval():
    rows = [row(f"fdg_{visit}", "UNet", 0.5 + 0.1 * visit, patient="a") for visit in range(3)]
    found = find(summarise(rows)["means"], group="All")["dice"]
    assert found == {"mean": pytest.approx(0.6), "low": None, "high": None, "studies": 3}


def test_one_study_has_a_mean_and_no_interval():
    found = find(summarise([row("fdg_a", "UNet", 0.5)])["means"], group="All")["dice"]
    assert found == {"mean": 0.5, "low": None, "high": None, "studies": 1}


def test_comparison_is_paired_and_counts_better_equal_and_worse_studies():
    comparison = summarise(ROWS)["comparison"]
    dice = find(comparison, model="UNet", metric="dice")
    assert dice["against"] == BASELINE
    assert dice["difference"] == pytest.approx(0, abs=1e-12)
    assert (dice["studies"], dice["wins"], dice["ties"], dice["losses"]) == (3, 1, 1, 1)
    fpv = find(comparison, model="UNet", metric="fpv_ml")
    assert fpv["difference"] == pytest.approx((-1 + 0 + 1 + 2) / 4)
    assert (fpv["wins"], fpv["ties"], fpv["losses"]) == (1, 1, 2), "less false volume is better"
    assert find(comparison, model="Ensemble", metric="dice")["studies"] == 1


def test_no_scores_and_double_scores_are_refused():
    with pytest.raises(InputError, match="no scores"):
        summarise([])
    with pytest.raises(InputError, match="fdg_a is scored twice for UNet"):
        summarise([row("fdg_a", "UNet", 0.5), row("fdg_a", "UNet", 0.6)])


def test_markdown_shows_every_group_and_model():
    text = summary_markdown(ROWS, summarise(ROWS))
    assert "| All | DynUNet | 4 | 0.700 (" in text
    assert "| UNet | Dice | 3 | +0.000 (" in text
    assert "NaN" not in text
    assert "nan" not in text


def test_files_hold_every_score(tmp_path):
    summary = write_scores(tmp_path, ROWS, problems=[])
    assert json.loads((tmp_path / "summary.json").read_text()) == {**summary, "problems": []}
    with open(tmp_path / "scores.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["case"], line["model"]) for line in lines[:3]] == [
        ("fdg_a", "DynUNet"),
        ("fdg_a", "UNet"),
        ("fdg_a", "Ensemble"),
    ]
    dice = [float(line["dice"] or "nan") for line in lines if line["model"] == "UNet"]
    assert dice == pytest.approx([0.6, 0.7, NAN, 0.8], nan_ok=True)
    assert (tmp_path / "table1.md").read_text().startswith("| Stage | Model | Dice |")
