"""One study's masks scored, read out and drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petct_cascade.changes import changes
from petct_cascade.coarse_mask import read_named_coarse_mask
from petct_cascade.deidentification import Words, words_of_items
from petct_cascade.dicom.body_size import Body
from petct_cascade.dicom.source import DicomSource
from petct_cascade.dicom_output import SEGMENTS, DicomOutput, write_dicom
from petct_cascade.judging import judge_volumes
from petct_cascade.metrics import case_metrics
from petct_cascade.pictures import PictureOptions, overlay_picture
from petct_cascade.problems import Problem
from petct_cascade.readouts import reference_lesions, study_readouts
from petct_cascade.report.scenes import StudyImages
from petct_cascade.report.study_parts import StudyPage
from petct_cascade.volumes import Source, Volume, as_mask, as_source, check_grid, read_volume
from petct_training.errors import InputError, boolean


@dataclass(frozen=True)
class ReadoutOptions:
    """How studies are read out and drawn.

    Attributes:
        uncertainty_dir: folder of maps of the members' disagreement, `<case>.nii.gz`, whose mean each lesion's read-out then holds;
            None for none.
        suv_range: SUV shown white and SUV shown black in pictures.
        num_workers: number of processes.
        dicom_output: whether a study whose PET is in DICOM gets a SEG and a structured report.
        dicom_segments: "lesions" for one segment a lesion, "one" for one of all.
        single_file: whether the report is one file with all pictures inside, and not an index with a page a study.
        viewer: whether the volumes of each study can be looked at on its page.
        deidentified: whether nothing but the DICOM objects may tell whose study it is; see `petct_cascade.deidentification`.

    Raises:
        InputError: when an option makes no sense.
    """

    uncertainty_dir: str | os.PathLike | None = None
    suv_range: Sequence[float] = (0.0, 10.0)
    num_workers: int = 1
    dicom_output: bool = True
    dicom_segments: str = SEGMENTS[0]
    deidentified: bool = False
    single_file: bool = False
    viewer: bool = True

    def __post_init__(self) -> None:
        # The command line gives "true" and "false" as texts.
        for name in ("dicom_output", "deidentified", "single_file", "viewer"):
            object.__setattr__(self, name, boolean(name, getattr(self, name)))
        if self.dicom_segments not in SEGMENTS:
            raise InputError(f"dicom_segments is {self.dicom_segments!r}: give {' or '.join(SEGMENTS)}")


@dataclass(frozen=True)
class StudyTask:
    """What there is to do with one study.

    Attributes:
        item: "case"; and, where there are such, "image" ([CT file or None, PET file], or one 4-D file with these channels), "label"
            (file), "patient", "tracer", "centre", "body" (the fields of `Body`, where the PET does not say them itself).
        predictions: file of each model's mask.
        primary: the model whose mask is read out and drawn.
        picture: the file to draw; None if the study is not to be read out.
        uncertainty: map (X, Y, Z) on the PET's grid, whose mean each lesion's read-out then holds.
        suv_range: SUV shown white and SUV shown black.
        dicom: the DICOM objects that are written of the study when it is read out; None for none.
        page: the page that is written of the study when it is read out; None for none.
        before: the coarse mask that a person has given or corrected, with which the mask is compared; None where the mask is
            automatic.
    """

    item: Mapping[str, Any]
    predictions: Mapping[str, Path]
    primary: str
    picture: Path | None = None
    uncertainty: Path | None = None
    suv_range: Sequence[float] = (0.0, 10.0)
    dicom: DicomOutput | None = None
    page: StudyPage | None = None
    before: Path | Source | None = None


@dataclass
class Results:
    """What one study gave, or many.

    Attributes:
        rows: scores, one row a study and model: "case", "patient", "tracer", "centre", "model", and the metrics of
            `petct_cascade.metrics.case_metrics`.
        readouts: of each case what `petct_cascade.readouts.study_readouts` returned, and "suv_range"; with a reference its
            "reference_lesions", as of `petct_cascade.readouts.reference_lesions`.
        problems: an error for each mask that could not be scored, and for each study that could not be read out; and warnings.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    readouts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, other: Results) -> None:
        """Take in what another study gave."""
        self.rows += other.rows
        self.readouts |= other.readouts
        self.problems += other.problems


