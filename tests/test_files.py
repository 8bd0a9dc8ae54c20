"""Promises of files: they appear complete or not at all, and a change of one is noticed."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from petct_training.errors import InputError
from petct_training.files import atomic, make_folder, remove_unfinished, stamp


def test_file_appears_when_the_block_has_ended(tmp_path):
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="shows on other systems what Windows does by itself")
def test_file_appears_where_only_files_open_for_writing_can_be_flushed(tmp_path, monkeypatch):
    # As on Windows: FlushFileBuffers needs the right to write.
    import fcntl

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic(tmp_path / "a.txt") as part:
        part.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def write_half(file: Path) -> None:
    with atomic(file) as part:
        part.write_text("half")
        raise KeyboardInterrupt


def test_interrupted_writing_leaves_the_former_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("former")
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.txt")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "former")]


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "a").write_text("")
    for write in (make_folder, lambda folder: atomic(folder / "b").__enter__()):
        with pytest.raises(InputError, match=r"cannot be written \(.*\): see that there is room"):
            write(tmp_path / "a/b")


def test_what_killed_runs_were_writing_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "deep/.part-1").mkdir(parents=True)
    (tmp_path / "deep/.part-1/a.txt").write_text("half")
    (tmp_path / "deep/a.txt").write_text("whole")
    remove_unfinished(tmp_path)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_stamp_changes_with_size_and_with_time(tmp_path):
    file = tmp_path / "a.txt"
    assert stamp(file) == []
    file.write_text("one")
    os.utime(file, ns=(5, 5))
    assert stamp(file) == [3, 5]
    os.utime(file, ns=(6, 6))
    assert stamp(file) == [3, 6]


def test_stamp_goes_with_a_copy_that_keeps_its_time(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    assert stamp(shutil.copy2(tmp_path / "a.txt", tmp_path / "b.txt")) == stamp(tmp_path / "a.txt")
