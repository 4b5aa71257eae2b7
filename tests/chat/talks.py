"""Conversations in the shape of the chat format, for the tests of models, base and sft."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.chat.local import qwen3_instruct
from tasks.chat.local.kept import QWEN3_INSTRUCT, chat_of
from tasks.chat.local.tokens import Rendered
from tasks.checkpoints import tiny
from tasks.contract.client import Message
from tasks.contract.rows import message_row
from tasks.contract.schemas import DATASET
from tasks.contract.tables import write_rows
from tasks.worlds.api.frozen import freeze_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def call(number: int, name: str, /, **arguments: Any) -> Message:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def talk(seed: int) -> list[Message]:
    """Two calls in one turn, a call after words, two tool answers in a row, a reply, a goodbye."""
    rng = random.Random(seed)
    order, name = f"#W{rng.randint(10**6, 10**7)}", rng.choice(["Ada", "Bo", "Cy"])
    return [
        {"role": "user", "content": f"Hi, {name} here.\nPlease cancel {order}!"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call(0, "find_user", name=name), call(1, "get_order", order_id=order, parts=["a", "b"])],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": f'{{"user_id": "{name.lower()}_7"}}'},
        {"role": "tool", "tool_call_id": "call_1", "content": f'{{"order_id": "{order}", "total": 12.5}}'},
        {"role": "assistant", "content": "I cancel it now.", "tool_calls": [call(2, "cancel_order", order_id=order)]},
        {"role": "tool", "tool_call_id": "call_2", "content": "done"},
        {"role": "assistant", "content": f"{order} is cancelled."},
        {"role": "user", "content": "###STOP###"},
    ]


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    texts = [text for seed in range(20) for text in tiny.language("You are the retail agent.", talk(seed))]
    return tiny.build_tokenizer(texts, 420)


def dataset(folder: Path, count: int) -> Path:
    """dataset.parquet with `count` kept rows, every fifth of the validation split, and one row that is not kept."""
    rows = [
        {
            "traj_id": f"t{index}",
            "world": "retail",
            "split": "validation" if index % 5 == 4 else "train",
            "messages": [message_row(message) for message in talk(index)],
            "turns": [],
            "stop": "user_stop",
            "keep": index < count,
            "score": 1.0,
            "weight": 1.0,
            "reason": "" if index < count else "failed",
        }
        for index in range(count + 1)
    ]
    write_rows(folder / "dataset.parquet", DATASET, rows)
    return folder


def worlds(folder: Path) -> Path:
    """A folder with the retail world, small and frozen."""
    from tasks.worlds.api.loading import world_class
    from tasks.worlds.api.runtime import World

    address = "tasks.worlds.library.retail:Retail"
    freeze_world(World.build(world_class(address), 40, 0, address), folder / "retail")
    return folder


def render(tokenizer: Any, system: str | None, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> Rendered:
    """A conversation as the one row of a tokenizer's chat format."""
    return chat_of(tokenizer).rows(tokenizer, [(system, messages, tools)])[0][0]


def turn_text(message: Message) -> str:
    """One turn as the tiny model writes it."""
    return qwen3_instruct.turn_text(QWEN3_INSTRUCT.readable([message])[0])
