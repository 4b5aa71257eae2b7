"""The engine `own`: a decoder in this process whose conversations join and leave at any step.

What a conversation reads is prefilled; what it says is decoded together with all others that speak, one token a step. Prompts that
begin alike are computed once, in whole pages. Cost: one forward pass over the speaking rows a token, one over the new tokens of those
that read.

1. On a CPU a row's numbers do not depend on who else is computed: fewer than FEWEST rows, which take other kernels, are filled up, and
   pages are attended to whole. Sums differ in the last bits, and tokens do not, where rows share a prompt, which is attended to at once
   for all of them, and where a page holds a whole conversation (a tiny model), since attention is as wide there as the longest speaker.
2. When no page is left, conversations that wait for their next turn give theirs up, then the youngest speaker; what they read is
   computed again later, and the tokens stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.contract.params import StageFailed
from tasks.players.local.generation import Generated, Sampling
from tasks.players.local.own.attention import Decoding, Prefilling
from tasks.players.local.own.memory import Memory, Row
from tasks.players.local.own.pages import Pages, page_tokens
from tasks.players.local.own.stack import Adapter, Stack, Worn
from tasks.players.local.sampling import choose, uniforms

if TYPE_CHECKING:
    from torch import Tensor

PREFILL_CELLS = 1 << 23
"""Largest attention mask (rows x new tokens x seen tokens) of one prefill: 32 MiB in fp32."""
READY_SHARE = 16
"""`poll` answers once one in 16 of the speaking rows has finished: fewer, larger prefills (ours, measured with bench-rollout)."""
FEWEST = 4
"""Rows from which on a CPU's matrix products give a row the same numbers whatever their count (measured: MKL, AVX2)."""


@dataclass
class _Batch:
    """Rows that decode together until one comes or goes, or their pages change.

    computed: their places, and the first again until enough are computed. room: tokens that their pages hold; lengths: tokens kept;
    tokens: the last of each; produced: ids of its turn.
    """

    rows: list[Row]
    changes: int
    attend: Decoding
    worn: Worn
    computed: np.ndarray
    room: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray
    seeds: np.ndarray
    temperatures: np.ndarray
    produced: np.ndarray


