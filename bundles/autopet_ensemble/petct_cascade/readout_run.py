"""Reading out folders of masks that have no reference."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from petct_cascade.deidentification import deidentified_items, kind_of_results, words_of
from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.source import DicomSource
from petct_cascade.dicom_output import DicomOutput
from petct_cascade.items import item_of_case, masks_in_folder
from petct_cascade.problems import Problem
from petct_cascade.provenance import DICOM, PAGE, READOUTS, WITH_VIEWER, WITHOUT_VIEWER, Summary, record_of, summary_of
from petct_cascade.readouts import VERSION
from petct_cascade.report.study_parts import StudyPage, origin_of_study
from petct_cascade.results import in_order, picture_of, write_results
from petct_cascade.tasks import (
    ReadoutOptions,
    Results,
    StudyTask,
    before_of,
    do_studies,
    files_of,
    pet_of,
    words_if_hidden,
)
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import read_json
from petct_training.records import Records


def read_out_folder(
    predictions: str | os.PathLike | None,
    images: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    model: str = "Prediction",
    options: ReadoutOptions | None = None,
    body: Body | None = None,
) -> None:
    """Read out a folder of masks without references: tables per study and lesion, a picture of each study, a report.

    Args:
        predictions: folder with one binary mask a study, `<case>.nii.gz` or `<case>.nii`, on the grid of its PET.
        images: folder with `<case>_0001.nii.gz` (PET, SUV) and, if there is one, `<case>_0000.nii.gz` (CT, HU).
        output_dir: where all of this appears.
        model: what made the masks.
        options: how studies are read out and drawn.
        body: that of the patient of the only mask, for SUL.

    Raises:
        InputError: a folder is missing or empty, the output folder holds something else, or a body is given for several masks.
        SomeFailedError: after all other masks were read out, some could not be.
    """
    if predictions is None or images is None:
        raise InputError("masks or images are missing: name their folders with --predictions and --images.")
    files, problems = masks_in_folder(Path(predictions))
    if body is not None and len(files) > 1:
        raise InputError(
            f"{predictions} holds {len(files)} masks, and weight, height and sex are those of one patient: give one mask"
        )
    of_patient = {} if body is None else {"body": asdict(body)}
    items = [item_of_case(case, Path(images)) | of_patient for case in files]
    hidden = options is not None and options.deidentified
    if hidden:
        problems = [words_of(("mask", file) for file in files.values()).problem(problem, "unnamed") for problem in problems]
        named = deidentified_items(items, files)
        files = {new["case"]: files[item["case"]] for item, new in zip(items, named, strict=True)}
        items = named
    records = Records(Path(output_dir), kind_of_results("read-outs", hidden), identifying=not hidden)
    with summary_of(records, files) as summary:
        problems += read_out_studies(items, files, summary, model, options, problems)
    if problems:
        raise SomeFailedError(f"{len(problems)} masks could not be read out, all others were", in_order(problems))


def read_out_studies(
    items: Sequence[Mapping[str, Any]],
    masks: Mapping[str, str | os.PathLike],
    summary: Summary,
    model: str,
    options: ReadoutOptions | None = None,
    problems: Sequence[Problem] = (),
    others: Iterable[str] = (),
) -> list[Problem]:
    """Read out and draw masks that have no reference, and write the report of them.

    Writes `readouts.json`, `readouts_studies.csv`, `readouts_lesions.csv`, `pictures/<case>.png`, `problems.json` and `report.html`
    to the output folder; and, of studies whose PET is in DICOM, `dicom/<case>/segmentation.dcm` and `dicom/<case>/report.dcm`.
    What an earlier run has left there of a study is kept when it was made from the same content.

    Args:
        items: studies with "case" and "image".
        masks: file of the mask of each case.
        summary: of the output folder.
        model: what made the masks.
        options: how studies are read out and drawn.
        problems: what is already known to be wrong with studies; it is written to report and `problems.json`, too.
        others: cases of earlier runs whose read-outs stay in the tables as they are.

    Returns:
        Why further studies could not be read out.
    """
    options, folder = options or ReadoutOptions(), summary.folder
    table = folder / READOUTS
    earlier = read_json(table) if table.is_file() else {}
    tasks = [_task_of(item, Path(masks[item["case"]]), folder, model, options) for item in items]
    files = {task.item["case"]: files_of(task) for task in tasks}
    made_from = {task.item["case"]: _made_from(task, summary) for task in tasks}
    kept = {case for case, content in made_from.items() if summary.has_readouts(case, content)}
    kept |= {case for case in others if summary.has_readouts(case)}
    todo = [task for task in tasks if task.item["case"] not in kept]
    results = do_studies([_with_origin(task, summary.records) for task in todo], options.num_workers)
    if (words := words_if_hidden(items, options)) is not None:
        results.problems = [words.problem(problem) for problem in results.problems]
    for problem in results.problems:
        if not problem.error:
            print(f"warning: {problem}", flush=True)
    errors = [problem for problem in results.problems if problem.error]
    for case in kept:
        summary.keep(case)
    summary.made_from.update({case: made_from[case] for case in results.readouts})
    readouts = dict(sorted(({case: earlier[case] for case in kept} | results.readouts).items()))
    origins = {case: record_of(summary.records, case, files.get(case, {})) for case in readouts}
    found = Results([], readouts, [*problems, *errors])
    write_results(folder, "Lesions found", found, model, origins, options.single_file)
    return errors


def has_dicom_output(item: Mapping[str, Any], options: ReadoutOptions | None) -> bool:
    """Return whether a study gets DICOM objects: its PET is in DICOM, and they are wanted."""
    return (options or ReadoutOptions()).dicom_output and isinstance(pet_of(item), DicomSource)


def _made_from(task: StudyTask, summary: Summary) -> dict[str, Any]:
    options = {"version": VERSION, "suv_range": list(task.suv_range), "body": task.item.get("body")}
    if task.dicom is not None:
        options[DICOM] = task.dicom.segments
    if task.page is not None:
        options[PAGE] = WITH_VIEWER if task.page.viewer else WITHOUT_VIEWER
    return summary.describe(files_of(task), options)


def _task_of(item: Mapping[str, Any], mask: Path, output_dir: Path, model: str, options: ReadoutOptions) -> StudyTask:
    """Return the task of reading out and drawing one mask."""
    case = item["case"]
    uncertainty = None if options.uncertainty_dir is None else Path(options.uncertainty_dir) / f"{case}.nii.gz"
    before = before_of(item, output_dir)
    in_dicom = has_dicom_output(item, options)
    dicom = DicomOutput(pet_of(item), output_dir, options.dicom_segments, before is not None) if in_dicom else None
    page = None if options.single_file else StudyPage(output_dir, "Lesions found", viewer=options.viewer)
    picture = picture_of(output_dir, case)
    return StudyTask(item, {model: mask}, model, picture, uncertainty, tuple(options.suv_range), dicom, page, before)


def _with_origin(task: StudyTask, records: Records) -> StudyTask:
    """Return a task whose page says what the study's mask was made from."""
    if task.page is None:
        return task
    record = record_of(records, task.item["case"], files_of(task))
    return replace(task, page=replace(task.page, origin=origin_of_study(record)))
