"""Attention over pages: each page, and each run of pages that several rows share, is attended to on its own; the parts are put together
by their log-sum-exp, which is exact (https://arxiv.org/abs/2205.14135). No key or value is copied for it.

b: rows, n: new tokens, h: query heads, k: key/value heads, g = h / k, d: size of a head, t: tokens of a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.players.local.own.pages import Pages

VIEW_SHARE = 0.5
"""Decoding reads the pool as it lies when at least this share of its pages is wanted, instead of copying those."""


def part(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention of q (b, k, n, d) to keys (b, k, t, d), and its log-sum-exp (b, k, n) in float32. mask: added, (b, 1, n, t)."""
    import torch

    if q.device.type == "cpu":
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, total = fused(q, keys, values, 0.0, False, attn_mask=mask, scale=scale)
        return out, total
    return plain_part(q, keys, values, mask, scale)


def plain_part(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """`part` in plain operations, for devices whose fused kernels give no log-sum-exp with a mask."""
    scores = (q @ keys.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores = scores + mask
    total = scores.logsumexp(-1)
    return (scores - total[..., None]).exp().to(q.dtype) @ values, total


def together(outs: Tensor, totals: Tensor) -> Tensor:
    """One attention (b, k, n, d) out of parts (b, parts, k, n, d) with their log-sum-exps (b, parts, k, n)."""
    shares = (totals - totals.amax(1, keepdim=True)).exp()
    shares = shares / shares.sum(1, keepdim=True)
    return (shares[..., None] * outs.float()).sum(1).to(outs.dtype)


class Decoding:
    """One new token for each of some rows. tables: their pages; rows: so many are computed, the last of them copies of the first.

    whole: a page holds a whole conversation; no more of it is read then than the longest has. Valid until a page is taken or a row
    comes or goes; `at` says how long the rows are.
    """

    def __init__(self, pages: Pages, tables: Sequence[Sequence[int]], rows: int, scale: float, whole: bool) -> None:
        import torch

        self._pages, self._scale, self._whole, self._rows = pages, scale, whole, rows
        self._device = pages.keys[0].device
        self._tables = _square(tables)
        readers: dict[int, list[int]] = {}
        for row, table in enumerate(tables):
            for page in table:
                readers.setdefault(page, []).append(row)
        own = sorted((page, who[0]) for page, who in readers.items() if len(who) == 1)
        wanted = [page for page, _ in own]
        low, high = wanted[0], wanted[-1] + 1
        view = high - low <= len(own) / VIEW_SHARE
        listed = range(low, high) if view else wanted
        self._listed = slice(low, high) if view else self._long(wanted)
        row_of = dict(own)
        place_of = {page: place for page, place in zip(listed, range(len(listed)), strict=True)}
        self._row_of = np.array([row_of.get(page, 0) for page in listed])
        self._begins = np.array([np.iinfo(np.int64).max // 2 if page not in row_of else 0 for page in listed])
        parts: list[list[int]] = [[] for _ in tables]
        for row, table in enumerate(tables):
            for number, page in enumerate(table):
                if page in row_of:
                    self._begins[place_of[page]] = number * pages.tokens
                    parts[row].append(place_of[page])
        self._shared: list[tuple[Tensor, slice | Tensor]] = []
        at = len(listed)
        for run, who in _runs(tables, readers):
            self._shared.append((self._long(who), _slots(run, pages.tokens, self._long)))
            for row in who:
                parts[row].append(at)
                at += 1
        most = max(len(mine) for mine in parts)
        filled = np.array([mine + [at] * (most - len(mine)) for mine in parts])
        self._parts = self._long(np.concatenate([filled, np.repeat(filled[:1], rows - len(tables), 0)]))
        whose = np.arange(rows) if len(listed) == rows else None
        self._queries = None if whose is not None and (whose == self._row_of).all() else self._long(self._row_of)
        self._in_order = most == 1 and not self._shared and bool((self._parts[:, 0] == torch.arange(rows, device=self._device)).all())
        self._masks = self._slots = torch.empty(0)
        self._seen = pages.tokens

    def _long(self, numbers: Sequence[int] | np.ndarray) -> Tensor:
        import torch

        return torch.as_tensor(np.asarray(numbers, dtype=np.int64)).to(self._device)

    def at(self, lengths: np.ndarray, dtype: torch.dtype) -> None:
        """The rows have `lengths` tokens; the next one is written behind them and sees all of them and itself."""
        import torch

        size = self._pages.tokens
        self._slots = self._long(self._tables[np.arange(len(lengths)), lengths // size] * size + lengths % size)
        self._seen = int(lengths.max()) + 1 if self._whole else size
        visible = np.arange(self._seen) <= (lengths[self._row_of] - self._begins)[:, None]
        hidden = ~torch.from_numpy(visible).to(self._device)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=self._device)
        self._masks = mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]

    def __call__(self, layer: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`Attend`, for (b, h, 1, d)."""
        import torch

        b, h, _, d = q.shape
        count = len(self._slots)
        self._pages.write(layer, self._slots, keys[:count, :, 0].transpose(0, 1), values[:count, :, 0].transpose(0, 1))
        kept = [store.unflatten(1, (-1, self._pages.tokens)) for store in (self._pages.keys[layer], self._pages.values[layer])]
        q = q.reshape(b, kept[0].shape[0], -1, d)
        own_keys, own_values = (store[:, self._listed, : self._seen].transpose(0, 1) for store in kept)
        out, total = part(q if self._queries is None else q[self._queries], own_keys, own_values, self._masks, self._scale)
        if self._in_order:
            return out.reshape(b, h, 1, d)
        if self._parts.shape[1] == 1:
            return out[self._parts[:, 0]].reshape(b, h, 1, d)
        outs, totals = [out], [total]
        for rows, slots in self._shared:
            keys, values = (store[None, :, slots] for store in (self._pages.keys[layer], self._pages.values[layer]))
            k, g = q.shape[1:3]
            out, total = part(q[rows].transpose(0, 1).reshape(1, k, -1, d), keys, values, None, self._scale)
            outs.append(out.reshape(k, -1, g, d).transpose(0, 1))
            totals.append(total.reshape(k, -1, g).transpose(0, 1))
        outs.append(torch.zeros_like(outs[0][:1]))
        totals.append(torch.full_like(totals[0][:1], -torch.inf))
        return together(torch.cat(outs)[self._parts], torch.cat(totals)[self._parts]).reshape(b, h, 1, d)


class Prefilling:
    """Some rows read (b, n) new tokens, padded to the right. tables: their pages; lengths: tokens that they have; sizes: new ones.

    seen: tokens of the longest, or a little more: so many are attended to at once.
    """

    def __init__(
        self, pages: Pages, tables: Sequence[Sequence[int]], lengths: np.ndarray, sizes: np.ndarray, new: int, seen: int, scale: float
    ) -> None:
        import torch

        self._pages, self._scale, size = pages, scale, pages.tokens
        device = pages.keys[0].device
        common = 0
        while common < lengths.min() // size and len({table[common] for table in tables}) == 1:
            common += 1

        def long(numbers: Sequence[int] | np.ndarray) -> Tensor:
            return torch.as_tensor(np.asarray(numbers, dtype=np.int64)).to(device)

        self._common = _slots(tables[0][:common], size, long) if common else None
        held = np.arange(common * size, seen)
        square = _square(tables)
        self._tables, self._width = long(square[:, common : common - (-len(held) // size)]), len(held)
        position = lengths[:, None] + np.arange(new)
        visible = torch.from_numpy(held <= position[:, :, None]).to(device)
        mask = torch.zeros(visible.shape, dtype=pages.keys[0].dtype, device=device)
        self._masks = mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)[:, None]
        real = np.arange(new) < sizes[:, None]
        at = position[real]
        self._written = long(np.flatnonzero(real))
        self._targets = long(square[np.nonzero(real)[0], at // size] * size + at % size)

    def __call__(self, layer: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`Attend`."""
        import torch

        b, h, n, d = q.shape
        k = keys.shape[1]
        keys, values = (new.transpose(0, 1).reshape(k, b * n, d)[:, self._written] for new in (keys, values))
        self._pages.write(layer, self._targets, keys, values)
        stores = self._pages.keys[layer], self._pages.values[layer]
        q = q.reshape(b, k, -1, d)
        mask = self._masks if h == k else self._masks.repeat(1, 1, h // k, 1)
        keys, values = (self._gathered(store) for store in stores)
        out, total = part(q, keys, values, mask, self._scale)
        if self._common is not None:
            keys, values = (store[None, :, self._common] for store in stores)
            whole, sums = part(q.transpose(0, 1).reshape(1, k, -1, d), keys, values, None, self._scale)
            whole, sums = whole.reshape(k, b, -1, d).transpose(0, 1), sums.reshape(k, b, -1).transpose(0, 1)
            out = together(torch.stack((whole, out), 1), torch.stack((sums, total), 1))
        return out.reshape(b, h, n, d)

    def _gathered(self, store: Tensor) -> Tensor:
        """(b, k, seen, d), without what all rows have in common: block by block, which is several times faster than slot by slot."""
        paged = store.unflatten(1, (-1, self._pages.tokens))
        if self._tables.shape[1] == 1:
            return paged[:, self._tables[:, 0], : self._width].transpose(0, 1)
        return paged[:, self._tables].flatten(2, 3)[:, :, : self._width].transpose(0, 1)


def _square(tables: Sequence[Sequence[int]]) -> np.ndarray:
    """(rows, most pages): tables filled up with their last page."""
    most = max(len(table) for table in tables)
    return np.array([[*table, *[table[-1]] * (most - len(table))] for table in tables])


def _runs(tables: Sequence[Sequence[int]], readers: dict[int, list[int]]) -> list[tuple[list[int], list[int]]]:
    """Runs of pages that the same rows share, and those rows."""
    runs: dict[tuple[int, ...], list[int]] = {}
    for row, table in enumerate(tables):
        for page in table:
            if len(readers[page]) > 1 and readers[page][0] == row:
                runs.setdefault(tuple(readers[page]), []).append(page)
    return [(pages, list(rows)) for rows, pages in runs.items()]


def _slots(run: Sequence[int], size: int, long: object) -> slice | Tensor:
    """The slots of some pages: as a slice where they lie side by side."""
    if list(run) == list(range(run[0], run[0] + len(run))):
        return slice(run[0] * size, (run[0] + len(run)) * size)
    found: Tensor = long([page * size + at for page in run for at in range(size)])  # type: ignore[operator]
    return found
