"""What the store recorded of each result, found by the result's identity: what it was made of, and what was made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from tasks.engine.artifact import Store
from tasks.engine.job import identities
from tasks.engine.key import Key
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

    def beginning(self, text: str) -> set[str]:
        """The identities of all results, and of the parts of them that are made on their own, that begin with a text."""
        return {identity for identity in self._made if identity.startswith(text)}

    def newest(self, stage: str) -> list[Record]:
        """The records of a stage whose bytes are in the store, the last one first."""
        whole = [one for one in self.all if one["parts"]["stage"] == stage and "unit" not in one["parts"]]
        ages = {one["identity"]: self._store.recorded(Key(one["parts"]).digest) for one in whole if self._store.has(one["identity"])}
        by_identity = {one["identity"]: one for one in whole}
        return [by_identity[identity] for identity in sorted(ages, key=lambda one: -ages[one])]

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
