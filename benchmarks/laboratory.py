"""What each option beyond the paper gains: python benchmarks/laboratory.py run, then python benchmarks/laboratory.py table

The method is trained once a variant and seed, in the demo profile, on hard phantoms of the challenge's scanners, and scored on other
hard phantoms of scanners that no training has seen. Or, with --studies, on your own labelled studies by cross-validation: each network
is trained once a fold, and each study is scored by networks that were trained without it, though it was among those that chose their
best epoch, for all variants alike. All variants have folds then, the paper's, too. benchmarks/fair_fight.py scores studies that have
chosen nothing.

With --members UNet only that member of stage 2 is trained: less than half of the cost, to find out what is worth it.

laboratory.json names the variants. "run" does what is missing, one training of the whole method after the other, until --minutes are
over; run it again to go on. A variant that changes stage 2 alone keeps the paper's stage 1, and one that changes inference alone all
of the paper's networks. "table" prints, of each variant, the mean over all test studies and seeds, and the paired difference to the
paper's recipe of the same seed, with a 95 % interval that draws both patients and seeds. Every result is kept in the folder's scores.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import resource
import shutil
import statistics
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np

from petct_cascade.method import NETWORKS, STAGE1
from petct_cascade.phantom import write_phantoms
from petct_cascade.pipeline import run_pipeline
from petct_cascade.summary import patient_of
from petct_training.commands import command
from petct_training.files import read_json, write_json

BUNDLES = common.ROOT / "bundles"
FOLDER = common.ROOT / "dist/laboratory"
VARIANTS = Path(__file__).with_name("laboratory.json")
PAPER = "paper"
TRAIN, TEST = {"num_patients": 24, "seed": 100}, {"num_patients": 16, "seed": 200, "scanners": "other"}
SHRINK = 2
METRICS = {"dice": ("Dice", 3), "fpv_ml": ("FPV, ml", 2), "fnv_ml": ("FNV, ml", 2), "f1": ("lesion F1", 3)}
MODELS = ("DynUNet", "SegResNet", "SwinUNETR", "UNet", "Ensemble")
COMPARED = ("DynUNet", "Ensemble")
# All variants of a cross-validation have folds, and weights chosen on the very studies that are scored would prove nothing.
PHANTOMS_ONLY = ("folds", "choose")
RESAMPLES = 2000


class Laboratory(NamedTuple):
    """Where variants are compared, and on what.

    Attributes:
        folder: of all that is made.
        studies: raw data set with labels that is cross-validated; None for phantoms.
        folds: of the cross-validation.
        training: options of all trainings.
        members: of stage 2 that all variants have; None for those of each variant.
    """

    folder: Path = FOLDER
    studies: Path | None = None
    folds: int = 3
    training: Mapping[str, Any] = {}
    members: Sequence[str] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the results depend on."""
        studies = {"studies": str(self.studies), "folds": self.folds} if self.studies else {}
        return {**studies, **self.members_of_all, "training": dict(self.training)}

    @property
    def members_of_all(self) -> dict[str, list[str]]:
        """What takes the place of each variant's own members."""
        return {"members": list(self.members)} if self.members else {}

    @property
    def train_studies(self) -> Path:
        return self.studies or self.folder / "train"

    def why_not(self, variant: Mapping[str, Any]) -> str | None:
        """Return why a variant cannot be compared here, or None."""
        if self.studies and not variant.keys().isdisjoint(PHANTOMS_ONLY):
            return "no study is set aside from the folds to compare it on"
        if self.members and ("members" in variant or "choose" in variant or "member_weights" in variant.get("inference", {})):
            return "it is about the members"
        return None

    def write_phantoms(self) -> None:
        """Write the phantoms for training and test, or what is missing of them."""
        for name, options in (("train", TRAIN), ("test", TEST)):
            write_phantoms(self.folder / name, **options, shrink=SHRINK, difficulty="hard", num_workers=os.cpu_count() or 1)

    def train(self, variant: Mapping[str, Any], work: Path, seed: int) -> None:
        """Train the whole method with a variant's options."""
        of_all = {**variant, **self.members_of_all}
        train(of_all, self.train_studies, work, seed, self.training, self.folds if self.studies else 0)

    def score(self, variant: Mapping[str, Any], work: Path) -> list[dict[str, str]]:
        """Score studies that no network has seen; return the rows of scores.csv."""
        if self.studies is None:
            return score({"studies": self.folder / "test"}, work, variant)
        # What ends the training has scored every study already, without options of inference.
        return (
            score({"dataset_dir": work / "prepared"}, work, variant) if "inference" in variant else read_scores(work / "results")
        )


