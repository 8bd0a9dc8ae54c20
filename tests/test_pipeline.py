"""Promises of the pipeline, with the steps' commands replaced by ones that only write what the real ones would."""

import contextlib
import itertools
import json
import shutil
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from fire.parser import DefaultParseValue
from helpers import BUNDLES
from monai.bundle import ConfigParser

from petct_cascade import method, pipeline
from petct_cascade.commands import run_pipeline
from petct_cascade.preparation import DATA_SET
from petct_training.claims import Claims, training_in
from petct_training.errors import InputError
from petct_training.options import BEYOND_THE_PAPER
from petct_training.records import Plan, Records


class Commands:
    """Stands in for `run_child`: notes each command and writes the step's results, each time others, or fails as told."""

    number = itertools.count()

    def __init__(self, steps):
        self.steps, self.ran, self.fail = {self.key(step): step for step in steps}, [], {}
        self.gpus, self.threads, self.in_a_log = {}, {}, set()
        # Trainings that end before their first epoch, and those that end after it.
        self.too_early, self.after_an_epoch = set(), set()
        # Files that are lost as soon as they are written.
        self.without = ()

    @staticmethod
    def key(step):
        return step.bundle.name, step.run_id, str(step.overrides.get("fold"))

    def __call__(self, arguments, cwd, env, stdout=None, **_):
        assert env["PYTHONSAFEPATH"] == "1", "nothing that lies in the current folder is run"
        fold = arguments[arguments.index("--fold") + 1] if "--fold" in arguments else "None"
        step = self.steps[Path(cwd).name, arguments[arguments.index("run") + 1], fold]
        self.gpus[step.name], self.threads[step.name] = env.get("CUDA_VISIBLE_DEVICES"), env.get("OMP_NUM_THREADS")
        self.ran.append((step.name, "--resume" in arguments))
        if stdout is not None:
            self.in_a_log.add(step.name)
        if step.last is not None and step.name not in self.too_early:
            step.last.parent.mkdir(parents=True, exist_ok=True)
            step.last.write_text(f"{step.name} {next(self.number)}")
        if step.name in self.too_early | self.after_an_epoch:
            return 9
        outputs = step.outputs[:1] if self.fail.get(step.name, 3) != 3 else step.outputs
        for path in outputs:
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"made": f"{step.name} {next(self.number)}"}))
            else:
                path.mkdir(parents=True, exist_ok=True)
                name = "a" if step.fold is None else f"study_of_fold_{step.fold}"
                settings = {} if step.fold is None else {"held_out": {"fold": step.fold}}
                with Records(path, "masks").making(Plan(name, {}, settings, [f"{name}.nii.gz"])):
                    (path / f"{name}.nii.gz").write_text(f"{step.name} {next(self.number)}")
        for file in self.without:
            file.unlink(missing_ok=True)
        return self.fail.get(step.name, 0)

    @contextlib.contextmanager
    def start(self, arguments, **options):
        """Stands in for `child`."""
        process = SimpleNamespace(returncode=None)

        def wait(timeout):
            code = self(arguments, **options)
            end = time.monotonic() + 10
            # One that fails before another has begun keeps it from beginning.
            while code and len(self.in_a_log) < 2 and time.monotonic() < end:
                time.sleep(0.01)
            process.returncode = code

        process.wait = wait
        yield process

    @property
    def names(self):
        return [name for name, _ in self.ran]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the pipeline in a temporary folder and give the commands that it ran."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a_0000.nii.gz").write_text("ct")

    def run(fail=None, work_dir=tmp_path / "work", too_early=(), after_an_epoch=(), without=(), **options):
        planned = {name: options[name] for name in ("folds", "cross_validation", "recipe") if name in options}
        commands = Commands(method.plan(method.Method(raw, work_dir, BUNDLES, "demo", members=method.MEMBERS, **planned)))
        commands.fail, commands.too_early, commands.after_an_epoch = fail or {}, set(too_early), set(after_an_epoch)
        commands.without = without
        monkeypatch.setattr(pipeline, "run_child", commands)
        monkeypatch.setattr(pipeline, "child", commands.start)
        try:
            run_pipeline(raw, work_dir, BUNDLES, profile="demo", **options)
        except SystemExit as end:
            commands.end, commands.code = str(end), end.code
        return commands

    return run


# The id that the commands run that take further options of the user's.
OF_STEPS = {"prepare_options": "prepare", "train_options": "training"}
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


def test_a_step_that_ends_without_its_result_is_not_taken_for_done(run, tmp_path):
    model = tmp_path / "work/models/autopet_stage2_unet/model.pt"
    first = run(without=[model])
    assert f"'train autopet_stage2_unet' has ended, and {pipeline.relative_path(model)} is not there" in first.end
    assert first.names == ALL[:6]
    assert run().names == ALL[5:]


