"""Packs: what is shared is there once, rows do not see each other, and a model that would read past the mask is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.contract.params import StageFailed
from tasks.training import packs
from tasks.training.packs import Pack, lay_out, split

PROMPTS = ([1, 2, 3, 4], [1, 9, 9, 9])
ROWS = [[*PROMPTS[index % 2], 20 + index, 30 + index] for index in range(6)]


def test_rows_that_begin_alike_come_together() -> None:
    """By hand: three rows of a prompt of 4 and 2 own tokens each are 10 tokens, not 18; both prompts begin with 1 and stay apart."""
    assert split(ROWS, [4] * 6, 10, "shared_prompt") == [Pack((0, 2, 4), 4), Pack((1, 3, 5), 4)]
    assert split(ROWS, [4] * 6, 9, "shared_prompt") == [Pack((0, 2), 4), Pack((4,), 4), Pack((1, 3), 4), Pack((5,), 4)]
    assert split(ROWS, [2] * 6, 14, "shared_prompt")[0] == Pack(
        (0, 2, 4), 2
    )  # a row that is scored early shares no more than before that
    assert split(ROWS, [4] * 6, 12, "rows") == [Pack((0, 1), 0), Pack((2, 3), 0), Pack((4, 5), 0)]
    assert split(ROWS, [4] * 6, 1, "rows") == [Pack((index,), 0) for index in range(6)]  # longer rows alone
    assert split([], [], 5, "shared_prompt") == []


def test_places_restart_after_the_prompt() -> None:
    assert lay_out(Pack((2, 0), 2), [4, 9, 3]) == ([2, 2, 2, 0, 0], [0, 1, 2, 2, 3], [0, 0, 1, 2, 2])


def model(kernel: str = "sdpa", **more: Any) -> Any:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = CONFIG_MAPPING[more.pop("family", "llama")](vocab_size=64, initializer_range=0.2, **small, **more)
    return AutoModelForCausalLM.from_config(config, attn_implementation=kernel).eval()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_models_whose_attention_takes_a_mask_are_known_by_trying(family: str, kernel: str) -> None:
    subject = model(kernel, family=family)
    packs.prepare_model(subject, 64, "sft")
    assert subject.config._attn_implementation == (packs.BLOCKS if kernel == "sdpa" else kernel)


def test_models_that_would_read_past_the_mask_are_refused_by_name() -> None:
    with pytest.raises(
        StageFailed, match=r"MistralForCausalLM cannot train in packs: it sees 8 tokens back .* longest row has 9. Set loop"
    ):
        packs.prepare_model(model(family="mistral", sliding_window=8), 9, "sft")
    packs.prepare_model(model(family="mistral", sliding_window=16), 16, "sft")
    other = model()
    other.config._attn_implementation = "flash_attention_2"
    with pytest.raises(StageFailed, match=r"LlamaForCausalLM cannot .* its attention is flash_attention_2"):
        packs.prepare_model(other, 9, "sft")
    deaf = model()
    plain = deaf.model.forward
    deaf.model.forward = lambda attention_mask=None, **more: plain(**more)
    with pytest.raises(
        StageFailed, match=r"differ from the row's alone by .* of their size: it reads past the mask. Set loop.packing: none"
    ):
        packs.prepare_model(deaf, 9, "rl")


def test_a_model_without_attention_is_refused() -> None:
    import torch
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    mamba = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)).eval()
    with pytest.raises(StageFailed, match="MambaForCausalLM cannot train in packs"):
        packs.prepare_model(mamba, 64, "sft")


def test_a_model_whose_decoder_does_not_say_its_states_is_refused_by_name() -> None:
    odd = model()
    odd.get_decoder = lambda: odd  # as Llama 4 is built: logits, no last_hidden_state
    with pytest.raises(StageFailed, match=r"cannot be called with the mask of a pack \(.*last_hidden_state.*packing: none"):
        packs.prepare_model(odd, 9, "sft")
