"""Promises of what commands say and take."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from petct_training.commands import command
from petct_training.errors import InputError, SomeFailedError


@command
def run(problem: str = "", strict: bool = False, number: int = 0) -> bool:
    if problem == "wrong":
        raise InputError("the input is wrong: correct it")
    if problem == "some":
        raise SomeFailedError("2 studies cannot be used", ["study a: is wrong", "study b: is empty"])
    if problem == "disk":
        raise OSError(28, "No space left on device", "out/mask.nii.gz")
    return strict


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("true", True), ("false", False), ("True", True), ("False", False), ("FALSE", False)],
)
def test_true_and_false_of_the_command_line_mean_what_they_say(value, expected):
    assert run(strict=value) is expected


@pytest.mark.parametrize("value", ["maybe", "", 2, None, "00"])
def test_what_is_neither_true_nor_false_is_one_sentence(value):
    with pytest.raises(SystemExit, match=r"^error: strict is .*: give true or false$"):
        run(strict=value)


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        ("wrong", 1, "error: the input is wrong: correct it\n"),
        ("some", 3, "error: 2 studies cannot be used:\n  study a: is wrong\n  study b: is empty\n"),
        (
            "disk",
            1,
            "error: out/mask.nii.gz: No space left on device: see that it is there, that there is room, and that this user may read "
            "and write it\n",
        ),
        ("", 0, ""),
    ],
)
def test_exit_code_and_sentence_of_a_command(problem, code, said):
    program = f"import sys; sys.path[:0] = {sys.path!r}; from test_errors import run; run({problem!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "")


def test_ctrl_c_ends_a_command_without_a_traceback():
    @command
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        interrupted()
    assert end.value.code == 130
    assert end.value.__suppress_context__


def test_an_error_of_several_studies_says_the_same_when_a_process_hands_it_on():
    error = SomeFailedError("2 studies cannot be used", ["study a: is wrong", "study b: is empty"])
    assert (
        str(pickle.loads(pickle.dumps(error)))
        == str(error)
        == "2 studies cannot be used:\n  study a: is wrong\n  study b: is empty"
    )
