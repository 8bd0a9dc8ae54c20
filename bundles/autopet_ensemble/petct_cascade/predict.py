"""Predicting one study from arrays, as in a notebook: the same parts as the bundle, and the same mask."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from petct_cascade.assemble import check_patch_sizes, check_weights, require_weights
from petct_cascade.cascade import CHANNELS, Cascade, Remembered, SlidingWindow
from petct_cascade.clicks import Clicks
from petct_cascade.coarse_mask import read_named_coarse_mask
from petct_cascade.corrections import AddCorrectionsd, EncodePointsd
from petct_cascade.installation import ensemble_folder
from petct_cascade.judging import judge_volumes
from petct_cascade.volumes import Volume, check_axes, check_shape, check_spacing, geometry_warnings
from petct_training.errors import InputError
from petct_training.nested import first_part
from petct_training.options import EXPRESSIONS, check_value

CONFIGS = ensemble_folder() / "configs"

# A mask in place of stage 1's: on the PET's grid, or a file or volume on any grid.
CoarseMask = np.ndarray | torch.Tensor | Volume | str | os.PathLike

# Clicks: a JSON file, its content, or voxels.
Points = str | os.PathLike | Mapping[str, Any] | Clicks

# What each profile adds to inference.json.
PROFILES: Mapping[str, tuple[str, ...]] = {"full": (), "demo": ("demo.json",)}

# Options of the command that are arguments here, and of what.
OF_A_STUDY = {**dict.fromkeys(("ct", "pet"), "predict or open"), **dict.fromkeys(("coarse_mask", "points"), "predict or segment")}


@dataclass(frozen=True)
class Predictor:
    """The cascade with its weights, and the transforms before and after it; `load_cascade` makes one.

    Attributes:
        network: the cascade, on its device.
        preprocessing: makes normalised CT and PET of the volumes of a study.
        encode_points: the part of it that makes marks of points.
        add_corrections: the part of it that adds coarse mask and marks to CT and PET.
        postprocessing: makes the mask on the PET's grid of the cascade's probability.
        device: where the cascade computes.
    """

    network: Cascade
    preprocessing: Compose
    encode_points: EncodePointsd
    add_corrections: AddCorrectionsd
    postprocessing: Compose
    device: torch.device

    def predict(
        self,
        ct: np.ndarray,
        ct_affine: np.ndarray,
        pet: np.ndarray,
        pet_affine: np.ndarray,
        coarse_mask: CoarseMask | None = None,
        points: Points | None = None,
    ) -> np.ndarray:
        """Return the lesion mask of a study, 1 inside of lesions and 0 elsewhere, uint8 (X, Y, Z) on the PET's grid.

        The arguments are those of `open` and `OpenStudy.segment`.
        """
        return self.open(ct, ct_affine, pet, pet_affine).segment(coarse_mask, points)

    def open(self, ct: np.ndarray, ct_affine: np.ndarray, pet: np.ndarray, pet_affine: np.ndarray) -> OpenStudy:
        """Return a study that is judged and preprocessed, to be segmented in rounds.

        Args:
            ct: CT (X, Y, Z) in HU, on any grid.
            ct_affine: (4, 4), from the CT's voxel indices to world coordinates in mm, RAS as in NIfTI.
            pet: PET (X, Y, Z) in body-weight SUV.
            pet_affine: the same of the PET.

        Raises:
            InputError: the arrays cannot be a CT in HU and a PET in SUV of one study; the sentence says why. What is only
                remarkable is a Python warning.
        """
        volumes = {"ct": _volume("CT", ct, ct_affine), "pet": _volume("PET", pet, pet_affine)}
        for volume in volumes.values():
            for warning in geometry_warnings(volume.affine):
                warnings.warn(f"{volume.file.name} {warning}", stacklevel=2)
        for problem in judge_volumes("array", volumes):
            if problem.error:
                raise InputError(problem.sentence)
            warnings.warn(problem.sentence, stacklevel=2)
        return self.open_volumes(volumes["ct"], volumes["pet"])

    def open_volumes(self, ct: Volume, pet: Volume) -> OpenStudy:
        """Return a study as `open` does, of a CT in HU and a PET in body-weight SUV that have been judged."""
        return OpenStudy(self, pet, self.preprocessing({"image": [ct, pet]}))


@dataclass
class OpenStudy:
    """A study in rounds: what reading and stage 1 gave is kept, so that a further round costs stage 2 alone; on a CPU only in those
    windows whose coarse mask is not that of the last round. The answers are those of single runs, voxel by voxel.

    Attributes:
        predictor: which has opened it.
        pet: in body-weight SUV.
        item: CT and PET after the preprocessing.
        found: stage 1's probability on the network's grid (1, 1, x, y, z), once it was needed.
        remembered: of each network of stage 2 its answers to the windows of the last round; empty on a GPU, where a round takes
            little time anyway.
    """

    predictor: Predictor
    pet: Volume
    item: Mapping[Hashable, Any]
    found: torch.Tensor | None = None
    remembered: dict[SlidingWindow, Remembered] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.predictor.device.type == "cpu":
            windows = [module for module in self.predictor.network.members.modules() if isinstance(module, SlidingWindow)]
            self.remembered = {window: Remembered() for window in windows}

    @torch.no_grad()
    def segment(self, coarse_mask: CoarseMask | None = None, points: Points | None = None) -> np.ndarray:
        """Return the lesion mask, 1 inside of lesions and 0 elsewhere, uint8 (X, Y, Z) on the PET's grid.

        Args:
            coarse_mask: a mask in place of stage 1's, such as an earlier answer: 0 and 1 (X, Y, Z) on the PET's grid, or a file or
                volume on any grid. None for stage 1's own.
            points: clicks, as a JSON file or its content; see `petct_cascade.clicks.clicks_of`. None for none. With a coarse mask
                and `keep_untouched`, a list without a point leaves the mask as it is.

        Raises:
            InputError: when mask or points cannot be those of the study. What is only remarkable is a Python warning.
        """
        predictor, item = self.predictor, dict(self.item)
        if isinstance(coarse_mask, (np.ndarray, torch.Tensor)):
            coarse_mask = _as_array(coarse_mask)
            if coarse_mask.shape != self.pet.array.shape:
                raise InputError(
                    f"coarse mask has the shape {coarse_mask.shape} and the PET {self.pet.array.shape}: give it on the PET's grid, "
                    "axes x, y, z, or as a file"
                )
            coarse_mask = _volume("coarse mask", coarse_mask, self.pet.affine)
        if coarse_mask is not None:
            mask, sentences = read_named_coarse_mask(coarse_mask, self.pet.array.shape, self.pet.affine)
            for sentence in sentences:
                # PyTorch's decorator lies between this method and its caller.
                warnings.warn(sentence, stacklevel=3)
            item["coarse_mask"] = Volume(Path("coarse mask"), mask, self.pet.affine)
        if points is not None:
            item["points"] = torch.from_numpy(predictor.encode_points.encode(points, self.pet.array, self.pet.affine))
        item = predictor.add_corrections(item)
        image = item["image"][None].to(predictor.device)
        if coarse_mask is None and self.found is None:
            self.found = predictor.network.stage1(image[:, :CHANNELS])
        with self._remembering():
            item["pred"] = predictor.network(image, self.found)[0]
        return predictor.postprocessing(item)["pred"].as_tensor()[0].cpu().numpy()

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Let the networks of stage 2 answer from memory in a block."""
        for window, remembered in self.remembered.items():
            window.remembered = remembered
        try:
            yield
        finally:
            for window, remembered in self.remembered.items():
                window.remembered = None
                remembered.forget_others()


