"""The two stages as one network, and the parts of it that MONAI's `EnsembleEvaluator` runs one by one."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.engines import PrepareBatch
from monai.inferers import SlidingWindowInferer
from monai.networks.utils import eval_mode
from torch import nn

from petct_cascade.transforms import mean, with_found_kept, with_stage1
from petct_training.clicks import corrected, marks_in
from petct_training.cpu import channels_last, freed_memory_kept
from petct_training.errors import InputError, boolean
from petct_training.inference import check_answer

# CT and PET.
CHANNELS = 2

REDUCED_PRECISION = {"cuda": torch.float16, "cpu": torch.bfloat16}

# Names of the instructions with which a CPU computes in bfloat16, x86 and ARM. Without them it only imitates it, slowly.
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def has_reduced_precision(device_type: str) -> bool:
    """Whether a "cuda" or "cpu" device is faster in reduced precision than in float32."""
    if device_type == "cpu":
        # Older versions of torch cannot tell what a CPU has.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)
    return device_type in REDUCED_PRECISION


class Remembered:
    """What a network has answered to windows, so that a window that is the same in the next image costs nothing.

    A window's answer follows from the window alone, so that the image's is the same to the bit. Windows are told apart by a SHA-1
    digest of their content. `forget_others` drops what the last image did not need.
    """

    def __init__(self) -> None:
        self.answers: dict[bytes, torch.Tensor] = {}
        self.needed: set[bytes] = set()

    def instead_of(self, network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return what answers as a network does, and asks it only for windows that are new."""

        def answer(windows: torch.Tensor) -> torch.Tensor:
            key = hashlib.sha1(windows.contiguous().cpu().numpy().data, usedforsecurity=False).digest()
            if key not in self.answers:
                self.answers[key] = network(windows)
            self.needed.add(key)
            # The inferer weights windows in their place.
            return self.answers[key].clone()

        return answer

    def forget_others(self) -> None:
        """Forget all windows that were not needed since this was called last."""
        self.answers = {key: self.answers[key] for key in self.needed}
        self.needed = set()


