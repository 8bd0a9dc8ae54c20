"""From a raw data set to the prepared one that every training reads: checked, split by patient, cropped, resampled, uncompressed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd
from tqdm import tqdm

from petct_cascade.fingerprint import make_fingerprint, target_spacing
from petct_cascade.judging import BODY_SUV, find_repeated_images, read_study
from petct_cascade.loading import BODY_START, LoadImagePETCTd
from petct_cascade.problems import Problem, raise_if_strict
from petct_cascade.resampling import SeparableSpacingd
from petct_cascade.studies import Study, find_studies
from petct_cascade.volumes import Volume, write_volume
from petct_training.errors import InputError, SomeFailedError
from petct_training.files import atomic, make_folder, read_json, remove_unfinished, write_json
from petct_training.grids import las_spacing

# Raised when the judgement of studies or the making of volumes changes, so that what was made before is made again.
VERSION = 2


# Spacings that differ by less, as a share, are one: a volume of 1000 voxels then ends within a hundredth of a voxel.
SAME_SPACING = 1e-5


# Where it is kept what was made from which files, inside of the prepared data set.
RECORDS = ".prepare"


Task = TypeVar("Task")


Result = TypeVar("Result")


Runner = Callable[[Callable[[Any], Any], Sequence[Any], str], Iterator[Any]]


def prepare(
    studies: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    seed: int = 0,
    validation_fraction: float = 0.2,
    exclude: str | os.PathLike | Sequence[str] | None = None,
    spacing: str | Sequence[float] = "mean",
    keep_healthy: bool = False,
    strict: bool = False,
    allow_outside: bool = False,
    body_suv: float = BODY_SUV,
    body_margin: int = 2,
    num_workers: int = 1,
) -> None:
    """Prepare a raw data set for training.

    Every study is checked. Studies that cannot be used, that have no lesion or that are excluded are left out, each with its
    reason; the others are split by patient, cropped to the body, turned to LAS, resampled, and written to `dataset_dir`:

        datalist.json      "studies_dir", relative to dataset_dir; "training" and "validation": items {case, patient, tracer, (centre,)
                           image, label, original: {ct, pet, label}}, where image and label are relative to dataset_dir, and
                           those of original to studies_dir; "excluded": [{case, reason}]
        fingerprint.json   spacing, and what the values inside of the training studies' lesions are like
        images/<case>.nii  float32 (X, Y, Z, 2): CT in HU on the grid of the PET, and PET in SUV
        labels/<case>.nii  uint8 (X, Y, Z): 1 in lesions

    A second run, or one after an interruption, makes only what is missing or what was made from other files or with another
    spacing, and takes away what no longer belongs there. datalist.json is written last: where it is, all is complete. The same
    data and seed give the same bytes.

    Bad studies do not stop the others. At the end, when all is written, the exit code is 3 and each is named, unless it is on the
    exclusion list. The exit code is 1 when too few studies remain to train and validate with, when the arguments or the disk
    forbid to go on, or, if `strict`, when any study has an error.

    Args:
        studies: the raw data set: a folder, or a CSV or JSON list, as `petct_cascade.studies.find_studies` reads it.
        dataset_dir: folder for the prepared data set.
        seed: what the split depends on.
        validation_fraction: share of the studies for validation, approached as closely as whole patients allow.
        exclude: cases to leave out, such as retracted samples: their names, or a text file with one name a line (lines that
            begin with # are comments), or a JSON file with a list of them.
        spacing: "mean" or "median" of the training studies' PET spacing, or [x, y, z] in mm.
        keep_healthy: whether studies without lesions are used too.
        strict: whether the first study with an error ends the run.
        allow_outside: whether a list may name files outside of its folder.
        body_suv: SUV above which a voxel belongs to the body.
        body_margin: voxels that are kept around the body.
        num_workers: processes; each needs about 1.5 GB of memory for a study of 400 x 400 x 326 voxels, in proportion to its voxels.

    Raises:
        SystemExit: with a sentence, and exit code 1 or 3, as said above.
    """
    source, dataset_dir = Path(studies), Path(dataset_dir)
    if not isinstance(validation_fraction, (int, float)) or not 0 < validation_fraction < 1:
        raise InputError(f"validation_fraction is {validation_fraction!r}: give a number between 0 and 1")
    if not isinstance(num_workers, int) or num_workers < 0:
        raise InputError(f"num_workers is {num_workers!r}: give a whole number")
    if dataset_dir.resolve() == source.resolve():
        raise InputError(f"studies and dataset_dir are both {source}: give the prepared data set a folder of its own")
    candidates, found = find_studies(source, labels=True, allow_outside=allow_outside)
    root = source if source.is_dir() else source.parent
    preparation = _Preparation(root, dataset_dir, body_suv, body_margin)
    try:
        with _workers(min(num_workers, len(candidates))) as run:
            exclusions = read_exclusions(exclude)
            for _ in range(3):
                training, validation, excluded, problems = _select(
                    preparation, run, candidates, found, exclusions, validation_fraction, seed, keep_healthy, strict
                )
                # A file that breaks after the check costs its study, and no other: those files are checked again.
                changed = _make(preparation, run, training, validation, excluded, spacing)
                if not changed:
                    break
            else:
                raise InputError(f"study {changed[0]}: its files could be read at times only: copy it to another disk")
    except BrokenProcessPool as error:
        raise InputError(
            f"a process was ended from outside, most likely for lack of memory: use fewer than {num_workers} with --num_workers"
        ) from error
    _print_summary(training, validation, excluded, [problem for problem in problems if not problem.error], dataset_dir)
    errors = [problem for problem in problems if problem.error]
    if errors:
        number = len({problem.case for problem in errors})
        raise SomeFailedError(
            f"{number} {'study has' if number == 1 else 'studies have'} errors, and all others were prepared; correct them, or name "
            "them with --exclude",
            errors,
        )


def split_by_patient(studies: Sequence[Study], fraction: float, seed: int) -> tuple[list[Study], list[Study]]:
    """Split studies into training and validation, all studies of a patient on one side.

    The number of validation studies is as close to `fraction` of all as whole patients allow, with at least one study on each
    side; among the ways to reach it, the share of each tracer is as close to `fraction` as possible. Which patients they are
    depends on the seed and the patients' names alone, not on the order of the studies.

    Args:
        studies: at least two patients.
        fraction: share of the studies for validation.
        seed: whole number.

    Returns:
        Training and validation studies, sorted by case.

    Raises:
        InputError: when all studies are of one patient, or there are none.
    """
    sizes = Counter(study.patient for study in studies)
    if len(sizes) < 2:
        what = f"of one patient ({next(iter(sizes))})" if sizes else "left out"
        raise InputError(
            f"all studies are {what}: training and validation need at least two patients "
            "(a CSV list with the column patient says who is who)"
        )
    tracers: dict[str, set[str]] = {}
    for study in studies:
        tracers.setdefault(study.patient, set()).add(study.tracer)
    strata: dict[tuple[str, ...], list[str]] = {}
    # A hash is an order by chance that is the same on every machine and does not change for the others when a patient is added.
    for patient in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        strata.setdefault(tuple(sorted(tracers[patient])), []).append(patient)

    # Dynamic programming over the strata: per number of validation studies, the least sum of deviations from the wanted share of
    # each tracer, and the numbers in the strata that reach it.
    totals: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    reached = []
    for stratum in sorted(strata):
        sums = _reachable_sums([sizes[patient] for patient in strata[stratum]])
        wanted = fraction * sum(sizes[patient] for patient in strata[stratum])
        reached.append(sums)
        extended: dict[int, tuple[float, tuple[int, ...]]] = {}
        for total, (deviation, numbers) in totals.items():
            for number in sums:
                candidate = (deviation + abs(number - wanted), (*numbers, number))
                if total + number not in extended or candidate < extended[total + number]:
                    extended[total + number] = candidate
        totals = extended
    possible = [total for total in totals if 0 < total < len(studies)]
    best = min(possible, key=lambda total: (abs(total - fraction * len(studies)), total))
    chosen: set[str] = set()
    for stratum, sums, number in zip(sorted(strata), reached, totals[best][1], strict=True):
        while number:
            position = sums[number]
            chosen.add(strata[stratum][position])
            number -= sizes[strata[stratum][position]]
    ordered = sorted(studies, key=lambda study: study.case)
    training = [study for study in ordered if study.patient not in chosen]
    return training, [study for study in ordered if study.patient in chosen]


def _reachable_sums(sizes: Sequence[int]) -> dict[int, int]:
    """Give the sums that subsets of some numbers have, each with the position of the last number of one such subset.

    That subset is found by taking the last number away and looking up what remains. A sum keeps the subset by which it was
    reached first, so that each subset consists of numbers near the beginning.
    """
    sums = {0: -1}
    for position, size in enumerate(sizes):
        for total in list(sums):
            sums.setdefault(total + size, position)
    return sums


def read_exclusions(exclude: str | os.PathLike | Sequence[str] | None) -> list[str]:
    """Give the names of the cases to leave out; the argument is that of `prepare`.

    Raises:
        InputError: when the file does not exist or is not a list of names.
    """
    if exclude is None or exclude == "":
        return []
    if isinstance(exclude, (str, os.PathLike)):
        path = Path(exclude)
        if not path.is_file():
            raise InputError(f"{path} does not exist: name a file with the cases to exclude, or give their names as a list")
        try:
            if path.suffix.lower() == ".json":
                exclude = read_json(path)
            else:
                lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
                exclude = [line for line in lines if line and not line.startswith("#")]
        except ValueError as error:
            raise InputError(f"{path} cannot be read ({error}): write one case a line, in UTF-8") from error
    if not isinstance(exclude, (list, tuple)) or not all(isinstance(case, str) for case in exclude):
        raise InputError(f"exclude is {exclude!r}: give a list of cases, or a file with one case a line")
    return list(exclude)


@dataclass(frozen=True)
class _Cropped:
    """A study cropped to its body on its own grid, which the check leaves for the making, so that every study is read once.

    Attributes:
        folder: image.nii, label.nii and lesion_values.npy as in the prepared data set, and settings.json, which is written last.
    """

    folder: Path

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in ("image.nii", "label.nii", "lesion_values.npy")]

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    def is_complete(self, settings: Mapping[str, Any]) -> bool:
        """Whether all files are there, which a run that was killed while it moved or removed them may have left in part."""
        return _read_record(self.settings) == settings and all(file.is_file() for file in self.files)

    def write(self, settings: Mapping[str, Any], image: MetaTensor, label: MetaTensor, values: np.ndarray) -> None:
        """Keep an image (2, X, Y, Z), its label (1, X, Y, Z), both in LAS, and the values (2, n) inside of its lesions."""
        image_file, label_file, values_file = self.files
        self.settings.unlink(missing_ok=True)
        _save_volumes(image, label, image_file, label_file)
        with atomic(values_file) as part:
            np.save(part, values)
        write_json(self.settings, settings)

    def move(self, outputs: Sequence[Path]) -> None:
        """Make the files the results, as they are."""
        self.settings.unlink()
        for file, output in zip(self.files, outputs, strict=True):
            make_folder(output.parent)
            os.replace(file, output)


@dataclass(frozen=True)
class _Preparation:
    """Where a data set is and becomes, and what its volumes depend on beside their files and the spacing."""

    root: Path
    dataset_dir: Path
    body_suv: float
    body_margin: int

    def relative(self, file: Path) -> str:
        """A raw file's path relative to the raw data set, with slashes on every system."""
        return _relative(file.absolute(), self.root.absolute())

    def sources(self, study: Study) -> dict[str, list]:
        """Path, size and time of modification of a study's files: when these are the same, so are the results."""
        return {role: [self.relative(file), *_stamp(file)] for role, file in study.files.items()}

    def settings(self, study: Study) -> dict[str, Any]:
        """All that a study's volumes depend on, but for the spacing."""
        return {
            "version": VERSION,
            "sources": self.sources(study),
            "body_suv": self.body_suv,
            "body_margin": self.body_margin,
        }

    def record(self, kind: str, case: str) -> Path:
        return self.dataset_dir / RECORDS / kind / f"{case}.json"

    def lesion_values(self, case: str) -> Path:
        return self.dataset_dir / RECORDS / "lesion_values" / f"{case}.npy"

    def cropped(self, case: str) -> _Cropped:
        return _Cropped(self.dataset_dir / RECORDS / "cropped" / case)

    def outputs(self, case: str) -> list[Path]:
        return [
            self.dataset_dir / "images" / f"{case}.nii",
            self.dataset_dir / "labels" / f"{case}.nii",
            self.lesion_values(case),
        ]

    def coarse_mask(self, case: str) -> Path:
        """Stage 1's mask of a case, which is worth nothing once the case's volumes are others."""
        return self.dataset_dir / "coarse_masks" / f"{case}.nii.gz"

    def is_finished(self, study: Study, spacing: Sequence[float]) -> bool:
        """Whether a study's volumes are there and were made from the present files with the present settings."""
        record = _read_record(self.record("finished", study.case))
        stamps = [_stamp(file) for file in self.outputs(study.case)]
        return record == {"settings": self.settings(study), "spacing": list(spacing), "outputs": stamps}

    def remove(self, case: str) -> None:
        """Take a case's volumes away, and then the record that says that they are ours."""
        for file in (*self.outputs(case), self.coarse_mask(case), self.record("finished", case)):
            file.unlink(missing_ok=True)


def _select(
    preparation: _Preparation,
    run: Runner,
    studies: Sequence[Study],
    problems: Sequence[Problem],
    exclusions: Sequence[str],
    fraction: float,
    seed: int,
    keep_healthy: bool,
    strict: bool,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str], list[Problem]]:
    """Check the studies and split those that can be used.

    Returns:
        The judgements (see `_check`) of the training and of the validation studies, the reason for which each other case is
        left out, the errors, and the warnings of the studies that are used.
    """
    excluded = dict.fromkeys(
        sorted({study.case for study in studies}.union(problem.case for problem in problems) & set(exclusions)),
        "it is on the exclusion list",
    )
    unknown = sorted(set(exclusions) - set(excluded))
    if unknown:
        print(f"{len(unknown)} of the cases to exclude are not in the data set: {_shorten(unknown)}", flush=True)
    problems = [problem for problem in problems if problem.case not in excluded]
    raise_if_strict(strict, problems)
    candidates = [study for study in studies if study.case not in excluded]
    judgements = {}
    todo = []
    for study in candidates:
        known = _read_record(preparation.record("checked", study.case))
        if known and (known["version"], known["sources"]) == (VERSION, preparation.sources(study)):
            judgements[study.case] = known
        else:
            todo.append(study)
    problems += [problem for judgement in judgements.values() for problem in _problems(judgement)]
    raise_if_strict(strict, problems)
    for judgement in run(partial(_check, preparation), todo, "check"):
        judgements[judgement["case"]] = judgement
        found = _problems(judgement)
        problems += found
        raise_if_strict(strict, found)
    repeated = find_repeated_images({case: judgement["digest"] for case, judgement in judgements.items() if judgement["digest"]})
    raise_if_strict(strict, repeated)
    problems = sorted([*problems, *repeated], key=lambda problem: (problem.case, not problem.error, problem.sentence))
    for problem in problems:
        if problem.error:
            excluded[problem.case] = "; ".join(filter(None, [excluded.get(problem.case), problem.sentence]))
    for case, judgement in judgements.items():
        if judgement["healthy"] and case not in excluded and not keep_healthy:
            excluded[case] = "it has no lesion: its label is empty"
    usable = [study for study in candidates if study.case not in excluded]
    problems = [problem for problem in problems if problem.error or problem.case not in excluded]
    try:
        training, validation = split_by_patient(usable, fraction, seed)
    except InputError as error:
        lines = "".join(f"\n  {line}" for line in _summary_of(excluded))
        raise InputError(f"{error}{lines and ' Left out:'}{lines}") from error
    training, validation = ([judgements[study.case] | {"study": study} for study in split] for split in (training, validation))
    return training, validation, dict(sorted(excluded.items())), problems