def test_a_second_pipeline_in_one_work_folder_is_refused_until_the_first_has_ended(run, tmp_path):
    with Claims(tmp_path / "work", "steps").holding("pipeline", "never said"):
        second = run()
    assert second.names == []
    assert (
        second.end
        == f"error: {tmp_path / 'work'}: another pipeline runs in this folder at the moment: wait for it, or name another folder"
    )
    failed = run(fail={"prepare": 9})
    assert failed.names == ALL[:1]
    assert run().names == ALL
    assert not list((tmp_path / "work").rglob("*.lock"))


def test_studies_with_errors_do_not_stop_the_pipeline_but_change_its_exit_code(run):
    commands = run(fail={"prepare": 3})
    assert commands.names == ALL
    assert "some studies have errors, and all was done without them" in commands.end
    assert "datalist.json names them" in commands.end
    assert commands.code == 3


def test_a_step_that_left_out_studies_runs_again_until_it_leaves_out_none(run):
    run(fail={"evaluate": 3})
    again = run(fail={"evaluate": 3})
    assert (again.names, again.code) == (["evaluate"], 3)
    mended = run()
    assert mended.names == ["evaluate"]
    assert not hasattr(mended, "code")
    assert run().names == []


@pytest.mark.parametrize("name", ["report.html", "readouts.json", "scores.csv", "masks"])
def test_a_result_that_was_deleted_is_made_again(run, tmp_path, name):
    run()
    result = tmp_path / "work/results" / name
    shutil.rmtree(result) if result.is_dir() else result.unlink()
    assert run().names == ["evaluate"]
    assert result.exists()


def test_a_training_that_was_ended_before_its_first_epoch_is_not_resumed_from_an_earlier_one(run):
    first = ALL[1]
    run()
    assert run(max_epochs=7, too_early=[first]).ran == [(first, False)]
    assert run(max_epochs=7, too_early=[first]).ran == [(first, False)]
    assert run(max_epochs=7, after_an_epoch=[first]).ran == [(first, False)]
    assert run(max_epochs=7, after_an_epoch=[first]).ran == [(first, True)]
    assert run(max_epochs=7).ran[0] == (first, True)


def test_an_interrupted_training_whose_state_was_deleted_begins_anew(run, tmp_path):
    """As the training says where it cannot go on: its state is damaged, or its best weights are lost."""
    first = ALL[1]
    run(after_an_epoch=[first])
    (tmp_path / "work/models/autopet_stage1_dynunet/last.pt").unlink()
    assert run(after_an_epoch=[first]).ran == [(first, False)]
    assert run().ran[0] == (first, True)


def test_the_state_of_a_training_that_a_killed_pipeline_has_left_running_is_none_of_other_options(run, tmp_path):
    first, folder = ALL[1], tmp_path / "work/models/autopet_stage1_dynunet"
    run(after_an_epoch=[first])
    with training_in(folder):
        refused = run(max_epochs=7)
    assert refused.names == []
    assert "another training runs in this folder at the moment: wait for it" in refused.end
    (folder / "last.pt").write_text("the last epoch of the training that went on")
    assert run(max_epochs=7).ran[0] == (first, False)


def test_a_wrong_option_costs_no_finished_training(run):
    run()
    assert run(max_epochs=7, too_early=[ALL[1]]).names == [ALL[1]]
    assert run().names == []


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


def test_preparing_sees_what_changed_in_the_files_that_a_list_names_behind_links_and_in_names_of_folders(tmp_path):
    real, by_folders = tmp_path / "elsewhere", tmp_path / "by folders"
    for name in ("images", "labels", "dicom series"):
        (real / name).mkdir(parents=True)
    files = [real / place for place in ("images/a_0000.nii.gz", "images/a_0001.nii.gz", "labels/a.nii.gz", "dicom series/1.dcm")]
    for file in files:
        file.write_text("of a study")
    (by_folders / "PETCT_1/study").mkdir(parents=True)
    (by_folders / "PETCT_1/study/CTres.nii.gz").touch()
    links = tmp_path / "links"
    links.mkdir()
    (links / "imagesTr").symlink_to(real / "images")
    (links / "labelsTr").symlink_to(real / "labels")
    (links / "in a circle").symlink_to(links)
    table, listed = tmp_path / "list.csv", tmp_path / "list.json"
    table.write_text(
        "case,ct,pet,label\nfdg_a_1,elsewhere/dicom series,elsewhere/images/a_0001.nii.gz,elsewhere/labels/a.nii.gz\n"
    )
    entry = {"case": "fdg_a_1", "image": [str(files[0]), str(files[1])], "label": str(files[2])}
    listed.write_text(json.dumps([entry]))

    def states() -> list[object]:
        sources = (table, listed, links, by_folders)
        return [method.plan(method.Method(source, tmp_path / "work", BUNDLES))[0].state() for source in sources]

    def changed() -> list[bool]:
        nonlocal before
        now = states()
        seen, before = [state != earlier for state, earlier in zip(now, before, strict=True)], now
        return seen

    before = states()
    assert changed() == [False, False, False, False]
    files[2].write_text("another label")
    assert changed() == [True, True, True, False]
    files[3].write_text("another slice")
    assert changed() == [True, False, False, False]
    (by_folders / "PETCT_1").rename(by_folders / "PETCT_2")
    assert changed() == [False, False, False, True]


