"""The command `petct`: short names for the bundles' commands. Each prints the command that it stands for, and runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from petct_cascade.children import ending_children, environment, run_child
from petct_cascade.command_line import bundle_command, shell_line
from petct_cascade.installation import ensemble_folder
from petct_cascade.method import ENSEMBLE, PAPER, PROFILES, RECIPES
from petct_cascade.version import program_version
from petct_training.commands import STOPPED, printing_every_name
from petct_training.errors import InputError, boolean
from petct_training.files import read_json

NO_WEIGHTS = (
    "no weights come with this program: train them with `petct train STUDIES -o WORK` and give --weights WORK, or convert the "
    "authors' published ones (docs/integrations.md in the repository)"
)
# MONAI warns of configs from elsewhere, and of a decoder for GPUs that it does not find: the first are our own here, the second is
# not needed.
QUIET = "ignore:parsing config_file:UserWarning,ignore:NvImgCodecPydicomReader:UserWarning"
ANYWHERE = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)
THERE = click.Path(path_type=Path, exists=True)


def bundles_folder() -> Path:
    """Return the folder of the five bundles: the clone's where this file lies in one, the installed ones otherwise."""
    return ensemble_folder().parent


def weights_folder(folder: Path | None) -> Path:
    """Return the folder with `model.pt` for what `--weights` names: that folder, or the WORK folder of `petct train`.

    Raises:
        click.ClickException: when there are no weights.
    """
    if folder is None:
        places, said = [bundles_folder() / ENSEMBLE / "models"], "--weights is missing"
    else:
        places, said = [folder, folder / "models" / ENSEMBLE], f"{folder} holds no model.pt"
    for place in places:
        if (place / "model.pt").is_file():
            return place
    raise click.ClickException(f"{said}: {NO_WEIGHTS}")


def run(run_id: str, configs: Sequence[str], overrides: Mapping[str, Any], settings: Sequence[tuple[str, str]]) -> None:
    """Print the command of the ensemble's bundle that runs an id, run it in the current folder, and end with its exit code.

    Args:
        run_id: id that is evaluated.
        configs: names of config files, later ones patching earlier ones.
        overrides: ids and their values; those that are None keep the config's.
        settings: further ids and values, as the user has written them.
    """
    bundle = bundles_folder() / ENSEMBLE
    files = [bundle / f"configs/{name}.json" for name in configs]
    given = {name: value for name, value in overrides.items() if value is not None}
    deidentified = _is_deidentified({**given, **dict(settings)})
    if deidentified:
        # MONAI's log begins with all options.
        given["logging_file"] = bundle / "configs/logging_deidentified.conf"
    arguments = bundle_command(run_id, files, {"bundle_root": bundle, **given})
    arguments += [text for name, value in settings for text in (f"--{name}", value)]
    if deidentified:
        click.echo(f"$ python -m monai.bundle run {run_id} (its options are left out: paths may name patients)")
    else:
        click.echo(f"$ {shell_line(['python', *arguments])}")
    sys.stdout.flush()
    # What the user has set comes last, which counts.
    variables = environment(PYTHONWARNINGS=",".join(filter(None, [QUIET, os.environ.get("PYTHONWARNINGS")])))
    try:
        with ending_children():
            sys.exit(run_child([sys.executable, *arguments], env=variables))
    except KeyboardInterrupt:
        click.echo("\nstopped: the same command goes on, and does only what is missing", err=True)
        sys.exit(STOPPED)


def _is_deidentified(options: Mapping[str, Any]) -> bool:
    """Return whether nothing may be said of the studies; also where a value is none, as a run refuses it in a sentence."""
    try:
        return boolean("deidentified", options.get("deidentified", False))
    except InputError:
        return True


def _settings(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[tuple[str, str]]:
    """Split each ID=VALUE of `--set`."""
    pairs = []
    for value in values:
        name, sign, text = value.partition("=")
        if not (name and sign):
            raise click.BadParameter(f"{value!r} is not ID=VALUE, such as overlap=0.25")
        pairs.append((name, text))
    return pairs


def _demo(profile: str) -> tuple[str, ...]:
    """Return the config that patches the others to the demo profile, or none."""
    return ("demo",) if profile == "demo" else ()


def _version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"petct {program_version()}")
        context.exit()


def _ids(config: str) -> set[str]:
    """Return the ids of a config of the ensemble."""
    return set(read_json(bundles_folder() / ENSEMBLE / f"configs/{config}.json"))


