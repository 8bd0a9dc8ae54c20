"""Reading out folders of masks that have no reference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petct_cascade.scoring import ScoringProblem, _images_of, _item, _masks, _order, _perform, _Task, _write
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import is_newer, read_json


def read_out_folder(
    predictions: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    images: str | os.PathLike | None = None,
    model: str = "Prediction",
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
) -> None:
    """Read out a folder of masks without references: tables per study and lesion, a picture of each study, a report.

    Arguments and errors are those of `score_folder`; `images` is required.
    """
    if predictions is None or images is None:
        raise InputError("masks or images are missing: name their folders with --predictions and --images.")
    files, problems = _masks(Path(predictions))
    items = [_item(case, _images_of(case, Path(images))) for case in files]
    problems += read_out_studies(items, files, output_dir, model, problems=problems, num_workers=num_workers, suv_range=suv_range)
    if problems:
        raise SomeFailedError(f"{len(problems)} masks could not be read out, all others were", sorted(problems, key=_order))


def read_out_studies(
    items: Sequence[Mapping[str, Any]],
    masks: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    model: str,
    uncertainty: str | os.PathLike | None = None,
    problems: Sequence[ScoringProblem] = (),
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
) -> list[ScoringProblem]:
    """Read out and draw masks that have no reference, and write the report of them.

    Writes `readouts.json`, `readouts_studies.csv`, `readouts_lesions.csv`, `pictures/<case>.png`, `problems.json` and `report.html`
    to `output_dir`. What an earlier run has left there of a study is kept when it is newer than mask and images.

    Args:
        items: studies with "case" and "image".
        masks: file of the mask of each case.
        output_dir: where all of this appears.
        model: what made the masks.
        uncertainty: folder of `<case>.nii.gz` maps, whose mean each lesion's read-out then holds.
        problems: what is already known to be wrong with studies; it is written to report and `problems.json`, too.
        num_workers: processes.
        suv_range: SUV shown white and SUV shown black in pictures.

    Returns:
        Why further studies could not be read out.
    """
    output_dir = Path(output_dir)
    table = output_dir / "readouts.json"
    known = read_json(table) if table.is_file() else {}
    tasks, readouts = [], {}
    for item in items:
        case = item["case"]
        picture = output_dir / "pictures" / f"{case}.png"
        map_file = None if uncertainty is None else Path(uncertainty) / f"{case}.nii.gz"
        task = _Task(item, {model: Path(masks[case])}, picture, map_file, tuple(suv_range))
        if _is_current(task, known.get(case), table):
            readouts[case] = known[case]
        else:
            tasks.append(task)
    _, new, found = _perform(tasks, num_workers)
    _write(output_dir, "Lesions found", [], readouts | new, sorted([*problems, *found], key=_order), model)
    return found


def _is_current(task: _Task, known: Mapping[str, Any] | None, table: Path) -> bool:
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
    sources = [*task.predictions.values(), *task.item["image"], task.uncertainty]
    return is_newer(task.picture, [file for file in sources if file is not None]) and is_newer(table, [task.picture])
