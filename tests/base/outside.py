"""A small checkpoint as people bring it: a random Llama or Qwen3 with a real byte-level BPE tokenizer and the template of a family."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from infra.chat_tokenizers import originals, small_tokenizer
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.runtime import World
from tasks.worlds.library.retail import Retail


def checkpoint(folder: Path, template: str | None = "llama3", family: str = "Llama", **config: Any) -> Path:
    """Write one into `folder`. template: of TRL's by name, a text, or None. family: of transformers' classes."""
    import torch
    import transformers

    tokenizer = small_tokenizer(originals().get(template, template) if template else None)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        "bos_token_id": None,
    }
    torch.manual_seed(0)
    made = getattr(transformers, f"{family}Config")(**{**sizes, **config})
    model = getattr(transformers, f"{family}ForCausalLM")(made)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@cache
def worlds(folder: Path) -> Path:
    """One small frozen world."""
    world = World.build(Retail, 20, 0, "tasks.worlds.library.retail:Retail")
    freeze_world(world, folder / world.name)
    return folder