@pytest.mark.parametrize(
    ("named", "behind"),
    [("label.mhd", "label.raw"), ("series/1", "series/2"), ("series/1.dcm", "series/2.dcm"), ("1.2.840.1", "anywhere/3.dcm")],
)
def test_preparing_sees_what_changed_behind_a_header_a_slice_and_a_uid_that_a_list_names(tmp_path, named, behind):
    listed, other = tmp_path / "list.csv", tmp_path / behind
    listed.write_text(f"case,ct,pet,label\nfdg_a_1,ct.nii,pet.nii,{named}\n")
    other.parent.mkdir(exist_ok=True)
    if not named.startswith("1."):
        (tmp_path / named).write_text("ElementDataFile = label.raw\n")
    other.write_text("voxels")
    (prepare, *_) = method.plan(method.Method(listed, tmp_path / "work", BUNDLES))
    before = prepare.state()
    assert prepare.state() == before
    other.write_text("other voxels")
    assert prepare.state() != before


def test_a_folder_of_which_a_list_names_many_series_is_looked_through_once(tmp_path):
    rows = [f"fdg_a_{number},1.2.{number}.1,1.2.{number}.2,series/{number}.dcm" for number in range(20)]
    (tmp_path / "list.csv").write_text("\n".join(["case,ct,pet,label", *rows]))
    (tmp_path / "series").mkdir()
    for number in range(20):
        (tmp_path / f"series/{number}.dcm").write_text("a slice")
    (prepare, *_) = method.plan(method.Method(tmp_path / "list.csv", tmp_path / "work", BUNDLES))
    names = [name for listing in prepare.state()["inputs"] for name, *_ in listing]
    # Once for its own, once for the list's folder.
    assert len(names) <= 2 * 20 + 2


def test_what_the_method_makes_inside_of_the_studies_folder_is_none_of_the_studies(run, tmp_path):
    work = tmp_path / "raw/work"
    assert run(work_dir=work).names == ALL
    assert run(work_dir=work).names == []


def test_a_data_list_that_leads_to_no_studies_is_made_again_and_changes_nothing_that_was_trained(tmp_path):
    raw, moved = tmp_path / "raw", tmp_path / "other disk/raw"
    raw.mkdir()
    (raw / "a.nii.gz").write_text("ct")
    prepare, train, *_ = method.plan(method.Method(raw, tmp_path / "work", BUNDLES))
    file = method.Method(raw, tmp_path / "work", BUNDLES).data[0]
    file.parent.mkdir(parents=True)

    def write(studies_dir: str) -> None:
        content = {"studies_dir": studies_dir, "training": [{"case": "a", "original": {"ct": "a.nii.gz"}}]}
        with Records(file.parent, "prepared data set").making(Plan(DATA_SET, {}, {}, [file.name])):
            file.write_text(json.dumps(content))

    write("../../raw")
    made, trained = prepare.result(), train.state()
    moved.parent.mkdir()
    raw.rename(moved)
    assert prepare.result() != made
    write("../../other disk/raw")
    assert (prepare.result(), train.state()) == (made, trained)


def test_weights_of_ones_own_are_never_deleted(run, tmp_path):
    own = tmp_path / "work/models/autopet_stage1_dynunet/week.pt"
    own.parent.mkdir(parents=True)
    own.write_text("weights that took a week")
    run()
    assert own.read_text() == "weights that took a week"


def test_more_than_one_gpu_trains_under_torchrun():
    steps = method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, num_gpus=4))
    training = [step.arguments() for step in steps if step.run_id == "training"]
    assert len(training) == 4
    for arguments in training:
        assert arguments[:4] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
        assert "['configs/train.json', 'configs/multi_gpu_train.json']" in arguments


