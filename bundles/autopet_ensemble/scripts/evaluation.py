"""What inference and evaluation of the ensemble take, run and score."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ignite.handlers import ProgressBar
from monai.engines import Evaluator
from tqdm import tqdm

from scripts.errors import InputError, command
from scripts.score import score_studies
from scripts.studies import Finding, Study, check_study, find_studies, identity, without_suffix


@dataclass(frozen=True)
class Selection:
    """The studies of an inference.

    Attributes:
        items: {"case", "image": [CT file, PET file], "patient", "tracer", ("centre"), ("label")} of the studies to do.
        findings: why other studies cannot be used, and what is remarkable about those that can.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@command
def select_studies(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike | None = None,
    ct: str | os.PathLike | None = None,
    pet: str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    model_file: str | os.PathLike | None = None,
    check: bool = True,
    num_workers: int = 1,
) -> Selection:
    """Choose the studies that an inference has to do.

    Args:
        dataset_dir: folder of studies, in a layout that `scripts.studies.find_studies` knows; used when neither of the following
            is given.
        datalist: CSV or JSON list of studies, read by the same function.
        ct: NIfTI file of one study's CT (HU), on any grid.
        pet: NIfTI file of its PET (body-weight SUV), after which the study is called (without a final `_0001`).
        output_dir: folder of masks. A study whose `<case>.nii.gz` is there, and newer than its images and the weights, is left out.
        model_file: the weights.
        check: whether the files are read and judged by `scripts.studies.check_study` first, so that one bad study is named, and
            the others are done.
        num_workers: number of studies that are checked at a time.

    Raises:
        SystemExit: with one sentence when there is nothing to be found.
    """
    if (ct is None) != (pet is None):
        raise InputError(f"--{'pet' if pet is None else 'ct'} is missing: give one file for the CT and one for the PET")
    if pet is not None:
        studies, findings = [_study_of(Path(ct), Path(pet))], []
    else:
        studies, findings = find_studies(Path(dataset_dir if datalist is None else datalist), labels=False)
    if output_dir is not None:
        studies = [study for study in studies if not _is_current(study, Path(output_dir), model_file)]
    if check:
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            checks = pool.map(check_study, studies)
            found = list(tqdm(checks, total=len(studies), desc="check", unit="study", leave=False, disable=not studies))
        findings = [*findings, *(finding for several in found for finding in several)]
    bad = {finding.case for finding in findings if finding.error}
    return Selection([_item(study) for study in studies if study.case not in bad], findings)


@command
def infer(evaluator: Evaluator, selection: Selection) -> None:
    """Write the masks of the selected studies.

    Args:
        evaluator: the evaluator whose post-processing writes them.
        selection: its studies.

    Raises:
        SystemExit: with one sentence when a study cannot be read; and, after all others are done, when some cannot be used.
    """
    warnings = [finding for finding in selection.findings if not finding.error]
    problems = [finding for finding in selection.findings if finding.error]
    for warning in warnings:
        print(f"remark: {warning}", flush=True)
    if selection.items:
        _run(evaluator)
    elif not problems:
        print("Every mask is newer than the weights and its images: nothing to do.", flush=True)
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        number = len({problem.case for problem in problems})
        raise InputError(f"{number} {'study' if number == 1 else 'studies'} cannot be used, all others were done:{lines}")


@command
def evaluate(
    evaluator: Evaluator,
    items: Sequence[Mapping[str, Any]],
    masks: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
    seed: int = 0,
) -> None:
    """Write every model's masks in one pass, and score them on the original grid: Table 1, scores, read-outs, pictures, report.

    Args:
        evaluator: the evaluator whose post-processing writes the masks of all models.
        items: the studies, with "label".
        masks: per model the folder of its masks; the last model is the one that is read out and drawn.
        output_dir, num_workers, suv_range, seed: see `scripts.score.score_studies`, which names the files too.

    Raises:
        SystemExit: with one sentence when a study cannot be read or scored.
    """
    if not items:
        raise InputError("the data set has no validation studies: prepare it with more patients")
    _remove_others(masks.values(), {item["case"] for item in items})
    _run(evaluator)
    score_studies(items, masks, output_dir, num_workers=num_workers, suv_range=suv_range, seed=seed)


def _study_of(ct: Path, pet: Path) -> Study:
    case = without_suffix(pet.name).removesuffix("_0001")
    tracer, patient = identity(case)
    return Study(case, patient, tracer, ct, pet)


def _item(study: Study) -> dict[str, Any]:
    item = {"case": study.case, "patient": study.patient, "tracer": study.tracer, "image": [str(study.ct), str(study.pet)]}
    optional = {"centre": study.centre, "label": None if study.label is None else str(study.label)}
    return item | {name: value for name, value in optional.items() if value is not None}


def _is_current(study: Study, output_dir: Path, model_file: str | os.PathLike | None) -> bool:
    """Whether a study's mask is newer than what it is made from."""
    mask = output_dir / f"{study.case}.nii.gz"
    sources = [study.ct, study.pet, *([] if model_file is None else [Path(model_file)])]
    return mask.is_file() and all(file.is_file() and mask.stat().st_mtime > file.stat().st_mtime for file in sources)


def _remove_others(folders: Iterable[str | os.PathLike], cases: set[str]) -> None:
    """Take away the masks that an earlier evaluation, of other studies, has left."""
    for folder in folders:
        for file in Path(folder).glob("*.nii.gz"):
            if without_suffix(file.name) not in cases:
                file.unlink()


def _run(evaluator: Evaluator) -> None:
    """Run an evaluator; an `InputError` inside of it comes out as such.

    MONAI wraps what a transform raises into a `RuntimeError`, and a loading process hands over no more than its text.
    """
    ProgressBar(persist=True, desc="segment").attach(evaluator)
    try:
        evaluator.run()
    except Exception as error:
        sentence = _sentence_of(error)
        if sentence is None:
            raise
        raise InputError(sentence) from error


def _sentence_of(error: BaseException | None) -> str | None:
    """The sentence of the `InputError` that is behind an exception, None when there is none."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        sentences = re.findall(r"^scripts\.errors\.InputError: (.+)$", str(error), flags=re.MULTILINE)
        if sentences:
            return sentences[-1]
        error = error.__cause__ or error.__context__
    return None
