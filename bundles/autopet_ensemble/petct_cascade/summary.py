"""Means, confidence intervals and paired comparisons over the scores of many studies, and the paper's Table 1."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from petct_cascade.metrics import COUNT_NAMES, METRIC_NAMES
from petct_cascade.readouts import csv_table
from petct_training.errors import InputError
from petct_training.files import write_json, write_text

# Stage of each model, in the order of the paper's Table 1; the ensemble, for which the paper has no figure, comes last.
STAGES = {"DynUNet": "1", "SegResNet": "2", "SwinUNETR": "2", "UNet": "2", "Ensemble": "2"}

BASELINE = "DynUNet"

# Heading, decimals, and whether a larger value is better.
METRICS = {
    "dice": ("Dice", 3, True),
    "fpv_ml": ("FPV (ml)", 2, False),
    "fnv_ml": ("FNV (ml)", 2, False),
    "sensitivity": ("Lesion sensitivity", 3, True),
    "precision": ("Lesion precision", 3, True),
    "f1": ("Lesion F1", 3, True),
}

COMPARED = ("dice", "fpv_ml", "fnv_ml")

# What `write_scores` writes.
SCORE_FILES = ("scores.csv", "summary.json", "summary.md", "table1.md")

SCORE_COLUMNS = ("case", "patient", "tracer", "centre", "model", *METRIC_NAMES, *COUNT_NAMES)

Row = Mapping[str, Any]


def table1(rows: Sequence[Row]) -> str:
    """Return the paper's Table 1 as Markdown: Dice x 100 of each model, the mean over the studies whose Dice exists.

    Args:
        rows: one per study and model, with "model" and "dice" (NaN for a study without reference lesions).

    Returns:
        `| Stage | Model | Dice |` in the order of `STAGES`; then models that the paper does not have, without a stage.
    """
    return markdown_table(table1_lines(rows))


def table1_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells of the lines of `table1`, the heading first."""
    lines = [["Stage", "Model", "Dice"]]
    for model in models_in_order(rows):
        mean = _nanmean([float(row["dice"]) for row in rows if row["model"] == model])
        lines.append([STAGES.get(model, "–"), model, number_to_text(100 * mean, 2)])
    return lines


