"""What will be merged, decided from headers before a single weight is read: everything that does not fit is refused by name.

Refused: other tensor names, shapes or dtypes, another architecture, vocabulary or chat template. All differences are listed
at once. Non-finite values and a base that is not the base show only in the weights; the engine refuses those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.merge.core.adapters import Adapter, is_adapter, open_adapter
from tasks.merge.core.headers import Checkpoint, Mapped, Spec, open_checkpoint, read
from tasks.merge.core.params import MergeParams, layer_positions
from tasks.merge.core.tensors import Full, Source, Stored, Tensor, Values
from tasks.merge.core.vocabulary import Grown, GrownChange, Union, is_table, unite
from tasks.params import BadInput

_VOLATILE = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache"}
_SHOWN = 12  # differences listed in full; the rest is counted, a screen holds no more
_TIED = ("lm_head.weight", "embed_tokens.weight")


@dataclass(frozen=True)
class Plan:
    """specs: tensors of the output by name, sorted. experts: sorted by name, so that their order does not matter."""

    base: Checkpoint
    experts: tuple[Checkpoint | Adapter, ...]
    specs: Mapping[str, Spec]
    positions: Mapping[str, float]
    union: Union | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the experts."""
        return [expert.label for expert in self.experts]

    def stored(self, name: str) -> Mapped:
        """The base's tensor as it lies in its file."""
        return Mapped(self.base.tensors[name])

    def tensor(self, name: str, params: MergeParams) -> Tensor:
        """One tensor, ready to be read in blocks."""
        position = self.positions[name]
        base, sources = self._grown(name) if self.union and is_table(name) else self._plain(name)
        return Tensor(
            name,
            self.specs[name].shape,
            base,
            self.labels,
            sources,
            params.weights_at(name, self.labels, position),
            position,
        )

    def _plain(self, name: str) -> tuple[Values, list[Source]]:
        spec = self.base.tensors[name]
        return Stored(Mapped(spec), spec.dtype), [_source(expert, name) for expert in self.experts]

    def _grown(self, name: str) -> tuple[Values, list[Source]]:
        assert self.union is not None
        tables: list[Values] = []
        for checkpoint in (self.base, *self.experts):
            assert isinstance(checkpoint, Checkpoint)
            spec = checkpoint.tensors[name]
            tables.append(Stored(Mapped(spec), spec.dtype))
        row = self.specs[name].shape[-1]
        changes = [GrownChange(table, places, row) for table, places in zip(tables[1:], self.union.rows[1:], strict=True)]
        return Grown(tables[0], tables[1:], self.union, row), list(changes)

    def carried(self) -> dict[str, str]:
        """Files of the base's folder that say something else in the merged model: name -> text."""
        if self.union is None:
            return {}
        found = {"config.json": json.dumps({**self.base.config, "vocab_size": self.union.size}, indent=2) + "\n"}
        if not self.union.added:
            return found
        tokenizer = json.loads((self.base.folder / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer["added_tokens"] = [*tokenizer.get("added_tokens", []), *self.union.added]
        found["tokenizer.json"] = json.dumps(tokenizer, ensure_ascii=False) + "\n"
        about = self.base.folder / "tokenizer_config.json"
        if about.is_file() and "added_tokens_decoder" in (read := json.loads(about.read_text(encoding="utf-8"))):
            for entry in self.union.added:
                read["added_tokens_decoder"][str(entry["id"])] = {key: value for key, value in entry.items() if key != "id"}
            found["tokenizer_config.json"] = json.dumps(read, indent=2, ensure_ascii=False) + "\n"
        return found


def _source(expert: Checkpoint | Adapter, name: str) -> Source:
    if isinstance(expert, Adapter):
        return expert.source(name)
    spec = expert.tensors[name]
    return Full(Stored(Mapped(spec), spec.dtype))


def make_plan(base: Path, experts: Mapping[str, Path], params: MergeParams | None = None) -> Plan:
    """Open base and experts and compare them; BadInput with the list of differences when they cannot be merged."""
    params = params or MergeParams()
    if not experts:
        raise BadInput("merge: no expert is given; at least one checkpoint besides the base is needed")
    first = _without_tied_head(open_checkpoint("base", base))
    others = tuple(
        open_adapter(name, experts[name], first, params.adapter_base)
        if is_adapter(experts[name])
        else _without_tied_head(open_checkpoint(name, experts[name]))
        for name in sorted(experts)
    )
    full = [other for other in others if isinstance(other, Checkpoint)]
    if not first.tensors:
        raise BadInput(f"base: {base} holds no tensors")
    united = params.tokenizer == "union"
    problems = [line for other in full for line in _differences(first, other, united)]
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more differences" if len(problems) > _SHOWN else ""
        raise BadInput("these checkpoints cannot be merged:\n" + "\n".join(problems[:_SHOWN]) + more)
    union = _union(first, others, full) if united else None
    specs = {name: _output(first.tensors[name], union) for name in sorted(first.tensors)}
    return Plan(first, others, specs, layer_positions(list(specs)), union)


def _union(base: Checkpoint, others: Sequence[Any], full: Sequence[Checkpoint]) -> Union | None:
    if len(full) < len(others):
        raise BadInput("merge: tokenizer: union is for whole checkpoints; merge the adapters into their base first")
    return unite(base, full)


def _output(spec: Spec, union: Union | None) -> Spec:
    return replace(spec, shape=(union.size, *spec.shape[1:])) if union and is_table(spec.name) else spec


def _without_tied_head(checkpoint: Checkpoint) -> Checkpoint:
    """Without the stored copy of a tied output layer: it is the embedding under a second name, which loading restores."""
    head, suffix = _TIED
    if not checkpoint.config.get("tie_word_embeddings") or head not in checkpoint.tensors:
        return checkpoint
    embedding = next((name for name in sorted(checkpoint.tensors) if name.endswith(suffix)), None)
    if embedding is None:
        return checkpoint
    if not np.array_equal(read(checkpoint.tensors[head]), read(checkpoint.tensors[embedding])):
        raise BadInput(
            f"{checkpoint.label}: config.json ties {head} to {embedding}, but the stored values differ. "
            "Save the model again, or set tie_word_embeddings to false if they were trained apart."
        )
    return replace(checkpoint, tensors={name: spec for name, spec in checkpoint.tensors.items() if name != head})


def _differences(base: Checkpoint, other: Checkpoint, united: bool) -> Iterator[str]:
    """One line per difference between the base and an expert. united: added tokens may differ, and the tables' rows with them."""
    label = other.label
    yield from _config_differences(base, other, {"vocab_size"} if united else set())
    for part in sorted({*base.tokenizer, *other.tokenizer} - ({"added_tokens"} if united else set())):
        if base.tokenizer.get(part) != other.tokenizer.get(part):
            hint = " (`tokenizer: union` takes added tokens over)" if part == "added_tokens" else ""
            yield f"{label}: the tokenizer's {part!r} is not the base's: ids or turns would mean different things{hint}"
    mine, theirs = set(base.tensors), set(other.tensors)
    for name in sorted(mine - theirs):
        yield f"{label}: tensor {name!r} is missing; the base has it"
    for name in sorted(theirs - mine):
        yield f"{label}: tensor {name!r} is not in the base"
    for name in sorted(mine & theirs):
        ours, its = base.tensors[name], other.tensors[name]
        free = 1 if united and is_table(name) else 0  # the first dimension counts tokens
        if ours.shape[free:] != its.shape[free:]:
            yield f"{label}: tensor {name!r} has shape {list(its.shape)}, the base's has {list(ours.shape)}"
        elif ours.dtype != its.dtype:
            yield f"{label}: tensor {name!r} has dtype {its.dtype}, the base's has {ours.dtype}; save both alike"


def _config_differences(base: Checkpoint, other: Checkpoint, free: set[str]) -> Iterator[str]:
    for key in sorted({*base.config, *other.config} - _VOLATILE - free):
        ours, its = base.config.get(key), other.config.get(key)
        if ours != its:
            yield f"{other.label}: config.json has {key} = {json.dumps(its)}, the base's has {json.dumps(ours)}"
