"""Reading a PET/CT study and turning the members' probabilities into one, as MONAI transforms that configs name."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelWriter
from monai.transforms import MapTransform, Spacingd, SpatialResample
from monai.transforms.inverse import TraceableTransform
from monai.utils import TraceKeys

from scripts.errors import InputError
from scripts.files import atomic
from scripts.metrics import bounding_box
from scripts.studies import (
    PLACE_TOLERANCE_MM,
    Volume,
    corner_distance,
    problem_of_name,
    read_mask,
    read_volume,
    without_suffix,
)

AIR_HU = -1024

# Keys of an image's metadata: where the body's box begins in its study, in voxels, and the study's shape and affine.
BODY_START, STUDY_SHAPE, STUDY_AFFINE = "body_start", "study_shape", "study_affine"


class LoadImagePETCTd(MapTransform):
    """Read CT and PET of a study from any two grids onto the PET's grid, or onto the part of it around the body.

    The value of each key is either `[ct, pet]`, two files, or one 4-D file (X, Y, Z, 2) that holds CT and PET in this order, as MONAI
    Label gives it. It becomes a channel-first float32 `MetaTensor` (2, X, Y, Z): CT in HU, PET in body-weight SUV, with the PET's affine.
    When the grids differ, the CT is interpolated linearly, and is -1024 HU (air) outside of its field.

    MONAI Label and MONAI Deploy recognise a loader by `LoadImage` in its name.

    Args:
        keys: keys of the items to read.
        body_suv: SUV above which a voxel belongs to the body, to whose box both images are cropped; None to keep them whole. What
            lies outside, five sixths of a study, is then never converted or copied, and `PadToStudyd` puts results back.
        body_margin: voxels that are kept around the body.
        case_key: key of the study's name. When it is there, the output is called after it, otherwise after the PET's file,
            without the challenge's `_0001`.
        allow_missing_keys: whether an item may lack a key.

    Raises:
        InputError: when a file cannot be read, a volume is not 3-D, or a 4-D file does not have two channels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        body_suv: float | None = None,
        body_margin: int = 0,
        case_key: str = "case",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.body_suv, self.body_margin = body_suv, body_margin
        self.case_key = case_key
        self.resample = SeparableResample(mode="bilinear", padding_mode="zeros", align_corners=False, dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.load(item[key], item.get(self.case_key))
        return item

    def load(self, source: str | os.PathLike | Sequence[str | os.PathLike], case: str | None = None) -> MetaTensor:
        """Read one study: `[ct, pet]` or a 4-D file. Returns (2, X, Y, Z)."""
        if case is not None and (problem := problem_of_name(case)):
            raise InputError(f"{_study(case)}{problem}")
        if isinstance(source, (str, os.PathLike)):
            both = _read(source, case, channels=2)
            ct, pet = (replace(both, array=both.array[..., channel]) for channel in (0, 1))
        else:
            if len(source) != 2:
                raise InputError(
                    f"{_study(case)}{len(source)} files are given as its image: give two, first the CT and then the PET"
                )
            ct, pet = (_read(file, case) for file in source)
        return self.join(ct, pet, case)

    def join(self, ct: Volume, pet: Volume, case: str | None = None) -> MetaTensor:
        """Put a study's CT and PET, as they were read, onto one grid. Returns (2, X, Y, Z)."""
        box = self._box(pet.array)
        affine = pet.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
        image = torch.empty((2, *(part.stop - part.start for part in box)), dtype=torch.float32)
        image[0] = self._on_grid(ct, pet, box, affine)
        image[1] = _as_tensor(pet.array[box])
        name = case if case is not None else without_suffix(pet.file.name).removesuffix("_0001")
        meta = {
            "filename_or_obj": str(pet.file.parent / f"{name}.nii.gz"),
            "original_channel_dim": 0,
            "spatial_shape": np.array(image.shape[1:]),
        }
        if self.body_suv is not None:
            meta |= {
                BODY_START: np.array([part.start for part in box]),
                STUDY_SHAPE: np.array(pet.array.shape),
                STUDY_AFFINE: pet.affine,
            }
        return MetaTensor(image, affine=torch.as_tensor(affine), meta=meta)

    def _box(self, pet: np.ndarray) -> tuple[slice, ...]:
        """Give the box of the body in a PET (X, Y, Z) with the margin around it; all of it where nothing is above `body_suv`."""
        whole = tuple(slice(0, length) for length in pet.shape)
        body = None if self.body_suv is None else bounding_box(pet > self.body_suv)
        if body is None:
            return whole
        margin = self.body_margin
        return tuple(
            slice(max(0, part.start - margin), min(part.stop + margin, length))
            for part, length in zip(body, pet.shape, strict=True)
        )

    def _on_grid(self, ct: Volume, pet: Volume, box: tuple[slice, ...], affine: np.ndarray) -> torch.Tensor:
        """CT (X, Y, Z) in HU in a box, which has an affine of its own, of the PET's grid."""
        shape = ct.array.shape
        if shape == pet.array.shape and corner_distance(shape, ct.affine, pet.affine) <= PLACE_TOLERANCE_MM:
            return _as_tensor(ct.array[box])
        # Outside of the CT's field the interpolation takes zero: counted from air, zero is air.
        above_air = MetaTensor(_as_tensor(ct.array)[None] - AIR_HU, affine=torch.as_tensor(ct.affine))
        size = [part.stop - part.start for part in box]
        return self.resample(above_air, dst_affine=torch.as_tensor(affine), spatial_size=size).as_tensor()[0] + AIR_HU


class PadToStudyd(MapTransform):
    """Put what lies in the body's box, to which `LoadImagePETCTd` has cropped, back into the whole study, among zeros.

    What was not cropped there stays as it is.

    Args:
        keys: keys of tensors (C, X, Y, Z) on the cropped PET's grid.
        allow_missing_keys: whether an item may lack a key.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.pad(item[key])
        return item

    def pad(self, part: MetaTensor) -> MetaTensor:
        """Give (C, X, Y, Z) of the whole study, in the type of the part."""
        if BODY_START not in part.meta:
            return part
        meta = dict(part.meta)
        start, shape, affine = (np.asarray(meta.pop(name)) for name in (BODY_START, STUDY_SHAPE, STUDY_AFFINE))
        study = torch.zeros((part.shape[0], *(int(length) for length in shape)), dtype=part.dtype, device=part.device)
        box = tuple(slice(int(low), int(low) + length) for low, length in zip(start, part.shape[1:], strict=True))
        study[(slice(None), *box)] = part.as_tensor()
        return MetaTensor(study, meta=meta | {"spatial_shape": shape, "affine": torch.as_tensor(affine)})


class SeparableResample(SpatialResample):
    """`SpatialResample` for grids whose axes are parallel: one axis after another, with the same result in a fraction of the time.

    Linear interpolation on a grid is a product of interpolations along its axes. Between parallel grids each needs two voxels
    a voxel, where the general way, which this class takes for all other grids and modes, needs eight and their coordinates.
    """

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Sequence[int] | torch.Tensor | None = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        align_corners: bool | None = None,
        dtype: Any = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        """Resample (C, X, Y, Z) to a grid; arguments, result and what is kept for the inverse are those of `SpatialResample`."""
        mode, padding_mode = str(mode or self.mode), str(padding_mode or self.padding_mode)
        general = functools.partial(super().__call__, img, dst_affine, spatial_size, mode, padding_mode, align_corners, dtype)
        if not isinstance(img, MetaTensor) or img.ndim != 4 or dst_affine is None or spatial_size is None:
            return general(lazy=lazy)
        to_source = np.linalg.solve(img.affine.numpy(), np.asarray(dst_affine, dtype=np.float64))
        scale, start = np.diag(to_source)[:3], to_source[:3, 3]
        size = [int(length) for length in spatial_size]
        # A thousandth of a voxel at the far end is less than what the headers' rounding hides.
        parallel = np.abs((to_source[:3, :3] - np.diag(scale)) @ np.array(size)).max() < 1e-3
        known = mode in ("bilinear", "nearest") and padding_mode in ("border", "zeros")
        if lazy or align_corners or not parallel or not known or min(size) < 1:
            return general(lazy=lazy)
        tracked = TraceableTransform.track_transform_meta(
            img,
            sp_size=size,
            affine=torch.as_tensor(to_source),
            extra_info={
                "dtype": "float32",
                "mode": mode,
                "padding_mode": padding_mode,
                "align_corners": TraceKeys.NONE,
                "src_affine": img.affine,
            },
            orig_size=img.shape[1:],
            transform_info=self.get_transform_info(),
        )
        volume = img.as_tensor().float()
        # What shrinks goes first, so that the others have less to do.
        for axis in sorted(range(3), key=lambda axis: size[axis] / img.shape[axis + 1]):
            positions = torch.arange(size[axis], dtype=torch.float64) * scale[axis] + start[axis]
            volume = _interpolate(volume, axis + 1, positions, mode, padding_mode)
        return MetaTensor(volume).copy_meta_from(tracked)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Resample back to the grid from which a tensor came, as `SpatialResample` does."""
        transform = self.pop_transform(data)
        extra = transform[TraceKeys.EXTRA_INFO]
        with self.trace_transform(False):
            return self(data, extra["src_affine"], transform[TraceKeys.ORIG_SIZE], extra["mode"], extra["padding_mode"])


class SeparableSpacingd(Spacingd):
    """`Spacingd`, which never turns an image, by `SeparableResample`. The arguments are those of `Spacingd`."""

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float], mode: str | Sequence[str] = "bilinear") -> None:
        super().__init__(keys, pixdim, mode=mode, padding_mode="border", dtype=torch.float32)
        self.spacing_transform.sp_resample = SeparableResample(mode="bilinear", padding_mode="border", dtype=torch.float32)


