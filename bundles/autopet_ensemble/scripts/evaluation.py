"""What inference and evaluation of the ensemble take, run and score."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ignite.engine import Events
from ignite.handlers import ProgressBar
from monai.engines import Evaluator
from tqdm import tqdm

from scripts.errors import InputError, SomeFailedError, command
from scripts.files import is_newer, make_folder
from scripts.score import Problem, read_out_studies, score_studies
from scripts.studies import (
    Finding,
    Study,
    find_repeated_images,
    find_studies,
    identity,
    raise_if_strict,
    read_study,
    without_suffix,
)
from scripts.transforms import writing_behind


@dataclass(frozen=True)
class Selection:
    """The studies of an inference.

    Attributes:
        items: {"case", "image": [CT file, PET file], "patient", "tracer", ("centre")} of the studies to do.
        done: the same of the studies whose masks an earlier run has made.
        findings: why other studies cannot be used, and what is remarkable about those that can.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    done: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@command
def select_studies(
    dataset_dir: str | os.PathLike,
    datalist: str | os.PathLike | None = None,
    ct: str | os.PathLike | None = None,
    pet: str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    uncertainty_dir: str | os.PathLike | None = None,
    sources: Sequence[str | os.PathLike] = (),
    check: bool = True,
    strict: bool = False,
    allow_outside: bool = False,
    num_workers: int = 1,
) -> Selection:
    """Choose the studies that an inference has to do.

    Args:
        dataset_dir: folder of studies, in a layout that `scripts.studies.find_studies` knows; used when neither of the following
            is given.
        datalist: CSV or JSON list of studies, read by the same function.
        ct: NIfTI file of one study's CT (HU), on any grid.
        pet: NIfTI file of its PET (body-weight SUV), after which the study is called (without a final `_0001`).
        output_dir: folder of masks. A study whose `<case>.nii.gz` is there, and newer than its images and `sources`, is left out.
        uncertainty_dir: folder of maps; when it is given, a study is left out only if its map is there and newer, too.
        sources: the other files from which masks are made, the weights and their fingerprint.
        check: whether the files are read and judged by `scripts.studies.read_study` first, so that bad studies are named before
            the others are done.
        strict: whether the first study with an error ends the run.
        allow_outside: whether a list may name files outside of its folder.
        num_workers: number of studies that are checked at a time.

    Raises:
        SystemExit: with one sentence when there is nothing to be found, or, if `strict`, when a study cannot be used.
    """
    if (ct is None) != (pet is None):
        raise InputError(f"--{'pet' if pet is None else 'ct'} is missing: give one file for the CT and one for the PET")
    if pet is not None:
        studies, findings = [_study_of(Path(ct), Path(pet))], []
    else:
        source = Path(dataset_dir if datalist is None else datalist)
        studies, findings = find_studies(source, labels=False, allow_outside=allow_outside)
    raise_if_strict(strict, findings)
    folders = [Path(folder) for folder in (output_dir, uncertainty_dir) if folder is not None]
    for folder in folders:
        make_folder(folder)
    done = [study for study in studies if folders and all(_is_current(study, folder, sources) for folder in folders)]
    studies = [study for study in studies if study not in done]
    if check:
        findings = [*findings, *_check(studies, strict, num_workers)]
    bad = {finding.case for finding in findings if finding.error}
    items = [_item(study) for study in studies if study.case not in bad]
    return Selection(items, [_item(study) for study in done if study.case not in bad], findings)


@command
def infer(
    evaluator: Evaluator,
    selection: Selection,
    output_dir: str | os.PathLike,
    uncertainty_dir: str | os.PathLike | None = None,
    num_workers: int = 1,
    suv_range: Sequence[float] = (0.0, 10.0),
    strict: bool = False,
) -> None:
    """Write the masks of the selected studies; then read-outs, pictures and report of all of them, also of those done earlier.

    Args:
        evaluator: the evaluator whose post-processing writes the masks to `output_dir`.
        selection: its studies.
        output_dir: folder of masks, in which the read-outs appear; see `scripts.score.read_out_studies`, which names the files.
        uncertainty_dir: folder to which the post-processing writes maps of the members' disagreement; None if it does not.
        num_workers: processes that read out.
        suv_range: SUV shown white and SUV shown black in pictures.
        strict: whether the first study that fails ends the run.

    Raises:
        SystemExit: after all others are done, with exit code 3 and a sentence for each study that could not be used.
    """
    warnings = [finding for finding in selection.findings if not finding.error]
    problems = [finding for finding in selection.findings if finding.error]
    for warning in warnings:
        print(f"remark: {warning}", flush=True)
    if selection.items:
        problems += _run(evaluator, strict)
    elif not problems:
        print("Every mask is newer than the weights and its images: nothing to do.", flush=True)
    failed = {problem.case for problem in problems}
    items = sorted((item for item in [*selection.done, *selection.items] if item["case"] not in failed), key=lambda i: i["case"])
    what = "cannot be used, all others were done"
    try:
        found = read_out_studies(
            items,
            {item["case"]: Path(output_dir) / f"{item['case']}.nii.gz" for item in items},
            output_dir,
            "Ensemble",
            uncertainty=uncertainty_dir,
            problems=[Problem(problem.case, "", problem.sentence) for problem in problems],
            num_workers=num_workers,
            suv_range=suv_range,
        )
        problems += [Finding(problem.case, None, problem.reason, error=True) for problem in found]
    except InputError as error:
        if not problems:
            raise
        # Why the report could not be written shall not hide what is wrong with studies.
        what = f"cannot be used, and there is no report of the others, since {error}"
    if problems:
        number = len({problem.case for problem in problems})
        what = f"{number} {'study' if number == 1 else 'studies'} {what}"
        raise SomeFailedError(what, sorted(problems, key=lambda problem: problem.case))