def test_every_config_that_a_step_names_exists():
    for profile, recipe in itertools.product(method.PROFILES, method.RECIPES):
        for step in method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, profile, num_gpus=2, recipe=recipe)):
            for file in step.files:
                assert json.loads((step.bundle / file).read_text())
            ids = {key for file in step.files for key in json.loads((step.bundle / file).read_text())}
            assert {step.run_id, *step.overrides} <= ids, f"{step.name} sets an id that its configs do not have"


def test_an_unknown_profile_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="profile is 'tiny': give 'full' or 'demo'"):
        pipeline.run_pipeline(tmp_path, tmp_path, BUNDLES, profile="tiny")


def test_a_failed_step_is_an_input_error_in_python(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "run_child", lambda arguments, **_: 2)
    with pytest.raises(InputError, match="'prepare' ended with exit code 2"):
        pipeline.run_pipeline(tmp_path, tmp_path / "work", BUNDLES)


def test_paths_with_signs_of_python_and_monai_reach_each_step(tmp_path):
    work = tmp_path / "2026 11,26#1"
    for step in method.plan(method.Method(tmp_path / "raw#1", work, BUNDLES)):
        arguments = step.arguments()
        given = {name.lstrip("-"): DefaultParseValue(text) for name, text in itertools.pairwise(arguments)}
        for name, value in step.overrides.items():
            arrived = ConfigParser({name: given[name]}).get_parsed_content(name)
            assert (step.bundle / arrived).resolve() == value.resolve()


# ---------------------------------------------------------------- folds

FOLDS = {"folds": 2}
TRAIN_1 = [f"train autopet_stage1_dynunet fold {fold}" for fold in range(2)]
MASKS = [f"predict the coarse masks fold {fold}" for fold in range(2)]
TRAIN_2 = [f"train {bundle} fold {fold}" for bundle in method.STAGE2 for fold in range(2)]


def test_with_folds_every_network_is_trained_once_a_fold_and_each_fold_makes_its_own_coarse_masks(run):
    commands = run(**FOLDS)
    assert commands.names == ["prepare", *TRAIN_1, *MASKS, *TRAIN_2, "assemble", "evaluate"]
    assert run(**FOLDS).names == []


def test_stage_2_can_be_trained_once_from_the_coarse_masks_of_all_folds(run):
    once = [f"train {bundle} fold 0" for bundle in method.STAGE2]
    assert run(**FOLDS, cross_validation=False).names == ["prepare", *TRAIN_1, *MASKS, *once, "assemble", "evaluate"]


def test_each_command_names_its_fold_and_the_cascade_is_told_how_many_there_are():
    steps = {step.name: step for step in method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, folds=3))}
    assert steps["prepare"].overrides["folds"] == 3
    for fold in range(3):
        training, masks = (steps[f"{name} fold {fold}"] for name in ("train autopet_stage1_dynunet", "predict the coarse masks"))
        assert training.overrides["fold"] == masks.overrides["fold"] == fold
        assert (
            training.overrides["ckpt_dir"]
            == masks.overrides["ckpt_dir"]
            == Path(f"work/models/autopet_stage1_dynunet/fold_{fold}")
        )
    assert steps["assemble"].overrides["folds_of"] == dict.fromkeys(("stage1", "SegResNet", "SwinUNETR", "UNet"), 3)
    once = method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, folds=3, cross_validation=False))
    assert once[-2].overrides["folds_of"] == {"stage1": 3}


def test_a_member_that_is_left_out_is_not_trained_and_the_cascade_is_told_so(run):
    assert run(members=["UNet", "SegResNet"]).names == [name for name in ALL if "swinunetr" not in name]
    steps = {
        step.name: step for step in method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, members=["UNet"], folds=2))
    }
    assert steps["assemble"].overrides["members"] == ["UNet"]
    assert steps["assemble"].overrides["folds_of"] == {"stage1": 2, "UNet": 2}
    trained = {file.parts[2] for file in steps["assemble"].inputs}
    assert trained == {method.STAGE1, "autopet_stage2_unet"}
    assert "members" not in method.plan(method.Method(Path("raw"), Path("work"), BUNDLES))[-2].overrides


def test_leaving_a_member_out_later_keeps_what_was_trained(run):
    run()
    assert run(members=["SegResNet", "UNet"]).names == ["assemble", "evaluate"]


