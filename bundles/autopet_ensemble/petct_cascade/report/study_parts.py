"""What a run says on the page of a study."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petct_cascade.report.contents import (
    CHANGE_COLUMNS,
    LESION_COLUMNS,
    READOUT_COLUMNS,
    REFERENCE_COLUMNS,
    SCORE_COLUMNS,
    Column,
    reference_rows,
)
from petct_cascade.report.origins import Line, input_lines, run_lines
from petct_cascade.report.scenes import StudyImages
from petct_cascade.report.study_page import PageTable, StudyPageContent, write_study_page


@dataclass(frozen=True)
class StudyPage:
    """The page that is wanted of a study.

    Attributes:
        output_dir: the output folder.
        title: heading of the report.
        origin: what is said of what it was made from, each line with its heading.
        viewer: whether its volumes can be looked at.
    """

    output_dir: Path
    title: str
    origin: Sequence[Line] = ()
    viewer: bool = True

    def write(
        self,
        case: str,
        images: StudyImages,
        picture: str | os.PathLike,
        readouts: Mapping[str, Any],
        scores: Sequence[Mapping[str, Any]],
        suv_range: Sequence[float],
    ) -> None:
        """Write the page.

        Args:
            case: the study's name.
            images: PET, CT and masks.
            picture: the PNG file of the study.
            readouts: what `petct_cascade.readouts.study_readouts` returned; with a reference also its "reference_lesions", with a
                coarse mask of a person's the "changes".
            scores: rows of scores, one a model.
            suv_range: SUV shown white and SUV shown black.

        Raises:
            InputError: as `petct_cascade.report.study_page.write_study_page`.
        """
        lesions = {"prediction": PageTable(_columns(LESION_COLUMNS), readouts["lesions"])}
        if "reference_lesions" in readouts:
            lesions["reference"] = PageTable(_columns(REFERENCE_COLUMNS), reference_rows(readouts["reference_lesions"]))
        content = StudyPageContent(
            images,
            title=self.title,
            picture=picture,
            readouts=PageTable(_columns(READOUT_COLUMNS), [readouts["study"]]),
            lesions=lesions,
            scores=PageTable(_columns(column for column in SCORE_COLUMNS if not column.links), scores) if scores else None,
            changes=PageTable(_columns(CHANGE_COLUMNS), readouts["changes"]) if "changes" in readouts else None,
            origin=self.origin,
            suv_range=suv_range,
        )
        write_study_page(self.output_dir, case, content, self.viewer)


def origin_of_study(record: Mapping[str, Any]) -> list[Line]:
    """Return what the record of a mask says of what it was made from, and by what."""
    return [*input_lines(record), *run_lines(record)]


def _columns(columns: Iterable[Column]) -> list[tuple[str, str, int | None, str]]:
    return [(column.key, column.heading, column.decimals, column.definition) for column in columns]
