"""Log-probabilities of the model's own tokens, and nothing else.

TRL's fused head scores every completion token, the tools' and the human's too, and one long conversation pads all the
others: 8.5 s a step where this takes 0.4 s (64 conversations, 0.66 M parameters). Here rows are packed to the left, sorted
by length and passed in chunks; attention is causal without a mask; logits exist only where a token is trained.

Limit: decoder and head are called directly, so wrappers that act on the whole model's forward (FSDP) do not see the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CHUNK = 16
"""Rows of one forward pass: measured best for 64 conversations of 100 to 448 tokens."""


def score(
    model: PreTrainedModel, ids: torch.Tensor, present: torch.Tensor, trained: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities, with gradient, and entropies, without, of the trained tokens at `temperature`; both (b, t), 0
    elsewhere.

    ids, present: (b, p + t) prompts padded left and completions padded right, 1 where a token is. trained: (b, t), 1 where
    the completion token is the model's own and counts.
    """
    import torch

    before = ids.shape[1] - trained.shape[1]
    lengths = present.sum(dim=1)
    live = torch.nonzero(trained.any(dim=1))[:, 0]
    live = live[torch.argsort(lengths[live], descending=True, stable=True)]
    rows, columns, logps, entropies = [], [], [], []
    for chunk in live.split(CHUNK):
        logp, entropy, row, column = _chunk(model, ids[chunk], present[chunk], trained[chunk], before, temperature)
        rows.append(chunk[row])
        columns.append(column)
        logps.append(logp)
        entropies.append(entropy)
    empty = torch.zeros(trained.shape, dtype=torch.float32, device=ids.device)
    if not rows:
        return empty, empty
    where = (torch.cat(rows), torch.cat(columns))
    return empty.index_put(where, torch.cat(logps)), empty.index_put(where, torch.cat(entropies))


def _chunk(
    model: PreTrainedModel,
    ids: torch.Tensor,
    present: torch.Tensor,
    trained: torch.Tensor,
    before: int,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(logp, entropy, row, completion column) of each trained token of a few rows."""
    import torch

    place = present.cumsum(dim=1) - 1
    packed = torch.zeros((len(ids), int(place.max()) + 1), dtype=ids.dtype, device=ids.device)
    row, column = torch.nonzero(present, as_tuple=True)
    packed[row, place[row, column]] = ids[row, column]
    hidden = model.get_decoder()(input_ids=packed, use_cache=False).last_hidden_state
    row, column = torch.nonzero(trained, as_tuple=True)
    logits = model.get_output_embeddings()(hidden[row, place[row, before + column] - 1]).float() / temperature
    full = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        entropy = -(full.exp() * full).sum(dim=-1)
    return full.gather(1, ids[row, before + column][:, None])[:, 0], entropy, row, column
