"""The output checkpoint: headers first (all sizes are known in advance), then every tensor at its own offset, in any order.

The folder appears whole or not at all: it is written under another name and renamed at the end. Config, tokenizer and chat
template are carried over from the base.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.merge.core.headers import Array, Spec
from tasks.merge.core.plan import Plan

CARRIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "LICENSE",
)
"""Files of a transformers checkpoint folder that go with the weights; nothing else of the base's folder is copied."""


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder to write into; it becomes `folder` when the block ends well and vanishes when it does not."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in sorted(partial.iterdir()):
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class Writer:
    """Lays the tensors of a plan out over shards and takes them in any order, from any thread."""

    def __init__(self, plan: Plan, folder: Path, metadata: Mapping[str, str], max_shard_bytes: int) -> None:
        """folder: exists and is empty. metadata: goes into every shard's header. Writes headers, index and carried files."""
        shards = _shards([plan.base.tensors[name] for name in plan.names], max_shard_bytes)
        self._places: dict[str, tuple[Path, int]] = {}
        weight_map: dict[str, str] = {}
        for number, specs in enumerate(shards, 1):
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            starts = _write_header(folder / name, specs, metadata)
            self._places |= {tensor: (folder / name, start) for tensor, start in starts.items()}
            weight_map |= {spec.name: name for spec in specs}
        if len(shards) > 1:
            total = sum(spec.nbytes for specs in shards for spec in specs)
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        for name in CARRIED:
            if (plan.base.folder / name).is_file():
                (folder / name).write_bytes((plan.base.folder / name).read_bytes())

    def put(self, name: str, stored: Array) -> None:
        """Write one tensor, already in its storage dtype."""
        file, start = self._places[name]
        with file.open("rb+") as stream:
            stream.seek(start)
            stored.tofile(stream)


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


def _write_header(file: Path, specs: Sequence[Spec], metadata: Mapping[str, str]) -> dict[str, int]:
    """Header and room for the data; returns each tensor's offset in the file. Wide dtypes first, so that all are aligned."""
    entries: dict[str, object] = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items()))}
    starts: dict[str, int] = {}
    offset = 0
    for spec in sorted(specs, key=lambda spec: (-(spec.nbytes // max(spec.numel, 1)), spec.name)):
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, offset + spec.nbytes]}
        starts[spec.name] = offset
        offset += spec.nbytes
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + offset)
    return {name: 8 + len(header) + start for name, start in starts.items()}
