"""What will be merged, decided from headers before a single weight is read: everything that does not fit is refused by name.

Refused: other tensor names, shapes or dtypes, another architecture, vocabulary or chat template. All differences are listed
at once. Non-finite values and a base that is not the base show only in the weights; the engine refuses those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.merge.core.headers import Checkpoint, Spec, open_checkpoint, read
from tasks.params import BadInput

_VOLATILE = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache"}
_SHOWN = 12  # differences listed in full; the rest is counted, a screen holds no more
_TIED = ("lm_head.weight", "embed_tokens.weight")


@dataclass(frozen=True)
class Plan:
    """names: tensors of the output, sorted. experts: sorted by name, so that their order does not matter."""

    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    names: tuple[str, ...]

    def sources(self, name: str) -> tuple[Spec, ...]:
        """Where one tensor lies in the base and in each expert, base first."""
        return tuple(checkpoint.tensors[name] for checkpoint in (self.base, *self.experts))


def make_plan(base: Path, experts: Mapping[str, Path]) -> Plan:
    """Open base and experts and compare them; BadInput with the list of differences when they cannot be merged."""
    if not experts:
        raise BadInput("merge: no expert is given; at least one checkpoint besides the base is needed")
    first = open_checkpoint("base", base)
    others = tuple(open_checkpoint(name, experts[name]) for name in sorted(experts))
    dropped = {id(checkpoint): _tied_copy(checkpoint) for checkpoint in (first, *others)}
    names = {id(checkpoint): set(checkpoint.tensors) - dropped[id(checkpoint)] for checkpoint in (first, *others)}
    if not names[id(first)]:
        raise BadInput(f"base: {base} holds no tensors")
    problems: list[str] = []
    for other in others:
        problems += _differences(first, other, names[id(first)], names[id(other)])
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more differences" if len(problems) > _SHOWN else ""
        raise BadInput("these checkpoints cannot be merged:\n" + "\n".join(problems[:_SHOWN]) + more)
    return Plan(first, others, tuple(sorted(names[id(first)])))


def _tied_copy(checkpoint: Checkpoint) -> set[str]:
    """The stored copy of a tied output layer: it is the embedding under a second name, which loading restores."""
    head, suffix = _TIED
    if not checkpoint.config.get("tie_word_embeddings") or head not in checkpoint.tensors:
        return set()
    embedding = next((name for name in sorted(checkpoint.tensors) if name.endswith(suffix)), None)
    if embedding is None:
        return set()
    if not np.array_equal(read(checkpoint.tensors[head]), read(checkpoint.tensors[embedding])):
        raise BadInput(
            f"{checkpoint.label}: config.json ties {head} to {embedding}, but the stored values differ. "
            "Save the model again, or set tie_word_embeddings to false if they were trained apart."
        )
    return {head}


def _differences(base: Checkpoint, other: Checkpoint, mine: set[str], theirs: set[str]) -> Iterator[str]:
    """One line per difference between the base and an expert."""
    label = other.label
    yield from _config_differences(base, other)
    for part in sorted({*base.tokenizer, *other.tokenizer}):
        if base.tokenizer.get(part) != other.tokenizer.get(part):
            yield f"{label}: the tokenizer's {part!r} is not the base's: ids or turns would mean different things"
    for name in sorted(mine - theirs):
        yield f"{label}: tensor {name!r} is missing; the base has it"
    for name in sorted(theirs - mine):
        yield f"{label}: tensor {name!r} is not in the base"
    for name in sorted(mine & theirs):
        ours, its = base.tensors[name], other.tensors[name]
        if ours.shape != its.shape:
            yield f"{label}: tensor {name!r} has shape {list(its.shape)}, the base's has {list(ours.shape)}"
        elif ours.dtype != its.dtype:
            yield f"{label}: tensor {name!r} has dtype {its.dtype}, the base's has {ours.dtype}; save both alike"


def _config_differences(base: Checkpoint, other: Checkpoint) -> Iterator[str]:
    for key in sorted({*base.config, *other.config} - _VOLATILE):
        ours, its = base.config.get(key), other.config.get(key)
        if ours != its:
            yield f"{other.label}: config.json has {key} = {json.dumps(its)}, the base's has {json.dumps(ours)}"
