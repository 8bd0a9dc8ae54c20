"""What holds after every command, whatever folders, names and habits a user has: drawn at random, with a few rules.

A world of two patients, some folders and somebody's files is given to a few actions: commands of this program, and what users do
between them. After each command

1. every file that was there before and is no result of ours has the same bytes;
2. every mask is the one of the very CT, PET and options that its record names;
3. every mask equals the one that is computed alone, in a folder of its own;
4. no mask has taken the place of another patient's.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pytest
from helpers import BUNDLES, ENSEMBLE, WINDOWS, write_study
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigWorkflow

from petct_cascade.commands import prepare

PATIENTS = ("anna", "bert")
THRESHOLDS = (0.5, 0.6)

# Where results go: free folders, one named in another way, the folders of inputs, one inside of the other, a link.
OUTPUTS = ("out", "Out", "out 2026_11_26", "raw", "raw/imagesTr", "raw/labelsTr", "raw/results", "anna", "one/2000", "link")
# What is segmented: data sets, lists, and single studies, whose files have one name.
SOURCES = ("raw", "list.csv", "twins.csv", "anna", "bert", "one/2000", "two/2000")

# Two times in three into the same folder, where commands meet.
outputs = st.one_of(st.just("out"), st.just("out"), st.sampled_from(OUTPUTS))
segmenting = st.tuples(st.just("segment"), st.sampled_from(SOURCES), outputs, st.sampled_from(THRESHOLDS))
preparing = st.tuples(st.just("prepare"), st.sampled_from(("raw", "list.csv")), outputs)
scoring = st.tuples(st.just("score"), outputs, outputs)
habits = st.one_of(
    st.tuples(st.just("put_a_file"), outputs, st.sampled_from(("anna.nii.gz", "report.html", "datalist.json"))),
    st.tuples(st.just("edit_a_result"), outputs, st.integers(0, 99)),
    st.tuples(st.just("move"), st.sampled_from(OUTPUTS[:3])),
    st.tuples(st.just("copy"), st.sampled_from(OUTPUTS[:3])),
    st.tuples(st.just("swap_patients")),
    st.tuples(st.just("touch_everything")),
)
# Two commands at least, mostly over one output folder.
actions = st.lists(st.one_of(segmenting, segmenting, preparing, scoring, habits), min_size=3, max_size=6)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def workflow_run(*configs: str, **options: object) -> Callable[[], None]:
    """Return what runs configs of the ensemble in this process."""
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}.json" for name in configs],
        meta_file="configs/metadata.json",
        logging_file=False,
        workflow_type="infer",
        **options,
    )
    workflow.initialize()
    return workflow.run


class World:
    """A folder of a user, the actions on it, and the files in it that are this program's."""

    def __init__(self, folder: Path, models: Path, alone: Callable[..., str]) -> None:
        self.folder, self.models, self.alone = folder, models, alone
        self.ours: dict[Path, str] = {}
        for seed, patient in enumerate(PATIENTS):
            ct, pet, label = write_study(folder / "raw", patient, seed=seed, shape=(24, 18, 22))
            for place in (patient, f"{('one', 'two')[seed]}/2000"):
                (folder / place).mkdir(parents=True)
                for file, name in ((ct, "CT"), (pet, "SUV"), (label, "lesions")):
                    shutil.copyfile(file, folder / place / f"{name}.nii.gz")
        lines = [f"{{}},{patient}/CT.nii.gz,{patient}/SUV.nii.gz,{patient}/lesions.nii.gz" for patient in PATIENTS]
        for name, cases in (("list.csv", PATIENTS), ("twins.csv", ("Anna", "ANNA"))):
            rows = [line.format(case) for line, case in zip(lines, cases, strict=True)]
            (folder / name).write_text("\n".join(["case,ct,pet,label", *rows]))
        (folder / "out").mkdir()
        (folder / "link").symlink_to("out")

    def files(self) -> dict[Path, str]:
        """The digest of every file, whatever links lead to it."""
        return {file: digest(file) for file in self.folder.rglob("*") if file.is_file() and not file.is_symlink()}

    @cached_property
    def numbers(self) -> itertools.count:
        return itertools.count()

    # ------------------------------------------------------------ commands

    def command(self, run: Callable[[], None]) -> str | None:
        """Run a command and check what holds after it; return the sentence with which it ended, None when all was done."""
        before, said, owners = self.files(), None, self.owners()
        try:
            run()
        except SystemExit as end:
            said = str(end)
        after = self.files()
        for file, content in before.items():
            if self.ours.get(file) != content:
                assert after.get(file) == content, f"{file}, which is not this program's, is another one"
        changed = {file: content for file, content in after.items() if before.get(file) != content}
        self.ours = {file: content for file, content in self.ours.items() if after.get(file) == content} | changed
        self.check_masks()
        for file, (pet, content) in self.owners().items():
            first_pet, first_content = owners.get(file, (pet, content))
            if content != first_content and after.get(first_pet) == first_content:
                assert pet == first_pet, f"the mask of {pet} has taken the place of that of {first_pet}"
        return said

    def owners(self) -> dict[Path, tuple[Path, str]]:
        """Of every mask's record the PET that it names, and the digest of this PET's content."""
        owners = {}
        for file in self.folder.rglob("records/*.json"):
            record = json.loads(file.read_text())
            if record["kind"] == "inference" and record["sources"] and record["written"]:
                pet = record["sources"]["pet"]
                owners[file] = (file.parents[1] / pet["path"]).resolve(), pet["sha256"]
        return owners

    def check_masks(self) -> None:
        """Every mask is the one of the CT, PET and options that its record names, as it is computed alone."""
        for file in self.folder.rglob("records/*.json"):
            record, folder = json.loads(file.read_text()), file.parents[1]
            if record["kind"] != "inference" or record["name"].startswith(".") or not record["written"]:
                continue
            mask = folder / f"{record['name']}.nii.gz"
            if mask.is_file() and self.ours.get(mask.resolve()) == digest(mask):
                ct, pet = (record["sources"][role]["sha256"] for role in ("ct", "pet"))
                assert digest(mask) == self.alone(ct, pet, record["settings"]["threshold"]), f"{mask} is not its record's"

    def segment(self, source: str, output: str, threshold: float) -> None:
        path, options = self.folder / source, {"studies": str(self.folder / source)}
        if path.is_dir() and (path / "SUV.nii.gz").is_file():
            options = {"ct": str(path / "CT.nii.gz"), "pet": str(path / "SUV.nii.gz")}
        run = workflow_run(
            *("inference", "demo"),
            **options,
            ckpt_dir=str(self.models),
            output_dir=str(self.folder / output),
            patch_sizes=WINDOWS,
            threshold=threshold,
        )
        said = self.command(run)
        if said is None:
            names = {"raw": PATIENTS, "list.csv": PATIENTS}.get(
                source, (source.replace("one/", "").replace("two/", "") + "_SUV",)
            )
            for case in names:
                record = json.loads((self.folder / output / f"records/{case}.json").read_text())
                assert record["settings"]["threshold"] == threshold
                for role in ("ct", "pet"):
                    file = (self.folder / output / record["sources"][role]["path"]).resolve()
                    assert record["sources"][role]["sha256"] == digest(file), f"the mask of {case} is that of an earlier file"
                assert record["written"][f"{case}.nii.gz"]["sha256"] == digest(self.folder / output / f"{case}.nii.gz")

    def prepare(self, source: str, output: str) -> None:
        self.command(lambda: prepare(self.folder / source, self.folder / output, num_workers=0))

    def score(self, predictions: str, output: str) -> None:
        options = {"predictions": str(self.folder / predictions), "references": str(self.folder / "raw/labelsTr")}
        self.command(workflow_run("score", **options, output_dir=str(self.folder / output)))

    # ------------------------------------------------------------ what users do

    def put_a_file(self, folder: str, name: str) -> None:
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        (self.folder / folder / name).write_text(f"somebody's {next(self.numbers)}")

    def edit_a_result(self, folder: str, number: int) -> None:
        results = sorted(
            file for file in self.ours if (self.folder / folder).resolve() in file.parents and "records" not in file.parts
        )
        if results:
            results[number % len(results)].write_text(f"edited {next(self.numbers)}")

    def move(self, folder: str) -> None:
        place, target = self.folder / folder, self.folder / f"disk {next(self.numbers)}/moved"
        if place.is_dir():
            target.parent.mkdir()
            place.rename(target)
            self.ours = {target / f.relative_to(place) if f.is_relative_to(place) else f: d for f, d in self.ours.items()}

    def copy(self, folder: str) -> None:
        place, target = self.folder / folder, self.folder / f"copy {next(self.numbers)}"
        if place.is_dir():
            shutil.copytree(place, target)
            self.ours |= {target / f.relative_to(place): d for f, d in self.ours.items() if f.is_relative_to(place)}

    def swap_patients(self) -> None:
        for name in ("CT", "SUV", "lesions"):
            first, second = (self.folder / f"{patient}/{name}.nii.gz" for patient in PATIENTS)
            for source, target in ((first, self.folder / "kept"), (second, first), (self.folder / "kept", second)):
                os.replace(source, target)

    def touch_everything(self) -> None:
        for file in self.files():
            os.utime(file)


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory):
    """Return the digest of the mask of a CT and a PET, by their digests, that a run gives of this study alone in a new folder."""
    folder = tmp_path_factory.mktemp("alone")
    files = {
        digest(file): file
        for seed, patient in enumerate(PATIENTS)
        for file in write_study(folder, patient, seed, shape=(24, 18, 22))
    }
    known: dict[tuple, str] = {}

    def digest_of_mask(ct: str, pet: str, threshold: float) -> str:
        if (ct, pet, threshold) not in known:
            output = folder / f"{len(known)}"
            options = {"ct": str(files[ct]), "pet": str(files[pet]), "case": "alone", "threshold": threshold}
            workflow_run("inference", "demo", **options, ckpt_dir=str(models), output_dir=str(output), patch_sizes=WINDOWS)()
            known[ct, pet, threshold] = digest(output / "alone.nii.gz")
        return known[ct, pet, threshold]

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(BUNDLES / ENSEMBLE)
    yield digest_of_mask
    monkeypatch.undo()


