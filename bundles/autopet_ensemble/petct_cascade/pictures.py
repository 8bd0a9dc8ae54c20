"""One picture per study: PET maximum-intensity projections with reference and prediction, as the paper's Figure 1."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from petct_cascade.judging import BODY_SUV
from petct_cascade.metrics import case_metrics
from petct_training.components import labelled_components
from petct_training.errors import InputError
from petct_training.files import atomic
from petct_training.grids import affine_of_part, as_affine, bounding_box, spacing_of, voxel_volume_ml

# Names of studies have letters of all scripts, and a font has not; what it lacks it shows as a box.
warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)

# The colours of the paper's Figure 1: olive is what green and red give where they overlap.
COLOURS = {"reference": "#00a53c", "prediction": "#e6211b", "agreement": "#808000"}
PROJECTION_OPACITY, SLICE_OPACITY = 0.7, 0.55
CT_WINDOW = (-160.0, 240.0)  # HU; the usual soft-tissue window: level 40, width 400
OUTSIDE_HU = -1024.0  # shown where the CT does not reach
MARGIN_MM = 10.0  # around the body

DPI = 100
PANEL_HEIGHT = 720  # pixels
MAX_PROJECTIONS_WIDTH = 900  # pixels, both projections together
MIN_WIDTH = 640  # pixels, the whole picture
GAP, CAPTION, HEADER, FOOTER = 16, 22, 40, 62  # pixels
LEAST_SLICE_SCALE = 0.25  # of a slice beside projections, as a share of theirs


@dataclass(frozen=True, eq=False)
class PictureOptions:
    """What a picture shows besides the projections.

    Attributes:
        title: heading, for example the case's name.
        facts: the line at the bottom. None: SUV range, volumes and numbers of lesions of the masks, and their Dice.
        suv_range: SUV shown white and SUV shown black.
        axial: add the axial slice with the largest part of the largest lesion (of the reference, else of the prediction), on
            CT, if given, and on PET. Without any lesion there is no slice.
        ct: HU (X, Y, Z), for the axial slice.
        ct_affine: the (4, 4) affine of `ct` where it lies on another grid than the PET.
    """

    title: str = ""
    facts: str | None = None
    suv_range: Sequence[float] = (0.0, 10.0)
    axial: bool = False
    ct: np.ndarray | None = None
    ct_affine: np.ndarray | None = None


def overlay_picture(
    path: str | os.PathLike,
    pet: np.ndarray,
    affine: np.ndarray | Sequence[float],
    reference: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    options: PictureOptions | None = None,
) -> Path:
    """Draw a study as PNG: coronal and sagittal PET maximum-intensity projections, overlaid with the masks' projections.

    PET is shown on an inverted grey scale; the reference alone is green, the prediction alone red, their agreement olive. The
    patient stands upright, seen from the front (the patient's right is on the left) and from the left side (the front is on
    the left); both projections have one scale in mm and are cropped to the body. Equal input gives equal bytes.

    Args:
        path: the PNG file to write; it appears complete or not at all.
        pet: body-weight SUV (X, Y, Z), in any orientation.
        affine: (4, 4) matrix from voxels to world mm (RAS, as in NIfTI), or the voxel size along X, Y, Z in mm of an array
            whose axes run to the patient's right, front and head.
        reference: reference mask (X, Y, Z) on the grid of `pet`, if there is one.
        prediction: predicted mask (X, Y, Z) on the grid of `pet`, if there is one.
        options: title, facts, SUV range, axial slice.

    Returns:
        `path`.

    Raises:
        InputError: the arrays are not (X, Y, Z) on one grid, or the SUV range is empty.

    Example:
        options = PictureOptions(title="fdg_001", axial=True, ct=ct)
        overlay_picture("study.png", pet, image.affine, reference, prediction, options)
    """
    path, options = Path(path), options or PictureOptions()
    given = {"reference": reference, "prediction": prediction}
    masks = {role: np.asarray(mask) != 0 for role, mask in given.items() if mask is not None}
    whole = Scene(np.asarray(pet), masks, as_affine(affine))
    _check(whole, options, options.title or path.stem)
    facts = _facts(whole, options.suv_range) if options.facts is None else options.facts

    scene = crop_to_body(to_canonical(whole))
    width, depth, height = scene.size
    scale = min(PANEL_HEIGHT / height, MAX_PROJECTIONS_WIDTH / (width + depth))  # pixels per mm
    # Projected along the front-back axis (1) the patient is seen from the front, along the right-left axis (0) from the side.
    coronal = _projection(scene, scale, 1, "Coronal projection", "RL")
    sagittal = _projection(scene, scale, 0, "Sagittal projection", "AP")
    columns = [[coronal], [sagittal]]
    position = _slice_of_largest_lesion(scene.masks) if options.axial else None
    if position is not None:
        ct_affine = whole.affine if options.ct_affine is None else np.asarray(options.ct_affine, float)
        columns.append(_slices(scene, scale, position, options.ct, ct_affine))
    figure = _compose(columns, list(masks), options, facts)
    with atomic(path) as part:
        # Without the name and version of the software in it, the file depends on the picture alone.
        figure.savefig(part, format="png", dpi=DPI, metadata={"Software": None})
    return path


@dataclass(frozen=True, eq=False)
class Scene:
    """PET (X, Y, Z) in SUV, masks (X, Y, Z) bool by their roles, the reference first, and their (4, 4) affine."""

    pet: np.ndarray
    masks: dict[str, np.ndarray]
    affine: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """Width, depth and height in mm, where the axes run to the patient's right, front and head."""
        return spacing_of(self.affine) * self.pet.shape


