"""The engine `transformers`: the model's own forward pass over groups of conversations, for any architecture.

Prompts that wait are read together, padded to the left, and decode together as a group with one cache; who comes later forms a group of
its own, and all groups say one token in turn, so that none waits for another. Who has finished leaves its group at once. Cost: one
forward pass a group and token, which pads its rows to the longest: `own` is faster where it knows the architecture.

transformers' continuous batching is not used: it draws its noise from one generator in the order in which requests are served, so that
the same seed gives other tokens beside other conversations (law 4), and it takes one stop token and one adapter for all.

What a conversation has read and said is not computed again, where every layer keeps all keys and values; an architecture with sliding
windows or states reads its whole prompt at each turn.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.checkpoints.adapters import has_adapter
from tasks.checkpoints.folders import context_of
from tasks.players.local.generation import Generated, Sampling
from tasks.players.local.sampling import choose, uniforms

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

READY_SHARE = 16
"""`poll` answers once one in 16 of the speaking conversations has finished, as the engine `own` does."""
BASE = "__base__"
"""What PEFT calls the base without an adapter, in a list of a batch's adapters."""


@dataclass(eq=False)
class Row:
    """An open conversation. ids: all of them; from `start` on they were produced for the turn that is owed. past: keys and values of
    each layer, (1, heads, tokens, size), of its first `kept` ids, read with the adapter `worn`."""

    conversation: str
    ids: list[int] = field(default_factory=list)
    start: int = 0
    sampling: Sampling | None = None
    logprobs: list[float] = field(default_factory=list)
    owing: bool = False
    past: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    kept: int = 0
    worn: str = ""

    @property
    def want(self) -> Sampling:
        """How its present turn is sampled."""
        assert self.sampling is not None
        return self.sampling


@dataclass(eq=False)
class Group:
    """Rows that decode together. mask: (rows, tokens so far) 1 where the cache holds a token of the row."""

    rows: list[Row]
    cache: Any
    mask: Tensor
    adapter: str


