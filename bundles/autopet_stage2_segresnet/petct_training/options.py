"""Options of the command line: unknown names and senseless values are refused, and not taken without a word."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import monai.bundle
import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from petct_training.commands import command
from petct_training.errors import InputError, boolean, is_number
from petct_training.nested import check_nested, first_part, ids_named

NOT_NEGATIVE = (0, math.inf, "a number, 0 or more")
# What the values of options must be. A probability of 0 switches a transform off.
SWITCHES = (
    "resume",
    "strict",
    "check",
    "allow_outside",
    "keep_healthy",
    "uncertainty",
    "amp",
    "dicom_output",
    "single_file",
    "viewer",
    "deidentified",
    "keep_untouched",
    "cross_validation",
    "patch_inside",
    "balance_tracers",
    "balance_lesions",
)
# What an option of a few words may be.
CHOICES = {"dicom_segments": ("lesions", "one")}
SHARES = (
    *("threshold", "validation_fraction", "lesion_fraction", "affine_prob", "noise_prob", "smooth_prob", "intensity_prob"),
    *("low_resolution_prob", "gamma_prob", "gamma_inverted_prob", "flip_prob", "dropout_prob"),
    *("background_in_body", "background_uptake", "ct_move_prob", "healthy_fraction", "final_threshold", "stage1_weight"),
    "keep_found_above",
    *("mask_empty_prob", "mask_reference_prob", "mask_drop_prob", "mask_click_prob", "mask_border_prob", "mask_add_prob"),
)
# The least of each whole number.
COUNTS = {
    "max_epochs": 1,
    "steps_per_epoch": 1,
    "val_interval": 1,
    "batch_size": 1,
    "sw_batch_size": 1,
    "num_patients": 1,
    "shrink": 1,
    "deep_supervision_heads": 1,
    "num_workers": 0,
    "num_gpus": 0,
    "part": 1,
    "of": 1,
    "parallel_trainings": 1,
    "weight_steps": 1,
    "seed": 0,
    "fold": 0,
    "folds": 0,
    "body_margin": 0,
}
# What to give where that is more than the least.
SAID_OF_COUNTS = {"part": "a whole number from 1 to --of, since parts count from 1"}
# Other numbers: the least, the most, and what to give.
NUMBERS = {
    **dict.fromkeys(SHARES, (0, 1, "a number from 0 to 1")),
    "overlap": (0, 0.99, "a share from 0 to 0.99 of a window"),
    **dict.fromkeys(("momentum", "average_weights"), (0, 0.9999, "a number from 0 to below 1")),
    "learning_rate": (1e-12, math.inf, "a number above 0"),
    "picture_suv": (1e-12, math.inf, "an SUV above 0"),
    **dict.fromkeys(("weight_decay", "poly_power", "rotation", "translation", "noise_std", "intensity_factor"), NOT_NEGATIVE),
    **dict.fromkeys(("ct_rotation", "small_lesion_weight"), NOT_NEGATIVE),
    # Above what smooths the Dice's denominator, a loss of empty patches would fall below all bounds.
    "dice_smooth": (0, 1e-5, "a number from 0 to 1e-5"),
    "mirror_seconds": (0, math.inf, "a number of seconds, 0 or more"),
    "remove_below_ml": (0, math.inf, "a volume in ml, 0 or more"),
    **dict.fromkeys(("body_suv", "mask_add_suv", "remove_below_suv"), (0, math.inf, "an SUV, 0 or more")),
    "click_reach_mm": (0, 100, "a radius from 0 to 100 mm"),
    "click_share": (0, 1, "a share from 0 to 1 of the peak's uptake"),
}
# Two numbers, the first below or equal to the second: the least of both, and what they are.
RANGES = {
    "suv_range": (0, "the SUV shown white and the SUV shown black, such as [0,10]"),
    "scaling": (-0.99, "the least and the largest change of size as shares, such as [-0.3,0.4]"),
    "smooth_sigma": (0, "the least and the largest sigma in voxels, such as [0.5,1.0]"),
    "low_resolution_zoom": (0.01, "the least and the largest zoom, such as [0.5,1.0]"),
    "gamma": (0.01, "the least and the largest exponent, such as [0.7,1.5]"),
    "dropout_size": (1, "the least and the largest edge in voxels, such as [10,32]"),
    "mask_border_voxels": (1, "the least and the largest number of voxels, such as [1,3]"),
    "mask_add_components": (1, "the least and the largest number of regions, such as [1,3]"),
    "dropout_holes": (1, "the least and the largest number of holes, such as [3,5]"),
}
# Three numbers, along x, y, z: the least of each, whether they are whole, and what they are.
TRIPLES = {
    "patch_size": (1, True, "three whole numbers of voxels, such as [96,96,96]"),
    "ct_shift": (0, False, "the most voxels along x, y, z, such as [2,2,0]"),
}
# Options of trainings and of the ensemble that go beyond the paper, and the value of each with which it is off.
BEYOND_THE_PAPER: dict[str, Any] = {
    **{"background_in_body": 0, "background_uptake": 0, "patch_inside": False},
    **{"ct_move_prob": 0, "ct_shift": [2, 2, 0], "ct_rotation": 0.087, "average_weights": 0},
    **{"dice_smooth": 1e-5, "small_lesion_weight": 0},
    **{"healthy_fraction": None, "balance_tracers": False, "balance_lesions": False},
    **dict.fromkeys(("mask_empty_prob", "mask_reference_prob", "mask_drop_prob", "mask_click_prob"), 0),
    **{"mask_border_prob": 0, "mask_add_prob": 0},
    **{"mirror": [], "mirror_seconds": None, "member_weights": None, "stage1_weight": None, "final_threshold": None},
    "keep_found_above": None,
    **{"remove_below_ml": 0, "remove_below_suv": 0},
    **{"mask_border_voxels": [1, 3], "mask_add_components": [1, 3], "mask_add_suv": 2.5},
}
# The networks of the ensemble, of which each has a window.
NETWORKS = ("DynUNet", "SegResNet", "SwinUNETR", "UNet")
# What a value begins with that is an expression, or names another id or file, and is not checked.
EXPRESSIONS = ("$", "@", "%")
# Options of `monai.bundle run` itself.
OF_MONAI = tuple(inspect.signature(monai.bundle.run).parameters)
# Names that may look like something else.
NAMES = ("case", "ct_series", "pet_series", "sex", "injection_time")
# Files and folders whose names do not end with `_file` or `_dir`.
PATHS = (
    *("studies", "ct", "pet", "coarse_mask", "points", "datalist", "predictions", "references", "images"),
    *("dynunet", "segresnet", "swinunetr", "unet"),
)


@command
def check_options(renamed: Mapping[str, str] | None = None) -> None:
    """Refuse options of this process that neither `monai.bundle run` nor its configs know, that only another run of the configs
    reads, and values that make no sense.

    MONAI takes an unknown option for a new id of the config, which nothing reads. Where this process is no `monai.bundle run`,
    such as in a notebook or a server, there is nothing to check.

    Args:
        renamed: former names of options, and what to say instead: the present name, or a sentence.

    Raises:
        SystemExit: with a sentence that names the option and the nearest known one.
    """
    given = options_of(sys.argv)
    if given is not None:
        files = _config_files(given)
        check_names(given, files, renamed or {})
        nested = {name: DefaultParseValue(text) for name, text in given.items() if name not in OF_MONAI}
        check_nested(nested, ConfigParser.load_config_files(files), "--{} is not known")
        check_taken(given, files, run_id_of(sys.argv, given))
        check_values(given)


def options_on(**values: Any) -> dict[str, Any]:
    """Return those options that go beyond the paper and are on.

    Example:
        >>> options_on(background_in_body=0, background_uptake=0.5, patch_inside="false")
        {'background_uptake': 0.5}
    """
    given = {name: boolean(name, value) if name in SWITCHES else value for name, value in values.items()}
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    return {name: value for name, value in given.items() if value != BEYOND_THE_PAPER[name]}


def options_of(arguments: Sequence[str]) -> dict[str, str] | None:
    """Return the options after `monai.bundle run` in a process's arguments, each with its value; None when it is another program.

    Example:
        >>> options_of(["monai/bundle/__main__.py", "run", "training", "--config_file", "configs/train.json", "--seed=1"])
        {'config_file': 'configs/train.json', 'seed': '1'}
    """
    if not arguments or not re.search(r"monai[/\\]bundle[/\\]__main__\.py$", arguments[0]) or arguments[1:2] != ["run"]:
        return None
    options = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if match := re.fullmatch(r"--?(\+?[A-Za-z_][^=]*)(?:=(.*))?", word, flags=re.DOTALL):
            options[match.group(1)] = following if match.group(2) is None else match.group(2)
    return options


def check_names(given: Mapping[str, str], config_files: Sequence[str], renamed: Mapping[str, str]) -> None:
    """Refuse the first option whose name is unknown.

    Args:
        given: options by their names, as on the command line.
        config_files: the configs whose ids are known.
        renamed: see `check_options`.

    Raises:
        InputError: with a sentence that names the option and the nearest known one, or else where all of them are.
    """
    known = {*OF_MONAI} - {"override"}
    for file in config_files:
        known |= {first_part(name) for name in ConfigParser.load_config_file(file)}
    known |= _ids_of_tracking(given.get("tracking"))
    for name in given:
        first = first_part(name)
        if first in renamed:
            new = renamed[first]
            raise InputError(f"--{name} is not known any more: " + (f"give --{new}" if new.isidentifier() else new))
        if first not in known:
            nearest = difflib.get_close_matches(first, known, n=1)
            advice = f"did you mean --{nearest[0]}?" if nearest else f"options are the ids of {config_files[0]}"
            raise InputError(f"--{name} is not known: {advice}")


def run_id_of(arguments: Sequence[str], given: Mapping[str, str]) -> str:
    """Return the id that `monai.bundle run` runs, from a process's arguments and their options.

    Example:
        >>> run_id_of(["monai/bundle/__main__.py", "run", "training", "--seed", "1"], {"seed": "1"})
        'training'
    """
    first = arguments[2] if len(arguments) > 2 and not arguments[2].startswith("-") else "run"
    return given.get("run_id", first)


def check_taken(given: Mapping[str, str], config_files: Sequence[str], run_id: str) -> None:
    """Refuse the first option that another run of the configs reads, and this one does not.

    What a run reads follows from the configs: its id and those that prepare and end it name other ids, which name others.

    Args:
        given: options by their names, as on the command line.
        config_files: later ones patch earlier ones.
        run_id: the id that is run.

    Raises:
        InputError: with a sentence that names those whose option it is, if there are.
    """
    named = _ids_named(config_files, given)
    ends = (given.get("init_id", "initialize"), given.get("final_id", "finalize"))
    taken = _reached([run_id, *ends], named)
    known = {name for ids in named.values() for name in ids}
    runs = [name for name in named if name not in known and name not in ends]
    for name in given:
        first = first_part(name)
        others = [run for run in runs if first != run and first in _reached([run], named)]
        if first not in taken and others:
            # What a later config leaves without a use is no run.
            used = {each for file in config_files for ids in _ids_named([file], {}).values() for each in ids}
            owners = [run for run in others if run not in used]
            what_to_do = f"it is an option of {', '.join(owners)}" if owners else "leave it out"
            raise InputError(f"{run_id} takes no --{name}, which would change nothing: {what_to_do}")


def _ids_named(config_files: Sequence[str], given: Mapping[str, str]) -> dict[str, set[str]]:
    """Return which top-level ids each top-level id of configs, as options change it, names."""
    named: dict[str, set[str]] = {}
    changes = [change for file in config_files for change in ConfigParser.load_config_file(file).items()]
    for name, value in [*changes, *given.items()]:
        first = first_part(name)
        ids = ids_named(value)
        named[first] = ids if first == name else named.get(first, set()) | ids
    return named


def _reached(ids: Iterable[str], named: Mapping[str, set[str]]) -> set[str]:
    """Return ids with all that they name, that these name, and so on."""
    reached: set[str] = set()
    waiting = set(ids)
    while waiting:
        reached |= waiting
        waiting = set().union(*(named.get(name, set()) for name in waiting)) - reached
    return reached


def check_values(given: Mapping[str, str]) -> None:
    """Refuse the first option whose value makes no sense.

    Args:
        given: options by their names, as on the command line. A value that begins with `$` or `@` is an expression, and not
            checked.

    Raises:
        InputError: with a sentence that says what to give.
    """
    for name, text in given.items():
        if text.startswith(EXPRESSIONS) or text == "None":
            continue
        check_value(name, DefaultParseValue(text), f"--{name} is {text}")
        _check_words(name, text)


def check_value(name: str, value: Any, said: str) -> None:
    """Refuse a value of an option that makes no sense.

    Args:
        name: of the option.
        value: as a config or a notebook has it.
        said: how the sentence begins: which option is what.

    Raises:
        InputError: with a sentence that says what to give.
    """
    if name in SWITCHES:
        boolean(name, value)
    elif name in CHOICES:
        if value not in CHOICES[name]:
            raise InputError(f"{said}: give {' or '.join(CHOICES[name])}")
    elif name in COUNTS:
        least = COUNTS[name]
        what = SAID_OF_COUNTS.get(name, f"a whole number, {least} or more")
        _check_number(value, said, least, math.inf, what, whole=True)
    elif name in NUMBERS:
        _check_number(value, said, *NUMBERS[name])
    elif name in RANGES:
        _check_range(value, said, *RANGES[name])
    elif name in TRIPLES:
        _check_triple(value, said, *TRIPLES[name])
    elif name in OTHERS:
        OTHERS[name](value, said)


def _check_device(value: Any, said: str) -> None:
    """Refuse a device that PyTorch does not know, or that this machine lacks."""
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{said}, which PyTorch does not know: give cpu, cuda or mps") from error
    number = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type)
    if number is not None and (device.index or 0) >= number:
        raise InputError(f"{said}, and PyTorch finds {number} devices of this kind here: give cpu, or one that is there")


def _check_axes(value: Any, said: str) -> None:
    axes = value if isinstance(value, (list, tuple)) and all(is_number(axis, whole=True) for axis in value) else None
    if axes is None or len(set(axes)) != len(axes) or not {*axes} <= {0, 1, 2}:
        raise InputError(f"{said}: give axes among 0, 1 and 2, such as [0,1]")


def _check_patch_sizes(value: Any, said: str) -> None:
    if not isinstance(value, Mapping) or {*value} != {*NETWORKS}:
        raise InputError(f"{said}: give a size for each of {', '.join(NETWORKS)}, such as {{'DynUNet': [96,96,96], ...}}")
    for size in value.values():
        _check_triple(size, said, *TRIPLES["patch_size"])


def is_path(name: str) -> bool:
    """Whether the value of an option is a file or folder, by its name."""
    return name in PATHS or (name.endswith(("_dir", "_file")) and name not in (*OF_MONAI, *SWITCHES))


def _check_words(name: str, text: str) -> None:
    """Refuse a path or name that arrives as another value."""
    if is_path(name):
        _check_text(name, text, f"--{name} ./{text}")
    elif name in NAMES:
        _check_text(name, text, f'--{name} "{text!r}"')


def _check_number(value: Any, said: str, low: float, high: float, what: str, whole: bool = False) -> None:
    if not is_number(value, whole) or not low <= value <= high:
        raise InputError(f"{said}: give {what}")


def _check_range(value: Any, said: str, low: float, what: str) -> None:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(map(is_number, value))
        or not low <= value[0] <= value[1]
    ):
        raise InputError(f"{said}: give {what}")


def _check_triple(value: Any, said: str, low: float, whole: bool, what: str) -> None:
    fits = isinstance(value, (list, tuple)) and len(value) == 3 and all(is_number(size, whole) and size >= low for size in value)
    if not fits:
        raise InputError(f"{said}: give {what}")


def _check_text(name: str, text: str, instead: str) -> None:
    """Refuse a path or name that python-fire takes for another value, such as a number, or that MONAI changes.

    Args:
        name: of the option.
        text: its value.
        instead: what to write so that it stays as it is.
    """
    value = DefaultParseValue(text)
    if "#" in text:
        raise InputError(f"--{name} is {text}, and MONAI changes the sign # in it: use the command petct, or a name without it")
    # A word in quotes is read as the text between them.
    if not isinstance(value, str):
        raise InputError(f"--{name} is {text}, which is read as {value!r}: write {instead}")


def _ids_of_tracking(tracking: str | None) -> set[str]:
    """Return the ids that MONAI adds to a config for what an option `--tracking` names: a way it knows, or a file of settings."""
    if tracking is None:
        return set()
    settings: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) or ConfigParser.load_config_files(tracking)
    return set(settings["configs"])


# Options of which each is checked in a way of its own.
OTHERS: dict[str, Callable[[Any, str], None]] = {
    "device": _check_device,
    "mirror": _check_axes,
    "patch_sizes": _check_patch_sizes,
}


def _config_files(given: Mapping[str, str]) -> list[str]:
    """Return the config files that an option `--config_file` names: one, or a list as Python writes it."""
    value = given.get("config_file", "")
    try:
        files = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        files = value
    return [files] if isinstance(files, str) else [str(file) for file in files]