def do_study(task: StudyTask) -> Results:
    """Score, read out and draw one study; what is wrong with a file becomes a problem, not an exception."""
    results = Results()
    case, label = task.item["case"], task.item.get("label")
    source = as_source(label) if label else None
    try:
        reference = None if source is None else as_mask(read_volume(source)[0])
    except InputError as error:
        results.problems.append(Problem(case, source, f"of the references {error}", error=True))
        return results
    primary = _score_models(task, reference, results)
    if task.picture is not None and primary is not None:
        try:
            results.readouts[case] = _read_out_and_draw(task, task.picture, primary, reference, results.rows)
        except InputError as error:
            results.problems.append(Problem(case, None, f"was not read out: {error}", error=True))
        except Exception as error:  # Whatever one study has, the report of all others is made.
            said = f"was not read out ({type(error).__name__}: {error}): report it, with the study's shape and spacing"
            results.problems.append(Problem(case, None, said, error=True))
        else:
            if task.dicom is not None:
                results.problems += write_dicom(case, task.dicom, primary.array, results.readouts[case])
    return results


def _score_models(task: StudyTask, reference: Volume | None, results: Results) -> Volume | None:
    """Add the scores of each model's mask to the results, and return that of the primary model; None if it cannot be used."""
    primary = None
    for model, file in task.predictions.items():
        try:
            prediction = as_mask(read_volume(file)[0])
            if reference is not None:
                results.rows.append(score_row(task.item, model, prediction, reference))
        except InputError as error:
            results.problems.append(Problem(task.item["case"], file, f"of {model} {error}", error=True))
        else:
            primary = prediction if model == task.primary else primary
    return primary


def score_row(item: Mapping[str, Any], model: str, prediction: Volume, reference: Volume) -> dict[str, Any]:
    """Return the row of scores of a model's mask.

    Raises:
        InputError: the mask does not lie on the grid of the reference; the end of a sentence that begins with the mask's file.
    """
    check_grid(prediction, reference, "reference")
    known = {name: item[name] for name in ("case", "patient", "tracer", "centre") if item.get(name)}
    return known | {"model": model} | case_metrics(prediction.array, reference.array, prediction.spacing.tolist())


