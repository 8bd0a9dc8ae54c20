"""DICOM series as sources of a study: which there are in a folder, and which of them a study's CT, PET and label are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from petct_cascade.dicom.headers import Header
from petct_cascade.problems import first_names
from petct_training.errors import InputError

# A series of fewer slices is a sample or a localizer, no scan of a body.
FEWEST_SLICES = 8

# Series that a sentence names.
MOST_NAMED = 5

# Direction cosines of images in one stack differ by less. What is less far apart than that, and no volume, is refused where it is
# read, in a sentence.
SAME_DIRECTION = 0.01

# Words of image types and of descriptions that tell a picture made from slices.
NOT_SLICES = {"LOCALIZER", "MIP", "MAXIMUM", "PROJECTION IMAGE", "REPROJECTION", "SCREEN SAVE", "SCOUT", "DOSE_REPORT", "CSA MPR"}
# What slices at several times are called: in SeriesType (PS3.3, C.8.9.1), and as the flavour of enhanced images (C.8.16.1.3).
MOVING = {
    "DYNAMIC": "dynamic",
    "GATED": "gated",
    "CARDIAC_GATED": "gated",
    "CARDRESP_GATED": "gated",
    "RESP_GATED": "gated",
}

# Names of kernels that draw sharp edges, for lung and bone; soft ones suit soft tissue.
SHARP = (
    "LUNG",
    "BONE",
    "SHARP",
    "EDGE",
    "DETAIL",
    "B60",
    "B70",
    "B80",
    "BL57",
    "BL64",
    "BR59",
    "BR64",
    "BR69",
    "FC5",
    "FC8",
    "YC",
)


@dataclass(frozen=True)
class Stack:
    """The images of one series that lie in one stack: of one orientation and size.

    Attributes:
        headers: of its files, sorted by path.
    """

    headers: tuple[Header, ...]

    @property
    def first(self) -> Header:
        """One for all: what is said of the series."""
        return self.headers[0]

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,), unit vector across the slices, LPS; along the body where it is not said."""
        orientation = self.first.orientation
        if orientation is None:
            return np.array([0.0, 0.0, 1.0])
        return np.cross(orientation[:3], orientation[3:])

    @cached_property
    def heights(self) -> np.ndarray:
        """Positions of the slices along the normal, in mm, sorted."""
        positions = [position for header in self.headers for position in header.positions]
        return np.sort(np.array(positions, dtype=float).reshape(-1, 3) @ self.normal)

    @cached_property
    def number_of_slices(self) -> int:
        """How many different positions there are."""
        return len(np.unique(np.round(self.heights, 2)))

    @property
    def extent(self) -> float:
        """Distance of the first slice from the last, in mm."""
        return float(self.heights[-1] - self.heights[0]) if len(self.heights) else 0.0

    @property
    def _is_moving(self) -> bool:
        """Whether there are several images of each place."""
        images = sum(len(header.positions) for header in self.headers)
        return images >= 2 * max(1, self.number_of_slices) > 2 and not self._is_repeated

    @property
    def _is_repeated(self) -> bool:
        """Whether files of one object are there twice, as in a folder that was copied into itself."""
        images = {(header.uid, number) for header in self.headers for number in range(len(header.positions))}
        return len(images) <= self.number_of_slices

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie across the body."""
        return bool(abs(self.normal[2]) > 0.7)

    @property
    def flaw(self) -> str:
        """Why it can be no scan of a body, as the end of a sentence; empty when it can."""
        moving = self.first.words & MOVING.keys()
        if moving:
            return f"is {MOVING[min(moving)]}"
        words = self.first.words | {word for word in NOT_SLICES if _has_word(self.first.description, word, "S?(?![A-Z])")}
        if words & NOT_SLICES:
            return f"is no scan but a {min(words & NOT_SLICES).lower()}"
        if self.first.orientation is None or not 0.9 < np.linalg.norm(self.normal) < 1.1:
            return f"does not say how its slices are turned (ImageOrientationPatient of {self.first.file.name})"
        if self.number_of_slices < FEWEST_SLICES:
            return f"has only {self.number_of_slices} slices"
        return "is dynamic or gated: it shows each place several times" if self._is_moving else ""

    @property
    def is_volume(self) -> bool:
        """Whether it can be a scan of a body."""
        return not self.flaw

    @property
    def text(self) -> str:
        """What it is called in a sentence."""
        name = self.first.description or f"series {self.first.number}"
        return f"{name!r} ({self.number_of_slices} slices, {self.first.series})"


def stacks_of(headers: Iterable[Header]) -> list[Stack]:
    """Group images into stacks, sorted by series' number and UID."""
    series: dict[tuple[object, ...], list[list[Header]]] = {}
    for header in sorted(headers, key=lambda header: header.file):
        groups = series.setdefault((header.series, header.patient, header.size, _frame_kind(header)), [])
        group = next((group for group in groups if _same_direction(group[0], header)), None)
        if group is None:
            groups.append([header])
        else:
            group.append(header)
    stacks = [Stack(tuple(group)) for groups in series.values() for group in groups]
    return sorted(stacks, key=lambda stack: (stack.first.number, stack.first.series, stack.first.file))


def _same_direction(header: Header, other: Header) -> bool:
    """Whether two images are turned alike, but for the rounding of their headers."""
    if header.orientation is None or other.orientation is None:
        return header.orientation is other.orientation
    return bool(np.abs(np.subtract(header.orientation, other.orientation)).max() < SAME_DIRECTION)


def _has_word(text: str, word: str, end: str = "") -> bool:
    """Whether a text has a word, which letters before it would make another one; `end` is a pattern of what follows."""
    return re.search(f"(?<![A-Z]){re.escape(word)}{end}", text.upper()) is not None