def _check(preparation: _Preparation, study: Study) -> dict[str, Any]:
    """Judge a study, and keep the judgement beside the data set, and the study itself, cropped, if it can be used and has a lesion.

    Returns:
        {"version", "case", "sources"; "problems": [file or None, message, error] each; "healthy": whether the label is empty;
        "spacing": of the PET, mm, along the axes of LAS; "digest": of the PET}; the last three None when it cannot be used.
    """
    settings = preparation.settings(study)
    problems, volumes = read_study(study)
    usable = not any(problem.error for problem in problems)
    healthy = not bool(volumes["label"].array.any()) if usable else None
    if healthy is False:
        preparation.cropped(study.case).write(settings, *_crop(preparation, volumes))
    judgement = {
        "version": VERSION,
        "case": study.case,
        "sources": settings["sources"],
        "problems": [
            [problem.file and preparation.relative(problem.file), problem.message, problem.error] for problem in problems
        ],
        "healthy": healthy,
        "spacing": las_spacing(volumes["pet"].affine) if usable else None,
        "digest": volumes["pet"].digest if usable else None,
    }
    write_json(preparation.record("checked", study.case), judgement)
    return judgement


def _problems(judgement: Mapping[str, Any]) -> list[Problem]:
    return [Problem(judgement["case"], file and Path(file), message, error) for file, message, error in judgement["problems"]]