class OwnEngine:
    """`tasks.players.local.generation.Engine` over a stack. adapters: by the name that a `Sampling` gives. rows, most: see there; no
    conversation grows beyond the checkpoint's positions.

    memory: bytes that keys and values may take; None: as many as the tokens need. counts: decode_steps, prefills, ids read, ids shared
    (found computed), ids produced, pages in use, the most pages that were in use, tokens of a page.
    """

    def __init__(
        self, stack: Stack, adapters: Mapping[str, Adapter], *, rows: int, most: int, memory: int | None = None, page: int | None = None
    ) -> None:
        self.rows, self.most, self.elsewhere = rows, min(most, stack.architecture.context), False
        self._stack, self._adapters = stack, dict(adapters)
        size = page or page_tokens(stack, self.most)
        self._whole = size > self.most
        about = stack.architecture
        limit = None if memory is None else memory // (2 * about.layers * about.kv_heads * about.size * stack.dtype.itemsize * size)
        if limit is not None and limit * size <= self.most:
            raise StageFailed(
                f"engine own: one conversation of {self.most} tokens needs {self.most // size + 1} pages of {size} tokens, and the "
                f"memory for keys and values ({memory} bytes) holds {limit}. Lower max_episode_tokens, or give more memory."
            )
        self._pages = Pages(stack, size, rows if self._whole else min(64, rows), limit)
        self._scale = about.size**-0.5
        self._by_number: list[Row | None] = [None] * rows
        self._open: dict[str, Row] = {}
        self._memory = Memory(self._pages, self._open)
        self._full: list[str] = []
        self._opened = 0
        self._batch: _Batch | None = None
        self._count = {"decode_steps": 0, "prefills": 0, "read": 0, "shared": 0, "produced": 0}

    @property
    def counts(self) -> Mapping[str, int]:
        """See the class."""
        pages = self._pages
        return {**self._count, "pages": pages.in_use, "most_pages": pages.peak, "page_tokens": pages.tokens}

    @property
    def stack(self) -> Stack:
        """What it computes with."""
        return self._stack

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Serve an adapter too. name: never used before, since pages are found again by it. ValueError when it is there."""
        if name in self._adapters:
            raise ValueError(f"the adapter {name} is loaded already")
        self._adapters[name] = adapter

    def remove_adapter(self, name: str) -> None:
        """Serve it no longer. LookupError when there is none, RuntimeError while an open conversation plays with it."""
        if any(row.owing and row.want.adapter == name for row in self._open.values()):
            raise RuntimeError(f"the adapter {name} is in use")
        del self._adapters[name]

    def submit(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> None:
        """Owe a turn after `ids`; what of them the conversation has read or said is not computed again."""
        if sampling.adapter and sampling.adapter not in self._adapters:
            raise LookupError(f"no adapter {sampling.adapter!r} is loaded; there are: {', '.join(sorted(self._adapters)) or 'none'}")
        if self._stack.only and sampling.adapter != self._stack.only:
            raise LookupError(
                f"engine own: modules that were trained whole with the adapter {self._stack.only!r} are in place, so nothing plays "
                f"without it; asked for was {sampling.adapter!r}. Train without modules_to_save, or load the base a second time."
            )
        row = self._open.get(conversation) or self._new(conversation)
        if row.owing:
            raise RuntimeError(f"conversation {conversation} still owes a turn")
        if len(ids) >= self.most:
            self._full.append(conversation)
            return
        same = row.sampling is not None and row.sampling.adapter == sampling.adapter
        self._memory.go_back(row, _alike(row.ids, ids, min(row.kept, len(ids) - 1)) if same else 0)
        row.ids, row.start, row.sampling, row.logprobs = list(ids), len(ids), sampling, []
        row.owing = True

    def poll(self) -> list[Generated]:
        """Conversations without room first, then turns: owed prompts are read, then rows decode until one in READY_SHARE is done."""
        import torch

        full, self._full = self._full, []
        with torch.inference_mode():
            finished: list[Row] = []
            while not finished and any(row.owing for row in self._open.values()):
                finished = self._prefill()
                speaking = self._speaking()
                wanted = max(1, len(speaking) // READY_SHARE)
                while len(finished) < wanted and speaking:
                    finished += self._decode(speaking)
                    speaking = self._speaking()
        return [*(Generated(name, (), (), "full") for name in full), *(self._turn(row) for row in finished)]

    def step(self) -> list[Generated]:
        """As `poll`, but for one token of each conversation at most, so that the answer may be empty: for whoever shows what is being
        said. Owed prompts are read, which gives their first tokens; where none is, all that speak say one more. Tokens are those of
        `poll`."""
        import torch

        full, self._full = self._full, []
        before = self._count["prefills"]
        with torch.inference_mode():
            finished = self._prefill()
            if self._count["prefills"] == before and (speaking := self._speaking()):
                finished += self._decode(speaking)
        return [*(Generated(name, (), (), "full") for name in full), *(self._turn(row) for row in finished)]

    def so_far(self, conversation: str) -> Generated:
        """What has been produced of the turn that a conversation owes; finish is `length`."""
        row = self._open.get(conversation)
        if row is None or not row.owing:
            return Generated(conversation, (), (), "length")
        return Generated(conversation, row.ids[row.start :], list(row.logprobs), "length")

    def close(self, conversation: str) -> None:
        """Free what it alone kept."""
        row = self._open.pop(conversation)
        self._by_number[row.number] = None
        self._full = [name for name in self._full if name != conversation]
        row.speaking = row.owing = False
        self._memory.go_back(row, 0)

    def _new(self, conversation: str) -> Row:
        if None not in self._by_number:
            raise RuntimeError(f"all {self.rows} rows are in use; close one first")
        row = self._open[conversation] = Row(conversation, self._by_number.index(None), self._opened)
        self._by_number[row.number] = row
        self._opened += 1
        return row

    def _speaking(self) -> list[Row]:
        return [row for row in self._by_number if row is not None and row.speaking]

    def _turn(self, row: Row) -> Generated:
        ids = row.ids[row.start :]
        return Generated(row.conversation, ids, row.logprobs, "stop" if ids[-1] in row.want.stop else "length")

    # reading

    def _prefill(self) -> list[Row]:
        """Longest first, so that padding is small; as many rows at a time as the mask's size allows. Of prompts that begin alike one is
        read first, and the others find its pages."""
        self._renumber()
        owed = [row for row in self._by_number if row is not None and row.owing and not row.speaking]
        finished: list[Row] = []
        while owed:
            wave: list[Row] = []
            later: list[Row] = []
            coming: set[bytes] = set()
            for row in owed:
                before = row.kept
                missing = self._memory.find_shared(row)
                self._count["shared"] += row.kept - before
                (later if missing and missing[0] in coming else wave).append(row)
                coming.update(missing)
            wave.sort(key=lambda row: (row.kept - len(row.ids), row.number))
            while wave:
                seen = max(len(row.ids) for row in wave)
                cells = (len(wave[0].ids) - wave[0].kept) * seen * self._stack.architecture.group
                count = max(1, PREFILL_CELLS // cells)
                finished += self._read(wave[:count])
                wave = wave[count:]
            owed = later
        return finished

    def _read(self, rows: Sequence[Row]) -> list[Row]:
        """Forward passes over the new ids of the rows; each says its first token."""
        ready = [row for row in rows if self._memory.reserve(row, len(row.ids))]
        ready = [row for row in ready if len(row.pages) * self._pages.tokens >= len(row.ids)]  # none gave its pages to a later one
        if not ready:
            return []
        if len(ready) == 1:
            row = ready[0]
            piece = max(256, PREFILL_CELLS // (len(row.ids) * self._stack.architecture.group))
            while len(row.ids) - row.kept > piece:
                self._pass(ready, piece)
        hidden = self._pass(ready, max(len(row.ids) - row.kept for row in ready))
        for row in ready:
            row.speaking = True
            self._memory.name_full(row)
        return self._sample(ready, hidden, **_noise(ready))[0]

    def _pass(self, rows: Sequence[Row], most: int) -> Tensor:
        """One forward pass over at most `most` new ids of each row, padded to the right; the hidden state of each row's last."""
        import torch

        lengths = np.array([row.kept for row in rows])
        sizes = np.array([min(most, len(row.ids) - row.kept) for row in rows])
        new, seen = int(sizes.max()), int((lengths + sizes).max())
        if not self._whole:
            new, seen = -(-new // FEWEST) * FEWEST, -(-seen // 16) * 16
        ids = np.zeros((len(rows), new), dtype=np.int64)
        for line, row, size in zip(ids, rows, sizes.tolist(), strict=True):
            line[:size] = row.ids[row.kept : row.kept + size]
        places = np.minimum(lengths[:, None] + np.arange(new), self.most)
        attend = Prefilling(self._pages, [row.pages for row in rows], lengths, sizes, new, seen, self._scale)
        hidden = self._stack.hidden(self._tensor(ids), self._tensor(places), attend, self._worn(rows))
        for row, size in zip(rows, sizes.tolist(), strict=True):
            row.kept += size
        self._count["prefills"] += 1
        self._count["read"] += int(sizes.sum())
        return hidden[torch.arange(len(rows)), self._tensor(sizes - 1)]

    # speaking

    def _decode(self, speaking: list[Row]) -> list[Row]:
        """One more token for every speaking row."""
        batch = self._batch
        if batch is None or batch.rows != speaking or batch.changes != self._memory.changes or (batch.lengths >= batch.room).any():
            batch = self._batch = self._gather(speaking)
        if batch is None:
            return []
        rows, count = batch.rows, len(batch.rows)
        batch.attend.at(batch.lengths, self._stack.dtype)
        ids, places = batch.tokens[batch.computed][:, None], batch.lengths[batch.computed][:, None]
        hidden = self._stack.hidden(self._tensor(ids), self._tensor(places), batch.attend, batch.worn)[:, 0]
        for row in rows:
            row.kept += 1
        self._count["decode_steps"] += 1
        finished, batch.tokens = self._sample(rows, hidden[:count], batch.seeds, batch.temperatures, batch.produced)
        batch.lengths += 1
        batch.produced += 1
        return finished

    def _gather(self, speaking: Sequence[Row]) -> _Batch | None:
        """The rows that have room for one more token, the oldest first to be given it; None when all must wait."""
        for row in sorted(speaking, key=lambda row: row.born):
            if row.speaking and not self._memory.reserve(row, row.kept + 1):
                row.speaking = False
        rows = [row for row in speaking if row.speaking]
        if not rows:
            return None
        count = max(len(rows), min(FEWEST, rows[-1].number + 1 if self._whole else FEWEST))
        computed = np.array([*range(len(rows)), *[0] * (count - len(rows))])
        return _Batch(
            rows=rows,
            changes=self._memory.changes,
            attend=Decoding(self._pages, [row.pages for row in rows], count, self._scale, self._whole),
            worn=self._worn([rows[at] for at in computed]),
            computed=computed,
            room=np.array([len(row.pages) * self._pages.tokens for row in rows]),
            lengths=np.array([row.kept for row in rows]),
            tokens=np.array([row.ids[-1] for row in rows]),
            **_noise(rows),
        )

    def _sample(
        self, rows: Sequence[Row], hidden: Tensor, seeds: np.ndarray, temperatures: np.ndarray, produced: np.ndarray
    ) -> tuple[list[Row], np.ndarray]:
        """Choose the next token of each row from its last hidden state; the rows whose turn is over, and the tokens."""
        import torch

        if not self._whole and len(rows) < FEWEST:
            hidden = torch.cat([hidden, hidden[:1].expand(FEWEST - len(rows), -1)])
        logits, noise = self._stack.logits(hidden)[: len(rows)], uniforms(seeds, produced)
        ids, logprobs = choose(logits, temperatures, noise, [row.want.top_p for row in rows])
        self._count["produced"] += len(rows)
        finished = []
        for row, token, logprob in zip(rows, ids.tolist(), logprobs.tolist(), strict=True):
            row.ids.append(token)
            row.logprobs.append(logprob)
            if token in row.want.stop or len(row.logprobs) >= row.want.max_tokens or len(row.ids) >= self.most:
                row.speaking = row.owing = False
                self._memory.name_full(row)
                finished.append(row)
        return finished, ids

    def _worn(self, rows: Sequence[Row]) -> Worn:
        names = {row.want.adapter for row in rows}
        if len(names) == 1:
            return [(self._adapters[name], None) for name in names if name]
        who = {name: [at for at, row in enumerate(rows) if row.want.adapter == name] for name in sorted(names) if name}
        return [(self._adapters[name], self._tensor(np.array(at))) for name, at in who.items()]

    def _tensor(self, array: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(array).to(self._stack.device)

    def _renumber(self) -> None:
        """Give the numbers at the front to rows from the far end."""
        while None in self._by_number:
            free = self._by_number.index(None)
            last = next((row for row in reversed(self._by_number) if row is not None), None)
            if last is None or free > last.number:
                return
            self._by_number[free], self._by_number[last.number] = last, None
            last.number = free


def _noise(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Of each row, what its next token is drawn by."""
    return {
        "seeds": np.array([row.want.seed for row in rows], dtype=np.uint64),
        "temperatures": np.array([row.want.temperature for row in rows], dtype=np.float32),
        "produced": np.array([len(row.logprobs) for row in rows], dtype=np.uint64),
    }


def _alike(first: Sequence[int], second: Sequence[int], most: int) -> int:
    """How many ids both begin with, at most `most`."""
    if list(first[:most]) == list(second[:most]):
        return most
    return next(at for at in range(most) if first[at] != second[at])
