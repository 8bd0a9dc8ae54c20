"""Promises of the example's application for MONAI Deploy: DICOM in, and the SEG and SR of the command line out."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deploy_stand_in import installed
from dicom_writer import Person, Variant, small_study, write_study
from helpers import BUNDLES, ENSEMBLE, ENVIRONMENT, ROOT, las, make_study, needs, write_nifti
from monai.bundle import ConfigWorkflow

from petct_training.errors import InputError

APP = ROOT / "examples/monai_deploy/app.py"


@pytest.fixture(scope="module")
def study(tmp_path_factory, models) -> Path:
    """A folder with a study in DICOM (`DICOM`), its weights, and what the command line writes of it (`expected`)."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "DICOM", small_study())
    shutil.copytree(models, folder / "WEIGHTS")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUNDLES / ENSEMBLE)
        workflow = ConfigWorkflow(
            config_file=["configs/inference.json", "configs/demo.json"],
            logging_file=False,
            workflow_type="infer",
            studies=str(folder / "DICOM"),
            ckpt_dir=str(folder / "WEIGHTS"),
            output_dir=str(folder / "expected"),
            device="cpu",
            num_workers=0,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    return folder


def results_in(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.dcm")}


def arguments(input_folder: Path, output_folder: Path, weights: Path) -> list[str]:
    return [str(APP), "-i", str(input_folder), "-o", str(output_folder), "-m", str(weights)]


def run_in_stand_in(monkeypatch, *folders: Path) -> None:
    monkeypatch.setenv("PETCT_PROFILE", "demo")
    with installed():
        runpy.run_path(str(APP), run_name="app")["PETCTLesionApp"]([sys.executable, *arguments(*folders)]).run()


def test_segmentation_and_report_are_those_of_the_command_line_byte_by_byte(study, tmp_path, monkeypatch):
    run_in_stand_in(monkeypatch, study / "DICOM", tmp_path, study / "WEIGHTS")
    expected = results_in(study / "expected")
    assert len(expected) == 2
    assert results_in(tmp_path) == expected


def test_no_file_is_replaced_that_the_application_has_not_written_or_that_was_changed_since(study, tmp_path, monkeypatch):
    expected = results_in(study / "expected")
    (name,) = (name for name in expected if name.endswith("segmentation.dcm"))
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"MINE")
    folders = (study / "DICOM", tmp_path, study / "WEIGHTS")
    with pytest.raises(InputError, match=r"segmentation\.dcm is no result of this program, and is not replaced: move it away"):
        run_in_stand_in(monkeypatch, *folders)
    assert results_in(tmp_path) == {name: b"MINE"}
    file.unlink()
    for _ in range(2):
        run_in_stand_in(monkeypatch, *folders)
        assert results_in(tmp_path) == expected
    file.write_bytes(b"corrected by a reader")
    with pytest.raises(InputError, match=r"segmentation\.dcm was changed after this program had written it, and is not replaced"):
        run_in_stand_in(monkeypatch, *folders)
    assert results_in(tmp_path) == expected | {name: b"corrected by a reader"}


def test_the_results_of_a_command_are_not_replaced_by_the_application(study, tmp_path, monkeypatch):
    output = shutil.copytree(study / "expected", tmp_path / "expected")
    with pytest.raises(InputError, match="holds results of another kind"):
        run_in_stand_in(monkeypatch, study / "DICOM", output, study / "WEIGHTS")
    assert results_in(output) == results_in(study / "expected")


@pytest.mark.slow
@needs("holoscan")
def test_so_they_are_in_the_runtime_of_the_sdk(study, tmp_path):
    command = [sys.executable, *arguments(study / "DICOM", tmp_path, study / "WEIGHTS")]
    done = subprocess.run(command, env={**ENVIRONMENT, "PETCT_PROFILE": "demo"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert results_in(tmp_path) == results_in(study / "expected")


@pytest.mark.slow
@needs("holoscan")
def test_what_is_wrong_with_a_study_ends_the_application_in_the_runtime_of_the_sdk(study, tmp_path):
    (tmp_path / "empty").mkdir()
    command = [sys.executable, *arguments(tmp_path / "empty", tmp_path / "out", study / "WEIGHTS")]
    done = subprocess.run(command, env={**ENVIRONMENT, "PETCT_PROFILE": "demo"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "holds no studies" in done.stderr
    assert "Traceback" not in done.stderr


def write_two(folder: Path) -> None:
    for number in ("1", "2"):
        write_study(folder / number, small_study(), Variant(person=Person(identifier=f"P{number}"), study_key=number))


def write_nifti_study(folder: Path) -> None:
    for number, array in zip(("0000", "0001"), make_study(), strict=False):
        write_nifti(folder / f"imagesTr/fdg_1_1_{number}.nii.gz", array, las((4, 4, 5)))


def cut_off(folder: Path) -> None:
    write_study(folder, small_study())
    file = max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_two, "holds 2 studies: give the folder of one"),
        (write_nifti_study, "is not in DICOM, and only of DICOM a DICOM SEG is made"),
        (cut_off, "cannot be decoded"),
    ],
)
def test_what_is_not_one_sound_study_in_dicom_is_refused_with_a_sentence(study, tmp_path, monkeypatch, write, words):
    write(tmp_path / "input")
    with pytest.raises(InputError, match=words) as error:
        run_in_stand_in(monkeypatch, tmp_path / "input", tmp_path / "output", study / "WEIGHTS")
    assert "\n" not in str(error.value)
    assert results_in(tmp_path / "output") == {}
