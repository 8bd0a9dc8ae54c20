"""Promises of commands that run in processes of their own: none goes on when the program that started it has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers import BUNDLES, ENSEMBLE

from petct_cascade.children import environment, run_child

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
# Where a shell starts tests in the background, they and all below them ignore Ctrl-C.
HEAR = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
# A command that starts one of its own, as `petct train` starts a pipeline, and that a training; or two, side by side.
ONE = f"""
{HEAR}
import sys
from petct_cascade.children import ending_children, run_child
with ending_children():
    sys.exit(run_child([sys.executable, "-c", sys.argv[1], *sys.argv[2:]]))
"""
TWO = f"""
{HEAR}
import sys
from concurrent.futures import ThreadPoolExecutor
from petct_cascade.children import ending_children, run_child
with ending_children(), ThreadPoolExecutor(2) as pool:
    list(pool.map(lambda name: run_child([sys.executable, "-c", sys.argv[1], name]), "ab"))
"""
WORK = HEAR + "import os, pathlib, sys, time; pathlib.Path(f'{sys.argv[1]}.pid').write_text(str(os.getpid())); time.sleep(60)"


@pytest.mark.parametrize(
    ("arguments", "works"), [((ONE, ONE, WORK, "a"), "a"), ((ONE, TWO, WORK), "ab")], ids=["one after another", "side by side"]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_that_a_program_has_started_ends_with_it(tmp_path, arguments, works, number):
    environment = {**os.environ, "PYTHONPATH": str(BUNDLES / ENSEMBLE)}
    command = [sys.executable, "-c", *arguments]
    program = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    files = [tmp_path / f"{name}.pid" for name in works]
    while not all(file.is_file() and file.read_text() for file in files):
        assert program.poll() is None
        time.sleep(0.05)
    started = [psutil.Process(int(file.read_text())) for file in files]
    if number == signal.SIGINT:
        # Ctrl-C reaches all of them.
        os.killpg(program.pid, number)
    else:
        program.send_signal(number)
    assert program.wait(30) == (128 + number if number == signal.SIGTERM else -number)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in started)


def test_exit_code_is_that_of_the_command_and_of_a_shell_where_a_signal_has_ended_it():
    assert run_child([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert run_child([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 imports modules from the current folder")
def test_nothing_that_lies_in_the_current_folder_is_run(tmp_path):
    # A folder of data, in which somebody has put a file called as a module of Python's own.
    (tmp_path / "timeit.py").write_text("raise SystemExit(7)")
    command = [sys.executable, "-m", "timeit", "-n", "1", "-r", "1", "pass"]
    assert run_child(command, cwd=tmp_path, env={**environment(), "PYTHONSAFEPATH": ""}) == 7
    assert run_child(command, cwd=tmp_path, env=environment()) == 0