@pytest.mark.parametrize("name", method.OF_ANSWER)
def test_another_answer_of_the_ensemble_trains_nothing_again(run, name):
    run()
    assert run(**{name: 0.3}).names == ["assemble", "evaluate"]
    assert run(**{name: 0}).names == ["assemble", "evaluate"]
    assert run().names == []


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, (None, None)),
        ({"recipe": "recommended"}, (0.5, 0.25)),
        ({"stage1_weight": 0.2}, (0.2, None)),
        ({"recipe": "recommended", "keep_found_above": 0}, (0.5, None)),
        ({"recipe": "recommended", "stage1_weight": 0, "keep_found_above": 0.3}, (None, 0.3)),
    ],
)
def test_the_weights_get_the_shares_that_are_given_or_else_the_recipes(options, shares):
    steps = method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, **options))
    overrides = next(step for step in steps if step.name == "assemble").overrides
    assert tuple(overrides.get(name) for name in method.OF_ANSWER) == shares


def test_the_recommended_recipe_has_three_folds_of_stage_1_and_no_swinunetr_unless_others_are_named(run):
    stage1 = [f"{name} fold {fold}" for name in ("train autopet_stage1_dynunet", "predict the coarse masks") for fold in range(3)]
    stage2 = [f"train autopet_stage2_{name} fold 0" for name in ("segresnet", "unet")]
    assert run(recipe="recommended").names == ["prepare", *stage1, *stage2, "assemble", "evaluate"]
    swinunetr = ["train autopet_stage2_swinunetr fold 0", "assemble", "evaluate"]
    assert run(recipe="recommended", members=list(method.MEMBERS)).names == swinunetr


def test_the_recommended_recipe_trains_every_network_with_patches_inside_and_lesions_and_tracers_drawn_alike():
    steps = method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, recipe="recommended", members=method.MEMBERS))
    trainings = [step for step in steps if step.run_id == "training"]
    assert {step.bundle.name for step in trainings} == set(method.NETWORKS.values())
    for step in trainings:
        parser = ConfigParser()
        parser.read_config([step.bundle / file for file in step.files])
        on = {name: value for name, value in BEYOND_THE_PAPER.items() if name in parser.get() and parser[name] != value}
        assert set(on) == {"patch_inside", "balance_lesions", "balance_tracers"}
        assert all(parser[name] is True for name in on)


def test_folds_that_are_given_go_before_those_of_the_recipe(run):
    assert run(recipe="recommended", folds=0).names == [name for name in ALL if "swinunetr" not in name]
    names = run(recipe="recommended", folds=2, cross_validation=True).names
    assert names == ["prepare", *TRAIN_1, *MASKS, *(name for name in TRAIN_2 if "swinunetr" not in name), "assemble", "evaluate"]


def test_a_recipe_patches_each_bundle_that_has_its_config_over_paper_and_profile(tmp_path):
    for bundle in (method.STAGE1, "autopet_stage2_unet"):
        (tmp_path / bundle / "configs").mkdir(parents=True)
        (tmp_path / bundle / "configs/recommended.json").write_text("{}")

    def configs(recipe):
        steps = method.plan(method.Method(Path("raw"), Path("work"), tmp_path, "demo", recipe=recipe))
        return {step.bundle.name: step.configs for step in steps if step.run_id == "training"}

    patched, paper = ("train", "demo", "recommended"), ("train", "demo")
    assert set(configs("paper").values()) == {paper}
    assert configs("recommended") == {
        method.STAGE1: patched,
        "autopet_stage2_segresnet": paper,
        "autopet_stage2_swinunetr": paper,
        "autopet_stage2_unet": patched,
    }


@pytest.mark.parametrize("members", [[], ["DynUNet"], ["UNet", {"a": 1}], "UNet", 3])
def test_other_members_than_the_ensembles_are_refused(run, members):
    commands = run(members=members)
    assert commands.names == []
    assert (
        commands.end
        == f"error: members is {members!r}: name one or more of SegResNet, SwinUNETR, UNet, such as ['SegResNet', 'SwinUNETR']"
    )


def test_a_lost_fold_is_trained_again_and_only_its_masks_are_predicted_again(run, tmp_path):
    run(**FOLDS)
    (tmp_path / "work/models/autopet_stage1_dynunet/fold_1/model.pt").unlink()
    assert run(**FOLDS).names == [TRAIN_1[1], MASKS[1], *TRAIN_2, "assemble", "evaluate"]


def test_a_lost_coarse_mask_is_predicted_by_its_own_fold_alone(run, tmp_path):
    run(**FOLDS)
    (tmp_path / "work/prepared/coarse_masks/study_of_fold_1.nii.gz").unlink()
    assert run(**FOLDS).names == [MASKS[1], *TRAIN_2, "assemble", "evaluate"]


