"""`cairn export`: the conversations of the generate or the filter stage as a data set that other trainers read as it is.

FOLDER/data/<split>.parquet (or .jsonl) and README.md, the card. In Parquet, messages and tools are lists of JSON values (Arrow's
extension type `arrow.json`), which `datasets` gives back as objects: as a struct, every call would get every tool's arguments, null
where it has none. The system message carries the world's whole policy; the tools stand in their own column.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.console import tracked
from flows.exports.card import Counts, Details, card
from flows.exports.formats import dump, to_sharegpt
from flows.exports.sources import Source, find
from tasks.contract.params import BadInput
from tasks.contract.problem import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 256
"""Rows written at a time."""
UNKNOWN = "unknown"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class Wish:
    """What is asked for. format: messages or sharegpt. file: parquet or jsonl. split: one, or "" for all. license: "" if unknown."""

    format: str = "messages"
    file: str = "parquet"
    accepted_only: bool = True
    split: str = ""
    license: str = ""


def export_rows(stage: str, out: str, source: str, wish: Wish) -> int:
    """Export a stage's conversations into the folder `out` and say what was written. source: see `flows.exports.sources.find`."""
    from flows import OUTSIDE, PROJECT, STATE
    from tasks.engine.artifact import Store

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    counts = export(find(stage, source, PROJECT, Store(STATE)), Path(out), wish)
    for (split, world), n in sorted(counts.written.items()):
        print(f"{split:<11} {world:<16} {n:>8}")
    print(f"{sum(counts.written.values())} of {counts.played.total()} conversations in {out}, with a card (README.md)")
    if not wish.license:
        print(
            f"cairn: the card says license: {UNKNOWN}. Whoever gets the data may do nothing with it; --license names one.",
            file=sys.stderr,
        )
    if wish.format == "sharegpt" and counts.beside:
        print(f"cairn: {counts.beside} turns speak and call at once; readers of this format see the call alone.", file=sys.stderr)
    return 0


def export(source: Source, out: Path, wish: Wish) -> Counts:
    """Write the data set; it appears whole or not at all. BadInput for a folder that is in use, and when no row is left."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: already there, and not an empty folder. Name another one.")
    if wish.license and not _LICENSE.fullmatch(wish.license):
        raise BadInput(f"--license {wish.license!r}: expected an identifier such as cc-by-4.0, apache-2.0 or other.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
        work = Path(name) / "set"
        (work / "data").mkdir(parents=True)
        counts = Counts()
        _write_all(source, work, wish, counts)
        if not counts.written:
            which = f" of split {wish.split!r}" if wish.split else ""
            raise BadInput(f"{source.folder}: no {'accepted ' if wish.accepted_only else ''}conversation{which} to export.")
        files = {split: f"data/{split}.{wish.file}" for split in SPLITS if (work / f"data/{split}.{wish.file}").is_file()}
        text = card(source, counts, Details(files, wish.format, wish.license or UNKNOWN, wish.accepted_only))
        (work / "README.md").write_text(text, encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        work.rename(out)
    return counts


def _write_all(source: Source, work: Path, wish: Wish, counts: Counts) -> None:
    """Every wanted row into the file of its split; a file exists when it has a row."""
    with ExitStack() as stack:
        writers: dict[str, Callable[[dict[str, Any]], None]] = {}
        for row in tracked(source.rows(), source.count(), "export", "conversations"):
            counts.see(row, source.room)
            if (wish.accepted_only and not row["accepted"]) or (wish.split and row["split"] != wish.split):
                continue
            split = row["split"]
            if split not in writers:
                opened = (
                    _Parquet(work / f"data/{split}.parquet", wish) if wish.file == "parquet" else _Lines(work / f"data/{split}.jsonl")
                )
                stack.callback(opened.close)
                writers[split] = opened.write
            writers[split](exported(source, row, wish.format))
            counts.write(row)


def exported(source: Source, row: Mapping[str, Any], shape: str) -> dict[str, Any]:
    """A row of TRAJECTORY or DATASET as it is exported, JSON-able."""
    from tasks.contract.rows import message_of

    system, tools = source.system_and_tools(row["world"])
    messages = [{"role": "system", "content": system}, *map(message_of, row["messages"])]
    talk = {"messages": messages, "tools": tools} if shape == "messages" else to_sharegpt(messages, tools)
    about = ("problem_id", "world", "family", "lineage", "trial", "accepted", "reason", "policy", "stop", "agent", "human")
    return {**talk, "id": row["traj_id"], **{name: row[name] for name in about}}


def _schema(shape: str) -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    turn = pa.struct([("from", text), ("value", text), ("about", text)])
    objects = pa.list_(pa.json_(text))
    talk = {
        "messages": [("messages", objects), ("tools", objects)],
        "sharegpt": [("conversations", pa.list_(turn)), ("system", text), ("tools", text)],
    }
    return pa.schema(
        [
            *talk[shape],
            ("id", text),
            ("problem_id", text),
            ("world", text),
            ("family", text),
            ("lineage", pa.list_(text)),
            ("trial", pa.int32()),
            ("accepted", pa.bool_()),
            ("reason", text),
            ("policy", pa.float32()),
            ("stop", text),
            ("agent", text),
            ("human", text),
        ]
    )


class _Lines:
    """Rows as JSON, one a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(dump(row) + "\n")

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """Rows in groups."""

    def __init__(self, path: Path, wish: Wish) -> None:
        import pyarrow.parquet as pq

        self._schema = _schema(wish.format)
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = [pa.array(list(_cells(self._rows, one)), _stored(one.type)).cast(one.type) for one in self._schema]
        self._file.write_table(pa.table(columns, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._file.close()


def _stored(kind: Any) -> Any:
    """The type under the extension type: JSON values lie there as text."""
    import pyarrow as pa

    return pa.list_(pa.string()) if kind == pa.list_(pa.json_(pa.string())) else kind


def _cells(rows: list[dict[str, Any]], column: Any) -> Iterator[Any]:
    import pyarrow as pa

    as_json = column.type == pa.list_(pa.json_(pa.string()))
    for row in rows:
        value = row[column.name]
        yield [json.dumps(item, ensure_ascii=False) for item in value] if as_json else value
