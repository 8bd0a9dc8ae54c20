"""Studies as a stream: each is read once, judged while others are segmented, and handed on with what reading it has told."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from monai.data import DataLoader, Dataset, list_data_collate
from torch.utils.data import Sampler

from petct_cascade.coarse_mask import read_coarse_mask
from petct_cascade.judging import read_study
from petct_cascade.problems import Problem, problem_of_sentence
from petct_cascade.studies import Study
from petct_cascade.volumes import Source, Volume, as_source
from petct_training.errors import InputError
from petct_training.records import file_state

# Key under which a batch holds the `Reading` of its study.
READING = "reading"


@dataclass(frozen=True)
class Reading:
    """What reading a study has told.

    Attributes:
        case: the study's name.
        problems: what is wrong with it; with an error among them it has not become a batch.
        states: of each of its files that was read, by its path; see `petct_training.records.file_state`.
        digest: of the PET, see `petct_cascade.volumes.Volume`; None when the study was not judged, or cannot be used.
    """

    case: str
    problems: list[Problem] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    digest: str | None = None

    @property
    def usable(self) -> bool:
        """Whether no problem is an error."""
        return not any(problem.error for problem in self.problems)


class StudyReader(Dataset):
    """A data set of studies as items with "case" and, where it has files, "image": [CT, PET].

    Whatever goes wrong with a study while it is read or transformed is told by its reading, and costs no other study.

    Args:
        data: items.
        transform: what is done with each; it gets volumes in the place of the files when they were judged.
        judge: whether a study is judged by `petct_cascade.judging.read_study`.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable | None, judge: bool) -> None:
        super().__init__(data, transform)
        self.judge = judge

    def _transform(self, index: int) -> dict[str, Any]:
        """Return the transformed item with its reading, or the reading alone when the study cannot be used."""
        item = dict(self.data[index])
        reading = Reading(item["case"])
        try:
            if self.judge and not isinstance(item.get("image", ""), (str, os.PathLike)):
                reading, volumes = _read(item)
                item |= volumes
            if reading.usable:
                done = item if self.transform is None else self.transform(item)
                return {**done, READING: reading}
        except Exception as error:
            reading.problems.append(problem_of(error, item["case"]))
        return {READING: reading}


class StudyStream:
    """The batches of the studies that can be used, as an evaluator takes them; those of others are told and left out.

    An evaluator that ends at an error goes on with the next study when it is run again.

    Args:
        batches: from a loader of `study_loader`.
        take: told each reading before its batch is given; returns whether it is given.

    Attributes:
        case: the study whose batch was given last.
        broken: what has ended the loading itself, which is no study's fault.
    """

    def __init__(self, batches: Iterator[dict[str, Any]], take: Callable[[Reading], bool]) -> None:
        self.batches, self.take = batches, take
        self.case = ""
        self.broken: Exception | None = None

    def __iter__(self) -> StudyStream:
        return self

    def __next__(self) -> dict[str, Any]:
        while True:
            try:
                batch = next(self.batches)
            except StopIteration:
                raise
            except Exception as error:
                self.broken = error
                raise
            reading = batch.pop(READING)
            self.case = reading.case
            if self.take(reading):
                return batch


class UnclaimedStudies(Sampler[int]):
    """Gives the index of each study that nobody else does, one after another as there is room to load it.

    Args:
        items: with "case".
        claim: claims a study by its case; returns whether this process is to do it.
        left: told each case that it is not to do.
    """

    def __init__(self, items: Sequence[Mapping[str, Any]], claim: Callable[[str], bool], left: Callable[[str], object]) -> None:
        self.items, self.claim, self.left = items, claim, left

    def __iter__(self) -> Iterator[int]:
        for index, item in enumerate(self.items):
            if self.claim(item["case"]):
                yield index
            else:
                self.left(item["case"])

    def __len__(self) -> int:
        return len(self.items)


def study_loader(loader: DataLoader, judge: bool, claim: Callable[[str], bool], left: Callable[[str], object]) -> DataLoader:
    """Return a loader of the same items with the same transforms as another one, whose batches hold a reading each.

    Args:
        loader: its dataset's `data` is a list of items, one a batch.
        judge: see `StudyReader`.
        claim, left: see `UnclaimedStudies`.
    """
    given = cast(Dataset, loader.dataset)
    dataset = StudyReader(given.data, given.transform, judge)
    sampler = UnclaimedStudies(given.data, claim, left)
    return DataLoader(dataset, batch_size=1, sampler=sampler, num_workers=loader.num_workers, collate_fn=_collate)


def problem_of(error: BaseException, case: str) -> Problem:
    """Return the problem of a study that has failed: the sentence of the `InputError` behind an exception, or else what the
    exception says.

    MONAI wraps what a transform raises into a `RuntimeError`.
    """
    sentence = _sentence_of(error)
    if sentence is not None:
        return problem_of_sentence(sentence, case)
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    text = str(error).strip() or type(error).__name__
    # Of a text that holds tracebacks, the first error is what has happened.
    told = re.search(r"^[\w.]*(?:Error|Exception): (.+)$", text, flags=re.MULTILINE) if "Traceback" in text else None
    reason = told.group(1) if told else text.splitlines()[0]
    return Problem(
        case, None, f"it could not be segmented ({reason}): run it alone to see whether that happens again", error=True
    )


def _read(item: Mapping[str, Any]) -> tuple[Reading, dict[str, Any]]:
    """Read and judge CT and PET of an item, and its label and coarse mask if it has them.

    Returns:
        The reading, and what takes the place of the files in the item: "image", and "coarse_mask" on the PET's grid.
    """
    ct, pet = (as_source(file) for file in item["image"])
    # A label that cannot be used is known before the networks have worked for nothing.
    label = as_source(item["label"]) if item.get("label") else None
    problems, volumes = read_study(Study(item["case"], item.get("patient", ""), item.get("tracer", ""), ct, pet, label))
    mask = None
    if item.get("coarse_mask") and "pet" in volumes:
        mask, said = _read_coarse_mask(item["case"], as_source(item["coarse_mask"]), volumes["pet"])
        problems += said
    reading = Reading(item["case"], problems, _states_of((ct, pet)))
    if not reading.usable:
        return reading, {}
    read = {"image": [volumes["ct"], volumes["pet"]], **({} if mask is None else {"coarse_mask": mask})}
    return Reading(reading.case, problems, reading.states, volumes["pet"].digest), read


def _read_coarse_mask(case: str, source: Path | Source, pet: Volume) -> tuple[Volume | None, list[Problem]]:
    """Return a study's coarse mask on the grid of its PET, None where it cannot be used, and what is to be said of it."""
    try:
        mask, warnings = read_coarse_mask(source, pet.array.shape, pet.affine)
    except InputError as error:
        return None, [Problem(case, source, str(error), error=True)]
    return Volume(source, mask, pet.affine), [Problem(case, source, warning, error=False) for warning in warnings]


def _states_of(files: Sequence[Path | Source]) -> dict[str, dict[str, Any]]:
    """Return the states of files by their paths, as far as they are there."""
    states = {os.fspath(file): file_state(file) for file in files}
    return {path: state for path, state in states.items() if state is not None}


def _collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the batch of one item, with its reading as it is."""
    (item,) = items
    reading = item.pop(READING)
    return {**(list_data_collate([item]) if item else {}), READING: reading}


def _sentence_of(error: BaseException | None) -> str | None:
    """Return the sentence of the `InputError` that is behind an exception, None when there is none."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        error = error.__cause__ or error.__context__
    return None
