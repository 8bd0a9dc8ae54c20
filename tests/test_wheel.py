"""Promises of the package that `pip install` makes: all five bundles are in it, no weights or data, and it works on its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import BUNDLES, ENSEMBLE, ROOT, needs

# What lies in a bundle and is no part of it.
IGNORED = ("__pycache__", "*.pt", "*.ts", "*.onnx", "output", "data", "mlruns", "eval")

pytestmark = needs("hatchling")


def build(repository: Path, folder: Path, version: str = "standard") -> Path:
    """Build the wheel of a repository in a folder, for use or for an editable installation, and return the file."""
    from hatchling.builders.wheel import WheelBuilder

    (file,) = WheelBuilder(str(repository)).build(directory=str(folder), versions=[version])
    return Path(file)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of the repository in which somebody has trained: there are weights and data that are not in git."""
    copy = tmp_path_factory.mktemp("repository")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copyfile(ROOT / name, copy / name)
    shutil.copytree(BUNDLES, copy / "bundles", ignore=shutil.ignore_patterns(*IGNORED))
    for name in (
        "models/model.pt",
        "models/last.pt",
        "data/raw/patient.nii.gz",
        "output/report.html",
        "mlruns/x",
        "petct_cascade/__pycache__/x.pyc",
    ):
        file = copy / "bundles" / ENSEMBLE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return copy


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    return build(repository, tmp_path_factory.mktemp("dist"))


def test_wheel_holds_the_bundles_whole_and_nothing_else(wheel, repository):
    tracked = {file.relative_to(BUNDLES).as_posix() for file in BUNDLES.rglob("*") if file.is_file()}
    expected = {name for name in tracked if not any(Path(part).match(pattern) for part in name.split("/") for pattern in IGNORED)}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = ("petct_cascade/", "petct_training/")
    prefix = f"{ENSEMBLE}/"
    python = {name.removeprefix(prefix) for name in expected if name.startswith(tuple(prefix + package for package in packages))}
    assert names == {f"autopet_bundles/{name}" for name in expected} | python


def test_editable_installation_holds_no_copy_that_grows_old(repository, tmp_path):
    with zipfile.ZipFile(build(repository, tmp_path, "editable")) as archive:
        (path_file,) = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert archive.read(path_file).decode().strip() == str(repository / "bundles" / ENSEMBLE)


def test_wheel_of_a_source_archive_is_the_same(wheel, repository, tmp_path):
    from hatchling.builders.sdist import SdistBuilder

    (archive,) = SdistBuilder(str(repository)).build(directory=str(tmp_path))
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(build(source, tmp_path / "dist")) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


@pytest.mark.slow
def test_installed_wheel_runs_the_method_in_an_empty_folder_and_writes_nothing_beside_its_code(wheel, tmp_path):
    """The dependencies are those of this environment, in which the wheel itself is not installed."""
    venv.create(tmp_path / "environment", with_pip=False)
    python = tmp_path / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    paths = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
    )
    packages = Path(paths.stdout.strip())
    shutil.unpack_archive(wheel, packages, "zip")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    files = {path: path.read_bytes() for path in (packages / "autopet_bundles").rglob("*") if path.is_file()}
    folder = tmp_path / "a folder, 1"
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(program: str, *arguments: str) -> None:
        command = [python, "-W", "ignore", "-c", program, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def petct(*arguments: str) -> None:
        run("from petct_cascade.cli import main; main(prog_name='petct')", *arguments)

    petct("phantom", "-o", "raw", "--num_patients", "6", "--set", "shrink=8")
    petct("train", "raw", "-o", "work", "--profile", "demo", "--epochs", "1")
    petct("segment", "raw", "-o", "out", "--weights", "work", "--profile", "demo")
    assert len(list((folder / "out").glob("*.nii.gz"))) == len(list((folder / "raw/labelsTr").iterdir()))
    assert (folder / "out/report.html").is_file()
    run(f"from petct_cascade.predict import load_cascade; load_cascade('work/models/{ENSEMBLE}', 'demo')")
    assert sorted(path.name for path in folder.iterdir()) == ["out", "raw", "work"]
    written = {path: path.read_bytes() for path in (packages / "autopet_bundles").rglob("*") if path.is_file()}
    assert {path: content for path, content in written.items() if path.suffix != ".pyc"} == files
