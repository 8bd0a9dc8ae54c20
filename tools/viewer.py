"""Fetch the viewer that studies' pages carry from npm, check it, and put it beside the report with its licences.

    python tools/viewer.py

NiiVue's package carries no licence file since 0.45, so its licence comes from 0.44.2. The other packages are those whose code
its bundle holds, by the list that is made with it (dist/metafile-esm.json), in the versions that it asks for.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "bundles/autopet_ensemble/petct_cascade/report/niivue"
VERSION = "0.69.0"
MEMBER = "package/dist/niivue.umd.js"
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
LICENCES = {
    "@niivue/niivue@0.44.2": "package/LICENSE",
    "@lukeed/uuid@2.0.1": "package/license",
    "@ungap/structured-clone@1.4.0": "package/LICENSE",
    "@zarrita/storage@0.1.4": "package/LICENSE",
    "array-equal@1.0.2": "package/LICENSE",
    "fflate@0.8.3": "package/LICENSE",
    "gl-matrix@3.4.4": "package/LICENSE.md",
    "nifti-reader-js@0.8.0": "package/LICENSE",
    "numcodecs@0.3.2": "package/LICENSE",
    "zarrita@0.5.4": "package/LICENSE",
}


def member_of(package: str, member: str, folder: Path) -> bytes:
    """Return one file of a package's archive, which `npm pack` downloads to a folder."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with tarfile.open(folder / name) as archive:
        file = archive.extractfile(member)
        assert file is not None, f"{package}: {member} is a folder"
        return file.read()


def main() -> None:
    """Write niivue.js and LICENSE.txt; end with 1 when the bundle is another one than the version's."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = member_of(f"@niivue/niivue@{VERSION}", MEMBER, folder)
        if hashlib.sha256(bundle).hexdigest() != SHA256:
            sys.exit(f"{MEMBER} of NiiVue {VERSION} has another SHA-256 than {SHA256}: nothing was written.")
        parts = [f"niivue.js is {MEMBER} of @niivue/niivue {VERSION}, unchanged. It holds code of these packages.\n"]
        for package, member in LICENCES.items():
            name = package.rpartition("@")[0]
            text = member_of(package, member, folder).decode("utf-8")
            lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
            parts.append(f"{'-' * 80}\n{name}\n\n{lines}\n")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "niivue.js").write_bytes(bundle)
    (FOLDER / "LICENSE.txt").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
