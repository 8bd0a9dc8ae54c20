"""Score and read out folders of masks, ours or another tool's, without any network."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from petct_cascade.judging import judge_volumes
from petct_cascade.metrics import case_metrics
from petct_cascade.pictures import PictureOptions, overlay_picture
from petct_cascade.readouts import study_readouts, write_readouts
from petct_cascade.report import write_report
from petct_cascade.studies import CHANNELS, TRACERS, identity, is_inside, problem_of_name
from petct_cascade.summary import table1, write_scores
from petct_cascade.volumes import SUFFIXES, Volume, check_grid, read_mask, read_volume, without_suffix
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import read_json, write_json


@dataclass(frozen=True)
class ScoringProblem:
    """Why a mask was not scored, or a study not read out."""

    case: str
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case}: {self.reason}" + (f" ({self.file})" if self.file else "")


@dataclass(frozen=True)
class _Task:
    """One study: its item, the predicted mask of each model, the one that is read out last, and what to write."""

    item: Mapping[str, Any]
    predictions: Mapping[str, Path]
    picture: Path | None
    uncertainty: Path | None
    suv_range: Sequence[float]


@dataclass
class _Result:
    """What one study gave."""

    case: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    readouts: dict[str, Any] | None = None
    problems: list[ScoringProblem] = field(default_factory=list)


def score_folder(
    predictions: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    references: str | os.PathLike | None = None,
    dataset_dir: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    model: str = "Prediction",
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
    seed: int = 0,
    allow_outside: bool = False,
) -> None:
    """Score a folder of masks against references; what `score_studies` does for a list of studies.

    Masks are paired by name: `<case>.nii.gz` or `<case>.nii` on both sides. The references are `references`, else the original
    labels of the validation studies of `dataset_dir`.

    Args:
        predictions: folder with one binary mask per study, on the grid of the reference.
        output_dir: where scores and report appear.
        references: folder of reference masks, or a data set in the challenge's layout (its labelsTr and imagesTr are used).
        dataset_dir: prepared data set, with `datalist.json`.
        images: folder with `<case>_0001.nii.gz` (PET, SUV) and, if there is one, `<case>_0000.nii.gz` (CT, HU), for read-outs
            and pictures.
        model: what the masks are called in the tables.
        num_workers: processes.
        suv_range: SUV shown white and SUV shown black in pictures.
        seed: of the bootstrap.
        allow_outside: see `validation_items`.

    Raises:
        InputError: a folder is missing or empty.
        SomeFailedError: after all other masks were scored, some masks could not be scored.
    """
    if predictions is None:
        raise InputError("no masks are given: name their folder with --predictions.")
    if references is not None:
        items = _items_of_folder(Path(references), None if images is None else Path(images))
    elif dataset_dir is not None:
        items = validation_items(dataset_dir, allow_outside=allow_outside)
    else:
        raise InputError("no references are given: name a folder with --references, or a prepared data set with --dataset_dir.")
    score_studies(items, {model: predictions}, output_dir, num_workers=num_workers, suv_range=suv_range, seed=seed)


def score_studies(
    items: Sequence[Mapping[str, Any]],
    predictions: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    primary: str | None = None,
    uncertainty: str | os.PathLike | None = None,
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Score the masks of one or more models, read out the primary model's, draw each study, and write the report.

    Writes to `output_dir`: with labels `scores.csv`, `summary.json`, `summary.md`, `table1.md`; with images `readouts.json`,
    `readouts_studies.csv`, `readouts_lesions.csv` and `pictures/<case>.png`; `problems.json`; and `report.html`.

    Args:
        items: studies as in inference: "case"; and, where there are such, "image" ([CT file, PET file], or one 4-D file with
            these channels), "label" (file), "patient", "tracer", "centre".
        predictions: per model the folder of its masks, `<case>.nii.gz` or `<case>.nii`, on the grid of label and PET.
        output_dir: where all of this appears.
        primary: the model that is read out and drawn; the last of `predictions` by default.
        uncertainty: folder of `<case>.nii.gz` or `<case>.nii` maps, whose mean each lesion's read-out then holds.
        num_workers: processes.
        suv_range: SUV shown white and SUV shown black in pictures.
        seed: of the bootstrap.

    Returns:
        The rows of `scores.csv`.

    Raises:
        InputError: a folder is missing or empty.
        SomeFailedError: after everything else was scored and written, some masks are missing, have no study, lie on another grid,
            are not binary or cannot be read: each is named with its reason.
    """
    output_dir = Path(output_dir)
    primary = primary or list(predictions)[-1]
    if primary not in predictions:
        raise InputError(f"the model {primary} has no masks: choose from {', '.join(predictions)}.")
    if not items:
        raise InputError("there are no studies to score: check the folder or data list of references.")
    problems: list[ScoringProblem] = []
    masks = {}
    for model, folder in predictions.items():
        masks[model], found = _masks(Path(folder))
        problems += found
    maps = {} if uncertainty is None else _masks(Path(uncertainty))[0]
    with_images = any(item.get("image") for item in items)
    cases = {item["case"] for item in items}
    tasks = []
    for item in items:
        case = item["case"]
        if reason := problem_of_name(case):
            problems.append(ScoringProblem(case, "", reason))
            continue
        files = {model: files[case] for model, files in masks.items() if case in files}
        absent = [model for model in masks if model not in files and not any(p.case == case for p in problems)]
        problems += [ScoringProblem(case, "", f"there is no mask of {model}") for model in absent]
        picture = output_dir / "pictures" / f"{case}.png" if primary in files and with_images else None
        if files:
            primary_last = dict(sorted(files.items(), key=lambda entry: entry[0] == primary))
            tasks.append(_Task(item, primary_last, picture, maps.get(case), tuple(suv_range)))
    for model, files in masks.items():
        named = {problem.case for problem in problems}
        extra = [case for case in files if case not in cases and case not in named]
        problems += [ScoringProblem(case, str(files[case]), f"there is no study for this mask of {model}") for case in extra]

    rows, readouts, found = _perform(tasks, num_workers)
    problems = sorted([*problems, *found], key=_order)
    order = {model: position for position, model in enumerate(predictions)}
    rows.sort(key=lambda row: (row["case"], order[row["model"]]))
    if rows:
        write_scores(output_dir, rows, seed=seed)
        print(table1(rows), flush=True)
    _write(output_dir, "Evaluation", rows, readouts, problems, primary)
    if problems:
        raise SomeFailedError(f"{len(problems)} masks could not be scored, all others were", problems)
    return rows