class SetOption(click.Option):
    """The option `--set` of a command, for the ids of a config file of the ensemble.

    Args:
        of: name of the config file.
        more: see `click.Option`.
    """

    def __init__(self, *declarations: Any, of: str = "", **more: Any) -> None:
        super().__init__(*declarations, **more)
        self.of = of

    def words(self, name: str) -> str | None:
        """Return what sets an id, of the config or of the preparation that it begins with; None where there is no such id."""
        if name in _ids(self.of):
            return f"--set {name}=VALUE"
        if "prepare_options" in _ids(self.of) and name in _ids("prepare"):
            return f'--set "prepare_options={{{name!r}:VALUE}}"'
        return None


class Command(click.Command):
    """A command that says of an id of its config, which was given as an option of its own, how it is set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; see `click.Command`.

        Raises:
            click.UsageError: when one is wrong.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.lstrip("-").replace("-", "_")
            for option in self.params:
                if isinstance(option, SetOption) and (words := option.words(name)):
                    raise click.UsageError(f"No such option {error.option_name!r}: write {words}.", ctx) from error
            raise


class Group(click.Group):
    """The commands of `petct`."""

    command_class = Command


def settings(of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option `--set` of a command, for the ids of a config file."""
    return click.option(
        "--set",
        "settings",
        cls=SetOption,
        of=of,
        metavar="ID=VALUE",
        multiple=True,
        callback=_settings,
        help=f"Set any other id of configs/{of}.json, as on MONAI's command line. May be repeated.",
    )


output = click.option("-o", "--output", type=FOLDER, required=True, help="Folder for the results; it is made.")
weights = click.option(
    "--weights", type=THERE, help="Folder with model.pt and fingerprint.json, or the WORK folder of `petct train`."
)
profile = click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="full",
    show_default=True,
    help="Size of the networks: full is the paper's, demo takes minutes on two CPU cores. Weights fit only their own profile.",
)


deidentified = click.option(
    "--deidentified",
    is_flag=True,
    default=None,
    help="Leave names, dates and numbers of patients out of everything but the DICOM objects.",
)


# What a user may say of studies in DICOM, in the order in which the help shows it.
DICOM = (
    click.option("--ct-series", metavar="NAME", help="DICOM: the CT to take, by its series' UID or description."),
    click.option("--pet-series", metavar="NAME", help="DICOM: the PET to take, by its series' UID or description."),
    click.option(
        "--weight", type=float, metavar="KG", help="The patient's weight, where the PET does not say it or is wrong, and for SUL."
    ),
    click.option("--height", type=float, metavar="M", help="The patient's height, likewise, and for SUL."),
    click.option(
        "--sex", type=click.Choice(["M", "F", "O"], case_sensitive=False), help="The patient's sex, likewise, and for SUL."
    ),
    click.option("--dose", type=float, metavar="MBQ", help="DICOM: the injected dose, likewise."),
    click.option("--half-life", type=float, metavar="S", help="DICOM: the radionuclide's half-life in seconds, likewise."),
    click.option("--injection-time", metavar="TIME", help="DICOM: HH:MM[:SS] of the injection, or date and time in ISO 8601."),
)


