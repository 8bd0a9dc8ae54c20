"""Options of the command line: names that no config knows are refused, and not taken for new ones without a word."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence

import monai.bundle
from monai.bundle import ConfigParser

from petct_training.commands import command
from petct_training.errors import InputError


@command
def check_options(renamed: Mapping[str, str] | None = None) -> None:
    """Refuse options of this process that neither `monai.bundle run` nor its configs know.

    MONAI takes an unknown option for a new id of the config, which nothing reads. Where this process is no `monai.bundle run`, such as
    in a notebook or a server, there is nothing to check.

    Args:
        renamed: former names of options, and what to say instead: the present name, or a sentence.

    Raises:
        SystemExit: with a sentence that names the option and the nearest known one.
    """
    given = options_of(sys.argv)
    if given is not None:
        check_names(given, _config_files(given), renamed or {})


def options_of(arguments: Sequence[str]) -> dict[str, str] | None:
    """Return the options after `monai.bundle run` in a process's arguments, each with its value; None when it is another program.

    Example:
        >>> options_of(["monai/bundle/__main__.py", "run", "training", "--config_file", "configs/train.json", "--seed=1"])
        {'config_file': 'configs/train.json', 'seed': '1'}
    """
    if not arguments or not re.search(r"monai[/\\]bundle[/\\]__main__\.py$", arguments[0]) or arguments[1:2] != ["run"]:
        return None
    options = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if match := re.fullmatch(r"--?(\+?[A-Za-z_][^=]*)(?:=(.*))?", word, flags=re.DOTALL):
            options[match.group(1)] = following if match.group(2) is None else match.group(2)
    return options


def check_names(given: Mapping[str, str], config_files: Sequence[str], renamed: Mapping[str, str]) -> None:
    """Refuse the first option whose name is unknown.

    Args:
        given: options by their names, as on the command line.
        config_files: the configs whose ids are known.
        renamed: see `check_options`.

    Raises:
        InputError: with a sentence that names the option and the nearest known one.
    """
    known = {*inspect.signature(monai.bundle.run).parameters} - {"override"}
    for file in config_files:
        known |= {_first_part(name) for name in ConfigParser.load_config_file(file)}
    for name in given:
        first = _first_part(name)
        if first in renamed:
            new = renamed[first]
            raise InputError(f"--{name} is not known any more: " + (f"give --{new}" if new.isidentifier() else new))
        if first not in known:
            nearest = difflib.get_close_matches(first, known, n=1)
            raise InputError(f"--{name} is not known" + (f": did you mean --{nearest[0]}?" if nearest else ""))


def _first_part(name: str) -> str:
    """Return the top-level id of a path such as "train::trainer" or "+handlers"."""
    return re.split(r"::|#", name.lstrip("+"))[0]


def _config_files(given: Mapping[str, str]) -> list[str]:
    """Return the config files that an option `--config_file` names: one, or a list as Python writes it."""
    value = given.get("config_file", "")
    try:
        files = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        files = value
    return [files] if isinstance(files, str) else [str(file) for file in files]