def _perform(
    tasks: Sequence[_Task], num_workers: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]], list[ScoringProblem]]:
    """Do studies, and give the rows of scores, the read-outs of each case, and the problems."""
    rows, readouts, problems = [], {}, []
    for result in tqdm(_run(tasks, num_workers), total=len(tasks), desc="read out", unit="study", disable=not tasks):
        rows += result.rows
        problems += result.problems
        if result.readouts is not None:
            readouts[result.case] = result.readouts
    return rows, readouts, problems


def _write(
    output_dir: Path,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    readouts: Mapping[str, Mapping[str, Any]],
    problems: Sequence[ScoringProblem],
    model: str,
) -> None:
    """Write read-outs, problems and the report."""
    problem_rows = [asdict(problem) for problem in problems]
    write_json(output_dir / "problems.json", problem_rows)
    if readouts:
        write_readouts(output_dir, readouts)
    pictures = {case: output_dir / "pictures" / f"{case}.png" for case in readouts}
    write_report(output_dir / "report.html", title, rows, readouts, pictures, problem_rows, model)


def _order(problem: ScoringProblem) -> tuple[str, str, str]:
    return problem.case, problem.file, problem.reason


def validation_items(
    dataset_dir: str | os.PathLike, split: str = "validation", allow_outside: bool = False
) -> list[dict[str, Any]]:
    """Give the studies of a prepared data set with their original images and labels, as items of inference.

    Args:
        dataset_dir: prepared data set, with `datalist.json`; its `studies_dir` may be anywhere, as `prepare` writes where it was.
        split: "validation" or "training".
        allow_outside: whether a study's files may lie outside of `studies_dir`; see `petct_cascade.studies.find_studies`.

    Raises:
        InputError: the folder holds no `datalist.json`, or it names files that lie outside of the raw data set.
    """
    path = Path(dataset_dir) / "datalist.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: prepare the data set, or name its folder with --dataset_dir.")
    content = read_json(path)
    studies_dir = Path(dataset_dir) / content["studies_dir"]
    items = []
    for entry in content[split]:
        original = {role: str(studies_dir / file) for role, file in entry["original"].items()}
        outside = next((file for file in original.values() if not is_inside(file, studies_dir)), None)
        if outside is not None and not allow_outside:
            raise InputError(
                f"{path} names {outside} in study {entry['case']}, which lies outside of {studies_dir}: prepare the data set again, "
                "or allow it with --allow_outside true"
            )
        item = {name: entry[name] for name in ("case", "patient", "tracer", "centre") if name in entry}
        items.append(item | {"image": [original["ct"], original["pet"]], "label": original["label"]})
    return items


def _items_of_folder(references: Path, images: Path | None) -> list[dict[str, Any]]:
    """Give the studies of a folder of reference masks, or of a data set in the challenge's layout, as items of inference."""
    if (references / "labelsTr").is_dir():
        if images is None and (references / "imagesTr").is_dir():
            images = references / "imagesTr"
        references = references / "labelsTr"
    files, problems = _masks(references)
    if problems:
        raise InputError(f"{problems[0]}: keep one reference per study.")
    return [
        _item(case, {} if images is None else _images_of(case, images)) | {"label": str(file)} for case, file in files.items()
    ]


def _item(case: str, images: Mapping[str, Path]) -> dict[str, Any]:
    """Give an item with the tracer and patient that a name of the challenge tells (`<tracer>_<patient>_<description>`)."""
    item: dict[str, Any] = {"case": case}
    tracer, patient = identity(case)
    if tracer in TRACERS:
        item |= {"tracer": tracer, "patient": patient}
    if "pet" in images:
        item["image"] = [str(images["ct"]) if "ct" in images else None, str(images["pet"])]
    return item


