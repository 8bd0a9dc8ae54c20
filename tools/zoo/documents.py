"""Whether a bundle's documents are complete without the repository: in the zoo, in a zip, on Hugging Face."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.verdicts import FaultError

# Sections that the zoo's reviewers look for.
SECTIONS = ("License", "References")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Code, since Markdown reads no link in it.
CODE = re.compile(r"^```.*?^```|^ {4}.*?$", flags=re.MULTILINE | re.DOTALL)


def links(document: Path) -> list[str]:
    """Return the targets of a document's links and pictures that are no web addresses."""
    found = LINK.findall(CODE.sub("", document.read_text(encoding="utf-8")))
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and Hugging Face make them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def dead_links(document: Path, bundle: Path) -> list[str]:
    """Return the links of a document that lead to no file of its bundle, or to no heading."""
    dead = []
    for target in links(document):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.is_relative_to(bundle.resolve()) or not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    return dead


def absent_files(document: Path, bundle: Path) -> list[str]:
    """Return the files of a bundle that a document names in the text, and that are not there."""
    named = re.findall(r"`((?:configs|docs)/[\w./-]+)`", document.read_text(encoding="utf-8"))
    return [name for name in named if not (bundle / name).exists()]


def documents(bundle: Path) -> str:
    """The README has the sections of the zoo, and every link, picture and named file is in the bundle's folder."""
    readme = bundle / "docs/README.md"
    text = readme.read_text(encoding="utf-8")
    faults = [f"docs/README.md has no section {name}" for name in SECTIONS if f"\n## {name}\n" not in text]
    for document in sorted(bundle.rglob("*.md")):
        name = document.relative_to(bundle)
        faults += [f"{name} links to {target}, which is not in the bundle" for target in dead_links(document, bundle)]
        faults += [f"{name} names {file}, which is not in the bundle" for file in absent_files(document, bundle)]
    if faults:
        raise FaultError("; ".join(faults))
    return f"sections {' and '.join(SECTIONS)}, no link leads out of the bundle"
