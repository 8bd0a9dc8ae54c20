"""Promises of a network's masks: which are still to be made follows from what they were made from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from petct_training.errors import InputError
from petct_training.masks import Masks, masks_in, unfinished_items

SETTINGS = {"threshold": 0.5, "patch_size": (32, 32, 32)}


@pytest.fixture
def item(tmp_path) -> dict[str, str]:
    files = {"image": tmp_path / "data/a b.nii", "coarse_mask": tmp_path / "data/a b.nii.gz"}
    for file in (*files.values(), tmp_path / "models/model.pt", tmp_path / "models/fingerprint.json"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(file.name)
    return {"case": "a b"} | {key: str(file) for key, file in files.items()}


def masks(folder: Path, **settings: object) -> Masks:
    weights = [folder.parent / "models" / name for name in ("model.pt", "fingerprint.json")]
    return masks_in(folder, "masks of UNet", SETTINGS | settings, weights)


def make(item: dict[str, str], made: Masks, content: str = "mask") -> None:
    plan = made.plan(item)
    with made.records.making(plan):
        (made.records.folder / plan.outputs[0]).write_text(content)


def test_a_mask_is_finished_once_it_was_made_and_stays_so_in_another_folder(item, tmp_path):
    assert unfinished_items([item], masks(tmp_path / "out")) == [item]
    make(item, masks(tmp_path / "out"))
    assert unfinished_items([item], masks(tmp_path / "out")) == []
    for folder in ("out", "data", "models"):
        shutil.copytree(tmp_path / folder, tmp_path / "backup" / folder)
    copied = {key: value.replace(str(tmp_path), str(tmp_path / "backup")) for key, value in item.items()}
    assert unfinished_items([copied], masks(tmp_path / "backup/out")) == []


@pytest.mark.parametrize("name", ["data/a b.nii", "data/a b.nii.gz", "models/model.pt", "models/fingerprint.json"])
def test_a_mask_is_made_again_when_the_content_of_a_source_is_another_one_at_the_same_time(name, item, tmp_path):
    make(item, masks(tmp_path / "out"))
    state = os.stat(tmp_path / name)
    (tmp_path / name).write_text((tmp_path / name).read_text()[::-1])
    os.utime(tmp_path / name, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert unfinished_items([item], masks(tmp_path / "out")) == [item]


def test_a_mask_is_not_made_again_when_its_sources_are_only_newer(item, tmp_path):
    make(item, masks(tmp_path / "out"))
    for file in ("data/a b.nii", "models/model.pt"):
        os.utime(tmp_path / file)
    assert unfinished_items([item], masks(tmp_path / "out")) == []


@pytest.mark.parametrize("settings", [{"threshold": 0.4}, {"patch_size": (64, 64, 64)}])
def test_a_mask_is_made_again_with_another_option(settings, item, tmp_path):
    make(item, masks(tmp_path / "out"))
    assert unfinished_items([item], masks(tmp_path / "out", **settings)) == [item]


def test_a_mask_of_a_reader_is_never_replaced(item, tmp_path):
    make(item, masks(tmp_path / "out"))
    (tmp_path / "out/a b.nii.gz").write_text("corrected")
    with pytest.raises(InputError, match=r"study a b: .*a b\.nii\.gz was changed after this program had written it"):
        unfinished_items([item], masks(tmp_path / "out", threshold=0.4))


def test_another_networks_masks_are_never_replaced(item, tmp_path):
    make(item, masks(tmp_path / "out"))
    with pytest.raises(InputError, match=r"out holds results of another kind \(masks of UNet, this is masks of SegResNet\)"):
        unfinished_items([item], masks_in(tmp_path / "out", "masks of SegResNet", SETTINGS))


def test_processes_share_the_items_by_the_size_of_their_files(tmp_path):
    items = []
    for case, size in (("a", 900), ("b", 500), ("c", 450)):
        (tmp_path / f"{case}.nii").write_bytes(bytes(size))
        items.append({"case": case, "image": str(tmp_path / f"{case}.nii")})
    shares = [unfinished_items(items, masks(tmp_path / "out"), part, 2) for part in (1, 2)]
    assert [[item["case"] for item in share] for share in shares] == [["a"], ["b", "c"]]
