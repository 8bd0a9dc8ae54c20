"""Promises of runs that are killed at any moment: run again, they end with the very bytes of one that nothing disturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    BUNDLES,
    ENSEMBLE,
    ENVIRONMENT,
    FINGERPRINT,
    STAGE1,
    STAGE2,
    WINDOWS,
    bundle_command,
    parser_of,
    write_prepared,
    write_study,
)

KILLS = 8


def run(arguments: list[str], bundle: str, seconds: float | None = None) -> bool:
    """Run a command, and kill it with all its processes after some seconds; say whether it came to its end before."""
    process = subprocess.Popen(
        arguments,
        cwd=BUNDLES / bundle,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    assert process.returncode == 0, said[-3000:]
    return True


def content(folder: Path) -> dict[str, bytes]:
    """Every file that could be taken for a result: all but hidden ones, unnamed ones, the curves, and the records, which hold times."""
    files = {file.relative_to(folder): file for file in sorted(folder.rglob("*")) if file.is_file()}
    return {
        name.as_posix(): file.read_bytes()
        for name, file in files.items()
        if file.suffix
        and not any(part.startswith(".") for part in name.parts)
        and not {"logs", "records"}.intersection(name.parts)
    }


def check(arguments_of: Callable[[Path], list[str]], bundle: str, tmp_path: Path, again: tuple[str, ...] = ()) -> None:
    """Compare the results of an undisturbed run with those of one that is killed many times and run again each time.

    Args:
        arguments_of: gives the command that writes to a folder.
        bundle: in whose folder the command runs.
        tmp_path: where all of this happens.
        again: what is added to the command when it is run again.
    """
    start = time.monotonic()
    assert run(arguments_of(tmp_path / "undisturbed"), bundle)
    duration = time.monotonic() - start
    expected = content(tmp_path / "undisturbed")
    assert expected
    chance = np.random.default_rng(0)
    killed, results = tmp_path / "killed", 0
    extra: tuple[str, ...] = ()
    for _ in range(KILLS):
        # The first half passes with imports.
        if run([*arguments_of(killed), *extra], bundle, duration * chance.uniform(0.5, 1)):
            assert content(killed) == expected
            shutil.rmtree(killed)
            extra, results = (), results + 1
        else:
            extra = again
            early = {name: data for name, data in content(killed).items() if name in expected} if killed.exists() else {}
            for name, data in early.items():
                # Weights and states grow from epoch to epoch; a mask or an assembled file is whole as soon as it is there.
                assert name.endswith("last.pt") or again or data == expected[name], f"{name} is not whole"
    assert results < KILLS, "no run was killed"
    assert run([*arguments_of(killed), *extra], bundle)
    assert content(killed) == expected


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "set", num_studies=5, shape=(36, 32, 40))


@pytest.mark.slow
@pytest.mark.parametrize("bundle", [STAGE1, STAGE2[2]])
def test_training_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(bundle, data, tmp_path):
    def arguments_of(folder: Path) -> list[str]:
        options = {"dataset_dir": data, "ckpt_dir": folder, "output_dir": folder / "logs", "max_epochs": 6, "val_interval": 2}
        return bundle_command("training", "train", "demo", **options)

    check(arguments_of, bundle, tmp_path, again=("--resume", "True"))


@pytest.mark.slow
def test_prediction_of_coarse_masks_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(data, tmp_path):
    torch.manual_seed(0)
    (tmp_path / "models").mkdir()
    torch.save(
        parser_of(STAGE1, "inference", "demo").get_parsed_content("network_def").state_dict(), tmp_path / "models/model.pt"
    )
    shutil.copy(data / "fingerprint.json", tmp_path / "models")

    def arguments_of(folder: Path) -> list[str]:
        return bundle_command("inferring", "inference", "demo", dataset_dir=data, ckpt_dir=tmp_path / "models", output_dir=folder)

    check(arguments_of, STAGE1, tmp_path)


@pytest.mark.slow
def test_assembling_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path):
    for bundle in (STAGE1, *STAGE2):
        folder = tmp_path / "models" / bundle
        folder.mkdir(parents=True)
        torch.manual_seed(len(bundle))
        torch.save(parser_of(bundle, "inference", "demo").get_parsed_content("network_def").state_dict(), folder / "model.pt")
        (folder / "fingerprint.json").write_text(json.dumps(FINGERPRINT))

    def arguments_of(folder: Path) -> list[str]:
        return bundle_command("assemble", "inference", "assemble", "demo", models_dir=tmp_path / "models", ckpt_dir=folder)

    check(arguments_of, ENSEMBLE, tmp_path)


@pytest.mark.slow
def test_inference_of_the_ensemble_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(models, tmp_path):
    for number in range(6):
        write_study(tmp_path / "raw", f"fdg_p{number}_day  {number}.1", seed=number, shape=(24, 20, 26))

    def arguments_of(folder: Path) -> list[str]:
        options = {"studies": tmp_path / "raw", "ckpt_dir": models, "output_dir": folder, "patch_sizes": WINDOWS}
        return bundle_command("inferring", "inference", "demo", **options)

    check(arguments_of, ENSEMBLE, tmp_path)
