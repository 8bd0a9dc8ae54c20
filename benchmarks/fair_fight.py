"""nnU-Net v2 and this method, trained for the same processor time on the same studies: python benchmarks/fair_fight.py

The studies are those of the laboratory, hard phantoms of which the test's scanners are seen in no training; or your own: --train and
--test, two raw data sets; or --studies, one, of which each of --folds parts is the test once, by patient. All competitors read the
same files: CT and label on the PET's grid, as nnU-Net wants them. The paper's recipe in the demo profile is trained first. The
processor time that it took, from these files to weights, is what every other competitor gets:

- each further variant of laboratory.json that --variants names, for as many epochs, so that its own time is told; one that changes
  inference alone takes the paper's networks, and their time;
- stage 1 alone: its training is as much longer as the whole method takes;
- nnU-Net v2 with its own planning for --nnunet-gib of GPU memory, its own augmentation, loss and optimiser, on all training studies.
  Its learning rate falls over the time instead of over 1000 epochs. Its preprocessing is not counted. It predicts as it does by
  default, mirrored. Where a variant took longer than the paper's recipe, nnU-Net competes once more, for the time of the longest.

All masks are scored by the same code. --seeds 2 lets all compete a second time, with another seed; --ours leaves out nnU-Net and
stage 1 alone. What is done is kept in --folder. The same command goes on with the competitor that was interrupted, from its beginning.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import laboratory
import nibabel as nib
import nnunet
import numpy as np
import psutil

from petct_cascade.judging import read_study
from petct_cascade.loading import LoadImagePETCTd
from petct_cascade.method import NETWORKS, STAGE1
from petct_cascade.studies import Study, find_studies
from petct_training.commands import command
from petct_training.errors import with_problems
from petct_training.files import read_json, write_json

FOLDER = common.ROOT / "dist/fair_fight"
NNUNET, LONGER, ALONE = "nnU-Net v2", "nnU-Net v2, longer", "stage 1 alone"
# Of the time that the paper's recipe took; less is noise.
MUCH_LONGER = 1.1
DATASET_ID, DATASET_NAME, CONFIGURATION = 1, "Dataset001_Lesions", "3d_fullres"
# Fewer than nnU-Net's 250 and 50, since its clock is looked at once an epoch, and what it validates is not used.
ITERATIONS, VALIDATIONS = 10, 1
DEMO_TRAINING = ["configs/train.json", "configs/demo.json"]
# What a variant may name that takes the paper's networks.
INFERENCE_ALONE = {"gains", "inference", "choose"}
# Epochs of two short trainings of stage 1, whose difference tells how long one takes.
TIMED_EPOCHS = (2, 12)


def used_seconds() -> float:
    """Processor time of this process, of its processes that run, and of those that have ended."""
    process = psutil.Process()
    times = [process.cpu_times(), *(child.cpu_times() for child in process.children(recursive=True))]
    return sum(found.user + found.system for found in times) + laboratory.cpu_seconds()


def result_file(folder: Path, name: str) -> Path:
    """Return the file of a competitor's result."""
    return folder / "results" / f"{name}.json"


def stage1_epochs(work: Path, seconds: float, folder: Path, training: Mapping[str, Any]) -> int:
    """Return for how many epochs stage 1 trains in that many seconds, by two short trainings on a data set that was prepared."""
    times = []
    for epochs in TIMED_EPOCHS:
        place = folder / f"timed/{epochs} epochs"
        options = {
            "dataset_dir": work / "prepared",
            "ckpt_dir": place / "models",
            "output_dir": place / "logs",
            **training,
            "max_epochs": epochs,
        }
        start = laboratory.cpu_seconds()
        common.run_bundle(laboratory.BUNDLES / STAGE1, "training", DEMO_TRAINING, options)
        times.append(laboratory.cpu_seconds() - start)
    of_epoch = (times[1] - times[0]) / (TIMED_EPOCHS[1] - TIMED_EPOCHS[0])
    return max(1, int((seconds - times[0]) / of_epoch) + TIMED_EPOCHS[0])


