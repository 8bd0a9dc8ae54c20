"""What was found out about each study: made study by study, and kept with a record of what it was made from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from petct_cascade.dicom_output import dicom_files
from petct_cascade.metrics import COUNT_NAMES, METRIC_NAMES
from petct_cascade.problems import Problem, first_names, number_of_studies, problem_of_sentence
from petct_cascade.provenance import record_of
from petct_cascade.readouts import VERSION, readouts_without_nan, without_nan
from petct_cascade.report.study_page import FOLDER, PROGRAM_FILES, VIEWER, files_of_page
from petct_cascade.report.study_parts import origin_of_study
from petct_cascade.report.viewer import write_program
from petct_cascade.results import picture_of
from petct_cascade.tasks import Results, StudyTask, do_study, files_of
from petct_cascade.version import versions
from petct_cascade.workers import OUT_OF_MEMORY, Workers
from petct_training.errors import InputError
from petct_training.files import read_json, write_json
from petct_training.records import RECORDS, Plan, Records

# No case begins with a dot.
VIEWER_PLAN = Plan(".viewer", {}, {}, PROGRAM_FILES)


class StudyResults:
    """The scores, read-outs, pictures, pages and DICOM objects of studies in an output folder.

    Scores and read-outs of a study lie in `studies/<case>.json`.

    Args:
        records: of the output folder.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.has_viewer = False
        # Cases that an earlier run has read out, and this one only scores.
        self.only_scored: list[str] = []

    def plan(self, task: StudyTask) -> Plan:
        """Return what is made of a study, and from what."""
        case = task.item["case"]
        names = ("patient", "tracer", "centre", "body")
        settings = {
            "version": VERSION,
            "model": task.primary,
            "suv_range": list(task.suv_range),
            **{name: task.item[name] for name in names if task.item.get(name)},
        }
        outputs = [f"{FOLDER}/{case}.json"]
        if task.picture is not None:
            outputs.append(picture_of(Path(), case).as_posix())
        if task.dicom is not None:
            settings["dicom"] = task.dicom.segments
            outputs += [file.as_posix() for file in dicom_files(Path(), case)]
        if task.page is not None:
            settings["page"] = {"title": task.page.title, "viewer": task.page.viewer}
            outputs += files_of_page(case, task.page.viewer)
        sources = {role: file for role, file in files_of(task).items() if file is not None}
        return Plan(_name(case), sources, settings, outputs)

    def check(self, tasks: Iterable[StudyTask]) -> list[Problem]:
        """Return an error for each study in whose place somebody else's files lie."""
        problems = []
        for task in tasks:
            try:
                self.records.check(self.plan(task))
            except InputError as error:
                problems.append(problem_of_sentence(str(error), task.item["case"]))
        return problems

    def is_current(self, task: StudyTask) -> bool:
        """Whether a study's results are there, and were made from this very content.

        Raises:
            InputError: as `petct_training.records.Records.is_current`.
        """
        return self.records.is_current(self.plan(task)) and self.is_complete(task.item["case"])

    def is_complete(self, case: str) -> bool:
        """Whether nothing went wrong with a study whose results are there."""
        return bool(read_json(self._file(case)).get("complete", True))

    def is_intact(self, case: str) -> bool:
        """Whether a study's results are there, from whatever they were made."""
        return self.records.is_intact(_name(case))

    def names(self) -> list[str]:
        """Return the cases of which there are results, or were begun, sorted."""
        return sorted(file.name.removesuffix(".json") for file in (self.records.folder / RECORDS / FOLDER).glob("*.json"))

    def settings(self, case: str) -> dict[str, Any]:
        """Return the options with which a study's results were made."""
        return dict((self.records.read(_name(case)) or {})["settings"])

    def origin(self, case: str) -> dict[str, Any]:
        """Return the record of a study's mask; of a mask of unknown origin, what a record would say of the files that were read."""
        sources = (self.records.read(_name(case)) or {})["sources"]
        return self.records.read(case) or {"sources": sources, "settings": {}, "about": {"versions": versions()}}

    def read(self, case: str) -> Results:
        """Return what is kept of a study.

        Raises:
            InputError: when it cannot be read.
        """
        content = read_json(self._file(case))
        results = Results()
        for row in content["scores"]:
            # JSON knows no NaN.
            missing = {name: float("nan") for name in (*METRIC_NAMES, *COUNT_NAMES) if row.get(name, 0) is None}
            results.rows.append({**row, **missing})
        if content["readouts"] is not None:
            results.readouts[case] = content["readouts"]
        return results

    def begin(self, task: StudyTask) -> StudyTask:
        """Record that a study's results are going to be made; what was made of it before, and is no longer wanted, is deleted.

        Returns:
            The task, whose page says what the study's mask was made from.

        Raises:
            InputError: as `petct_training.records.Records.check`.
        """
        if task.page is not None and task.page.viewer:
            self._make_viewer()
        case, plan = task.item["case"], self.plan(task)
        if task.picture is None and picture_of(Path(), case).as_posix() in self._outputs(case):
            self.only_scored.append(case)
        self.records.begin(plan)
        if task.page is None:
            return task
        record = record_of(self.records, case, files_of(task))
        return replace(task, page=replace(task.page, origin=origin_of_study(record)))

    def finish(self, task: StudyTask, results: Results) -> None:
        """Keep what was found out about a study. A rerun does it again if something went wrong.

        Where it was not read out, picture and page of an earlier run are deleted: nobody must take them for this one's.

        Raises:
            InputError: when it cannot be written.
        """
        case = task.item["case"]
        failed = any(problem.error for problem in results.problems)
        readouts = results.readouts.get(case)
        if failed and readouts is None:
            for output in self.plan(task).outputs:
                self.records.delete(output)
            if not results.rows:
                return
        content = {
            "complete": not failed,
            "scores": [without_nan(row) for row in results.rows],
            "readouts": None if readouts is None else readouts_without_nan(readouts),
        }
        write_json(self._file(case), content)
        self.records.finish(self.plan(task))

    def keep_only(self, cases: Iterable[str]) -> None:
        """Delete the results of other cases, as far as they are still what this program has written, with the viewer and the folder
        of pictures where no study needs them any longer; and say what was deleted of earlier runs.
        """
        others = sorted(set(self.names()) - set(cases))
        for case in others:
            self.records.remove(_name(case))
        if others:
            names = first_names(others, most=1)
            print(f"Read-outs of an earlier run were taken away, of which this one has none: {names}.", flush=True)
        if self.only_scored:
            number = number_of_studies(len(self.only_scored))
            print(
                f"Read-outs of {number} of an earlier run, with their pictures and pages, were taken away, since no images are "
                "given now: name the folder of images with --images to have them again.",
                flush=True,
            )
        self._delete_unused()

    def _delete_unused(self) -> None:
        """Delete the viewer's program and the folder of pictures where no study, finished or begun, has use for them."""
        if (self.records.folder / VIEWER).is_dir() and not self._is_output("/volumes.js"):
            self.records.remove(VIEWER_PLAN.name)
        pictures = picture_of(self.records.folder, "").parent
        if pictures.is_dir() and not any(pictures.iterdir()) and not self._is_output(".png"):
            pictures.rmdir()

    def _is_output(self, ending: str) -> bool:
        """Whether any study's results, finished or begun, have a file whose name ends so."""
        return any(output.endswith(ending) for case in self.names() for output in self._outputs(case))

    def _outputs(self, case: str) -> list[str]:
        """Return the files of a study's results, finished or begun, with slashes."""
        return list((self.records.read(_name(case)) or {"outputs": ()})["outputs"])

    def _make_viewer(self) -> None:
        """Write the viewer's program, which the pages of all studies share."""
        if not self.has_viewer:
            with self.records.making(VIEWER_PLAN):
                write_program(self.records.folder / VIEWER)
            self.has_viewer = True

    def _file(self, case: str) -> Path:
        return self.records.folder / FOLDER / f"{case}.json"