class SlidingWindow(nn.Module):
    """A network that sees a volume through its own sliding window, and its lesion probability.

    Where the device's memory does not suffice, it takes fewer windows at once, down to one, and then gathers the windows' logits
    in the host's memory. It says so, and stays with what sufficed. The probabilities are the same up to rounding. On a CPU it
    is made faster by `petct_training.cpu`, whose switch it obeys.

    Attributes:
        remembered: what the network has answered to the windows of the last image, where that is worth its memory; None to remember
            nothing.

    Args:
        network: takes (windows, C, *roi_size), gives logits (windows, 1, *roi_size).
        roi_size: size of the window in voxels; a smaller volume is padded, see `pad_to_window`.
        overlap: share of a window that its neighbour covers too.
        sw_batch_size: windows that pass through the network at once.
        amp: whether to compute in mixed precision: float16 on a GPU, bfloat16 on a CPU; None for where the hardware has it. It is
            said here and not to the evaluator, whose own switch does nothing on a CPU, so that the network gives the same voxels
            through whatever runs it.
        mirror: axes, of 0, 1, 2 for x, y, z, along which the volume is mirrored in every combination; the probability is then the
            mean over these passes and the plain one. Two axes take four times as long, three eight times.
        mirror_seconds: how long a study may take with this network; no further mirrored pass begins that would not be done by then.
            The probability then depends on the machine's speed, and a warning says so. None for as long as it takes.
    """

    def __init__(
        self,
        network: nn.Module,
        roi_size: Sequence[int],
        overlap: float = 0.5,
        sw_batch_size: int = 2,
        amp: bool | None = False,
        mirror: Sequence[int] = (),
        mirror_seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.mirror_seconds = mirror_seconds
        # The axes that a pass mirrors, fewer of them first.
        self.mirrored = [axes for number in range(len(mirror)) for axes in itertools.combinations(sorted(mirror), number + 1)]
        self.amp = None if amp is None else boolean("amp", amp)
        self.roi_size = roi_size
        self.remembered: Remembered | None = None
        self.inferer = SlidingWindowInferer(roi_size=roi_size, sw_batch_size=sw_batch_size, overlap=overlap, mode="constant")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the lesion probability (B, 1, X, Y, Z) of normalised channels (B, C, X, Y, Z).

        Raises:
            InputError: when it is no number somewhere, see `petct_training.inference.check_answer`.
        """
        padded, (x, y, z) = pad_to_window(image, self.roi_size)
        started = time.monotonic()
        with self.computing(image.device.type) as network:
            call = network if self.remembered is None else self.remembered.instead_of(network)
            logits = self._logits(padded, call)[..., x, y, z]
            probability = torch.sigmoid(logits.float()).to(image.device)
            passes, longest = 1, self._seconds_since(started, image.device)
            for axes in self.mirrored:
                begun = time.monotonic()
                if self.mirror_seconds is not None and begun - started + longest > self.mirror_seconds:
                    print(f"warning: {self._shortage(passes - 1)}", flush=True)
                    break
                dims = [axis + 2 for axis in axes]
                logits = self._logits(padded.flip(dims), call).flip(dims)[..., x, y, z]
                probability += torch.sigmoid(logits.float()).to(image.device)
                passes, longest = passes + 1, max(longest, self._seconds_since(begun, image.device))
        check_answer(probability, type(self.network).__name__)
        return probability if passes == 1 else probability / passes

    def _seconds_since(self, begun: float, device: torch.device) -> float:
        """Return how long a pass on a device took, where it matters."""
        if self.mirror_seconds is None:
            return 0
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic() - begun

    def _shortage(self, passes: int) -> str:
        """Say that the time was not enough for all passes."""
        done = f"{passes} of {len(self.mirrored)} mirrored passes of {type(self.network).__name__}"
        return f"{self.mirror_seconds} s sufficed for {done}, so that the mask depends on this machine's speed"

    @contextlib.contextmanager
    def computing(self, kind: str) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
        """Yield the network as it computes on a "cuda" or "cpu" device; in this block it does so in the precision that was
        asked for.
        """
        on_cpu = kind == "cpu"
        reduced = has_reduced_precision(kind) if self.amp is None else self.amp and kind in REDUCED_PRECISION
        with (
            freed_memory_kept() if on_cpu else contextlib.nullcontext(),
            torch.autocast(kind, dtype=REDUCED_PRECISION.get(kind), enabled=reduced),
        ):
            yield channels_last(self.network) if on_cpu else self.network

    def _logits(self, image: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return the logits (B, 1, X, Y, Z) of channels (B, C, X, Y, Z), with what memory there is."""
        while True:
            try:
                return cast(torch.Tensor, self.inferer(image, network))
            except torch.OutOfMemoryError:
                if self.inferer.sw_batch_size > 1:
                    self.inferer.sw_batch_size //= 2
                    remedy = f"{self.inferer.sw_batch_size} at once"
                elif self.inferer.device is None:
                    self.inferer.device = torch.device("cpu")
                    remedy = "gathering them in the host's memory"
                else:
                    raise InputError(
                        "the GPU's memory does not suffice for a single window: give it to this program alone, or use the CPU with "
                        "--device cpu"
                    ) from None
            # Outside of the handler, which holds the failed attempt's tensors.
            torch.cuda.empty_cache()
            print(
                f"warning: the GPU's memory does not suffice for {type(self.network).__name__}: going on with windows, {remedy}",
                flush=True,
            )


def pad_to_window(image: torch.Tensor, window: Sequence[int]) -> tuple[torch.Tensor, tuple[slice, slice, slice]]:
    """Pad an image that is smaller than a window on both sides, each channel with its lowest value.

    That is what air is after clipping, and what lies outside of a study in training. MONAI's own padding with 0 would surround the
    body with the mean of all lesions, which 0 is after normalisation.

    Args:
        image: (B, C, X, Y, Z), clipped and normalised.
        window: voxels along x, y, z that the result has at least.

    Returns:
        The padded image, and the box of it in which the image lies.
    """
    shape = image.shape[2:]
    missing = [max(int(most) - int(length), 0) for most, length in zip(window, shape, strict=True)]
    x, y, z = (slice(more // 2, more // 2 + int(length)) for more, length in zip(missing, shape, strict=True))
    if not any(missing):
        return image, (x, y, z)
    size = [int(length) + more for length, more in zip(shape, missing, strict=True)]
    padded = image.amin(dim=(2, 3, 4), keepdim=True).expand(-1, -1, *size).clone()
    padded[:, :, x, y, z] = image
    return padded, (x, y, z)


class MeanOfFolds(nn.Module):
    """Networks of one kind, one a fold, and the mean of their lesion probabilities.

    Attributes:
        folds: the networks, each with its sliding window, in the order of their folds.
        only: the fold whose network answers alone, since it has not seen the study; None for the mean.

    Args:
        window: a network with its sliding window; the others are built as it is.
        number: of folds.
    """

    def __init__(self, window: SlidingWindow, number: int) -> None:
        super().__init__()
        self.folds = nn.ModuleList([window, *(copy.deepcopy(window) for _ in range(number - 1))])
        self.only: int | None = None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the lesion probability (B, 1, X, Y, Z) of normalised channels (B, C, X, Y, Z)."""
        chosen = self.folds if self.only is None else [self.folds[self.only]]
        return mean([window(image) for window in chosen])


class Cascade(nn.Module):
    """Stage 1 finds lesions coarsely, the members of stage 2 refine its mask, and their mean is the answer.

    What a person says comes with CT and PET, since hosts hand nothing but the image to a network. The third channel is a coarse
    mask, 0 and 1, in the place of stage 1's, which does not run; or -1 everywhere for stage 1's own. The fourth is a map of the
    marks of clicks (`petct_training.clicks`), which correct either mask.

    Its state dict holds the networks' own under `stage1.network.` and `members.<name>.network.`; where a network was trained once a
    fold, under `stage1.folds.<fold>.network.` and so on.

    Args:
        stage1: gives the probability of CT and PET.
        members: name of each stage-2 network, and the module that gives the probability of CT, PET and the coarse mask.
        threshold: probability from which on a voxel belongs to the coarse mask.
        folds_of: number of folds of "stage1" and of members by their names, whose networks then answer with their mean; those that
            are not named are one network.
        member_weights: weight of each member, in their order; None for one weight for all.
        spacing: voxel size (mm) of the images along X, Y, Z, by which the nearest click is found.
        stage1_weight: share of stage 1's probability in the answer; None for the members alone, as in the paper.
        keep_found_above: probability from which on a lesion of stage 1 that the answer would lose stays, see `with_found_kept`;
            None to keep none, as in the paper.
        final_threshold: probability from which on a voxel belongs to the final mask.
    """

    def __init__(
        self,
        stage1: SlidingWindow,
        members: Mapping[str, SlidingWindow],
        threshold: float = 0.5,
        folds_of: Mapping[str, int] | None = None,
        member_weights: Sequence[float] | None = None,
        spacing: Sequence[float] = (1, 1, 1),
        stage1_weight: float | None = None,
        keep_found_above: float | None = None,
        final_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.member_weights, self.stage1_weight, self.keep_found_above = member_weights, stage1_weight, keep_found_above
        parts = {
            name: MeanOfFolds(window, folds_of[name]) if folds_of and name in folds_of else window
            for name, window in {"stage1": stage1, **members}.items()
        }
        self.stage1 = parts.pop("stage1")
        self.members = nn.ModuleDict(parts)
        self.threshold, self.final_threshold, self.spacing = threshold, final_threshold, spacing

    def hold_out(self, fold: int | None) -> None:
        """Let the networks that have not seen the studies of a fold answer alone; with None, all answer with their mean again."""
        for part in (self.stage1, *self.members.values()):
            if isinstance(part, MeanOfFolds):
                part.only = fold

    def with_coarse_mask(self, image: torch.Tensor, found: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the members see.

        Args:
            image: normalised CT and PET (B, 2, X, Y, Z); or with corrections (B, 3 or 4, X, Y, Z).
            found: stage 1's probability (B, 1, X, Y, Z) of the same CT and PET, where it is known; stage 1 does not run then.

        Returns:
            Stage 1's probability (B, 1, X, Y, Z), or the coarse mask that was given; and CT, PET and the coarse mask as clicks have
            corrected it (B, 3, X, Y, Z).
        """
        skip = is_given(image)
        image, given, marks = image[:, :CHANNELS], image[:, CHANNELS : CHANNELS + 1], image[:, CHANNELS + 1 :]
        if skip:
            probability, coarse = given, given > 0
        else:
            probability = self.stage1(image) if found is None else found
            coarse = probability >= self.threshold
        if marks.shape[1]:
            coarse = torch.stack([self._corrected(*of_study) for of_study in zip(coarse, marks, strict=True)])
        return probability, torch.cat([image, coarse.to(image.dtype)], dim=1)

    def _corrected(self, mask: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """Return a coarse mask (1, X, Y, Z) as clicks correct it whose marks are a map (1, X, Y, Z)."""
        mask_voxels, volume = (tensor[0].cpu().numpy() for tensor in (mask, marks))
        result = corrected(mask_voxels, marks_in(volume.astype(np.uint8)), self.spacing)
        return torch.from_numpy(result)[None].to(mask.device)

    def said_by_stage1(self, image: torch.Tensor, probability: torch.Tensor, stage2_input: torch.Tensor) -> torch.Tensor | None:
        """Return what the answer takes of stage 1: its probability, and where clicks have corrected its mask, the mask.

        Args:
            image: what `with_coarse_mask` took.
            probability, stage2_input: what it gave.

        Returns:
            (B, 1, X, Y, Z); None where the members answer alone: stage 1 has no part in the answer, or a mask was given in its
            place.
        """
        if not (self.stage1_weight or self.keep_found_above) or is_given(image):
            return None
        coarse = stage2_input[:, CHANNELS:]
        return torch.where((probability >= self.threshold) == (coarse > 0), probability, coarse)

    def forward(self, image: torch.Tensor, found: torch.Tensor | None = None) -> torch.Tensor:
        """Return the ensemble's probability (B, 1, X, Y, Z) for what `with_coarse_mask` takes."""
        probability, stage2_input = self.with_coarse_mask(image, found)
        members = mean([member(stage2_input) for member in self.members.values()], self.member_weights)
        said = self.said_by_stage1(image, probability, stage2_input)
        answer = with_stage1(members, said, self.stage1_weight)
        return with_found_kept(answer, said, self.keep_found_above, self.threshold, self.final_threshold)


def is_given(image: torch.Tensor) -> bool:
    """Return whether an image (B, C, X, Y, Z) has a coarse mask after CT and PET, and not -1 for stage 1's own."""
    return image.shape[1] > CHANNELS and bool((image[:, CHANNELS] >= 0).all())


class PrepareCoarseMask(PrepareBatch):
    """Run stage 1 once a study, so that every member of the ensemble gets CT, PET and the same coarse mask.

    A study whose batch holds a `fold`, as it is when it is evaluated, gets the answers of networks that have not seen it; any other
    one the mean over all folds.

    Args:
        cascade: the cascade whose stage 1 runs, on the evaluator's device.
        stage1_key: key of the item under which stage 1's probability is kept for the post-processing; None to drop it.
        found_key: the same, of those studies only whose stage 1's mask clicks correct.
        said_key: key under which the item gets what the answer takes of stage 1, see `Cascade.said_by_stage1`; None to drop it.
    """

    def __init__(
        self, cascade: Cascade, stage1_key: str | None = None, found_key: str | None = None, said_key: str | None = None
    ) -> None:
        self.cascade, self.stage1_key, self.found_key, self.said_key = cascade, stage1_key, found_key, said_key

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any]:
        """Return the members' input (B, 3, X, Y, Z) and `label` of a batch whose `image` is as `Cascade.with_coarse_mask` takes it.

        What the batch holds as `label`, if anything, is handed on as it is, for the post-processing.
        """
        fold = batchdata.get("fold")
        self.cascade.hold_out(None if fold is None else int(fold))
        image = batchdata["image"].to(device=device, non_blocking=non_blocking, **kwargs)
        # The evaluator sets the mode of the members only, and after this.
        with eval_mode(self.cascade.stage1):
            probability, stage2_input = self.cascade.with_coarse_mask(image)
        if self.stage1_key is not None:
            batchdata[self.stage1_key] = probability
        if self.found_key is not None and image.shape[1] > CHANNELS and not is_given(image):
            batchdata[self.found_key] = probability
        if self.said_key is not None:
            said = self.cascade.said_by_stage1(image, probability, stage2_input)
            if said is not None:
                batchdata[self.said_key] = said
        return stage2_input, batchdata.get("label")