def run(laboratory: Laboratory, names: Sequence[str], seeds: int, minutes: float) -> None:
    """Train and score what is missing, seed by seed, until the time is over; what has begun is finished.

    Args:
        laboratory: where, and on what.
        names: of variants.
        seeds: how many.
        minutes: after which no training of the method begins.
    """
    end = time.monotonic() + 60 * minutes
    keep_settings(laboratory.folder, laboratory.settings)
    if laboratory.studies is None:
        laboratory.write_phantoms()
    variants = read_json(VARIANTS)
    for seed in range(seeds):
        # The others begin with the paper's steps, as far as they are the same.
        for name in sorted(names, key=lambda name: name != PAPER):
            file = scores_file(laboratory.folder, name, seed)
            if file.is_file():
                refuse_others(file, read_json(file).get("variant"), variants[name])
                continue
            if reason := laboratory.why_not(variants[name]):
                print(f"\n=== {name}: left out, since {reason}")
                continue
            if time.monotonic() > end:
                print("The time is over: run the same command again to go on.")
                return
            print(f"\n=== {name}, seed {seed}", flush=True)
            work = laboratory.folder / "work" / f"{name} {seed}"
            base = laboratory.folder / "work" / f"{PAPER} {seed}"
            # What an interrupted run has done already would be counted as no time.
            shutil.rmtree(work, ignore_errors=True)
            if base.is_dir():
                shutil.copytree(base, work, ignore=shutil.ignore_patterns("test"))
            start = cpu_seconds()
            laboratory.train(variants[name], work, seed)
            trained = cpu_seconds()
            rows = laboratory.score(variants[name], work)
            seconds = {"training_seconds": trained - start, "scoring_seconds": cpu_seconds() - trained}
            write_json(file, {"rows": rows, "variant": variants[name]} | seconds)


def train(variant: Mapping[str, Any], raw: Path, work: Path, seed: int, training: Mapping[str, Any], folds: int = 0) -> None:
    """Train the whole method with a variant's options; with folds each network once a fold."""
    common_options = {"seed": seed, **training, **variant.get("training", {})}
    of_stage2 = {bundle: variant["stage2"] for bundle in NETWORKS.values() if bundle != STAGE1} if "stage2" in variant else {}
    run_pipeline(
        raw,
        work,
        BUNDLES,
        profile="demo",
        folds=variant.get("folds", folds),
        cross_validation=variant.get("cross_validation", True),
        members=variant.get("members"),
        prepare_options=variant.get("prepare", {}),
        train_options=common_options | of_stage2,
    )


def score(tested: Mapping[str, Any], work: Path, variant: Mapping[str, Any]) -> list[dict[str, str]]:
    """Score a trained method on studies, or on those of its data set that no network has seen; return the rows of scores.csv."""
    configs = ["configs/inference.json", "configs/evaluate.json", "configs/demo.json"]
    trained = {"ckpt_dir": work / "models/autopet_ensemble", **variant.get("inference", {})}
    if variant.get("choose"):
        chosen = work / "choosing/chosen.json"
        options = {**trained, "dataset_dir": work / "prepared", "output_dir": chosen.parent}
        common.run_bundle(common.ENSEMBLE, "choosing", [*configs[:2], "configs/choose.json", configs[2]], options)
        configs.append(chosen)
    output = work / "test"
    options = {**trained, **tested, "output_dir": output, "single_file": True}
    common.run_bundle(common.ENSEMBLE, "evaluating", configs, options)
    return read_scores(output)


