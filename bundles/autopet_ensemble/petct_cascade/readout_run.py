"""Reading out folders of masks that have no reference."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from petct_cascade.deidentification import deidentified_items, kind_of_results, words_of
from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.source import DicomSource
from petct_cascade.dicom_output import DicomOutput
from petct_cascade.items import images_in, items_of_cases, masks_in_folder
from petct_cascade.problems import Problem, number_of_studies, raise_if_any
from petct_cascade.provenance import record_of, summary_of
from petct_cascade.report.study_parts import StudyPage
from petct_cascade.results import picture_of, write_results
from petct_cascade.studies import problem_of_name
from petct_cascade.study_results import StudyResults, make_results
from petct_cascade.tasks import ReadoutOptions, Results, StudyTask, before_of, files_of, pet_of, words_if_hidden
from petct_cascade.volumes import without_suffix
from petct_training.errors import InputError
from petct_training.records import Records

# Heading of the report.
TITLE = "Lesions found"


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
        images: folder with `<case>_0001.nii.gz` (PET, SUV) and, if there is one, `<case>_0000.nii.gz` (CT, HU), or a data set in
            the challenge's layout.
        output_dir: where all of this appears.
        model: what made the masks.
        options: how studies are read out and drawn.
        body: that of the patient of the only mask, for SUL.

    Raises:
        InputError: a folder is missing or empty, the output folder holds something else, a body is given for several masks, or
            no mask could be read out.
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
    folder = images_in(Path(images))
    unusable = {case: reason for case in files if (reason := problem_of_name(case))}
    problems += [Problem(case, None, reason, error=True) for case, reason in unusable.items()]
    files = {case: file for case, file in files.items() if case not in unusable}
    items, without_images = items_of_cases(files, folder)
    items = [item | of_patient for item in items]
    files = {item["case"]: files[item["case"]] for item in items}
    problems += without_images
    hidden = options is not None and options.deidentified
    if hidden:
        words = words_of((("mask", file) for file in files.values()), [problem.case for problem in problems])
        problems = [words.problem(problem, "unnamed") for problem in problems]
        named = deidentified_items(items, files)
        files = {new["case"]: files[item["case"]] for item, new in zip(items, named, strict=True)}
        items = named
    records = Records(Path(output_dir), kind_of_results("read-outs", hidden), identifying=not hidden)
    tasks, kept = readout_tasks(items, files, records.folder, model, options), StudyResults(records)
    with summary_of(records):
        problems += read_out_studies(tasks, kept, model, options, problems)
        kept.keep_only(files)
    failed = {problem.case for problem in problems}
    done = {task.item["case"] for task in tasks} - failed
    raise_if_any(problems, f"{number_of_studies(len(failed))} could not be read out", bool(done))


def read_out_studies(
    tasks: Sequence[StudyTask],
    kept: StudyResults,
    model: str,
    options: ReadoutOptions | None = None,
    problems: Sequence[Problem] = (),
    others: Iterable[str] = (),
) -> list[Problem]:
    """Read out and draw masks that have no reference, and write the report of them.

    Writes `readouts.json`, `readouts_studies.csv`, `readouts_lesions.csv`, `problems.json` and `report.html` to the output folder;
    and of each study what `petct_cascade.study_results.StudyResults.plan` names, unless it is there, made from the same content.

    Args:
        tasks: of the studies, see `readout_tasks`.
        kept: the results of studies in the output folder.
        model: what made the masks.
        options: how studies are read out and drawn.
        problems: what is already known to be wrong with studies; it is written to report and `problems.json`, too.
        others: cases of earlier runs whose read-outs stay in the tables as they are.

    Returns:
        Why further studies could not be read out.
    """
    options = options or ReadoutOptions()
    results = make_results(tasks, kept, options.num_workers)
    tell_warnings(results, [task.item for task in tasks], options)
    errors = [problem for problem in results.problems if problem.error]
    for case in others:
        if kept.is_intact(case):
            results.add(kept.read(case))
    files = {task.item["case"]: files_of(task) for task in tasks}
    readouts = dict(sorted(results.readouts.items()))
    origins = {case: record_of(kept.records, case, files.get(case, {})) for case in readouts}
    found = Results([], readouts, [*problems, *errors])
    write_results(kept.records.folder, TITLE, found, model, origins, options.single_file)
    return errors


def tell_warnings(results: Results, items: Iterable[Mapping[str, Any]], options: ReadoutOptions) -> None:
    """Take what must not be said out of the problems of studies, and print those that are no errors."""
    if (words := words_if_hidden(items, options)) is not None:
        results.problems = [words.problem(problem) for problem in results.problems]
    for problem in results.problems:
        if not problem.error:
            print(f"warning: {problem}", flush=True)


def readout_tasks(
    items: Iterable[Mapping[str, Any]], masks: Mapping[str, Path], output_dir: Path, model: str, options: ReadoutOptions | None
) -> list[StudyTask]:
    """Return the tasks of reading out and drawing masks that have no reference.

    Args:
        items: studies with "case" and "image".
        masks: file of the mask of each case.
        output_dir: where the results appear.
        model: what made the masks.
        options: how studies are read out and drawn.
    """
    return [_task_of(item, masks[item["case"]], output_dir, model, options or ReadoutOptions()) for item in items]


def has_dicom_output(item: Mapping[str, Any], options: ReadoutOptions | None) -> bool:
    """Return whether a study gets DICOM objects: its PET is in DICOM, and they are wanted."""
    return (options or ReadoutOptions()).dicom_output and isinstance(pet_of(item), DicomSource)


def _task_of(item: Mapping[str, Any], mask: Path, output_dir: Path, model: str, options: ReadoutOptions) -> StudyTask:
    """Return the task of reading out and drawing one mask."""
    case = item["case"]
    # A mask keeps its name where the study is called otherwise, to hide who it is.
    uncertainty = (
        None if options.uncertainty_dir is None else Path(options.uncertainty_dir) / f"{without_suffix(mask.name)}.nii.gz"
    )
    before = before_of(item, output_dir)
    in_dicom = has_dicom_output(item, options)
    dicom = DicomOutput(pet_of(item), output_dir, options.dicom_segments, before is not None) if in_dicom else None
    page = None if options.single_file else StudyPage(output_dir, TITLE, viewer=options.viewer)
    picture = picture_of(output_dir, case)
    return StudyTask(item, {model: mask}, model, picture, uncertainty, tuple(options.suv_range), dicom, page, before)
