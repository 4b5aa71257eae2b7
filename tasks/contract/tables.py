"""The one writer and reader of Parquet.

The writer leaves no clock and no library chatter in the file beyond what pyarrow itself stamps, so that the same rows give the
same bytes under the same versions. Readers check the schema and say which file and column is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contract.params import BadInput


class Sink:
    """A Parquet file that rows are added to one by one, `group` of them in memory; a context manager. Missing columns become null.

    A row with a column that the schema does not know is refused by name.
    """

    def __init__(self, path: Path, schema: pa.Schema, group: int = 4096) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._schema, self._group = path, schema, group
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_statistics=False)
        self._waiting: list[Mapping[str, Any]] = []
        self.count = 0

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row."""
        if unknown := set(row) - set(self._schema.names):
            raise ValueError(f"{self._path.name}: a row has unknown columns {sorted(unknown)}; known: {self._schema.names}")
        self._waiting.append(row)
        self.count += 1
        if len(self._waiting) == self._group:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], group: int = 4096) -> int:
    """Stream rows into a Parquet file (`Sink`); returns how many."""
    with Sink(path, schema, group) as sink:
        for row in rows:
            sink.add(row)
    return sink.count


def join(
    parts: Sequence[Path], path: Path, schema: pa.Schema, by: Sequence[str] = (), keep: Callable[[Any], bool] | None = None
) -> None:
    """Write the rows of several files of one schema into one, in their order, without making them Python objects. keep: which of them,
    told from the values of the columns `by`."""
    with pq.ParquetWriter(path, schema, compression="zstd", write_statistics=False) as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches():
                    if keep is not None:
                        batch = batch.filter(
                            pa.array([keep(row) for row in zip(*(batch[name].to_pylist() for name in by), strict=True)])
                        )
                    if batch.num_rows:
                        writer.write_batch(batch)


def _check(path: Path, schema: pa.Schema) -> None:
    try:
        found = pq.read_schema(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: not a readable Parquet file ({error}). Remove it and run its stage again.") from None
    for name in schema.names:
        if name not in found.names:
            raise BadInput(f"{path}: column {name!r} is missing; it has {found.names}. Was it written by another program?")
        if found.field(name).type != schema.field(name).type:
            raise BadInput(f"{path}: column {name!r} has type {found.field(name).type}, expected {schema.field(name).type}.")


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a Parquet file whole, after checking that it is one of ours."""
    _check(path, schema)
    return pq.read_table(path, columns=schema.names)


def read_rows(path: Path, schema: pa.Schema, group: int = 1024) -> Iterator[dict[str, Any]]:
    """Read rows one by one, `group` of them in memory at a time, after checking that the file is one of ours."""
    _check(path, schema)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=group, columns=schema.names):
            yield from batch.to_pylist()
