"""Records of results: what each was made from and what was written, by content.

Whether a result is skipped, made again or refused follows from its record alone. A file without a record is somebody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petct_training.errors import InputError
from petct_training.files import write_json

# Folder of the records inside of an output folder.
RECORDS = "records"
# Bytes that are read at once while a digest is computed.
CHUNK = 1 << 20


@dataclass(frozen=True)
class Plan:
    """One result that a run wants to have.

    Attributes:
        name: name of the result and of its record, such as the study's case.
        sources: the study's own files by their role, such as "ct" and "pet".
        settings: everything else that the content depends on, as JSON knows it: digests of weights, options.
        outputs: files that the run writes, relative to the output folder, with slashes.
    """

    name: str
    sources: Mapping[str, str | os.PathLike]
    settings: Mapping[str, Any]
    outputs: Sequence[str]


@dataclass
class Records:
    """The results that runs of one kind keep in an output folder.

    Args:
        folder: output folder.
        kind: what made the results, such as "inference". A folder holds results of one kind.
        about: further facts for a person who reads a record, such as versions; nothing follows from them.
    """

    folder: Path
    kind: str
    about: Mapping[str, Any] = field(default_factory=dict)
    # States of source files that were read in this run, so that each is read once.
    _read: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def file(self, name: str) -> Path:
        """Return the file of a result's record."""
        return self.folder / RECORDS / f"{name}.json"

    def names(self) -> list[str]:
        """Return the names of all results that have a record, sorted."""
        return sorted(file.name.removesuffix(".json") for file in (self.folder / RECORDS).glob("*.json") if read_record(file))

    def check_kind(self) -> None:
        """Refuse a folder that holds results of another kind.

        Raises:
            InputError: with the kind that is there.
        """
        for name in self.names():
            kind = (read_record(self.file(name)) or {}).get("kind", self.kind)
            if kind != self.kind:
                raise InputError(
                    f"{self.folder} holds results of another kind ({kind}, this is {self.kind}): name another output folder"
                )

    def is_current(self, plan: Plan) -> bool:
        """Whether a result is there, was made from the very same content with the same settings, and is still the one written.

        Raises:
            InputError: when a file lies in the result's place that this program has not written, or that somebody has changed
                since, or when the record is that of another study.
        """
        record = read_record(self.file(plan.name))
        if record is None:
            self._refuse_foreign(plan, {})
            return False
        sources = {role: self.source_state(path, record["sources"].get(role)) for role, path in plan.sources.items()}
        same = _contents(sources) == _contents(record["sources"])
        if not same:
            self._refuse_other_study(plan, record)
        written = record["written"]
        if written is None:
            # A run that was ended while it wrote: what lies there is its own.
            return False
        self._refuse_foreign(plan, written)
        complete = all(self._state(output, written.get(output)) is not None for output in plan.outputs)
        return complete and same and record["settings"] == json.loads(json.dumps(plan.settings))

    @contextlib.contextmanager
    def making(self, plan: Plan) -> Iterator[None]:
        """Record a result around the block that writes it.

        The record is written before the first file, so that a run which is ended in between leaves nothing that looks like
        somebody else's, and again when the block has ended without an exception.

        Raises:
            InputError: as `is_current`.
        """
        self.begin(plan)
        yield
        self.finish(plan)

    def begin(self, plan: Plan) -> None:
        """Record that a result is going to be written; see `making`."""
        self.is_current(plan)
        sources = {role: self._described(path) for role, path in plan.sources.items()}
        self._write(plan, sources, None)

    def finish(self, plan: Plan) -> None:
        """Record what was written."""
        record = read_record(self.file(plan.name))
        if record is None:
            raise InputError(f"{self.file(plan.name)} is gone: somebody has deleted it during the run; run again")
        states = {output: self._state(output) for output in plan.outputs}
        self._write(plan, record["sources"], {output: state for output, state in states.items() if state is not None})

    def remove(self, name: str) -> None:
        """Delete a result, as far as its files are still those that were written, and then its record.

        Of a result that was begun and not finished, all files are deleted: what lay there at its beginning was its own.
        """
        record = read_record(self.file(name))
        if record is None:
            return
        if record["written"] is None:
            for output in record.get("outputs", ()):
                (self.folder / output).unlink(missing_ok=True)
        for output, written in (record["written"] or {}).items():
            if _contents({"": self._state(output, written)}) == _contents({"": written}):
                (self.folder / output).unlink()
        self.file(name).unlink()

    def _write(self, plan: Plan, sources: Mapping[str, Any], written: Mapping[str, Any] | None) -> None:
        content = {
            "kind": self.kind,
            "name": plan.name,
            "sources": sources,
            "settings": plan.settings,
            "outputs": list(plan.outputs),
        }
        write_json(self.file(plan.name), content | {"written": written, "about": dict(self.about)})

    def _state(self, output: str, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        return file_state(self.folder / output, known)

    def _described(self, path: str | os.PathLike) -> dict[str, Any]:
        state = self.source_state(path)
        if state is None:
            raise InputError(f"{path} does not exist: put it there, or take the study away")
        return {"path": path_from(path, self.folder), **state}

    def source_state(self, path: str | os.PathLike, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return a source's state, as `file_state`; each file is read once a run."""
        state = file_state(path, self._read.get(os.fspath(path), known))
        if state is not None:
            self._read[os.fspath(path)] = state
        return state

    def _refuse_foreign(self, plan: Plan, written: Mapping[str, Any]) -> None:
        """Refuse a file in a result's place that is not the one written."""
        for output in plan.outputs:
            state = self._state(output, written.get(output))
            if state is None:
                continue
            file = self.folder / output
            if output not in written:
                what = "is no result of this program"
            elif state["sha256"] != written[output]["sha256"]:
                what = "was changed after this program had written it"
            else:
                continue
            raise InputError(
                f"study {plan.name}: {file} {what}, and is not replaced: move it away, or name another output folder"
            )

    def _refuse_other_study(self, plan: Plan, record: Mapping[str, Any]) -> None:
        """Refuse a study whose name is that of another: none of its files has the content or the place of the recorded ones."""
        known = {role: (self.folder / source["path"]).resolve() for role, source in record["sources"].items()}
        if all(Path(path).resolve() != known.get(role) for role, path in plan.sources.items()):
            first = next(iter(known.values()), "another folder")
            raise InputError(
                f"study {plan.name}: {self.folder} holds a result of another study of this name, made from {first}: "
                "name another output folder, or give the study another name"
            )


def digest_of(path: str | os.PathLike) -> str:
    """Return the SHA-256 digest of a file's bytes, as hexadecimal text."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def file_state(path: str | os.PathLike, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return a file's size, its clock and the digest of its content; None when it does not exist.

    Args:
        path: file.
        known: an earlier state. When size, times and the file's number on its disk are the same, the content is surely the same, too,
            and is not read again. An older file that was put in place, or a copy, has another number or another time of status.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    clock = [status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    if known is not None and (known.get("size"), known.get("clock")) == (status.st_size, clock):
        digest = known["sha256"]
    else:
        digest = digest_of(path)
    return {"size": status.st_size, "clock": clock, "sha256": digest}


def read_record(file: Path) -> dict[str, Any] | None:
    """Return a record's content; None when there is none, or it is no record."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"kind", "sources", "settings", "written"} <= content.keys() else None


def path_from(path: str | os.PathLike, folder: str | os.PathLike) -> str:
    """Return a path as seen from a folder, with slashes on every system; on another drive of Windows, the whole path."""
    try:
        return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()
    except ValueError:
        return Path(path).absolute().as_posix()


def _contents(states: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str | None]:
    """Return the digest of each state."""
    return {role: None if state is None else state["sha256"] for role, state in states.items()}
