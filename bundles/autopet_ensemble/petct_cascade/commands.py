"""Commands of the ensemble, as configs and the command line call them: a wrong input ends them with a sentence and an exit code.

In a notebook call the functions of the same names in the other modules: they raise an `InputError` instead.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.engines import Evaluator

from petct_cascade import assemble as _assemble
from petct_cascade import choosing as _choosing
from petct_cascade import convert as _convert
from petct_cascade import evaluation as _evaluation
from petct_cascade import gathering as _gathering
from petct_cascade import inference as _inference
from petct_cascade import items as _items
from petct_cascade import phantom as _phantom
from petct_cascade import pipeline as _pipeline
from petct_cascade import prepare as _prepare
from petct_cascade import published as _published
from petct_cascade import readout_run as _readout_run
from petct_cascade import scoring as _scoring
from petct_cascade import selection as _selection
from petct_cascade.deidentification import Words, keep_quiet, kind_of_results, words_of
from petct_cascade.dicom.finding import dicom_options, suv_options
from petct_cascade.preparation import PrepareOptions
from petct_cascade.provenance import facts_of_run
from petct_cascade.tasks import ReadoutOptions, found_dir_of
from petct_training.commands import command
from petct_training.errors import InputError, SomeFailedError, boolean
from petct_training.masks import Masks
from petct_training.records import Records

assemble = command(_assemble.assemble)
check_patch_sizes = command(_assemble.check_patch_sizes)
check_weights = command(_assemble.check_weights)
choose_members = command(_choosing.choose_members)
weights_of_members = command(_choosing.weights_of_members)
members_in = command(_assemble.members_in)
share_of_answer = command(_assemble.share_of_answer)
with_uncertainty = command(_assemble.with_uncertainty)
source_folders = command(_assemble.source_folders)
require_weights = command(_assemble.require_weights)
write_phantoms = command(_phantom.write_phantoms)
run_pipeline = command(_pipeline.run_pipeline)
import_weights = command(_published.import_weights)
gather = command(_gathering.gather)


@command
def prepare(
    studies: str | os.PathLike, dataset_dir: str | os.PathLike, dicom: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Prepare a raw data set for training, as `petct_cascade.prepare.prepare`.

    Args:
        studies: raw data set.
        dataset_dir: prepared one.
        dicom: see `petct_cascade.dicom.finding.dicom_options`.
        options: the fields of `PrepareOptions`.
    """
    _prepare.prepare(studies, dataset_dir, PrepareOptions(**options, dicom=dicom_options(**(dicom or {}))))


@command
def convert(
    studies: str | os.PathLike,
    output_dir: str | os.PathLike,
    dicom: Mapping[str, Any] | None = None,
    strict: bool = False,
    num_workers: int = 1,
    deidentified: bool = False,
) -> None:
    """Write DICOM studies as NIfTI, as `petct_cascade.convert.convert`; see `petct_cascade.dicom.finding.dicom_options` for
    `dicom`.
    """
    with _hiding(deidentified, places=(studies, output_dir)):
        _convert.convert(studies, output_dir, dicom_options(**(dicom or {})), strict, num_workers, deidentified)


@command
def infer(
    evaluator: Evaluator,
    selection: _selection.Selection,
    output_dir: str | os.PathLike,
    options: ReadoutOptions | None = None,
    strict: bool = False,
) -> None:
    """Segment the selected studies, as `petct_cascade.inference.infer`."""
    with _hiding(options is not None and options.deidentified, places=(output_dir,)):
        _inference.infer(evaluator, selection, output_dir, options, strict)


@command
def evaluate(
    evaluator: Evaluator,
    selection: _selection.Selection,
    masks: Mapping[str, str | os.PathLike],
    output_dir: str | os.PathLike,
    fingerprint_file: str | os.PathLike,
    options: ReadoutOptions | None = None,
    seed: int = 0,
    strict: bool = False,
) -> None:
    """Evaluate the ensemble, as `petct_cascade.evaluation.evaluate`."""
    with _hiding(options is not None and options.deidentified, places=(output_dir,)):
        _evaluation.evaluate(evaluator, selection, masks, output_dir, fingerprint_file, options, seed, strict)