def _make(
    preparation: _Preparation,
    run: Runner,
    training: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    excluded: Mapping[str, str],
    spacing_choice: str | Sequence[float],
) -> list[str]:
    """Write the prepared data set, or what is missing of it.

    Returns:
        The cases whose files are no longer what they were when they were checked; then the data set is not complete.
    """
    dataset_dir = preparation.dataset_dir
    datalist_file, fingerprint_file = dataset_dir / "datalist.json", dataset_dir / "fingerprint.json"
    remove_unfinished(dataset_dir)
    spacing = target_spacing([judgement["spacing"] for judgement in training], spacing_choice)
    studies = {judgement["case"]: judgement["study"] for judgement in (*training, *validation)}
    todo = [study for study in studies.values() if not preparation.is_finished(study, spacing)]
    gone = [file.stem for file in (dataset_dir / RECORDS / "finished").glob("*.json") if file.stem not in studies]
    if todo or gone:
        # Until all is complete again, nothing shall take the data set for complete.
        datalist_file.unlink(missing_ok=True)
        fingerprint_file.unlink(missing_ok=True)
    for case in gone:
        preparation.remove(case)
    changed = [case for case in run(partial(_write_volumes, preparation, spacing), todo, "prepare") if case is not None]
    for case in changed:
        preparation.record("checked", case).unlink(missing_ok=True)
    if changed:
        return changed
    # Of studies that were left out after the check.
    shutil.rmtree(dataset_dir / RECORDS / "cropped", ignore_errors=True)

    values = [np.load(preparation.lesion_values(judgement["case"])) for judgement in training]
    choice = spacing_choice if isinstance(spacing_choice, str) else "given"
    fingerprint = make_fingerprint(
        spacing,
        values,
        f"Spacing: {choice}. Values: every voxel inside of the lesions of {len(training)} training studies, on the original PET grid.",
    )
    datalist = {
        "studies_dir": _relative(preparation.root.resolve(), dataset_dir.resolve()),
        "training": [_item(preparation, judgement["study"]) for judgement in training],
        "validation": [_item(preparation, judgement["study"]) for judgement in validation],
        "excluded": [{"case": case, "reason": reason} for case, reason in excluded.items()],
    }
    # Files that stay as they are keep their time, by which the pipeline knows that nothing needs to be done again.
    if (_read_record(fingerprint_file), _read_record(datalist_file)) != (fingerprint, datalist):
        datalist_file.unlink(missing_ok=True)
        write_json(fingerprint_file, fingerprint)
        write_json(datalist_file, datalist)
    return []


