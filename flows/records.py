"""What the store recorded of each result, found by the result's identity: what it was made of, and what was made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from tasks.engine.artifact import Store
from tasks.engine.job import identities
from tasks.road import ROAD, Road

Record = Mapping[str, Any]
"""What `Store.record` keeps: identity, parts (of the key), figures, and where it was computed seconds, method, read, used, profile."""


class Records:
    """The records of a store as they are now."""

    def __init__(self, store: Store, road: Road = ROAD) -> None:
        self._store, self._road = store, road

    @cached_property
    def all(self) -> list[Record]:
        """Every record, in the order of the keys; those that were adopted from dvc.lock, which say less, after the others."""
        return sorted(self._store.entries(), key=lambda record: "adopted" in record)

    @cached_property
    def _made(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.all:
            for identity in identities(self._store, record):
                found.setdefault(identity, []).append(record)
        return found

    def of(self, identity: str, stage: str = "") -> Record | None:
        """How a result was made (by that stage); of several keys with the same result the first. None where nothing was recorded."""
        known = self.each(identity, stage)
        return min(known, key=lambda one: "unit" in one["parts"], default=None)  # a stage's result before that of a part of it

    def each(self, identity: str, stage: str = "") -> list[Record]:
        """Every way in which a result was made (by that stage): other inputs may have given the same bytes."""
        return [one for one in self._made.get(identity, ()) if stage in ("", one["parts"]["stage"])]

    def behind(self, identity: str, stage: str = "") -> dict[str, Record]:
        """Stage -> record, of a result (of that stage) and of all that it was made of, as far as they are recorded; in the road's
        order."""
        found: dict[str, Record] = {}
        todo = [(identity, stage)]
        while todo:
            record = self.of(*todo.pop())
            if record and record["parts"]["stage"] not in found:
                found[record["parts"]["stage"]] = record
                todo += [(one, name) for name, one in record["parts"]["inputs"].items()]
        return {name: found[name] for name in (*self._road.names, *found) if name in found}

    def readers(self, identity: str) -> Iterator[Record]:
        """The records of what read a result; parts of a stage (one world's specialist) are left out for the stage itself."""
        known = {one for record in self._made.get(identity, ()) for one in identities(self._store, record)} | {identity}
        for record in self.all:
            if "unit" not in record["parts"] and known & {*record["parts"]["inputs"].values()}:
                yield record
