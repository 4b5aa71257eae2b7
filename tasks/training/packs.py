"""Rows behind each other in one sequence, and what they all begin with once: a system prompt is read once for several conversations.

A pack is `shared` tokens and behind them each row's own rest. A token sees the shared ones and those of its own row before it, at the
positions that it has in its row; so every row is computed as it would be alone, and the shared tokens' gradients add up by themselves.
Cost: attention of each row over itself and what is shared; where a model takes a mask alone, over the pack's whole length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

Packing = Literal["none", "rows", "shared_prompt"]
"""none: a row a line, padded. rows: several in one sequence. shared_prompt: the same, what they begin with is there once."""
PACKING = (
    "several rows in one sequence that do not see each other; shared_prompt: what they begin with is computed once (needs pass_tokens)"
)
"""What `packing` means, for the help of the rooms' params."""
BLOCKS = "sdpa_by_blocks"
"""Name of the packs' own attention in transformers' registry."""


@dataclass(frozen=True)
class Pack:
    """rows: numbers of the rows, in the sequence's order. shared: how many of their first tokens stand in it once, for all of them."""

    rows: tuple[int, ...]
    shared: int


def split(rows: Sequence[Sequence[int]], free: Sequence[int], tokens: int, packing: Packing, sort: bool = True) -> list[Pack]:
    """Rows in packs of at most `tokens` tokens; a longer row is a pack of its own.

    rows: token ids. free: of each row how many first tokens may be shared: fewer than come before the first token that is scored, as
    that one is scored by the token before it. With shared_prompt, rows that begin alike come together; sort: False leaves them in
    their order.
    """
    order: Sequence[int] = range(len(rows))
    if sort and packing == "shared_prompt":
        order = sorted(order, key=lambda index: list(rows[index]))
    packs: list[Pack] = []
    cost = 0
    for index in order:
        last = packs[-1] if packs else None
        if last:
            shared = min(last.shared, free[index]) if packing == "shared_prompt" else 0
            shared = _alike(rows[last.rows[0]], rows[index], shared)
            joint = cost + len(rows[index]) - shared + (len(last.rows) - 1) * (last.shared - shared)
            if joint <= tokens and joint <= cost + len(rows[index]):
                packs[-1], cost = Pack((*last.rows, index), shared), joint
                continue
        packs.append(Pack((index,), free[index] if packing == "shared_prompt" else 0))
        cost = len(rows[index])
    return packs