@command
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
        output_dir, num_workers, suv_range, seed: see `scripts.score.score_studies`, which names the files too.
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
    failed = {finding.case for finding in _run(evaluator, strict)}
    # An earlier run's mask is not this one's.
    _remove_others(folders, {item["case"] for item in items} - failed)
    score_studies(items, masks, output_dir, uncertainty=uncertainty_dir, num_workers=num_workers, suv_range=suv_range, seed=seed)


def _study_of(ct: Path, pet: Path) -> Study:
    case = without_suffix(pet.name).removesuffix("_0001")
    tracer, patient = identity(case)
    return Study(case, patient, tracer, ct, pet)


def _item(study: Study) -> dict[str, Any]:
    item = {"case": study.case, "patient": study.patient, "tracer": study.tracer, "image": [str(study.ct), str(study.pet)]}
    return item if study.centre is None else item | {"centre": study.centre}


def _is_current(study: Study, folder: Path, sources: Sequence[str | os.PathLike]) -> bool:
    """Whether a study's mask, or map, in a folder is newer than its images and the other files from which it is made."""
    return is_newer(folder / f"{study.case}.nii.gz", [study.ct, study.pet, *sources])


def _remove_others(folders: Iterable[str | os.PathLike], cases: set[str]) -> None:
    """Take away the masks that an earlier evaluation, of other studies, has left."""
    for folder in folders:
        for file in Path(folder).glob("*.nii.gz"):
            if without_suffix(file.name) not in cases:
                file.unlink()


def _check(studies: Sequence[Study], strict: bool, num_workers: int) -> list[Finding]:
    """Read and judge studies before any is done."""
    findings: list[Finding] = []
    digests = {}
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        checks = pool.map(_findings_and_digest, studies)
        progress = tqdm(checks, total=len(studies), desc="check", unit="study", leave=False, disable=not studies)
        for study, (found, digest) in zip(studies, progress, strict=True):
            raise_if_strict(strict, found)
            findings += found
            if digest is not None:
                digests[study.case] = digest
    # Each of the two masks is right, but perhaps not that of the patient after whom it is called.
    return findings + [replace(finding, error=False) for finding in find_repeated_images(digests)]


def _findings_and_digest(study: Study) -> tuple[list[Finding], str | None]:
    """Judge a study without its label, and name the content of its PET if it can be used; the volumes themselves are not kept."""
    findings, volumes = read_study(replace(study, label=None))
    return findings, None if any(finding.error for finding in findings) else volumes["pet"].digest


def _run(evaluator: Evaluator, strict: bool) -> list[Finding]:
    """Run an evaluator with one study a batch; a study that fails costs no other.

    Returns:
        An error for each study that failed.

    Raises:
        InputError: if `strict`, when a study fails.
    """
    # Failures are told below, and the engine would log them with the traceback of the loading process.
    evaluator.logger.setLevel(logging.CRITICAL)
    ProgressBar(persist=True, desc="segment").attach(evaluator)
    failures: list[BaseException] = []
    done: list[int] = []

    def stop(engine: Evaluator, error: BaseException) -> None:
        if engine.state.epoch == 0 or not isinstance(error, Exception):
            # What goes wrong before the first study is the fault of none.
            raise error
        failures.append(error)

    evaluator.add_event_handler(Events.EXCEPTION_RAISED, stop)
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: done.append(engine.state.iteration))
    dataset = evaluator.data_loader.dataset
    findings: list[Finding] = []
    items = list(dataset.data)

    def fail(case: str, error: Exception) -> None:
        findings.append(Finding(case, None, _reason_of(error, case), error=True))
        raise_if_strict(strict, findings)
        print(f"error: {findings[-1]}", flush=True)

    # A mask that cannot be written must stop a strict run before the next study.
    with nullcontext({}) if strict else writing_behind() as unwritten:
        while items:
            dataset.data, evaluator.state.epoch_length = items, len(items)
            failures.clear()
            done.clear()
            evaluator.run()
            if not failures:
                break
            item, items = items[len(done)], items[len(done) + 1 :]
            fail(item["case"], failures[0])
    for name, error in unwritten.items():
        fail(without_suffix(name), error)
    # The engine keeps all volumes of the last study.
    evaluator.state.batch = evaluator.state.output = None
    return findings


def _reason_of(error: Exception, case: str) -> str:
    """Say why a study failed: the sentence of the `InputError` behind an exception, or else the exception itself.

    MONAI wraps what a transform raises into a `RuntimeError`, and a loading process hands over no more than its text.
    """
    sentence = _sentence_of(error)
    if sentence is not None:
        return sentence.removeprefix(f"study {case}: ")
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    text = str(error).strip() or type(error).__name__
    # Of a text that holds tracebacks, the first error is what has happened.
    told = re.search(r"^[\w.]*(?:Error|Exception): (.+)$", text, flags=re.MULTILINE) if "Traceback" in text else None
    reason = told.group(1) if told else text.splitlines()[0]
    return f"it could not be segmented ({reason}): run it alone to see whether that happens again"


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
