"""Batched generation with one key/value cache that lives across turns: the engine under checkpoint agents and local clients.

Every conversation owns a row of the cache. What it reads is prefilled into its row; what it says is decoded together with
all other rows, one token a step. A row whose conversation ended is given to the next one.

1. Decoding runs over *all* rows up to the highest one in use, as a view of the cache; gathering the active subset halves
   the speed. A row that waits computes along and writes a slot that its next token overwrites.
2. Sampling inverts the CDF at a uniform number that is a hash of (the turn's seed, the position): no generator, so the
   noise does not depend on who finished first.

Cost: one forward pass over all rows a token, one over the new tokens of the rows that read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PREFILL_CELLS = 1 << 23
"""Largest attention mask (rows x new tokens x seen tokens) of one prefill: 32 MiB in fp32."""

READY_SHARE = 16
"""`run` answers once one in 16 of the speaking rows has finished: fewer, larger prefills (ours, measured with
bench-rollout)."""


class RowCache:
    """Keys and values of `rows` conversations of up to `slots` tokens, in the shape that transformers' attention asks for.

    keys, values: (layers, rows, kv heads, slots, head size). Before each forward pass one of `decoding` and `prefilling`
    says which rows and slots the next `update` writes and how much of the cache it hands back.
    """

    is_compileable = False

    def __init__(self, model: PreTrainedModel, rows: int, slots: int) -> None:
        import torch

        config = model.config.get_text_config()
        heads = config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, rows, heads, slots, size)
        self.keys = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.values = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self._every = torch.arange(rows, device=model.device)
        self._rows, self._slots = self._every, self._every
        self._seen, self._gathers = slots, False

    def decoding(self, slots: torch.Tensor, seen: int) -> None:
        """The next pass has one token for each of the first len(slots) rows; it sees slots [0, seen)."""
        self._rows, self._slots, self._seen, self._gathers = self._every[: len(slots)], slots, seen, False

    def prefilling(self, rows: torch.Tensor, slots: torch.Tensor, seen: int) -> None:
        """The next pass has (len(rows), new) tokens for the slots (len(rows), new) and sees slots [0, seen)."""
        self._rows, self._slots, self._seen, self._gathers = rows, slots, seen, True

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys and values (rows, heads, new, size); returns all that the rows may look at."""
        seen = []
        for store, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if self._gathers:
                store[self._rows[:, None], :, self._slots] = new.transpose(1, 2)
                seen.append(store[self._rows, :, : self._seen])
            else:
                store[self._rows, :, self._slots] = new[:, :, 0]
                seen.append(store[: len(self._rows), :, : self._seen])
        return seen[0], seen[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Asked for by models that were given no positions; ours always are."""
        return self._seen

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of a row into another row."""
        for store in (self.keys, self.values):
            store[:, target, :, :length] = store[:, source, :, :length]


@dataclass(eq=False)
class Row:
    """A conversation in the cache. total: its ids, read and produced. carried: its last token, produced but not yet in the
    cache. ids, logprobs: of its present turn. limit: of len(ids)."""

    index: int
    total: int = 0
    limit: int = 0
    carried: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Decoder:
    """Generates in up to `rows` conversations at once; a turn ends with the token `end`, at its limit, or at `most` ids in
    all.

    The model is used as it stands: put it into eval mode first. counts: decode_steps, prefills, ids read and produced.
    """

    def __init__(self, model: PreTrainedModel, end: int, rows: int, most: int) -> None:
        import torch

        self.rows, self.most = rows, most
        self._model, self._end = model, end
        self._decoder, self._head = model.get_decoder(), model.get_output_embeddings()
        self._cache = RowCache(model, rows, most + 1)
        self._slots = torch.arange(most + 1, device=model.device)
        self._by_index: list[Row | None] = [None] * rows
        self._owed: list[tuple[Row, list[int]]] = []
        self._speaking = np.zeros(rows, dtype=bool)
        self._lengths = np.zeros(rows, dtype=np.int64)
        self._next = np.zeros(rows, dtype=np.int64)
        self._seeds = np.zeros(rows, dtype=np.uint64)
        self._temperatures = np.zeros(rows, dtype=np.float32)
        self.counts: dict[str, int] = {"decode_steps": 0, "prefills": 0, "read": 0, "produced": 0}

    def open(self) -> Row:
        """The first free row. Raises RuntimeError when there is none."""
        if None not in self._by_index:
            raise RuntimeError(f"all {self.rows} rows are in use; close one first")
        row = Row(self._by_index.index(None))
        self._by_index[row.index] = row
        return row

    def ask(self, row: Row, ids: Sequence[int], *, seed: int, temperature: float, limit: int) -> bool:
        """The row shall read `ids` and say its next turn; False when they leave it no room to speak (nothing is read
        then)."""
        if row.total + len(ids) >= self.most:
            return False
        row.total += len(ids)
        row.limit, row.ids, row.logprobs = limit, [], []
        self._seeds[row.index], self._temperatures[row.index] = seed, temperature
        self._owed.append((row, [*row.carried, *ids]))
        return True

    def close(self, row: Row) -> None:
        """Give the row to whoever opens next."""
        self._by_index[row.index] = None
        self._speaking[row.index] = False
        self._lengths[row.index] = 0

    def run(self) -> list[Row]:
        """Let the asked rows read, then decode until one in READY_SHARE has finished its turn; the finished rows in
        order."""
        import torch

        with torch.inference_mode():
            finished = self._prefill()
            wanted = max(1, int(self._speaking.sum()) // READY_SHARE)
            while len(finished) < wanted and self._speaking.any():
                finished += self._decode()
        return finished

    def _prefill(self) -> list[Row]:
        """Longest first, so that padding is small; as many rows at a time as the mask's size allows."""
        self._pack()
        owed, self._owed = sorted(self._owed, key=lambda pair: (-len(pair[1]), pair[0].index)), []
        finished: list[Row] = []
        while owed:
            seen = max(int(self._lengths[row.index]) + len(ids) for row, ids in owed)
            count = max(1, PREFILL_CELLS // (len(owed[0][1]) * seen))
            finished += self._read(owed[:count])
            owed = owed[count:]
        return finished

    def _read(self, batch: Sequence[tuple[Row, list[int]]]) -> list[Row]:
        """One forward pass over the new ids of the rows, padded to the right; each says its first token."""
        import torch

        rows = np.array([row.index for row, _ in batch])
        sizes = np.array([len(ids) for _, ids in batch])
        ids = np.zeros((len(batch), int(sizes.max())), dtype=np.int64)
        for line, (_, new) in zip(ids, batch, strict=True):
            line[: len(new)] = new
        # Padding is written behind the row's end, where the next tokens overwrite it; nobody looks there meanwhile.
        slots = np.minimum(self._lengths[rows, None] + np.arange(ids.shape[1]), self.most)
        seen = int((self._lengths[rows] + sizes).max())
        places = self._tensor(slots)
        self._cache.prefilling(self._tensor(rows), places, seen)
        hidden = self._forward(ids, places, self._slots[:seen] <= places[:, :, None])
        self._lengths[rows] += sizes
        self._speaking[rows] = True
        self.counts["prefills"] += 1
        self.counts["read"] += int(sizes.sum())
        return self._say([row for row, _ in batch], hidden[torch.arange(len(batch)), self._tensor(sizes - 1)])

    def _decode(self) -> list[Row]:
        """One more token for every speaking row."""
        rows = np.flatnonzero(self._speaking)
        high = int(rows[-1]) + 1
        places = self._tensor(np.minimum(self._lengths[:high], self.most))
        seen = int(self._lengths[rows].max()) + 1
        self._cache.decoding(places, seen)
        hidden = self._forward(self._next[:high, None], places[:, None], self._slots[:seen] <= places[:, None, None])[:, 0]
        self._lengths[rows] += 1
        self.counts["decode_steps"] += 1
        speakers = [row for index in rows.tolist() if (row := self._by_index[index]) is not None]
        return self._say(speakers, hidden if len(rows) == high else hidden[self._tensor(rows)])

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(array).to(self._model.device)

    def _forward(self, ids: np.ndarray, places: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, new, width) of the decoder stack; logits are computed where they are needed only.

        ids, places: (rows, new). visible: which slots each new token may look at, (rows, new, seen) booleans.
        """
        import torch

        mask = torch.zeros(visible.shape, dtype=self._model.dtype, device=visible.device)
        mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)
        out = self._decoder(
            input_ids=self._tensor(ids),
            attention_mask=mask[:, None],
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def _say(self, speakers: Sequence[Row], hidden: torch.Tensor) -> list[Row]:
        """Choose the next token of each speaker from its last hidden state; returns the rows whose turn is over."""
        rows = np.array([row.index for row in speakers])
        said = np.array([len(row.ids) for row in speakers], dtype=np.uint64)
        noise = uniforms(self._seeds[rows], said)
        ids, logprobs = choose(self._head(hidden), self._temperatures[rows], noise)
        self._next[rows] = ids
        self.counts["produced"] += len(speakers)
        finished = []
        for row, token, logprob in zip(speakers, ids.tolist(), logprobs.tolist(), strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.total += 1
            if token == self._end or len(row.ids) >= row.limit or row.total >= self.most:
                self._speaking[row.index] = False
                row.carried = [token]
                finished.append(row)
        return finished

    def _pack(self) -> None:
        """Move rows from the far end into free ones at the front, so that decoding reads no more rows than it must."""
        while None in self._by_index:
            free = self._by_index.index(None)
            last = next((row for row in reversed(self._by_index) if row is not None), None)
            if last is None or free > last.index:
                return
            self._cache.move(last.index, free, int(self._lengths[last.index]))
            for state in (self._speaking, self._lengths, self._next, self._seeds, self._temperatures):
                state[free] = state[last.index]
            self._speaking[last.index], self._lengths[last.index] = False, 0
            self._by_index[free], self._by_index[last.index] = last, None
            last.index = free


def uniforms(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), one per (seed, position): SplitMix64 (Steele, Lea and Flood, 2014) at step `position` of stream
    `seed`."""
    with np.errstate(over="ignore"):
        z = seeds + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def choose(logits: torch.Tensor, temperatures: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (rows,) and their log-probabilities (rows,) from logits (rows, vocabulary).

    Temperature 0 takes the largest logit, with its log-probability at temperature 1; otherwise the first token whose
    cumulated probability exceeds `uniform` (rows,). `last` keeps rounding from choosing a token of probability zero.
    """
    import torch

    scale = np.where(temperatures > 0, temperatures, 1.0).astype(np.float32)
    shares = torch.softmax(logits.float() / torch.from_numpy(scale)[:, None].to(logits.device), dim=-1)
    ids = shares.argmax(dim=-1, keepdim=True)
    if temperatures.any():
        cdf = shares.cumsum(dim=-1)
        point = torch.from_numpy(uniform.astype(np.float32))[:, None].to(logits.device) * cdf[:, -1:]
        last = torch.searchsorted(cdf, cdf[:, -1:].contiguous())
        drawn = torch.minimum(torch.searchsorted(cdf, point, right=True), last)
        ids = torch.where(torch.from_numpy(temperatures > 0)[:, None].to(logits.device), drawn, ids)
    return ids[:, 0].cpu().numpy(), shares.gather(1, ids)[:, 0].log().cpu().numpy()
