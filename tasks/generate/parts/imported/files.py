"""Files of logs in pieces that can be read by themselves: JSON lines, JSON, Parquet, folders of the `datasets` library, and what
`cairn serve` keeps. At most one piece is in memory at a time, so that a file may be larger than memory (a JSON file, which has no
lines, may not).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks.contract.params import BadInput
from tasks.generate.parts.imported import kept_answers, programs
from tasks.generate.parts.imported.record import json_of

PIECE = 4 * 2**20
"""Bytes of JSON lines in a piece; ours: some thousand conversations."""
ROWS = 1024
"""Rows of a table in a piece; ours, the same."""
LINES = (".jsonl", ".ndjson")
TABLES = (".parquet", ".arrow")
OWN = ("dataset", "trajectories", "trials")
"""Files of Cairn's own stages that hold conversations; what lies beside them holds none."""
SUFFIXES = (*LINES, *TABLES, ".json")
PACKED = (".gz", ".zip", ".zst", ".bz2", ".xz", ".tar", ".tgz", ".7z")
"""Files that may hold logs and are not read: nobody should think that they were."""


class Piece(NamedTuple):
    """A part of a file: bytes of JSON lines, or rows of a table; `number` is the line or row it begins with, from 1."""

    file: str
    start: int
    length: int
    number: int


class Line(NamedTuple):
    """One value of a file. where: "file:number". value: None with the reason why it could not be read."""

    where: str
    value: Any
    wrong: str = ""


def listed(source: Path) -> list[Path]:
    """The files of logs at a place, sorted. Raises BadInput when there is none."""
    if own := [path for name in OWN if (path := source / f"{name}.parquet").is_file()]:
        return own[:1]
    inside = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    if packed := next((path for path in inside if path.suffix.lower() in PACKED), None):
        raise BadInput(f"{packed}: is packed ({packed.suffix}); unpack it first, or take it out of the folder.")
    found = inside if source.is_file() else [path for path in inside if path.suffix in SUFFIXES]
    if other := next((path for path in inside if path.suffix not in SUFFIXES and path.suffix.lower() in SUFFIXES), None):
        raise BadInput(f"{other}: write the suffix as {other.suffix.lower()}.")
    if (source / "dataset_info.json").is_file() or (source / "dataset_dict.json").is_file():
        found = [path for path in found if path.suffix in TABLES]  # a folder of `datasets`: its JSON files describe the table
    if not found:
        raise BadInput(f"{source}: no file of logs ({', '.join(SUFFIXES)}) lies there.")
    if wrong := [path for path in found if path.suffix not in SUFFIXES]:
        raise BadInput(f"{wrong[0]}: logs are {', '.join(SUFFIXES)} files, this is {wrong[0].suffix or 'a file without a suffix'}.")
    return found


def is_served(source: Path, shape: str) -> bool:
    """Whether a file or folder is what `cairn serve` kept, whose conversations lie in several lines."""
    if shape:
        return shape == "served"
    first = next(kept_answers.read(source), None) if source.suffix in ("", *LINES) else None
    return first is not None and {"prompt_ids", "finish", "created"} <= set(first)


def pieces(source: Path, shape: str = "") -> Iterator[Piece]:
    """The pieces of everything at a place, in order; file names count from it. Raises BadInput for a file that cannot be read."""
    for path in listed(source):
        name = path.relative_to(source).as_posix() if path != source else ""
        try:
            if is_served(path, shape) or path.suffix == ".json":
                yield Piece(name, 0, path.stat().st_size, 1)
            elif path.suffix in LINES:
                yield from _of_lines(path, name)
            else:
                count = _table(path).num_rows
                yield from (Piece(name, start, min(ROWS, count - start), start + 1) for start in range(0, count, ROWS))
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error}).") from None


def _of_lines(path: Path, name: str) -> Iterator[Piece]:
    start, number = 0, 1
    with path.open("rb") as file:
        head = file.read(4)
        encoding = json.detect_encoding(head)
        if head.strip(b"\0") and not encoding.startswith("utf-8"):  # a line's end is no single byte there
            known = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
            raise BadInput(
                f"{path}: is {known[:6]}, which has no lines that can be read one by one. Save it as UTF-8: iconv -f {known} -t UTF-8 "
                f"{path.name} > other.jsonl"
            )
        file.seek(0)
        while block := file.read(PIECE):
            block += file.readline()
            yield Piece(name, start, len(block), number)
            start, number = start + len(block), number + block.count(b"\n")


def lines(source: Path, piece: Piece, shape: str = "") -> Iterator[Line]:
    """The values of a piece, with those that cannot be read and why."""
    path = source / piece.file if piece.file else source
    if is_served(path, shape):
        talks = kept_answers.conversations(list(kept_answers.read(path)))
        yield from (Line(f"{path.name}:{talk[-1]['id']}", talk[-1]) for talk in talks)
    elif path.suffix == ".json":
        yield from _of_json(path)
    elif path.suffix in LINES:
        with path.open("rb") as file:
            file.seek(piece.start)
            block = file.read(piece.length)
        for at, line in enumerate(block.splitlines(), piece.number):
            if line.strip():
                yield _line(f"{path.name}:{at}", line)
    else:
        rows = _table(path).slice(piece.start, piece.length).to_pylist(maps_as_pydicts="lossy")
        for at, row in enumerate(rows, piece.number):
            yield Line(f"{path.name}:{at}", row if "traj_id" in row else _without_nulls(row))


def _without_nulls(value: Any) -> Any:
    """What a row of a table says: a struct has every key that any row has, and null where it says nothing; text may stand as bytes."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _line(where: str, line: bytes) -> Line:
    try:
        return Line(where, json_of(line.decode(json.detect_encoding(line)).removeprefix("\ufeff")))
    except (ValueError, RecursionError) as error:
        return Line(where, None, f"not JSON ({str(error).partition(':')[0]})")


def _of_json(path: Path) -> Iterator[Line]:
    """A file with one value, or a list of them."""
    whole = _line(path.name, path.read_bytes())
    if isinstance(whole.value, dict) and isinstance(whole.value.get("simulations"), list):
        yield from (Line(f"{path.name}:{at}", value) for at, value in enumerate(programs.apart(whole.value), 1))
    elif isinstance(whole.value, list):
        yield from (Line(f"{path.name}:{at}", value) for at, value in enumerate(whole.value, 1))
    else:
        yield whole


@functools.lru_cache(maxsize=2)
def _table(path: Path) -> Any:
    """A Parquet or Arrow file as a table whose columns are read from the disk when they are used."""
    import pyarrow as pa

    try:
        if path.suffix == ".parquet":
            import pyarrow.dataset as ds

            return _Parquet(ds.dataset(path, format="parquet"))
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_stream(file).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: not a readable file of rows ({error}).") from None


class _Parquet:
    """A Parquet file of which slices are read."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.num_rows = dataset.count_rows()

    def slice(self, start: int, length: int) -> Any:
        """Some rows, as a table."""
        return self._dataset.take(list(range(start, start + length)))
