"""Studies to score or read out, as items: of a prepared data set, of a folder of references, of a folder of masks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from petct_cascade.lists import read_list
from petct_cascade.problems import Problem, raise_if_any
from petct_cascade.studies import CHANNELS, TRACERS, identity, is_inside, list_without_names
from petct_cascade.volumes import as_mask, flaw_of_suffix, read_volume, without_suffix
from petct_training.errors import InputError
from petct_training.files import SUFFIXES, read_json, read_json_or_none
from petct_training.folds import has_folds, held_out
from petct_training.records import HELD_OUT

Item = dict[str, Any]


class References(NamedTuple):
    """Studies against which masks are scored.

    Attributes:
        items: {"case", "label"} of each, with "image" ([CT file or None, PET file]), "patient", "tracer", "centre" where they are
            known.
        problems: why further studies cannot be scored.
    """

    items: list[Item]
    problems: list[Problem]


def validation_items(dataset_dir: str | os.PathLike, split: str = "validation", allow_outside: bool = False) -> list[Item]:
    """Return the studies of a prepared data set with their original images and labels.

    Args:
        dataset_dir: prepared data set, with `datalist.json`; its `studies_dir` may be anywhere, as `prepare` writes where it was.
        split: "validation" or "training"; of a data set with folds all studies are taken.
        allow_outside: whether a study's files may lie outside of `studies_dir`; see `petct_cascade.studies.find_studies`.

    Returns:
        Items {"case", "patient", "tracer", ("centre", "fold"), "image": [CT file, PET file], "label": file}.

    Raises:
        InputError: the folder holds no `datalist.json`, `studies_dir` does not exist, or files lie outside of it.
    """
    path = Path(dataset_dir) / "datalist.json"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: prepare a data set with `python -m monai.bundle run prepare --config_file "
            "configs/prepare.json` in autopet_ensemble, and name its folder with --dataset_dir"
        )
    content = read_json(path)
    studies_dir = Path(dataset_dir) / content["studies_dir"]
    if not studies_dir.is_dir():
        raise InputError(
            f"{path} says that the raw studies lie in {studies_dir}, which does not exist: prepare the data set again with the "
            "studies where they are now, which keeps what is done"
        )
    entries = content["training"] if has_folds(path) else content[split]
    items = [_item_of_entry(entry, studies_dir) for entry in entries]
    outside = [(item, file) for item in items for file in _files_of(item) if not is_inside(file, studies_dir)]
    if outside and not allow_outside:
        item, file = outside[0]
        raise InputError(
            f"{path} names {file} in study {item['case']}, which lies outside of {studies_dir}: prepare the data set again, "
            "or allow it with --allow_outside true"
        )
    return items


def unseen_items(dataset_dir: str | os.PathLike, fingerprint_file: str | os.PathLike, allow_outside: bool = False) -> list[Item]:
    """Return the studies of a prepared data set with which weights of a cascade are evaluated: those that they have not seen.

    Without folds these are the validation studies. Where weights were trained with other studies than those that the data set has
    for training, a warning says that they may have seen these. With folds they are the studies of each fold that every network
    holds out; each item then has its "fold", so that the networks which have not seen it answer.

    Args:
        dataset_dir: prepared data set.
        fingerprint_file: the fingerprint beside the weights, which remembers their folds.
        allow_outside: see `validation_items`.

    Raises:
        InputError: as `validation_items`; or when the weights were not trained with the folds of the data set.
    """
    items = validation_items(dataset_dir, allow_outside=allow_outside)
    datalist = Path(dataset_dir) / "datalist.json"
    if not has_folds(datalist):
        if not _is_of_data_set(Path(fingerprint_file), Path(dataset_dir)):
            print(
                "warning: the weights were trained with other studies than those that the data set has for training, and may have "
                "seen its validation studies: unless they come from other patients, evaluate them with the data set, and the "
                "split, that they were trained with",
                flush=True,
            )
        return items
    known: dict[str, list[dict[str, Any]]] = read_json(fingerprint_file).get(HELD_OUT) or {}
    own = _folds_of(datalist)
    of_networks = [{entry["fold"] for entry in entries if entry in own} for entries in known.values()]
    folds = set.intersection(*of_networks) if of_networks else set()
    if not folds:
        raise InputError(
            f"the weights beside {fingerprint_file} were not trained with the folds of {datalist}, and may have seen any of its "
            "studies: train with these folds, or name other labelled studies with --studies"
        )
    return [item for item in items if item["fold"] in folds]


def _is_of_data_set(fingerprint_file: Path, dataset_dir: Path) -> bool:
    """Return whether weights were trained with the training studies of a data set, by the values in both fingerprints."""
    known, own = (read_json_or_none(file) or {} for file in (fingerprint_file, dataset_dir / "fingerprint.json"))
    return all(known.get(name) == own.get(name) for name in ("ct", "pet"))


def _folds_of(datalist: Path) -> list[dict[str, Any] | None]:
    """Return what weights of each fold of a data set remember."""
    numbers = {entry["fold"] for entry in read_json(datalist)["training"]}
    return [held_out(datalist, number) for number in sorted(numbers)]


def reference_items(
    references: str | os.PathLike | None = None,
    dataset_dir: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    allow_outside: bool = False,
) -> References:
    """Return the studies against which masks are scored: of a folder of references, or else of a prepared data set's validation.

    Args:
        references: folder of reference masks `<case>.nii.gz` or `<case>.nii`, or a data set in the challenge's layout (its labelsTr
            and imagesTr are used).
        dataset_dir: prepared data set, with `datalist.json`; used where there are no `references`.
        images: folder with `<case>_0001.nii.gz` (PET, SUV) and, if there is one, `<case>_0000.nii.gz` (CT, HU), for read-outs and
            pictures of `references`; or a data set in the challenge's layout.
        allow_outside: see `validation_items`.

    Raises:
        InputError: nothing is given, a folder is missing or empty, or none of its references can be used.
    """
    if references is not None:
        return _items_of_folder(Path(references), None if images is None else Path(images))
    if dataset_dir is None:
        raise InputError("no references are given: name a folder with --references, or a prepared data set with --dataset_dir.")
    return References(validation_items(dataset_dir, allow_outside=allow_outside), [])


def item_of_case(case: str, images: Path | None = None) -> Item:
    """Return the item of a case: its images in a folder, and the tracer and patient in its name.

    Args:
        case: name of the study; the challenge's are `<tracer>_<patient>_<description>`.
        images: folder with `<case>_0001.nii.gz` or `.nii` (PET), and perhaps `<case>_0000` (CT).

    Returns:
        {"case"}, with "patient" and "tracer" if the name is one of the challenge's, and "image" ([CT file or None, PET file])
        if the PET is there.

    Raises:
        InputError: as `images_of_case`.
    """
    item: Item = {"case": case}
    tracer, patient = identity(case)
    if tracer in TRACERS:
        item |= {"tracer": tracer, "patient": patient}
    files = {} if images is None else images_of_case(case, images)
    if "pet" in files:
        item["image"] = [str(files["ct"]) if "ct" in files else None, str(files["pet"])]
    return item


def items_of_cases(cases: Iterable[str], images: Path | None = None) -> tuple[list[Item], list[Problem]]:
    """Return the items of cases, as `item_of_case`, and an error for each whose images cannot be told."""
    items, problems = [], []
    for case in cases:
        try:
            items.append(item_of_case(case, images))
        except InputError as error:
            problems.append(Problem(case, None, str(error), error=True))
    return items, problems


def images_of_case(case: str, folder: Path) -> dict[str, Path]:
    """Return the files of a case that exist in a folder, as "ct" and "pet".

    Raises:
        InputError: when one is there twice, with different suffixes; the message is a sentence of the study.
    """
    candidates = [(role, folder / f"{case}_{number}{suffix}") for number, role in CHANNELS.items() for suffix in SUFFIXES]
    files: dict[str, Path] = {}
    for role, file in candidates:
        if file.is_file() and (first := files.setdefault(role, file)) != file:
            raise InputError(f"its {role.upper()} {file.name} is there as {first.name}, too: keep one of the two")
    return files


def images_in(folder: Path) -> Path:
    """Return where the images of a folder lie: in a data set in the challenge's layout in its imagesTr, else in itself."""
    inner = folder / "imagesTr"
    return inner if inner.is_dir() else folder


