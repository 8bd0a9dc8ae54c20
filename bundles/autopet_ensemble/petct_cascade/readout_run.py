"""Reading out folders of masks that have no reference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petct_cascade.items import item_of_case, masks_in_folder
from petct_cascade.problems import Problem
from petct_cascade.provenance import summary_of
from petct_cascade.results import in_order, picture_of, write_results
from petct_cascade.tasks import ReadoutOptions, Results, StudyTask, do_studies
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import is_newer, read_json


def read_out_folder(
    predictions: str | os.PathLike | None,
    images: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    model: str = "Prediction",
    options: ReadoutOptions | None = None,
) -> None:
    """Read out a folder of masks without references: tables per study and lesion, a picture of each study, a report.

    Args:
        predictions: folder with one binary mask a study, `<case>.nii.gz` or `<case>.nii`, on the grid of its PET.
        images: folder with `<case>_0001.nii.gz` (PET, SUV) and, if there is one, `<case>_0000.nii.gz` (CT, HU).
        output_dir: where all of this appears.
        model: what made the masks.
        options: how studies are read out and drawn.

    Raises:
        InputError: a folder is missing or empty, or the output folder holds something else.
        SomeFailedError: after all other masks were read out, some could not be.
    """
    if predictions is None or images is None:
        raise InputError("masks or images are missing: name their folders with --predictions and --images.")
    files, problems = masks_in_folder(Path(predictions))
    items = [item_of_case(case, Path(images)) for case in files]
    with summary_of(output_dir, "read-outs", files):
        problems += read_out_studies(items, files, output_dir, model, options, problems)
    if problems:
        raise SomeFailedError(f"{len(problems)} masks could not be read out, all others were", in_order(problems))


def read_out_studies(
    items: Sequence[Mapping[str, Any]],
    masks: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    model: str,
    options: ReadoutOptions | None = None,
    problems: Sequence[Problem] = (),
) -> list[Problem]:
    """Read out and draw masks that have no reference, and write the report of them.

    Writes `readouts.json`, `readouts_studies.csv`, `readouts_lesions.csv`, `pictures/<case>.png`, `problems.json` and `report.html`
    to `output_dir`. What an earlier run has left there of a study is kept when it is newer than mask and images.

    Args:
        items: studies with "case" and "image".
        masks: file of the mask of each case.
        output_dir: where all of this appears.
        model: what made the masks.
        options: how studies are read out and drawn.
        problems: what is already known to be wrong with studies; it is written to report and `problems.json`, too.

    Returns:
        Why further studies could not be read out.
    """
    options, output_dir = options or ReadoutOptions(), Path(output_dir)
    table = output_dir / "readouts.json"
    earlier = read_json(table) if table.is_file() else {}
    tasks = [_task_of(item, Path(masks[item["case"]]), output_dir, model, options) for item in items]
    kept = {task.item["case"] for task in tasks if _has_readouts(task, earlier.get(task.item["case"]), table)}
    results = do_studies([task for task in tasks if task.item["case"] not in kept], options.num_workers)
    readouts = {case: earlier[case] for case in earlier if case in kept} | results.readouts
    write_results(output_dir, "Lesions found", Results([], readouts, [*problems, *results.problems]), model)
    return results.problems


def _task_of(item: Mapping[str, Any], mask: Path, output_dir: Path, model: str, options: ReadoutOptions) -> StudyTask:
    """Return the task of reading out and drawing one mask."""
    case = item["case"]
    uncertainty = None if options.uncertainty_dir is None else Path(options.uncertainty_dir) / f"{case}.nii.gz"
    return StudyTask(item, {model: mask}, model, picture_of(output_dir, case), uncertainty, tuple(options.suv_range))


def _has_readouts(task: StudyTask, known: Mapping[str, Any] | None, table: Path) -> bool:
    """Whether picture and read-outs of an earlier run are those that a task would make.

    Args:
        task: reads out and draws one mask.
        known: the study's read-outs in the table, None if there are none.
        table: file of read-outs; it is written after the pictures, unless the run that drew them was ended before.
    """
    if known is None or known.get("suv_range") != list(task.suv_range) or not task.item.get("image"):
        return False
    if any(("uncertainty_mean" in lesion) != (task.uncertainty is not None) for lesion in known["lesions"]):
        return False
    sources = [file for file in (*task.predictions.values(), *task.item["image"], task.uncertainty) if file is not None]
    return task.picture is not None and is_newer(task.picture, sources) and is_newer(table, [task.picture])
