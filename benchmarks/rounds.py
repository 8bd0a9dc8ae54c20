"""Seconds of a first answer and of a further round with clicks, for one study: python benchmarks/rounds.py

The four networks have the paper's size and random weights, which take as long as trained ones. The study is a full-size phantom,
or the first one of --studies; the networks see it at its PET's own spacing. "Whole" is reading two .nii.gz files, judging,
preprocessing, both stages, and the mask. A "round" is what `OpenStudy.segment` does with a new click. Seconds are those of a clock;
those of all processors, which tell more on a machine that does other things too, are in brackets.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
from common import ENSEMBLE
from helpers import parser_of

from petct_cascade.judging import read_study
from petct_cascade.predict import OpenStudy, Predictor, load_cascade
from petct_cascade.studies import Study, find_studies
from petct_training.commands import command
from petct_training.files import read_json
from petct_training.saving import save_weights


def write_models(folder: Path, study: Study) -> None:
    """Write random weights, and a fingerprint with the spacing of a study's PET."""
    torch.manual_seed(0)
    spacing = read_study(study)[1]["pet"].spacing.tolist()
    fingerprint = read_json(ENSEMBLE / "models/fingerprint.json") | {"spacing": spacing}
    save_weights(parser_of(ENSEMBLE.name, "inference").get_parsed_content("network_def"), fingerprint, folder)


def whole(predictor: Predictor, study: Study) -> OpenStudy:
    """Segment a study for the first time."""
    _, volumes = read_study(study)
    opened = predictor.open_volumes(volumes["ct"], volumes["pet"])
    opened.segment()
    return opened


def timed(action: Callable[[], object]) -> tuple[object, float, float]:
    """Return what an action returns, and its seconds: of a clock, and of all processors."""
    clock, processors = time.perf_counter(), time.process_time()
    result = action()
    return result, time.perf_counter() - clock, time.process_time() - processors


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=Path, help="raw data set, of which the first study is taken")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="folder of model.pt, in place of random weights of the paper's size")
    parser.add_argument("--profile", default="full", help="of these weights")
    arguments = parser.parse_args()
    study = find_studies(arguments.studies or common.full_size_studies(), labels=False)[0][0]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.weights is None:
            write_models(Path(folder), study)
        # One window at once, as the paper's profile has it on a CPU. The demo's takes eight, of which one that changes costs all.
        predictor = load_cascade(arguments.weights or folder, arguments.profile, device="cpu", sw_batch_size=1)
    opened, *first = timed(lambda: whole(predictor, study))
    pet, mask = opened.pet.array, opened.segment()
    hottest = np.argwhere(pet > np.percentile(pet, 99.9))
    print(f"{study.case}: {' x '.join(map(str, pet.shape))} voxels, {torch.get_num_threads()} threads")
    print(f"whole: {first[0]:.1f} s ({first[1]:.1f})", flush=True)
    for number in range(arguments.rounds):
        points = {"foreground": [hottest[(number + 1) * len(hottest) // (arguments.rounds + 1)].tolist()]}
        for what, before in (("its clicks and stage 1's mask", None), ("its clicks and the last answer", mask)):
            answer, clock, processors = timed(partial(opened.segment, before, points))
            share = processors / first[1]
            print(f"round {number + 1}, {what}: {clock:.1f} s ({processors:.1f}), {share:.2f} of the whole", flush=True)
        mask = answer


if __name__ == "__main__":
    main()