class ResultStream:
    """Makes the results of studies, in processes of their own if there are several, while the caller goes on.

    Args:
        kept: where they are kept.
        number: of processes; with one or none, each is made before `submit` returns.
        progress: the bar of those that are made.

    Attributes:
        results: of all studies that were submitted; complete when the block has ended.
        error: what went wrong otherwise, which is the fault of no study.
    """

    def __init__(self, kept: StudyResults, number: int, progress: tqdm | None = None) -> None:
        self.kept, self.progress = kept, progress
        self.workers = Workers(number)
        self.results = Results()
        self.error: Exception | None = None
        # So that studies wait as masks on the disk, and not as tasks whose number grows.
        self.room = threading.Semaphore(2 * max(1, number))

    def __enter__(self) -> ResultStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.workers.close(cancel=kind is not None)

    def submit(self, task: StudyTask, done: Callable[[], object] = bool) -> None:
        """Make the results of a study as soon as there is room.

        Args:
            task: what there is to do.
            done: called afterwards, whatever became of it.
        """
        try:
            task = self.kept.begin(task)
        except Exception as error:
            # No fault of its mask, which is there: it is read out at the end, where what is in the way is told once.
            self.error = error
            done()
            return
        self.room.acquire()
        try:
            future = self.workers.submit(do_study, task)
        except BrokenProcessPool as error:
            # As of a study that was with the process that was ended: its mask is there, and it is read out at the end.
            future = Future()
            future.set_exception(error)
        future.add_done_callback(partial(self._take, task, done))

    def _take(self, task: StudyTask, done: Callable[[], object], future: Future[Results]) -> None:
        """Keep what became of a study."""
        try:
            found = future.result()
            self.kept.finish(task, found)
            self.results.add(found)
        except BrokenProcessPool:
            self.error = InputError(OUT_OF_MEMORY.format(number=self.workers.number))
        except Exception as error:
            # Nobody sees what is raised in a callback.
            self.error = error
        finally:
            self.room.release()
            done()
            if self.progress is not None:
                self.progress.update()


