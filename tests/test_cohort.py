"""Promises of docs/cohorts.md: one process or many, whatever the number of studies; the first result comes after the time of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import BUNDLES, ENSEMBLE, ENVIRONMENT, WINDOWS, las, write_nifti, write_study
from processes import run_python

NUMBER, FEW = 300, 30
# Of so many studies, one is bad.
BAD_EVERY = 20


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Tiny studies, some of them bad."""
    folder = tmp_path_factory.mktemp("cohort")
    for number in range(NUMBER):
        write_study(folder, f"fdg_p{number:03}_1", seed=number, shape=(14, 13, 12), spacing=(6, 6, 6))
        if number % BAD_EVERY == 7:
            write_nifti(folder / f"imagesTr/fdg_p{number:03}_1_0001.nii.gz", np.zeros((14, 13, 12), np.float32), las((6, 6, 6)))
    return folder


def few(cohort: Path, folder: Path, number: int = FEW) -> Path:
    """A list of the first studies of a cohort."""
    names = [f"fdg_p{index:03}_1" for index in range(number)]
    rows = [f"{name},{cohort}/imagesTr/{name}_0000.nii.gz,{cohort}/imagesTr/{name}_0001.nii.gz" for name in names]
    file = folder / "few.csv"
    file.write_text("\n".join(["case,ct,pet", *rows]) + "\n")
    return file


def command(models: Path, studies: Path, output: Path, processes: int = 1, **overrides) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    files = "['configs/inference.json','configs/demo.json']"
    options = {
        "studies": studies,
        "ckpt_dir": models,
        "output_dir": output,
        "patch_sizes": WINDOWS,
        "num_workers": 1,
        **overrides,
    }
    options |= {"allow_outside": True}
    result = [sys.executable, "-W", "ignore", *launcher, "-m", "monai.bundle", "run", "inferring", "--config_file", files]
    return result + [text for name, value in options.items() for text in (f"--{name}", str(value))]


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return run_python(arguments, BUNDLES / ENSEMBLE, ENVIRONMENT)


def content_of(folder: Path) -> dict[str, object]:
    """Every file of an output folder: its bytes; of a record what was written, without paths and clocks."""
    result: dict[str, object] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        record = json.loads(file.read_text()) if name.startswith("records/") and "/problems/" not in name else None
        result[name] = (
            file.read_bytes() if record is None else {output: state["sha256"] for output, state in record["written"].items()}
        )
    return result


def peak_mib(arguments: list[str]) -> float:
    """The most memory that a command's process has had, MiB, as the system counts it."""
    code = "import resource, runpy, sys\ntry:\n    sys.argv[:] = sys.argv[1:]\n    runpy.run_module('monai.bundle', run_name='__main__')\n"
    code += "finally:\n    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)\n"
    start = arguments.index("-m")
    done = run([sys.executable, "-W", "ignore", "-c", code, *arguments[start + 1 :]])
    assert done.returncode == 3, done.stderr[-3000:]
    return float(done.stdout.rsplit("peak ", 1)[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_memory_does_not_grow_with_the_number_of_studies(cohort, models, tmp_path):
    small = peak_mib(command(models, few(cohort, tmp_path), tmp_path / "few"))
    large = peak_mib(command(models, cohort, tmp_path / "all"))
    assert large < 1.1 * small
    done = len(list((tmp_path / "all").glob("*.nii.gz")))
    assert done == NUMBER - len(range(7, NUMBER, BAD_EVERY))
    assert len(json.loads((tmp_path / "all/problems.json").read_text())) == NUMBER - done


@pytest.mark.slow
def test_four_processes_leave_the_bytes_of_one(cohort, models, tmp_path):
    studies = few(cohort, tmp_path, 12)
    for processes in (1, 4):
        done = run(command(models, studies, tmp_path / f"out{processes}", processes))
        assert (tmp_path / f"out{processes}/report.html").is_file(), done.stderr[-3000:]
    assert content_of(tmp_path / "out4") == content_of(tmp_path / "out1")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_process_that_is_killed_costs_its_unfinished_studies_and_a_rerun_completes(cohort, models, tmp_path):
    studies, output = few(cohort, tmp_path, 40), tmp_path / "out"
    parts = [
        subprocess.Popen(
            command(models, studies, output, part=part, of=4),
            cwd=BUNDLES / ENSEMBLE,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for part in range(1, 5)
    ]
    while not list(output.glob("*.nii.gz")) and any(process.poll() is None for process in parts):
        time.sleep(0.05)
    assert parts[0].poll() is None, "the process ended before it could be killed"
    os.kill(parts[0].pid, signal.SIGKILL)
    codes = [process.wait() for process in parts]
    assert codes[0] == -signal.SIGKILL
    assert set(codes[1:]) <= {0, 3}
    assert not (output / "report.html").exists(), "not all studies are done"
    before = {file: file.stat().st_mtime_ns for file in output.glob("*.nii.gz")}
    assert len(before) >= 25
    run(command(models, studies, output))
    assert {file: file.stat().st_mtime_ns for file in before} == before, "what was done was done again"
    run(command(models, studies, tmp_path / "whole"))
    assert content_of(output) == content_of(tmp_path / "whole")


@pytest.mark.slow
def test_two_runs_that_start_at_once_do_each_study_once(cohort, models, tmp_path):
    studies, output = few(cohort, tmp_path, 24), tmp_path / "out"
    runs = [
        subprocess.Popen(
            command(models, studies, output),
            cwd=BUNDLES / ENSEMBLE,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0].decode() for process in runs]
    assert {process.returncode for process in runs} <= {0, 1, 3}, said
    run(command(models, studies, tmp_path / "whole"))
    assert content_of(output) == content_of(tmp_path / "whole")
