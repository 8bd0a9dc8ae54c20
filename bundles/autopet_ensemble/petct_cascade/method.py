"""The steps of the whole method: the commands that a person would type, what each reads, and what it makes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from petct_cascade.command_line import bundle_command
from petct_cascade.exclusions import read_exclusions
from petct_cascade.folders import walk
from petct_cascade.lists import LISTS, read_list
from petct_training.errors import InputError, boolean, is_number
from petct_training.files import LAST, SUFFIXES, data_file_of, read_json, read_json_or_none, relative_path, stamp
from petct_training.records import HELD_OUT, RECORDS, digest_of, path_from, read_record

ENSEMBLE = "autopet_ensemble"
STAGE1 = "autopet_stage1_dynunet"
STAGE2 = ("autopet_stage2_segresnet", "autopet_stage2_swinunetr", "autopet_stage2_unet")
# Each network of the cascade by its name there, with its bundle.
NETWORKS = dict(zip(("stage1", "SegResNet", "SwinUNETR", "UNet"), (STAGE1, *STAGE2), strict=True))
MEMBERS = tuple(NETWORKS)[1:]
PROFILES = ("full", "demo")
PAPER, RECOMMENDED = RECIPES = ("paper", "recommended")
# How options of other commands are given.
EXAMPLES = {"prepare_options": "{'spacing':'median'}", "train_options": "{'max_epochs':300}"}
# What the method itself sets of the commands that take further options, and what to do instead.
_WORK_DIR = "leave it out, since the steps look in the work folder (-o of petct train, --work_dir) for what others have made"
SET_BY_METHOD = {
    "prepare_options": {
        "studies": "give --studies itself, so that a change of them is seen",
        "dataset_dir": _WORK_DIR,
        "folds": "give --folds itself, so that the networks are trained with them",
        "exclude": "give --exclude itself, so that a change of its file is seen",
    },
    "train_options": {
        **dict.fromkeys(("dataset_dir", "ckpt_dir", "output_dir"), _WORK_DIR),
        "fold": "give --folds itself, with which each network is trained on its own studies",
        "resume": "leave it out, since a training that was interrupted goes on by itself",
    },
}
# What the paper's recipe has where another one may have its own.
OF_PAPER = {"members": MEMBERS, "folds": 0, "cross_validation": True, "stage1_weight": 0, "keep_found_above": 0}
# Of them, what the weights remember of how the ensemble answers, where it is not 0.
OF_ANSWER = ("stage1_weight", "keep_found_above")


def chosen_members(members: object, known: Sequence[str]) -> list[str]:
    """Return the members that a cascade has, in the order in which they are known.

    Args:
        members: their names.
        known: names of all members of the ensemble.

    Raises:
        InputError: when none or another one is named.
    """
    named = members if isinstance(members, (list, tuple)) else []
    if not named or not all(name in known for name in named):
        raise InputError(f"members is {members!r}: name one or more of {', '.join(known)}, such as {list(known[:2])}")
    return [name for name in known if name in named]


def check_share(name: str, value: object, where: str = "") -> None:
    """See that an option of the ensemble's answer is a number from 0 to 1, or None.

    Raises:
        InputError: when it is not; the sentence says where it stands.
    """
    if value is not None and not (is_number(value) and 0 <= cast(float, value) <= 1):
        raise InputError(f"{name} is {value!r}{where}: give a number from 0 to 1")


@dataclass(frozen=True)
class Method:
    """What the whole method is run on and how.

    Attributes:
        studies: raw data set, or a CSV or JSON list of studies, as `prepare` reads it.
        work_dir: folder for all that is made: `prepared`, `models/<bundle>`, `logs/<bundle>` (TensorBoard), `results`, `steps`.
        bundles_dir: folder in which the five bundles lie side by side.
        profile: "full" for the paper's configs, "demo" for a size that two CPU cores train in minutes.
        num_gpus: number of GPUs; with more than one, the networks are trained under torchrun.
        folds: number of folds of which each is held out from one training of stage 1. Stage 2 then learns from coarse masks of
            networks that had not seen the study, and stage 1 of the cascade is the mean of its folds. 0 for the paper's one split,
            None for the recipe's number.
        cross_validation: with folds, whether stage 2 is trained once a fold, too, so that Table 1 covers every study; otherwise it
            is trained once, and Table 1 covers the studies of fold 0. None for what the recipe does.
        parallel_trainings: number of trainings that run side by side where none needs another; they share the GPUs, or without
            GPUs the cores.
        recipe: "paper", or "recommended" for the configs `recommended.json` of the bundles over those of the paper.
        members: the networks of stage 2 that are trained and make the ensemble; None for the recipe's.
        stage1_weight: stage 1's share of the ensemble's answer, from 0 to 1; None for the recipe's.
        keep_found_above: probability from which on a lesion of stage 1 that the answer would lose stays; None for the recipe's.
        max_epochs: epochs of each training, but for those whose own `train_options` say another number; None for the profile's.
        exclude: the studies that are left out; a file, or their names, as `petct_cascade.exclusions.read_exclusions` takes them.
        prepare_options: further ids and values for `prepare`, for example {"spacing": "median"}.
        train_options: further ids and values for each training, for example {"max_epochs": 200}. Under the name of a network's
            bundle are those of its training alone: {"max_epochs": 300, "autopet_stage2_unet": {"max_epochs": 100}}.
    """

    studies: Path
    work_dir: Path
    bundles_dir: Path
    profile: str = "full"
    num_gpus: int = 0
    folds: int | None = None
    cross_validation: bool | None = None
    parallel_trainings: int = 1
    recipe: str = PAPER
    members: Sequence[str] | None = None
    stage1_weight: float | None = None
    keep_found_above: float | None = None
    max_epochs: int | None = None
    exclude: Path | Sequence[str] | None = None
    prepare_options: Mapping[str, Any] = field(default_factory=dict)
    train_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cross_validation is not None:
            # The command line gives "true" and "false" as texts.
            object.__setattr__(self, "cross_validation", boolean("cross_validation", self.cross_validation))

    def check(self) -> None:
        """Look whether the options make sense, and the studies are there.

        Raises:
            InputError: when they do not, or are not.
        """
        if self.profile not in PROFILES:
            raise InputError(f"profile is {self.profile!r}: give 'full' or 'demo'")
        if self.recipe not in RECIPES:
            raise InputError(f"recipe is {self.recipe!r}: give 'paper' or 'recommended'")
        folds = 0 if self.folds is None else self.folds
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 0 or folds == 1:
            raise InputError(f"folds is {folds!r}: give 2 or more, or 0 for one split")
        for name in OF_ANSWER:
            check_share(name, getattr(self, name))
        if self.parallel_trainings < 1 or 0 < self.num_gpus < self.parallel_trainings:
            raise InputError(
                f"parallel_trainings is {self.parallel_trainings} with {self.num_gpus} GPUs: give 1 or more, and no more than GPUs"
            )
        for name, options in (("prepare_options", self.prepare_options), ("train_options", self.train_options)):
            if not isinstance(options, Mapping):
                raise InputError(f"{name} is {options!r}: give options by their names, such as {EXAMPLES[name]}")
        if self.max_epochs is not None and not (is_number(self.max_epochs, whole=True) and self.max_epochs >= 1):
            raise InputError(f"max_epochs is {self.max_epochs!r}: give 1 or more")
        if self.max_epochs is not None and "max_epochs" in self.train_options:
            raise InputError(f"max_epochs is {self.max_epochs}, and train_options holds another one: give one of the two")
        read_exclusions(self.exclude)
        if not self.studies.exists():
            raise InputError(f"{self.studies} does not exist: name the raw data set with --studies")

    @property
    def prepared(self) -> Path:
        """Folder of the prepared data set."""
        return self.work_dir / "prepared"

    @property
    def data(self) -> tuple[Path, Path]:
        """The two files that every step after `prepare` reads."""
        return self.prepared / "datalist.json", self.prepared / "fingerprint.json"

    @property
    def volumes(self) -> Path:
        """Folder of the records of the prepared volumes, which change when a volume does."""
        return self.prepared / RECORDS

    @property
    def coarse_masks(self) -> Path:
        """Folder of stage 1's masks."""
        return self.prepared / "coarse_masks"

    @property
    def results(self) -> Path:
        """Folder of Table 1, scores and report."""
        return self.work_dir / "results"

    @property
    def demo(self) -> tuple[str, ...]:
        """The config that patches the others to the demo profile, or none."""
        return ("demo",) if self.profile == "demo" else ()

    def configs_of(self, bundle: str) -> tuple[str, ...]:
        """Return the configs of a network's training, later ones patching earlier ones."""
        return ("train", *self.demo, *self.recipe_of(bundle), *(["multi_gpu_train"] if self.gpus_of_training > 1 else []))

    def recipe_of(self, bundle: str) -> tuple[str, ...]:
        """Return the config that patches a bundle's training to the recipe, or none: the paper's needs none, nor does a bundle to
        which the recipe is the paper's.
        """
        return (self.recipe,) if self._recipe_file(bundle).is_file() else ()

    def _recipe_file(self, bundle: str) -> Path:
        return self.bundles_dir / bundle / f"configs/{self.recipe}.json"

    def chosen(self, option: str) -> Any:
        """Return one of the options in `OF_PAPER`: as it was given, else the recipe's, else the paper's."""
        given = getattr(self, option)
        if given is not None:
            return given
        return self._of_recipe.get(option, OF_PAPER[option])

    @functools.cached_property
    def _of_recipe(self) -> dict[str, Any]:
        """What the recipe says of the ensemble; nothing where it is the paper's."""
        file = self._recipe_file(ENSEMBLE)
        return read_json(file) if file.is_file() else {}

    @property
    def trained_members(self) -> list[str]:
        """The members that are trained.

        Raises:
            InputError: as `chosen_members`.
        """
        return chosen_members(self.chosen("members"), MEMBERS)

    @property
    def networks(self) -> dict[str, str]:
        """The bundle of stage 1, and of each member that is trained, by its name in the cascade."""
        return {name: NETWORKS[name] for name in ("stage1", *self.trained_members)}

    @property
    def stage2(self) -> list[str]:
        """The bundles of the members that are trained."""
        return [bundle for bundle in self.networks.values() if bundle != STAGE1]

    def options_of(self, bundle: str) -> dict[str, Any]:
        """Return the further options of a network's training."""
        epochs = {} if self.max_epochs is None else {"max_epochs": self.max_epochs}
        return {**epochs, **options_of_network(self.train_options, bundle)}

    @property
    def gpus_of_training(self) -> int:
        """Number of GPUs of each training."""
        return self.num_gpus // self.parallel_trainings

    def folds_of(self, bundle: str) -> list[int | None]:
        """Return the folds that are held out from a network's trainings, one after another; [None] for a training without folds."""
        folds = self.chosen("folds")
        if not folds:
            return [None]
        return list(range(folds if bundle == STAGE1 or self.chosen("cross_validation") else 1))

    def weights(self, bundle: str, fold: int | None = None) -> tuple[Path, Path]:
        """Return the two files in which the weights of a bundle, or of one of its folds, lie."""
        folder = self.models(bundle, fold)
        return folder / "model.pt", folder / "fingerprint.json"

    def models(self, bundle: str, fold: int | None = None) -> Path:
        """Return the folder for the weights of a bundle, or of one of its folds."""
        return self.work_dir / "models" / bundle / self._folder_of(bundle, fold)

    def logs(self, bundle: str, fold: int | None = None) -> Path:
        """Return the folder of a training's curves, and of what it prints when it runs beside others."""
        return self.work_dir / "logs" / bundle / self._folder_of(bundle, fold)

    def _folder_of(self, bundle: str, fold: int | None) -> str:
        return f"fold_{fold}" if len(self.folds_of(bundle)) > 1 and fold is not None else ""


