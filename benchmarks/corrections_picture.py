"""A picture of what clicks do: python benchmarks/corrections_picture.py --weights WORK --picture FILE.png

One of the phantoms of benchmarks/corrections.py is segmented, and the reader of the tests clicks on the largest error of each answer.
The upper row shows the answer before a click in the click's slice, and the lower row the answer after it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS
from corrections import write_studies
from matplotlib.lines import Line2D
from simulated_reader import SimulatedReader

from petct_cascade.cli import weights_folder
from petct_cascade.judging import read_study
from petct_cascade.pictures import COLOURS
from petct_cascade.predict import load_cascade
from petct_cascade.studies import find_studies
from petct_training.commands import command

# PET is shown from white, 0, to black.
BLACK_SUV = 10
# Around a click, in mm.
FIELD_MM = 90


def draw(axes: plt.Axes, pet: np.ndarray, spacing: np.ndarray, masks: dict[str, np.ndarray], point: list[int]) -> None:
    """Draw the transverse slice of a point of PET (X, Y, Z), with outlines of masks, as far as the field reaches."""
    x, y, z = point
    # Stored LAS, the first voxel is the patient's right, on the left of the picture; the front is up.
    extent = (-0.5 * spacing[0], (pet.shape[0] - 0.5) * spacing[0], -0.5 * spacing[1], (pet.shape[1] - 0.5) * spacing[1])
    axes.imshow(pet[:, :, z].T, cmap="gray_r", vmin=0, vmax=BLACK_SUV, origin="lower", extent=extent, interpolation="nearest")
    for name, mask in masks.items():
        if mask[:, :, z].any():
            fine = np.kron(mask[:, :, z].T, np.ones((8, 8)))
            axes.contour(fine, levels=[0.5], colors=COLOURS[name], linewidths=1.5, origin="lower", extent=extent)
    axes.set_xlim(x * spacing[0] - FIELD_MM, x * spacing[0] + FIELD_MM)
    axes.set_ylim(y * spacing[1] - FIELD_MM, y * spacing[1] + FIELD_MM)
    axes.set_xticks([])
    axes.set_yticks([])


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder of `petct train`, WORK, or of model.pt")
    parser.add_argument("--profile", default="demo", help="of these weights")
    parser.add_argument("--picture", type=Path, default=RESULTS / "corrections.png", help="the PNG that is written")
    parser.add_argument("--clicks", type=int, default=4)
    parser.add_argument("--study", type=int, default=0, help="number of the study among the phantoms")
    given = parser.parse_args()
    found = find_studies(write_studies(), labels=True)[0][given.study]
    _, volumes = read_study(found)
    study = load_cascade(weights_folder(given.weights), given.profile, device="cpu", sw_batch_size=1).open_volumes(
        volumes["ct"], volumes["pet"]
    )
    reference, answer = volumes["label"].array, study.segment()
    pet, spacing = volumes["pet"].array, np.array(study.pet.spacing)
    reader = SimulatedReader(reference, study.pet.spacing)
    figure, rows = plt.subplots(2, given.clicks, figsize=(2.6 * given.clicks, 5.9), layout="constrained", squeeze=False)
    for above, below in rows.T:
        (point,) = reader.correct(answer)
        missed = reader.points["foreground"][-1:] == [point]
        draw(above, pet, spacing, {"reference": reference, "prediction": answer}, point)
        above.plot(
            *(np.array(point[:2]) * spacing[:2]), "P" if missed else "X", color="#3366ff", markersize=9, markeredgecolor="w"
        )
        above.set_title("click on what was missed" if missed else "click on what is no lesion", fontsize=10)
        answer = study.segment(points=reader.points)
        draw(below, pet, spacing, {"reference": reference, "prediction": answer}, point)
    rows[0, 0].set_ylabel("before the click")
    rows[1, 0].set_ylabel("after it")
    lines = [Line2D([], [], color=COLOURS[name]) for name in ("reference", "prediction")]
    figure.legend(lines, ["reference", "answer"], ncols=2, loc="outside lower center", frameon=False)
    figure.savefig(given.picture, dpi=110)
    print(f"{given.picture} shows {given.clicks} clicks in {found.case}.")


if __name__ == "__main__":
    main()
