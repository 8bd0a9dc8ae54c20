"""Records of results: what each was made from and what was written, by content.

Whether a result is skipped, made again or refused follows from its record alone. A file without a record is somebody else's.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from petct_training.errors import InputError
from petct_training.files import data_file_of, read_json_or_none, relative_path, write_json

# Folder of the records inside of an output folder.
RECORDS = "records"

# Folder of the records for files that may be somebody's, and lay in the place of a result.
KEPT = "kept"
# Entry of a mask's settings, and of the fingerprint beside weights, that says which studies a network has not seen.
HELD_OUT = "held_out"
# Entry of the fingerprint beside weights: the SHA-256 of the `model.pt` that it belongs to. Null where it belongs to none, as in
# git; not there in a data set, and beside weights of an earlier version.
OF_WEIGHTS = "weights_sha256"
# State of a file that is not there, or cannot be read.
UNREADABLE: dict[str, Any] = {"size": None, "clock": None, "sha256": None}
# Bytes that are read at once while a digest is computed: few enough to stay in a processor's cache.
CHUNK = 1 << 16


@runtime_checkable
class SeveralFiles(Protocol):
    """What stands for several files in the place of one, such as a DICOM series."""

    @property
    def files(self) -> Sequence[Path]:
        """All of them."""

    @property
    def given(self) -> str:
        """What else the content depends on, as text."""

    def describe(self, identifying: bool = True) -> Mapping[str, Any]:
        """Return what a person who reads a record wants to know of it; without names, dates and numbers unless `identifying`."""


@dataclass(frozen=True)
class Plan:
    """One result that a run wants to have.

    Attributes:
        name: name of the result and of its record, such as the study's case. Of several results of a study, each but the first has
            a folder before the case.
        sources: the study's own files by their role, such as "ct" and "pet"; see `file_state` for what stands for several. What a
            source can `describe` of itself is kept in the record.
        settings: everything else that the content depends on, as JSON knows it: digests of weights, options.
        outputs: files that the run writes, relative to the output folder, with slashes.
    """

    name: str
    sources: Mapping[str, str | os.PathLike]
    settings: Mapping[str, Any]
    outputs: Sequence[str]

    @property
    def study(self) -> str:
        """What the study is called in a sentence."""
        return self.name.rpartition("/")[2]


@dataclass
class Records:
    """The results that runs of one kind keep in an output folder.

    Args:
        folder: output folder.
        kind: what made the results, such as "inference". A folder holds results of one kind.
        about: further facts for a person who reads a record, such as versions; nothing follows from them.
        identifying: whether records say where sources lie and what they are called, which may tell whose they are.
    """

    folder: Path
    kind: str
    about: Mapping[str, Any] = field(default_factory=dict)
    identifying: bool = True
    # States of files that were read in this run, so that each is read once.
    _read: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    # The name of each result that has a record, by what file systems that ignore case make of it; None before it is looked up.
    _names: dict[str, str] | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # What other processes get: they find their own.
        return {**self.__dict__, "_read": {}, "_names": None}

    def file(self, name: str) -> Path:
        """Return the file of a result's record."""
        return self.folder / RECORDS / f"{name}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a result's record; None when there is none, or the file is no record."""
        return read_record(self.file(name))

    def names(self) -> list[str]:
        """Return the names of all results that have a record, sorted.

        Raises:
            InputError: when a result is of another kind.
        """
        names = []
        for file in (self.folder / RECORDS).glob("*.json"):
            record = read_record(file)
            if record is None:
                continue
            if record["kind"] != self.kind:
                raise InputError(
                    f"{self.folder} holds results of another kind ({record['kind']}, this is {self.kind}): "
                    "name another output folder"
                )
            names.append(file.name.removesuffix(".json"))
        return sorted(names)

    def check_kind(self) -> None:
        """Refuse a folder that holds results of another kind.

        Raises:
            InputError: with the kind that is there.
        """
        self.names()

    def check(self, plan: Plan) -> dict[str, Any] | None:
        """Refuse a result whose place is taken, and return its record, None when there is none.

        Raises:
            InputError: when a file lies in the result's place that this program has not written, or that somebody has changed
                since, or when the record there is that of another study.
        """
        self._refuse_twin(plan)
        record = self.read(plan.name)
        if record is None:
            self._refuse_foreign(plan, {})
            return None
        self._refuse_other_study(plan, record)
        # What lies there of a run that was ended while it wrote is its own.
        own = record["outputs"] if record["written"] is None else ()
        self._refuse_foreign(
            replace(plan, outputs=[output for output in plan.outputs if output not in own]), record["written"] or {}
        )
        return record

    def is_current(self, plan: Plan) -> bool:
        """Whether a result is there, was made from the very same content with the same settings, and is still the one written.

        Raises:
            InputError: when a file lies in the result's place that this program has not written, or that somebody has changed
                since, or when the record is that of another study.
        """
        record = self.check(plan)
        if record is None or record["written"] is None or record["settings"] != json.loads(json.dumps(plan.settings)):
            return False
        sources = {role: self.state_of(path, record["sources"].get(role)) for role, path in plan.sources.items()}
        written = {output: self._state(output, record["written"].get(output)) for output in plan.outputs}
        digests = digests_of(sources)
        if None in (*written.values(), *digests.values()) or digests != digests_of(record["sources"]):
            return False
        described = {role: self._described(path) for role, path in plan.sources.items()}
        if described != record["sources"] or any(written[output] != record["written"].get(output) for output in written):
            # Moved or copied: with the present places and clocks the next run need not read again what it finds. What is not asked
            # for now stays the result's, too.
            whole = replace(plan, outputs=record["outputs"])
            self._write(whole, described, record["written"] | written, record["about"])
        return True

    def is_finished(self, plan: Plan) -> bool:
        """Whether the record says that a result was made with the same settings; the files are not looked at."""
        record = self.read(plan.name)
        return (
            record is not None and record["written"] is not None and record["settings"] == json.loads(json.dumps(plan.settings))
        )

    def is_intact(self, name: str) -> bool:
        """Whether all that was written of a result is there and unchanged."""
        written = (self.read(name) or {}).get("written")
        return written is not None and all(self.is_unchanged(output, state) for output, state in written.items())

    def holds_other_study(self, plan: Plan) -> bool:
        """Whether the result of this name is another study's: no file of the plan has the place or content of a recorded one."""
        known = (self.read(plan.name) or {}).get("sources")
        if not known or any(_is_same_place(path, self._place(known.get(role))) for role, path in plan.sources.items()):
            return False
        return not any(self._has_content(path, known.get(role)) for role, path in plan.sources.items())

    def is_made_from(self, name: str, folder: str | os.PathLike) -> bool:
        """Whether a file of which a result was made lies, or lay, in a folder."""
        known = (self.read(name) or {}).get("sources") or {}
        places = (self._place(source) for source in known.values())
        return any(place is not None and place.is_relative_to(Path(folder).resolve()) for place in places)

    def is_unchanged(self, output: str, written: Mapping[str, Any]) -> bool:
        """Whether a file of the output folder is there with the content that was written."""
        return self._has_content(self.folder / output, written)

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
        """Record that a result is going to be written, and delete what an earlier one has besides its files; see `making`.

        Where an earlier run was ended while it wrote, a file may be what it wrote, or what a person has put there since. It is
        kept aside until the result is finished, and for good if it is then another one.
        """
        earlier = self.check(plan)
        before: dict[str, str] = {}
        if earlier is not None:
            self._keep_unknown(earlier)
            self._delete(earlier, kept=plan.outputs)
            before = _known_before(earlier)
        sources = {role: self._described(path) for role, path in plan.sources.items()}
        facts = {role: path.describe(self.identifying) for role, path in plan.sources.items() if isinstance(path, SeveralFiles)}
        self._write(plan, sources, None, {**self.about, **facts}, before)
        if self._names is not None:
            self._names[letters_of(plan.name)] = plan.name

    def finish(self, plan: Plan, about: Mapping[str, Any] | None = None) -> None:
        """Record what was written.

        Args:
            plan: the result.
            about: what else a person wants to know, such as the day on which it was written.

        Raises:
            InputError: when the record is gone.
        """
        record = self.read(plan.name)
        if record is None:
            raise InputError(f"{self.file(plan.name)} is gone: somebody has deleted it during the run; run again")
        states = {output: self._state(output) for output in plan.outputs}
        written = {output: state for output, state in states.items() if state is not None}
        self._write(plan, record["sources"], written, {**record["about"], **(about or {})})
        for output, state in written.items():
            self._settle_kept(output, state["sha256"])

    def remove(self, name: str) -> None:
        """Delete a result, as far as its files are still those that were written, and then its record.

        Of a result that was begun and not finished, what did not lie there at its beginning is kept aside, see `begin`.
        """
        record = self.read(name)
        if record is None:
            return
        self._keep_unknown(record)
        self._delete(record)
        self.file(name).unlink()

    def _delete(self, record: Mapping[str, Any], kept: Sequence[str] = ()) -> None:
        """Delete the files of a record but for those that are kept; of a finished result those alone that are as written."""
        written = record["written"]
        for output in record["outputs"] if written is None else written:
            if output not in kept and (written is None or self.is_unchanged(output, written[output])):
                self.delete(output)

    def delete(self, output: str) -> None:
        """Delete a file of a result, and with the last one the folder of the result's own, which may be called after a patient."""
        (self.folder / output).unlink(missing_ok=True)
        own = Path(output).parent
        # A folder that lies in the output folder itself is that of all results, and other runs may write to it at the moment.
        if len(own.parts) > 1 and ".." not in own.parts:
            # Somebody else's files may lie there.
            with contextlib.suppress(OSError):
                (self.folder / own).rmdir()

    def _keep_unknown(self, record: Mapping[str, Any]) -> None:
        """Keep aside the files of a result that was begun and not finished, but for those that lay there at its beginning."""
        before = _known_before(record)
        for output in record["outputs"] if record["written"] is None else ():
            state = self._state(output)
            if state is not None and state["sha256"] != before.get(output):
                kept = self.folder / RECORDS / KEPT / str(state["sha256"])[:8] / output
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.folder / output, kept)

    def _settle_kept(self, output: str, digest: str | None) -> None:
        """Delete what was kept aside of an output if it is the one that was written, and name what is not."""
        for kept in sorted((self.folder / RECORDS / KEPT).glob(f"*/{glob.escape(output)}")):
            if digest_of(kept) == digest:
                kept.unlink()
                with contextlib.suppress(OSError):
                    for folder in list(kept.parents)[: len(Path(output).parts) + 1]:
                        folder.rmdir()
            else:
                print(
                    f"warning: {output} was not what is written there now, and may have been somebody's: it is kept as "
                    f"{kept.relative_to(self.folder).as_posix()}",
                    flush=True,
                )

    def _write(
        self,
        plan: Plan,
        sources: Mapping[str, Any],
        written: Mapping[str, Any] | None,
        about: Mapping[str, Any],
        before: Mapping[str, str] | None = None,
    ) -> None:
        content = {
            "kind": self.kind,
            "name": plan.name,
            "sources": sources,
            "settings": plan.settings,
            "outputs": list(plan.outputs),
        }
        at_beginning = {} if before is None else {"before": dict(before)}
        write_json(self.file(plan.name), content | {"written": written, **at_beginning, "about": dict(about)})

    def _state(self, output: str, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        return self.state_of(self.folder / output, known)

    def _described(self, path: str | os.PathLike) -> dict[str, Any]:
        place = {"path": path_from(path, self.folder)} if self.identifying else {}
        return {**place, **(self.state_of(path) or UNREADABLE)}

    def state_of(self, path: str | os.PathLike, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return a file's state, as `file_state`; each file is read once a run, as long as it does not change."""
        state = file_state(path, self._read.get(os.fspath(path), known))
        if state is not None:
            self._read[os.fspath(path)] = state
        return state

    def learn(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over the states of files, by path, that another process has read in this run."""
        self._read.update({path: dict(state) for path, state in states.items()})

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
            study = "" if plan.name.startswith(".") else f"study {plan.study}: "
            raise InputError(f"{study}{file} {what}, and is not replaced: move it away, or name another output folder")

    def _refuse_other_study(self, plan: Plan, record: Mapping[str, Any]) -> None:
        """Refuse a study whose name is that of another."""
        if not self.holds_other_study(plan):
            return
        first = self._place(next(iter(record["sources"].values()))) or "other files"
        raise InputError(
            f"study {plan.study}: {self.folder} holds a result of another study of this name, made from {first}: "
            "name another output folder, or give the study another name"
        )

    def _refuse_twin(self, plan: Plan) -> None:
        """Refuse a name that differs from that of another result in nothing that every file system tells apart."""
        if self._names is None:
            names = [file.name.removesuffix(".json") for file in (self.folder / RECORDS).glob("*.json")]
            self._names = {letters_of(name): name for name in names}
        twin = self._names.get(letters_of(plan.name), plan.name)
        if twin != plan.name:
            raise InputError(
                f"study {plan.study}: {self.folder} holds a result of study {twin}, and many file systems take the two names for "
                "one: name another output folder, or give the study another name"
            )

    def _place(self, source: Mapping[str, Any] | None) -> Path | None:
        """Return where a source of a record lies."""
        return None if source is None or "path" not in source else (self.folder / source["path"]).resolve()

    def _has_content(self, path: str | os.PathLike, known: Mapping[str, Any] | None) -> bool:
        """Whether a file is there with the content of a known state; what cannot be read has no content."""
        state = None if known is None else self.state_of(path, known)
        return state is not None and state["sha256"] is not None and known is not None and state["sha256"] == known["sha256"]


def _known_before(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of a finished result's files, or of those that lay in their places when an unfinished one began."""
    written = record["written"]
    return record.get("before", {}) if written is None else {output: state["sha256"] for output, state in written.items()}


def _is_same_place(path: str | os.PathLike, place: Path | None) -> bool:
    return place is not None and Path(path).resolve() == place


def digest_of(path: str | os.PathLike) -> str:
    """Return the SHA-256 digest of a file's bytes, as hexadecimal text."""
    digest, chunk = hashlib.sha256(), memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as stream:
        while number := stream.readinto(chunk):
            digest.update(chunk[:number])
    return digest.hexdigest()


def file_state(path: str | os.PathLike, known: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return a file's size, its clock and the digest of its content; None when it does not exist. The digest of one that cannot be
    read is None, and equal to no other.

    Args:
        path: file, with the one that it names if it is a header alone; or `SeveralFiles`, whose content is one.
        known: an earlier state. When size, times and the file's number on its disk are the same, the content is surely the
            same, too, and is not read again. An older file that was put in place, or a copy, has another number or another time
            of status.
    """
    if isinstance(path, SeveralFiles):
        return _state_of_files(path.files, path.given, known)
    data_file = data_file_of(path)
    if data_file is not None:
        return _state_of_files([Path(path), data_file], "", known)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    clock = [status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    if known is not None and (known.get("size"), known.get("clock")) == (status.st_size, clock):
        digest = known["sha256"]
    else:
        try:
            digest = digest_of(path)
        except OSError:
            return UNREADABLE
    return {"size": status.st_size, "clock": clock, "sha256": digest}


def _state_of_files(files: Sequence[Path], given: str, known: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the state of several files as that of one; their order and names are no part of their content."""
    try:
        states = [os.stat(file) for file in files]
    except (FileNotFoundError, NotADirectoryError):
        return None
    size = sum(status.st_size for status in states)
    times = [(status.st_mtime_ns, status.st_ctime_ns, status.st_ino) for status in states]
    clock = [hashlib.sha256(repr((times, given)).encode()).hexdigest()]
    if known is not None and (known.get("size"), known.get("clock")) == (size, clock):
        return {"size": size, "clock": clock, "sha256": known["sha256"]}
    try:
        digests = sorted(digest_of(file) for file in files)
    except OSError:
        return UNREADABLE
    return {"size": size, "clock": clock, "sha256": hashlib.sha256("\n".join([*digests, given]).encode()).hexdigest()}


def kind_in(folder: str | os.PathLike) -> str | None:
    """Return the kind of the results that an output folder holds; None where it holds none."""
    files = sorted((Path(folder) / RECORDS).rglob("*.json"))
    kinds = (record["kind"] for file in files if (record := read_record(file)) is not None)
    return next(kinds, None)


def read_record(file: Path) -> dict[str, Any] | None:
    """Return a record's content; None when there is none, or it is no record."""
    content = read_json_or_none(file)
    entries = {"kind", "sources", "settings", "outputs", "written", "about"}
    return content if isinstance(content, dict) and entries <= content.keys() else None


def path_from(path: str | os.PathLike, folder: str | os.PathLike) -> str:
    """Return a path as seen from a folder, with slashes on every system; on another drive of Windows, the whole path."""
    return relative_path(Path(os.path.realpath(path)), Path(os.path.realpath(folder))).as_posix()


def letters_of(name: str) -> str:
    """Return what macOS and Windows tell names apart by: neither case nor the way in which an accent is written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def digests_of(states: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str | None]:
    """Return the digest of each state."""
    return {role: None if state is None else state["sha256"] for role, state in states.items()}
