"""What will be merged, decided from headers before a single weight is read: everything that does not fit is refused by name.

Refused: other tensor names or shapes, another architecture, vocabulary or chat template (`core.agree`). All differences are listed at
once. Non-finite values and a base that is not the base show only in the weights; the engine refuses those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.checkpoints.adapters import is_adapter
from tasks.contract.params import BadInput
from tasks.merge.core.adapters import HEAD, Adapter, open_adapter
from tasks.merge.core.agree import Agreement, agree
from tasks.merge.core.headers import TEMPLATES, Checkpoint, Mapped, Spec, open_checkpoint, read, read_json
from tasks.merge.core.meaning import is_tied
from tasks.merge.core.params import MergeParams, check_experts, layer_positions
from tasks.merge.core.tensors import Full, Source, Stored, Tensor, Values
from tasks.merge.core.vocabulary import Grown, GrownChange, Union, is_table, unite

_MOST_LISTED = 12  # differences listed in full; the rest is counted, a screen holds no more


@dataclass(frozen=True)
class Plan:
    """specs: tensors of the output by name, sorted. experts: sorted by name, so that their order does not matter. agreed: what holds
    of all that is no weight."""

    base: Checkpoint
    experts: tuple[Checkpoint | Adapter, ...]
    specs: Mapping[str, Spec]
    positions: Mapping[str, float]
    agreed: Agreement
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
        """Files that say something else in the merged model than in the folders they come from: name -> text."""
        agreed, found = self.agreed, {}
        config = agreed.config or (self.base.config if self.union else None)
        if config is not None:
            found["config.json"] = {**config, **({"vocab_size": self.union.size} if self.union else {})}
        if agreed.generation is not None:
            found["generation_config.json"] = dict(agreed.generation)
        about = read_json(agreed.tokenizer / "tokenizer_config.json")
        if self.union and self.union.added:
            tokenizer = read_json(agreed.tokenizer / "tokenizer.json") or {}
            found["tokenizer.json"] = {**tokenizer, "added_tokens": [*tokenizer.get("added_tokens", []), *self.union.added]}
            if about and "added_tokens_decoder" in about:
                added = {str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in self.union.added}
                about["added_tokens_decoder"] |= added
                found["tokenizer_config.json"] = about
        if agreed.template is not None and about and about.pop("chat_template", None):
            found["tokenizer_config.json"] = about  # one place says it: the file of its own
        texts = {
            name: json.dumps(value, indent=None if name == "tokenizer.json" else 2, ensure_ascii=False) + "\n"
            for name, value in found.items()
        }
        return texts | ({} if agreed.template is None else {"chat_template.jinja": agreed.template}) | self.named()

    def named(self) -> dict[str, str]:
        """Files of the chat templates besides the default."""
        return {f"{TEMPLATES}/{name}.jinja": text for name, text in self.agreed.named.items()}


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
    check_experts("merge", params, sorted(experts))
    first = _without_tied_head(open_checkpoint("base", base))
    others = tuple(
        open_adapter(name, experts[name], first, params.called(name))
        if is_adapter(experts[name])
        else _without_tied_head(open_checkpoint(name, experts[name]))
        for name in sorted(experts)
    )
    full = [other for other in others if isinstance(other, Checkpoint)]
    if not first.tensors:
        raise BadInput(f"base: {base} holds no tensors")
    united = params.tokenizer == "union"
    agreed = agree(first, others, params.settle, united)
    if problems := agreed.problems:
        more = f"\n... and {len(problems) - _MOST_LISTED} more differences" if len(problems) > _MOST_LISTED else ""
        raise BadInput("these checkpoints cannot be merged:\n" + "\n".join(problems[:_MOST_LISTED]) + more)
    union = _union(first, others, full) if united else None
    specs = {name: _output(first.tensors[name], union, agreed.dtypes) for name in sorted(first.tensors)}
    return Plan(first, others, specs, layer_positions(list(specs)), agreed, union)


def _union(base: Checkpoint, others: Sequence[Any], full: Sequence[Checkpoint]) -> Union | None:
    if len(full) < len(others):
        raise BadInput("merge: tokenizer: union is for whole checkpoints; merge the adapters into their base first")
    return unite(base, full)


def _output(spec: Spec, union: Union | None, dtypes: Mapping[str, str]) -> Spec:
    shape = (union.size, *spec.shape[1:]) if union and is_table(spec.name) else spec.shape
    return replace(spec, shape=shape, dtype=dtypes.get(spec.name, spec.dtype) if spec.is_float else spec.dtype)


def _without_tied_head(checkpoint: Checkpoint) -> Checkpoint:
    """Without the stored copy of a tied output layer: it is the embedding under a second name, which loading restores."""
    head, suffix = HEAD, "embed_tokens.weight"
    if head not in checkpoint.tensors or not is_tied(checkpoint.config):
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
