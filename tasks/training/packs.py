"""Rows behind each other in one sequence, and what they all begin with once: a system prompt is read once for several conversations.

A pack is `shared` tokens and behind them each row's own rest. A token sees the shared ones and those of its own row before it, at the
positions that it has in its row; so every row is computed as it would be alone, and the shared tokens' gradients add up by themselves.
Cost: attention over one sequence of the pack's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Packing = Literal["none", "rows", "shared_prompt"]
"""none: a row a line, padded. rows: several in one sequence. shared_prompt: the same, what they begin with is there once."""
PACKING = (
    "several rows in one sequence that do not see each other; shared_prompt: what they begin with is computed once (needs pass_tokens)"
)
"""What `packing` means, for the help of the rooms' params."""


@dataclass(frozen=True)
class Pack:
    """rows: numbers of the rows, in the sequence's order. shared: how many of their first tokens stand in it once, for all of them."""

    rows: tuple[int, ...]
    shared: int


def split(rows: Sequence[Sequence[int]], free: Sequence[int], tokens: int, packing: Packing) -> list[Pack]:
    """Rows in packs of at most `tokens` tokens; a longer row is a pack of its own.

    rows: token ids. free: of each row how many first tokens may be shared: fewer than come before the first token that is scored, as
    that one is scored by the token before it. With shared_prompt, rows that begin alike come together.
    """
    order = sorted(range(len(rows)), key=lambda index: list(rows[index])) if packing == "shared_prompt" else range(len(rows))
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


def attention(model: PreTrainedModel, places: Tensor, segments: Tensor) -> dict[str, Tensor]:
    """What a model's forward is called with beside the ids (1, l) of a pack: position_ids (1, l) and attention_mask (1, 1, l, l).

    places, segments: (l,), as `lay_out` says.
    """
    import torch

    length = len(segments)
    seen = (segments[None, :] == segments[:, None]) | (segments == 0)[None, :]
    seen &= torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    if model.config.get_text_config()._attn_implementation == "eager":  # adds the mask to its scores
        far = torch.finfo(torch.float32).min
        return {
            "position_ids": places[None],
            "attention_mask": torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, far)[None, None],
        }
    return {"position_ids": places[None], "attention_mask": seen[None, None]}


def check_model(model: PreTrainedModel, longest: int, where: str) -> None:
    """StageFailed for a model that would not compute the rows of a pack as it computes them alone: by name, or since it is tried.

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
        return
    raise StageFailed(f"{where}: {name} cannot train in packs: {why}. Set loop.packing: none.")


def _tried(model: PreTrainedModel) -> str:
    """What is wrong when two small rows are passed in a pack; empty when nothing is."""
    try:
        apart = _difference(model)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
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