def test_another_number_of_folds_trains_everything_again(run):
    run(**FOLDS)
    names = run(folds=3).names
    assert sum(name.startswith("train autopet_stage1") for name in names) == 3
    assert sum(name.startswith("predict") for name in names) == 3
    assert run().names == ALL


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recipe": "papers"}, "recipe is 'papers': give 'paper' or 'recommended'"),
        ({"folds": 1}, "folds is 1: give 2 or more, or 0 for one split"),
        ({"prepare_options": {"folds": 3}}, "prepare_options holds folds: give --folds itself"),
        ({"stage1_weight": 2}, "stage1_weight is 2: give a number from 0 to 1"),
        ({"keep_found_above": "a"}, "keep_found_above is 'a': give a number from 0 to 1"),
        ({"parallel_trainings": 0}, "parallel_trainings is 0"),
        ({"parallel_trainings": 3, "num_gpus": 2}, "parallel_trainings is 3 with 2 GPUs"),
        ({"train_options": {"autopet_stage2_swinuner": {"max_epochs": 1}}}, "did you mean autopet_stage2_swinunetr?"),
        ({"train_options": {"max_epoch": 1}}, "did you mean max_epochs?"),
        (
            {"train_options": {"autopet_stage2_unet": {"network_def::channels": [8, 16]}}},
            "train_options holds network_def::channels: the steps after the training of autopet_stage2_unet would not know",
        ),
        ({"max_epochs": 0}, "max_epochs is 0: give 1 or more"),
        ({"max_epochs": 5, "train_options": {"max_epochs": 3}}, "max_epochs is 5, and train_options holds another one"),
        (
            {"train_options": "max_epochs=3"},
            "train_options is 'max_epochs=3': give options by their names, such as {'max_epochs':300}",
        ),
        ({"prepare_options": [1]}, "prepare_options is [1]: give options by their names, such as {'spacing':'median'}"),
        ({"prepare_options": {"exclude": "a.txt"}}, "prepare_options holds exclude: give --exclude itself"),
        ({"exclude": "typed wrong.txt"}, "typed wrong.txt does not exist: name a file with the cases to exclude"),
        ({"train_options": {"max_epochs": 0}}, "--max_epochs is 0: give a whole number, 1 or more"),
        ({"train_options": {"autopet_stage2_unet": {"max_epochs": 0}}}, "--max_epochs is 0: give a whole number, 1 or more"),
        ({"train_options": {"autopet_stage2_unet": 100}}, "train_options holds 100 for autopet_stage2_unet: give its options"),
        (
            {"train_options": {"dropout_prob": 0.5}},
            "train_options holds dropout_prob, which is no bundle of a network, and no option of",
        ),
        (
            {"train_options": {"seed": 10, "ckpt_dir": "other"}},
            "train_options holds ckpt_dir: leave it out, since the steps look",
        ),
        ({"train_options": {"autopet_stage2_unet": {"resume": True}}}, "train_options holds resume: leave it out"),
        ({"train_options": {"fold": 1}}, "train_options holds fold: give --folds itself"),
        ({"train_options": {"+output_dir": "other"}}, "train_options holds +output_dir: leave it out"),
        ({"train_options": {"model_file": "a.pt"}}, "train_options holds model_file, in which the configs name @ckpt_dir"),
        ({"train_options": {"validate::best::model_file": "a.pt"}}, "in which the configs name @model_file"),
        ({"train_options": {"train::items::datalist": "a.json"}}, "in which the configs name @datalist"),
        ({"prepare_options": {"dataset_dir": "other"}}, "prepare_options holds dataset_dir: leave it out"),
        ({"prepare_options": {"studies": "other"}}, "prepare_options holds studies: give --studies itself"),
        (
            {"prepare_options": {"run::studies": "other"}},
            "prepare_options holds run::studies, in which the configs name @studies",
        ),
        ({"train_options": {"train::noize::_disabled_": True}}, "train has no noize: did you mean noise?"),
        (
            {"train_options": {"autopet_stage2_unet": {"train::trainer::max_epoch": 7}}},
            "no option of autopet_stage2_unet: SupervisedTrainer takes no max_epoch: did you mean max_epochs?",
        ),
    ],
)
def test_options_that_make_no_sense_are_one_sentence_before_anything_runs(run, options, said):
    commands = run(**options)
    assert commands.names == []
    assert said in commands.end
    assert "\n" not in commands.end


