"""Promises of a data set in which everything is wrong that can be: the bad studies are named, and the good ones get their masks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from damages import CT, ERRORS, LABEL, PET, WARNINGS
from helpers import (
    BUNDLES,
    ENSEMBLE,
    ENVIRONMENT,
    STAGE1,
    STAGE2,
    WINDOWS,
    bundle_command,
    las,
    rewrite,
    rotated,
    with_value,
    write_nifti,
    write_study,
)
from processes import run_python


@dataclass(frozen=True)
class Kind:
    """What is wrong with a study.

    Attributes:
        damage: takes the study's files under "ct", "pet" and "label", and breaks something.
        words: of the sentence that says so, to `prepare`.
        inferred: whether the study can be inferred all the same, as the label is not needed for that.
        error: whether `prepare` cannot use it; otherwise it is remarked upon, or nothing is said at all where there are no words.
        case: its name.
    """

    damage: Callable[[dict[str, Path]], object]
    words: str
    inferred: bool = False
    error: bool = True
    case: str = ""


def of_table(role: str, damage: Callable[[Path], object], words: str, error: bool) -> Kind:
    return Kind(lambda files: damage(files[role]), words, inferred=role == "label" or not error, error=error)


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere.nii.gz")


def exchange(files: dict[str, Path]) -> None:
    content = files["ct"].read_bytes()
    files["ct"].write_bytes(files["pet"].read_bytes())
    files["pet"].write_bytes(content)


def turn(files: dict[str, Path], change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    """Store each volume on another grid."""
    for file in files.values():
        image = nib.load(file)
        write_nifti(file, *change(np.asarray(image.dataobj), image.affine))


def move_outside(files: dict[str, Path]) -> None:
    """Keep a file elsewhere, behind a symbolic link."""
    elsewhere = files["pet"].parents[1] / "elsewhere.nii.gz"
    files["pet"].rename(elsewhere)
    files["pet"].symlink_to(elsewhere)


def right_handed(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same volume, stored with its first axis the other way round: RAS in place of LAS."""
    return array[::-1], affine @ np.array([[-1, 0, 0, len(array) - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


KINDS = {
    **{name: of_table(*entry, error=True) for name, entry in ERRORS.items() if name != "missing"},
    **{name: of_table(*entry, error=False) for name, entry in WARNINGS.items() if name != "oblique"},
    # What the folder lacks or has too much.
    "PET without CT": Kind(lambda files: files["ct"].unlink(), "there is no CT of this study"),
    "CT without PET": Kind(lambda files: files["pet"].unlink(), "there is no PET of this study"),
    "no label": Kind(lambda files: files["label"].unlink(), "the study has no label", inferred=True),
    "wrong suffix": Kind(
        lambda files: files["ct"].rename(str(files["ct"]).replace(".nii.gz", ".nrrd")), "does not end with .nii"
    ),
    "DICOM": Kind(lambda files: files["pet"].rename(str(files["pet"]).replace(".nii.gz", ".dcm")), "does not end with .nii"),
    "compressed and not": Kind(
        lambda files: shutil.copy(files["ct"], str(files["ct"]).removesuffix(".gz")), "too: keep one of the two"
    ),
    "link to nothing": Kind(lambda files: link_to_nothing(files["pet"]), "does not exist"),
    "folder in place of a file": Kind(lambda files: (files["ct"].unlink(), files["ct"].mkdir()), "is a folder in"),
    "same image as CT and PET": Kind(lambda files: shutil.copy(files["ct"], files["pet"]), "is the same image as the CT"),
    "CT and PET exchanged": Kind(exchange, "as if CT and PET were exchanged"),
    "control character": Kind(lambda files: None, "the name cannot be used for a file", case="fdg_a\tb_1"),
    "too long a name": Kind(lambda files: None, "the name is too long for a file", case="fdg_" + "x" * 200),
    # More of what the tables hold.
    "2-D CT": Kind(lambda files: rewrite(files["ct"], CT[:, :, 5]), "2 dimensions"),
    "4-D CT of three channels": Kind(lambda files: rewrite(files["ct"], np.stack([CT] * 3, -1)), "4 dimensions"),
    "5-D": Kind(lambda files: rewrite(files["pet"], np.stack([PET[..., None]] * 2, -1)), "5 dimensions"),
    "label one slice": Kind(lambda files: rewrite(files["label"], LABEL[:, :, :1]), "single slice", inferred=True),
    "infinite CT": Kind(lambda files: rewrite(files["ct"], with_value(CT, -np.inf)), "1 voxels without a number"),
    "CT in other numbers": Kind(lambda files: rewrite(files["ct"], (CT + 1024).astype(np.float32) * 10), "no negative value"),
    "PET constant": Kind(lambda files: rewrite(files["pet"], np.full(PET.shape, 2, np.float32)), "same value 2"),
    "CT on the other side": Kind(lambda files: rewrite(files["ct"], affine=las((4, 4, 5), (0, 0, 1000))), "lies elsewhere"),
    # What is right, or nothing to warn of.
    "plain": Kind(lambda files: None, "", inferred=True, error=False),
    "coronal slices": Kind(
        lambda files: turn(files, lambda array, affine: (array.transpose(0, 2, 1), affine[:, [0, 2, 1, 3]])),
        "",
        inferred=True,
        error=False,
    ),
    "right-handed": Kind(lambda files: turn(files, right_handed), "", inferred=True, error=False),
    "oblique": Kind(
        lambda files: turn(files, lambda array, affine: (array, rotated(30))), "degrees oblique", inferred=True, error=False
    ),
    "behind a symbolic link": Kind(move_outside, "", inferred=True, error=False),
    "CT of a wider field": Kind(
        lambda files: write_nifti(
            files["ct"],
            np.pad(np.asarray(nib.load(files["ct"]).dataobj), 4, constant_values=-1000),
            las((4, 4, 5), (16, -16, -20)),
        ),
        "",
        inferred=True,
        error=False,
    ),
    "spaces and dots": Kind(
        lambda files: None, "", inferred=True, error=False, case="fdg_s.p_10-12-2003-NA  Ganzkörper v1.5 (2)"
    ),
    "unicode": Kind(lambda files: None, "", inferred=True, error=False, case="psma_病人_Ångström é"),
    "quotes": Kind(lambda files: None, "", inferred=True, error=False, case="fdg_q_'a' \"b\" $HOME <b>&amp;"),
    "long name": Kind(lambda files: None, "", inferred=True, error=False, case="fdg_l_" + "x" * 190),
}
# A study without lesions, the same PET in two studies, and one patient spelt in two ways: what is wrong is not in one study alone.
HEALTHY, TWIN, SPELT = "fdg_healthy_1", "fdg_zz-twin_1", "fdg_PLAIN_2"


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """One data set with a study of every kind."""
    folder = tmp_path_factory.mktemp("raw")
    for number, (name, kind) in enumerate(KINDS.items()):
        files = write_study(folder, case_of(name))
        # The tables' damages are made for this study; one voxel of air makes each PET another.
        pet = PET.copy()
        pet[1, 1, 1] = number / 1000
        for file, array in zip(files, (CT, pet, LABEL), strict=True):
            write_nifti(file, array, las((4, 4, 5)))
        kind.damage(dict(zip(("ct", "pet", "label"), files, strict=True)))
    write_study(folder, HEALTHY, seed=1000, lesions=0)
    write_study(folder, SPELT, seed=1001)
    shutil.copy(
        folder / f"imagesTr/{case_of('plain')}_0001.nii.gz", write_study(folder, TWIN, seed=list(KINDS).index("plain"))[1]
    )
    return folder


def case_of(name: str) -> str:
    return KINDS[name].case or f"fdg_{name.replace(' ', '-').replace('/', '-per-')}_1"


def run(run_id: str, *configs: str, **overrides) -> subprocess.CompletedProcess:
    arguments = bundle_command(run_id, *configs, **overrides)
    return run_python(arguments, BUNDLES / ENSEMBLE, ENVIRONMENT)


def said_of(done: subprocess.CompletedProcess) -> dict[str, list[str]]:
    """What the summary at the end says of each study, without a word that only a programmer knows."""
    assert done.returncode == 3, done.stderr[-3000:]
    said: dict[str, list[str]] = {}
    *_, summary = done.stderr.partition("\nerror: ")
    for case, sentence in re.findall(r"^  study (.+?): (.*)$", summary, flags=re.MULTILINE):
        said.setdefault(case, []).append(sentence)
        assert len(sentence.rpartition(": ")[2].split()) >= 2, f"{sentence} does not say what to do"
    for word in ("Traceback", "Errno", "Exception", "<class", "NoneType", "ndim"):
        assert word not in done.stdout + done.stderr
    return said


def is_named(said: dict[str, list[str]], name: str) -> bool:
    return any(KINDS[name].words in sentence for sentence in said.get(case_of(name), []))


def test_there_are_more_than_forty_kinds_of_broken_studies():
    assert sum(kind.error for kind in KINDS.values()) > 40


def test_preparing_names_every_bad_study_and_prepares_every_good_one(raw, tmp_path):
    done = run("prepare", "prepare", studies=raw, dataset_dir=tmp_path, num_workers=2)
    said = said_of(done)
    bad = {case_of(name) for name, kind in KINDS.items() if kind.error} | {TWIN}
    assert set(said) ^ bad == set()
    unclear = {name: said[case_of(name)] for name, kind in KINDS.items() if kind.error and not is_named(said, name)}
    assert not unclear
    datalist = json.loads((tmp_path / "datalist.json").read_text())
    assert {entry["case"] for entry in datalist["excluded"]} == bad | {HEALTHY}
    good = {case_of(name) for name, kind in KINDS.items() if not kind.error} | {SPELT}
    assert {item["case"] for split in ("training", "validation") for item in datalist[split]} == good
    for folder in ("images", "labels"):
        assert {file.name for file in (tmp_path / folder).iterdir()} == {f"{case}.nii" for case in good}
    remarked = {name for name, kind in KINDS.items() if not kind.error and kind.words}
    assert {
        name for name in remarked if f"study {case_of(name)}: " in done.stdout and KINDS[name].words in done.stdout
    } == remarked
    assert f"study {case_of('plain')}: its patient 'plain' counts as 'PLAIN' of study {SPELT}" in done.stdout


def test_inferring_names_every_bad_study_and_every_good_one_has_its_mask(raw, models, tmp_path):
    overrides = {"studies": raw, "ckpt_dir": models, "output_dir": tmp_path / "masks", "patch_sizes": WINDOWS}
    done = run("inferring", "inference", "demo", **overrides)
    said = said_of(done)
    bad = {case_of(name) for name, kind in KINDS.items() if not kind.inferred}
    assert set(said) ^ bad == set()
    unclear = {name: said[case_of(name)] for name, kind in KINDS.items() if not kind.inferred and not is_named(said, name)}
    assert not unclear
    good = {case_of(name) for name, kind in KINDS.items() if kind.inferred} | {HEALTHY, TWIN, SPELT}
    assert {file.name for file in (tmp_path / "masks").glob("*.nii.gz")} == {f"{case}.nii.gz" for case in good}
    for case in good:
        mask, pet = nib.load(tmp_path / f"masks/{case}.nii.gz"), nib.load(raw / f"imagesTr/{case}_0001.nii.gz")
        assert mask.shape == pet.shape
        np.testing.assert_allclose(mask.affine, pet.affine, atol=1e-4)
    assert f"warning: study {TWIN}: its PET is, voxel by voxel, that of study {case_of('plain')}" in done.stdout


@pytest.mark.parametrize("run_id", ["prepare", "inferring"])
def test_strict_stops_at_the_first_bad_study(raw, models, tmp_path, run_id):
    if run_id == "prepare":
        done = run(run_id, "prepare", studies=raw, dataset_dir=tmp_path / "out", strict=True)
    else:
        done = run(run_id, "inference", "demo", studies=raw, ckpt_dir=models, output_dir=tmp_path / "out", strict=True)
    assert done.returncode == 1
    assert re.search(r"^error: study .*: .*", done.stderr, flags=re.MULTILINE)
    assert done.stderr.count("error: ") == 1
    assert not list((tmp_path / "out").glob("**/*.nii*"))


# ---------------------------------------------------------------- a disk that is full


def run_with_small_files(most_bytes: int, bundle: str, run_id: str, *configs: str, **overrides) -> str:
    """Run a command whose every file can have so many bytes, as on a disk that is full from there on; give what it said."""
    # Nothing but the command writes: neither byte code nor what a measurement of coverage notes.
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("COV")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = run_python(bundle_command(run_id, *configs, **overrides), BUNDLES / bundle, environment, file_bytes=most_bytes)
    assert done.returncode in (1, 3), done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def test_preparing_on_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path):
    for number in range(3):
        write_study(tmp_path / "raw", f"fdg_p{number}_1", seed=number)
    said = run_with_small_files(
        4000, ENSEMBLE, "prepare", "prepare", studies=tmp_path / "raw", dataset_dir=tmp_path / "out", num_workers=1
    )
    sentence = r"^error: .*\.nii cannot be written \(File too large\): see that there is room and that the folder may be written$"
    assert re.search(sentence, said, flags=re.MULTILINE)
    assert not [name for name in files_in(tmp_path / "out") if not name.endswith(".json")]
    assert not (tmp_path / "out/datalist.json").exists()


@pytest.mark.parametrize(
    ("most_bytes", "sentence"),
    [
        (100, r"^  study fdg_p0_1: .*records/fdg_p0_1\.json cannot be written \(File too large\): see"),
        (3000, r"^  study fdg_p0_1: .*fdg_p0_1\.nii\.gz cannot be written \(File too large\): see"),
    ],
    ids=["no room for records", "no room for masks"],
)
def test_inferring_on_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(models, tmp_path, most_bytes, sentence):
    write_study(tmp_path / "raw", "fdg_p0_1", shape=(48, 48, 48))
    overrides = {"studies": tmp_path / "raw", "ckpt_dir": models, "output_dir": tmp_path / "out", "patch_sizes": WINDOWS}
    said = run_with_small_files(most_bytes, ENSEMBLE, "inferring", "inference", "demo", **overrides)
    assert re.search(sentence, said, flags=re.MULTILINE)
    assert not [name for name in files_in(tmp_path / "out") if "nii" in name]


@pytest.mark.parametrize("bundle", [STAGE1, pytest.param(STAGE2[2], marks=pytest.mark.slow)])
def test_training_on_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(bundle, prepared, tmp_path):
    overrides = {"dataset_dir": prepared, "ckpt_dir": tmp_path / "models", "output_dir": tmp_path / "logs", "val_interval": 1}
    said = run_with_small_files(300_000, bundle, "training", "train", "demo", **overrides, max_epochs=1)
    assert re.search(
        r"^error: .*models/(last|model)\.pt cannot be written \(.*File too large.*\): see that there is room",
        said,
        flags=re.MULTILINE,
    )
    assert not [name for name in files_in(tmp_path / "models") if name.endswith(".pt")]
