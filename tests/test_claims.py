"""Promises of sharing studies among processes: a plan that balances, and claims that nobody else can have."""

from __future__ import annotations

import subprocess
import sys

import filelock
import pytest
from helpers import BUNDLES, STAGE1
from hypothesis import given
from hypothesis import strategies as st

from petct_training.claims import Claims, bytes_of, share_of
from petct_training.errors import InputError


@given(sizes=st.lists(st.integers(0, 1000), max_size=30), of=st.integers(1, 6))
def test_each_study_is_in_one_share_and_no_share_is_far_above_the_others(sizes, of):
    studies = list(enumerate(sizes))
    shares = [share_of(studies, part, of, lambda study: study[1]) for part in range(1, of + 1)]
    assert sorted(study for share in shares for study in share) == studies
    assert all(share == sorted(share) for share in shares)
    # Graham's bound, with the least that any plan can reach.
    best = max(sum(sizes) / of, max(sizes, default=0))
    assert max(sum(size for _, size in share) for share in shares) <= best * (4 / 3 - 1 / (3 * of)) + max(sizes, default=0) / 3


@pytest.mark.parametrize(("part", "of"), [(0, 2), (3, 2), (-1, 4)])
def test_a_part_that_does_not_exist_is_one_sentence(part, of):
    with pytest.raises(InputError, match=rf"^part {part} of {of} does not exist: give --part from 1 to {of}$"):
        share_of([1, 2], part, of, float)


def test_bytes_of_a_study_are_those_of_its_files(tmp_path):
    file = tmp_path / "pet.nii"
    file.write_bytes(b"12345")
    assert bytes_of(file) == 5
    assert bytes_of(tmp_path / "nothing.nii") == 0


def test_a_claimed_study_is_nobody_elses_until_it_is_released_and_no_file_is_left(tmp_path):
    mine, other = Claims(tmp_path), Claims(tmp_path)
    assert mine.claim("fdg a_1")
    assert not other.claim("fdg a_1")
    assert other.claim("fdg b_1")
    mine.release("fdg a_1")
    assert other.claim("fdg a_1")
    other.release("fdg a_1")
    other.release("fdg b_1")
    other.release("never claimed")
    assert not list((tmp_path / "records").iterdir())


def test_a_process_that_is_killed_lets_go_of_its_studies(tmp_path):
    code = "from petct_training.claims import Claims; "
    code += f"claims = Claims({str(tmp_path)!r}); print(claims.claim('a'), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=BUNDLES / STAGE1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    claims = Claims(tmp_path)
    assert not claims.claim("a")
    process.kill()
    process.wait()
    assert claims.claim("a")


def test_two_processes_that_claim_and_let_go_at_once_never_fail(tmp_path):
    code = "import sys, time; from petct_training.claims import Claims; "
    code += f"claims = Claims({str(tmp_path)!r}); input(); end = time.monotonic() + 2\n"
    code += "while time.monotonic() < end: assert claims.claim(sys.argv[1]); claims.release(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=BUNDLES / STAGE1, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == [b"", b""]
    assert not list((tmp_path / "records").iterdir())


def test_what_somebody_else_holds_is_refused_with_a_sentence_and_free_after_the_block(tmp_path):
    mine, other = Claims(tmp_path, ""), Claims(tmp_path, "")
    with mine.holding("training", "never said"):
        with pytest.raises(InputError, match=r"^wait for it$"), other.holding("training", "wait for it"):
            pytest.fail("two hold it")
        assert not other.claim("training"), "the refusal has let go of what is somebody else's"
    with pytest.raises(ZeroDivisionError), other.holding("training", "never said"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_without_locks_of_the_file_system_every_claim_succeeds_with_one_warning(tmp_path, monkeypatch, capsys):
    def refuse(self):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    claims = Claims(tmp_path)
    assert claims.claim("a")
    assert claims.claim("b")
    claims.release("a")
    assert capsys.readouterr().out.count("file system without locks") == 1
