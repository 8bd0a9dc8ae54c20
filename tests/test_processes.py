"""What tests/processes.py promises: a command that is forked does what it does as a process by itself."""

from __future__ import annotations

import subprocess
import sys

from processes import run_python


def test_a_command_starts_its_own_processes_as_one_that_starts_by_itself_does():
    command = [sys.executable, "-c", "import multiprocessing; print(multiprocessing.get_start_method())"]
    alone = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run_python(command).stdout == alone.stdout