@command
def select_labelled(
    dataset_dir: str | os.PathLike,
    fingerprint_file: str | os.PathLike,
    output_dir: str | os.PathLike,
    folders: Sequence[str | os.PathLike | None],
    settings: Mapping[str, Any],
    weights: Sequence[str | os.PathLike],
    click_settings: Mapping[str, Any] | None = None,
    studies: str | os.PathLike | None = None,
    dicom: Mapping[str, Any] | None = None,
    deidentified: bool = False,
    **options: Any,
) -> _selection.Selection:
    """Select the studies that an evaluation has to do.

    Args:
        dataset_dir, fingerprint_file, studies: see `petct_cascade.selection.labelled_items`.
        output_dir: folder of scores and records.
        folders: of the masks, one a model, and of maps; None for none.
        settings: the options that change voxels.
        weights: the other files from which masks are made.
        click_settings: the options that change voxels of studies with points only.
        dicom: see `petct_cascade.dicom.finding.dicom_options`.
        deidentified: whether nothing may tell whose studies they are.
        options: the further fields of `petct_cascade.selection.SelectOptions`.
    """
    chosen = _selection.SelectOptions(**options, dicom=dicom_options(**(dicom or {})), deidentified=deidentified)
    records = Records(Path(output_dir), kind_of_results("evaluation", deidentified), facts_of_run(weights), not deidentified)
    masks = Masks(records, [folder for folder in folders if folder], settings, weights, {"points": click_settings or {}})
    judged = replace(chosen, check=False) if studies is None else chosen
    with _hiding(deidentified, dataset_dir, (studies, output_dir)):
        items, problems = _selection.labelled_items(dataset_dir, fingerprint_file, studies, chosen)
        return _selection.select_items(items, masks, judged, problems)


@command
def read_out_folder(
    predictions: str | os.PathLike | None,
    images: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    body: Mapping[str, Any] | None = None,
    options: ReadoutOptions | None = None,
    **further: Any,
) -> None:
    """Read out a folder of masks, as `petct_cascade.readout_run.read_out_folder`.

    Args:
        predictions: folder of masks.
        images: folder of CT and PET.
        output_dir: where the read-outs appear.
        body: weight (kg), height (m) and sex (M, F or O) of the patient of the only mask, for SUL.
        options: how studies are read out and drawn.
        further: its further arguments.

    Raises:
        InputError: when only some of the three are given, or make no sense.
    """
    said = suv_options(body or {})
    if said.given and said.body is None:
        raise InputError("SUL needs weight, height and sex: give all three, or none")
    with _hiding(options is not None and options.deidentified, places=(predictions, images, output_dir)):
        _readout_run.read_out_folder(predictions, images, output_dir, options=options, body=said.body, **further)


@command
def reference_items(
    references: str | os.PathLike | None = None,
    dataset_dir: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    allow_outside: bool = False,
    deidentified: bool = False,
) -> _items.References:
    """Return the studies against which masks are scored, as `petct_cascade.items.reference_items`; what is wrong with them tells
    nothing of their patients if `deidentified`.
    """
    with _hiding(boolean("deidentified", deidentified), references, (dataset_dir, images)):
        return _items.reference_items(references, dataset_dir, images, allow_outside)


@command
def score_folder(
    predictions: str | os.PathLike | None,
    references: _items.References,
    output_dir: str | os.PathLike,
    options: ReadoutOptions | None = None,
    **further: Any,
) -> None:
    """Score a folder of masks, as `petct_cascade.scoring.score_folder`."""
    with _hiding(options is not None and options.deidentified, predictions, (output_dir,)):
        _scoring.score_folder(predictions, references, output_dir, options=options, **further)


