"""Promises where the folder for temporary files has a path that is too long for a Unix socket, as that of a job may have."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers import BUNDLES, ENSEMBLE, ENVIRONMENT, NETWORKS, STAGE1, WINDOWS, bundle_command, write_study

from petct_training import sockets
from petct_training.errors import InputError

# A run that waits for what its processes cannot send waits for ever.
SECONDS = 240
POOL = """
from petct_cascade.workers import Workers
with Workers(2) as workers:
    print(sorted(workers.map(abs, [-2, 1], "count")))
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder for temporary files."""
    result = tmp_path / ("t" * 150)
    result.mkdir()
    return result


def run(arguments: list[str], bundle: str, folder: Path) -> str:
    """Run a command as the system does, since a forked one would have the sockets of this process; return what it prints."""
    process = subprocess.Popen(
        arguments,
        cwd=BUNDLES / bundle,
        env={**ENVIRONMENT, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, errors[-3000:]
    assert "too long" not in errors
    return output


def test_pool_of_processes_works(folder):
    assert run([sys.executable, "-W", "ignore", "-c", POOL], ENSEMBLE, folder) == "[1, 2]\n"


@pytest.mark.slow
def test_network_is_trained_and_used_with_loading_processes(prepared, tmp_path, folder):
    shutil.copytree(prepared, tmp_path / "set")
    options = {"dataset_dir": tmp_path / "set", "ckpt_dir": tmp_path / "models", "num_workers": 1}
    logs, masks = tmp_path / "logs", tmp_path / "masks"
    run(bundle_command("training", "train", "demo", **options, output_dir=logs, max_epochs=1, val_interval=1), STAGE1, folder)
    run(bundle_command("inferring", "inference", "demo", **options, output_dir=masks), STAGE1, folder)
    assert len(list(masks.glob("*.nii.gz"))) == len(list((prepared / "images").iterdir()))
    assert not list(folder.glob("pymp-*"))


@pytest.mark.parametrize("bundle", NETWORKS)
@pytest.mark.parametrize("config", ["train", "evaluate", "inference"])
def test_every_run_that_loads_data_begins_with_short_paths(bundle, config):
    content = json.loads((BUNDLES / bundle / f"configs/{config}.json").read_text())
    assert {"_target_": "petct_training.steps.shorten_socket_paths"} in content["initialize"] + content["run"]


def test_studies_are_segmented_with_loading_processes(models, tmp_path, folder):
    for number in range(2):
        write_study(tmp_path / "raw", f"fdg_p{number}_1", seed=number)
    options = {"ckpt_dir": models, "output_dir": tmp_path / "masks", "patch_sizes": WINDOWS, "num_workers": 2}
    run(bundle_command("inferring", "inference", "demo", studies=tmp_path / "raw", **options), ENSEMBLE, folder)
    assert {file.name for file in (tmp_path / "masks").glob("*.nii.gz")} == {"fdg_p0_1.nii.gz", "fdg_p1_1.nii.gz"}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")
def test_folder_is_named_where_no_other_can_be_written(monkeypatch, folder):
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(sockets, "SHORT_FOLDERS", (str(folder / "missing"),))
    monkeypatch.setattr(sockets.util.process.current_process(), "_config", {})
    with pytest.raises(InputError, match="set the environment variable TMPDIR"):
        sockets.shorten_socket_paths()
    assert tempfile.gettempdir() == str(folder)
