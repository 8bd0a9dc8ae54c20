"""What the four default networks cost at full size, computed on tensors without data: parameters, operations, memory.

    python benchmarks/budget.py

No network is run: PyTorch's meta device carries shapes alone, so that the figures need neither a GPU nor time. Those of training
are in float32, those of inference in float16 as on a GPU; a floating-point operation is one multiplication or one addition.
What the libraries below PyTorch take for themselves, such as cuDNN's workspaces, is not known to it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import _get_scan_interval
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
BUNDLES = ROOT / "bundles"
RESULTS = ROOT / "dist/benchmarks/budget.json"
NETWORKS = ("autopet_stage1_dynunet", "autopet_stage2_segresnet", "autopet_stage2_swinunetr", "autopet_stage2_unet")
# A whole FDG study of the challenge, and the box around the body in it, in voxels of 2.036 x 2.036 x 3 mm.
VOLUMES = {"400 x 400 x 326": (400, 400, 326), "245 x 170 x 326 (body)": (245, 170, 326)}
# Windows that pass through a network at once, as in the ensemble's inference.json.
SW_BATCH_SIZE = 2
GIB = 2**30


@contextlib.contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Count the bytes that autograd keeps for the backward pass within the block, each storage once."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    total = [0]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total
        total[0] = sum(storage.nbytes() for storage in storages.values())


class PeakBytes(TorchDispatchMode):
    """The most bytes that live at one moment in tensors that are made within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


def windows(volume: tuple[int, ...], patch: list[int], overlap: float) -> int:
    """Number of windows with which MONAI's sliding window covers a volume, which it pads to the window's size."""
    size = [max(length, window) for length, window in zip(volume, patch, strict=True)]
    return len(dense_patch_slices(size, patch, _get_scan_interval(size, patch, 3, [overlap] * 3)))


def budget(bundle: str) -> dict[str, Any]:
    """Figures of one network: parameters, operations of one window forward and of one training step, memory."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs/train.json")
    patch, channels = parser["patch_size"], parser["network_def"]["in_channels"]
    network = parser.get_parsed_content("network_def").to("meta").eval()
    image = torch.empty(1, channels, *patch, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        network(image)
    network.half()
    at_once = torch.empty(SW_BATCH_SIZE, channels, *patch, device="meta", dtype=torch.half)
    with torch.no_grad(), PeakBytes() as inference:
        network(at_once)
    network.float().train()
    with FlopCounterMode(display=False) as step:
        with saved_bytes() as saved:
            outputs = network(image)
        heads = outputs if isinstance(outputs, list) else [outputs]
        sum(head.sum() for head in heads).backward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "parameters": parameters,
        "patch": patch,
        "forward_tflop": forward.get_total_flops() / 1e12,
        "step_tflop": step.get_total_flops() / 1e12,
        "activations_gib": saved[0] / GIB,
        # Weights, their gradients, SGD's momentum.
        "inference_gib": (inference.peak + at_once.nbytes + 2 * parameters) / GIB,
        "state_gib": 3 * 4 * parameters / GIB,
        "windows": {name: windows(volume, patch, parser["overlap"]) for name, volume in VOLUMES.items()},
        "batch_size": parser["batch_size"],
    }


def main() -> None:
    figures = {bundle: budget(bundle) for bundle in NETWORKS}
    print(
        "| network | parameters, million | patch | forward, TFLOP | forward and backward, TFLOP | activations, GiB | state, GiB "
        f"| inference of {SW_BATCH_SIZE} windows, GiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for bundle, row in figures.items():
        patch = " x ".join(map(str, row["patch"]))
        print(
            f"| {bundle} | {row['parameters'] / 1e6:.1f} | {patch} | {row['forward_tflop']:.2f} | {row['step_tflop']:.2f} "
            f"| {row['activations_gib']:.1f} | {row['state_gib']:.2f} | {row['inference_gib']:.2f} |"
        )
    print()
    for name in VOLUMES:
        total = sum(row["windows"][name] * row["forward_tflop"] for row in figures.values())
        counts = ", ".join(f"{bundle.rsplit('_', 1)[1]} {row['windows'][name]}" for bundle, row in figures.items())
        print(f"{name}: {counts} windows; {total:.0f} TFLOP")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\n{RESULTS.relative_to(ROOT)} holds the same.")


if __name__ == "__main__":
    main()