@dataclass(frozen=True)
class Step:
    """One command of the method.

    Attributes:
        name: what the step is called when it is announced, and the name of its record.
        home: folder of all that the method makes. What lies in it is known by its content, so that the folder may be moved or
            copied.
        bundle: folder of the bundle in which the command runs.
        run_id: id that `monai.bundle run` evaluates.
        configs: config files, named from the bundle's `configs` and without suffix, later ones patching earlier ones.
        overrides: ids and their values on the command line; a `Path` is written relative to the bundle's folder.
        inputs: files and folders from which the result is made.
        outputs: files and folders that the step makes.
        last: file of a training's state, with which `--resume true` goes on.
        processes: number of processes; more than one runs under torchrun.
        log: file of what the command prints when it runs beside others.
        fold: of masks that lie in a folder with those of other folds, only those that weights of this fold have made are outputs.
        problems: file that names the studies that the step could not use.
    """

    name: str
    home: Path
    bundle: Path
    run_id: str
    configs: tuple[str, ...]
    overrides: Mapping[str, Any]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    last: Path | None = None
    processes: int = 1
    log: Path | None = None
    fold: int | None = None
    problems: Path | None = None

    @property
    def files(self) -> list[str]:
        """The config files, relative to the bundle's folder."""
        return [f"configs/{config}.json" for config in self.configs]

    def arguments(self, resume: bool = False) -> list[str]:
        """Return what follows `python` on the command line."""
        overrides = {**self.overrides, **({"resume": True} if resume else {})}
        values = {
            name: relative_path(value, self.bundle) if isinstance(value, Path) else value for name, value in overrides.items()
        }
        return bundle_command(self.run_id, self.files, values, self.processes)

    def state(self) -> dict[str, Any]:
        """Return what the result depends on: the command wherever its files lie, the content of its configs, and its inputs."""
        values = {name: self._place(value) if isinstance(value, Path) else value for name, value in self.overrides.items()}
        return {
            "command": [self.run_id, self.processes, json.loads(json.dumps(values, default=str))],
            "configs": {name: digest_of(self.bundle / name) for name in self.files},
            "inputs": [self._listing(path) for path in self.inputs],
        }

    def result(self) -> list[list[list[Any]]]:
        """Return name and content of every file that the step has made."""
        if self.fold is None:
            return [self._listing(path) for path in self.outputs]
        return [[entry for entry in self._listing(path) if _fold_of(path, entry[0]) == self.fold] for path in self.outputs]

    def _place(self, path: Path) -> str:
        """Return where a path lies in the home, or which input it is."""
        return path_from(path, self.home) if path.is_relative_to(self.home) else f"input {self.inputs.index(path)}"

    def _listing(self, path: Path) -> list[list[Any]]:
        """Return the name of a file, or the place of every file in a folder or of a list, and its digest; outside of the home, its
        size and time. Of an input around the home what lies in the home is left out.

        Of a folder of records those digests are returned that they hold of studies. Elsewhere records are left out: they hold
        clocks, too.
        """
        if path.name == RECORDS:
            # Those of no study begin with a dot, and are of lists that say where the raw studies lie.
            return [[file.name, _written(file)] for file in sorted(path.glob("[!.]*.json"))]
        home = self.home.resolve()
        around = not path.resolve().is_relative_to(home) and home.is_relative_to(
            (path if path.is_dir() else path.parent).resolve()
        )
        listing: list[list[Any]] = []
        for name, file in sorted(_files_of(path)):
            made_here = file.resolve().is_relative_to(home)
            if file.is_file() and RECORDS not in Path(name).parts and not (made_here and around):
                listing.append([name, *([_content(file)] if made_here else stamp(file))])
        return listing