def _read_out_and_draw(
    task: StudyTask, picture: Path, prediction: Volume, reference: Volume | None, scores: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the read-outs of a study's mask, once its picture is drawn and its page is written.

    Raises:
        InputError: there is no PET, CT or PET cannot be used, or something does not lie on the PET's grid.
    """
    ct, pet = _read_images(task.item)
    check_grid(prediction, pet, "PET")
    uncertainty = None if task.uncertainty is None else _read_map(task.uncertainty, pet)
    options = PictureOptions(
        title=task.item["case"],
        suv_range=task.suv_range,
        axial=True,
        ct=None if ct is None else ct.array,
        ct_affine=None if ct is None else ct.affine,
    )
    reference_array = None if reference is None else reference.array
    overlay_picture(picture, pet.array, pet.affine, reference_array, prediction.array, options)
    readouts = study_readouts(prediction.array, pet.array, pet.affine, uncertainty, body_of(task.item))
    readouts |= {name: task.item[name] for name in ("tracer", "centre") if task.item.get(name)}
    if reference_array is not None:
        rows = reference_lesions(reference_array, prediction.array, pet.array, pet.affine)
        readouts |= {"reference_lesions": rows}
    if task.before is not None:
        # What is to be said of it was said when the study was segmented.
        before, _ = read_named_coarse_mask(task.before, pet.array.shape, pet.affine)
        counts, rows = changes(before, prediction.array, pet.affine)
        readouts |= {"study": readouts["study"] | counts, "changes": rows}
    if task.page is not None:
        images = StudyImages(
            pet.array,
            pet.affine,
            options.ct,
            options.ct_affine,
            reference_array,
            prediction.array,
        )
        task.page.write(task.item["case"], images, picture, readouts, scores, task.suv_range)
    return readouts | {"suv_range": list(task.suv_range)}


def found_dir_of(output_dir: str | os.PathLike) -> Path:
    """Return the folder, in an output folder, of stage 1's masks of those studies in which clicks correct them."""
    return Path(output_dir) / "coarse_masks"


def before_of(item: Mapping[str, Any], output_dir: str | os.PathLike) -> Path | Source | None:
    """Return the coarse mask of an item that a person has given, or that points correct; None where the mask is automatic."""
    if item.get("coarse_mask") is not None:
        return as_source(item["coarse_mask"])
    return found_dir_of(output_dir) / f"{item['case']}.nii.gz" if "points" in item else None


def words_if_hidden(
    items: Iterable[Mapping[str, Any]], options: ReadoutOptions | None, masks: Iterable[Path] = (), names: Iterable[str] = ()
) -> Words | None:
    """Return the words that must not be said of studies, see `words_of_items`; None where all may be."""
    return words_of_items(items, masks, names) if options is not None and options.deidentified else None


def files_of(task: StudyTask) -> dict[str, Path | Source | None]:
    """Return the files from which the results of a study are made, by their role."""
    image = task.item.get("image") or (None, None)
    ct, pet = (image, image) if isinstance(image, (str, os.PathLike)) else image
    files = {"mask": task.predictions.get(task.primary), "ct": ct, "pet": pet, "uncertainty": task.uncertainty}
    files |= {f"mask of {model}": file for model, file in task.predictions.items() if model != task.primary}
    files["label"] = task.item.get("label")
    if task.before is not None:
        files["coarse_mask"] = task.before
    return {role: None if file is None else as_source(file) for role, file in files.items()}


def pet_of(item: Mapping[str, Any]) -> Any:
    """Return the file or source of a study's PET, None where there is none."""
    image = item.get("image") or (None, None)
    return image if isinstance(image, (str, os.PathLike)) else image[1]


def body_of(item: Mapping[str, Any]) -> Body | None:
    """Return the body of an item's patient, None where it is not known."""
    pet = pet_of(item)
    if isinstance(pet, DicomSource):
        return pet.body()
    return Body(**item["body"]) if item.get("body") else None


def _read_images(item: Mapping[str, Any]) -> tuple[Volume | None, Volume]:
    """Read CT (None if there is none) and PET of an item, and refuse what cannot be CT in HU and PET in SUV."""
    image = item.get("image")
    if not image:
        raise InputError(f"there is no PET of this study: put {item['case']}_0001.nii.gz into the folder of images")
    if isinstance(image, (str, os.PathLike)):
        both = _read_file(image, channels=2)
        volumes = {role: replace(both, array=both.array[..., channel]) for channel, role in enumerate(("ct", "pet"))}
    else:
        volumes = {role: _read_file(file) for role, file in zip(("ct", "pet"), image, strict=True) if file is not None}
    error = next((problem for problem in judge_volumes(item["case"], volumes) if problem.error), None)
    if error is not None:
        raise InputError(error.sentence)
    return volumes.get("ct"), volumes["pet"]


def _read_map(file: Path, pet: Volume) -> Any:
    """Return the voxels (X, Y, Z) of a map on the PET's grid."""
    uncertainty = _read_file(file)
    check_grid(uncertainty, pet, "PET")
    return uncertainty.array


def _read_file(file: str | os.PathLike, channels: int = 1) -> Volume:
    """Read a volume; what is wrong with it is a sentence that names the file."""
    try:
        return read_volume(as_source(file), channels)[0]
    except InputError as error:
        raise InputError(f"{as_source(file).name} {error}") from error