@dataclass(frozen=True, eq=False)
class _Panel:
    """One image of the picture; the axes of `values` and of each of `masks` run to the patient's right (or front) and upwards."""

    caption: str
    values: np.ndarray
    masks: dict[str, np.ndarray]
    size: np.ndarray  # width and height in pixels
    sides: str  # the letters for what lies on the left and on the right of the panel
    limits: tuple[float, float] | None = None  # None: the SUV range
    colours: str = "gray_r"
    opacity: float = PROJECTION_OPACITY


def _check(scene: Scene, options: PictureOptions, name: str) -> None:
    """Refuse arrays that do not lie on one grid, and an empty SUV range."""
    pet, (low, high) = scene.pet, options.suv_range
    if pet.ndim != 3:
        raise InputError(f"{name}: the PET has the shape {pet.shape}: give an array (X, Y, Z).")
    for role, mask in scene.masks.items():
        if mask.shape != pet.shape:
            raise InputError(f"{name}: the {role} has the shape {mask.shape} and the PET {pet.shape}: give one grid.")
    if not low < high:
        raise InputError(f"{name}: the SUV range is {(low, high)}: give two growing numbers, as 0 and 10.")
    if options.ct is not None and options.ct_affine is None and np.shape(options.ct) != pet.shape:
        shapes = f"CT {np.shape(options.ct)} and PET {pet.shape}"
        raise InputError(f"{name}: {shapes} lie on different grids: give the affine of the CT.")


def _facts(scene: Scene, suv_range: Sequence[float]) -> str:
    """Return the line of facts: SUV range, volume and number of lesions of each mask, Dice."""
    parts = [f"SUV {suv_range[0]:g} to {suv_range[1]:g}"]
    masks, spacing = scene.masks, spacing_of(scene.affine).tolist()
    for role, mask in masks.items():
        box = bounding_box(mask)
        count = 0 if box is None else labelled_components(mask[box])[1]
        volume = np.count_nonzero(mask) * voxel_volume_ml(spacing)
        parts.append(f"{role} {volume:.1f} ml in {count} lesion{'' if count == 1 else 's'}")
    if len(masks) == 2 and masks["reference"].any():
        parts.append(f"Dice {case_metrics(masks['prediction'], masks['reference'], spacing)['dice']:.3f}")
    return "  ·  ".join(parts)


def to_canonical(scene: Scene) -> Scene:
    """Flip and permute axes so that they run to the patient's right, front and head (RAS)."""
    orientation = nib.io_orientation(scene.affine)
    affine = scene.affine @ nib.orientations.inv_ornt_aff(orientation, scene.pet.shape)
    masks = {role: nib.apply_orientation(mask, orientation) for role, mask in scene.masks.items()}
    return Scene(nib.apply_orientation(scene.pet, orientation), masks, affine)


def crop_to_body(scene: Scene) -> Scene:
    """Crop to the box of body and masks with a margin; an image without uptake stays whole."""
    occupied = scene.pet > BODY_SUV
    for mask in scene.masks.values():
        occupied |= mask != 0
    box = bounding_box(occupied)
    if box is None:
        return scene
    margin = np.ceil(MARGIN_MM / spacing_of(scene.affine)).astype(int)
    wider = tuple(slice(max(0, part.start - more), part.stop + more) for part, more in zip(box, margin, strict=True))
    affine = affine_of_part(scene.affine, [part.start for part in wider])
    return Scene(scene.pet[wider], {role: mask[wider] for role, mask in scene.masks.items()}, affine)


