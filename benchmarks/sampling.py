"""Where the patches of the background lie with each option: python benchmarks/sampling.py DATA

DATA is a prepared data set, such as demo/phantoms/prepared of `make demo`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bundles/autopet_ensemble"))

from petct_training.commands import command  # noqa: E402
from petct_training.data import read_items  # noqa: E402
from petct_training.files import read_json  # noqa: E402
from petct_training.grids import open_volume  # noqa: E402
from petct_training.patches import PET, Background, ReadPatchd  # noqa: E402

BODY_SUV, UPTAKE_SUV = 0.3, 4
VARIANTS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "patch_inside": {"inside": True},
    "background_in_body 1": {"in_body": 1},
    "background_in_body 1, patch_inside": {"in_body": 1, "inside": True},
    "background_uptake 1": {"by_uptake": 1},
    "background_uptake 1, patch_inside": {"by_uptake": 1, "inside": True},
    "background_uptake 0.5, patch_inside": {"by_uptake": 0.5, "inside": True},
}


def shares(items: list[dict], patch: list[int], most_suv: float, draws: int, options: dict[str, Any]) -> list[float]:
    """Return of patches of the background the share at or beyond a face of the study, the share of voxels in the body, and the share
    of patches with uptake that is no lesion.
    """
    background = Background(options.get("in_body", 0), options.get("by_uptake", 0), BODY_SUV, most_suv)
    window = [int(2**0.5 * 1.2 * size) for size in patch]
    border = [size // 2 for size in patch]
    reader = ReadPatchd("image", "label", patch, window, border, 0, background=background, inside=options.get("inside", False))
    reader.set_random_state(0)
    at_face, in_body, with_uptake = [], [], []
    for item in items:
        label, image = (np.asanyarray(open_volume(item[key]).dataobj) for key in ("label", "image"))
        pet, lesion = np.array(image[..., PET]), label != 0
        for _ in range(draws):
            first = np.array(reader.randomize(label, image)) + np.array(window) // 2 - np.array(patch) // 2
            stop = first + patch
            at_face.append(bool((first <= 0).any() or (stop >= pet.shape).any()))
            x, y, z = (slice(max(low, 0), max(high, 0)) for low, high in zip(first, stop, strict=True))
            in_body.append(np.count_nonzero(pet[x, y, z] > BODY_SUV) / np.prod(patch))
            with_uptake.append(bool((pet[x, y, z][~lesion[x, y, z]] > UPTAKE_SUV).any()))
    return [float(np.mean(values)) for values in (at_face, in_body, with_uptake)]


@command
def main() -> None:
    """Print the shares of each variant as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="prepared data set")
    parser.add_argument("--patch_size", type=int, nargs=3, default=[32, 32, 32], help="voxels along x, y, z")
    parser.add_argument("--draws", type=int, default=100, help="patches of each training study")
    given = parser.parse_args()
    items = read_items(given.data / "datalist.json", ["training"], given.data)
    most_suv = read_json(given.data / "fingerprint.json")["pet"]["percentile_99_5"]
    print(f"| options | at a face, % | voxels of the body, % | SUV above {UPTAKE_SUV} without a lesion, % |\n|---|---|---|---|")
    for name, options in VARIANTS.items():
        values = shares(items, given.patch_size, most_suv, given.draws, options)
        print(f"| {name} | " + " | ".join(f"{100 * value:.0f}" for value in values) + " |", flush=True)


if __name__ == "__main__":
    main()