def _frame_kind(header: Header) -> bool:
    """Whether an image is a localizer, which some scanners put into the series of the slices."""
    return bool(header.words & NOT_SLICES)


@dataclass(frozen=True)
class Choice:
    """A stack that was chosen among others.

    Attributes:
        stack: the chosen one.
        why: what was chosen among what, as a sentence; empty when there was nothing to choose.
    """

    stack: Stack
    why: str = ""


def choose_pet(stacks: Sequence[Stack], wanted: str | None = None) -> Choice:
    """Choose the PET of a study: corrected for attenuation, original, axial, static; then the largest, then that of most slices.

    Args:
        stacks: of the study's PET.
        wanted: UID or description of the series to take, if the user has named one.

    Raises:
        InputError: when there is none; the message is a sentence.
    """
    rules: list[tuple[str, Callable[[Stack], bool]]] = [
        ("corrected for attenuation", lambda stack: "ATTN" in stack.first.words),
        ("original", lambda stack: "DERIVED" not in stack.first.words),
        ("axial", lambda stack: stack.is_axial),
    ]
    return _choose("PET", "pet_series", stacks, wanted, rules, lambda stack: (round(stack.extent), stack.number_of_slices))


def choose_ct(stacks: Sequence[Stack], pet: Stack | None, wanted: str | None = None, any_space: bool = False) -> Choice:
    """Choose the CT of a study: in the PET's frame of reference, original, axial; then the largest overlap with the PET along
    the body, then a soft kernel, then that of most slices.

    Args:
        stacks: of the study's CT.
        pet: the study's PET; None when it is not in DICOM.
        wanted: as in `choose_pet`.
        any_space: whether a CT in another frame of reference is taken where there is none in the PET's, since the user named it.

    Raises:
        InputError: when there is none; the message is a sentence.
    """
    if wanted is None and stacks and pet is not None and pet.first.frame_of_reference:
        related = [stack for stack in stacks if stack.first.frame_of_reference in (pet.first.frame_of_reference, "")]
        if not related and not any_space:
            raise InputError(
                f"no CT lies in the frame of reference of its PET {pet.text}, so that nothing says where they lie to each other: "
                "name a CT that was registered to it with --ct_series"
            )
        stacks = related or stacks
    rules: list[tuple[str, Callable[[Stack], bool]]] = [
        ("original", lambda stack: "DERIVED" not in stack.first.words),
        ("axial", lambda stack: stack.is_axial),
    ]

    def rank(stack: Stack) -> tuple[int, bool, int]:
        # In centimetres, so that a slice more counts for less than the kernel.
        covered = stack.extent if pet is None else _overlap(stack, pet)
        return round(covered / 10), not _is_sharp(stack), stack.number_of_slices

    return _choose("CT", "ct_series", stacks, wanted, rules, rank)


def _choose(
    name: str,
    option: str,
    stacks: Sequence[Stack],
    wanted: str | None,
    rules: Sequence[tuple[str, Callable[[Stack], bool]]],
    rank: Callable[[Stack], tuple[float, ...]],
) -> Choice:
    """Choose one of some stacks by rules, each of which counts only where some stack keeps it; then by rank."""
    if wanted is not None:
        return Choice(_named(name, option, stacks, wanted))
    left = [stack for stack in stacks if stack.is_volume]
    if not left:
        flaws = "; ".join(f"{stack.text} {stack.flaw}" for stack in stacks[:3])
        raise InputError(f"there is no {name} of this study that can be used{f': {flaws}' if flaws else ''}; add its series")
    reasons = []
    for reason, rule in rules:
        keeping = [stack for stack in left if rule(stack)]
        if keeping and len(keeping) < len(left):
            left = keeping
            reasons.append(reason)
    # The first of equals, by number and UID, so that a choice never depends on the order of files.
    best = max(left, key=rank)
    if len(left) > 1:
        reasons.append("larger, then of more slices" if name == "PET" else "covering more of the PET, then of a softer kernel")
    others = [stack.text for stack in stacks if stack is not best]
    if not others:
        return Choice(best)
    why = f" ({', '.join(reasons)})" if reasons else ""
    return Choice(
        best, f"its {name} is {best.text}{why}, not {first_names(others, MOST_NAMED)}; name another one with --{option}"
    )


def _named(name: str, option: str, stacks: Sequence[Stack], wanted: str) -> Stack:
    """Return the stack that a UID or a description names."""
    text = wanted.strip().casefold()
    found = [stack for stack in stacks if text in (stack.first.series.casefold(), stack.first.description.strip().casefold())]
    # A localizer in the series is not meant.
    found = [stack for stack in found if stack.is_volume] or found
    there = first_names([stack.text for stack in stacks], MOST_NAMED) or "none"
    if not found:
        raise InputError(f"no {name} of this study is called {wanted!r} (--{option}); there are: {there}")
    if len(found) > 1:
        raise InputError(
            f"several series of {name} are called {wanted!r}: give the UID of one with --{option}; there are: {there}"
        )
    return found[0]


def _overlap(stack: Stack, pet: Stack) -> float:
    """Return the length (mm) along the PET's normal that two stacks share."""
    if not len(stack.heights) or not len(pet.heights):
        return 0.0
    positions = np.array([position for header in stack.headers for position in header.positions]) @ pet.normal
    return float(max(0.0, min(positions.max(), pet.heights[-1]) - max(positions.min(), pet.heights[0])))


def _is_sharp(stack: Stack) -> bool:
    return any(_has_word(f"{stack.first.kernel} {stack.first.description}", word) for word in SHARP)