class TransformersEngine:
    """`tasks.players.local.generation.Engine` over a model in eval mode. counts: forward passes, ids read, ids produced."""

    def __init__(self, model: PreTrainedModel, *, rows: int, most: int) -> None:
        self.rows, self.most, self.elsewhere = rows, min(most, context_of(model)), False
        self._model = model
        self._takes = inspect.signature(model.get_base_model().forward if has_adapter(model) else model.forward).parameters
        self._open: dict[str, Row] = {}
        self._waiting: list[Row] = []
        self._groups: list[Group] = []
        self._full: list[str] = []
        self._count = {"passes": 0, "read": 0, "produced": 0}

    @property
    def counts(self) -> Mapping[str, int]:
        """See the class."""
        return dict(self._count)

    def submit(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> None:
        """Owe a turn after `ids`."""
        known = list(self._model.peft_config) if has_adapter(self._model) else []
        if sampling.adapter and sampling.adapter not in known:
            raise LookupError(f"no adapter {sampling.adapter!r} is loaded; there are: {', '.join(known) or 'none'}")
        row = self._open.get(conversation)
        if row is None:
            if len(self._open) >= self.rows:
                raise RuntimeError(f"all {self.rows} rows are in use; close one first")
            row = self._open[conversation] = Row(conversation)
        if row.owing:
            raise RuntimeError(f"conversation {conversation} still owes a turn")
        if len(ids) >= self.most:
            self._full.append(conversation)
            return
        kept = _alike(row.ids, ids, min(row.kept, len(ids) - 1)) if sampling.adapter == row.worn else 0
        row.past = [(keys[..., :kept, :], values[..., :kept, :]) for keys, values in row.past] if kept else []
        row.kept, row.worn = kept, sampling.adapter
        row.ids, row.start, row.sampling, row.logprobs, row.owing = list(ids), len(ids), sampling, [], True
        self._waiting.append(row)

    def poll(self) -> list[Generated]:
        """Conversations without room first, then turns that are finished."""
        import torch

        full, self._full = self._full, []
        finished: list[Row] = []
        with torch.inference_mode():
            if self._waiting:
                waiting, self._waiting = self._waiting, []
                for adapter in sorted({row.want.adapter for row in waiting}):
                    finished += self._read([row for row in waiting if row.want.adapter == adapter], adapter)
            wanted = max(1, sum(len(group.rows) for group in self._groups) // READY_SHARE)
            while self._groups and len(finished) < wanted:
                for group in list(self._groups):
                    finished += self._say(group)
        return [*(Generated(name, (), (), "full") for name in full), *(_turn(row) for row in finished)]

    def close(self, conversation: str) -> None:
        """Free what it alone kept."""
        row = self._open.pop(conversation)
        self._full = [name for name in self._full if name != conversation]
        self._waiting = [other for other in self._waiting if other is not row]
        for group in list(self._groups):
            if row in group.rows:
                self._leave(group, [other is not row for other in group.rows])

    def _read(self, rows: list[Row], adapter: str) -> list[Row]:
        """A new group reads what is new to it, and says its first tokens."""
        import torch

        before, new = max(row.kept for row in rows), max(len(row.ids) - row.kept for row in rows)
        ids, mask = self._zeros(len(rows), new), self._zeros(len(rows), before + new)
        for line, present, row in zip(ids, mask, rows, strict=True):
            unread = row.ids[row.kept :]
            line[new - len(unread) :] = torch.tensor(unread)
            present[before - row.kept : before] = 1
            present[before + new - len(unread) :] = 1
        group = Group(rows, self._cache(rows, before), mask, adapter)
        self._groups.append(group)
        self._count["read"] += sum(len(row.ids) - row.kept for row in rows)
        return self._pass(group, ids)

    def _say(self, group: Group) -> list[Row]:
        """One more token of each row of a group."""
        import torch

        ids = torch.tensor([[row.ids[-1]] for row in group.rows], device=self._model.device)
        group.mask = torch.cat([group.mask, torch.ones_like(ids)], dim=1)
        return self._pass(group, ids)

    def _pass(self, group: Group, ids: Tensor) -> list[Row]:
        """A forward pass over new ids (rows, n), padded to the left; the rows whose turn is over leave."""
        places = (group.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        names = self._wearing(group.adapter)
        more: dict[str, Any] = {"adapter_names": [names] * len(group.rows)} if names else {}
        more |= {name: value for name, value in (("position_ids", places), ("logits_to_keep", 1)) if name in self._takes}
        out = self._model(input_ids=ids, attention_mask=group.mask, past_key_values=group.cache, use_cache=True, **more)
        self._count["passes"] += 1
        self._count["produced"] += len(group.rows)
        seeds = np.array([row.want.seed for row in group.rows], dtype=np.uint64)
        produced = np.array([len(row.ids) - row.start for row in group.rows], dtype=np.uint64)
        heats = np.array([row.want.temperature for row in group.rows], dtype=np.float32)
        tokens, logprobs = choose(out.logits[:, -1], heats, uniforms(seeds, produced))
        over = []
        for row, token, logprob in zip(group.rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.owing = not (token in row.want.stop or len(row.ids) - row.start >= row.want.max_tokens or len(row.ids) >= self.most)
            over.append(not row.owing)
        finished = [row for row, done in zip(group.rows, over, strict=True) if done]
        if finished:
            self._keep(group, over)
            self._leave(group, [not done for done in over])
        return finished

    def _keep(self, group: Group, over: Sequence[bool]) -> None:
        """What the rows that are done have in the cache, without its padding."""
        layers = _layers(group.cache)
        for at, (row, done) in enumerate(zip(group.rows, over, strict=True)):
            if done and layers:
                there = group.mask[at].bool()
                row.past = [(layer.keys[at : at + 1, :, there], layer.values[at : at + 1, :, there]) for layer in layers]
                row.kept = int(there.sum())

    def _leave(self, group: Group, stay: Sequence[bool]) -> None:
        import torch

        if not any(stay):
            self._groups.remove(group)
            return
        chosen = torch.tensor([at for at, stays in enumerate(stay) if stays], device=self._model.device)
        group.rows = [row for row, stays in zip(group.rows, stay, strict=True) if stays]
        group.mask = group.mask[chosen]
        group.cache.reorder_cache(chosen)

    def _cache(self, rows: Sequence[Row], before: int) -> Any:
        """A cache that holds what the rows have read already, padded to the left."""
        import torch
        from torch.nn.functional import pad
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        if before:
            kept = next(row for row in rows if row.past)
            for at, (sample, _) in enumerate(kept.past):
                empty = sample[..., :0, :]
                pairs = [row.past[at] if row.past else (empty, empty) for row in rows]
                keys, values = ([pad(one, (0, 0, before - one.shape[-2], 0)) for one in side] for side in zip(*pairs, strict=True))
                cache.layers[at].update(torch.cat(keys), torch.cat(values))
        return cache

    def _wearing(self, adapter: str) -> str:
        """What PEFT calls the adapter of a pass; "" where it is the active one, or the model wears none."""
        if not has_adapter(self._model) or list(self._model.active_adapters) == [adapter]:
            return ""
        return adapter or BASE

    def _zeros(self, *shape: int) -> torch.Tensor:
        import torch

        return torch.zeros(shape, dtype=torch.long, device=self._model.device)


def _layers(cache: Any) -> list[Any]:
    """The layers of a cache that can be taken up again; none when one of them keeps less than all keys and values."""
    from transformers.cache_utils import DynamicLayer

    return list(cache.layers) if all(type(layer) is DynamicLayer for layer in cache.layers) else []


def _turn(row: Row) -> Generated:
    ids = row.ids[row.start :]
    return Generated(row.conversation, ids, row.logprobs, "stop" if ids[-1] in row.want.stop else "length")


def _alike(first: Sequence[int], second: Sequence[int], most: int) -> int:
    """How many ids both begin with, at most `most`."""
    return next((at for at in range(most) if first[at] != second[at]), most)