def train_ours(
    name: str, train: Path, test: Path, folder: Path, seed: int, training: Mapping[str, Any], epochs: int | None = None
) -> dict[str, Any]:
    """Train a variant of the laboratory with options of all trainings, or stage 1 alone for some epochs, and score it.

    Returns:
        rows of scores.csv, processor seconds of the training, and the settings.
    """
    options = dict(training)
    if epochs is not None:
        # The ensemble needs all networks; those of stage 2 are not used.
        options |= {bundle: {"max_epochs": epochs if bundle == STAGE1 else 1} for bundle in NETWORKS.values()}
    variant = read_json(laboratory.VARIANTS)[name if epochs is None else laboratory.PAPER]
    work = folder / "work" / (name if epochs is None else ALONE)
    borrows = name not in (laboratory.PAPER, ALONE) and variant.keys() <= INFERENCE_ALONE
    # What an interrupted run has done already would be counted as no time.
    shutil.rmtree(work, ignore_errors=True)
    if borrows:
        shutil.copytree(folder / "work" / laboratory.PAPER, work, ignore=shutil.ignore_patterns("test"))
    start = laboratory.cpu_seconds()
    laboratory.train(variant, train, work, seed, options)
    seconds = laboratory.cpu_seconds() - start
    if borrows:
        seconds += read_json(result_file(folder, laboratory.PAPER))["cpu_seconds"]
    rows = laboratory.score({"studies": test}, work, variant)
    return {"rows": rows, "cpu_seconds": seconds, "settings": settings_of(variant, options)}


def nnunet_environment(folder: Path) -> dict[str, str]:
    """What nnU-Net is told by the environment: its folders, and as many processes for augmentation as there are cores."""
    folders = {name: str(folder / "nnunet" / name) for name in nnunet.PLACES}
    return {**os.environ, **folders, "nnUNet_n_proc_DA": str(os.cpu_count() or 1), "PYTHONWARNINGS": "ignore"}


def prepare_nnunet(train: Path, folder: Path, gib: float) -> None:
    """Hand the studies to nnU-Net, and let it plan and preprocess them."""
    raw = folder / "nnunet/nnUNet_raw" / DATASET_NAME
    if not raw.is_dir():
        raw.mkdir(parents=True)
        for name in ("imagesTr", "labelsTr"):
            (raw / name).symlink_to((train / name).resolve())
    studies = len(list((train / "labelsTr").glob("*.nii.gz")))
    write_json(raw / "dataset.json", nnunet.DATASET_JSON | {"numTraining": studies})
    command = ["nnUNetv2_plan_and_preprocess", "-d", str(DATASET_ID), "-c", CONFIGURATION, "-np", str(os.cpu_count() or 1)]
    command = [str(Path(sys.executable).parent / command[0]), *command[1:], "-gpu_memory_target", str(gib)]
    subprocess.run(command, check=True, env=nnunet_environment(folder), stdout=sys.stderr)


def train_nnunet(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Train nnU-Net for so many seconds of processor time; return its plans and how many steps it made. In a process of its own."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class TimeIsOver(Exception):  # noqa: N818
        pass

    class Trainer(nnUNetTrainer):
        """nnU-Net's trainer, whose learning rate falls with the time, and which ends when that is over."""

        def share(self) -> float:
            return min(1.0, (used_seconds() - begun) / seconds)

        def on_train_epoch_start(self) -> None:
            super().on_train_epoch_start()
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - self.share()) ** 0.9

        def on_epoch_end(self) -> None:
            super().on_epoch_end()
            if self.share() >= 1:
                raise TimeIsOver

        def run_training(self) -> None:
            try:
                super().run_training()
            except TimeIsOver:
                self.on_train_end()

    # The predictor looks for the trainer among nnU-Net's own, by the name in the checkpoint.
    Trainer.__name__ = nnUNetTrainer.__name__
    torch.manual_seed(seed)
    np.random.seed(seed)
    base = Path(os.environ["nnUNet_preprocessed"]) / DATASET_NAME  # noqa: SIM112
    plans = read_json(base / "nnUNetPlans.json")
    trainer = Trainer(
        plans | {"continue_training": False}, CONFIGURATION, "all", read_json(base / "dataset.json"), device=torch.device("cpu")
    )
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = ITERATIONS, VALIDATIONS
    begun = used_seconds()
    trainer.run_training()
    configuration = plans["configurations"][CONFIGURATION]
    return {
        "cpu_seconds": used_seconds() - begun,
        "steps": ITERATIONS * trainer.current_epoch,
        "output": trainer.output_folder_base,
        "settings": {name: configuration[name] for name in ("spacing", "patch_size", "batch_size", "architecture")},
    }


