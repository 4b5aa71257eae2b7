"""The chat format that a checkpoint's folder keeps beside its tokenizer, so that no later stage has to find it anew."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chat.local import hermes, qwen3_instruct
from tasks.chat.local.calls import CallGrammar
from tasks.chat.local.format import WHOLE, ChatFormat, ChatRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "chat_format.json"
_KEPT = "cairn_chat_format"

QWEN3_INSTRUCT = ChatFormat(
    "Qwen3-Instruct-2507",
    WHOLE,
    qwen3_instruct.CHAT_TEMPLATE,
    {"eos_token": qwen3_instruct.END, "pad_token": qwen3_instruct.TEXT},
    calls=hermes.GRAMMAR,
    ends=(qwen3_instruct.END,),
    joint="\n",
    markers=tuple(sorted(qwen3_instruct.SPECIALS)),
)
"""The format of the tiny model; a test finds and proves the same on its tokenizer."""


def chat_of(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The chat format of a tokenizer that came with one (`keep`), or is the tiny model's. ChatRefused otherwise."""
    kept = getattr(tokenizer, _KEPT, None)
    if isinstance(kept, ChatFormat):
        return kept
    if tokenizer.chat_template == qwen3_instruct.CHAT_TEMPLATE:
        return QWEN3_INSTRUCT
    raise ChatRefused(
        f"the checkpoint keeps no {FILE}: nobody has proven how it writes conversations. `cairn chat check FOLDER --write` does, and "
        "writes it into the folder.",
        "no chat format",
    )


def keep(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> None:
    """Make `chat` the tokenizer's: its template takes the place of the tokenizer's own, so that whoever serves it reads what was
    proven."""
    tokenizer.chat_template = chat.template
    setattr(tokenizer, _KEPT, chat)


def read(folder: Path) -> ChatFormat | None:
    """The format that a checkpoint's folder keeps, None without one."""
    path = folder / FILE
    return from_json(path.read_text("utf-8")) if path.is_file() else None


def write(chat: ChatFormat, folder: Path) -> None:
    """Keep `chat` in a checkpoint's folder."""
    (folder / FILE).write_text(to_json(chat), encoding="utf-8")


def to_json(chat: ChatFormat) -> str:
    """As text; `from_json` reads it."""
    return json.dumps(asdict(chat), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def from_json(text: str) -> ChatFormat:
    """The format that `to_json` wrote."""
    data = json.loads(text)
    calls = data.pop("calls")
    if calls:
        calls = CallGrammar(**{**calls, "quotes": tuple(calls["quotes"])})
    lists = {key: tuple(data[key]) for key in ("ends", "openings", "thought", "markers")}
    return ChatFormat(**{**data, **lists, "calls": calls})
