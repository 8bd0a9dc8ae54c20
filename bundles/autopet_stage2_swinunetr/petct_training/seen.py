"""Which studies weights were trained with: what they remember of them, and the warning where one of these is scored."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from petct_training.data import Item
from petct_training.files import read_json_or_none
from petct_training.processes import rank
from petct_training.records import HELD_OUT, RECORDS, Records, read_record

# Entry of the fingerprint beside weights.
TRAINED_ON = "trained_on"
# Digits of a digest that weights keep: two of a million studies share them once in forty million times.
DIGITS = 16
# Studies that the warning names.
MOST_NAMES = 5


def studies_of_training(items: Iterable[Item], dataset_dir: str | os.PathLike) -> list[str]:
    """Return what weights remember of the studies that they are trained with: the beginnings of digests of their PET.

    Names are not kept, since weights travel, and a patient's number can be guessed from a digest of it; voxels cannot.

    Args:
        items: the studies; of those without "case", as MONAI Label puts in the place of the data set's, nothing is remembered.
        dataset_dir: the prepared data set, whose records know the files of which each study was made; of those that it does not
            know nothing is remembered.

    Returns:
        Digits of the SHA-256 of each PET's file, and where that was converted from DICOM, of its series, too; sorted.
    """
    records = Records(Path(dataset_dir), "")
    return sorted({digest[:DIGITS] for item in items if "case" in item for digest in _digests_of(item["case"], records)})


def warn_of_seen(items: Iterable[Item], folder: str | os.PathLike, fingerprint_file: str | os.PathLike) -> None:
    """Warn of studies that are scored, and were in the training of the weights. The first process does.

    Args:
        items: the studies, with "case".
        folder: the prepared data set, or the folder of an evaluation's masks: its records know the files of each study.
        fingerprint_file: the fingerprint beside the weights.
    """
    known, records, cases = seen_by(fingerprint_file), Records(Path(folder), ""), [item["case"] for item in items]
    seen = [case for case in cases if any(digest[:DIGITS] in known for digest in _digests_of(case, records))] if known else []
    if seen and rank() == 0:
        more = f" and {len(seen) - MOST_NAMES} more" if len(seen) > MOST_NAMES else ""
        has_folds = HELD_OUT in (read_json_or_none(fingerprint_file) or {})
        instead = ", or evaluate the prepared data set, of which each fold answers for what it has not seen" if has_folds else ""
        print(
            f"warning: {len(seen)} of {len(cases)} studies were in the training of these weights, and their scores say nothing "
            f"of new patients: {', '.join(seen[:MOST_NAMES])}{more}; leave them out{instead}",
            flush=True,
        )


def seen_by(fingerprint_file: str | os.PathLike) -> set[str]:
    """Return what weights remember of the studies that they were trained with; nothing of weights that were made before they did.

    Args:
        fingerprint_file: the fingerprint beside the weights.
    """
    return set((read_json_or_none(fingerprint_file) or {}).get(TRAINED_ON) or ())


def _digests_of(case: str, records: Records) -> list[str]:
    """Return the SHA-256 of a study's PET, and of the DICOM series from which that was converted."""
    pet = ((records.read(case) or {}).get("sources") or {}).get("pet") or {}
    digest = pet.get("sha256")
    if not digest:
        return []
    if "path" not in pet:
        # Of an evaluation without names.
        return [digest]
    # As `petct_cascade.convert` leaves it: the volume in a folder of its own kind, and beside this the records.
    conversion = read_record((records.folder / pet["path"]).parent.parent / RECORDS / f"{case}.json") or {}
    is_its_source = any(state["sha256"] == digest for state in (conversion.get("written") or {}).values())
    series = conversion["sources"]["pet"]["sha256"] if is_its_source and "pet" in conversion["sources"] else None
    return [digest, series] if series else [digest]
