"""The archives with which bundles are published, and what is copied into a pull request to the Model Zoo."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

from zoo.checks import CHECKS, LARGE, NOT_SCRIPTED, check, weights
from zoo.copies import copy_bundle, read
from zoo.documents import links
from zoo.style import apply_style
from zoo.unit_tests import write_unit_test

# Unit tests take the longest, and run before: `make zoo`.
CHECKS_OF_ARCHIVES = tuple(name for name in CHECKS if name != "unit test")


def model_card(bundle: Path) -> str:
    """Return the README.md of a Hugging Face repository, as `push_to_hf_hub` makes it from docs/README.md."""
    front = "---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n"
    return front + (bundle / "docs/README.md").read_text(encoding="utf-8")


def write_model_card(bundle: Path) -> None:
    """Write the model card into a bundle's folder, with the pictures of docs/README.md beside it, so that its links lead there."""
    (bundle / "README.md").write_text(model_card(bundle), encoding="utf-8")
    for target in links(bundle / "docs/README.md"):
        file = bundle / "docs" / target
        if file.is_file() and file.parent.name == "docs":
            shutil.copyfile(file, bundle / target)


def large_files(bundle: Path, url: str) -> str:
    """Return large_files.yml, from which `monai.bundle download_large_files` fetches the weights; JSON is YAML too."""
    digest = hashlib.sha256((bundle / "models/model.pt").read_bytes()).hexdigest()
    address = f"{url.rstrip('/')}/{bundle.name}/model.pt"
    entry = {"path": "models/model.pt", "url": address, "hash_val": digest, "hash_type": "sha256"}
    return json.dumps({"large_files": [entry]}, indent=2) + "\n"


def add_weights(bundle: Path, folder: Path, url: str) -> None:
    """Add a bundle's weights to its packed folder: named in large_files.yml when they are large, as they are otherwise."""
    file = bundle / "models/model.pt"
    if not file.is_file():
        raise SystemExit(f"error: {file} is missing: train it or import it before it is distributed")
    weights(bundle)
    if file.stat().st_size > LARGE:
        (folder / "large_files.yml").write_text(large_files(bundle, url), encoding="utf-8")
    else:
        shutil.copyfile(file, folder / "models/model.pt")


def write_archive(folder: Path, archive: Path) -> None:
    """Zip a folder; the same content gives the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(str(path.relative_to(folder.parent)), date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, path.read_bytes())


def write_pull_request(name: str, folder: Path, output: Path) -> None:
    """Put a packed bundle and its unit test where a checkout of the zoo has them: `models/<bundle>`, `ci/unit_tests`."""
    models = output / "models" / name
    shutil.rmtree(models, ignore_errors=True)
    # The zoo makes model cards itself.
    cards = {"README.md", *links(folder / "docs/README.md")}
    shutil.copytree(folder, models, ignore=lambda path, _: cards if Path(path) == folder else ())
    write_unit_test(name, output)
    lines = [f'    "{excluded}",\n' for excluded in sorted(NOT_SCRIPTED)]
    (output / "exclude_verify_torchscript_list.txt").write_text("".join(lines), encoding="utf-8")


def pack(bundle: Path, output: Path, weights_url: str | None, schema: Path) -> bool:
    """Write `output/<bundle>` with a model card, and its zip; check what was unpacked from it, and say whether it passed.

    With an address for weights, the bundle's `models/model.pt` goes along. `output/model-zoo` receives what is copied into a
    pull request.
    """
    folder = output / bundle.name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        # Elsewhere, since formatters leave alone what git ignores.
        shutil.copytree(apply_style(copy_bundle(bundle, Path(temporary))), folder)
    write_model_card(folder)
    if weights_url is not None:
        add_weights(bundle, folder, weights_url)
    archive = output / f"{bundle.name}_v{read(bundle / 'configs/metadata.json')['version']}.zip"
    write_archive(folder, archive)
    write_pull_request(bundle.name, folder, output / "model-zoo")
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(archive) as file:
            file.extractall(unpacked)
        passed = check(Path(unpacked) / bundle.name, "demo", schema, CHECKS_OF_ARCHIVES)
    print(f"{archive.name}: {archive.stat().st_size / 1024:.0f} KiB\n", flush=True)
    return passed