def _item(preparation: _Preparation, study: Study) -> dict[str, Any]:
    item = {"case": study.case, "patient": study.patient, "tracer": study.tracer}
    if study.centre is not None:
        item["centre"] = study.centre
    return item | {
        "image": f"images/{study.case}.nii",
        "label": f"labels/{study.case}.nii",
        "original": {role: preparation.relative(file) for role, file in study.files.items()},
    }


def _write_volumes(preparation: _Preparation, spacing: Sequence[float], study: Study) -> str | None:
    """Make one study's volumes, and at last the record that they are finished.

    Returns:
        The case if its files are no longer what they were when they were checked.
    """
    settings = preparation.settings(study)
    outputs = preparation.outputs(study.case)
    image_file, label_file, values_file = outputs
    record = preparation.record("finished", study.case)
    # From here on the volumes are ours to take away, and not finished.
    write_json(record, None)
    preparation.coarse_mask(study.case).unlink(missing_ok=True)

    cropped = preparation.cropped(study.case)
    if not cropped.is_complete(settings):
        # Checked by an earlier run, or healthy.
        problems, volumes = read_study(study)
        if any(problem.error for problem in problems):
            return study.case
        cropped.write(settings, *_crop(preparation, volumes))
    image, label = (nib.load(file, mmap=False) for file in cropped.files[:2])
    if np.allclose(las_spacing(image.affine), spacing, rtol=SAME_SPACING, atol=0):
        cropped.move(outputs)
    else:
        channels = torch.from_numpy(np.moveaxis(np.asarray(image.dataobj), -1, 0))
        item = {
            "image": MetaTensor(channels, affine=torch.from_numpy(image.affine)),
            "label": MetaTensor(torch.from_numpy(np.asarray(label.dataobj))[None], affine=torch.from_numpy(label.affine)),
        }
        item = SeparableSpacingd(keys=["image", "label"], pixdim=list(spacing), mode=["bilinear", "nearest"])(item)
        _save_volumes(item["image"], item["label"], image_file, label_file)
        make_folder(values_file.parent)
        os.replace(cropped.files[2], values_file)
    shutil.rmtree(cropped.folder)
    stamps = [_stamp(file) for file in outputs]
    write_json(record, {"settings": settings, "spacing": list(spacing), "outputs": stamps})
    return None


