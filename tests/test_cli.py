"""Promises of the command `petct`: what each command prints and runs, and that it says what is missing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers import BUNDLES, ENSEMBLE, write_study

from petct_cascade import cli, installation
from petct_cascade.command_line import shell_line

COMMANDS = ("segment", "convert", "prepare", "train", "evaluate", "score", "readout", "report", "phantom")
BUNDLE = BUNDLES / ENSEMBLE


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The user's folder, with a few names in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "2026_11_26", "data", "masks", "weights", "work/models/autopet_ensemble"):
        Path(name).mkdir(parents=True)
    for name in (
        "ct 1,2.nii.gz",
        "pet#1.nii.gz",
        "weights/model.pt",
        "work/models/autopet_ensemble/model.pt",
        "data/datalist.json",
    ):
        Path(name).touch()
    return tmp_path


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands that were started, none of which runs; each ends with exit code 3."""
    commands = []

    def start(arguments: list[str], env: dict[str, str]) -> int:
        assert env["PYTHONSAFEPATH"] == "1", "nothing that lies in the current folder is run"
        commands.append(arguments)
        return 3

    monkeypatch.setattr(cli, "run_child", start)
    return commands


def petct(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


@pytest.mark.parametrize(
    ("arguments", "run_id", "configs", "options"),
    [
        ("segment raw -o out --weights weights", "inferring", "inference", "--studies raw --output_dir out --ckpt_dir weights"),
        (
            "segment --ct 'ct 1,2.nii.gz' --pet pet#1.nii.gz -o out --weights work --profile demo",
            "inferring",
            "inference demo",
            r"""--ct 'ct 1,2.nii.gz' --pet "$'pet\\x231.nii.gz'" --output_dir out --ckpt_dir work/models/autopet_ensemble""",
        ),
        ("prepare 2026_11_26 -o data", "prepare", "prepare", """--studies "'2026_11_26'" --dataset_dir data"""),
        ("prepare raw -o data --set seed=3", "prepare", "prepare", "--studies raw --dataset_dir data --seed 3"),
        ("train raw -o work", "pipeline", "pipeline", "--studies raw --work_dir work --profile full --recipe paper"),
        (
            "train raw -o work --profile demo --epochs 2",
            "pipeline",
            "pipeline",
            "--studies raw --work_dir work --profile demo --recipe paper --max_epochs 2",
        ),
        (
            "train raw -o work --recipe recommended",
            "pipeline",
            "pipeline",
            "--studies raw --work_dir work --profile full --recipe recommended",
        ),
        (
            "train raw -o work --epochs 20",
            "pipeline",
            "pipeline",
            "--studies raw --work_dir work --profile full --recipe paper --max_epochs 20",
        ),
        (
            "train raw -o work --folds 5 --set cross_validation=false",
            "pipeline",
            "pipeline",
            "--studies raw --work_dir work --profile full --recipe paper --folds 5 --cross_validation false",
        ),
        (
            "evaluate data -o out --weights work",
            "evaluating",
            "inference evaluate",
            "--dataset_dir data --output_dir out --ckpt_dir work/models/autopet_ensemble",
        ),
        (
            "evaluate raw -o out --weights work --weight 70",
            "evaluating",
            "inference evaluate",
            "--studies raw --weight 70.0 --output_dir out --ckpt_dir work/models/autopet_ensemble",
        ),
        (
            "score masks --references raw -o out",
            "score",
            "score",
            "--predictions masks --references raw --output_dir out",
        ),
        (
            "score masks --references raw --images data -o out --set model=nnU-Net --set suv_range=[0,5]",
            "score",
            "score",
            "--predictions masks --references raw --images data --output_dir out --model nnU-Net --suv_range [0,5]",
        ),
        ("report work", "report", "score", "--output_dir work"),
        ("readout masks --images raw -o out", "readout", "score", "--predictions masks --images raw --output_dir out"),
        ("phantom -o out --num_patients 5", "phantom", "phantom", "--output_dir out --num_patients 5"),
    ],
)
def test_the_command_that_it_stands_for_is_printed_and_run(folder, started, arguments, run_id, configs, options):
    done = petct(*shlex.split(arguments))
    (command,) = started
    assert command[0] == sys.executable
    assert done.output == f"$ {shell_line(['python', *command[1:]])}\n"
    assert shlex.split(done.output) == ["$", "python", *command[1:]], "what is printed is what runs"
    files = [str(BUNDLE / f"configs/{name}.json") for name in configs.split()]
    assert command[1:7] == ["-m", "monai.bundle", "run", run_id, "--config_file", files[0] if len(files) == 1 else repr(files)]
    assert command[7:] == ["--bundle_root", str(BUNDLE), *shlex.split(options)]
    assert done.exit_code == 3, "the exit code is handed on"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_goes_in_and_what_comes_out_with_an_example(command):
    help_text = petct(command, "--help").output
    assert "In:" in help_text
    assert "Out:" in help_text
    assert f"petct {command} " in help_text.partition("Example")[2]


def test_help_names_every_kind_of_file_that_is_taken():
    """As `find_studies` and `read_coarse_mask` take them, which other tests show."""
    for command in ("segment", "convert", "prepare", "train"):
        assert "DICOM" in petct(command, "--help").output.partition("In:")[2].partition("Out:")[0], command
    coarse_mask = petct("segment", "--help").output.partition("--coarse-mask")[2].partition("--points")[0]
    assert all(kind in coarse_mask for kind in ("NIfTI", "MetaImage", "SEG", "RTSTRUCT"))


def test_help_lists_every_command_with_a_whole_sentence():
    listed = dict(line.split(maxsplit=1) for line in petct("--help").output.partition("Commands:\n")[2].splitlines())
    assert set(listed) == set(COMMANDS)
    assert all(text.endswith(".") and not text.endswith("...") for text in listed.values())


@pytest.mark.parametrize(
    "arguments", ["segment raw -o out", "segment raw -o out --weights data", "evaluate data -o out --weights raw"]
)
def test_without_weights_one_sentence_says_where_they_come_from(folder, started, monkeypatch, arguments):
    (folder / "bundles").symlink_to(folder / "nothing")
    monkeypatch.setattr(cli, "bundles_folder", lambda: folder / "bundles")
    done = petct(*arguments.split())
    assert (done.exit_code, started) == (1, [])
    assert "no weights come with this program" in done.output
    assert "petct train" in done.output
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize("arguments", ["segment -o out", "segment raw --ct pet#1.nii.gz --pet pet#1.nii.gz -o out"])
def test_segment_wants_studies_or_one_study(folder, started, arguments):
    done = petct(*arguments.split(), "--weights", "weights")
    assert (done.exit_code, started) == (2, [])
    assert "STUDIES, or one study with --ct and --pet" in done.output


def test_output_that_is_a_file_and_an_empty_name_are_refused_before_anything_runs(folder, started):
    (folder / "notes.txt").write_text("mine")
    done = petct("phantom", "-o", "notes.txt")
    assert (done.exit_code, started) == (2, [])
    assert "'notes.txt' is a file" in done.output
    done = petct("segment", "raw", "-o", "out", "--weights", "weights", "--case", "")
    assert (done.exit_code, started) == (2, [])
    assert "--case is empty: give a value, or leave it out" in done.output


@pytest.mark.parametrize("setting", ["overlap", "=0.25"])
def test_a_setting_without_id_or_value_is_refused(folder, started, setting):
    done = petct("phantom", "-o", "out", "--set", setting)
    assert (done.exit_code, started) == (2, [])
    assert f"'{setting}' is not ID=VALUE" in done.output


def test_names_of_options_are_taken_as_the_bundles_write_them(folder, started):
    petct("segment", "raw", "-o", "out", "--weights", "work", "--pet_series", "WB", "--half_life", "6586")
    (command,) = started
    assert command[-8:-6] == ["--pet_series", "WB"]
    assert command[-6:-4] == ["--half_life", "6586.0"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("segment raw -o out --weights work --allow_outside true", "--set allow_outside=VALUE"),
        ("prepare raw -o data --exclude list.txt", "--set exclude=VALUE"),
        ("train raw -o work --allow-outside true", "--set \"prepare_options={'allow_outside':VALUE}\""),
    ],
)
def test_an_id_that_is_no_option_of_its_own_is_told_how_to_be_set(folder, started, command, words):
    done = petct(*shlex.split(command))
    assert done.exit_code == 2
    assert f"write {words}." in done.output
    assert not started


