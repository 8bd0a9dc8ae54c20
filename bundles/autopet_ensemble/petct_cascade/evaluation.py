"""Evaluating the ensemble: the masks of every model in one pass, and their scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.engines import Evaluator

from petct_cascade.running import run_each_study
from petct_cascade.scoring import score_studies
from petct_cascade.stream import Reading
from petct_cascade.studies import problem_of_name
from petct_cascade.tasks import ReadoutOptions
from petct_training.errors import InputError
from petct_training.files import make_folder
from petct_training.masks import Masks
from petct_training.records import Records


def evaluate(
    evaluator: Evaluator,
    items: Sequence[Mapping[str, Any]],
    masks: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    options: ReadoutOptions | None = None,
    seed: int = 0,
    strict: bool = False,
) -> None:
    """Write every model's masks in one pass, and score them on the original grid: Table 1, scores, read-outs, pictures, report.

    Args:
        evaluator: the evaluator whose post-processing writes the masks of all models, and maps to the options' folder, if any.
        items: the studies, with "label".
        masks: per model the folder of its masks; the last model is the one that is read out and drawn.
        output_dir: where scores and report appear; see `petct_cascade.scoring.score_studies`, which names the files.
        options: how studies are read out and drawn.
        seed: of the bootstrap.
        strict: whether the first study that fails ends the run.

    Raises:
        InputError: there are no studies, the folder cannot be written or holds something else, or, if `strict`, a study fails.
        SomeFailedError: after all others are scored, with a sentence for each study that could not be.
    """
    if not items:
        raise InputError("the data set has no validation studies: prepare it with more patients")
    make_folder(output_dir)
    options = options or ReadoutOptions()
    folders = [folder for folder in (*masks.values(), options.uncertainty_dir) if folder is not None]
    made = Masks(Records(Path(output_dir), "evaluation"), folders)
    made.records.check_kind()
    # What has no name for a file fails when it is loaded.
    plans = {item["case"]: made.plan(item) for item in items if problem_of_name(item["case"]) is None}
    # Of other cases, an earlier evaluation may have left masks.
    made.keep_only(plans)

    def begin(reading: Reading) -> None:
        made.records.begin(plans[reading.case])

    run = run_each_study(evaluator, strict, begin=begin, finished=lambda case: made.records.finish(plans[case]))
    failed = {problem.case for problem in run}
    made.keep_only(set(plans) - failed)
    score_studies(items, masks, output_dir, options, seed=seed, kind="evaluation")
