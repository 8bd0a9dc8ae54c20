"""Promises of the words on a bundle's command line: each arrives as the value that it stands for."""

from __future__ import annotations

import ast
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from fire.parser import DefaultParseValue
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from petct_cascade.command_line import bundle_command, shell_line, word
from petct_training.files import relative_path

TEXTS = ["2026_11_26", "1,2", "a#b", "None", "true", "a b", "it's", "[a]", "1e5", "0x10", "-x", "--y", "C:\\new\\x", "ä", "a::b"]
SIGNS = ["$x", "@studies", "%a", "a@::b", "a%::b", "a#$@%b", "ct@1.nii", "a$b", "@#x"]


def arrived(text: str) -> object:
    """Return what python-fire, and then MONAI's config, make of a word of the command line."""
    return ConfigParser({"studies": DefaultParseValue(text)}).get_parsed_content("studies")


@pytest.mark.parametrize("text", [*TEXTS, *SIGNS])
def test_a_path_arrives_as_it_is(text):
    assert arrived(word(Path(text))) == str(Path(text))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1))
def test_any_path_arrives_as_it_is(text):
    assert arrived(word(Path(text))) == str(Path(text))


@pytest.mark.parametrize("text", [text for text in TEXTS if "#" not in text])
def test_a_text_arrives_as_a_text(text):
    assert arrived(word(text)) == text


@pytest.mark.parametrize("value", [True, None, 3, 0.25, [0, 10], {"max_epochs": 2, "optimizer": "a b"}])
def test_another_value_arrives_as_itself(value):
    assert DefaultParseValue(word(value)) == value


def test_an_expression_is_still_evaluated():
    assert arrived(word("$1 + 1")) == 2


def test_a_plain_word_stays_plain():
    assert word(Path("raw data/ct.nii.gz")) == "raw data/ct.nii.gz"


@pytest.mark.skipif(not shutil.which("sh"), reason="without a shell nobody reads such a line")
def test_a_shell_reads_from_a_line_the_very_words():
    words = ["", "~", "*", "a\nb", "!!", "`ls`", 'say "it\'s"', "it's $HOME", "it's !x", "it's a\\b", *TEXTS, *SIGNS]
    words += bundle_command("run", ["train.json", "demo.json"], {"folds": [0, 1], "train_options": {"optimizer": "a b"}})
    done = subprocess.run(["sh", "-c", shell_line(["printf", "%s\\0", *words])], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == words


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_any_line_has_the_very_words(words):
    assert shlex.split(shell_line(words)) == words


def test_several_processes_run_under_torchrun():
    arguments = bundle_command("training", ["train.json"], {}, processes=4)
    assert arguments[:4] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    assert arguments[4:] == bundle_command("training", ["train.json"], {})


@pytest.mark.parametrize("files", [["a.json"], ["2026,1.json"], ["1_0"], ["a#b.json", "it's, c.json"]])
def test_config_files_arrive_by_their_names(files):
    arguments = bundle_command("run", files, {})
    value = DefaultParseValue(arguments[arguments.index("--config_file") + 1])
    assert ([value] if isinstance(value, str) else value) == files
    assert isinstance(ast.literal_eval(repr(value)), str if len(files) == 1 else list)


def test_a_path_on_another_drive_stays_absolute(monkeypatch):
    def fail(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", fail)
    assert relative_path(Path("/data/raw"), Path("/work")) == Path("/data/raw")
