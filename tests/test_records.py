"""Promises of the records: what is skipped, made again or refused follows from content alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from petct_training.errors import InputError
from petct_training.records import Plan, Records, digest_of, file_state

OUTPUTS = ("a.nii.gz", "uncertainty/a.nii.gz")


def write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def plan_of(folder: Path, threshold: float = 0.5, name: str = "a") -> Plan:
    return Plan(name, {"ct": folder / "ct.nii", "pet": folder / "pet.nii"}, {"threshold": threshold, "patch": (1, 2)}, OUTPUTS)


def make(records: Records, plan: Plan, content: bytes = b"mask") -> None:
    with records.making(plan):
        for output in plan.outputs:
            write(records.folder / output, content)


@pytest.fixture
def study(tmp_path) -> Path:
    for name in ("ct", "pet"):
        write(tmp_path / f"study/{name}.nii", name.encode())
    return tmp_path / "study"


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path / "out", "inference")


def test_digest_is_the_sha256_of_the_bytes(tmp_path):
    # The example of FIPS 180-2, appendix B.1.
    file = write(tmp_path / "abc", b"abc")
    assert digest_of(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_result_is_current_after_it_was_made_and_not_before(records, study):
    assert not records.is_current(plan_of(study))
    make(records, plan_of(study))
    assert records.is_current(plan_of(study))


def test_another_option_or_another_content_of_a_file_makes_it_outdated(records, study):
    make(records, plan_of(study))
    assert not records.is_current(plan_of(study, threshold=0.4))
    write(study / "pet.nii", b"PET")
    assert not records.is_current(plan_of(study))


def test_touched_files_are_still_current(records, study):
    make(records, plan_of(study))
    for file in (study / "pet.nii", records.folder / "a.nii.gz"):
        os.utime(file, (1, 1))
    assert records.is_current(plan_of(study))


def test_a_swap_of_files_of_one_size_and_time_is_seen(records, tmp_path):
    files = [write(tmp_path / f"{name}/{role}.nii", f"{name}{role}".encode()) for name in "xy" for role in ("ct", "pet")]
    for file in files:
        os.utime(file, (1, 1))
    make(records, plan_of(tmp_path / "x"))
    for role in ("ct", "pet"):
        os.rename(tmp_path / f"x/{role}.nii", tmp_path / "kept")
        os.rename(tmp_path / f"y/{role}.nii", tmp_path / f"x/{role}.nii")
        os.rename(tmp_path / "kept", tmp_path / f"y/{role}.nii")
    assert not records.is_current(plan_of(tmp_path / "x"))


@pytest.mark.parametrize("copy", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_folder_keeps_its_results(tmp_path, records, study, copy):
    make(records, plan_of(study))
    copy(records.folder, tmp_path / "bigger disk/out")
    assert Records(tmp_path / "bigger disk/out", "inference").is_current(plan_of(study))
    copy(study, tmp_path / "archive")
    assert Records(tmp_path / "bigger disk/out", "inference").is_current(plan_of(tmp_path / "archive"))


def test_a_missing_output_is_made_again(records, study):
    make(records, plan_of(study))
    (records.folder / "a.nii.gz").unlink()
    assert not records.is_current(plan_of(study))


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_file_without_a_record_is_never_replaced(records, study, output):
    write(records.folder / output, b"somebody's")
    with pytest.raises(InputError, match="is no result of this program, and is not replaced"):
        make(records, plan_of(study))
    assert (records.folder / output).read_bytes() == b"somebody's"


def test_a_result_that_was_edited_by_hand_is_never_replaced(records, study):
    make(records, plan_of(study))
    write(records.folder / "a.nii.gz", b"corrected")
    with pytest.raises(InputError, match=r"a\.nii\.gz was changed after this program had written it"):
        records.is_current(plan_of(study, threshold=0.4))


def test_another_study_of_the_same_name_is_refused(tmp_path, records, study):
    make(records, plan_of(study))
    for name in ("ct", "pet"):
        write(tmp_path / f"other/{name}.nii", f"other {name}".encode())
    with pytest.raises(InputError, match=r"study a: .*out holds a result of another study of this name, made from .*study"):
        records.is_current(plan_of(tmp_path / "other"))


def test_a_study_with_one_file_of_the_recorded_content_is_the_same_study_elsewhere(tmp_path, records, study):
    make(records, plan_of(study))
    for name, content in (("ct", b"ct"), ("pet", b"a new reconstruction")):
        write(tmp_path / f"second disk/{name}.nii", content)
    assert not records.is_current(plan_of(tmp_path / "second disk"))
    make(records, plan_of(tmp_path / "second disk"))
    assert records.is_current(plan_of(tmp_path / "second disk"))


# e with an acute accent as one sign, as Linux and Windows write it, and as two, as macOS does.
@pytest.mark.parametrize(("first", "second"), [("Anna", "anna"), ("Ren\u00e9", "Rene\u0301"), ("STRASSE", "straße")])
def test_names_that_some_file_systems_take_for_one_are_refused(first, second, records, study):
    make(records, replace(plan_of(study, name=first), outputs=[f"{first}.nii.gz"]))
    plan = replace(plan_of(study, name=second), outputs=[f"{second}.nii.gz"])
    for check in (records, Records(records.folder, records.kind)):
        with pytest.raises(InputError, match=f"study {second}: .*out holds a result of study {first}, and many file systems"):
            check.is_current(plan)


def test_a_new_place_of_an_unfinished_result_is_guarded(records, study):
    records.begin(replace(plan_of(study), outputs=OUTPUTS[:1]))
    write(records.folder / OUTPUTS[1], b"somebody's")
    with pytest.raises(InputError, match="is no result of this program, and is not replaced"):
        records.begin(plan_of(study))


def test_what_was_moved_is_read_once_and_then_known(tmp_path, records, study, monkeypatch):
    make(records, plan_of(study))
    shutil.copytree(records.folder, tmp_path / "disk/out")
    shutil.copytree(study, tmp_path / "disk/study")
    read = []
    monkeypatch.setattr("petct_training.records.digest_of", lambda path: read.append(path) or digest_of(path))
    for _ in range(2):
        assert Records(tmp_path / "disk/out", "inference").is_current(plan_of(tmp_path / "disk/study"))
    assert len(read) == 4


def test_what_an_ended_run_has_left_is_its_own(records, study):
    records.begin(plan_of(study))
    write(records.folder / "a.nii.gz", b"half")
    assert not records.is_current(plan_of(study))
    make(records, plan_of(study))
    assert records.is_current(plan_of(study))


def test_what_somebody_puts_in_the_place_of_an_unfinished_result_is_kept(records, study, capsys):
    make(records, plan_of(study), b"of the first run")
    # It is ended before it has written a file.
    records.begin(plan_of(study, threshold=0.4))
    write(records.folder / "a.nii.gz", b"corrected")
    make(records, plan_of(study, threshold=0.4), b"of the third run")
    kept = f"records/kept/{hashlib.sha256(b'corrected').hexdigest()[:8]}/a.nii.gz"
    assert (records.folder / kept).read_bytes() == b"corrected"
    assert (records.folder / "a.nii.gz").read_bytes() == b"of the third run"
    assert (
        f"a.nii.gz was not what is written there now, and may have been somebody's: it is kept as {kept}"
        in capsys.readouterr().out
    )
    assert records.is_current(plan_of(study, threshold=0.4))


def test_what_an_ended_run_has_written_is_not_kept_where_the_next_one_writes_the_same(records, study, capsys):
    records.begin(plan_of(study))
    for output in OUTPUTS:
        write(records.folder / output, b"mask")
    make(records, plan_of(study))
    assert sorted(file.name for file in (records.folder / "records").iterdir()) == ["a.json"]
    assert capsys.readouterr().out == ""


def test_removing_an_unfinished_result_keeps_what_somebody_has_put_there(records, study):
    make(records, plan_of(study), b"of earlier weights")
    records.begin(plan_of(study, threshold=0.4))
    write(records.folder / "a.nii.gz", b"corrected")
    records.remove("a")
    assert [file.read_bytes() for file in records.folder.rglob("*") if file.is_file()] == [b"corrected"]


def test_a_result_that_is_made_again_with_fewer_files_leaves_none_of_the_others_but_what_was_edited(records, study):
    """Such as the masks of a network that the ensemble has no more, and the map of an uncertainty that nobody asks for any more."""
    more, fewer = plan_of(study), replace(plan_of(study, threshold=0.4), outputs=OUTPUTS[:1])
    make(records, more)
    make(records, fewer)
    assert not (records.folder / OUTPUTS[1]).exists()
    make(records, more)
    assert records.is_current(more)
    (records.folder / OUTPUTS[1]).write_bytes(b"edited")
    make(records, fewer)
    assert (records.folder / OUTPUTS[1]).read_bytes() == b"edited"


def test_files_that_a_later_run_does_not_ask_for_stay_those_of_the_result(tmp_path, records, study):
    """The study has moved, so that its record is written anew."""
    plan = plan_of(study)
    make(records, plan)
    moved = study.rename(tmp_path / "elsewhere")
    assert records.is_current(replace(plan_of(moved), outputs=OUTPUTS[:1]))
    assert records.is_current(plan_of(moved))


def test_a_block_that_fails_leaves_no_current_result(records, study):
    with pytest.raises(KeyError), records.making(plan_of(study)):
        raise KeyError(write(records.folder / "a.nii.gz", b"mask"))
    assert not records.is_current(plan_of(study))


def test_a_source_that_cannot_be_read_stops_nobody_and_is_never_current(records, study):
    (study / "pet.nii").unlink()
    for make_unreadable in (lambda: None, (study / "pet.nii").mkdir):
        make_unreadable()
        make(records, plan_of(study))
        assert not records.is_current(plan_of(study))
    assert file_state(study / "pet.nii")["sha256"] is None


def test_a_folder_holds_results_of_one_kind(records, study):
    make(records, plan_of(study))
    records.check_kind()
    with pytest.raises(InputError, match=r"out holds results of another kind \(inference, this is evaluation\)"):
        Records(records.folder, "evaluation").check_kind()


def test_removing_a_result_leaves_what_others_have_put_there(records, study):
    make(records, plan_of(study))
    write(records.folder / "a.nii.gz", b"corrected")
    records.remove("a")
    assert sorted(file.name for file in records.folder.rglob("*") if file.is_file()) == ["a.nii.gz"]
    records.remove("never made")


def test_an_unchanged_file_is_not_read_again(study, monkeypatch):
    state = file_state(study / "pet.nii")
    monkeypatch.setattr("petct_training.records.digest_of", lambda path: pytest.fail("was read"))
    assert file_state(study / "pet.nii", state) == state
    assert file_state(study / "none.nii", state) is None


def test_a_broken_record_counts_as_none(records, study):
    make(records, plan_of(study))
    records.file("a").write_text("{")
    with pytest.raises(InputError, match="is no result of this program"):
        records.is_current(plan_of(study))


def test_a_record_says_for_a_person_where_a_result_comes_from(records, study):
    records.about = {"versions": {"torch": "2.13.0"}}
    make(records, plan_of(study))
    content = json.loads(records.file("a").read_text())
    assert content["sources"]["pet"]["path"] == "../study/pet.nii"
    assert content["sources"]["pet"]["sha256"] == digest_of(study / "pet.nii")
    assert content["written"]["a.nii.gz"]["sha256"] == digest_of(records.folder / "a.nii.gz")
    assert content["about"] == {"versions": {"torch": "2.13.0"}}


def test_removing_a_result_that_was_begun_again_leaves_no_earlier_file(records, study):
    make(records, plan_of(study), b"of earlier weights")
    records.begin(plan_of(study, threshold=0.4))
    records.remove("a")
    assert not [file for file in records.folder.rglob("*") if file.is_file()]


def test_folder_of_a_results_own_goes_with_its_last_file_and_no_other_folder_does(records, study, tmp_path):
    plan = replace(
        plan_of(study),
        outputs=["a.nii.gz", "pictures/a.png", "studies/a_files/x.js", "studies/a_files/y.js", "../maps/own/a.nii"],
    )
    make(records, plan)
    write(records.folder / "studies/b_files/mine.txt", b"mine")
    # A run that wants fewer files.
    make(records, replace(plan, outputs=plan.outputs[:3]))
    assert [file.name for file in (records.folder / "studies/a_files").iterdir()] == ["x.js"]
    records.remove("a")
    left = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir() and "records" not in path.parts
    }
    assert left == {"study", "maps", "maps/own", "out", "out/pictures", "out/studies", "out/studies/b_files"}


def test_folder_with_a_file_of_somebody_else_stays(records, study):
    plan = replace(plan_of(study), outputs=["studies/a_files/x.js"])
    make(records, plan)
    write(records.folder / "studies/a_files/mine.txt", b"mine")
    records.remove("a")
    assert [file.name for file in (records.folder / "studies/a_files").iterdir()] == ["mine.txt"]