def predict_nnunet(model: Path, test: Path, masks: Path) -> None:
    """Segment the test studies with trained weights, as nnU-Net does by default."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    cases = sorted(file.name.removesuffix(".nii.gz") for file in (test / "labelsTr").glob("*.nii.gz"))
    missing = [case for case in cases if not (masks / f"{case}.nii.gz").is_file()]
    if not missing:
        # The scoring was interrupted; nnU-Net cannot predict nothing.
        return
    masks.mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=("all",), checkpoint_name="checkpoint_final.pth")
    images = [[str(test / f"imagesTr/{case}_{channel:04d}.nii.gz") for channel in (0, 1)] for case in missing]
    predictor.predict_from_files_sequential(images, [str(masks / case) for case in missing])


def fight_nnunet(train: Path, test: Path, folder: Path, seconds: float, gib: float, seed: int) -> dict[str, Any]:
    """Let nnU-Net plan, train for so many seconds, and predict; return what `train_ours` returns."""
    prepare_nnunet(train, folder, gib)
    found = folder / "nnunet/trained.json"
    masks, scores = folder / "nnunet/masks", folder / "nnunet/scores"
    for step, arguments in (("train", [str(seconds)]), ("predict", [str(test)])):
        if step == "train" and found.is_file():
            continue
        command = [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            "--step",
            step,
            *arguments,
            str(seed),
            "--folder",
            str(folder),
        ]
        subprocess.run(command, check=True, env=nnunet_environment(folder), stdout=sys.stderr)
    options = {"predictions": masks, "references": test, "output_dir": scores, "images": test}
    common.run_bundle(common.ENSEMBLE, "run", ["configs/score.json"], options)
    trained = read_json(found)
    return {
        "rows": laboratory.read_scores(scores),
        "cpu_seconds": trained["cpu_seconds"],
        "settings": trained["settings"] | {"steps": trained["steps"]},
    }


def write_studies(studies: Sequence[Study], folder: Path) -> Path:
    """Write labelled studies to a folder in the challenge's layout, with the CT on the PET's grid; those that are there stay."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for study in studies:
        # It is written last.
        done = folder / f"labelsTr/{study.case}.nii.gz"
        if done.is_file():
            continue
        problems, volumes = read_study(study)
        if errors := [problem for problem in problems if problem.error]:
            raise SystemExit(with_problems("nothing was trained, since a study cannot be used", errors))
        image = LoadImagePETCTd("image").load([volumes["ct"], volumes["pet"]])
        for channel, array in enumerate(image.numpy()):
            nib.save(nib.Nifti1Image(array, image.affine.numpy()), folder / f"imagesTr/{study.case}_{channel:04d}.nii.gz")
        half = folder / f"half_{done.name}"
        nib.save(nib.Nifti1Image(volumes["label"].array.astype(np.uint8), volumes["label"].affine), half)
        half.rename(done)
    return folder


def folds_of(studies: Sequence[Study], folds: int) -> list[tuple[list[Study], list[Study]]]:
    """Return the training and the test studies of each fold; all studies of a patient are tested in one."""
    patients = sorted({study.patient for study in studies})
    fold_of = {patient: number % folds for number, patient in enumerate(patients)}
    return [
        (
            [study for study in studies if fold_of[study.patient] != fold],
            [study for study in studies if fold_of[study.patient] == fold],
        )
        for fold in range(folds)
    ]


