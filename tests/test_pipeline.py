"""Promises of the pipeline, with the steps' commands replaced by ones that only write what the real ones would."""

import itertools
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from fire.parser import DefaultParseValue
from helpers import BUNDLES
from monai.bundle import ConfigParser

from petct_cascade import pipeline
from petct_cascade.commands import run_pipeline
from petct_training.errors import InputError
from petct_training.records import Plan, Records


class Commands:
    """Stands in for `subprocess.run`: notes each command and writes the step's results, each time others, or fails as told."""

    number = itertools.count()

    def __init__(self, steps):
        self.steps, self.ran, self.fail = {self.key(step): step for step in steps}, [], {}

    @staticmethod
    def key(step):
        return step.bundle.name, step.run_id

    def __call__(self, arguments, cwd, check):
        step = self.steps[Path(cwd).name, arguments[arguments.index("run") + 1]]
        self.ran.append((step.name, "--resume" in arguments))
        outputs = step.outputs[:1] if self.fail.get(step.name, 3) != 3 else step.outputs
        for path in outputs:
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"made": f"{step.name} {next(self.number)}"}))
            else:
                path.mkdir(parents=True, exist_ok=True)
                (path / "a.nii.gz").write_text(f"{step.name} {next(self.number)}")
        return subprocess.CompletedProcess(arguments, self.fail.get(step.name, 0))

    @property
    def names(self):
        return [name for name, _ in self.ran]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the pipeline in a temporary folder and give the commands that it ran."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a_0000.nii.gz").write_text("ct")

    def run(fail=None, work_dir=tmp_path / "work", **options):
        commands = Commands(pipeline.plan(pipeline.Method(raw, work_dir, BUNDLES, "demo")))
        commands.fail = fail or {}
        monkeypatch.setattr(pipeline.subprocess, "run", commands)
        try:
            run_pipeline(raw, work_dir, BUNDLES, "demo", **options)
        except SystemExit as end:
            commands.end, commands.code = str(end), end.code
        return commands

    return run


ALL = [
    "prepare",
    "train autopet_stage1_dynunet",
    "predict the coarse masks",
    "train autopet_stage2_segresnet",
    "train autopet_stage2_swinunetr",
    "train autopet_stage2_unet",
    "assemble",
    "evaluate",
]


def test_steps_run_in_the_order_of_the_method(run):
    assert run().names == ALL


def test_finished_steps_are_skipped(run):
    run()
    assert run().names == []


def test_taking_one_members_weights_away_redoes_only_what_depends_on_them(run, tmp_path):
    run()
    (tmp_path / "work/models/autopet_stage2_unet/model.pt").unlink()
    commands = run()
    assert commands.names == ["train autopet_stage2_unet", "assemble", "evaluate"]
    assert commands.ran[0] == ("train autopet_stage2_unet", False), (
        "a finished training must begin anew, not go on after its last epoch"
    )


def test_taking_stage_1_away_redoes_all_that_reads_its_masks(run, tmp_path):
    run()
    shutil.rmtree(tmp_path / "work/models/autopet_stage1_dynunet")
    assert run().names == ALL[1:]


def test_a_changed_study_redoes_everything(run, tmp_path):
    run()
    (tmp_path / "raw/a_0000.nii.gz").write_text("another ct")
    assert run().names == ALL


def test_an_interrupted_training_goes_on(run):
    first = run(fail={"train autopet_stage1_dynunet": 9})
    assert first.names == ALL[:2]
    assert "'train autopet_stage1_dynunet' ended with exit code 9" in first.end
    second = run()
    assert second.ran[0] == ("train autopet_stage1_dynunet", True)
    assert second.names == ALL[1:]


def test_studies_with_errors_do_not_stop_the_pipeline_but_change_its_exit_code_again_and_again(run):
    commands = run(fail={"prepare": 3})
    assert commands.names == ALL
    assert "some studies have errors, and all was done without them" in commands.end
    assert "datalist.json names them" in commands.end
    assert commands.code == 3
    again = run()
    assert (again.names, again.code) == ([], 3)


