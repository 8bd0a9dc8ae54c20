"""A case of the autoPET challenges, as their platform runs a container: images in one folder, a mask in another.

    python -m petct_cascade.challenge_container --edition 4 --input INPUT --output OUTPUT --weights WEIGHTS

Whatever is wrong with a case, a mask is written: an empty one where the segmentation fails, takes too long or dies. So it runs in a
process of its own, which this one watches. What is wrong with the container itself, such as missing weights, ends it with exit
code 1: nobody shall take an image that cannot work for one that finds no lesions.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from petct_cascade.clicks import Clicks, read_points
from petct_cascade.installation import ensemble_folder
from petct_cascade.metaimage import Place, read_place, write_metaimage
from petct_cascade.method import PROFILES
from petct_cascade.problems import Problem
from petct_training.commands import command
from petct_training.errors import InputError
from petct_training.files import make_folder, remove_unfinished, write_json

if TYPE_CHECKING:
    from petct_cascade.predict import Predictor
    from petct_cascade.volumes import Volume

# Where the platform puts weights that are uploaded beside an image, and where container/Dockerfile puts those in it.
WEIGHTS_OF_PLATFORM, WEIGHTS_OF_IMAGE = Path("/opt/ml/model"), Path("/opt/petct/weights")

# Seconds of a call that are not the segmentation's: the container starts before, and an empty mask may be written after.
RESERVE = 20

# A mask of one byte a voxel, on the word of a header whose voxels may be damaged, takes no more than a GiB of memory.
MOST_VOXELS = 1 << 30


ANYWHERE = click.Path(path_type=Path)


class SetUpError(InputError):
    """The container cannot segment any case."""


@dataclass(frozen=True)
class Edition:
    """What a challenge asks of a container.

    Attributes:
        mask_folder: folder of the mask, in the output folder.
        time_limit: seconds that the platform grants a call.
        clicks: whether there may be a file of clicks.
        tells_category: whether the container says if it is a "data-centric model", which is the challenge's own network.
    """

    mask_folder: str
    time_limit: int
    clicks: bool = False
    tells_category: bool = False


EDITIONS: Mapping[str, Edition] = {
    "3": Edition("images/automated-petct-lesion-segmentation", 5 * 60, tells_category=True),
    "4": Edition("images/tumor-lesion-segmentation", 15 * 60, clicks=True),
    "5": Edition("images/tumor-lesion-segmentation", 20 * 60, clicks=True),
}


@dataclass(frozen=True)
class Case:
    """The files of a case, as many as there are.

    Attributes:
        ct: MetaImages in the CT's folder, sorted.
        pet: the same of the PET.
        clicks: file of clicks; None when there is none.
    """

    ct: list[Path]
    pet: list[Path]
    clicks: Path | None = None

    @property
    def name(self) -> str:
        """The CT's name without its suffix, after which the mask is called; the PET's when there is no CT."""
        return [*self.ct, *self.pet][0].stem

    @property
    def problem(self) -> str | None:
        """What is wrong with the number of files, in a sentence; None when there is one CT and one PET."""
        for role, files in (("ct", self.ct), ("pet", self.pet)):
            if len(files) != 1:
                names = ", ".join(file.name for file in files) or "none"
                return f"images/{role} holds {len(files)} MetaImages ({names}): give one"
        return None

    def place(self) -> Place:
        """Return where the mask lies: as the CT, by its header. Where that cannot be read, the PET's is the next best.

        Raises:
            InputError: when no header can be read.
        """
        reason = ""
        for file in (*self.ct, *self.pet):
            try:
                place = read_place(file)
            except InputError as error:
                reason = f"{file.name} {error}"
                continue
            if np.prod(place.shape, dtype=float) <= MOST_VOXELS:
                return place
            reason = f"{file.name} has the size {place.shape}, which no PET/CT has"
        raise InputError(f"neither CT nor PET says where a mask would lie ({reason}): give a MetaImage of each")


@dataclass(frozen=True)
class Model:
    """The networks that segment.

    Attributes:
        weights: folder with model.pt and fingerprint.json.
        profile: "full" or "demo", as they were trained.
    """

    weights: Path
    profile: str


def find_case(input_dir: Path, edition: Edition) -> Case:
    """Find the files of the case in the input folder.

    Raises:
        InputError: when there is no image at all.
    """
    ct, pet = (sorted(input_dir.glob(f"images/{role}/[!.]*.mha")) for role in ("ct", "pet"))
    if not ct and not pet:
        raise InputError(f"{input_dir} holds neither images/ct/*.mha nor images/pet/*.mha: mount the folder of a case there")
    clicks = input_dir / "lesion-clicks.json"
    return Case(ct, pet, clicks if edition.clicks and clicks.is_file() else None)


def find_weights(folder: Path | None) -> Path:
    """Return the folder with the weights: the given one, or the first in which there are some.

    Raises:
        SetUpError: when there are none.
    """
    places = [WEIGHTS_OF_PLATFORM, WEIGHTS_OF_IMAGE, ensemble_folder() / "models"] if folder is None else [folder]
    for place in places:
        if (place / "model.pt").is_file():
            return place
    raise SetUpError(f"{' and '.join(map(str, places))} hold no model.pt: put model.pt and fingerprint.json there")


def write_mask(case: Case, mask_file: Path, model: Model, time_limit: float) -> str | None:
    """Write the mask of a case, on the CT's grid; an empty one where the segmentation fails.

    Args:
        case: its files.
        mask_file: MetaImage to write; its folder is made.
        model: what segments.
        time_limit: seconds after which the segmentation is given up.

    Returns:
        Why the mask is empty because the segmentation failed, in a sentence; None when it did not.

    Raises:
        SetUpError: when the weights cannot be used.
        InputError: when no file says where a mask would lie, or the mask cannot be written.
    """
    place = case.place()
    make_folder(mask_file.parent)
    failure = case.problem or _segment_in_a_process(case, mask_file, model, time_limit)
    if failure is not None:
        remove_unfinished(mask_file.parent)
        write_metaimage(mask_file, np.zeros(place.shape, np.uint8), place)
    return failure


def segment_case(case: Case, mask_file: Path, model: Model) -> None:
    """Segment a case and write its mask, on the CT's grid.

    Raises:
        SetUpError: when the networks cannot be loaded.
        InputError: when the case cannot be used.
    """
    predictor = _load(model)
    from petct_cascade.judging import read_study
    from petct_cascade.resampling import mask_on_grid
    from petct_cascade.studies import Study

    problems, volumes = read_study(Study(case.name, case.name, "unknown", case.ct[0], case.pet[0]))
    for problem in problems:
        if problem.error:
            raise InputError(_sentence(problem))
        _warn(_sentence(problem))
    ct, pet = volumes["ct"], volumes["pet"]
    clicks = _clicks_of(case, pet)
    mask = predictor.open_volumes(ct, pet).segment(points=clicks)
    write_metaimage(mask_file, mask_on_grid(mask, pet.affine, ct.array.shape, ct.affine), case.place())
    print(f"{mask_file.name}: {np.count_nonzero(mask)} of {mask.size} voxels of the PET, on {predictor.device}", flush=True)


def _load(model: Model) -> Predictor:
    """Load the networks, and PyTorch with them, for which the process that watches this one need not wait.

    Raises:
        SetUpError: when that fails, whatever the reason, since it has nothing to do with the case.
    """
    try:
        from petct_cascade.predict import load_cascade

        return load_cascade(model.weights, model.profile)
    except InputError as error:
        raise SetUpError(str(error)) from error
    except Exception as error:
        traceback.print_exc()
        raise SetUpError(f"the networks cannot be loaded ({type(error).__name__}: {error}): see the image's packages") from error


def _segment_in_a_process(case: Case, mask_file: Path, model: Model, time_limit: float) -> str | None:
    """Run `segment_case` in a process that may die or hang.

    Returns:
        Why it failed, or None.

    Raises:
        SetUpError: as `segment_case`.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, case, mask_file, model), daemon=True)
    process.start()
    # The process alone holds this end now, so that its death is noticed at the other.
    sender.close()
    try:
        if not receiver.poll(time_limit):
            return f"the segmentation took more than {time_limit:.0f} s and was given up"
        answer = receiver.recv()
    except EOFError:
        process.join()
        return f"the segmentation was ended from outside (exit code {process.exitcode}), as happens when memory is short"
    finally:
        process.kill()
        process.join()
    if isinstance(answer, SetUpError):
        raise answer
    return None if answer is None else str(answer)


