"""When each of several full-size studies is read, segmented, written and read out: python benchmarks/timeline.py

One command segments all full-size phantoms with the paper's networks and random weights. It prints how much longer it takes than the
bare networks on the same windows, measured before and after it, and draws what is done when to dist/benchmarks/timeline.png. --studies,
--weights and --profile take others, such as those of make demo, which show the overlap in minutes. Linux only: elsewhere the processes
that read are not seen.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import budget
import common
import inference
import matplotlib.pyplot as plt
from common import ENSEMBLE, RAW, RESULTS
from helpers import parser_of

from petct_cascade import cascade, running, stream, study_results, tasks, writing
from petct_cascade.predict import PROFILES
from petct_training.commands import command

FILE = "PETCT_TIMELINE"  # environment variable: where all processes write down what they have done
FORWARDS = "forwards"
PHASES = {"read": "#4477aa", "segmented": "#cc6677", "written": "#ddaa33", "read out": "#228833"}


def note(phase: str, case: str, start: float) -> None:
    """Write down that something was done with a study from a moment until now, both in seconds of the system's clock."""
    line = json.dumps({"phase": phase, "case": case, "start": start, "stop": time.time()})
    with open(os.environ[FILE], "a", encoding="utf-8") as file:
        file.write(line + "\n")


def timed(phase: str, function: Callable[..., Any], case_of: Callable[..., str]) -> Callable[..., Any]:
    """Return a function that does the same, and notes when."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        start = time.time()
        try:
            return function(*arguments, **options)
        finally:
            note(phase, case_of(*arguments), start)

    return call


def do_study(task: tasks.StudyTask) -> tasks.Results:
    """What reads a study out, in a process of its own."""
    return timed("read out", tasks.do_study, lambda task: task.item["case"])(task)


def segment(profile: str, studies: Path, models: Path, output: Path) -> None:
    """Segment all studies, and note when what is done."""
    from monai.bundle import ConfigWorkflow

    given: dict[str, float] = {}
    take, tell = stream.StudyStream.__next__, running._Watch._tell

    def next_study(self: stream.StudyStream) -> dict[str, Any]:
        batch = take(self)
        given[self.case] = time.time()
        return batch

    def segmented(self: Any, engine: Any) -> None:
        note("segmented", self.stream.case, given[self.stream.case])
        tell(self, engine)

    stream.StudyReader._transform = timed("read", stream.StudyReader._transform, lambda self, index: self.data[index]["case"])
    stream.StudyStream.__next__, running._Watch._tell = next_study, segmented
    writing.AtomicNibabelWriter._write = timed(
        "written", writing.AtomicNibabelWriter._write, lambda self, file, *_: Path(file).name.removesuffix(".nii.gz")
    )
    study_results.do_study = do_study
    logits = cascade.SlidingWindow._logits
    cascade.SlidingWindow._logits = lambda self, image, network: logits(self, image, timed(FORWARDS, network, lambda _: ""))
    os.chdir(ENSEMBLE)
    configs = ["configs/inference.json", *(f"configs/{name}" for name in PROFILES[profile])]
    options = {"studies": str(studies), "ckpt_dir": str(models), "output_dir": str(output), "num_workers": 2}
    workflow = ConfigWorkflow(config_file=configs, meta_file=None, logging_file=False, workflow_type="infer", **options)
    workflow.initialize()
    workflow.run()


def bare_seconds(profile: str, studies: Path, models: Path) -> float:
    """Return the seconds that the bare networks need for the windows of all studies' bodies."""
    os.chdir(ENSEMBLE)
    parser = parser_of("autopet_ensemble", "inference", *(name.removesuffix(".json") for name in PROFILES[profile]))
    parser.update({"ckpt_dir": str(models)})
    preprocess = parser.get_parsed_content("preprocessing")
    images = sorted((studies / "imagesTr").glob("*_0001.nii.gz"))
    pairs = [[str(pet).replace("_0001.nii.gz", "_0000.nii.gz"), str(pet)] for pet in images]
    boxes = [tuple(preprocess({"image": pair})["image"].shape[1:]) for pair in pairs]
    overlap, total = parser.get_parsed_content("overlap"), 0.0
    for seconds, size in inference.seconds_a_window(parser).values():
        total += seconds * math.fsum(budget.windows(box, size, overlap) for box in boxes)
    return total


def draw(events: list[dict[str, Any]], file: Path) -> None:
    """Draw a line a study, from the first moment on."""
    events = [event for event in events if event["phase"] in PHASES]
    first = min(event["start"] for event in events)
    by_case = defaultdict(list)
    for event in events:
        by_case[event["case"]].append(event)
    figure, axes = plt.subplots(figsize=(10, 0.9 + 0.5 * len(by_case)), layout="constrained")
    order = sorted(by_case, key=lambda case: min(event["start"] for event in by_case[case]))
    for row, case in enumerate(order):
        for event in by_case[case]:
            place = row + 0.2 * (list(PHASES).index(event["phase"]) - 1.5)
            axes.barh(place, event["stop"] - event["start"], 0.18, event["start"] - first, color=PHASES[event["phase"]])
    axes.set_yticks(range(len(order)), [f"study {row + 1}" for row in range(len(order))])
    axes.invert_yaxis()
    axes.set_xlabel("seconds after the first study was begun")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in PHASES.values()]
    axes.legend(handles, list(PHASES), ncols=len(PHASES), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    figure.savefig(file, dpi=120)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=Path, default=RAW, help="raw data set; full-size phantoms, which are made, by default")
    parser.add_argument("--weights", type=Path, help="folder of model.pt, in place of random weights of the paper's size")
    parser.add_argument("--profile", choices=PROFILES, default="full", help="of these weights")
    parser.add_argument("--segment", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    studies, models = given.studies.resolve(), (given.weights or inference.MODELS).resolve()
    if given.segment:
        segment(given.profile, studies, models, given.segment)
        return
    if given.studies == RAW:
        common.full_size_studies()
    if given.weights is None:
        common.prepared_studies()
        inference.write_weights(models)
    before = bare_seconds(given.profile, studies, models)
    with tempfile.TemporaryDirectory(dir=RESULTS) as output:
        os.environ[FILE] = str(Path(output) / "events.jsonl")
        start = time.perf_counter()
        options = ["--studies", studies, "--weights", models, "--profile", given.profile, "--segment", Path(output) / "masks"]
        common.in_a_command(__file__, *map(str, options))
        took = time.perf_counter() - start
        events = [json.loads(line) for line in Path(os.environ[FILE]).read_text(encoding="utf-8").splitlines()]
    draw(events, RESULTS / "timeline.png")
    bare = (before + bare_seconds(given.profile, studies, models)) / 2
    spent = {phase: math.fsum(e["stop"] - e["start"] for e in events if e["phase"] == phase) for phase in (FORWARDS, *PHASES)}
    rows = [
        ["command", f"{took:.0f}"],
        ["the bare forwards of its windows", f"{bare:.0f}"],
        ["command / bare forwards (at most 1.15)", f"{took / bare:.2f}"],
        ["command / its own forwards", f"{took / spent[FORWARDS]:.2f}"],
    ]
    rows += [[f"sum over studies: {phase}", f"{seconds:.0f}"] for phase, seconds in spent.items()]
    common.report(
        "timeline",
        [f"a batch of {len({event['case'] for event in events if event['case']})} studies", "seconds"],
        rows,
        {"command": took, "forwards": bare, "events": events},
    )


if __name__ == "__main__":
    main()