def make_results(tasks: Sequence[StudyTask], kept: StudyResults, num_workers: int = 1) -> Results:
    """Return the results of studies; those that are not kept, or were made from something else, are made.

    Args:
        tasks: what is wanted of each study.
        kept: where results are kept.
        num_workers: number of processes.

    Returns:
        The results, with an error for each study in whose place somebody else's files lie.

    Raises:
        InputError: when results cannot be written, or a process was ended from outside.
    """
    found, todo = Results(problems=kept.check(tasks)), []
    refused = {problem.case for problem in found.problems}
    for task in tasks:
        if task.item["case"] in refused:
            continue
        if kept.is_current(task):
            found.add(kept.read(task.item["case"]))
        else:
            todo.append(task)
    with (
        tqdm(total=len(todo), desc="read out", unit="study", disable=not todo) as progress,
        ResultStream(kept, min(num_workers, len(todo)), progress) as stream,
    ):
        for task in todo:
            stream.submit(task)
    if stream.error is not None:
        raise stream.error
    found.add(stream.results)
    return found


def files_of_case(records: Records, case: str) -> list[Path]:
    """Return the files of a study that runs over an output folder have written, and so may replace or delete; and its DICOM
    objects, which are replaced unasked.
    """
    known = [record for name in (case, _name(case)) if (record := records.read(name)) is not None]
    return [*(records.folder / output for record in known for output in record["outputs"]), *dicom_files(records.folder, case)]


def _name(case: str) -> str:
    """Return the name of the record of a study's results."""
    return f"{FOLDER}/{case}"
