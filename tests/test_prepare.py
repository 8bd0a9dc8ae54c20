"""Promises of preparation: what is used, the volumes, and going on after an interruption."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import SARCOMA, las, make_study, needs_shared, write_nifti, write_study
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, LoadImaged, Orientationd, Spacingd, SplitDimd
from processes import run_python

import petct_cascade.admission
import petct_cascade.preparation
import petct_cascade.prepare
import petct_cascade.prepared_study
from petct_cascade import commands
from petct_cascade.exclusions import read_exclusions
from petct_cascade.items import unseen_items, validation_items
from petct_cascade.judging import read_study
from petct_cascade.preparation import PrepareOptions
from petct_cascade.prepare import prepare
from petct_training.claims import Claims
from petct_training.errors import InputError, SomeFailedError
from petct_training.masks import masks_in

ENSEMBLE = Path(__file__).parents[1] / "bundles/autopet_ensemble"


def write_raw(folder: Path, number: int = 6) -> Path:
    """A raw data set of patients p0, p1, ..., the second of whom has two studies."""
    for index in range(number):
        patient = max(0, index - 1)
        spacing = (4, 4, 5) if index % 2 else (4, 4.4, 5)
        write_study(folder, f"fdg_p{patient}_day  {index}.1", seed=index, spacing=spacing)
    return folder


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_raw(tmp_path / "raw")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared data set but the records, which hold the times of files."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in files
        if not {".prepare", "records"}.intersection(file.relative_to(folder).parts)
    }


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in content(folder)}


def datalist(folder: Path) -> dict:
    return json.loads((folder / "datalist.json").read_text())


def items(folder: Path) -> dict[str, dict]:
    found = datalist(folder)
    return {item["case"]: item for item in (*found["training"], *found["validation"])}


def reasons(folder: Path) -> dict[str, str]:
    return {entry["case"]: entry["reason"] for entry in datalist(folder)["excluded"]}


def forbid_work(monkeypatch) -> None:
    """Fail when a study is read, or its volumes made."""
    for module, name in ((petct_cascade.admission, "judge_and_crop"), (petct_cascade.prepare, "make_study")):
        monkeypatch.setattr(module, name, lambda *arguments: pytest.fail("done again"))


def bundle_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "monai.bundle", "run", "prepare", "--config_file", "configs/prepare.json", *arguments]


# ---------------------------------------------------------------- fingerprint


def test_fingerprint_comes_from_the_training_studies_alone(raw, tmp_path):
    prepare(raw, tmp_path / "out")
    values = []
    spacings = []
    for item in datalist(tmp_path / "out")["training"]:
        ct, pet, label = (nib.load(raw / item["original"][role]) for role in ("ct", "pet", "label"))
        inside = label.get_fdata() == 1
        values.append(np.stack([ct.get_fdata()[inside], pet.get_fdata()[inside]]))
        spacings.append(pet.header.get_zooms())
    values = np.concatenate(values, axis=1)
    fingerprint = json.loads((tmp_path / "out/fingerprint.json").read_text())
    assert fingerprint["spacing"] == pytest.approx(np.mean(spacings, axis=0), abs=1e-5)
    assert fingerprint["num_cases"] == len(spacings)
    for name, channel in zip(("ct", "pet"), values, strict=True):
        low, high = np.percentile(channel, [0.5, 99.5])
        expected = {"percentile_00_5": low, "percentile_99_5": high, "mean": channel.mean(), "std": channel.std()}
        assert fingerprint[name] == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- volumes


def test_prepared_volume_equals_the_chain_of_the_inference_configs(raw, tmp_path):
    prepare(raw, tmp_path / "out", PrepareOptions(spacing=[5, 5, 4]))
    # As configs/inference.json of the network bundles writes it.
    images = ["image_ct", "image_pet"]
    chain = Compose(
        [
            SplitDimd(keys="image", output_postfixes=["ct", "pet"], keepdim=True),
            CropForegroundd(keys=images, source_key="image_pet", select_fn=lambda pet: pet > 0.3, margin=2, allow_smaller=True),
            Orientationd(keys=images, axcodes="LAS", labels=None),
            Spacingd(keys=images, pixdim=[5, 5, 4], mode="bilinear", padding_mode="border", dtype=torch.float32),
        ]
    )
    for item in items(tmp_path / "out").values():
        original = [nib.load(raw / item["original"][role]) for role in ("ct", "pet")]
        image = np.stack([volume.get_fdata(dtype=np.float32) for volume in original])
        expected = chain({"image": MetaTensor(torch.from_numpy(image), affine=original[1].affine)})
        written = nib.load(tmp_path / "out" / item["image"])
        assert written.get_data_dtype() == np.float32
        assert written.shape[3] == 2
        for channel, key in enumerate(images):
            values = np.asarray(written.dataobj)[..., channel]
            # Interpolated axis by axis, a number differs by rounding from that of all axes at once.
            np.testing.assert_allclose(values, expected[key][0].numpy(), rtol=0, atol=0.01)
        assert np.allclose(written.affine, expected["image_pet"].affine, atol=1e-4)
        assert nib.aff2axcodes(written.affine) == ("L", "A", "S")
        assert np.allclose(written.header.get_zooms()[:3], [5, 5, 4])


def test_prepared_label_lies_on_the_image_and_keeps_its_volume(raw, tmp_path):
    prepare(raw, tmp_path / "out", PrepareOptions(spacing=[2, 2, 2]))
    for item in items(tmp_path / "out").values():
        image, label = (nib.load(tmp_path / "out" / item[key]) for key in ("image", "label"))
        assert label.shape == image.shape[:3]
        assert np.array_equal(label.affine, image.affine)
        assert label.get_data_dtype() == np.uint8
        original = nib.load(raw / item["original"]["label"])
        volume = original.get_fdata().sum() * np.prod(original.header.get_zooms())
        assert label.get_fdata().sum() * 8 == pytest.approx(volume, rel=0.2)
        # Lesions have an SUV of 4 and more, and the rest of the body at most 1.5.
        pet = image.get_fdata()[..., 1]
        assert pet[label.get_fdata() == 1].mean() > 3
        assert pet[label.get_fdata() == 0].mean() < 1.5


def test_prepared_data_set_is_read_by_monai(raw, tmp_path):
    prepare(raw, tmp_path / "out")
    item = datalist(tmp_path / "out")["training"][0]
    loaded = LoadImaged(keys=["image", "label"], ensure_channel_first=True)(
        {key: tmp_path / "out" / item[key] for key in ("image", "label")}
    )
    assert loaded["image"].shape == (2, *loaded["label"].shape[1:])


def test_datalist_of_studies_with_any_letters_is_read_in_any_encoding(tmp_path):
    names = ("fdg_Müller_1", "fdg_病人_1")
    for seed, name in enumerate(names):
        write_study(tmp_path / "raw", name, seed)
    prepare(tmp_path / "raw", tmp_path / "out")
    read = json.loads((tmp_path / "out/datalist.json").read_text(encoding="ascii"))
    assert {item["case"] for split in ("training", "validation") for item in read[split]} == set(names)


def test_ct_on_another_grid_lands_on_the_grid_of_the_pet(tmp_path):
    raw = write_raw(tmp_path / "raw", 3)
    # CT and PET are the same linear function of the place, on grids of other spacing, origin and direction.
    for case in ("fdg_x_1", "fdg_y_1"):
        files = write_study(raw, case, seed=8 if case == "fdg_x_1" else 9)
        pet = nib.load(files[1])
        points = np.moveaxis(np.indices((40, 36, 60)), 0, -1)
        affine = np.diag([2.0, -2.0, 1.7, 1.0])
        affine[:3, 3] = [-70, 65, -6]
        place = points @ affine[:3, :3].T + affine[:3, 3]
        ramp = place @ [5.0, -7.0, 3.0] - 300
        write_nifti(files[0], ramp.astype(np.float32), affine)
    prepare(raw, tmp_path / "out", PrepareOptions(spacing=[4, 4, 5]))
    for case in ("fdg_x_1", "fdg_y_1"):
        image = nib.load(tmp_path / f"out/images/{case}.nii")
        place = np.moveaxis(np.indices(image.shape[:3]), 0, -1) @ image.affine[:3, :3].T + image.affine[:3, 3]
        expected = place @ [5.0, -7.0, 3.0] - 300
        assert np.allclose(image.get_fdata()[..., 0], expected, atol=0.05)
        assert pet.shape[0] >= image.shape[0]


def test_items_name_everything_relative_to_the_data_sets(raw, tmp_path):
    prepare(raw, tmp_path / "deep/er/out")
    out = tmp_path / "deep/er/out"
    assert datalist(out)["studies_dir"] == "../../../raw"
    for case, item in items(out).items():
        assert item["image"] == f"images/{case}.nii"
        assert item["label"] == f"labels/{case}.nii"
        assert item["patient"] == case.split("_")[1]
        assert item["tracer"] == "fdg"
        for name in (item["image"], item["label"]):
            assert (out / name).is_file()
        for file in item["original"].values():
            assert not Path(file).is_absolute()
            assert (out / datalist(out)["studies_dir"] / file).is_file()


def test_folder_of_images_with_labels_beside_it_is_prepared_and_its_items_lie_inside_of_the_data_set(raw, tmp_path):
    prepare(raw / "imagesTr", tmp_path / "data")
    files = [Path(item["label"]).resolve() for item in validation_items(tmp_path / "data")]
    assert files
    assert all(file.parent == raw / "labelsTr" for file in files)


def test_evaluating_weights_on_another_split_of_their_studies_is_warned_of(raw, tmp_path, capsys):
    data, other = tmp_path / "data", tmp_path / "other split"
    prepare(raw, data)
    prepare(raw, other, PrepareOptions(seed=2))
    trained, unseen = (
        {item["case"] for item in datalist(folder)[split]} for folder, split in ((data, "training"), (other, "validation"))
    )
    assert trained & unseen, "the other split validates with studies that the weights were trained with"
    capsys.readouterr()
    unseen_items(data, data / "fingerprint.json")
    assert "warning" not in capsys.readouterr().out
    unseen_items(other, data / "fingerprint.json")
    assert re.search(
        "warning: the weights were trained with other studies .* may have seen its validation studies", capsys.readouterr().out
    )


def test_list_of_studies_is_prepared_with_its_patients_and_centres(raw, tmp_path):
    rows = []
    for number, pet in enumerate(sorted((raw / "imagesTr").glob("*_0001.nii.gz"))):
        case = pet.name.removesuffix("_0001.nii.gz")
        files = {"ct": f"imagesTr/{case}_0000.nii.gz", "pet": f"imagesTr/{pet.name}", "label": f"labelsTr/{case}.nii.gz"}
        rows.append({"case": f"study {number}", **files, "patient": f"P{number // 2}", "tracer": "psma", "centre": "LMU"})
    (raw / "list.json").write_text(json.dumps(rows))
    prepare(raw / "list.json", tmp_path / "out")
    found = items(tmp_path / "out")
    assert {(case, item["patient"], item["tracer"], item["centre"]) for case, item in found.items()} == {
        (row["case"], row["patient"], "psma", "LMU") for row in rows
    }
    assert datalist(tmp_path / "out")["studies_dir"] == "../raw"
    assert found["study 0"]["original"]["ct"] == rows[0]["ct"]


# ---------------------------------------------------------------- selection


def test_healthy_and_excluded_and_broken_studies_are_named_and_the_others_prepared(raw, tmp_path, capsys):
    write_study(raw, "fdg_healthy_1", seed=20, lesions=0)
    write_study(raw, "fdg_retracted_1", seed=21)
    write_study(raw, "fdg_broken_1", seed=22)[1].write_bytes(b"")
    write_study(raw, "fdg_noct_1", seed=23)[0].unlink()
    shutil.copy(raw / "imagesTr/fdg_p0_day  0.1_0001.nii.gz", write_study(raw, "fdg_twin_1", seed=0, spacing=(4, 4.4, 5))[1])
    (tmp_path / "retracted.txt").write_text("# retracted\nfdg_retracted_1\n\nfdg_unknown_1\n")
    with pytest.raises(SomeFailedError, match="3 studies have errors, and all others were prepared") as end:
        prepare(raw, tmp_path / "out", PrepareOptions(exclude=tmp_path / "retracted.txt"))
    assert re.findall(r"^  study (\S+):", str(end.value), flags=re.MULTILINE) == ["fdg_broken_1", "fdg_noct_1", "fdg_twin_1"]
    named = reasons(tmp_path / "out")
    assert list(named) == ["fdg_broken_1", "fdg_healthy_1", "fdg_noct_1", "fdg_retracted_1", "fdg_twin_1"]
    assert "fdg_broken_1_0001.nii.gz is empty" in named["fdg_broken_1"]
    assert "no lesion" in named["fdg_healthy_1"]
    assert "no CT" in named["fdg_noct_1"]
    assert "exclusion list" in named["fdg_retracted_1"]
    assert "study fdg_p0_day  0.1" in named["fdg_twin_1"]
    assert len(items(tmp_path / "out")) == 6
    printed = capsys.readouterr().out
    assert "fdg_unknown_1" in printed
    for case, reason in named.items():
        assert f"{reason} ({case})" in printed


def test_healthy_studies_are_kept_on_request(raw, tmp_path):
    write_study(raw, "fdg_healthy_1", seed=20, lesions=0)
    prepare(raw, tmp_path / "out", PrepareOptions(keep_healthy=True))
    assert "fdg_healthy_1" in items(tmp_path / "out")
    assert reasons(tmp_path / "out") == {}


def test_warnings_are_printed_and_the_study_is_used(raw, tmp_path, capsys):
    case = "fdg_p0_day  0.1"
    file = raw / f"imagesTr/{case}_0000.nii.gz"
    ct = nib.load(file)
    write_nifti(file, np.asarray(ct.dataobj)[:, :, :9], ct.affine)
    prepare(raw, tmp_path / "out")
    assert f"study {case}: {file.name} covers only" in capsys.readouterr().out
    assert case in items(tmp_path / "out")


def test_strict_stops_at_a_study_with_an_error(raw, tmp_path):
    write_study(raw, "fdg_broken_1", seed=22)[1].write_bytes(b"")
    with pytest.raises(InputError, match=r"study fdg_broken_1: fdg_broken_1_0001.nii.gz is empty"):
        prepare(raw, tmp_path / "out", PrepareOptions(strict=True))
    assert not (tmp_path / "out/datalist.json").exists()


def test_nothing_left_is_one_sentence_with_all_reasons(tmp_path):
    for number in range(3):
        write_study(tmp_path / "raw", f"fdg_p{number}_1", seed=number, lesions=0)
    with pytest.raises(InputError, match=r"(?s)all studies are left out.*fdg_p0_1, fdg_p1_1, fdg_p2_1"):
        prepare(tmp_path / "raw", tmp_path / "out")


def test_exclusions_are_read_from_lists_text_and_json(tmp_path):
    (tmp_path / "a.txt").write_text("a b  c\n# comment\n\nd.e\n")
    (tmp_path / "a.json").write_text('["a b  c", "d.e"]')
    for source in (tmp_path / "a.txt", str(tmp_path / "a.json"), ["a b  c", "d.e"]):
        assert read_exclusions(source) == ["a b  c", "d.e"]
    assert read_exclusions(None) == []
    (tmp_path / "b.json").write_text('{"a": 1}')
    for wrong in (tmp_path / "missing.txt", tmp_path / "b.json", [1]):
        with pytest.raises(InputError, match="case"):
            read_exclusions(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"validation_fraction": 0},
        {"validation_fraction": 1.5},
        {"spacing": "middle"},
        {"folds": 1},
        {"num_workers": -1},
        {"exclude": "missing.txt"},
    ],
)
def test_impossible_arguments_are_one_sentence(raw, tmp_path, options):
    with pytest.raises(InputError, match=f"{'missing' if 'exclude' in options else next(iter(options))}"):
        prepare(raw, tmp_path / "out", PrepareOptions(**options))


def test_data_set_is_not_prepared_into_itself(raw):
    with pytest.raises(InputError, match="folder of its own"):
        prepare(raw, raw)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_is_one_sentence(raw, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match="may be written"):
        prepare(raw, tmp_path / "out")


# ---------------------------------------------------------------- again


def test_same_seed_gives_the_same_bytes_with_any_number_of_processes(raw, tmp_path):
    prepare(raw, tmp_path / "one", PrepareOptions(seed=3))
    prepare(raw, tmp_path / "two", PrepareOptions(seed=3, num_workers=2))
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_second_run_changes_nothing(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "out")
    before = times(tmp_path / "out")
    forbid_work(monkeypatch)
    prepare(raw, tmp_path / "out")
    assert times(tmp_path / "out") == before


def test_every_study_is_read_once_and_cropped_studies_do_not_stay(raw, tmp_path, monkeypatch):
    write_study(raw, "fdg_healthy_1", seed=20, lesions=0)
    read = []
    for module in (petct_cascade.admission, petct_cascade.prepared_study):
        monkeypatch.setattr(module, "read_study", lambda study: read.append(study.case) or read_study(study))
    prepare(raw, tmp_path / "out", PrepareOptions(spacing=[4, 4, 4.5]))
    assert sorted(read) == sorted([*items(tmp_path / "out"), "fdg_healthy_1"])
    read.clear()
    # The check is still that of the present files, but what it had cropped is gone.
    prepare(raw, tmp_path / "out", PrepareOptions(spacing=[4, 4, 5]))
    assert sorted(read) == sorted(items(tmp_path / "out"))
    prepare(raw, tmp_path / "fresh", PrepareOptions(spacing=[4, 4, 5]))
    assert content(tmp_path / "out") == content(tmp_path / "fresh")
    assert not list(tmp_path.rglob("cropped"))


@pytest.mark.parametrize("lost", ["image.nii", "label.nii", "lesion_values.npy", "settings.json"])
def test_cropped_study_that_a_killed_run_has_left_in_part_is_read_again(raw, tmp_path, monkeypatch, lost):
    prepare(raw, tmp_path / "undisturbed")
    original = petct_cascade.prepare.write_data_set

    def write(preparation, *arguments):
        files = list(preparation.dataset_dir.rglob(f"cropped/*/{lost}"))
        assert len(files) == 6
        for file in files[::2]:
            file.unlink()
        return original(preparation, *arguments)

    monkeypatch.setattr(petct_cascade.prepare, "write_data_set", write)
    prepare(raw, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_lesion_values_outside_of_the_body_belong_to_the_fingerprint(raw, tmp_path):
    for label in (raw / "labelsTr").glob("*.nii.gz"):
        image = nib.load(label)
        voxels = np.asarray(image.dataobj).copy()
        voxels[0, 0, 0] = 1
        write_nifti(label, voxels, image.affine)
    prepare(raw, tmp_path / "out")
    originals = [item["original"]["label"] for item in datalist(tmp_path / "out")["training"]]
    count = sum(int(nib.load(raw / name).get_fdata().sum()) for name in originals)
    trained = [item["case"] for item in datalist(tmp_path / "out")["training"]]
    values = [np.load(tmp_path / f"out/.prepare/lesion_values/{case}.npy") for case in trained]
    assert sum(channels.shape[1] for channels in values) == count


def test_other_seed_gives_another_split_without_a_new_check(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "out", PrepareOptions(spacing=[4, 4, 5]))
    before = times(tmp_path / "out")
    first = datalist(tmp_path / "out")
    forbid_work(monkeypatch)
    splits = []
    for seed in range(1, 6):
        prepare(raw, tmp_path / "out", PrepareOptions(spacing=[4, 4, 5], seed=seed))
        splits.append(datalist(tmp_path / "out"))
    assert any(split != first for split in splits)
    same = [name for name, time in times(tmp_path / "out").items() if time == before[name]]
    assert len(same) == 2 * len(items(tmp_path / "out"))


def test_folds_are_written_without_a_new_check_and_the_fingerprint_is_that_of_all_studies(raw, tmp_path, monkeypatch, capsys):
    prepare(raw, tmp_path / "data", PrepareOptions(spacing=(4, 4, 5)))
    forbid_work(monkeypatch)
    prepare(raw, tmp_path / "data", PrepareOptions(spacing=(4, 4, 5), folds=3))
    listed = datalist(tmp_path / "data")
    assert listed["validation"] == []
    assert sorted(Counter(item["fold"] for item in listed["training"]).values()) == [2, 2, 2]
    assert json.loads((tmp_path / "data/fingerprint.json").read_text())["num_cases"] == 6
    assert "6 studies of 5 patients in 3 folds of 2 to 2 studies" in capsys.readouterr().out
    before = content(tmp_path / "data")
    prepare(raw, tmp_path / "data", PrepareOptions(spacing=(4, 4, 5), folds=3))
    assert content(tmp_path / "data") == before
    with pytest.raises(InputError, match="5 patients have lesions, and each of 7 folds needs one"):
        prepare(raw, tmp_path / "data", PrepareOptions(spacing=(4, 4, 5), folds=7))


def test_changed_source_is_made_again_and_its_coarse_mask_taken_away(raw, tmp_path):
    out = tmp_path / "out"
    prepare(raw, out, PrepareOptions(spacing=[4, 4, 5]))
    coarse_masks = masks_in(out / "coarse_masks", "masks")
    changed, of_a_reader = "fdg_p2_day  3.1", "fdg_p1_day  2.1"
    for case in set(items(out)) - {of_a_reader}:
        with coarse_masks.records.making(coarse_masks.plan({"case": case, "image": out / f"images/{case}.nii"})):
            (out / f"coarse_masks/{case}.nii.gz").write_text("mask")
    (out / f"coarse_masks/{of_a_reader}.nii.gz").write_text("drawn by hand")
    before = times(out)
    write_study(raw, changed, seed=77)
    write_study(raw, of_a_reader, seed=78)
    prepare(raw, out, PrepareOptions(spacing=[4, 4, 5]))
    after = times(out)
    assert before.keys() - after.keys() == {f"coarse_masks/{changed}.nii.gz"}
    remade = {name for name in after if after[name] != before[name]}
    volumes = {f"{folder}/{case}.nii" for folder in ("images", "labels") for case in (changed, of_a_reader)}
    assert remade == {*volumes, "datalist.json", "fingerprint.json"}
    prepare(raw, tmp_path / "fresh", PrepareOptions(spacing=[4, 4, 5]))
    fresh = content(tmp_path / "fresh")
    assert {name: data for name, data in content(out).items() if not name.startswith("coarse_masks")} == fresh


def test_other_spacing_makes_every_volume_again(raw, tmp_path):
    prepare(raw, tmp_path / "out")
    prepare(raw, tmp_path / "out", PrepareOptions(spacing=[6, 6, 6]))
    prepare(raw, tmp_path / "fresh", PrepareOptions(spacing=[6, 6, 6]))
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_lost_volume_is_made_again(raw, tmp_path):
    prepare(raw, tmp_path / "out")
    before = content(tmp_path / "out")
    (tmp_path / "out/images/fdg_p2_day  3.1.nii").unlink()
    prepare(raw, tmp_path / "out")
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["labels/fdg_p1_day  2.1.nii", "datalist.json"])
@pytest.mark.parametrize("options", [PrepareOptions(), PrepareOptions(spacing=[6, 6, 6])])
def test_what_was_edited_in_the_prepared_data_set_is_never_replaced(raw, tmp_path, name, options):
    prepare(raw, tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(b"my own")
    before = content(tmp_path / "out")
    with pytest.raises(InputError, match=f"{name} was changed after this program had written it, and is not replaced"):
        prepare(raw, tmp_path / "out", options)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("copy", [shutil.move, shutil.copytree])
def test_moved_or_copied_data_is_neither_read_nor_made_again(raw, tmp_path, monkeypatch, copy):
    write_study(raw, "fdg_healthy_1", seed=20, lesions=0)
    prepare(raw, tmp_path / "out")
    copy(raw, tmp_path / "bigger disk/raw data")
    copy(tmp_path / "out", tmp_path / "bigger disk/prepared")
    before = {name: data for name, data in content(tmp_path / "bigger disk/prepared").items() if name != "datalist.json"}
    forbid_work(monkeypatch)
    prepare(tmp_path / "bigger disk/raw data", tmp_path / "bigger disk/prepared")
    after = content(tmp_path / "bigger disk/prepared")
    assert json.loads(after.pop("datalist.json"))["studies_dir"] == "../raw data"
    assert after == before


def test_swapped_files_of_one_size_and_time_are_noticed(raw, tmp_path):
    first, second = (raw / f"imagesTr/{case}_0001.nii.gz" for case in ("fdg_p1_day  2.1", "fdg_p3_day  4.1"))
    prepare(raw, tmp_path / "out")
    size = max(file.stat().st_size for file in (first, second))
    for file in (first, second):
        # gzip's readers take no notice of zeros at the end.
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
        os.utime(file, (1, 1))
    prepare(raw, tmp_path / "out")
    for source, target in ((first, raw / "kept"), (second, first), (raw / "kept", second)):
        source.rename(target)
    prepare(raw, tmp_path / "out")
    prepare(raw, tmp_path / "fresh")
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_study_that_has_left_the_data_set_is_taken_away_and_nothing_else(raw, tmp_path):
    out = tmp_path / "out"
    prepare(raw, out)
    (out / "images/notes.txt").write_text("mine")
    prepare(raw, out, PrepareOptions(exclude=["fdg_p3_day  4.1"]))
    prepare(raw, tmp_path / "fresh", PrepareOptions(exclude=["fdg_p3_day  4.1"]))
    assert content(out) == content(tmp_path / "fresh") | {"images/notes.txt": b"mine"}


def test_interrupted_run_leaves_no_data_list_and_goes_on_to_the_same_bytes(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "undisturbed")
    out = tmp_path / "out"
    prepare(raw, out, PrepareOptions(spacing=[7, 7, 7]))
    original = petct_cascade.preparation.write_volume
    for stop in (0, 3, 7):
        calls = itertools.count()

        def save(*arguments, calls=calls, stop=stop):
            if next(calls) == stop:
                raise KeyboardInterrupt
            original(*arguments)

        monkeypatch.setattr(petct_cascade.preparation, "write_volume", save)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, out)
        assert not (out / "datalist.json").exists()
        (out / f"images/.part-{stop}").mkdir()
        (out / f"images/.part-{stop}/a.nii").write_bytes(b"what a killed run leaves")
    monkeypatch.setattr(petct_cascade.preparation, "write_volume", original)
    prepare(raw, out)
    assert content(out) == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("role", ["ct", "pet", "label"])
def test_file_that_breaks_after_the_check_costs_no_other_study(raw, tmp_path, monkeypatch, role):
    case = "fdg_p2_day  3.1"
    folder, end = {"ct": ("imagesTr", "_0000"), "pet": ("imagesTr", "_0001"), "label": ("labelsTr", "")}[role]
    file = raw / folder / f"{case}{end}.nii.gz"
    original = petct_cascade.prepare.write_data_set

    def write(*arguments):
        file.write_bytes(file.read_bytes()[:100])
        return original(*arguments)

    monkeypatch.setattr(petct_cascade.prepare, "write_data_set", write)
    for out in ("out", "fresh"):
        with pytest.raises(SomeFailedError, match=rf"1 study has errors.*\n  study {case}: {case}{end}.nii.gz is damaged"):
            prepare(raw, tmp_path / out)
        assert len(items(tmp_path / out)) == 5
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


@pytest.mark.slow
def test_run_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path):
    raw = write_raw(tmp_path / "raw", 40)
    prepare(raw, tmp_path / "undisturbed")
    out = tmp_path / "out"
    arguments = ["--studies", str(raw), "--dataset_dir", str(out), "--num_workers", "2"]
    chance = np.random.default_rng(0)
    for _ in range(10):
        process = subprocess.Popen(bundle_command(*arguments), cwd=ENSEMBLE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Most of the first seconds pass with imports.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(5, 9))
        process.kill()
        process.wait()
        if (out / "datalist.json").exists():
            assert content(out) == content(tmp_path / "undisturbed")
            shutil.rmtree(out)
    prepare(raw, out)
    assert content(out) == content(tmp_path / "undisturbed")


def test_full_disk_is_one_sentence_and_leaves_nothing_half_written(raw, tmp_path, monkeypatch):
    def save(image, file):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", save)
    with pytest.raises(InputError, match=r"\.nii cannot be written \(No space left on device\): see that there is room"):
        prepare(raw, tmp_path / "out")
    assert content(tmp_path / "out") == {}


# ---------------------------------------------------------------- command


def test_command_takes_texts_for_switches_and_ends_with_exit_code_3_when_some_studies_have_errors(raw, tmp_path):
    write_study(raw, "fdg_broken_1", seed=22)[1].write_bytes(b"")
    with pytest.raises(SystemExit, match=r"1 study has errors.*\n  study fdg_broken_1: ") as end:
        commands.prepare(raw, tmp_path / "out", strict="false")
    assert end.value.code == 3
    with pytest.raises(SystemExit, match=r"^error: study fdg_broken_1: ") as end:
        commands.prepare(raw, tmp_path / "out", strict="true")
    with pytest.raises(SystemExit, match=r"^error: strict is 'perhaps': give true or false"):
        commands.prepare(raw, tmp_path / "out", strict="perhaps")


def run_bundle(*arguments: str) -> subprocess.CompletedProcess:
    return run_python(bundle_command(*arguments), ENSEMBLE)


def test_command_prepares_and_ends_with_a_sentence_on_bad_input(raw, tmp_path):
    done = run_bundle(
        "--studies", str(raw), "--dataset_dir", str(tmp_path / "out"), "--exclude", "['fdg_p3_day  4.1']", "--num_workers", "1"
    )
    assert done.returncode == 0, done.stderr
    assert len(items(tmp_path / "out")) == 5
    failed = run_bundle("--studies", str(tmp_path / "nothing"), "--dataset_dir", str(tmp_path / "out"))
    assert failed.returncode == 1
    assert "nothing does not exist" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


@needs_shared(SARCOMA)
def test_real_studies_with_a_finer_ct_are_prepared_without_a_warning(tmp_path, capsys):
    prepare(SARCOMA, tmp_path / "out")
    assert len(items(tmp_path / "out")) == 12
    assert len(datalist(tmp_path / "out")["validation"]) == 2
    assert reasons(tmp_path / "out") == {}
    assert "warning" not in capsys.readouterr().out
    for item in items(tmp_path / "out").values():
        image, label = (nib.load(tmp_path / "out" / item[key]).get_fdata() for key in ("image", "label"))
        # Soft tissue with uptake.
        assert -200 < np.median(image[..., 0][label == 1]) < 200
        assert np.median(image[..., 1][label == 1]) > 0.3
        assert -1100 < image[..., 0].min() < -800


def test_raw_labels_in_the_prepared_folder_are_never_replaced(tmp_path):
    for number in range(3):
        for name, array in zip(("images/c{}_0000", "images/c{}_0001", "labels/c{}"), make_study(seed=number), strict=True):
            write_nifti(tmp_path / f"DATA/{name.format(number)}.nii", array, las((4, 4, 5)))
    before = {file: file.read_bytes() for file in (tmp_path / "DATA").rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"labels/c0\.nii is no result of this program, and is not replaced"):
        prepare(tmp_path / "DATA/images", tmp_path / "DATA")
    assert {file: file.read_bytes() for file in (tmp_path / "DATA").rglob("*") if file.is_file()} == before
    assert {place.name for place in (tmp_path / "DATA").iterdir()} == {"images", "labels"}


def test_another_programs_datalist_is_never_replaced(tmp_path):
    raw = write_raw(tmp_path / "raw")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/datalist.json").write_text("{}")
    with pytest.raises(InputError, match=r"datalist\.json is no result of this program"):
        prepare(raw, tmp_path / "out")
    assert (tmp_path / "out/datalist.json").read_text() == "{}"


def test_a_second_preparation_in_one_folder_is_refused_until_the_first_has_ended(raw, tmp_path):
    with Claims(tmp_path / "out", ".prepare").holding("preparation", "never said"):
        before = content(tmp_path / "out")
        with pytest.raises(
            InputError, match="out: another preparation writes to this folder at the moment: wait for it, or name"
        ):
            prepare(raw, tmp_path / "out")
        assert content(tmp_path / "out") == before
    prepare(raw, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.lock"))