class LoadMaskd(MapTransform):
    """Read a binary mask as a channel-first `MetaTensor` (1, X, Y, Z), in the file's type and with its affine.

    Args:
        keys: keys of the items under which the files are named.

    Raises:
        InputError: when a file cannot be read, or is no mask of 0 and 1.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            try:
                mask = read_mask(Path(item[key]))
            except InputError as error:
                raise InputError(f"{Path(item[key]).name} {error}") from error
            item[key] = MetaTensor(torch.from_numpy(mask.array)[None], affine=torch.from_numpy(mask.affine))
        return item


class MeanOfMembersd(MapTransform):
    """Put the mean of the members' probabilities under one key.

    `EnsembleEvaluator` gives one prediction a member, MONAI Label one prediction of the whole cascade: when none of the members'
    keys is in the item, the prediction that is there is left as it is.

    Args:
        keys: keys of the members' probabilities, tensors of one shape.
        output_key: key of the mean.
        spread_key: key for the standard deviation over the members, their disagreement; None for none.
        keep_members: whether the members' own probabilities stay in the item.
    """

    def __init__(
        self, keys: KeysCollection, output_key: str = "pred", spread_key: str | None = None, keep_members: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.output_key, self.spread_key, self.keep_members = output_key, spread_key, keep_members

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        present = list(self.key_iterator(item))
        members = [item[key] if self.keep_members else item.pop(key) for key in present]
        if members:
            item[self.output_key] = mean(members)
            if self.spread_key is not None:
                item[self.spread_key] = standard_deviation(members)
        return item


class AtomicNibabelWriter(NibabelWriter):
    """Write a NIfTI file that appears complete or not at all; `SaveImaged` takes the class's name as its `writer`."""

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = False, **options: Any) -> None:
        """Take the affine from the metadata.

        MONAI's writer, told not to resample, resamples to the same grid by the affine's first two axes alone, and fails where
        these span no plane of the world, as in a volume that is stored in coronal slices.

        Raises:
            NotImplementedError: when it is to resample.
        """
        if resample:
            raise NotImplementedError("AtomicNibabelWriter does not resample: give resample=False")
        _, self.affine, _ = self.get_meta_info(meta_dict)

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write what was set to `filename`: now, or within `writing_behind` in its thread."""
        behind = _behind.get()
        if behind is None:
            self._write(filename, verbose, **obj_kwargs)
        else:
            behind.submit(Path(filename), functools.partial(self._write, filename, verbose, **obj_kwargs))

    def _write(self, filename: str | os.PathLike, verbose: bool, **obj_kwargs: Any) -> None:
        with atomic(filename) as part:
            super().write(part, verbose=verbose, **obj_kwargs)


class _Behind:
    """A thread that writes files, and what went wrong with them."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool, self.name = pool, ""
        self.waiting: list[Future[None]] = []
        self.failures: dict[str, Exception] = {}

    def submit(self, file: Path, write: Callable[[], None]) -> None:
        if file.name != self.name:
            wait(self.waiting)
            self.waiting.clear()
        self.name = file.name
        self.waiting.append(self.pool.submit(self._write, file, write))

    def _write(self, file: Path, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            self.failures.setdefault(file.name, error)


_behind: ContextVar[_Behind | None] = ContextVar("_behind", default=None)


@contextlib.contextmanager
def writing_behind() -> Iterator[dict[str, Exception]]:
    """Let `AtomicNibabelWriter` compress and write in a thread while the next study is computed.

    The files of one study, which have one name in several folders, wait in memory together; those of the next wait until they are
    written.

    Yields:
        Name of each file that could not be written, and why; complete when the block has ended.
    """
    with ThreadPoolExecutor(1) as pool:
        behind = _Behind(pool)
        token = _behind.set(behind)
        try:
            yield behind.failures
        finally:
            _behind.reset(token)


def _interpolate(volume: torch.Tensor, axis: int, positions: torch.Tensor, mode: str, padding_mode: str) -> torch.Tensor:
    """Interpolate along one axis at positions (n,), counted in voxels; outside lies zero, or the outermost voxel ("border")."""
    length = volume.shape[axis]
    if padding_mode == "border":
        positions = positions.clamp(0, length - 1)
    # Affines hold rounded numbers: what is a voxel's place but for rounding is that voxel.
    whole = positions.round()
    positions = torch.where((positions - whole).abs() < 1e-4, whole, positions)
    lower = whole if mode == "nearest" else positions.floor()
    fraction = torch.zeros_like(positions) if mode == "nearest" else positions - lower
    shape = [-1 if other == axis else 1 for other in range(volume.ndim)]

    def neighbour(index: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Voxels at an index along the axis, and their weights, zero where there is no voxel."""
        weight = torch.where((index >= 0) & (index < length), weight, 0.0)
        index = index.clamp(0, length - 1).long().to(volume.device)
        return volume[(slice(None),) * axis + (index,)], weight.to(volume).reshape(shape)

    if len(positions) == length and torch.equal(positions, torch.arange(length, dtype=positions.dtype)):
        return volume
    result, weight = neighbour(lower, 1 - fraction)
    if (weight != 1).any():
        result *= weight
        result.addcmul_(*neighbour(lower + 1, fraction))
    return result


def mean(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of tensors of one shape, as a running sum, which needs no stack of them."""
    total = probabilities[0].clone()
    for probability in probabilities[1:]:
        total += probability
    return total / len(probabilities)


def standard_deviation(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Standard deviation (divided by their number) over tensors of one shape."""
    centre = mean(probabilities)
    return mean([(probability - centre) ** 2 for probability in probabilities]).sqrt()


def _read(file: str | os.PathLike, case: str | None, channels: int = 1) -> Volume:
    """Read a volume in the type in which the file stores it."""
    try:
        return read_volume(Path(file), channels)[0]
    except InputError as error:
        raise InputError(f"{_study(case)}{file} {error}") from error


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    """Float32 voxels (X, Y, Z), a copy in the order in which tensors hold them, of an array of any type and order."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _study(case: str | None) -> str:
    return "" if case is None else f"study {case}: "