def test_a_training_whose_data_changed_after_an_interruption_begins_anew(run, tmp_path):
    run(fail={"train autopet_stage1_dynunet": 9})
    datalist = tmp_path / "work/prepared/datalist.json"
    datalist.write_text("another split")
    second = run()
    assert ("train autopet_stage1_dynunet", False) in second.ran


def test_a_changed_volume_trains_again_even_where_the_lists_are_the_same(run, tmp_path):
    run()
    prepared = tmp_path / "work/prepared"
    with Records(prepared, "prepared data set").making(Plan("a", {}, {}, ["images/a.nii"])):
        (prepared / "images").mkdir()
        (prepared / "images/a.nii").write_text("made from another file")
    assert run().names == ALL[1:]
    with Records(prepared, "prepared data set").making(Plan("a", {}, {}, ["images/a.nii"])):
        (prepared / "images/a.nii").write_text("made from another file")
    assert run().names == [], "the same volume was made once more"


@pytest.mark.parametrize("move", [shutil.move, partial(shutil.copytree, copy_function=shutil.copyfile)])
def test_a_moved_or_copied_work_folder_keeps_what_is_done(run, tmp_path, move):
    run()
    move(tmp_path / "work", tmp_path / "bigger disk")
    assert run(work_dir=tmp_path / "bigger disk").names == []


def test_where_the_raw_studies_lie_changes_nothing_that_was_trained(run, tmp_path):
    run()
    datalist, step = tmp_path / "work/prepared/datalist.json", tmp_path / "work/steps/prepare.json"
    content = json.loads(datalist.read_text())
    datalist.write_text(json.dumps({**content, "studies_dir": "../../raw"}))
    assert run().names == []
    datalist.write_text(json.dumps({**content, "training": []}))
    step.unlink()
    assert run().names == ALL


def test_weights_of_ones_own_are_never_deleted(run, tmp_path):
    own = tmp_path / "work/models/autopet_stage1_dynunet/week.pt"
    own.parent.mkdir(parents=True)
    own.write_text("weights that took a week")
    run()
    assert own.read_text() == "weights that took a week"


def test_more_than_one_gpu_trains_under_torchrun():
    steps = pipeline.plan(pipeline.Method(Path("raw"), Path("work"), BUNDLES, num_gpus=4))
    training = [step.arguments() for step in steps if step.run_id == "training"]
    assert len(training) == 4
    for arguments in training:
        assert arguments[:4] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
        assert "['configs/train.json', 'configs/multi_gpu_train.json']" in arguments


def test_every_config_that_a_step_names_exists():
    for profile in ("full", "demo"):
        for step in pipeline.plan(pipeline.Method(Path("raw"), Path("work"), BUNDLES, profile, num_gpus=2)):
            for file in step.files:
                assert json.loads((step.bundle / file).read_text())
            ids = {key for file in step.files for key in json.loads((step.bundle / file).read_text())}
            assert {step.run_id, *step.overrides} <= ids, f"{step.name} sets an id that its configs do not have"


def test_an_unknown_profile_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="profile is 'tiny': give 'full' or 'demo'"):
        pipeline.run_pipeline(tmp_path, tmp_path, BUNDLES, profile="tiny")


def test_a_failed_step_is_an_input_error_in_python(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.subprocess, "run", lambda arguments, **_: subprocess.CompletedProcess(arguments, 2))
    with pytest.raises(InputError, match="'prepare' ended with exit code 2"):
        pipeline.run_pipeline(tmp_path, tmp_path / "work", BUNDLES)


def test_paths_with_signs_of_python_and_monai_reach_each_step(tmp_path):
    work = tmp_path / "2026 11,26#1"
    for step in pipeline.plan(pipeline.Method(tmp_path / "raw#1", work, BUNDLES)):
        arguments = step.arguments()
        given = {name.lstrip("-"): DefaultParseValue(text) for name, text in itertools.pairwise(arguments)}
        for name, value in step.overrides.items():
            arrived = ConfigParser({name: given[name]}).get_parsed_content(name)
            assert (step.bundle / arrived).resolve() == value.resolve()
