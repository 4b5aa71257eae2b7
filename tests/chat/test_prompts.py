"""The agent's system prompt carries what the prompt params say.

By hand: for a world "shop" with policy "Be kind." and tools a, b, {tools: none, policy: none} is "You are the shop agent.";
{tools: names, policy: full} is "You are the shop agent.\n\nBe kind.\n\n# Tools\n\na, b".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.chat.local import hermes
from tasks.chat.local.kept import QWEN3_INSTRUCT
from tasks.contract.params import BadInput
from tasks.worlds.api.system_prompt import check_prompt, system_message, tools_of
from tests.chat.talks import tokenizer


@dataclass
class Shop:
    name: str = "shop"
    policy: str = "Be kind.\n"
    tools: dict[str, Any] = field(default_factory=lambda: {"a": None, "b": None})

    def schemas(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": name, "description": "Zürich"}} for name in self.tools]


def test_one_line_names_the_world() -> None:
    assert system_message(Shop(), {"tools": "none", "policy": "none"}) == "You are the shop agent."


def test_names_and_policy() -> None:
    assert system_message(Shop(), {"tools": "names", "policy": "full"}) == "You are the shop agent.\n\nBe kind.\n\n# Tools\n\na, b"


def test_full_tools_read_as_the_chat_template_renders_them() -> None:
    """A server that is given tools= sends what the model was trained on."""
    full = {"tools": "full", "policy": "full"}
    bare = system_message(Shop(), full)
    assert bare == system_message(Shop(), {"tools": "none", "policy": "full"})
    user = {"role": "user", "content": "hi"}
    template = tokenizer().apply_chat_template
    with_tools = template(
        [{"role": "system", "content": bare}, user], tools=Shop().schemas(), tokenize=False, add_generation_prompt=True
    )
    assert with_tools == QWEN3_INSTRUCT.prompt_text(bare, [user], tools_of(Shop(), full))
    assert hermes.with_tools(bare, Shop().schemas()) in with_tools


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"tools": "ful", "policy": "none"}, r"prompt.tools = 'ful': allowed are full, names, none. Did you mean 'full'\?"),
        ({"tool": "full", "policy": "none"}, r"unknown key 'tool'. Did you mean 'tools'\?"),
        ({"tools": "full"}, "prompt: policy is missing"),
    ],
)
def test_unknown_words_are_refused(prompt: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_prompt(prompt)