def load_cascade(ckpt_dir: str | os.PathLike, profile: str = "full", **options: Any) -> Predictor:
    """Return the ensemble with its weights, ready to predict.

    Args:
        ckpt_dir: folder of the ensemble's `model.pt` and `fingerprint.json`.
        profile: "full" or "demo", as the networks were trained.
        options: options of configs/inference.json by their names, such as `device="cpu"` or `overlap=0.25`; None keeps the config's
            value.

    Raises:
        InputError: a file is missing or does not fit the networks, a profile or option is unknown, an option's value makes no
            sense, or only the command uses it.
    """
    with _raising():
        given = _checked(options)
        parser = _parser(profile, {**given, "ckpt_dir": str(ckpt_dir)})
        require_weights(*map(parser.get_parsed_content, ("model_file", "fingerprint_file")))
        # Networks are made with random weights before they get their own: those must not move the random numbers of the caller.
        with torch.random.fork_rng(devices=[]):
            predictor = _parsed(parser)
        _refuse_unused(parser, given)
        check_patch_sizes(predictor.network)
        check_weights(predictor.network, parser.get_parsed_content("model_file"))
        predictor.network.to(predictor.device).eval()
    return predictor


@contextlib.contextmanager
def _raising() -> Iterator[None]:
    """Let commands that a config names raise their `InputError` in a block, instead of ending the program."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__cause__, InputError):
            raise end.__cause__ from None
        raise


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those that are None, and with numbers of NumPy as Python's.

    Raises:
        InputError: when a value makes no sense, as on the command line.
    """
    given = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    for name, value in given.items():
        if value is not None and not (isinstance(value, str) and value.startswith(EXPRESSIONS)):
            check_value(name, value, f"{name} is {value!r}")
    return {name: value for name, value in given.items() if value is not None}