def _images_of(case: str, folder: Path) -> dict[str, Path]:
    """Give the CT and PET files of a case that exist in a folder."""
    candidates = {role: [folder / f"{case}_{number}{suffix}" for suffix in SUFFIXES] for number, role in CHANNELS.items()}
    return {role: file for role, files in candidates.items() for file in files if file.is_file()}


def _masks(folder: Path) -> tuple[dict[str, Path], list[ScoringProblem]]:
    """Give the NIfTI file of each case in a folder, sorted, and the cases that have two."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the folder with the masks.")
    files: dict[str, Path] = {}
    problems = []
    for file in sorted(folder.iterdir()):
        if not file.name.endswith(SUFFIXES) or file.name.startswith("."):
            continue
        case = without_suffix(file.name)
        if case in files:
            problems.append(ScoringProblem(case, str(file), f"there is a second file {files.pop(case).name} of this study"))
        else:
            files[case] = file
    if not files:
        raise InputError(f"{folder} holds no NIfTI file (.nii.gz, .nii): name the folder with the masks.")
    return files, problems


def _run(tasks: Sequence[_Task], num_workers: int) -> Iterator[_Result]:
    """Score studies, in processes of their own if more than one is asked for, in the order in which they end."""
    if num_workers <= 1 or len(tasks) <= 1:
        yield from map(_score, tasks)
        return
    # A fresh process: a forked one would inherit the locks of the threads that PyTorch has started.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(tasks)), mp_context=context) as pool:
        for future in as_completed([pool.submit(_score, task) for task in tasks]):
            yield future.result()


def _score(task: _Task) -> _Result:
    """Score, read out and draw one study; what is wrong with a file becomes a problem, not an exception."""
    item, case = task.item, task.item["case"]
    result = _Result(case)
    try:
        reference = read_mask(Path(item["label"])) if item.get("label") else None
    except InputError as error:
        result.problems.append(ScoringProblem(case, str(item["label"]), f"the reference {error}"))
        return result
    known = {name: item[name] for name in ("case", "patient", "tracer", "centre") if item.get(name)}
    prediction = None
    for model, file in task.predictions.items():
        prediction = None
        try:
            prediction = read_mask(file)
            if reference is not None:
                check_grid(prediction, reference, "reference")
                metrics = case_metrics(prediction.array, reference.array, prediction.spacing)
                result.rows.append(known | {"model": model} | metrics)
        except InputError as error:
            result.problems.append(ScoringProblem(case, str(file), f"the mask of {model} {error}"))
            prediction = None
    if task.picture is not None and prediction is not None:
        try:
            result.readouts = _read_out(task, prediction, reference)
        except InputError as error:
            result.problems.append(ScoringProblem(case, "", f"was not read out: {error}"))
    return result


def _read_out(task: _Task, prediction: Volume, reference: Volume | None) -> dict[str, Any]:
    """Read out and draw the primary model's mask of a study."""
    if not task.item.get("image"):
        raise InputError(f"there is no PET of this study: put {task.item['case']}_0001.nii.gz into the folder of images")
    ct, pet = _read_images(task.item["image"])
    for finding in judge_volumes(task.item["case"], {"pet": pet} if ct is None else {"ct": ct, "pet": pet}):
        if finding.error:
            raise InputError(finding.sentence)
    check_grid(prediction, pet, "PET")
    uncertainty = None
    if task.uncertainty is not None:
        uncertainty = _read(task.uncertainty)
        check_grid(uncertainty, pet, "PET")
    options = PictureOptions(
        title=task.item["case"],
        suv_range=task.suv_range,
        axial=True,
        ct=None if ct is None else ct.array,
        ct_affine=None if ct is None else ct.affine,
    )
    reference_mask = None if reference is None else reference.array
    overlay_picture(task.picture, pet.array, pet.affine, reference_mask, prediction.array, options)
    readouts = study_readouts(prediction.array, pet.array, pet.affine, None if uncertainty is None else uncertainty.array)
    return readouts | {"suv_range": list(task.suv_range)}


def _read_images(image: str | os.PathLike | Sequence[str | None]) -> tuple[Volume | None, Volume]:
    """Read CT (None if there is none) and PET from two files, or from one 4-D file with these channels."""
    if isinstance(image, (str, os.PathLike)):
        both = _read(image, channels=2)
        return Volume(both.file, both.array[..., 0], both.affine), Volume(both.file, both.array[..., 1], both.affine)
    ct, pet = image
    return None if ct is None else _read(ct), _read(pet)


def _read(file: str | os.PathLike, channels: int = 1) -> Volume:
    """Read a volume; what is wrong with it is a sentence that names the file."""
    try:
        return read_volume(Path(file), channels)[0]
    except InputError as error:
        raise InputError(f"{Path(file).name} {error}") from error
