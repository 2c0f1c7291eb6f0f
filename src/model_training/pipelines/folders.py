"""Pipelines in folders: those the server was told of, those registered for good, those bundled.

Everything is looked at again on each call, so that an edit counts at once and nothing needs a
restart; what did not change since is not parsed again. A broken ``pipeline.toml`` is one entry
with its problems and never takes the others down.
"""

import asyncio
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from model_training.errors import Fault, InvalidDeclaration, PipelineExists, PipelineNotFound
from model_training.names import nearest, pipeline_fault
from model_training.pipelines.digests import FILES_LIMIT, SETTLED_NS, FolderDigests
from model_training.pipelines.pipeline import NEAREST_NAMES, BrokenPipeline
from model_training.pipelines.pipeline_file import (
    PIPELINE_FILE,
    FolderPipeline,
    displayable,
    read_pipeline,
)

BUNDLED: Final = Path(__file__).parent / "bundled"
_NAME_LINE = re.compile(rb'^[ \t]*name[ \t]*=[ \t]*["\']([^"\'\n]*)["\']', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenFolder(BrokenPipeline):
    """A folder that should hold a pipeline and does not."""

    folder: Path


# Device, inode, size, time of the last write and of the last change of a pipeline.toml.
_FileId: TypeAlias = tuple[int, int, int, int, int]
_Entry: TypeAlias = FolderPipeline | BrokenFolder
_Entries: TypeAlias = list[_Entry]  # FolderSource has a method named list


class FolderSource:
    """Finds pipelines by name.

    Args:
        parents: folders that hold pipeline folders, or are one; the first has precedence.
        registered: the folder with a file for each pipeline that was registered for good.
    """

    def __init__(self, parents: Sequence[Path], registered: Path) -> None:
        self._parents = tuple(parent.absolute() for parent in parents)
        self._registered = registered.absolute()
        self._digests = FolderDigests()
        self._parsed: dict[Path, tuple[_FileId, FolderPipeline]] = {}
        self._looking: dict[str, asyncio.Task[FolderPipeline]] = {}
        self._about_to_look: dict[str, asyncio.Task[FolderPipeline]] = {}

    async def resolve(self, name: str) -> FolderPipeline:
        """The pipeline of this name, with the digest of its code as it is now.

        Who asks while somebody looks for the same one waits for that to end, and shares the next
        look with all who came meanwhile: it begins after they asked, so it misses no edit.

        Raises:
            PipelineNotFound: ``nearest`` as in ``PipelineSource``.
            InvalidDeclaration: there is one, but it is broken.
        """
        look = self._about_to_look.get(name)
        if look is None:
            look = asyncio.create_task(self._look(name, after=self._looking.get(name)))
            self._about_to_look[name] = look
        return await asyncio.shield(look)

    async def _look(
        self, name: str, *, after: asyncio.Task[FolderPipeline] | None
    ) -> FolderPipeline:
        if after is not None:
            await asyncio.wait([after])
        self._looking[name] = self._about_to_look.pop(name)
        try:
            return await asyncio.to_thread(self._resolve, name)
        finally:
            del self._looking[name]

    async def list(self) -> _Entries:
        """Every pipeline, broken ones too, by name."""
        return await asyncio.to_thread(self._list)

    def register(self, folder: Path) -> FolderPipeline:
        """Make the pipeline in ``folder`` known for good.

        Raises:
            InvalidDeclaration: the folder holds no pipeline, or a broken one.
            PipelineExists: another folder is registered under its name.
        """
        pipeline = read_pipeline(folder.resolve())
        self._registered.mkdir(parents=True, exist_ok=True)
        file = self._registered / pipeline.name
        if not _write_new(file, os.fsencode(pipeline.folder) + b"\n"):
            other = _registered_folder(file)
            if other != pipeline.folder:
                msg = (
                    f"The pipeline {pipeline.name!r} is registered already, from {other}; "
                    f"to replace it, run: model-training pipeline remove {pipeline.name}"
                )
                raise PipelineExists(msg)
        return pipeline

    def unregister(self, name: str) -> None:
        """Forget a registered pipeline; its folder stays as it is.

        Raises:
            PipelineNotFound: none is registered under this name.
        """
        known = [file.name for file in _registrations(self._registered)]
        if name not in known:
            looked = (str(self._registered),)
            raise PipelineNotFound(name, looked=looked, nearest=nearest(name, known, limit=3))
        (self._registered / name).unlink(missing_ok=True)

    def _resolve(self, name: str) -> FolderPipeline:
        entries = self._scan()
        for entry in entries:
            if isinstance(entry, BrokenFolder):
                if name == (entry.name if entry.name is not None else entry.folder.name):
                    raise InvalidDeclaration(*entry.problems)
            elif entry.name == name:
                return self._with_digest(entry)
        looked = (*self._parents, self._registered, BUNDLED)
        known = [entry.name for entry in entries if entry.name is not None]
        raise PipelineNotFound(
            name,
            looked=tuple(str(place) for place in looked),
            nearest=nearest(name, known, limit=NEAREST_NAMES),
        )

    def _with_digest(self, pipeline: FolderPipeline) -> FolderPipeline:
        digest = self._digests.digest(pipeline.folder)
        if digest is None:
            warning = f"no digest of the code: its folder holds more than {FILES_LIMIT} files"
            return replace(pipeline, warnings=(*pipeline.warnings, warning))
        return replace(pipeline, digest=digest)

    def _list(self) -> _Entries:
        return sorted(self._scan(), key=lambda entry: (entry.name or "", str(entry.folder)))

    def _scan(self) -> _Entries:
        """Every entry in order of precedence; a name that was taken before is a problem."""
        entries: _Entries = []
        holders: dict[str, int] = {}
        seen: set[tuple[int, int]] = set()
        for entry, file_id in self._entries():
            if file_id is not None:
                if file_id[:2] in seen:
                    continue  # the same folder by another way
                seen.add(file_id[:2])
            if isinstance(entry, FolderPipeline) and entry.name in holders:
                at = holders[entry.name]
                entries[at], hidden = _clash(entries[at], entry)
                entries.append(hidden)
                continue
            if entry.name is not None:
                holders.setdefault(entry.name, len(entries))
            entries.append(entry)
        return entries

    def _entries(self) -> Iterator[tuple[_Entry, _FileId | None]]:
        for parent in (*self._parents, BUNDLED):
            if parent is BUNDLED:
                for file in _registrations(self._registered):
                    yield self._read_registered(file)
            yield from self._read_parent(parent)

    def _read_parent(self, parent: Path) -> Iterator[tuple[_Entry, _FileId | None]]:
        try:
            children = sorted(child.name for child in os.scandir(parent) if child.is_dir())
        except OSError as error:
            if parent is not BUNDLED:
                problem = Fault(str(parent), f"cannot be searched: {error.strerror}")
                yield BrokenFolder(name=None, folder=parent, problems=(problem,)), None
            return
        for folder in (parent, *(parent / child for child in children)):
            if (file_id := _file_id(folder)) is not None:
                yield self._read(folder, file_id), file_id

    def _read_registered(self, file: Path) -> tuple[_Entry, _FileId | None]:
        folder = _registered_folder(file)
        file_id = _file_id(folder) if folder is not None else None
        way_out = f"run: model-training pipeline remove {file.name}"
        if folder is None or file_id is None:
            shown = displayable(folder or file)
            problem = Fault(str(file), f"{shown} holds no {PIPELINE_FILE} any more; {way_out}")
            return BrokenFolder(name=file.name, folder=shown, problems=(problem,)), None
        entry = self._read(folder, file_id)
        if isinstance(entry, FolderPipeline) and entry.name != file.name:
            message = f"{folder} names itself {entry.name} now; {way_out}, and add it again"
            problem = Fault(str(file), message)
            return BrokenFolder(name=file.name, folder=folder, problems=(problem,)), None
        return entry, file_id

    def _read(self, folder: Path, file_id: _FileId) -> _Entry:
        known = self._parsed.get(folder)
        if known is not None and known[0] == file_id:
            pipeline = known[1]
            if pipeline.requirements is None or pipeline.requirements.is_file():
                return pipeline
        try:
            pipeline = read_pipeline(folder)
        except InvalidDeclaration as error:
            self._parsed.pop(folder, None)
            name, _ = _name_and_line(folder)
            return BrokenFolder(name=name, folder=displayable(folder), problems=error.faults)
        if time.time_ns() - max(file_id[3:]) > SETTLED_NS:
            self._parsed[folder] = file_id, pipeline
        return pipeline


def _file_id(folder: Path) -> _FileId | None:
    """Of the folder's ``pipeline.toml``; None if there is none."""
    try:
        found = (folder / PIPELINE_FILE).stat()
    except (OSError, ValueError):  # not there, closed to us, or no path at all
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _registrations(registered: Path) -> list[Path]:
    """The files that register a pipeline; foreign ones are passed over."""
    with suppress(OSError):  # not made yet: nothing was registered
        names = sorted(entry.name for entry in os.scandir(registered) if entry.is_file())
        return [registered / name for name in names if not pipeline_fault(name, path="")]
    return []


def _registered_folder(file: Path) -> Path | None:
    """The folder that a registration names; None if it names none."""
    try:
        text = os.fsdecode(file.read_bytes()).strip()
    except OSError:
        return None
    return Path(text) if text.startswith("/") else None


def _name_and_line(folder: Path) -> tuple[str | None, int]:
    """The name in a ``pipeline.toml`` that need not be valid, and its line."""
    with suppress(OSError):
        content = (folder / PIPELINE_FILE).read_bytes()
        if match := _NAME_LINE.search(content):
            name = match[1].decode(errors="replace")
            line = content.count(b"\n", 0, match.start(1)) + 1
            return (name if not pipeline_fault(name, path="") else None), line
    return None, 1


def _clash(first: _Entry, second: FolderPipeline) -> tuple[_Entry, BrokenFolder]:
    """Both of one name, each with its problem: the first is used, the second is not."""
    used = f"the name is also used in {second.folder}; this folder comes first and is taken"
    unused = f"the name is taken by {first.folder}, which comes first; rename one of the two"
    first = replace(first, problems=(*first.problems, _name_fault(first.folder, used)))
    problem = _name_fault(second.folder, unused)
    return first, BrokenFolder(name=second.name, folder=second.folder, problems=(problem,))


def _name_fault(folder: Path, message: str) -> Fault:
    _, line = _name_and_line(folder)
    return Fault(f"{folder / PIPELINE_FILE}:{line}: name", message)


def _write_new(file: Path, content: bytes) -> bool:
    """Write a file at once and durably; False if it exists already."""
    fd, temporary = tempfile.mkstemp(prefix=".new-", dir=file.parent)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(fd)
        os.link(temporary, file)  # unlike a rename, it takes no other's place
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink()
    return True