def _crop(preparation: _Preparation, volumes: Mapping[str, Volume]) -> tuple[MetaTensor, MetaTensor, np.ndarray]:
    """Crop a study to its body and turn it to LAS, as inference does.

    Returns:
        Image (2, X, Y, Z), CT in HU and PET in SUV; label (1, X, Y, Z); and the values (2, n) of all lesions, also of what of them
        lies outside of the body.
    """
    ct, pet, whole = (volumes[role] for role in ("ct", "pet", "label"))
    image = LoadImagePETCTd("image", preparation.body_suv, preparation.body_margin).join(ct, pet)
    box = tuple(slice(first, first + length) for first, length in zip(image.meta[BODY_START], image.shape[1:], strict=True))
    label = np.ascontiguousarray(whole.array[box], dtype=np.uint8)
    values = image.as_tensor()[:, torch.from_numpy(label).bool()]
    if values.shape[1] < np.count_nonzero(whole.array):
        values = LoadImagePETCTd("image").join(ct, pet).as_tensor()[:, torch.from_numpy(whole.array.astype(bool))]
    item = {"image": image, "label": MetaTensor(torch.from_numpy(label)[None], affine=image.affine)}
    item = Orientationd(keys=["image", "label"], axcodes="LAS", labels=None)(item)
    return item["image"], item["label"], values.numpy()


