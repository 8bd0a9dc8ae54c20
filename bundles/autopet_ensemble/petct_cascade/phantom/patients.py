"""The patients of a data set, and the plan of their studies."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from petct_cascade.phantom.anatomy import Anatomy
from petct_cascade.phantom.difficulty import DIFFICULTIES, VARIABLE_TISSUES, Difficulty
from petct_cascade.phantom.lesions import LESION_SITES, Lesion, draw_lesion, fits, stand_out
from petct_cascade.phantom.scanners import CHALLENGE, Scanner, make_grid
from petct_cascade.phantom.tissues import TISSUES, TissueValues

# What follows the date in the challenge's FDG names; double spaces and dots are what they bring.
DESCRIPTIONS = ("NA-PET-CT Ganzkoerper  primaer mit KM", "NA-PET.CT Ganzkoerper  prim. mit KM")


def make_generator(seed: int, *key: int) -> np.random.Generator:
    """Return the source of chance that belongs to a seed and a key; other keys have independent ones."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


class Patient:
    """A patient of one scanner: name, anatomy, and a source of lesions.

    Args:
        seed: of the data set.
        number: of the patient within it.
        scanner: that examines the patient.
        shrink: how many times larger than the scanner's the voxels are along each axis.
        difficulty: how hard the patient's lesions are to find.
    """

    def __init__(self, seed: int, number: int, scanner: Scanner, shrink: float, difficulty: Difficulty) -> None:
        self.rng = make_generator(seed, number)
        self.scanner, self.difficulty = scanner, difficulty
        self.grid = make_grid(scanner, shrink)
        self.anatomy = Anatomy(self.rng)
        self.name = self.rng.bytes(5 if scanner.tracer == "fdg" else 8).hex()
        self.sites = LESION_SITES[scanner.tracer]

    def add_lesions(self, count: int, lesions: Iterable[Lesion] = ()) -> list[Lesion]:
        """Return the lesions given and `count` more, or as many as find a place in two hundred draws each."""
        lesions = list(lesions)
        for _ in range(count):
            draws = (draw_lesion(self.rng, self.sites, self.anatomy.anchors, self.difficulty) for _ in range(200))
            lesions += itertools.islice((lesion for lesion in draws if self._fits(lesion, lesions)), 1)
        return lesions

    def follow_up(self, lesions: Sequence[Lesion]) -> list[Lesion]:
        """Return the same lesions some months later: larger or smaller where there is room, brighter or fainter, perhaps more."""
        later: list[Lesion] = []
        for at, lesion in enumerate(lesions):
            size, uptake = np.exp(np.clip(self.rng.normal(0, 0.2, 2), -0.5, 0.4))
            faintest, brightest = self.sites[lesion.site].suv
            suv = float(np.clip(lesion.suv * uptake, self.difficulty.faintest * faintest, brightest))
            changed = replace(lesion, radii=lesion.radii * size, suv=suv)
            later.append(changed if self._fits(changed, [*later, *lesions[at + 1 :]]) else lesion)
        return self.add_lesions(int(self.rng.integers(0, 3)), later)

    def draw_tissues(self, rng: np.random.Generator) -> dict[str, TissueValues]:
        """Return what each tissue of the patient is like in one study, by its name, drawn by a source of chance."""
        drawn = {}
        for name, tissue in TISSUES.items():
            low, high = getattr(tissue, self.scanner.tracer)
            high *= self.difficulty.physiology if name in VARIABLE_TISSUES else 1
            drawn[name] = TissueValues(rng.uniform(*tissue.hu), rng.uniform(low, high))
        return drawn

    def _fits(self, lesion: Lesion, others: Iterable[Lesion]) -> bool:
        return fits(lesion, others, self.anatomy, self.grid, self.difficulty.clearance)


@dataclass(frozen=True)
class PhantomStudy:
    """One examination.

    Attributes:
        case: the study's name.
        patient: who is examined.
        tissues: what each tissue is like at that time, by its name.
        lesions: at that time.
        key: seed, number of the patient, number of the patient's study; all chance of the images depends on it.
    """

    case: str
    patient: Patient
    tissues: dict[str, TissueValues]
    lesions: list[Lesion]
    key: tuple[int, int, int]


def plan_studies(
    num_patients: int,
    seed: int,
    shrink: float,
    difficulty: Difficulty = DIFFICULTIES["plain"],
    scanners: Mapping[str, Scanner] = CHALLENGE,
) -> list[PhantomStudy]:
    """Draw the studies of a data set without painting them.

    Scanners appear in the challenge's proportions. Among FDG patients the third of every four, among PSMA patients the sixth of
    every nine is healthy; the second of every six and the first of every three, respectively, has two or three studies.

    Args:
        num_patients: number of patients.
        seed: what all chance depends on.
        shrink: how many times larger than the scanner's the voxels are along each axis.
        difficulty: how hard lesions are to find.
        scanners: that examine the patients.
    """
    studies: list[PhantomStudy] = []
    made = dict.fromkeys(scanners, 0)
    patients = {"fdg": 0, "psma": 0}
    for number in range(num_patients):
        name = _next_scanner(made, scanners)
        tracer = scanners[name].tracer
        patient = Patient(seed, number, scanners[name], shrink, difficulty)
        for visit, (case, lesions) in enumerate(_examine(patient, patients[tracer])):
            key = (seed, number, visit)
            tissues = patient.draw_tissues(make_generator(*key, 0))
            bright = [stand_out(lesion, patient.anatomy, tissues) for lesion in lesions]
            studies.append(PhantomStudy(case, patient, tissues, bright, key))
            made[name] += 1
        patients[tracer] += 1
    return studies


def _next_scanner(made: Mapping[str, int], scanners: Mapping[str, Scanner]) -> str:
    """Return the name of the scanner that is furthest behind its share of the studies, by how many each has made.

    This is Sainte-Lague's rule of proportional seats: the shares are right for any number of studies.
    """
    return min(scanners, key=lambda name: (made[name] + 0.5) / scanners[name].studies)


def _examine(patient: Patient, at: int) -> Iterable[tuple[str, list[Lesion]]]:
    """Yield name and lesions of each study of a patient, who is the `at`-th (from 0) of the tracer's patients."""
    is_fdg = patient.scanner.tracer == "fdg"
    healthy = at % 4 == 2 if is_fdg else at % 9 == 5
    repeated = at % 6 == 1 if is_fdg else at % 3 == 0
    rng = patient.rng
    date = datetime.date(2014, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 3000)))
    lesions = [] if healthy else patient.add_lesions(int(rng.integers(4, 15)))
    for visit in range(int(rng.integers(2, 4)) if repeated else 1):
        if visit:
            date += datetime.timedelta(days=int(rng.integers(60, 200)))
            lesions = patient.follow_up(lesions)
        yield _case_name(patient, date), lesions


def _case_name(patient: Patient, date: datetime.date) -> str:
    """Return a study's name, as awkward as the challenge's: tracer, patient, date, and with FDG a free text and a number."""
    tracer, rng = patient.scanner.tracer, patient.rng
    if tracer == "psma":
        return f"{tracer}_{patient.name}_{date.isoformat()}"
    text = DESCRIPTIONS[rng.integers(len(DESCRIPTIONS))]
    return f"{tracer}_{patient.name}_{date:%m-%d-%Y}-{text}-{rng.integers(10000, 100000)}"
