"""Reading which cases a preparation leaves out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from petct_training.errors import InputError
from petct_training.files import read_json


def read_exclusions(exclude: str | os.PathLike | Sequence[str] | None) -> list[str]:
    """Return the names of the cases to leave out.

    Args:
        exclude: the names; or a text file with one name a line, in which lines that begin with # are comments; or a JSON file with
            a list of them.

    Raises:
        InputError: when the file does not exist or is not a list of names.
    """
    cases = _read_list(Path(exclude)) if isinstance(exclude, (str, os.PathLike)) and exclude != "" else exclude or []
    if not isinstance(cases, (list, tuple)) or not all(isinstance(case, str) for case in cases):
        raise InputError(f"exclude is {cases!r}: give a list of cases, or a file with one case a line")
    return list(cases)


def _read_list(file: Path) -> Any:
    """Return the content of a JSON file, or the lines of a text file."""
    if not file.is_file():
        raise InputError(f"{file} does not exist: name a file with the cases to exclude, or give their names as a list")
    try:
        if file.suffix.lower() == ".json":
            return read_json(file)
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except ValueError as error:
        raise InputError(f"{file} cannot be read ({error}): write one case a line, in UTF-8") from error
    return [line for line in lines if line and not line.startswith("#")]