def masks_in_folder(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """Return the file of each case in a folder, sorted, and an error for each that has two, or one with its suffix in capitals.

    A study's CT and PET, which may lie there, too, are no masks.

    Raises:
        InputError: the folder is none, or holds no file of a volume.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the folder with the masks.")
    files: dict[str, Path] = {}
    problems = []
    there = [file for file in sorted(folder.iterdir()) if file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".")]
    files_of = {without_suffix(file.name): file for file in there}
    images = {
        f"{case}_{number}" for case in {name[:-5] for name in files_of} if _are_images(case, files_of) for number in CHANNELS
    }
    for file in there:
        case = without_suffix(file.name)
        if case in images:
            continue
        if flaw := flaw_of_suffix(file.name):
            problems.append(Problem(case, file, flaw, error=True))
        elif case in files:
            message = f"is not this study's only mask, there is a second file {files[case].name}: take one of them away"
            problems.append(Problem(case, file, message, error=True))
        else:
            files[case] = file
    for problem in problems:
        files.pop(problem.case, None)
    if not files and not problems:
        raise InputError(f"{folder} holds no masks ({', '.join(SUFFIXES)}): name the folder with the masks.")
    return files, problems


def _are_images(case: str, files: Mapping[str, Path]) -> bool:
    """Whether a study's CT and PET are among files, by their names, and not masks that are numbered 0000 and 0001."""
    if any(f"{case}_{number}" not in files for number in CHANNELS):
        return False
    if case in files:
        return True
    try:
        as_mask(read_volume(files[f"{case}_0000"])[0])
    except InputError:
        return True
    return False


def _item_of_entry(entry: Mapping[str, Any], studies_dir: Path) -> Item:
    """Return the item of an entry of a data list, whose files are named from `studies_dir`."""
    original = {role: str(studies_dir / file) for role, file in entry["original"].items()}
    item = {name: entry[name] for name in ("case", "patient", "tracer", "centre", "fold") if name in entry}
    return item | {"image": [original["ct"], original["pet"]], "label": original["label"]}


def _files_of(item: Item) -> list[str]:
    return [*item["image"], item["label"]]


def _items_of_folder(references: Path, images: Path | None) -> References:
    """Return the studies of a folder of reference masks, or of a data set in the challenge's layout."""
    if (references / "labelsTr").is_dir():
        images = images or references
        references = references / "labelsTr"
    images = images and images_in(images)
    files, problems = masks_in_folder(references)
    items, without_images = items_of_cases(files, images)
    problems = [*(replace(problem, message=f"of the references {problem.message}") for problem in problems), *without_images]
    if not items:
        raise_if_any(problems, f"no study of {references} can be scored", anything_done=False)
    known = list_without_names(references)
    patients = {} if known is None else {entry.texts["case"]: {"patient": entry.texts["patient"]} for entry in read_list(known)}
    items = [item | patients.get(item["case"], {}) | {"label": str(files[item["case"]])} for item in items]
    return References(items, problems)
