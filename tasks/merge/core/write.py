"""The output checkpoint: headers first (all sizes are known in advance), then every block at its own offset, in any order.

It is written into a folder of its own, which the engine renames at the end. While it is written, a thread brings it to the disk,
so that little is left to wait for when the last block is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Self

import numpy as np

from tasks.merge.core.headers import Array, Spec
from tasks.merge.core.plan import Plan

OF_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_format.json",
)
"""Files of a transformers checkpoint folder that turn text into ids: all from one folder, the base's unless that has none."""
CARRIED = ("config.json", "generation_config.json", *OF_TOKENIZER, "LICENSE")
"""Files that go with the weights; nothing else of a folder is copied."""


FLUSH = 0.5
"""Seconds between two turns of the thread that brings what is written to the disk."""


class Writer:
    """Lays the tensors of a plan out over shards and takes their blocks in any order, from any thread."""

    def __init__(self, plan: Plan, folder: Path, metadata: Mapping[str, str], max_shard_bytes: int, goes_on: bool = False) -> None:
        """folder: exists. metadata: goes into every shard's header. goes_on: the shards are there, with some of their tensors."""
        shards = _shards(list(plan.specs.values()), max_shard_bytes)
        self._places: dict[str, tuple[int, int, int]] = {}
        self._open: list[int] = []
        weight_map: dict[str, str] = {}
        for number, specs in enumerate(shards, 1):
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            starts = _layout(folder / name, specs, metadata, write=not goes_on)
            handle = os.open(folder / name, os.O_RDWR)
            self._open.append(handle)
            self._places |= {spec.name: (handle, starts[spec.name], spec.itemsize) for spec in specs}
            weight_map |= {spec.name: name for spec in specs}
        if len(shards) > 1:
            total = sum(spec.nbytes for specs in shards for spec in specs)
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        _carry(plan, folder)
        self._ended = Event()
        self._flusher = Thread(target=self._flush, daemon=True)

    def __enter__(self) -> Self:
        self._flusher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """All of it is on the disk; after an error, none of it need be."""
        self._ended.set()
        self._flusher.join()
        for handle in self._open:
            if kind is None:
                os.fsync(handle)
            os.close(handle)

    def put(self, name: str, start: int, stored: Array) -> None:
        """Write the entries of a tensor from flat index `start` on, already in its storage dtype."""
        handle, offset, size = self._places[name]
        left = np.ascontiguousarray(stored).data.cast("B")
        offset += start * size
        while left:
            written = os.pwrite(handle, left, offset)
            left, offset = left[written:], offset + written

    def _flush(self) -> None:
        while not self._ended.wait(FLUSH):
            for handle in self._open:
                os.fdatasync(handle)


def _carry(plan: Plan, folder: Path) -> None:
    """Config, tokenizer and chat template, with what the plan says differently."""
    said = plan.carried()
    for name in CARRIED:
        source = (plan.agreed.tokenizer if name in OF_TOKENIZER else plan.base.folder) / name
        if name in said:
            (folder / name).write_text(said[name], encoding="utf-8")
        elif name == "chat_format.json" and "chat_template.jinja" in said:
            continue  # it was proven for another template
        elif source.is_file():
            (folder / name).write_bytes(source.read_bytes())
    for name, text in plan.named().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _shards(specs: Sequence[Spec], limit: int) -> list[list[Spec]]:
    """Fill shards in the order of names; a tensor larger than the limit gets a shard of its own."""
    shards: list[list[Spec]] = [[]]
    used = 0
    for spec in specs:
        if shards[-1] and used + spec.nbytes > limit:
            shards.append([])
            used = 0
        shards[-1].append(spec)
        used += spec.nbytes
    return shards


def _layout(file: Path, specs: Sequence[Spec], metadata: Mapping[str, str], write: bool) -> dict[str, int]:
    """Write header and room for the data, if asked to; returns each tensor's offset. Wide dtypes first, so that all are aligned."""
    entries: dict[str, object] = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items()))}
    starts: dict[str, int] = {}
    offset = 0
    for spec in sorted(specs, key=lambda spec: (-spec.itemsize, spec.name)):
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, offset + spec.nbytes]}
        starts[spec.name] = offset
        offset += spec.nbytes
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    if write:
        with file.open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            stream.truncate(8 + len(header) + offset)
    return {name: 8 + len(header) + start for name, start in starts.items()}
