"""The union of tokenizers by name, and embeddings for the tokens that only some checkpoints know.

Rule: the base's ids stay as they are. Tokens that experts added (`added_tokens` of tokenizer.json) get the next ids, in the order of
the experts' names and then of their own ids. An added token's row in the base is the mean of the rows of the experts that have it;
an expert that lacks it does not change it. So an added token of one expert is merged like any other change around that mean.
Rows that no token uses (padding) stay the base's.
What makes pieces of text (`model`, normalizer, pre-tokenizer) must be the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.contract.params import BadInput
from tasks.merge.core.headers import Array, Checkpoint
from tasks.merge.core.tensors import Values

TABLES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "lm_head.weight", "embed_out.weight")
"""Ends of the names of tensors with a row per token."""


@dataclass(frozen=True)
class Union:
    """rows: per checkpoint (the base first), for each id of the union the row of that checkpoint, -1 where it has none."""

    added: Sequence[Mapping[str, Any]]
    rows: Sequence[Array]

    @property
    def size(self) -> int:
        """Rows of a table in the merged model."""
        return len(self.rows[0])


def is_table(name: str) -> bool:
    """Whether a tensor has a row per token."""
    return name.endswith(TABLES)


def unite(base: Checkpoint, experts: Sequence[Checkpoint]) -> Union | None:
    """The union, or None when all know the same added tokens by the same ids."""
    known = _added(base)
    size = _size(base)
    free = 1 + highest_id(base.tokenizer)  # tables may be padded
    ids = {token: int(entry["id"]) for token, entry in known.items()}
    treated = {token: ("the base", {**entry, "id": 0}) for token, entry in known.items()}
    added: list[Mapping[str, Any]] = []
    for expert in experts:
        for token, entry in _added(expert).items():
            if token not in ids:
                ids[token] = free + len(added)
                added.append({**entry, "id": ids[token]})
                treated[token] = (expert.label, {**entry, "id": 0})
            elif treated[token][1] != {**entry, "id": 0}:
                first = treated[token][0]
                raise BadInput(f"{expert.label}: its token {token!r} is not treated as {first} treats it (special, stripping ...)")
    total = max(size, free + len(added))
    if not added and all(_added(expert) == known and _size(expert) == size for expert in experts):
        return None
    rows = []
    for checkpoint in (base, *experts):
        mine = {token: int(entry["id"]) for token, entry in _added(checkpoint).items()}
        shared = min(_size(checkpoint), size if checkpoint is base else free)
        place = np.full(total, -1, dtype=np.int64)
        place[:shared] = np.arange(shared)
        place[[index for index in mine.values() if index < shared]] = -1
        for token, index in ids.items():
            place[index] = mine.get(token, -1)
        rows.append(place)
    return Union(added, rows)


def _size(checkpoint: Checkpoint) -> int:
    """Rows of its tables."""
    said = checkpoint.config.get("vocab_size")
    if not isinstance(said, int):
        raise BadInput(f"{checkpoint.label}: config.json says vocab_size = {said!r}; tokenizer: union needs the number of rows there")
    for name, spec in checkpoint.tensors.items():
        if is_table(name) and spec.shape[0] != said:
            raise BadInput(f"{checkpoint.label}: tensor {name!r} has {spec.shape[0]} rows, config.json says vocab_size = {said}")
    return said


def highest_id(tokenizer: Mapping[str, Any]) -> int:
    """Of a tokenizer's pieces and added tokens; -1 for one without any."""
    return max([*_ids(tokenizer), *(int(entry["id"]) for entry in tokenizer.get("added_tokens") or [])], default=-1)


def _ids(tokenizer: Mapping[str, Any]) -> list[int]:
    """Ids of the tokenizer's model."""
    pieces = (tokenizer.get("model") or {}).get("vocab") or {}
    return list(pieces.values()) if isinstance(pieces, dict) else list(range(len(pieces)))


def _added(checkpoint: Checkpoint) -> dict[str, Mapping[str, Any]]:
    """Added tokens by text, in the order of their ids."""
    entries = sorted(checkpoint.tokenizer.get("added_tokens") or [], key=lambda entry: int(entry["id"]))
    return {str(entry["content"]): entry for entry in entries}


@dataclass(frozen=True)
class Grown:
    """A table of the base with a row for every token of the union."""

    own: Values
    others: Sequence[Values]
    union: Union
    row: int

    def values(self, where: slice | Array) -> Array:
        """Those entries of the table with the experts' added rows."""
        ids, columns = _places(where, self.union.size, self.row)
        out = _look_up(self.own, self.union.rows[0], ids, columns, self.row)
        lacking = np.flatnonzero(self.union.rows[0][ids] < 0)
        if len(lacking):
            total, count = np.zeros(len(lacking), dtype=np.float32), np.zeros(len(lacking), dtype=np.float32)
            for other, places in zip(self.others, self.union.rows[1:], strict=True):
                total += _look_up(other, places, ids[lacking], columns[lacking], self.row)
                count += places[ids[lacking]] >= 0
            out[lacking] = total / np.maximum(count, 1)
        return out

    def ahead(self) -> None:
        """Ask the system to read the table soon."""
        self.own.ahead()


@dataclass(frozen=True)
class GrownChange:
    """What an expert's table differs by from the base's; nothing at the tokens that it lacks."""

    own: Values
    places: Array
    row: int

    def change(self, where: slice, base: Array) -> Array:
        """The expert's rows, in the order of the common vocabulary, less the base's."""
        ids, columns = _places(where, len(self.places), self.row)
        there = self.places[ids] >= 0
        return np.where(there, _look_up(self.own, self.places, ids, columns, self.row) - base, np.float32(0))

    def ahead(self) -> None:
        """Ask the system to read the expert's table soon."""
        self.own.ahead()


def _places(where: slice | Array, size: int, row: int) -> tuple[Array, Array]:
    flat = np.arange(*where.indices(size * row)) if isinstance(where, slice) else where
    return flat // row, flat % row


def _look_up(table: Values, places: Array, ids: Array, columns: Array, row: int) -> Array:
    """Entries of a table by id and column; 0 where it lacks the id."""
    rows = places[ids]
    there = np.flatnonzero(rows >= 0)
    out = np.zeros(len(ids), dtype=np.float32)
    if len(there):
        out[there] = table.values(rows[there] * row + columns[there])
    return out
