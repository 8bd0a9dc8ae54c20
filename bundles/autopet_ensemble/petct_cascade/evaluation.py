"""What inference and evaluation of the ensemble take, run and score."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.engines import Evaluator

from petct_cascade.inference import _run
from petct_cascade.scoring import score_studies
from petct_cascade.volumes import without_suffix
from petct_training.errors import InputError
from petct_training.files import make_folder


def evaluate(
    evaluator: Evaluator,
    items: Sequence[Mapping[str, Any]],
    masks: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
    uncertainty_dir: str | os.PathLike | None = None,
    seed: int = 0,
    strict: bool = False,
) -> None:
    """Write every model's masks in one pass, and score them on the original grid: Table 1, scores, read-outs, pictures, report.

    Args:
        evaluator: the evaluator whose post-processing writes the masks of all models.
        items: the studies, with "label".
        masks: per model the folder of its masks; the last model is the one that is read out and drawn.
        output_dir, num_workers, suv_range, seed: see `petct_cascade.scoring.score_studies`, which names the files too.
        uncertainty_dir: folder to which the post-processing writes maps of the members' disagreement; None if it does not.
        strict: whether the first study that fails ends the run.

    Raises:
        SystemExit: after all others are scored, with exit code 3 and a sentence for each study that could not be.
    """
    if not items:
        raise InputError("the data set has no validation studies: prepare it with more patients")
    make_folder(output_dir)
    folders = [*masks.values(), *([] if uncertainty_dir is None else [uncertainty_dir])]
    _remove_others(folders, {item["case"] for item in items})
    failed = {problem.case for problem in _run(evaluator, strict)}
    # An earlier run's mask is not this one's.
    _remove_others(folders, {item["case"] for item in items} - failed)
    score_studies(items, masks, output_dir, uncertainty=uncertainty_dir, num_workers=num_workers, suv_range=suv_range, seed=seed)


def _remove_others(folders: Iterable[str | os.PathLike], cases: set[str]) -> None:
    """Take away the masks that an earlier evaluation, of other studies, has left."""
    for folder in folders:
        for file in Path(folder).glob("*.nii.gz"):
            if without_suffix(file.name) not in cases:
                file.unlink()
