"""A checkpoint of a few thousand weights for the tests of rollout, rl and llm: random, so it babbles, but quick."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chat.local import qwen3_instruct
from tasks.checkpoints import saving, tiny

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORDS = (
    "Hello, please cancel order #W12345, my name is Ada Lovelace.",
    '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W12345"}}\n</tool_call>',
    "You are the retail agent. Your order has been cancelled. Anything else?",
)


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """About 350 entries."""
    return tiny.build_tokenizer(WORDS * 20, 360)


def model(seed: int = 0, layers: int = 2, width: int = 32, loudness: float = 4.0, end: float = 1.0) -> PreTrainedModel:
    """Eval mode. loudness widens the distribution's peaks, end > 1 makes <|im_end|> likelier."""
    import torch

    torch.manual_seed(seed)
    made = tiny.tiny_qwen3(tokenizer(), layers=layers, width=width, heads=2)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() == 2:
                weight.mul_(loudness)
        made.get_input_embeddings().weight[tokenizer().convert_tokens_to_ids(qwen3_instruct.END)] *= end
    return made.eval()


def saved(folder: Path, **how: float) -> Path:
    """The model as a checkpoint folder."""
    saving.save(model(**how), tokenizer(), folder)  # type: ignore[arg-type]
    return folder
