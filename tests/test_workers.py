"""Promises of the pool of processes that checks, prepares, converts and reads out studies."""

from __future__ import annotations

import os
import sys

import pytest
from helpers import BUNDLES, ENSEMBLE
from processes import run_python

from petct_cascade.workers import Workers

PROGRAM = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from petct_cascade.workers import Workers
with Workers(2) as workers:
    print(sorted(workers.map(abs, [-2, 1], "count")))
"""


def test_processes_begin_where_the_folder_for_temporary_files_has_a_path_too_long_for_a_socket(tmp_path):
    folder = tmp_path / ("t" * 150)
    folder.mkdir()
    done = run_python([sys.executable, "-W", "ignore", "-c", PROGRAM, folder], cwd=BUNDLES / ENSEMBLE)
    assert (done.returncode, done.stdout) == (0, "[1, 2]\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="each process loads MONAI by itself")
def test_processes_of_a_pool_are_forked_from_one_that_has_loaded_monai():
    with Workers(2) as workers:
        (loaded,) = workers.map(eval, ["'monai' in __import__('sys').modules, __import__('os').getppid()"], "look")
    assert loaded[0]
    assert loaded[1] != os.getpid()