def _refuse_unused(parser: ConfigParser, options: Mapping[str, Any]) -> None:
    """Refuse options that none of the parts has read which a parser has made.

    Raises:
        InputError: with the first such option, and what to do.
    """
    read = {first_part(name) for name in parser.ref_resolver.resolved_content}
    for name in options:
        if name not in read:
            instead = f"give it to {OF_A_STUDY[name]}" if name in OF_A_STUDY else "leave it out"
            raise InputError(f"{name} is an option of the command alone, which changes nothing here: {instead}")


def _parsed(parser: ConfigParser) -> Predictor:
    """Return the parts of the inference that a config describes, on the CPU and without their weights."""
    names = ("invert", "apply_threshold", "remove_faint", "pad_to_study", "bind_points")
    after = [transform for transform in map(parser.get_parsed_content, names) if transform is not None]
    return Predictor(
        parser.get_parsed_content("network_def"),
        parser.get_parsed_content("preprocessing"),
        parser.get_parsed_content("encode_points"),
        parser.get_parsed_content("add_corrections"),
        Compose(after),
        torch.device(parser.get_parsed_content("device")),
    )


def _parser(profile: str, options: Mapping[str, Any]) -> ConfigParser:
    """Return the parser of the ensemble's inference in a profile, with options in place of the config's own."""
    if profile not in PROFILES:
        raise InputError(f"profile is {profile!r}: give {' or '.join(PROFILES)}")
    parser = ConfigParser()
    parser.read_config([CONFIGS / name for name in ("inference.json", *PROFILES[profile])])
    for name, value in options.items():
        if name not in parser.get():
            raise InputError(f"{name} is no option of the inference: see the names in {CONFIGS / 'inference.json'}")
        parser[name] = value
    parser["bundle_root"] = str(CONFIGS.parent)
    return parser


def _volume(name: str, array: np.ndarray | torch.Tensor, affine: np.ndarray | torch.Tensor) -> Volume:
    """Return an array as a volume, whose name stands for its file in sentences.

    Raises:
        InputError: when it is not (X, Y, Z) with an affine (4, 4), holds what is no number, or has a geometry with which its file
            would be refused.
    """
    array, affine = _as_array(array), _as_array(affine)
    if array.ndim != 3 or affine.shape != (4, 4):
        raise InputError(f"{name} has the shape {array.shape} and its affine {affine.shape}: give (X, Y, Z) and (4, 4)")
    for words, values in ((name, array), (f"{name}'s affine", affine)):
        if values.dtype.kind not in "fiub":
            raise InputError(f"{words} holds values of the type {values.dtype}: give real numbers")
    # PyTorch knows the machine's own order of bytes only.
    volume = Volume(Path(name), array.astype(array.dtype.newbyteorder("="), copy=False), affine.astype(np.float64))
    try:
        check_shape(array.shape, channels=1)
        if not np.isfinite([*volume.limits, *volume.affine.flat]).all():
            raise InputError("holds values that are no numbers (NaN or infinite): give finite ones")
        if not np.array_equal(volume.affine[3], [0, 0, 0, 1]):
            raise InputError("has an affine whose last row is not 0, 0, 0, 1: give one from voxel indices to mm")
        check_axes(volume.affine)
        check_spacing(volume.affine)
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    return volume


def _as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return an array or tensor as an array; what else there is, such as nested lists, as NumPy does."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
