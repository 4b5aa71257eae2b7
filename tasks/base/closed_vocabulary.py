"""Builds a tiny Qwen3 over the words of environments: one token a word, random weights, no practice.

The vocabulary is that of all environments of its input together (`tasks/environments/tokens.py`), so that any of them can be told to
the model and played by it, and rows of any of them train it. What the model is to know before an experiment begins, a step of room
`sft` teaches it. With `looks_back`, half of the first layer's heads start as previous-token heads, as those of `tiny_qwen3` do: without
it, sequences in which a word hangs on the one before take several times as long to learn.

Cost: none to speak of; 0.4 M parameters for the default.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.base import Inputs
from tasks.base.core.looking_back import look_back
from tasks.chat.local import kept
from tasks.checkpoints import saving, tiny
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.environments import frozen, tokens, whole_words

TITLE = "Tiny Qwen3 over a closed vocabulary"
PAPER = ""
SLUG = ""
GROUND = "environments"


class Params(Base):
    """What is built."""

    layers: int = Field(2, ge=1, le=16, description="transformer layers; ours")
    width: int = Field(128, ge=32, le=1024, description="hidden size, a multiple of twice the heads; ours")
    heads: int = Field(4, ge=1, le=32, description="attention heads; ours: 32 dimensions a head")
    looks_back: bool = Field(True, description="half of the first layer's heads start as previous-token heads; needs two layers; ours")


def check(params: Params) -> None:
    """Raise BadInput for shapes that make no model."""
    if params.width % (2 * params.heads):
        raise BadInput(
            f"width {params.width} is not a multiple of twice the heads ({params.heads}); rotary positions need heads of even width."
        )
    if params.looks_back and (params.layers < 2 or params.heads < 2):
        raise BadInput(
            f"looks_back: {params.layers} layers of {params.heads} heads cannot look back. Allowed: two layers and two heads at least, "
            "or looks_back: false."
        )


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Build tokenizer and model; leaves model/ and curves.csv, which has no point: nothing is practised."""
    import torch

    torch.set_num_threads(ctx.threads)
    words = tokens.vocabulary(frozen.load_all(inputs.worlds))
    tokenizer = whole_words.tokenizer(words)
    kept.keep(tokenizer, whole_words.chat_format())
    torch.manual_seed(ctx.seed_for("weights"))
    model = tiny.tiny_qwen3(tokenizer, params.layers, params.width, params.heads)
    if params.looks_back:
        with torch.no_grad():
            look_back(model)
    saving.save(model, tokenizer, ctx.out / "model")
    (ctx.out / "curves.csv").write_text("step,loss\n", encoding="utf-8")
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "vocabulary": len(words)}
