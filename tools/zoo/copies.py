"""Copies of bundles to be checked or packed: with random weights, in the demo profile, opened as the zoo opens them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import monai.bundle
import torch
from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "bundles"
ENSEMBLE = "autopet_ensemble"
# Data that is not part of the repository: a copy of the schema, and real studies for some tests.
SHARED = Path(os.environ.get("PETCT_SHARED") or ROOT.parent / "shared").resolve()


def copy_bundle(bundle: Path, folder: Path, profile: str = "full") -> Path:
    """Copy a bundle into a folder, without weights and results.

    With the profile "demo", train.json and inference.json of the copy are patched with demo.json, so that the file alone is
    what the pair of them is in the original, and the metadata names the small patch.
    """
    copy = folder / bundle.name
    ignored = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "output", "data", "mlruns", "eval", "__pycache__")
    shutil.copytree(bundle, copy, ignore=ignored)
    if profile == "demo":
        demo = read(copy / "configs/demo.json")
        for name in ("train", "inference"):
            file = copy / f"configs/{name}.json"
            if file.is_file():
                parser = ConfigParser()
                parser.read_config([file, copy / "configs/demo.json"])
                parser.parse()
                write(file, {**read(file), **{key: parser[key] for key in read(file) if key != "_desc_"}})
        if "patch_size" in demo:
            metadata = read(copy / "configs/metadata.json")
            for tensors in metadata.get("network_data_format", {}).values():
                for tensor in tensors.values():
                    tensor["spatial_shape"] = demo["patch_size"]
            write(copy / "configs/metadata.json", metadata)
    return copy


def make_weights(bundle: Path) -> Path:
    """Write a new network's random weights, always the same, as the bundle's `models/model.pt`, to which its fingerprint then
    belongs.
    """
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    torch.manual_seed(0)
    with inside(bundle):
        network = parser.get_parsed_content("network_def")
    file = bundle / "models/model.pt"
    torch.save(network.state_dict(), file)
    fingerprint = file.with_name("fingerprint.json")
    write(fingerprint, {**read(fingerprint), "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest()})
    return file


@contextlib.contextmanager
def inside(bundle: Path) -> Iterator[None]:
    """Work as `python -m monai.bundle` does that was started in the bundle's folder."""
    folder, path = Path.cwd(), list(sys.path)
    os.chdir(bundle)
    sys.path.insert(0, str(bundle))
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def load_network(bundle: Path) -> torch.nn.Module:
    """Return the bundle's network with its weights, as `monai.bundle.load` gives it."""
    return monai.bundle.load(
        bundle.name, bundle_dir=bundle.parent, workflow_type="inference", device="cpu", args_file={"bundle_root": str(bundle)}
    )


def largest_difference(bundle: Path, exported: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Return the largest difference of an exported network's output from that of the bundle's own, for noise of the patch's size."""
    form = read(bundle / "configs/metadata.json")["network_data_format"]["inputs"]["image"]
    image = torch.randn(1, form["num_channels"], *form["spatial_shape"], generator=torch.Generator().manual_seed(0))
    with inside(bundle), torch.no_grad():
        network = load_network(bundle).eval()
        return float((network(image) - exported(image)).abs().max())
