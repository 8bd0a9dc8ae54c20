"""Command lines of bundles: `monai.bundle run` with words that arrive as the values they are."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue


def word(value: object) -> str:
    """Return what to write on the command line of `monai.bundle run` so that a value arrives unchanged.

    python-fire reads words as Python where it can: `2026_11_26` is a number, `1,2` a tuple, `a#b` is `a`. MONAI evaluates a
    text that begins with `$`, looks up what follows an `@` or a `%`, and turns each `#` into `::`. A path is always only a
    path; in other texts MONAI's signs keep their meaning.

    Args:
        value: a path, a text, or another Python value that its `repr` describes.

    Example:
        >>> word("2026_11_26"), word("median"), word({"max_epochs": 2})
        ("'2026_11_26'", 'median', "{'max_epochs': 2}")
        >>> word(Path("ct#1.nii"))
        "$'ct\\\\x231.nii'"
    """
    if isinstance(value, Path):
        text = str(value)
        return _expression(text) if re.search(r"#|^[$@%]|[@%]::", text) else _quoted(text)
    return _quoted(value) if isinstance(value, str) else str(value)


def bundle_command(
    run_id: str, files: Sequence[str | os.PathLike], overrides: Mapping[str, Any], processes: int = 1
) -> list[str]:
    """Return the arguments of Python that run an id of config files.

    Args:
        run_id: id that is evaluated.
        files: config files, later ones patching earlier ones.
        overrides: ids and their values, each as `word` takes it.
        processes: number of processes; more than one run under torchrun.

    Example:
        >>> bundle_command("prepare", ["configs/prepare.json"], {"studies": Path("raw data")})
        ['-m', 'monai.bundle', 'run', 'prepare', '--config_file', 'configs/prepare.json', '--studies', 'raw data']
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    names = [str(file) for file in files]
    config_file = _quoted(names[0]) if len(names) == 1 else repr(names)
    options = [text for name, value in overrides.items() for text in (f"--{name}", word(value))]
    return [*launcher, "-m", "monai.bundle", "run", run_id, "--config_file", config_file, *options]


def shell_line(words: Sequence[str]) -> str:
    """Return the line of a shell that gives these words to a command; as `shlex.join`, but lists stay readable.

    Args:
        words: the command and its arguments.

    Example:
        >>> print(shell_line(["python", "--config_file", "['train.json', 'demo.json']", "--studies", "raw data", "a$b"]))
        python --config_file "['train.json', 'demo.json']" --studies 'raw data' 'a$b'
    """
    return " ".join(map(_in_shell, words))


def _in_shell(word: str) -> str:
    """Return a word as a shell reads it; in double quotes where it holds single ones, and none of the signs that are read there."""
    if "'" in word and not set('"$`!\\') & set(word):
        return '"' + word + '"'
    return shlex.quote(word)


def _quoted(text: str) -> str:
    """Return a text that python-fire reads as this very text: itself, or its Python literal."""
    return repr(text) if text.startswith("-") or DefaultParseValue(text) != text else text


def _expression(text: str) -> str:
    """Return a text as an expression in which no sign has a meaning for MONAI."""
    return "$" + re.sub(r"[#@$%]", lambda sign: f"\\x{ord(sign.group()):02x}", repr(text))
