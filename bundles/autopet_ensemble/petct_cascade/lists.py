"""Lists of studies: the rows of a CSV table, or the objects of a JSON list."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from petct_cascade.dicom.suv_options import SuvOptions
from petct_training.errors import InputError, is_number

SUV_NAMES = tuple(field.name for field in fields(SuvOptions))
# What an entry may hold; in JSON also "image", [CT, PET].
ENTRY_NAMES = ("case", "ct", "pet", "label", "coarse_mask", "points", "patient", "tracer", "centre", *SUV_NAMES)
NEEDED = ("case", "ct", "pet")
# Of files that are lists.
LISTS = (".csv", ".json")
IMAGE = "image"
# What people call a column that says which studies are for training and which for validation, or in which fold each is.
OF_SPLIT = ("split", "data_split", "fold", "cv_fold", "set", "subset", "partition")

# How alike an unknown name is to a known one that it was meant to be, from 0 to 1, as `difflib` counts it.
ALIKE = 0.8


@dataclass(frozen=True)
class Entry:
    """One study of a list.

    Attributes:
        place: where it stands in the list, for a sentence.
        texts: what it says under all of `ENTRY_NAMES`; an empty text where it says nothing.
        flaw: why it cannot be used, as a sentence; empty when it can.
    """

    place: str
    texts: dict[str, str]
    flaw: str = ""


def read_list(source: Path, may_split: bool = True) -> list[Entry]:
    """Return the entries of a list of studies, a CSV file or a JSON file.

    Names of columns may be written with capital letters, and with hyphens or spaces in place of underscores. Columns that are like
    none of `ENTRY_NAMES` are passed over, and so are rows without anything in them.

    Args:
        source: the list.
        may_split: whether a column may say which studies are for training and which for validation: where all are taken alike, as
            to be segmented, it does no harm.

    Raises:
        InputError: when it cannot be read, lacks a column that every list needs, has one twice or misspelt, or one of a split that
            would not be kept.
    """
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = "save the table as 'CSV UTF-8'" if source.suffix.lower() == ".csv" else "save it in UTF-8"
        raise InputError(f"{source} is not text in UTF-8: {remedy}") from error
    refused = () if may_split else OF_SPLIT
    return _entries_of_csv(source, text, refused) if source.suffix.lower() == ".csv" else _entries_of_json(source, text, refused)


def _entries_of_csv(source: Path, text: str, refused: Sequence[str]) -> list[Entry]:
    """Return the entries of a table, whose first line names its columns."""
    heading = text.partition("\n")[0]
    # Spreadsheets of many countries separate by semicolons.
    delimiter = ";" if heading.count(";") > heading.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [_plain(name) for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(
            f"{source}, line {reader.line_num} cannot be read ({error}): look for a quotation mark without a partner"
        ) from error
    absent = [name for name in NEEDED if not rows or name not in names]
    if absent:
        raise InputError(f"{source} has no column {' and no column '.join(absent)}, or no rows: its first line names the columns")
    _check_names(source, [names], refused)
    entries = []
    for line, row in rows:
        flaw = ""
        if any(cell.strip() for cell in row[len(names) :]):
            flaw = f"{source.name}, line {line} has more cells than there are columns: put texts with {delimiter!r} in quotes"
        elif any(_is_row(inner, delimiter, len(names)) for cell in row for inner in cell.splitlines()[1:]):
            flaw = f"{source.name}, line {line} ends a text that holds whole rows: look for a quotation mark too many above it"
        entries.append(Entry(f"{source.name}, line {line}", _texts(dict(zip(names, row, strict=False))), flaw))
    return entries


def _is_row(line: str, delimiter: str, columns: int) -> bool:
    """Whether a line of a text of several lines looks like a row of the table; in what people write, a space follows a comma."""
    return line.count(delimiter) >= columns - 1 and f"{delimiter} " not in line


def _entries_of_json(source: Path, text: str, refused: Sequence[str]) -> list[Entry]:
    """Return the entries of a list of objects."""
    try:
        rows = json.loads(text, object_pairs_hook=lambda pairs: [(_plain(name), value) for name, value in pairs])
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not valid JSON ({error}): correct it") from error
    if not isinstance(rows, list) or not any(_is_object(row) for row in rows):
        raise InputError(f"{source} is not a list of studies: write a list of objects with case, ct, pet")
    _check_names(source, [[name for name, _ in row] for row in rows if _is_object(row)], refused)
    entries = []
    for number, row in enumerate(rows, 1):
        place = f"{source.name}, entry {number}"
        is_object = _is_object(row)
        flaw = "" if is_object else 'the entry is no object: write {"case": ..., "ct": ..., "pet": ...}, or take it out'
        entries.append(_entry_of_object(place, dict(row)) if is_object else Entry(place, _texts({}), flaw))
    return entries


def _is_object(row: Any) -> bool:
    """Whether a value of JSON was an object, which arrives as a list of pairs."""
    return isinstance(row, list) and all(isinstance(pair, tuple) for pair in row)


def _entry_of_object(place: str, row: dict[str, Any]) -> Entry:
    """Return the entry of a JSON object."""
    image = row.pop(IMAGE, None)
    if isinstance(image, list) and len(image) == 2:
        row |= dict(zip(("ct", "pet"), image, strict=True))
    elif image is not None:
        row["ct"] = row["pet"] = image
    odd = [name for name in ENTRY_NAMES if not (row.get(name) is None or isinstance(row[name], str) or is_number(row[name]))]
    flaw = f"{place} has no text as its {' and its '.join(odd)}: write one in quotes" if odd else ""
    return Entry(place, _texts(row), flaw)


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {name: "" if row.get(name) is None else str(row[name]).strip() for name in ENTRY_NAMES}


def _plain(name: str) -> str:
    """Return a column's name as `ENTRY_NAMES` writes it."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _check_names(source: Path, rows: Iterable[Sequence[str]], refused: Sequence[str]) -> None:
    """Refuse names of columns that would be passed over, or of which one would count, and nobody would know.

    Args:
        source: the list.
        rows: the names of each row.
        refused: names of columns whose meaning would be lost.
    """
    known = (*ENTRY_NAMES, IMAGE)
    # Thousands of entries have the same names.
    for names in dict.fromkeys(map(tuple, rows)):
        meant = [part for name in names for part in (("ct", "pet") if name == IMAGE else (name,))]
        for name, count in Counter(meant).items():
            if name in known and count > 1:
                raise InputError(f"{source} gives {name} twice for one study: keep one of the two")
        if lost := [name for name in names if name in refused]:
            raise InputError(
                f"{source} has a column {lost[0]!r}, which would not be kept: preparing splits by patient, with seed, and an "
                "evaluation scores every study; keep only the studies that are meant, and take the column out or call it otherwise"
            )
        absent = [name for name in known if name not in names]
        for name in names:
            if name not in known and (near := difflib.get_close_matches(name, absent, n=1, cutoff=ALIKE)):
                raise InputError(
                    f"{source} has a column {name!r}, which is not known: did you mean {near[0]}? Correct it, or call it otherwise"
                )