@command
def select_studies(
    studies: str | os.PathLike,
    ct: str | os.PathLike | None = None,
    pet: str | os.PathLike | None = None,
    case: str | None = None,
    coarse_mask: str | os.PathLike | None = None,
    points: str | os.PathLike | None = None,
    output_dir: str | os.PathLike | None = None,
    uncertainty_dir: str | os.PathLike | None = None,
    weights: Sequence[str | os.PathLike] = (),
    settings: Mapping[str, Any] | None = None,
    click_settings: Mapping[str, Any] | None = None,
    dicom: Mapping[str, Any] | None = None,
    deidentified: bool = False,
    **options: Any,
) -> _selection.Selection:
    """Select the studies that an inference has to do, as `petct_cascade.selection.select_studies`.

    Args:
        studies: folder or list of studies, used when `ct` and `pet` are not given.
        ct: one study's CT (HU, on any grid): a file, or a folder or series in DICOM.
        pet: its PET (body-weight SUV).
        case: name of this one study; see `petct_cascade.studies.study_of_places` for its name without one.
        coarse_mask: of this one study, a mask in place of stage 1's.
        points: file of clicks in this one study.
        output_dir: folder of masks, and of their records; without one, every study is selected.
        uncertainty_dir: folder of maps; when it is given, a study without a map is done again.
        weights: the other files from which masks are made.
        settings: the options that change voxels.
        click_settings: those that change voxels of studies with points only.
        dicom: see `petct_cascade.dicom.finding.dicom_options`.
        deidentified: whether nothing but the DICOM objects may tell whose studies they are.
        options: the further fields of `petct_cascade.selection.SelectOptions`.
    """
    masks = None
    if output_dir is not None:
        folders = [folder for folder in (output_dir, uncertainty_dir) if folder is not None]
        records = Records(Path(output_dir), kind_of_results("inference", deidentified), facts_of_run(weights), not deidentified)
        masks = Masks(records, folders, settings or {}, weights, {"points": click_settings or {}}, found_dir_of(output_dir))
    chosen = dicom_options(**(dicom or {}))
    given = _selection.SelectOptions(**options, dicom=chosen, deidentified=deidentified, named=case is not None)
    with _hiding(deidentified, places=(studies, ct, pet, case, coarse_mask, points, output_dir)):
        source, known = _selection.source_of(studies, ct, pet, case, chosen, coarse_mask, points)
        return _selection.select_studies(source, masks, given, known)


@contextlib.contextmanager
def _hiding(
    deidentified: bool, folder: str | os.PathLike | None = None, places: Iterable[str | os.PathLike | None] = ()
) -> Iterator[None]:
    """Leave out of the sentences that end a command, if `deidentified`, what may tell whose study it is.

    Args:
        deidentified: whether anything is left out.
        folder: whose files have names that must not be said; those of None are not known.
        places: files and folders as the user has named them, which may hold names of patients.

    Raises:
        InputError: with such a sentence.
    """
    if deidentified:
        keep_quiet()
    try:
        yield
    except SomeFailedError:
        # Its sentences are made without.
        raise
    except InputError as error:
        if not deidentified:
            raise
        raise InputError(_words_of_places(folder, places).hide(str(error))) from None
    except OSError as error:
        if not deidentified:
            raise
        said = _words_of_places(folder, places).hide(str(error.strerror or "the system refused"))
        raise InputError(f"a file or folder cannot be read or written ({said}): see that it is there") from None


def _words_of_places(folder: str | os.PathLike | None, places: Iterable[str | os.PathLike | None]) -> Words:
    """Return what must not be said of the files of a folder, and of places that the user has named."""
    files = [] if folder is None else Path(folder).rglob("*")
    named = [os.fspath(place) for place in (folder, *places) if place is not None]
    return words_of(
        (("a file", file) for file in files), [text for name in named for text in (name, str(Path(name)), Path(name).name)]
    )