def test_a_run_that_is_stopped_says_how_it_goes_on(folder, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_child", stopped)
    done = petct("prepare", "raw", "-o", "data")
    assert done.exit_code == 130
    assert "stopped: the same command goes on" in done.output + done.stderr


def test_bundles_of_a_clone_are_those_beside_the_code():
    assert cli.bundles_folder() == BUNDLES


def test_installed_bundles_lie_beside_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(installation.importlib.resources, "files", lambda package: tmp_path / "site-packages" / package)
    assert cli.bundles_folder() == tmp_path / "site-packages/autopet_bundles"


@pytest.mark.slow
def test_a_real_run_finds_a_folder_with_an_odd_name(tmp_path, monkeypatch):
    name = "raw#1, 2"
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_study(tmp_path / name, f"fdg_{number}_1", seed=number)
    program = [sys.executable, "-W", "ignore", "-c", f"import sys; sys.path.insert(0, {str(BUNDLE)!r}); "]
    program[-1] += "from petct_cascade.cli import main; main(prog_name='petct')"
    done = subprocess.run([*program, "prepare", name, "-o", f"{name} data"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, "MONAI's warning of strangers' configs is none of a user of ours"
    assert (tmp_path / f"{name} data/datalist.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name} data"])


def test_help_comes_without_loading_pytorch():
    """Which takes seconds, and would be felt at every --help and every typo."""
    code = "import sys, petct_cascade.cli; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=BUNDLES / ENSEMBLE, check=True)


def test_names_that_the_outputs_encoding_lacks_are_printed_with_escapes(tmp_path):
    """As on Windows, where output that goes to a file has the code page of the system."""
    (tmp_path / "Łódź 北京").mkdir()
    command = [sys.executable, "-W", "ignore", "-m", "petct_cascade.cli", "report", "Łódź 北京"]
    environment = {**os.environ, "PYTHONPATH": str(BUNDLE), "PYTHONIOENCODING": "cp1252", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="cp1252", check=False)
    assert done.returncode == 1, done.stderr
    printed, *logged = [line for line in done.stdout.splitlines() if r"\u0141ód\u017a \u5317\u4eac" in line]
    assert printed.startswith("$ python -m monai.bundle run report")
    assert logged, "the log of MONAI has the name, too"
    assert done.stderr.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
