"""Values of DICOM attributes as texts and numbers, whatever a scanner, an archive or a damaged file has written into them."""

from __future__ import annotations

import functools
import math
import re

from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

# Value representations of texts in letters that every character set has (PS3.5, 6.2).
PLAIN_TYPES = ("AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI")

# DS (PS3.5, 6.2), and what Python writes of a number.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def texts_of(header: Dataset, attribute: str | int | None) -> list[str]:
    """Return the values of an attribute as texts that are not empty; none when it is absent, as None is, or cannot be read."""
    if attribute is None:
        return []
    try:
        texts = _texts_in(header, _tag_of(attribute))
    except Exception:  # Values are decoded when they are asked for, and damaged ones make pydicom raise nearly anything.
        return []
    stripped = [text.strip(" \t\r\n\0") for text in texts]
    return [text for text in stripped if text]


def _texts_in(header: Dataset, tag: BaseTag) -> list[str]:
    """Return the values of an attribute as texts; those that are stored as plain text are not turned into pydicom's types, which
    takes longer than all else about a header.
    """
    try:
        element = header.get_item(tag)
    except KeyError:
        return []
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        kind = _type_of(element)
        if kind in PLAIN_TYPES:
            return element.value.decode("latin-1").split("\\")
        if kind == "US" and len(element.value) == 2:
            return [str(int.from_bytes(element.value, "little" if element.is_little_endian else "big"))]
    # A warning of pydicom names neither study nor file, and what a value must look like is looked at where it is used.
    with disable_value_validation():
        value = header[tag].value
    values = value if isinstance(value, (MultiValue, list, tuple)) else [] if value is None else [value]
    return [item.decode("latin-1") if isinstance(item, bytes) else str(item) for item in values]


@functools.cache
def _tag_of(attribute: str | int) -> BaseTag:
    """Return the tag of an attribute's keyword or number."""
    return Tag(attribute)


def _type_of(element: RawDataElement) -> str:
    """Return the value representation of an element, by the standard's dictionary where the file does not say it."""
    if element.VR is None and element.tag.is_private:
        return "UN"
    return element.VR or dictionary_VR(element.tag)


def text_of(header: Dataset, attribute: str | int | None) -> str:
    """Return the first value of an attribute as text; an empty text when it is absent or cannot be read."""
    texts = texts_of(header, attribute)
    return texts[0] if texts else ""


def words_of(header: Dataset, attribute: str | int) -> list[str]:
    """Return the values of an attribute as texts in capital letters; none when it is absent or cannot be read."""
    return [text.upper() for text in texts_of(header, attribute)]


def word_of(header: Dataset, attribute: str | int | None) -> str:
    """Return the first value of an attribute as text in capital letters; an empty text when it is absent or cannot be read."""
    return text_of(header, attribute).upper()


def numbers_of(header: Dataset, attribute: str | int | None, count: int) -> tuple[float, ...] | None:
    """Return the numbers of an attribute, whatever their type; None when it does not hold `count` finite ones."""
    texts = texts_of(header, attribute)
    if len(texts) != count or not all(NUMBER.fullmatch(text) for text in texts):
        return None
    numbers = tuple(float(text) for text in texts)
    return numbers if all(math.isfinite(number) for number in numbers) else None


def number_of(header: Dataset, attribute: str | int | None) -> float | None:
    """Return the number of an attribute, whatever its type; None when it does not hold one finite number."""
    numbers = numbers_of(header, attribute, 1)
    return None if numbers is None else numbers[0]


def private_tag(header: Dataset, group: int, creator: str, element: int) -> int | None:
    """Return the tag of a private attribute: in its creator's block, or in the first one where creators were taken away. None
    where the blocks are those of others.

    Args:
        header: that of a slice.
        group: odd.
        creator: name of the owner of the block of attributes (PS3.5, 7.8).
        element: the attribute's number in its block.
    """
    blocks = {block: word_of(header, (group << 16) + block) for block in range(0x10, 0x20) if (group << 16) + block in header}
    named = [block for block, name in blocks.items() if name == creator.upper()]
    if not named and blocks.get(0x10):
        return None
    block = named[0] if named else 0x10
    return (group << 16) + (block << 8) + element


def items_of(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none when it is absent or cannot be read."""
    try:
        found = list(header.get(keyword) or [])
    except Exception:  # A damaged sequence makes pydicom raise nearly anything.
        return []
    return [item for item in found if isinstance(item, Dataset)]