# What has gone wrong before, in the words of the drawn actions.
KNOWN = (
    # Two patients whose folders and files have the same names.
    (("segment", "one/2000", "out", 0.5), ("segment", "two/2000", "out", 0.5)),
    # A mask that was corrected by hand, and another option.
    (("segment", "anna", "out", 0.5), ("edit_a_result", "out", 0), ("segment", "anna", "out", 0.6)),
    # Files of two patients exchanged, and times that say nothing.
    (("segment", "list.csv", "out", 0.5), ("swap_patients",), ("touch_everything",), ("segment", "list.csv", "out", 0.5)),
)


def known(test: Callable[..., None]) -> Callable[..., None]:
    """Let a test begin with what has gone wrong before."""
    for drawn in KNOWN:
        test = example(drawn=drawn)(test)
    return test


def live(drawn, folder: Path, models: Path, alone: Callable[..., str]) -> None:
    """Carry out the drawn actions in a new world."""
    world = World(folder, models, alone)
    for name, *arguments in drawn:
        getattr(world, name)(*arguments)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=actions)
@known
def test_invariants_hold_whatever_is_done_in_whatever_folders(alone, models, tmp_path_factory, drawn):
    live(drawn, tmp_path_factory.mktemp("world"), models, alone)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=actions)
@known
def test_invariants_hold_in_a_few_drawn_worlds(alone, models, tmp_path_factory, drawn):
    live(drawn, tmp_path_factory.mktemp("world"), models, alone)