def _save_volumes(image: MetaTensor, label: MetaTensor, image_file: Path, label_file: Path) -> None:
    """Write an image (C, X, Y, Z) with its channels last, and the label (1, X, Y, Z) on its grid."""
    affine = image.affine.numpy()
    write_volume(image_file, np.moveaxis(image.numpy(), 0, -1), affine)
    write_volume(label_file, label.numpy()[0].astype(np.uint8, copy=False), affine)


@contextmanager
def _workers(number: int) -> Iterator[Runner]:
    """Give a function that calls another for each of some tasks, in processes of their own if there is more than one.

    It yields the results in the order in which they come, and shows a progress bar.
    """
    if number <= 1:

        def run_here(function: Callable[[Task], Result], tasks: Sequence[Task], description: str) -> Iterator[Result]:
            yield from tqdm(map(function, tasks), total=len(tasks), desc=description, unit="study", disable=not tasks)

        yield run_here
        return

    # Fresh processes: forked ones would inherit the locks of the threads that PyTorch has started.
    pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _start_worker)

    def run(function: Callable[[Task], Result], tasks: Sequence[Task], description: str) -> Iterator[Result]:
        futures = [pool.submit(function, task) for task in tasks]
        for future in tqdm(as_completed(futures), total=len(tasks), desc=description, unit="study", disable=not tasks):
            yield future.result()

    try:
        yield run
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Set up a process: one thread for its work, since there are others, and one that ends it when its parent is killed."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the parent process is gone, and end this one, which otherwise would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, with slashes on every system; on another drive of Windows, the path itself."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.as_posix()


def _stamp(file: Path) -> list[int]:
    """Size and time of modification (ns) of a file; nothing when it does not exist."""
    try:
        state = file.stat()
    except OSError:
        return []
    return [state.st_size, state.st_mtime_ns]


def _read_record(file: Path) -> Any:
    """Content of a JSON file, None when there is none or it is broken."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return None


def _shorten(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _summary_of(excluded: Mapping[str, str]) -> list[str]:
    """One line per reason, with the cases that are left out for it."""
    reasons: dict[str, list[str]] = {}
    for case, reason in excluded.items():
        reasons.setdefault(reason, []).append(case)
    return [f"{reason} ({_shorten(cases)})" for reason, cases in reasons.items()]


def _print_summary(
    training: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    excluded: Mapping[str, str],
    warnings: Sequence[Problem],
    dataset_dir: Path,
) -> None:
    if warnings:
        print(f"\n{len(warnings)} warnings on studies that are used:")
        print("\n".join(f"  {warning}" for warning in warnings))
    if excluded:
        print(f"\n{len(excluded)} studies are left out (datalist.json names all):")
        print("\n".join(f"  {line}" for line in _summary_of(excluded)))
    patients = [len({judgement["study"].patient for judgement in split}) for split in (training, validation)]
    print(
        f"\n{dataset_dir}: {len(training)} studies of {patients[0]} patients for training, "
        f"{len(validation)} of {patients[1]} for validation.",
        flush=True,
    )
