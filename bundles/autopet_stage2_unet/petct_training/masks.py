"""What masks are made from, and which files of an output folder are results of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petct_training.claims import bytes_of, share_of
from petct_training.data import mask_file
from petct_training.errors import InputError
from petct_training.records import HELD_OUT, Plan, Records, path_from


@dataclass(frozen=True)
class Masks:
    """The masks, and maps, that a run makes of each study in an output folder.

    Attributes:
        records: of the output folder.
        folders: where the files `<case>.nii.gz` go, one a kind: masks, maps of uncertainty.
        settings: the options that change voxels.
        weights: the files that change voxels: weights, fingerprint. Their digests are recorded.
        found_dir: where stage 1's masks go of those studies that have points and no coarse mask of their own; None for nowhere.
        settings_with: the options that change voxels of those studies only whose item has a key, such as "points", by that key.
    """

    records: Records
    folders: Sequence[str | os.PathLike]
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[str | os.PathLike] = ()
    settings_with: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    found_dir: str | os.PathLike | None = None

    def plan(self, item: Mapping[str, Any]) -> Plan:
        """Return what is made of a study: an item with "case", "image" (a file, or [CT file, PET file]), perhaps "coarse_mask" and
        "points".
        """
        found = self.found_dir if "points" in item and "coarse_mask" not in item else None
        folders = [*self.folders, *([] if found is None else [found])]
        outputs = [path_from(mask_file(item, folder), self.records.folder) for folder in folders]
        digests = {Path(file).name: self._digest(file) for file in self.weights}
        # Of the networks of a cascade, those answer that hold the study's fold out.
        fold = {"fold": item["fold"]} if "fold" in item else {}
        further = {name: value for key, settings in self.settings_with.items() if key in item for name, value in settings.items()}
        settings = {**self.settings, **further, **fold, "digests": digests}
        return Plan(item["case"], _sources_of(item), settings, outputs)

    def may_make(self, item: Mapping[str, Any]) -> bool:
        """Whether the place of a study's masks is free, or theirs."""
        try:
            self.records.check(self.plan(item))
        except InputError:
            return False
        return True

    def keep_only(self, cases: Iterable[str]) -> None:
        """Delete the results of other cases, as far as they are still what this program has written."""
        wanted = set(cases)
        for name in self.records.names():
            # No case begins with a dot: such a name is that of a folder's summary.
            if name not in wanted and not name.startswith("."):
                self.records.remove(name)

    def _digest(self, file: str | os.PathLike) -> str | None:
        state = self.records.state_of(file)
        return None if state is None else str(state["sha256"])


def masks_in(
    output_dir: str | os.PathLike,
    kind: str,
    settings: Mapping[str, Any] | None = None,
    weights: Sequence[str | os.PathLike] = (),
    held_out: Mapping[str, Any] | None = None,
) -> Masks:
    """Return the masks that a network makes in a folder.

    Args:
        output_dir: folder of the masks.
        kind: what makes them; a folder holds masks of one kind.
        settings: the options that change voxels.
        weights: weights and fingerprint.
        held_out: which studies the weights have not seen, where they were trained with a fold; see `petct_training.folds.held_out`.
    """
    remembered = {HELD_OUT: held_out} if held_out else {}
    return Masks(Records(Path(output_dir), kind), [output_dir], {**(settings or {}), **remembered}, weights)


def unfinished_items(items: Iterable[Mapping[str, Any]], masks: Masks, part: int = 1, of: int = 1) -> list[Mapping[str, Any]]:
    """Return the items whose masks are missing, or were made from other content or with other settings.

    Args:
        items: of all studies, with "image" (a file).
        masks: what is made of them, and where.
        part: number of this process among those that share the studies, from 1; see `petct_training.claims.share_of`.
        of: number of these processes.

    Raises:
        InputError: when a file lies in a mask's place that this program has not written, or the folder holds masks of another kind.
    """
    masks.records.check_kind()
    mine = share_of(list(items), part, of, lambda item: bytes_of(item["image"]))
    return [item for item in mine if not masks.records.is_current(masks.plan(item))]


def _sources_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files from which a mask is made, by their role."""
    image = item["image"]
    files = {"image": image} if isinstance(image, (str, os.PathLike)) else dict(zip(("ct", "pet"), image, strict=True))
    return {**files, **{role: item[role] for role in ("coarse_mask", "points") if role in item}}