def _files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield a file, with what it names when it is a list of studies, or what lies in a folder, also behind links; each with
    its place.
    """
    if path.is_dir():
        yield from ((file.relative_to(path).as_posix(), file) for file in walk(path))
        return
    yield path.name, path
    # Thousands of entries may name series of one folder, which is looked through once.
    folders = set()
    for named in _named_in(path):
        source = path.parent / named
        if source.name.lower().endswith(SUFFIXES):
            yield from ((f"{named}/{file.name}", file) for file in (source, data_file_of(source)) if file is not None)
        else:
            folders.add(_folder_of_series(source, path.parent))
    for folder in folders:
        place = relative_path(folder.absolute(), path.parent.absolute()).as_posix()
        yield from ((f"{place}/{name}", file) for name, file in _files_of(folder))


def _folder_of_series(source: Path, folder: Path) -> Path:
    """Return where the files of a DICOM series lie which a list in a folder names by its own folder, by one file, or by its UID."""
    return source if source.is_dir() else source.parent if source.is_file() else folder


def _named_in(source: Path) -> set[str]:
    """Return what a list of studies names; nothing where the file is none, or broken, which whatever reads it says."""
    if source.suffix.lower() not in LISTS or not source.is_file():
        return set()
    try:
        entries = read_list(source)
    except (InputError, OSError, ValueError):
        return set()
    return {entry.texts[role] for entry in entries for role in ("ct", "pet", "label") if entry.texts.get(role)}


def _content(file: Path) -> Any:
    """Return a file's digest; of a data list what it says of the studies, since the folder of raw studies may be moved, and
    whether it leads to none.
    """
    content = read_json_or_none(file) if file.name == "datalist.json" else None
    if not isinstance(content, dict):
        return digest_of(file)
    entries = [entry for split in ("training", "validation") for entry in content.get(split, ())]
    originals = [file.parent / content["studies_dir"] / path for entry in entries for path in entry["original"].values()]
    # One that is there will do, since thousands take long to look at.
    lost = {"lost": True} if originals and not any(original.exists() for original in originals) else {}
    return {name: value for name, value in content.items() if name != "studies_dir"} | lost


def _fold_of(folder: Path, name: str) -> int | None:
    """Return the fold whose weights have made a mask, as its record says."""
    record = read_record(folder / RECORDS / f"{name.removesuffix('.nii.gz')}.json") or {}
    return ((record.get("settings") or {}).get(HELD_OUT) or {}).get("fold")


def _written(record: Path) -> dict[str, str] | None:
    """Return the digest of each file that a record says was written; None for a result that is not finished."""
    written = (read_record(record) or {}).get("written")
    return written and {output: state["sha256"] for output, state in written.items()}


def plan(method: Method) -> list[Step]:
    """Return the steps of the method in their order."""
    return [
        _prepare(method),
        *(_train(method, STAGE1, fold) for fold in method.folds_of(STAGE1)),
        *(_predict(method, fold) for fold in method.folds_of(STAGE1)),
        *(_train(method, bundle, fold, method.coarse_masks) for bundle in method.stage2 for fold in method.folds_of(bundle)),
        _assemble(method),
        _evaluate(method),
    ]


def _named(name: str, fold: int | None) -> str:
    return name if fold is None else f"{name} fold {fold}"


def _only(fold: int | None) -> dict[str, int]:
    """Return the option that names a fold; none without one."""
    return {} if fold is None else {"fold": fold}


def _prepare(method: Method) -> Step:
    folds = method.chosen("folds")
    return Step(
        name="prepare",
        home=method.work_dir,
        bundle=method.bundles_dir / ENSEMBLE,
        run_id="prepare",
        configs=("prepare",),
        overrides={
            "studies": method.studies,
            "dataset_dir": method.prepared,
            **({"folds": folds} if folds else {}),
            **({} if method.exclude is None else {"exclude": method.exclude}),
            **method.prepare_options,
        },
        inputs=(method.studies, *([method.exclude] if isinstance(method.exclude, Path) else [])),
        outputs=method.data,
        problems=method.data[0],
    )


def _train(method: Method, bundle: str, fold: int | None, *further_inputs: Path) -> Step:
    models, logs = method.models(bundle, fold), method.logs(bundle, fold)
    return Step(
        name=_named(f"train {bundle}", fold),
        home=method.work_dir,
        bundle=method.bundles_dir / bundle,
        run_id="training",
        configs=method.configs_of(bundle),
        overrides={
            "dataset_dir": method.prepared,
            "ckpt_dir": models,
            "output_dir": logs,
            **_only(fold),
            **method.options_of(bundle),
        },
        inputs=(*method.data, method.volumes, *further_inputs),
        outputs=method.weights(bundle, fold),
        last=models / LAST,
        processes=max(1, method.gpus_of_training),
        log=logs / "training.log",
    )


def _predict(method: Method, fold: int | None) -> Step:
    return Step(
        name=_named("predict the coarse masks", fold),
        home=method.work_dir,
        bundle=method.bundles_dir / STAGE1,
        run_id="inferring",
        configs=("inference", *method.demo),
        overrides={
            "dataset_dir": method.prepared,
            "ckpt_dir": method.models(STAGE1, fold),
            "output_dir": method.coarse_masks,
            **_only(fold),
        },
        inputs=(*method.data, *method.weights(STAGE1, fold)[: 1 if fold is None else 2]),
        outputs=(method.coarse_masks,),
        fold=fold,
    )


def _assemble(method: Method) -> Step:
    numbers = {name: len(method.folds_of(bundle)) for name, bundle in method.networks.items()}
    folds_of = {name: number for name, number in numbers.items() if number > 1}
    of_answer = {name: value for name in OF_ANSWER if (value := method.chosen(name))}
    return Step(
        name="assemble",
        home=method.work_dir,
        bundle=method.bundles_dir / ENSEMBLE,
        run_id="assemble",
        configs=("inference", "assemble", *method.demo),
        overrides={
            "models_dir": method.work_dir / "models",
            "ckpt_dir": method.models(ENSEMBLE),
            **({"folds_of": folds_of} if folds_of else {}),
            **({"members": method.trained_members} if method.trained_members != list(MEMBERS) else {}),
            **of_answer,
        },
        inputs=tuple(method.weights(bundle, fold)[0] for bundle in method.networks.values() for fold in method.folds_of(bundle)),
        outputs=method.weights(ENSEMBLE),
    )


def _evaluate(method: Method) -> Step:
    # Files that the preparation may read, the evaluation reads again.
    allowed = {name: value for name, value in method.prepare_options.items() if name == "allow_outside"}
    return Step(
        name="evaluate",
        home=method.work_dir,
        bundle=method.bundles_dir / ENSEMBLE,
        run_id="evaluating",
        configs=("inference", "evaluate", *method.demo),
        overrides={
            "dataset_dir": method.prepared,
            "ckpt_dir": method.models(ENSEMBLE),
            "output_dir": method.results,
            **allowed,
        },
        inputs=(*method.data, method.volumes, *method.weights(ENSEMBLE)),
        outputs=tuple(method.results / name for name in ("table1.md", "scores.csv", "readouts.json", "report.html", "masks")),
        problems=method.results / "problems.json",
    )


def options_of_network(train_options: Mapping[str, Any], bundle: str) -> dict[str, Any]:
    """Return the options of one network's training: those of all, and over them those under its bundle's name.

    Example:
        >>> options_of_network({"max_epochs": 300, "autopet_stage2_unet": {"max_epochs": 100}}, "autopet_stage2_unet")
        {'max_epochs': 100}
    """
    common = {name: value for name, value in train_options.items() if name not in NETWORKS.values()}
    return {**common, **train_options.get(bundle, {})}