def dicom(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for studies in DICOM to a command."""
    for option in reversed(DICOM):
        command = option(command)
    return command


def as_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with texts as paths, whose signs have no meaning for MONAI.

    Raises:
        click.BadParameter: when one is empty, as of a variable of a shell that is not set.
    """
    for name, value in values.items():
        if value == "":
            raise click.BadParameter(f"--{name.replace('_', '-')} is empty: give a value, or leave it out")
    return {name: Path(value) if isinstance(value, str) else value for name, value in values.items()}


@click.group(
    cls=Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        # The bundles' names of options, which what they say of bad input has, are taken, too.
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit.")
def main() -> None:
    """Find tumour lesions in whole-body PET/CT.

    Research use only: not for diagnosis, treatment or any other clinical decision.

    Each command prints the `python -m monai.bundle run ...` command that it stands for, and runs it in the current folder. The exit
    code is 0 when all is done, 3 when some studies could not be used, 1 when nothing was done, 2 when `petct` does not know what
    is asked.

    \b
    Try it with synthetic studies, without a GPU, in a quarter of an hour:
      petct phantom -o raw
      petct train raw -o work --profile demo
      petct segment raw -o masks --weights work --profile demo
    """
    click.get_current_context().with_resource(printing_every_name())


@main.command()
@click.argument("studies", type=THERE, required=False)
@click.option("--ct", type=THERE, help="CT of one study: a file in Hounsfield units, or a DICOM folder; give --pet with it.")
@click.option("--pet", type=THERE, help="PET of the same study: a file in body-weight SUV, or a DICOM folder.")
@click.option("--case", help="Name of this one study; by default that of its folder and file.")
@click.option(
    "--coarse-mask", type=THERE, help="A mask of this one study in place of stage 1's: NIfTI, MetaImage, DICOM SEG or RTSTRUCT."
)
@click.option("--points", type=THERE, help="JSON file of clicks in this one study, on lesions and on what is none.")
@output
@weights
@profile
@dicom
@deidentified
@settings("inference")
def segment(
    studies: Path | None,
    ct: Path | None,
    pet: Path | None,
    case: str | None,
    coarse_mask: Path | None,
    points: Path | None,
    output: Path,
    weights: Path | None,
    profile: str,
    settings: list[tuple[str, str]],
    deidentified: bool | None,
    **of_dicom: Any,
) -> None:
    """Find the lesions of new studies.

    \b
    In:  STUDIES, a folder with DICOM or NIfTI files, or a CSV or JSON list
         of studies, or --ct and --pet of one study.
    Out: a lesion mask for each study on the grid of its PET, SUV and volume
         read-outs of each lesion, pictures, and report.html.

    \b
    Examples:
      petct segment STUDIES -o OUT --weights WORK
      petct segment --ct ct.nii.gz --pet suv.nii.gz -o OUT --weights WORK
      petct segment STUDIES -o OUT --weights WORK --set uncertainty=true
    """
    if (studies is None) == (ct is None and pet is None):
        raise click.UsageError("name what to segment: STUDIES, or one study with --ct and --pet")
    named = as_names({"case": case, **of_dicom})
    overrides = {"studies": studies, "ct": ct, "pet": pet, "coarse_mask": coarse_mask, "points": points, **named}
    overrides |= {"output_dir": output, "ckpt_dir": weights_folder(weights)}
    overrides["deidentified"] = deidentified
    run("inferring", ("inference", *_demo(profile)), overrides, settings)


@main.command()
@click.argument("studies", type=THERE)
@output
@click.option("--segments", metavar="NAME", multiple=True, help="The label's segment or region to take. May be repeated.")
@dicom
@deidentified
@settings("convert")
def convert(
    studies: Path,
    output: Path,
    segments: tuple[str, ...],
    settings: list[tuple[str, str]],
    deidentified: bool | None,
    **of_dicom: Any,
) -> None:
    """Write DICOM studies as NIfTI.

    \b
    In:  STUDIES, a folder with DICOM files of any depth.
    Out: CT in HU, PET in body-weight SUV and, if there is one, the label
         (SEG, RTSTRUCT) in the layout of the challenge; records/, which say
         which series were taken and how SUV were computed.

    \b
    Examples:
      petct convert DICOM -o NIFTI
      petct convert PATIENT -o NIFTI --weight 72.5
    """
    overrides = {"studies": studies, "output_dir": output, "segments": list(segments) or None, **as_names(of_dicom)}
    overrides["deidentified"] = deidentified
    run("convert", ("convert",), overrides, settings)


@main.command()
@click.argument("studies", type=THERE)
@output
@settings("prepare")
def prepare(studies: Path, output: Path, settings: list[tuple[str, str]]) -> None:
    """Prepare studies with labels for training.

    \b
    In:  STUDIES, a folder in the layout of the challenge or of TCIA, a folder
         with DICOM files, or a CSV or JSON list with case, ct, pet, label.
    Out: a data set for training: every study checked, split by patient,
         cropped to the body and resampled.

    \b
    Examples:
      petct prepare STUDIES -o DATA
      petct prepare STUDIES -o DATA --set validation_fraction=0.1
    """
    run("prepare", ("prepare",), {"studies": studies, "dataset_dir": output}, settings)


@main.command()
@click.argument("studies", type=THERE)
@output
@profile
@click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    default=PAPER,
    show_default=True,
    help="The paper's training, or what has proven better here: see the page Beyond the paper.",
)
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Epochs of each training, instead of the profile's.")
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="N",
    help="Train stage 1 once for each of N folds; with the paper's recipe stage 2, too.",
)
@settings("pipeline")
def train(
    studies: Path, output: Path, profile: str, recipe: str, epochs: int | None, folds: int | None, settings: list[tuple[str, str]]
) -> None:
    """Train the whole method, from raw studies to scores.

    A finished step is skipped when the command is repeated, and an interrupted training goes on where it stopped.

    \b
    In:  STUDIES, a folder in the layout of the challenge or of TCIA, a folder
         with DICOM files, or a CSV or JSON list with case, ct, pet, label.
    Out: WORK/models/autopet_ensemble, the weights for `petct segment`;
         WORK/results, scores of the validation studies and report.html.

    \b
    Examples:
      petct train STUDIES -o WORK
      petct train STUDIES -o WORK --profile demo
    """
    overrides = {"studies": studies, "work_dir": output, "profile": profile, "recipe": recipe, "folds": folds}
    overrides["max_epochs"] = epochs
    run("pipeline", ("pipeline",), overrides, settings)