def _alike(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many of the first `most` tokens are the same."""
    return next((at for at in range(most) if one[at] != other[at]), most)


def lay_out(pack: Pack, lengths: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """(row, place, segment) of each token of a pack: of which row it is taken, at which place there, and who sees it (0: every row of
    the pack; n: its n-th row alone). lengths: tokens of every row."""
    first = pack.rows[0]
    taken, places, segments = [first] * pack.shared, list(range(pack.shared)), [0] * pack.shared
    for number, row in enumerate(pack.rows, 1):
        own = range(pack.shared, lengths[row])
        taken += [row] * len(own)
        places += own
        segments += [number] * len(own)
    return taken, places, segments


def attention(model: PreTrainedModel, places: Tensor, segments: Tensor) -> dict[str, Any]:
    """What a model's forward is called with beside the ids (1, l) of a pack: position_ids (1, l) and attention_mask (1, 1, l, l); of a
    prepared model that takes them also the pack's lengths, with which it computes no score that the mask would throw away.

    places, segments: (l,), as `lay_out` says.
    """
    import torch

    length = len(segments)
    kernel = model.config.get_text_config()._attn_implementation
    if kernel == BLOCKS:
        lengths = torch.unique_consecutive(segments, return_counts=True)[1].tolist()
        lengths = lengths if segments[0] == 0 else [0, *lengths]
        unread = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=segments.device).expand(1, 1, length, length)
        return {"position_ids": places[None], "attention_mask": unread, "pack_lengths": lengths}
    seen = (segments[None, :] == segments[:, None]) | (segments == 0)[None, :]
    seen &= torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    if kernel == "eager":  # adds the mask to its scores
        far = torch.finfo(torch.float32).min
        return {
            "position_ids": places[None],
            "attention_mask": torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, far)[None, None],
        }
    return {"position_ids": places[None], "attention_mask": seen[None, None]}


def _attend_by_blocks(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    pack_lengths: Sequence[int] = (),
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a pack, row by row: what is shared by itself, then each row's own tokens over the shared ones and themselves.

    query: (1, heads, l, d), key and value: (1, key heads, l, d), l the sum of pack_lengths: of the shared tokens and of each row's
    own. Without pack_lengths (another batch) it is transformers' sdpa.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not pack_lengths:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    shared, *rows = pack_lengths
    kwargs.pop("is_causal", None)
    found = []
    if shared:
        begin = (part[:, :, :shared] for part in (query, key, value))
        found.append(sdpa_attention_forward(module, *begin, None, is_causal=True, **kwargs)[0])
    at = shared
    for length in rows:
        keys, values = (torch.cat([part[:, :, :shared], part[:, :, at : at + length]], dim=2) for part in (key, value))
        seen = torch.ones(length, shared + length, dtype=torch.bool, device=query.device).tril(shared)[None, None]
        found.append(sdpa_attention_forward(module, query[:, :, at : at + length], keys, values, seen, is_causal=False, **kwargs)[0])
        at += length
    return torch.cat(found, dim=1), None


def prepare_model(model: PreTrainedModel, longest: int, where: str) -> None:
    """Let a model compute packs by blocks where it can. StageFailed for a model that would not compute the rows of a pack as it
    computes them alone: by name, or since it is tried.

    longest: tokens of the longest row. where: the room's name, for the message.
    """
    config = model.config.get_text_config()
    kernel, name = config._attn_implementation, type(model).__name__
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kernel not in ("sdpa", "eager"):
        why = f"its attention is {kernel}, which takes no mask of its own for a pack (sdpa and eager do)"
    elif window and window < longest:
        why = f"it sees {window} tokens back (sliding_window), and the longest row has {longest}"
    elif not (why := _tried(model)):
        if kernel == "sdpa":
            _take_blocks(model)
        return
    raise StageFailed(f"{where}: {name} cannot train in packs: {why}. Set loop.packing: none.")


def _take_blocks(model: PreTrainedModel) -> None:
    """Set `_attend_by_blocks` for a model; one that does not compute a pack rightly with it keeps its attention and the mask."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not base._supports_attention_backend:
        return
    AttentionInterface.register(BLOCKS, _attend_by_blocks)
    AttentionMaskInterface.register(BLOCKS, sdpa_mask)
    base.set_attn_implementation(BLOCKS)
    if _tried(model):
        base.set_attn_implementation("sdpa")


def _tried(model: PreTrainedModel) -> str:
    """What is wrong when two small rows are passed in a pack; empty when nothing is."""
    try:
        apart = _difference(model)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        return f"it cannot be called with the mask of a pack ({str(error).splitlines()[0][:200]})"
    if apart > (1e-4 if next(model.parameters()).dtype.itemsize >= 4 else 0.05):
        return f"a row's last states in a pack differ from the row's alone by {apart:.2g} of their size: it reads past the mask"
    return ""


def _difference(model: PreTrainedModel) -> float:
    """The largest difference between last hidden states of two small rows in a pack and alone, as a share of the largest state."""
    import torch

    tokens = min(model.config.get_text_config().vocab_size, 1000)
    ids = [[(7 * at + 3) % tokens for at in range(9)] + [(start + 5 * at) % tokens for at in range(6)] for start in (1, 2)]
    pack = Pack((0, 1), 9)
    taken, places, segments = lay_out(pack, [15, 15])
    packed = torch.tensor([[ids[row][place] for row, place in zip(taken, places, strict=True)]], device=model.device)
    decoder, training = model.get_decoder(), model.training
    model.eval()
    with torch.no_grad():
        how = attention(model, torch.tensor(places, device=model.device), torch.tensor(segments, device=model.device))
        together = decoder(input_ids=packed, use_cache=False, **how).last_hidden_state[0].float()
        alone = [
            decoder(input_ids=torch.tensor([row], device=model.device), use_cache=False).last_hidden_state[0].float() for row in ids
        ]
    model.train(training)
    wanted = torch.cat([alone[0], alone[1][9:]])
    return float((together - wanted).abs().max() / wanted.abs().max())


def check(packing: Packing, pass_tokens: int) -> str:
    """What is wrong with these params, or an empty text."""
    if packing != "none" and not pass_tokens:
        return f"packing: {packing} needs pass_tokens, the most tokens of a pack. Allowed: 1 and more, such as 4096."
    return ""