def _projection(scene: Scene, scale: float, axis: int, caption: str, sides: str) -> _Panel:
    """Return the maximum-intensity projection along an axis, at a scale in pixels per mm."""
    masks = {role: np.any(mask, axis=axis) for role, mask in scene.masks.items()}
    return _Panel(caption, scene.pet.max(axis=axis), masks, np.delete(scene.size, axis) * scale, sides)


def _slices(scene: Scene, scale: float, position: int, ct: np.ndarray | None, ct_affine: np.ndarray) -> list[_Panel]:
    """Return the axial slice at an index along Z on CT (HU), if there is one, and on PET.

    Stacked, the slices fill the height of the projections, which have `scale` pixels per mm, but are never wider than both
    projections together.
    """
    width, depth, height = scene.size
    count = 1 if ct is None else 2
    # Of a thin slab the projections leave hardly any height, and the slices are higher.
    stacked_scale = max((scale * height - (count - 1) * (GAP + CAPTION)) / (count * depth), LEAST_SLICE_SCALE * scale)
    size = scene.size[:2] * min(stacked_scale, scale * (width + depth) / width)
    where = f"slice at z = {_heights(scene, position)} mm"
    masks = {role: mask[:, :, position] for role, mask in scene.masks.items()}
    pet_panel = _Panel(f"PET, {where}", scene.pet[:, :, position], masks, size, "RL", opacity=SLICE_OPACITY)
    if ct is None:
        return [pet_panel]
    values = _sample_slice(np.asarray(ct), np.linalg.inv(ct_affine) @ scene.affine, scene.pet.shape, position)
    return [replace(pet_panel, caption=f"CT, {where}", values=values, limits=CT_WINDOW, colours="gray"), pet_panel]


def _heights(scene: Scene, position: int) -> str:
    """Return the z (mm) of the slice at an index along Z; of an oblique one the lowest and the highest of its voxel centres."""
    x, y, _ = np.array(scene.pet.shape) - 1
    corners = scene.affine @ np.array([[0, 0, position, 1], [x, 0, position, 1], [0, y, position, 1], [x, y, position, 1]]).T
    lowest, highest = f"{corners[2].min():.0f}", f"{corners[2].max():.0f}"
    return lowest if lowest == highest else f"{lowest} to {highest}"


def _slice_of_largest_lesion(masks: dict[str, np.ndarray]) -> int | None:
    """Return the index along Z where the largest lesion has the most voxels; None when no mask holds a lesion."""
    for mask in masks.values():  # the reference comes first
        if mask.any():
            labels, _ = labelled_components(mask)
            sizes = np.bincount(labels.ravel())
            sizes[0] = 0
            return int(np.argmax(np.count_nonzero(labels == sizes.argmax(), axis=(0, 1))))
    return None


def _sample_slice(ct: np.ndarray, to_ct: np.ndarray, shape: tuple[int, ...], position: int) -> np.ndarray:
    """Sample CT trilinearly on one axial slice of the PET grid, four times as fine in the plane.

    Args:
        ct: HU, on a grid of its own.
        to_ct: (4, 4) matrix from voxel indices of the PET to those of the CT.
        shape: of the PET, (X, Y, Z).
        position: index of the slice along Z.

    Returns:
        (4 X, 4 Y) HU, `OUTSIDE_HU` outside of the CT.
    """
    finer = 4
    x, y = ((np.arange(count * finer) + 0.5) / finer - 0.5 for count in shape[:2])
    points = to_ct[:3, 0, None, None] * x[:, None] + to_ct[:3, 1, None, None] * y[None, :]
    points = points + (to_ct[:3, 2] * position + to_ct[:3, 3])[:, None, None]
    last = np.array(ct.shape)[:, None, None] - 1
    outside = ((points < -0.5) | (points > last + 0.5)).any(axis=0)
    points = np.clip(points, 0, last)
    lower = np.minimum(np.floor(points).astype(int), np.maximum(last - 1, 0))
    fraction = points - lower
    values = np.zeros(points.shape[1:])
    for corner in np.ndindex(2, 2, 2):
        step = np.array(corner)[:, None, None]
        weight = np.where(step, fraction, 1 - fraction).prod(axis=0)
        values += weight * ct[tuple(np.minimum(lower + step, last))]
    return np.where(outside, OUTSIDE_HU, values)