def test_what_the_method_sets_itself_is_what_is_refused_among_further_options(tmp_path):
    (tmp_path / "left_out.txt").write_text("a\n")
    steps = method.plan(method.Method(tmp_path, tmp_path / "work", BUNDLES, folds=2, exclude=tmp_path / "left_out.txt"))
    own = {
        option: {name for step in steps if step.run_id == run_id for name in step.overrides}
        for option, run_id in OF_STEPS.items()
    }
    # The first of a command's words is its run, and those of an interrupted training hold one more option.
    resumed = {
        word.removeprefix("--") for step in steps if step.last for word in {*step.arguments(resume=True)} - {*step.arguments()}
    }
    own["train_options"] |= resumed - {"True"}
    assert own == {option: {*names} for option, names in method.SET_BY_METHOD.items()}
    assert "resume" in own["train_options"]


def test_options_inside_of_the_objects_of_a_training_reach_it(run):
    options = {"train::noise::prob": 0.5, "train::stopping::_disabled_": True, "train::curves::log_dir": "$@output_dir + '/a'"}
    commands = run(train_options={**options, "autopet_stage2_unet": {"optimizer::amsgrad": True}})
    assert commands.names == ALL


def test_options_of_one_network_go_over_those_of_all():
    options = {"max_epochs": 300, "autopet_stage2_unet": {"max_epochs": 100, "dropout_prob": 0.5}}
    steps = method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, train_options=options))
    given = {step.bundle.name: dict(step.overrides) for step in steps if step.run_id == "training"}
    for bundle, overrides in given.items():
        assert overrides["max_epochs"] == (100 if bundle == "autopet_stage2_unet" else 300)
        assert ("dropout_prob" in overrides) == (bundle == "autopet_stage2_unet")
        assert not set(method.NETWORKS.values()) & overrides.keys()


def test_epochs_of_all_trainings_stay_beside_other_options_of_theirs_and_below_those_of_one_network():
    options = {"steps_per_epoch": 2, "autopet_stage2_unet": {"max_epochs": 3}}
    steps = method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, max_epochs=5, train_options=options))
    given = {step.bundle.name: dict(step.overrides) for step in steps if step.run_id == "training"}
    assert {bundle: overrides["max_epochs"] for bundle, overrides in given.items()} == {
        **dict.fromkeys(method.NETWORKS.values(), 5),
        "autopet_stage2_unet": 3,
    }
    assert all(overrides["steps_per_epoch"] == 2 for overrides in given.values())


@pytest.mark.parametrize(("word", "trainings"), [("false", 1), ("True", 2), (False, 1)])
def test_cross_validation_may_be_a_word_of_the_command_line(run, word, trainings):
    names = run(folds=2, cross_validation=word).names
    assert sum(name.startswith("train autopet_stage2_unet") for name in names) == trainings
    with pytest.raises(InputError, match="cross_validation is 'maybe': give true or false"):
        method.Method(Path("raw"), Path("work"), BUNDLES, cross_validation="maybe")


