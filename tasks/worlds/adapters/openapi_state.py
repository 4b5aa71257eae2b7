"""The state of an HTTP service: how it is set back to its start, how it is read, and who may use it now.

A service holds one state at a time. A state of a conversation is the start and the calls that changed it since, so it can be brought
about again: the start is set, and the calls are made again in their order. Whoever uses the service holds a lock of this machine, and
notes in it which state the service was left in, so that nothing is set back for a conversation that goes on alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tasks.contract.params import BadInput
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.adapters.machine_lock import locked
from tasks.worlds.adapters.openapi_answers import answer_of
from tasks.worlds.adapters.openapi_database import PostgresDatabase, SqliteDatabase
from tasks.worlds.adapters.openapi_http import Service
from tasks.worlds.adapters.openapi_requests import Prepared
from tasks.worlds.api.tools import Refused

Calls = tuple[str, ...]
"""A state: the calls that led there from the start, each as JSON."""
Database = SqliteDatabase | PostgresDatabase
VERBS = ("GET", "PUT", "POST", "PATCH", "DELETE")


@dataclass(frozen=True)
class Step:
    """A request that a world makes for itself. content: the file whose JSON is sent, None for no body."""

    verb: str
    path: str
    query: str = ""
    content: Path | None = None

    def send(self, service: Service) -> Any:
        """Its answer. Raises SourceFailed when the service does not take it."""
        body = None if self.content is None else self.content.read_bytes()
        headers = {"accept": "application/json"} | ({} if body is None else {"content-type": "application/json"})
        reply = service.send(Prepared(self.verb, self.path, self.query, headers, body), repeatable=self.verb == "GET")
        where = f"{self.verb} {service.where}{self.path}"
        try:
            return answer_of(reply, where, service.credentials.words())
        except Refused as error:
            raise SourceFailed(f"{where}: {error}") from None

    def value(self, service: Service) -> Any:
        """The part of the state that it answers."""
        return self.send(service)

    def file(self) -> Path | None:
        """The file that is sent."""
        return self.content


def step(text: str, where: str, content: Path | None = None) -> Step:
    """A step out of "POST /admin/reset". where: the parameter that holds it, for messages. BadInput for anything else."""
    verb, _, rest = str(text).partition(" ")
    path, _, query = rest.strip().partition("?")
    if verb.upper() not in VERBS or not path.startswith("/") or "{" in path:
        raise BadInput(f"{where} = {text!r}: write a verb and a path without variables, such as 'POST /admin/reset'.")
    if content is not None:
        try:
            json.loads(content.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"{where}: {content} is no JSON file ({error}).") from None
    return Step(verb.upper(), path, query, content)


@dataclass(frozen=True)
class Ways:
    """How a service's state is handled. reset: what brings the start about, in this order; () when nothing can. parts: name -> what
    gives this part of the state; "" for the whole; {} when it cannot be read."""

    reset: tuple[Step | Database, ...]
    parts: Mapping[str, Step | Database]

    def files(self) -> dict[str, str]:
        """File that holds a start -> fingerprint."""
        files = [file for one in self.reset if (file := one.file()) is not None]
        return {file.name: fingerprint(file.read_bytes()) for file in files}

    def restore(self, service: Service) -> None:
        """Bring the start about. Raises SourceFailed."""
        for one in self.reset:
            one.send(service)

    def read(self, service: Service) -> Any:
        """The state as JSON. Raises SourceFailed."""
        found = {part: _by_id(one.value(service)) for part, one in self.parts.items()}
        return found.get("", found)


def parts_of(state: Any, where: str) -> dict[str, Step]:
    """The reads that give the state: of one "GET /path" it is the whole answer; several are named by a mapping, or by their paths."""
    if isinstance(state, Mapping):
        named = dict(state)
    else:
        texts = [state] if isinstance(state, str) and state else list(state or ())
        named = (
            {"": texts[0]} if len(texts) == 1 else {str(text).partition("?")[0].rstrip("/").rpartition("/")[2]: text for text in texts}
        )
        if len(named) != len(texts):
            raise BadInput(f"{where}: state: two of its paths end alike. Name them: state={{'orders': 'GET /v1/orders', ...}}.")
    found = {str(part): step(text, f"{where}: state") for part, text in named.items()}
    for one in found.values():
        if one.verb != "GET":
            raise BadInput(f"{where}: state = '{one.verb} {one.path}': the state is read with GET.")
    return found


def _by_id(answer: Any) -> Any:
    """An answer in which a list of rows with an `id` each is a table by it, also one level down: services list in any order."""
    if isinstance(answer, Mapping):
        return {name: _table(value) for name, value in answer.items()}
    return _table(answer)


def _table(value: Any) -> Any:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(row, Mapping) and isinstance(row.get("id"), str | int) for row in value)
    ):
        return value
    rows = {str(row["id"]): row for row in value}
    return rows if len(rows) == len(value) else value


def fingerprint(content: bytes) -> str:
    """What tells one content from another."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Turns:
    """Whose turn it is at one service, in this process and in all others of this machine. start: what tells its start from those of
    other worlds over it."""

    def __init__(self, service: Service, start: str) -> None:
        self.service, self.where = service, f"the service at {service.base_url}"
        self._start = start
        self._first = True
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.RLock()  # in a process that was forked off nobody would open the parent's

    @contextlib.contextmanager
    def use(self, state: Calls | None) -> Iterator[Mark]:
        """The service for one use, in whatever state it is: nobody else uses it meanwhile."""
        with self._lock, locked(self.service.base_url) as file:
            mark = Mark(self.service, self._start, file)
            if self._first:  # what an earlier run left may be gone: the service may have been started anew since
                mark.note(None)
                self._first = False
            yield mark


class Mark:
    """A service, and the note about the state in which it was left. fresh: nothing was called in it; nobody knows that of one that
    others use."""

    fresh = False

    def __init__(self, service: Service, start: str, file: IO[str]) -> None:
        self.service, self._start, self._file = service, start, file

    def holds(self, state: Calls) -> bool:
        """Whether the service is in this state."""
        self._file.seek(0)
        return self._file.read() == self._digest(state)

    def note(self, state: Calls | None) -> None:
        """It is in this state now; None while that is not known."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write("" if state is None else self._digest(state))
        self._file.flush()

    def restart(self) -> None:
        """Nobody here started it, so nobody here can."""
        raise SourceFailed(f"the service at {self.service.base_url} cannot be set back: give reset, fixture or database")

    def _digest(self, state: Calls) -> str:
        return fingerprint("\n".join((self._start, *state)).encode())