def together(fights: Sequence[Sequence[Mapping[str, Mapping[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """Return the results of several fights as those of one; who did not compete in each of them is left out.

    Args:
        fights: of each seed those of each fold.

    Returns:
        of each competitor all rows of each seed, the seconds for all folds, on average over the seeds, and the settings of each fight.
    """
    every = [results for of_seed in fights for results in of_seed]
    return {
        name: {
            "rows": [[row for results in of_seed for row in results[name]["rows"]] for of_seed in fights],
            "cpu_seconds": sum(results[name]["cpu_seconds"] for results in every) / len(fights),
            "settings": [results[name]["settings"] for results in every],
        }
        for name in every[0]
        if all(name in results for results in every)
    }


def compared_models(name: str) -> Sequence[str | None]:
    """Return which models of a competitor are compared; None for its only one."""
    if name in (NNUNET, LONGER):
        return (None,)
    return laboratory.COMPARED[:1] if name == ALONE else laboratory.COMPARED


def print_results(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what `together` returned: means, paired differences to nnU-Net and to the paper's stages, and all settings."""
    entries = {
        f"{name}, {model}" if model in laboratory.COMPARED and name != ALONE else name: (name, model)
        for name in results
        for model in compared_models(name)
    }
    values = {
        label: {metric: laboratory.values_of(results[name]["rows"], model, metric) for metric in laboratory.METRICS}
        for label, (name, model) in entries.items()
    }
    # A competitor's rows may not say the patients; those of the first competitor, ours, do, and overrule.
    patients = laboratory.patients_of(row for name in reversed(results) for of_seed in results[name]["rows"] for row in of_seed)
    means = []
    for label, (name, _) in entries.items():
        figures = [f"{np.nanmean(values[label][metric]):.{digits}f}" for metric, (_, digits) in laboratory.METRICS.items()]
        means.append([label, *figures, f"{results[name]['cpu_seconds'] / 60:.0f}"])
    headings = [heading for heading, _ in laboratory.METRICS.values()]
    print("Means over the test studies and the seeds:\n")
    common.print_table(["competitor", *headings, "CPU minutes of training"], means)
    for base in (NNUNET, LONGER, *(f"{laboratory.PAPER}, {model}" for model in reversed(laboratory.COMPARED))):
        if base in values:
            print(f"Paired difference to {base}, 95 % interval over patients and seeds:\n")
            others = [label for label in values if label != base]
            common.print_table(
                ["competitor", *headings], [[label, *gains(values[label], values[base], patients)] for label in others]
            )
    for name, found in results.items():
        print(f"{name}: {found['settings']}")
    print(f"\n{common.machine()}, {time.strftime('%Y-%m-%d')}")


def gains(values: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], patients: Sequence[str]) -> list[str]:
    """Return the paired difference of each metric's values (seeds, studies) to others, with its interval."""
    return [
        laboratory.with_interval(laboratory.difference(values[metric], base[metric], patients), digits)
        for metric, (_, digits) in laboratory.METRICS.items()
    ]


def fight(train: Path, test: Path, folder: Path, seed: int, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train and score all competitors on two sets of studies, or read what is known of them; return the result of each."""
    training = {"steps_per_epoch": given.steps_per_epoch} if given.steps_per_epoch else {}
    results: dict[str, dict[str, Any]] = {}
    variants = read_json(laboratory.VARIANTS)

    def compete(name: str, competitor: Callable[[], dict[str, Any]]) -> None:
        file = result_file(folder, name)
        if not file.is_file():
            print(f"\n=== {name}, {folder.relative_to(given.folder)}", flush=True)
            write_json(file, competitor())
        results[name] = read_json(file)
        if name in variants:
            laboratory.refuse_others(file, results[name]["settings"], settings_of(variants[name], training))

    def ours(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: train_ours(name, train, test, folder, seed, training)

    def alone() -> dict[str, Any]:
        epochs = stage1_epochs(folder / "work" / laboratory.PAPER, seconds, folder, training)
        return train_ours(ALONE, train, test, folder, seed, training, epochs)

    compete(laboratory.PAPER, ours(laboratory.PAPER))
    seconds = results[laboratory.PAPER]["cpu_seconds"]
    for name in given.variants:
        compete(name, ours(name))
    if given.ours:
        return results
    if nnunet.is_installed():
        longest = max(result["cpu_seconds"] for result in results.values())
        compete(NNUNET, lambda: fight_nnunet(train, test, folder, seconds, given.nnunet_gib, seed))
        if longest > MUCH_LONGER * seconds:
            forget_shorter(folder, longest)
            compete(LONGER, lambda: fight_nnunet(train, test, folder / "longer", longest, given.nnunet_gib, seed))
    else:
        print(nnunet.MISSING)
    compete(ALONE, alone)
    return results


def settings_of(variant: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the result of a variant says of its settings."""
    return {**variant, **training, "profile": "demo"}


def forget_shorter(folder: Path, seconds: float) -> None:
    """Delete what nnU-Net did in the time of the longest variant, where one that takes much longer has been added since."""
    file = result_file(folder, LONGER)
    if file.is_file() and MUCH_LONGER * read_json(file)["cpu_seconds"] < seconds:
        print(
            f"{LONGER} had {read_json(file)['cpu_seconds']:.0f} s, a variant took {seconds:.0f} s: it competes again", flush=True
        )
        file.unlink()
        shutil.rmtree(folder / "longer", ignore_errors=True)


def absolute(path: str) -> Path:
    """Return a path of the command line that means the same in every folder."""
    return Path(path).resolve()


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=absolute, help="raw data set to train with")
    parser.add_argument("--test", type=absolute, help="raw data set to score with")
    parser.add_argument("--studies", type=absolute, help="raw data set of which each fold is the test once")
    parser.add_argument("--folds", type=int, default=3, help="of --studies")
    parser.add_argument("--folder", type=absolute, default=FOLDER)
    parser.add_argument("--variants", nargs="+", default=[laboratory.PAPER], help="of laboratory.json")
    parser.add_argument("--nnunet-gib", type=float, default=2, help="GPU memory for which nnU-Net plans; its default is 8")
    parser.add_argument("--seeds", type=int, default=1, help="how often all compete")
    parser.add_argument("--ours", action="store_true", help="leave out nnU-Net and stage 1 alone")
    parser.add_argument("--steps-per-epoch", type=int, help="of our trainings; without it, one patch a study, as in the paper")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder: Path = given.folder
    if given.step:
        step, argument, seed = given.step
        if step == "train":
            write_json(folder / "nnunet/trained.json", train_nnunet(folder, float(argument), int(seed)))
        else:
            model = Path(read_json(folder / "nnunet/trained.json")["output"])
            predict_nnunet(model, Path(argument), folder / "nnunet/masks")
        return
    if (given.train is None) != (given.test is None) or (given.train and given.studies):
        parser.error("give --train and --test together, or --studies, or none of them")

    def labelled(path: Path) -> list[Study]:
        studies = [study for study in find_studies(path, labels=True)[0] if study.label]
        return studies or parser.error(f"{path} holds no study with a label")

    names = ("train", "test", "studies", "folds", "nnunet_gib", "steps_per_epoch")
    laboratory.keep_settings(folder, {name: value and str(value) for name, value in vars(given).items() if name in names})
    if given.studies:
        sets = {folder / f"fold_{fold}": pair for fold, pair in enumerate(folds_of(labelled(given.studies), given.folds))}
    elif given.train:
        sets = {folder: (labelled(given.train), labelled(given.test))}
    else:
        laboratory.Laboratory().write_phantoms()
        sets = {folder: (labelled(laboratory.FOLDER / "train"), labelled(laboratory.FOLDER / "test"))}
    written = {
        place: (write_studies(train, place / "train"), write_studies(test, place / "test"))
        for place, (train, test) in sets.items()
    }
    fights = [
        [fight(train, test, place / f"seed_{seed}", seed, given) for place, (train, test) in written.items()]
        for seed in range(given.seeds)
    ]
    print_results(together(fights))


if __name__ == "__main__":
    main()
