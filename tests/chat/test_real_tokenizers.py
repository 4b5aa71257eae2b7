"""Chat formats of real tokenizers (`make test-real` fetches them): 1,000 conversations each, and masks looked through by another way."""

from __future__ import annotations

from typing import Any

import pytest

from infra.bench_chat import wrong_masks
from infra.chat_tokenizers import originals
from infra.real_tokenizers import FOLDER
from tasks.chat.local.format import BY_TURN, WHOLE, ChatRefused
from tasks.chat.proof import find

pytestmark = pytest.mark.real


def real(name: str, template: str = "") -> Any:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(str(FOLDER / name), local_files_only=True, trust_remote_code=False)
    if template:
        made.chat_template = originals()[template]
    return made


@pytest.mark.parametrize(
    ("name", "template", "named", "form", "by"),
    [
        ("qwen3", "", "auto", WHOLE, "TRL's qwen3_training"),  # its template is not TRL's copy, letter for letter
        ("llama3_1", "", "hermes", WHOLE, "own template"),
        ("llama3_1", "llama3_1", "auto", WHOLE, "own template"),
        ("gptoss", "gptoss", "auto", BY_TURN, "own template"),  # the package carries no template
        ("deepseek_v3", "", "hermes", WHOLE, "own template"),
        ("gemma3", "", "hermes", WHOLE, "own template"),
    ],
)
def test_a_real_tokenizer_is_proven(name: str, template: str, named: str, form: str, by: str) -> None:
    tokenizer = real(name, template)
    chat = find(tokenizer, named)
    assert (chat.form, chat.name, chat.about["conversations"]) == (form, by, 1000)
    assert wrong_masks(tokenizer, chat, 300, 7) == 0


@pytest.mark.parametrize(
    ("name", "failed"),
    [("llama3_1", "drops tool calls"), ("deepseek_v3", "drops tool calls"), ("gemma3", "renders"), ("gptoss", "no chat template")],
)
def test_what_a_real_tokenizer_lacks_is_named(name: str, failed: str) -> None:
    with pytest.raises(ChatRefused) as why:
        find(real(name))
    assert why.value.failed == failed
