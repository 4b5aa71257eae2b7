"""Memory for keys and values: a pool of pages of a few tokens each, so that memory follows tokens. A full page is found again by the
ids up to its end, and several conversations read it (https://arxiv.org/abs/2309.06180).

A page is written by one conversation, and never again once it is full.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.players.local.own.stack import Stack

PAGE_BYTES = 1 << 22
"""Most bytes of a page over all layers (ours: more leaves more of it empty, less costs a call per page and layer)."""
PAGE_TOKENS = (16, 1024)
"""Fewest and most tokens of a page."""


def page_tokens(stack: Stack, most: int) -> int:
    """Tokens of a page of a stack's keys and values."""
    about = stack.architecture
    return tokens_of_page(2 * about.layers * about.kv_heads * about.size * stack.dtype.itemsize, most)


def tokens_of_page(token: int, most: int) -> int:
    """A power of two within PAGE_BYTES and PAGE_TOKENS; no more than a whole conversation of `most` tokens needs. token: its bytes."""
    fewest, largest = PAGE_TOKENS
    return min(max(fewest, min(largest, 1 << (max(1, PAGE_BYTES // token).bit_length() - 1))), most + 1)


def name_of(before: bytes, ids: Sequence[int]) -> bytes:
    """The name of a full page: of all ids up to its end. before: the name of the page before it, or what its first follows."""
    return hashlib.blake2b(before + array("q", ids).tobytes(), digest_size=16).digest()


class Pages:
    """tokens: of a page. limit: most pages (None: as many as are wanted); the pool doubles until then.

    keys, values: of each layer (kv heads, pages x tokens, head size). in_use: pages that a conversation holds; peak: the most so far.
    """

    def __init__(self, stack: Stack, tokens: int, start: int, limit: int | None) -> None:
        import torch

        self.tokens, self.limit = tokens, limit
        about = stack.architecture
        self.count = start if limit is None else min(start, limit)
        shape = (about.kv_heads, self.count * tokens, about.size)
        self.keys, self.values = (
            [torch.zeros(shape, dtype=stack.dtype, device=stack.device) for _ in range(about.layers)] for _ in range(2)
        )
        self._free = list(range(self.count))
        self._users: dict[int, int] = {}
        self._names: dict[int, bytes] = {}
        self._named: dict[bytes, int] = {}
        self._found: set[int] = set()
        self._unused: dict[int, None] = {}
        """Pages that were read by several and are read by none now; the longest unused first."""
        self.peak = 0

    @property
    def in_use(self) -> int:
        """Pages that conversations hold."""
        return len(self._users)

    def take(self) -> int | None:
        """An empty page, the first that is free; None when the limit is reached and all are held."""
        if not self._free and len(self._unused) > self.count // 4:
            self._forget()
        if not self._free and (self.limit is None or self.count < self.limit):
            self._grow()
        if not self._free and self._unused:
            self._forget()
        if not self._free:
            return None
        page = heapq.heappop(self._free)
        self._users[page] = 1
        self.peak = max(self.peak, len(self._users))
        return page

    def name(self, page: int, name: bytes) -> None:
        """The page is full: whoever reads the same ids may read it."""
        if name not in self._named:
            self._named[name], self._names[page] = page, name

    def find(self, name: bytes) -> int | None:
        """The page of that name, which the caller now holds too; None when there is none."""
        if (page := self._named.get(name)) is not None:
            self._unused.pop(page, None)
            self._users[page] = self._users.get(page, 0) + 1
            self._found.add(page)
            self.peak = max(self.peak, len(self._users))
        return page

    def leave(self, page: int) -> None:
        """One conversation fewer holds it. A page that nobody else ever found is free then."""
        self._users[page] -= 1
        if not self._users[page]:
            del self._users[page]
            self._unused[page] = None
            if page not in self._found:
                self._forget(page)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Keep keys and values (kv heads, new, size) in the slots (new,)."""
        self.keys[layer].index_copy_(1, slots, keys)
        self.values[layer].index_copy_(1, slots, values)

    def _forget(self, page: int | None = None) -> None:
        page = next(iter(self._unused)) if page is None else page
        del self._unused[page]
        self._found.discard(page)
        if (name := self._names.pop(page, None)) is not None:
            del self._named[name]
        heapq.heappush(self._free, page)

    def _grow(self) -> None:
        """Twice as many pages, layer by layer: no more than one layer is there twice."""
        more = self.count if self.limit is None else min(self.count, self.limit - self.count)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                heads, slots, size = old.shape
                tensors[layer] = old.new_zeros(heads, slots + more * self.tokens, size)
                tensors[layer][:, :slots] = old
        self._free += range(self.count, self.count + more)
        self.count += more