def test_a_study_that_is_added_to_the_list_of_those_to_leave_out_is_left_out(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("left out.txt").write_text("fdg_a_1\n")
    commands = run(exclude="left out.txt")
    (prepare, *_) = commands.steps.values()
    assert run(exclude="left out.txt").names == []
    Path("left out.txt").write_text("fdg_a_1\nfdg_b_1\n")
    assert run(exclude="left out.txt").names == ALL
    assert "exclude" not in prepare.overrides, "without the option the command is as ever"


# ---------------------------------------------------------------- side by side


def test_trainings_run_side_by_side_on_gpus_of_their_own(run, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    commands = run(**FOLDS, num_gpus=4, parallel_trainings=2)
    assert sorted(commands.names) == sorted(["prepare", *TRAIN_1, *MASKS, *TRAIN_2, "assemble", "evaluate"])
    assert {commands.gpus[name] for name in (*TRAIN_1, *TRAIN_2)} == {"4,5", "6,7"}
    assert {commands.gpus[name] for name in (*MASKS, "prepare", "assemble", "evaluate")} == {"4,5,6,7"}
    for step in method.plan(method.Method(Path("raw"), Path("work"), BUNDLES, num_gpus=4, parallel_trainings=2)):
        assert step.processes == (2 if step.run_id == "training" else 1)


@pytest.mark.parametrize(("set_before", "shared", "alone"), [(None, "3", None), ("5", "5", "5")])
def test_trainings_that_run_side_by_side_without_gpus_share_the_cores(run, monkeypatch, set_before, shared, alone):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_before:
        monkeypatch.setenv("OMP_NUM_THREADS", set_before)
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: 7)
    commands = run(parallel_trainings=2)
    stage1, *stage2 = (name for name in ALL if name.startswith("train"))
    assert {commands.threads[name] for name in stage2} == {shared}
    assert {commands.threads[name] for name in (stage1, "predict the coarse masks", "evaluate")} == {alone}
    # What runs alone shows its progress.
    assert commands.in_a_log == set(stage2)


def test_two_processes_run_at_the_same_time_and_write_logs_of_their_own(run, tmp_path, monkeypatch):
    """Each of the two trainings ends only when it has seen that the other has begun."""
    monkeypatch.setattr(
        method.Step, "arguments", lambda step, resume=False: ["-c", MEET, str(tmp_path), step.name, *map(str, step.outputs)]
    )
    steps = [step for step in method.plan(method.Method(Path("raw"), tmp_path, BUNDLES, "demo", folds=2)) if step.name in TRAIN_1]
    pipeline._Run(method.Method(tmp_path, tmp_path, BUNDLES, "demo", folds=2, parallel_trainings=2)).side_by_side(steps)
    for step in steps:
        assert step.log.read_text() == f"{step.name} has met the other\n"


MEET = """
import pathlib, sys, time
folder, name, *outputs = sys.argv[1:]
pathlib.Path(folder, name).touch()
while len(list(pathlib.Path(folder).glob("train *"))) < 2:
    time.sleep(0.01)
for output in map(pathlib.Path, outputs):
    output.parent.mkdir(parents=True, exist_ok=True)
    output.touch()
print(name, "has met the other")
"""


def test_of_trainings_that_run_side_by_side_each_epoch_is_shown_once(tmp_path, monkeypatch, capsys):
    """The logs have lines of an earlier run, and the last line of this one is written in two parts."""
    monkeypatch.setattr(pipeline, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(method.Step, "arguments", lambda step, resume=False: ["-c", EPOCHS + WRITE, *map(str, step.outputs)])
    steps = [step for step in method.plan(method.Method(Path("raw"), tmp_path, BUNDLES, "demo", folds=2)) if step.name in TRAIN_1]
    for step in steps:
        step.log.parent.mkdir(parents=True)
        step.log.write_text("2026-11-26 09:00:00 INFO training: epoch 1 of 3: mean loss 9.0000\n")
    pipeline._Run(method.Method(tmp_path, tmp_path, BUNDLES, "demo", folds=2, parallel_trainings=2)).side_by_side(steps)
    lines = capsys.readouterr().out.splitlines()
    for step in steps:
        shown = [line for line in lines if line.startswith(f"{step.name}:")]
        assert shown == [f"{step.name}: epoch {epoch} of 3: mean loss 0.{epoch}000" for epoch in (1, 2, 3)]
        # It is done when its last epoch has been shown.
        assert lines.index(f"{step.name} is done") > lines.index(shown[-1])


WRITE = """
import pathlib, sys
for output in map(pathlib.Path, sys.argv[1:]):
    output.parent.mkdir(parents=True, exist_ok=True)
    output.touch()
"""


EPOCHS = """
import time
for epoch in (1, 2, 3):
    print(f"2026-11-27 09:00:00 INFO training: epoch {epoch} of 3: mean ", end="", flush=True)
    time.sleep(0.2)
    print(f"loss 0.{epoch}000", flush=True)
"""


def test_no_training_begins_after_one_has_failed_and_those_that_had_begun_end(tmp_path, monkeypatch):
    plan = method.plan(method.Method(Path("raw"), tmp_path, BUNDLES, "demo", folds=3))
    steps = [step for step in plan if step.name.startswith("train autopet_stage1")]
    fails, waits, waits_for_a_share = (step.name for step in steps)
    scripts = {fails: "raise SystemExit(9)", waits: "import time; time.sleep(0.5)" + WRITE, waits_for_a_share: WRITE}

    def arguments(step, resume=False):
        return ["-c", scripts[step.name], str(tmp_path / step.name), *map(str, step.outputs)]

    monkeypatch.setattr(method.Step, "arguments", arguments)
    with pytest.raises(InputError, match="fold 0' ended with exit code 9"):
        pipeline._Run(method.Method(tmp_path, tmp_path, BUNDLES, "demo", folds=3, parallel_trainings=2)).side_by_side(steps)
    assert [(tmp_path / step.name).exists() for step in steps] == [False, True, False]


def test_a_training_that_fails_beside_others_is_named_with_its_log_and_nothing_follows(run):
    commands = run(fail={TRAIN_1[0]: 9}, **FOLDS, parallel_trainings=2)
    assert set(commands.names) == {"prepare", *TRAIN_1}
    assert f"'{TRAIN_1[0]}' ended with exit code 9: see what its command says in " in commands.end
    assert "training.log" in commands.end
    again = run(**FOLDS, parallel_trainings=2)
    assert (TRAIN_1[0], True) in again.ran
    assert TRAIN_1[1] not in again.names
