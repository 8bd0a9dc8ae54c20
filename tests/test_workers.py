"""Promises of the pool of processes that checks, prepares, converts and reads out studies."""

from __future__ import annotations

import os
import sys

import pytest

from petct_cascade.workers import Workers


@pytest.mark.skipif(sys.platform != "linux", reason="each process loads MONAI by itself")
def test_processes_of_a_pool_are_forked_from_one_that_has_loaded_monai():
    with Workers(2) as workers:
        (loaded,) = workers.map(eval, ["'monai' in __import__('sys').modules, __import__('os').getppid()"], "look")
    assert loaded[0]
    assert loaded[1] != os.getpid()
