"""What six rounds of a simulated reader's corrections make of a mask: python benchmarks/corrections.py --weights WORK

The reader is tests/simulated_reader.py: it knows the reference, and puts a click or a scribble into the largest error of each answer.
The first round has no correction, as in the challenge. The studies are phantoms of a seed that no training of the demo has seen.
Several ways of correcting, of which each begins with the same automatic answer:

- automatic: nothing is corrected, so that all rounds are equal;
- clicks: one point a round; stage 1's mask and all points so far go in;
- scribbles: the same with a line through the middle, between two voxels at random, or along the border, one of the three at random;
- edited mask: one point a round; the last answer and all points so far go in;
- untouched kept: the same with `keep_untouched`, so that only what points touch changes.

A lesion is lost where the answer overlaps it before a round and not after. It is counted apart whether the round's points touch the
component of the answer that held the lesion. Bladder and kidneys: they are added to the automatic answer, and the mask is segmented
again, without points and with one click on the background in the middle of each.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, print_table, record
from nibabel.affines import apply_affine
from simulated_reader import SCRIBBLES, SimulatedReader, area, lost_lesions, round_dice, round_f1

from petct_cascade.cli import weights_folder
from petct_cascade.judging import read_study
from petct_cascade.phantom import PhantomStudy, plan_studies, write_phantoms
from petct_cascade.predict import OpenStudy, load_cascade
from petct_cascade.studies import find_studies
from petct_cascade.summary import mean_and_interval
from petct_training.commands import command
from petct_training.components import labelled_components

ROUNDS, RESAMPLES = 6, 2000
AUTOMATIC, EDITED, KEPT = "automatic", "edited mask", "untouched kept"
WAYS = {"clicks": ("click",), "scribbles": SCRIBBLES, EDITED: ("click",), KEPT: ("click",)}
ORGANS = ("bladder", "kidney")


@dataclass(frozen=True)
class Rounds:
    """One study, corrected in one way.

    Attributes:
        case: the study.
        way: of correcting.
        dice, f1: of each round's answer.
        touched: of each round, lesions that it has lost and whose component of the answer its points touched.
        others: of each round, other lesions that it has lost.
        points: how many points each round has added.
    """

    patient: str
    way: str
    dice: list[float]
    f1: list[float]
    touched: list[int]
    others: list[int]
    points: list[int]


def correct(study: OpenStudy, automatic: np.ndarray, reference: np.ndarray, way: str, seed: int) -> dict[str, list]:
    """Return the figures of the rounds of a study in one way, by their names in `Rounds`."""
    reader = SimulatedReader(reference, study.pet.spacing, seed, WAYS.get(way, ()))
    answer, figures = automatic, {name: [] for name in ("dice", "f1", "touched", "others", "points")}
    for number in range(ROUNDS):
        before, drawn = answer, reader.correct(answer) if number and way != AUTOMATIC else []
        if drawn:
            answer = study.segment(before if way in (EDITED, KEPT) else None, reader.points)
        touched, others = lost_lesions(before, answer, reference, drawn)
        values = round_dice(answer, reference), round_f1(answer, reference), touched, others, len(drawn)
        for name, value in zip(figures, values, strict=True):
            figures[name].append(value)
    return figures


def remove_organs(study: OpenStudy, automatic: np.ndarray, phantom: PhantomStudy) -> dict[str, Any]:
    """Add bladder and kidneys to an automatic answer, segment it without and with a click on the background in the middle of each.

    Returns:
        organs: how many were added; without, clicked: how many hold a voxel of the answer without and with clicks; others: how many
        components of the answer without clicks that touch no organ have no voxel with them.
    """
    solids = [part.solid for part in phantom.patient.anatomy.parts if part.tissue in ORGANS]
    affine = study.pet.affine
    places = apply_affine(affine, np.indices(automatic.shape).reshape(3, -1).T)
    organs = [(solid.distance(*places.T) < 0).reshape(automatic.shape) for solid in solids]
    mask = (automatic != 0) | np.any(organs, axis=0)
    middles = [np.rint(apply_affine(np.linalg.inv(affine), solid.centre)).astype(int).tolist() for solid in solids]
    without, clicked = study.segment(mask), study.segment(mask, {"background": middles})
    components, _ = labelled_components(without != 0)
    far = np.setdiff1d(np.unique(components), np.unique(components[np.any(organs, axis=0)]))
    return {
        "organs": len(organs),
        "without": sum(bool(without[organ].any()) for organ in organs),
        "clicked": sum(bool(clicked[organ].any()) for organ in organs),
        "middles": sum(int(clicked[tuple(middle)]) for middle in middles),
        "others": len(np.setdiff1d(far, [0, *np.unique(components[clicked != 0])])),
    }


def write_studies(patients: int = 4, shrink: float = 2, seed: int = 23) -> Path:
    """Write phantoms that no training of the demo has seen, or what is missing of them; return their folder."""
    folder = RESULTS / f"corrections_{patients}_{shrink:g}_{seed}"
    write_phantoms(folder, patients, seed, shrink)
    return folder


def measure(
    weights: Path, profile: str, folder: Path, phantoms: Sequence[PhantomStudy], seed: int, minutes: float
) -> tuple[list[Rounds], list[dict[str, Any]]]:
    """Return the rounds of phantoms in a folder in all ways, and the figures of their organs; no study begins after so many minutes."""
    predictor, keeping = (
        load_cascade(weights_folder(weights), profile, device="cpu", sw_batch_size=1, keep_untouched=keep)
        for keep in (False, True)
    )
    rounds, organs = [], []
    by_case = {phantom.case: phantom for phantom in phantoms}
    studies = [study for study in find_studies(folder, labels=True)[0] if study.case in by_case]
    start = time.perf_counter()
    for number, found in enumerate(studies):
        begun = time.perf_counter()
        if begun - start > 60 * minutes:
            break
        _, volumes = read_study(found)
        study = predictor.open_volumes(volumes["ct"], volumes["pet"])
        reference, automatic = volumes["label"].array, study.segment()
        for way in (AUTOMATIC, *WAYS):
            opened = keeping.open_volumes(volumes["ct"], volumes["pet"]) if way == KEPT else study
            figures = correct(opened, automatic, reference, way, seed + number)
            rounds.append(Rounds(by_case[found.case].patient.name, way, **figures))
            print(f"  {found.case}, {way}: Dice {' '.join(f'{value:.3f}' for value in figures['dice'])}", flush=True)
        organs.append({"case": found.case, **remove_organs(study, automatic, by_case[found.case])})
        print(f"  {organs[-1]}, {time.perf_counter() - begun:.0f} s", flush=True)
    return rounds, organs


def interval(values: Sequence[float], patients: Sequence[str], sign: str = "") -> str:
    """Return the mean of values of studies of patients, and its 95 % confidence interval, as text."""
    found = mean_and_interval(np.array(values), patients, RESAMPLES, 0)
    if found["low"] is None:
        return f"{found['mean']:{sign}.3f}"
    return f"{found['mean']:{sign}.3f} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"


def rows_of_rounds(way: str, runs: Sequence[Rounds]) -> list[list[str]]:
    """Return a row of the table of rounds for each further round of the studies in one way; the first one is the automatic answer."""
    dice, f1, patients = np.array([run.dice for run in runs]), np.array([run.f1 for run in runs]), [run.patient for run in runs]
    if way == AUTOMATIC:
        return [[way, "all", interval(dice[:, 0], patients), "", interval(f1[:, 0], patients), "", ""]]
    return [
        [
            *(way, str(number + 1), interval(dice[:, number], patients)),
            *(
                interval(dice[:, number] - dice[:, number - 1], patients, "+"),
                interval(f1[:, number], patients),
                str(sum(run.touched[number] for run in runs)),
                str(sum(run.others[number] for run in runs)),
            ),
        ]
        for number in range(1, ROUNDS)
    ]


def row_of_areas(way: str, runs: Sequence[Rounds], automatic: Sequence[Rounds]) -> list[str]:
    """Return the row of the table of areas for one way; `automatic` are the rounds of the same studies without corrections."""
    rounds = [(before, after) for run in runs for before, after in zip(run.dice, run.dice[1:], strict=False)]
    worse = sum(after < before for before, after in rounds)
    losing = sum(others > 0 for run in runs for others in run.others)
    patients = [run.patient for run in runs]
    areas = (interval([area(getattr(run, name)) for run in runs], patients) for name in ("dice", "f1"))
    gain = interval([area(run.dice) - area(without.dice) for run, without in zip(runs, automatic, strict=True)], patients, "+")
    return [way, *areas, "" if way == AUTOMATIC else gain, f"{worse} of {len(rounds)}", f"{losing} of {len(rounds)}"]


def print_results(rounds: Sequence[Rounds], organs: Sequence[dict[str, Any]]) -> None:
    """Print the tables of one folder of weights: rounds, areas, and organs."""
    of_way = {way: [run for run in rounds if run.way == way] for way in (AUTOMATIC, *WAYS)}
    header = ("Way", "Round", "Dice", "change of Dice", "lesion F1", "lesions lost, touched", "lesions lost, others")
    print_table(header, [row for way, runs in of_way.items() for row in rows_of_rounds(way, runs)])
    header = (
        "Way",
        "area under Dice",
        "area under lesion F1",
        "gain under Dice",
        "rounds with a lower Dice",
        "rounds that lost other lesions",
    )
    print_table(header, [row_of_areas(way, runs, of_way[AUTOMATIC]) for way, runs in of_way.items()])
    total = {name: str(sum(found[name] for found in organs)) for name in ("organs", "without", "clicked", "middles", "others")}
    header = ("organs added", "in the answer without clicks", "with clicks", "voxels clicked on in it", "other components gone")
    print_table(header, [list(total.values())])


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="folders of `petct train`, WORK, or of model.pt")
    parser.add_argument("--profile", default="demo", help="of these weights")
    parser.add_argument("--patients", type=int, default=4, help="how many phantoms' patients")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for each folder of weights; no study begins later")
    parser.add_argument("--shrink", type=float, default=2, help="how many times larger than the scanner's the voxels are")
    parser.add_argument("--seed", type=int, default=23, help="of phantoms and reader; the demo's networks have seen seed 0")
    given = parser.parse_args()
    folder = write_studies(given.patients, given.shrink, given.seed)
    phantoms = plan_studies(given.patients, given.seed, given.shrink)
    figures = {}
    for weights in given.weights:
        rounds, organs = measure(weights, given.profile, folder, phantoms, given.seed, given.minutes)
        print(f"\n{weights}: {len(organs)} of {len(phantoms)} studies\n")
        print_results(rounds, organs)
        figures[str(weights)] = {"rounds": [asdict(run) for run in rounds], "organs": organs}
    record("corrections", figures)


if __name__ == "__main__":
    main()