def summarise(rows: Sequence[Row], num_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Average scores as the challenge does, with confidence intervals, and compare each model with stage 1 study by study.

    A mean leaves out the studies in which the metric does not exist (NaN). Groups are all studies, each tracer, and each tracer
    x centre where the data name the centre: the challenge averages within tracer x centre.

    A 95 % confidence interval is that of `mean_and_interval`: it draws patients, since studies of one patient resemble each other.
    A study whose patient is not known counts as a patient of its own.

    Args:
        rows: one per study and model: "case", "model", the metrics of `petct_cascade.metrics.case_metrics`, and, where known,
            "patient", "tracer" and "centre".
        num_resamples: number of bootstrap samples.
        seed: of the bootstrap samples.

    Returns:
        "means": one entry per group and model: "group", "model", "studies", and per metric {"mean", "low", "high", "studies"}.
        "comparison": one entry per model other than `BASELINE` and metric, over the studies that both have: "model",
            "against", "metric", "studies", "difference" (mean of model minus baseline), "low", "high", and the number of
            studies in which the model is better ("wins"), equal ("ties") or worse ("losses").
        "num_resamples", "seed".
        Figures that do not exist are None.

    Raises:
        InputError: there are no rows, or a study is scored twice for one model.
    """
    if not rows:
        raise InputError("there are no scores to summarise: score at least one study.")
    _refuse_repeated(rows)
    means = [
        _mean_scores(group, model, [row for row in members if row["model"] == model], num_resamples, seed)
        for group, members in _rows_by_group(rows).items()
        for model in models_in_order(members)
    ]
    others = [model for model in models_in_order(rows) if model != BASELINE]
    comparison = [_compare_with_baseline(rows, model, metric, num_resamples, seed) for model in others for metric in COMPARED]
    comparison = [entry for entry in comparison if entry["studies"]]
    return {"means": means, "comparison": comparison, "num_resamples": num_resamples, "seed": seed}


def summary_tables(summary: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return a summary as tables of text: heading -> rows of cells, the first row being the columns' names."""
    interval = "mean (95 % confidence interval)"
    tables = {}
    lines = [["Group", "Model", "Studies", *(heading for heading, _, _ in METRICS.values())]]
    for entry in summary["means"]:
        cells = [_text_with_interval(entry[metric], "mean", decimals) for metric, (_, decimals, _) in METRICS.items()]
        lines.append([entry["group"], entry["model"], str(entry["studies"]), *cells])
    tables[f"Scores: {interval}"] = lines
    if summary["comparison"]:
        lines = [["Model", "Metric", "Studies", "Difference", "Better", "Equal", "Worse"]]
        for entry in summary["comparison"]:
            heading, decimals, _ = METRICS[entry["metric"]]
            difference = _text_with_interval(entry, "difference", decimals, sign=True)
            counts = [str(entry[name]) for name in ("wins", "ties", "losses")]
            lines.append([entry["model"], heading, str(entry["studies"]), difference, *counts])
        tables[f"Difference from stage 1 ({BASELINE}) in the same studies: {interval}"] = lines
    return tables


def summary_notes(summary: Mapping[str, Any]) -> str:
    """Return what the figures of a summary mean, and how its confidence intervals were made, in sentences."""
    return (
        "Dice, false-positive volume (FPV) and false-negative volume (FNV) as the autoPET III challenge defines them, on the "
        "original grid. A lesion is an 18-connected component. A reference lesion is found when the prediction overlaps any of its "
        "voxels; a predicted lesion is false when it touches no voxel of the reference. Studies without reference lesions count "
        "for FPV and lesion precision only. Confidence intervals: bootstrap over patients, "
        f"{summary['num_resamples']} samples, seed {summary['seed']}, percentiles 2.5 to 97.5."
    )


def summary_markdown(rows: Sequence[Row], summary: Mapping[str, Any]) -> str:
    """Return Table 1 and a summary as Markdown."""
    parts = ["# Scores", "## Table 1: Dice x 100", table1(rows)]
    for heading, lines in summary_tables(summary).items():
        parts += [f"## {heading}", markdown_table(lines)]
    parts.append(summary_notes(summary))
    return "\n\n".join(parts) + "\n"


def write_scores(
    folder: str | os.PathLike, rows: Sequence[Row], num_resamples: int = 2000, seed: int = 0, **more: Any
) -> dict[str, Any]:
    """Write `scores.csv` (a row per study and model), `summary.json`, `summary.md` and `table1.md` to a folder.

    Args:
        folder: where the files appear.
        rows, num_resamples, seed: see `summarise`.
        more: further entries of `summary.json`.

    Returns:
        The summary.
    """
    folder = Path(folder)
    summary = summarise(rows, num_resamples, seed)
    order = {model: position for position, model in enumerate(models_in_order(rows))}
    ordered = sorted(rows, key=lambda row: (str(row["case"]), order[row["model"]]))
    columns = [name for name in SCORE_COLUMNS if any(row.get(name) not in (None, "") for row in rows)]
    write_text(folder / "scores.csv", csv_table([{name: row.get(name) for name in columns} for row in ordered], columns))
    write_json(folder / "summary.json", {**summary, **more})
    write_text(folder / "summary.md", summary_markdown(rows, summary))
    write_text(folder / "table1.md", table1(rows) + "\n")
    return summary


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table; the first row is the heading."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    escaped.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def _refuse_repeated(rows: Sequence[Row]) -> None:
    """Refuse rows of which two are of one study and one model."""
    seen = set()
    for row in rows:
        key = (row["model"], row["case"])
        if key in seen:
            raise InputError(f"{row['case']} is scored twice for {row['model']}: give one row per study and model.")
        seen.add(key)


def _mean_scores(group: str, model: str, rows: Sequence[Row], num_resamples: int, seed: int) -> dict[str, Any]:
    """Return the means of all metrics over the rows of one model in one group."""
    entry: dict[str, Any] = {"group": group, "model": model, "studies": len(rows)}
    for metric in METRICS:
        existing = [row for row in rows if not _is_missing(row, metric)]
        values = np.array([float(row[metric]) for row in existing])
        entry[metric] = mean_and_interval(values, [patient_of(row) for row in existing], num_resamples, seed)
    return entry


def models_in_order(rows: Sequence[Row]) -> list[str]:
    """Return the models that occur in rows: the paper's in its order, then others by name."""
    found = {str(row["model"]) for row in rows}
    return [model for model in STAGES if model in found] + sorted(found - STAGES.keys())


def _rows_by_group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of all studies, of each tracer, and of each tracer x centre."""
    groups = {"All": list(rows)}
    for row in rows:
        if tracer := row.get("tracer"):
            groups.setdefault(str(tracer).upper(), []).append(row)
    for row in rows:
        if (tracer := row.get("tracer")) and (centre := row.get("centre")):
            groups.setdefault(f"{str(tracer).upper()}, {centre}", []).append(row)
    return dict(sorted(groups.items(), key=lambda item: (item[0] != "All", item[0].count(","), item[0])))


def patient_of(row: Row) -> str:
    """Return the patient of a row; a study whose patient is not known is one of its own."""
    return str(row.get("patient") or row["case"])


def _is_missing(row: Row, metric: str) -> bool:
    """Return whether a metric does not exist in a row."""
    return row.get(metric) is None or math.isnan(float(row[metric]))


def _nanmean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN when there are none."""
    existing = [value for value in values if not math.isnan(value)]
    return sum(existing) / len(existing) if existing else math.nan


def mean_and_interval(values: np.ndarray, patients: Sequence[str], num_resamples: int, seed: int) -> dict[str, Any]:
    """Return the mean of the values of n studies, and its 95 % confidence interval.

    The interval holds the 2.5 to 97.5 percentiles of the means of samples of the patients, drawn with replacement, each with all
    studies (percentile bootstrap of clusters; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
    With fewer than two patients there is none.

    Args:
        values: (n,).
        patients: whose study each value is of.
        num_resamples: number of bootstrap samples.
        seed: of the bootstrap samples.
    """
    result: dict[str, Any] = {"mean": None, "low": None, "high": None, "studies": len(values)}
    if len(values):
        result["mean"] = float(values.mean())
    _, patient = np.unique(np.array(patients, str), return_inverse=True)
    sums, counts = np.bincount(patient, values), np.bincount(patient)
    # Which patients a sample holds does not hang on what they are called: results without names have the same interval.
    order = np.lexsort((sums, counts))
    sums, counts = sums[order], counts[order]
    if len(counts) > 1:
        picked = np.random.default_rng(seed).integers(len(counts), size=(num_resamples, len(counts)))
        low, high = np.percentile(sums[picked].sum(axis=1) / counts[picked].sum(axis=1), (2.5, 97.5))
        result |= {"low": float(low), "high": float(high)}
    return result


def _compare_with_baseline(rows: Sequence[Row], model: str, metric: str, num_resamples: int, seed: int) -> dict[str, Any]:
    """Compare a model with the baseline in the studies in which both have the metric."""
    pairs: dict[str, dict[str, float]] = {}
    patients: dict[str, str] = {}
    for row in rows:
        if row["model"] in (model, BASELINE) and not _is_missing(row, metric):
            pairs.setdefault(row["case"], {})[row["model"]] = float(row[metric])
            patients[row["case"]] = patient_of(row)
    paired = {case: pair[model] - pair[BASELINE] for case, pair in pairs.items() if len(pair) == 2}
    differences = np.array(list(paired.values()))
    interval = mean_and_interval(differences, [patients[case] for case in paired], num_resamples, seed)
    better = differences if METRICS[metric][2] else -differences
    return {
        "model": model,
        "against": BASELINE,
        "metric": metric,
        "studies": len(differences),
        "difference": interval["mean"],
        "low": interval["low"],
        "high": interval["high"],
        "wins": int((better > 0).sum()),
        "ties": int((better == 0).sum()),
        "losses": int((better < 0).sum()),
    }


def number_to_text(value: float | None, decimals: int, sign: bool = False) -> str:
    """Return a number as text; a dash when it does not exist."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{decimals}f}"


def _text_with_interval(entry: Mapping[str, Any], name: str, decimals: int, sign: bool = False) -> str:
    """Return `mean (low to high)` as text."""
    text = number_to_text(entry[name], decimals, sign)
    if entry["low"] is not None:
        text += f" ({number_to_text(entry['low'], decimals, sign)} to {number_to_text(entry['high'], decimals, sign)})"
    return text
