"""Reading DICOM files of labels strictly: a label that is read in part is a wrong one, so what is cut off or contradicts itself is
refused.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from petct_cascade.dicom.planes import Grid
from petct_cascade.dicom.values import text_of
from petct_training.errors import InputError

# Nothing in a scanner lies farther (mm) from its origin.
FARTHEST_MM = 1e5

# How many segments a sentence names; files of organs have more than a hundred.
MOST_NAMED = 10

COPY_AGAIN = "copy it again from where it comes"
CUT_OFF = f"is damaged or cut off: {COPY_AGAIN}"


@dataclass(frozen=True)
class Segment:
    """What a file of labels names: a segment of a SEG, or a region (ROI) of an RTSTRUCT.

    Attributes:
        number: as the file counts.
        label: as the file calls it, without spaces around it.
        reason: why it is no lesion by what the file says of it; None when nothing speaks against it.
        frame_of_reference: UID of the space in which it lies; empty when it is unknown.
        volume: which volume of radiotherapy it is, such as GTV or PTV; empty when nothing says that it is one.
        by_type: whether the file's type of the region says so, and not its name.
    """

    number: int
    label: str
    reason: str | None
    frame_of_reference: str
    volume: str = ""
    by_type: bool = False

    def __str__(self) -> str:
        return f"{self.number} {self.label!r}"


@dataclass(frozen=True)
class Drawing:
    """A segment on a grid.

    Attributes:
        segment: which.
        mask: (X, Y, Z), bool.
        outside: share of what the file holds of the segment that lies outside of the grid; 0 when it holds nothing.
        warnings: each the end of a sentence that begins with the file.
        is_lost: whether the file shows it inside of the grid, and no voxel of the grid takes it.
    """

    segment: Segment
    mask: np.ndarray
    outside: float
    warnings: tuple[str, ...] = ()
    is_lost: bool = False


class LabelFile(Protocol):
    """A file of labels that was read."""

    @property
    def file(self) -> Path:
        """Where it lies."""

    @property
    def series(self) -> str:
        """UID of its series."""

    @property
    def noun(self) -> str:
        """What it calls its segments."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All that it names."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is unusual about it, each the end of a sentence that begins with the file."""

    def draw(self, segments: Sequence[Segment], grid: Grid) -> Iterator[Drawing]:
        """Yield each of some of its segments on a grid."""


class _Stream(io.BytesIO):
    """Bytes of a file that remember whether more were asked for in one piece than were left."""

    short = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        # Nothing at all is what the end of every file gives.
        self.short |= size is not None and 0 < len(data) < size
        return data


@contextmanager
def malformed_is_refused() -> Iterator[None]:
    """Turn whatever pydicom raises into an InputError: it decodes a value when it is asked for, and a damaged one raises nearly
    anything.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(CUT_OFF) from error
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:120].rstrip(". ")
        raise InputError(f"is damaged, or not written as DICOM wants it ({reason}): export it again") from error


def read_label_dataset(file: Path, sop_classes: Sequence[str], name: str) -> Dataset:
    """Read a whole file.

    Args:
        file: with or without DICOM's preamble.
        sop_classes: UIDs of the kinds of objects that are meant.
        name: of these in a sentence.

    Raises:
        InputError: when it cannot be read, is cut off, or is of another kind; the message is the end of a sentence that begins with
            the file's name.
    """
    try:
        stream = _Stream(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}): check that it is there, its permissions and the disk") from error
    with malformed_is_refused():
        dataset = pydicom.dcmread(stream, force=True)
        if text_of(dataset, "SOPClassUID") not in sop_classes:
            raise InputError(f"is no {name}: give one, or take it away")
        if stream.short:
            raise InputError(CUT_OFF)
        if "TransferSyntaxUID" not in dataset.file_meta:
            is_implicit, is_little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return dataset


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none when it is absent or empty.

    Raises:
        InputError: when it is no sequence.
    """
    value = dataset.get(keyword)
    if value is not None and not isinstance(value, pydicom.Sequence):
        raise InputError(f"holds a value where a list is due ({keyword}): export it again")
    return list(value or ())


def required_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence.

    Raises:
        InputError: when there are none.
    """
    found = items(dataset, keyword)
    if not found:
        raise InputError(f"lacks {words_of_keyword(keyword)}: export it again")
    return found


def numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray | None:
    """Return the numbers (count,) of an attribute; None when it is absent or empty.

    Raises:
        InputError: when it holds anything else.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    found = np.atleast_1d(np.asarray(value, dtype=float))
    if found.shape != (count,) or not np.isfinite(found).all():
        raise InputError(f"holds {_short(value)} as {words_of_keyword(keyword)}: export it again")
    return found


def required_numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray:
    """Return the numbers (count,) of an attribute.

    Raises:
        InputError: when they are absent or anything else.
    """
    found = numbers(dataset, keyword, count)
    if found is None:
        raise InputError(f"lacks {words_of_keyword(keyword)}: export it again")
    return found


def whole_number(dataset: Dataset, keyword: str) -> int:
    """Return the whole number of an attribute.

    Raises:
        InputError: when it is absent or anything else.
    """
    return int(required_numbers(dataset, keyword, 1)[0])


def words_of_keyword(keyword: str) -> str:
    """Return the words of an attribute's keyword.

    Example:
        >>> words_of_keyword("StructureSetROISequence")
        'Structure Set ROI Sequence'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", keyword)


def some_of(words: Iterable[object], separator: str) -> str:
    """Return distinct words in a row, the first of many.

    Example:
        >>> some_of(["liver"] * 3 + list(range(20)), ", ")
        'liver, 0, 1, 2, 3, 4, 5, 6, 7, 8 and 11 more'
    """
    distinct = list(dict.fromkeys(map(str, words)))
    more = f" and {len(distinct) - MOST_NAMED} more" if len(distinct) > MOST_NAMED else ""
    return separator.join(distinct[:MOST_NAMED]) + more


def _short(value: object) -> str:
    shown = str(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
