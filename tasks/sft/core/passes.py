"""A batch in several passes through the model, each of few enough tokens for the memory; their gradients add up to the batch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.sft.core.data import IGNORED, shareable
from tasks.sft.core.params import Loop
from tasks.training import packs

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.sft.core.scoring import Batch


def parts(batch: Batch, loop: Loop) -> list[Batch]:
    """The rows of a batch as the loop's params pass them: all at once, in lines of at most `pass_tokens` tokens with padding, or in
    packs of as many. A longer row is passed alone.

    A pack is a batch of one line with more of it: places and segments (1, l), see `packs.lay_out`; row_weights (n,) of its n rows.
    """
    if not loop.pass_tokens:
        return [batch]
    lengths = [int(row.nonzero()[-1]) + 1 for row in batch["labels"] != IGNORED]
    if loop.packing == "none":
        return [_lines(batch, chosen, max(lengths[row] for row in chosen)) for chosen in _chosen(lengths, loop.pass_tokens)]
    ids = [row[:length] for row, length in zip(batch["input_ids"].tolist(), lengths, strict=True)]
    free = [shareable(row) for row in batch["labels"].tolist()]
    return [_packed(batch, pack, lengths) for pack in packs.split(ids, free, loop.pass_tokens, loop.packing)]


def _chosen(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if found and (len(found[-1]) + 1) * lengths[row] <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _lines(batch: Batch, rows: Sequence[int], longest: int) -> Batch:
    return {name: value[rows, :longest] if value.dim() > 1 else value[rows] for name, value in batch.items()}


def _packed(batch: Batch, pack: packs.Pack, lengths: Sequence[int]) -> Batch:
    import torch

    def line(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=batch["labels"].device)

    taken, places, segments = map(line, packs.lay_out(pack, lengths))
    made = {name: batch[name][taken, places][None] for name in ("input_ids", "labels")}
    return {**made, "row_weights": batch["row_weights"][list(pack.rows)], "places": places[None], "segments": segments[None]}
