"""Plots of how read-outs are distributed over the studies of a cohort."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Read-outs that are plotted, and what stands below them.
PLOTTED = {"tmtv_ml": "TMTV (ml)", "suv_max": "SUVmax", "lesions": "Lesions"}
# By what studies are put into groups.
GROUPINGS = {"tracer": "Tracer", "centre": "Centre"}
# A box says nothing of a few studies, and more groups than this no reader compares.
LEAST_STUDIES, MOST_GROUPS = 5, 20
WHISKERS = (5, 95)


def distributions(readouts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return box plots of volume, uptake and number of lesions by tracer and centre, as the text of an SVG element.

    A box spans the middle half of the studies with its median as a line; whiskers reach from the 5th to the 95th percentile.
    Equal input gives equal text.

    Args:
        readouts: per case "study", as of `petct_cascade.readouts.study_readouts`; and "tracer", "centre" where they are known.

    Returns:
        None for fewer than `LEAST_STUDIES` studies.
    """
    if len(readouts) < LEAST_STUDIES:
        return None
    rows = [groups for groups in (_groups(readouts.values(), key) for key in GROUPINGS) if groups]
    rows = rows or [{"all": list(readouts.values())}]
    headings = [heading for key, heading in GROUPINGS.items() if _groups(readouts.values(), key)] or [""]
    height = sum(1 + 0.3 * len(groups) for groups in rows)
    # Ids in the SVG follow from the salt, and letters stay letters.
    with matplotlib.rc_context({"svg.hashsalt": "distributions", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure((9, height), layout="constrained")
        ratios = [1 + 0.3 * len(groups) for groups in rows]
        axes = figure.subplots(len(rows), len(PLOTTED), squeeze=False, sharey="row", height_ratios=ratios)
        for line, heading, groups in zip(axes, headings, rows, strict=True):
            line[0].set_ylabel(heading)
            line[0].set_yticks(range(1, len(groups) + 1), list(groups), parse_math=False)
            # The first one is above.
            line[0].set_ylim(len(groups) + 0.6, 0.4)
            for axis, (key, name) in zip(line, PLOTTED.items(), strict=True):
                _draw(axis, groups, key, name)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _groups(readouts: Iterable[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return the studies of each group, the largest groups in the order of their names; none where all are in one."""
    groups = defaultdict(list)
    for content in readouts:
        groups[str(content.get(key) or "unknown")].append(content)
    if len(groups) < 2:
        return {}
    largest = sorted(groups, key=lambda name: (-len(groups[name]), name))[:MOST_GROUPS]
    return {name: groups[name] for name in sorted(largest)}


def _draw(axis: Any, groups: Mapping[str, Sequence[Mapping[str, Any]]], key: str, name: str) -> None:
    """Draw a box a group, and beside it the number of its studies."""
    values = [
        [content["study"][key] for content in contents if _exists(content["study"].get(key))] for contents in groups.values()
    ]
    # A study without lesions has no SUVmax: of each box its own number of studies.
    for place, existing in enumerate(values, 1):
        axis.text(1.02, place, f"({len(existing)})", va="center", fontsize="small", transform=axis.get_yaxis_transform())
    axis.boxplot(values, orientation="horizontal", whis=WHISKERS, showfliers=False, manage_ticks=False, widths=0.6)
    axis.set_xlabel(name)
    # Burdens span four powers of ten, and begin at 0.
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(axis="x", alpha=0.3)


def _exists(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
