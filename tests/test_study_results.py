"""Promises of the stream of studies' results: a process that is ended costs no other study, and nobody waits for it."""

from __future__ import annotations

import os
import sys

import pytest

from petct_cascade import study_results
from petct_cascade.study_results import ResultStream, StudyResults, make_results
from petct_cascade.tasks import Results, StudyTask
from petct_training.errors import InputError
from petct_training.records import Records


def end_process(task: StudyTask) -> Results:
    """Stands in for `do_study`: as where memory lacks."""
    os._exit(9)


@pytest.fixture
def tasks(monkeypatch) -> list[StudyTask]:
    monkeypatch.setattr(study_results, "do_study", end_process)
    monkeypatch.setattr(StudyResults, "begin", lambda self, task: task)
    monkeypatch.setattr(StudyResults, "is_current", lambda self, task: False)
    return [StudyTask({"case": f"study {number}"}, {}, "Ensemble") for number in range(12)]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one that has loaded these stand-ins")
def test_processes_that_are_ended_keep_nobody_waiting_and_every_study_is_let_go(tasks, tmp_path):
    done = []
    with ResultStream(StudyResults(Records(tmp_path, "read-outs")), 2) as stream:
        for task in tasks:
            stream.submit(task, lambda case=task.item["case"]: done.append(case))
    assert sorted(done) == sorted(task.item["case"] for task in tasks)
    assert isinstance(stream.error, InputError)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked from one that has loaded these stand-ins")
def test_processes_that_are_ended_are_one_sentence(tasks, tmp_path):
    with pytest.raises(InputError, match="num_workers"):
        make_results(tasks, StudyResults(Records(tmp_path, "read-outs")), 2)
