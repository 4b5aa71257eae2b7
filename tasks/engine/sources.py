"""What methods read from outside of the project (`Params.PLACE`): where it lies, and whether its bytes are those that the params name.

A place is no part of a key, so that a checkpoint may move; its bytes are (`identity`). What lies on this machine is compared whenever
params are read, what has to be fetched when it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.checkpoints.source import counted
from tasks.contract.params import BadInput, StageFailed, brief
from tasks.engine.artifact import Store
from tasks.engine.checkpoint_names import FORMS, check_name, checkpoint, is_path
from tasks.engine.hashes import folder_id
from tasks.engine.settings import Settings


@dataclass(frozen=True)
class Source:
    """A stage's source. param: its dotted place in the params. text: the place as given. identity: as given, "" for none. holds: what
    lies there, "checkpoint" or "files" (`Params.PLACE_HOLDS`)."""

    stage: str
    param: str
    text: str
    identity: str
    holds: str = "checkpoint"

    @property
    def allowed(self) -> str:
        """What it may name, for messages."""
        return f"a GGUF file, {FORMS}" if self.holds == "checkpoint" else "a file, a folder or artifact:<identity>[/folder]"


def named(settings: Settings) -> Iterator[Source]:
    """The sources that the chosen methods read."""
    for stage in settings.road.names:
        params = settings.params(stage)
        if params.PLACE:
            param = f"{settings.source}: {stage}.{settings.method(stage)}.{params.PLACE}"
            yield Source(stage, param, getattr(params, params.PLACE), getattr(params, "identity", ""), params.PLACE_HOLDS)


def of_stage(settings: Settings, stage: str) -> Source | None:
    """The source that a stage reads, None for a stage that reads its inputs alone."""
    return next((source for source in named(settings) if source.stage == stage), None)


def identity_of(path: Path, store: Store, trust: bool = True, holds: str = "checkpoint") -> str:
    """A file's md5; of a folder that of the listing of the files that count, as DVC would name a folder of them alone."""
    if path.is_file():
        return store.hashes.file(path, trust)
    files = store.hashes.files(_counted(path, holds), trust)
    return folder_id({file.relative_to(path).as_posix(): md5 for file, md5 in files.items()})


def check_local(settings: Settings, store: Store) -> None:
    """Raise BadInput when what lies on this machine is not what the params name. What is gone matters when it is needed."""
    for source in named(settings):
        if not source.text:
            raise BadInput(f"{source.param} is missing: {source.allowed}.")
        try:
            check_name(source.text)
        except BadInput as error:
            raise BadInput(f"{source.param} = {error}") from None
        path = _place(source, settings.project)
        if is_path(source.text) and (path.is_file() or path.is_dir()):
            _compare(source, path, store)
        elif not source.identity:
            _compare(source, resolve(source, settings.project, store), store)


def resolve(source: Source, project: Path, store: Store) -> Path:
    """Where a source lies on this machine, fetched if it has to be. BadInput when it names nothing."""
    path = _place(source, project)
    if is_path(source.text) and (path.is_file() or (source.holds == "files" and path.is_dir())):
        return path
    hint = f" Of the hub? Write hub:{source.text}@<commit>." if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source.text) else ""
    if is_path(source.text) and not path.exists():
        raise BadInput(f"{source.param}: {source.text!r}: nothing lies at {path}. Allowed: {source.allowed}.{hint}")
    try:
        return checkpoint(str(path) if is_path(source.text) else source.text, project, store)
    except BadInput as error:
        raise BadInput(f"{source.param}: {error}") from None


def found(source: Source, project: Path, store: Store) -> Path:
    """`resolve`, compared with the identity in the params."""
    path = resolve(source, project, store)
    _compare(source, path, store)
    return path


def check_read(source: Source, project: Path, store: Store, trust: bool) -> None:
    """Raise StageFailed when a stage is about to read, or has read, other bytes than the params name."""
    if (now := identity_of(resolve(source, project, store), store, trust, source.holds)) != source.identity:
        raise StageFailed(f"{source.param} = {source.text!r}: the bytes there are {now!r} now. Was it altered? Nothing was recorded.")


def _place(source: Source, project: Path) -> Path:
    return project / Path(source.text).expanduser()


def _compare(source: Source, path: Path, store: Store) -> None:
    if not _counted(path, source.holds):
        what = "file of a checkpoint" if source.holds == "checkpoint" else "file"
        raise BadInput(f"{source.param} = {source.text!r}: no {what} is in it. Allowed: {source.allowed}.")
    if source.identity != (now := identity_of(path, store, holds=source.holds)):
        raise BadInput(
            f"{source.param.rpartition('.')[0]}.identity = {brief(source.identity)}: the bytes of {source.text} are {now!r}. Write "
            f"that, so that a change of the {source.holds} is a change of the params, for Cairn and for DVC."
        )


def _counted(path: Path, holds: str) -> list[Path]:
    """The files of a place that make its identity."""
    if holds == "checkpoint" or path.is_file():
        return counted(path)
    return sorted(file for file in path.rglob("*") if file.is_file())