def read_scores(folder: Path) -> list[dict[str, str]]:
    """Return the rows of scores.csv of an evaluation or a scoring."""
    with open(folder / "scores.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def cpu_seconds() -> float:
    """Processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keep what the results of a folder depend on, or refuse a folder whose results depend on something else."""
    file = folder / "settings.json"
    kept = read_json(file) if file.is_file() else settings
    if kept != settings:
        raise SystemExit(f"{folder} holds results with {kept}, not with {settings}: name another --folder.")
    write_json(file, settings)


def scores_file(folder: Path, name: str, seed: int) -> Path:
    return folder / "scores" / f"{name} {seed}.json"


def scores_of(folder: Path, name: str) -> dict[int, dict[str, Any]]:
    """Return what is known of a variant, by seed; refuse what is known of another variant that had this name."""
    # Names of other variants begin with the same words.
    named = ((*file.stem.rpartition(" "), file) for file in sorted((folder / "scores").glob("*.json")))
    options, runs = read_json(VARIANTS)[name], {}
    for variant, _, seed, file in named:
        if variant == name:
            runs[int(seed)] = read_json(file)
            refuse_others(file, runs[int(seed)].get("variant"), options)
    return runs


def refuse_others(file: Path, kept: Mapping[str, Any] | None, options: Mapping[str, Any]) -> None:
    """Refuse a file of results that keeps other options than those that their variant has now."""
    if without_words(kept or {}) != without_words(options):
        raise SystemExit(f"{file} is a result of {kept}, not of {dict(options)}: delete it, or name another --folder.")


def without_words(variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a variant, without what is said about it."""
    return {name: value for name, value in variant.items() if name != "gains"}


def models_of(runs: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Return the models that were scored; a variant may do without a member."""
    scored = {row["model"] for of_seed in runs.values() for row in of_seed["rows"]}
    return [model for model in MODELS if model in scored]


def arrays_of(
    runs: Mapping[int, Mapping[str, Any]], seeds: Sequence[int], cases: Collection[str] | None = None
) -> dict[tuple[str, str], np.ndarray]:
    """Return the values (seeds, studies) of each model that was scored and each metric, of all cases or of some, sorted by case."""
    rows = [[row for row in runs[seed]["rows"] if cases is None or row["case"] in cases] for seed in seeds]
    return {(model, metric): values_of(rows, model, metric) for model in models_of(runs) for metric in METRICS}


def cases_of(runs: Mapping[int, Mapping[str, Any]], seeds: Sequence[int]) -> set[str]:
    """Return the cases that were scored with each of the seeds."""
    return set.intersection(*({row["case"] for row in runs[seed]["rows"]} for seed in seeds))


def values_of(rows: Sequence[Sequence[Mapping[str, str]]], model: str | None, metric: str) -> np.ndarray:
    """Return the values (seeds, studies) of a model, or of the only one, sorted by case, from the rows of each seed."""
    mine = [[row for row in of_seed if model is None or row["model"] == model] for of_seed in rows]
    return np.array([[float(row[metric] or "nan") for row in sorted(found, key=lambda row: row["case"])] for found in mine])


def patients_of(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the patient of each case, sorted by case, from rows of several models or seeds."""
    named = {row["case"]: patient_of(row) for row in rows}
    return [named[case] for case in sorted(named)]


def difference(values: np.ndarray, others: np.ndarray, patients: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of paired differences, and its 95 % interval by a bootstrap that draws seeds and patients.

    Args:
        values, others: (seeds, studies); a study without a value in any of them is left out.
        patients: (studies,), whose they are.
        seed: of the bootstrap.
    """
    differences = values - others
    complete = ~np.isnan(differences).any(axis=0)
    differences = differences[:, complete]
    if not differences.size:
        return math.nan, math.nan, math.nan
    _, patient = np.unique(np.array(patients, str)[complete], return_inverse=True)
    counts = np.bincount(patient)
    sums = np.array([np.bincount(patient, of_seed) for of_seed in differences])
    random = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        rows, columns = (random.integers(0, size, size) for size in sums.shape)
        means.append(sums[rows][:, columns].sum() / (len(rows) * counts[columns].sum()))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(differences.mean()), float(low), float(high)


def with_interval(found: tuple[float, float, float], decimals: int) -> str:
    mean, low, high = found
    return f"{mean:+.{decimals}f} ({low:+.{decimals}f} to {high:+.{decimals}f})"


def print_tables(folder: Path = FOLDER) -> None:
    """Print means, differences to the paper's recipe, and what the second stage adds, as far as results are there."""
    variants, papers = read_json(VARIANTS), scores_of(folder, PAPER)
    means, against, stages = [], [], []
    for name in variants:
        runs = scores_of(folder, name)
        if not runs:
            continue
        own = arrays_of(runs, sorted(runs))
        patients = patients_of(row for of_seed in runs.values() for row in of_seed["rows"])
        minutes = [
            f"{statistics.mean(of_seed[name] for of_seed in runs.values()) / 60:.0f}"
            for name in ("training_seconds", "scoring_seconds")
        ]
        for model in models_of(runs):
            figures = [f"{np.nanmean(own[model, metric]):.{decimals}f}" for metric, (_, decimals) in METRICS.items()]
            means.append([name, model, str(len(runs)), *figures, *minutes])
        stage_gain = [
            with_interval(difference(own["Ensemble", metric], own["DynUNet", metric], patients), digits)
            for metric, (_, digits) in METRICS.items()
        ]
        stages.append([name, str(len(runs)), *stage_gain])
        shared = sorted(set(runs) & set(papers))
        if name == PAPER or not shared:
            continue
        # A variant may score studies that the paper's recipe leaves out, such as healthy ones.
        cases = cases_of(runs, shared) & cases_of(papers, shared)
        mine, paper = arrays_of(runs, shared, cases), arrays_of(papers, shared, cases)
        patients = patients_of(row for of_seed in runs.values() for row in of_seed["rows"] if row["case"] in cases)
        for model in COMPARED:
            gains = [
                with_interval(difference(mine[model, metric], paper[model, metric], patients), decimals)
                for metric, (_, decimals) in METRICS.items()
            ]
            against.append([name, model, str(len(shared)), *gains])
    headings = [heading for heading, _ in METRICS.values()]
    print("Means over test studies and seeds. Not counted is what a variant takes from the paper's recipe:\n")
    common.print_table(["variant", "model", "seeds", *headings, "CPU minutes of training", "of scoring"], means)
    print("Paired difference to the paper's recipe, 95 % interval:\n")
    common.print_table(["variant", "model", "seeds", *headings], against)
    print("Paired difference of the ensemble to stage 1, 95 % interval:\n")
    common.print_table(["variant", "seeds", *headings], stages)
    print(f"{common.machine()}, {time.strftime('%Y-%m-%d')}. All scores: {folder / 'scores'}")


@command
def main() -> None:
    variants = list(read_json(VARIANTS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    # Names hold commas.
    named = f"names in quotation marks; by default all of them: {'; '.join(variants)}"
    parser.add_argument("--variants", nargs="+", choices=variants, default=variants, metavar="NAME", help=named)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no training of the method begins later")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--studies", type=Path, help="raw data set with labels to cross-validate; without it, phantoms")
    parser.add_argument("--folds", type=int, default=3, help="of the cross-validation")
    parser.add_argument(
        "--members", nargs="+", choices=MODELS[1:-1], help="of stage 2 that all variants have, instead of their own"
    )
    parser.add_argument("--steps-per-epoch", type=int, help="of all trainings; without it, one patch a study, as in the paper")
    given = parser.parse_args()
    folder = given.folder.resolve()
    if given.what == "run":
        training = {"steps_per_epoch": given.steps_per_epoch} if given.steps_per_epoch else {}
        studies = given.studies and given.studies.resolve()
        run(Laboratory(folder, studies, given.folds, training, given.members), given.variants, given.seeds, given.minutes)
    print_tables(folder)


if __name__ == "__main__":
    main()