@main.command()
@click.argument("data", type=THERE)
@output
@weights
@profile
@dicom
@deidentified
@settings("evaluate")
def evaluate(
    data: Path,
    output: Path,
    weights: Path | None,
    profile: str,
    settings: list[tuple[str, str]],
    deidentified: bool | None,
    **of_dicom: Any,
) -> None:
    """Score trained networks on studies that they have not seen.

    \b
    In:  DATA, which `petct prepare` has written (WORK/prepared after `petct train`),
         or a folder or list of any studies with labels.
    Out: scores of stage 1, of each network and of the ensemble on the original
         grid, the paper's Table 1, masks, read-outs, pictures, and report.html.

    \b
    Examples:
      petct evaluate DATA -o OUT --weights WORK
      petct evaluate STUDIES -o OUT --weights WORK
    """
    source = "dataset_dir" if (data / "datalist.json").is_file() else "studies"
    overrides = {source: data, **as_names(of_dicom), "output_dir": output, "ckpt_dir": weights_folder(weights)}
    overrides["deidentified"] = deidentified
    run("evaluating", ("inference", "evaluate", *_demo(profile)), overrides, settings)


@main.command()
@click.argument("masks", type=THERE)
@click.option("--references", type=THERE, required=True, help="Folder of reference masks, or of studies with labels.")
@click.option("--images", type=THERE, help="Folder of the studies' CT and PET, for read-outs and pictures.")
@output
@deidentified
@settings("score")
def score(
    masks: Path,
    references: Path,
    images: Path | None,
    output: Path,
    settings: list[tuple[str, str]],
    deidentified: bool | None,
) -> None:
    """Score masks of any origin against references.

    \b
    In:  MASKS, a folder of <case>.nii.gz, paired with the references by name.
    Out: scores.csv (Dice, false-positive and false-negative volume, lesions),
         their means, and report.html.

    \b
    Example:
      petct score MASKS --references REFERENCES -o OUT
    """
    overrides = {
        "predictions": masks,
        "references": references,
        "images": images,
        "output_dir": output,
        "deidentified": deidentified,
    }
    run("score", ("score",), overrides, settings)


@main.command()
@click.argument("masks", type=THERE)
@click.option("--images", type=THERE, required=True, help="Folder of <case>_0001 (PET) and, if there is one, <case>_0000 (CT).")
@output
@click.option("--weight", type=float, metavar="KG", help="The patient's weight; with height and sex, for SUL. One mask only.")
@click.option("--height", type=float, metavar="M", help="The patient's height.")
@click.option("--sex", type=click.Choice(["M", "F", "O"], case_sensitive=False), help="The patient's sex.")
@deidentified
@settings("score")
def readout(
    masks: Path,
    images: Path,
    output: Path,
    settings: list[tuple[str, str]],
    deidentified: bool | None,
    **of_patient: Any,
) -> None:
    """Measure the lesions of masks of any origin.

    \b
    In:  MASKS, a folder of <case>.nii.gz, paired with the images by name.
    Out: volume and total lesion glycolysis (of the mask, where SUV >= 4, and at 41 %
         of the maximum), SUVmax, SUVmean, SUVpeak of each study and lesion
         (CSV, JSON), pictures, and report.html.

    \b
    Example:
      petct readout MASKS --images IMAGES -o OUT
    """
    overrides = {"predictions": masks, "images": images, "output_dir": output, **as_names(of_patient)}
    overrides["deidentified"] = deidentified
    run("readout", ("score",), overrides, settings)


@main.command()
@click.argument("output", metavar="OUT", type=click.Path(file_okay=False, exists=True, path_type=Path))
@settings("score")
def report(output: Path, settings: list[tuple[str, str]]) -> None:
    """Write the report of what several runs have left in one folder.

    \b
    In:  OUT, the output folder of segment, evaluate, score or readout, also while runs
         are still at it.
    Out: tables and report.html of all studies that are done so far.

    \b
    Example:
      petct report OUT
    """
    run("report", ("score",), {"output_dir": output}, settings)


@main.command()
@output
@click.option(
    "--num_patients", type=click.IntRange(min=1), metavar="N", help="Number of patients, some of them with several studies."
)
@settings("phantom")
def phantom(output: Path, num_patients: int | None, settings: list[tuple[str, str]]) -> None:
    """Write synthetic studies with exactly known lesions.

    \b
    In:  nothing.
    Out: studies with labels in the layout of the challenge, and lesions.csv.

    \b
    Example:
      petct phantom -o raw --num_patients 30
    """
    run("phantom", ("phantom",), {"output_dir": output, "num_patients": num_patients}, settings)


if __name__ == "__main__":
    main()