def _compose(columns: list[list[_Panel]], roles: list[str], options: PictureOptions, facts: str) -> Figure:
    """Place the panels side by side below the title, and legend and facts below them."""
    widths = [max(panel.size[0] for panel in column) for column in columns]
    heights = [sum(panel.size[1] + CAPTION for panel in column) + GAP * (len(column) - 1) for column in columns]
    width, body = max(sum(widths) + GAP * (len(columns) + 1), MIN_WIDTH), max(heights)
    height = HEADER + body + FOOTER
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    renderer = FigureCanvasAgg(figure).get_renderer()
    left = (width - sum(widths) - GAP * (len(columns) - 1)) / 2
    for column, column_width in zip(columns, widths, strict=True):
        top = HEADER
        for panel in column:
            top += CAPTION
            box = (left / width, 1 - (top + panel.size[1]) / height, panel.size[0] / width, panel.size[1] / height)
            _draw(figure, box, panel, options.suv_range)
            top += panel.size[1] + GAP
        left += column_width + GAP

    texts = [
        figure.text(0.5, 1 - 0.55 * HEADER / height, options.title, ha="center", va="center", fontsize=12, fontweight="bold")
    ]
    names = roles if len(roles) < 2 else [*roles, "agreement"]
    if names:
        patches = [Patch(color=COLOURS[name], label=name.capitalize()) for name in names]
        centre = (0.5, 0.62 * FOOTER / height)
        figure.legend(handles=patches, loc="center", bbox_to_anchor=centre, ncols=len(names), frameon=False, fontsize=10)
    texts.append(figure.text(0.5, 0.22 * FOOTER / height, facts, ha="center", va="center", fontsize=10))
    for text in texts:
        _fit(text, renderer, width - 2 * GAP)
    return figure


def _draw(figure: Figure, box: tuple[float, float, float, float], panel: _Panel, suv_range: Sequence[float]) -> None:
    """Draw one panel into the box (left, bottom, width, height, as fractions of the figure)."""
    axes = figure.add_axes(box)
    low, high = panel.limits or suv_range
    # Columns run to the right of the page: towards the patient's left, or back, so both in-plane horizontals are mirrored.
    axes.imshow(
        panel.values[::-1].T, cmap=panel.colours, vmin=low, vmax=high, origin="lower", aspect="auto", interpolation="bilinear",
        extent=(0, 1, 0, 1),
    )  # fmt: skip
    overlay = _overlay({role: mask[::-1].T for role, mask in panel.masks.items()}, panel.opacity)
    if overlay is not None:
        axes.imshow(overlay, origin="lower", aspect="auto", interpolation="nearest", extent=(0, 1, 0, 1))
    axes.set(xticks=[], yticks=[])
    axes.set_title(panel.caption, fontsize=9, pad=4)
    colour, other = ("black", "white") if panel.colours == "gray_r" else ("white", "black")
    for letter, place, side in zip(panel.sides, (0.015, 0.985), ("left", "right"), strict=True):
        text = axes.text(place, 0.985, letter, color=colour, fontsize=9, ha=side, va="top", transform=axes.transAxes)
        # What lies below a letter may have its colour, as a hand that is raised.
        text.set_path_effects([withStroke(linewidth=2, foreground=other)])


def _overlay(masks: dict[str, np.ndarray], opacity: float) -> np.ndarray | None:
    """Return the coloured masks as (rows, columns, RGBA), transparent where there is no lesion; None without masks."""
    if not masks:
        return None
    shape = next(iter(masks.values())).shape
    picture = np.zeros((*shape, 4))
    for role, mask in masks.items():
        picture[mask] = (*to_rgb(COLOURS[role]), opacity)
    if len(masks) == 2:
        picture[masks["reference"] & masks["prediction"]] = (*to_rgb(COLOURS["agreement"]), opacity)
    return picture


def _fit(text: Text, renderer: RendererAgg, width: float) -> None:
    """Take a text literally, and make it small enough for `width` pixels: names of studies can be long."""
    text.set_parse_math(False)
    needed = text.get_window_extent(renderer).width
    if needed > width:
        text.set_fontsize(max(4.0, float(text.get_fontsize()) * width / needed))