def _answer(sender: Connection, case: Case, mask_file: Path, model: Model) -> None:
    """Segment a case, and send what went wrong as an exception, or None."""
    try:
        segment_case(case, mask_file, model)
        sender.send(None)
    except InputError as error:
        sender.send(error)
    except Exception as error:
        traceback.print_exc()
        sender.send(RuntimeError(f"the segmentation failed ({type(error).__name__}: {error})"))


def _sentence(problem: Problem) -> str:
    """Return what is wrong, with the folder of the file: CT and PET may have one name."""
    return problem.sentence if problem.file is None else f"{problem.file.parent.name}/{problem.sentence}"


def _clicks_of(case: Case, pet: Volume) -> Clicks | None:
    """Return the clicks of a case; None when there are none, or they are broken, which is said."""
    if case.clicks is None:
        return None
    try:
        clicks = read_points(case.clicks, pet.array.shape, pet.affine)
    except InputError as error:
        _warn(f"{case.clicks.name} {error}; it is ignored")
        return None
    print(f"{case.clicks.name}: {clicks}", flush=True)
    return clicks


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


# An option whose help names its variable in the environment.
_option = partial(click.option, show_envvar=True)


@click.command(context_settings={"auto_envvar_prefix": "PETCT", "show_default": True, "max_content_width": 100})
@_option("--edition", type=click.Choice(list(EDITIONS)), default="3", help="Of autoPET, whose folders are used.")
@_option("--input", type=ANYWHERE, default="/input", help="Folder of the case. Nothing is written there.")
@_option("--output", type=ANYWHERE, default="/output", help="Folder for the mask.")
@_option("--weights", type=ANYWHERE, help=f"Folder with model.pt. [default: {WEIGHTS_OF_PLATFORM}, or {WEIGHTS_OF_IMAGE}]")
@_option("--profile", type=click.Choice(PROFILES), default="full", help="Size of the networks, as the weights are.")
@_option("--time-limit", type=click.IntRange(min=RESERVE + 1), help="Seconds of a call. [default: those of the edition]")
def main(edition: str, input: Path, output: Path, weights: Path | None, profile: str, time_limit: int | None) -> None:
    """Segment a case of an autoPET challenge. Research use only.

    \b
    In:  INPUT/images/ct/*.mha and INPUT/images/pet/*.mha, one each; for
         editions 4 and 5 perhaps INPUT/lesion-clicks.json, by which the
         mask is corrected.
    Out: a mask of 0 and 1 on the CT's grid, in the folder of the edition.

    Where a case fails, the mask is empty, a sentence on stderr says why, and the exit code is 0. It is 1 where there is no image at
    all, no weights that fit, or no place to write. Each option may be set in the environment.
    """
    run(EDITIONS[edition], input, output, weights, profile, time_limit)


@command
def run(edition: Edition, input_dir: Path, output_dir: Path, weights: Path | None, profile: str, time_limit: int | None) -> None:
    """Write what the edition wants into the output folder, and print what was wrong with the case.

    Args:
        edition: of the challenge.
        input_dir: folder of the case.
        output_dir: folder for the mask.
        weights: see `find_weights`.
        profile: as the networks were trained.
        time_limit: seconds of the call; None for the edition's.
    """
    started = time.monotonic()
    model = Model(find_weights(weights), profile)
    case = find_case(input_dir, edition)
    mask_file = output_dir / edition.mask_folder / f"{case.name}.mha"
    left = (time_limit or edition.time_limit) - RESERVE - (time.monotonic() - started)
    failure = write_mask(case, mask_file, model, left)
    if edition.tells_category:
        write_json(output_dir / "data-centric-model.json", False)
    if failure is not None:
        print(f"error: {failure}; {mask_file.name} is empty", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
