"""Chat templates of TRL's wheel: which can be used, in which form, why the others cannot; wrong masks; seconds of the prober.

Each template stands on a small tokenizer with its special tokens. Those that write tools (by TRL's own judgement) are taken as they
are, the others with tools as text (hermes). Masks are held against what the assistant said, on other conversations than the proof's, by
looking for its words in the trained text and in the rest (`wrong_masks`), which knows nothing of how masks are made. Seconds are CPU
seconds of this process and on the clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.bench import publish
from infra.chat_tokenizers import originals, small_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.chat.local.format import ChatFormat


@dataclass(frozen=True)
class Line:
    """One template. tools: it writes them itself. form: "" when it cannot be used, and reason says why."""

    name: str
    tools: bool
    form: str
    reason: str
    wrong: int
    cost: float
    cpu: float
    clock: float


def wrong_masks(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, count: int, seed: int) -> int:
    """Conversations in whose rows an assistant's words, names and arguments are not in the trained text of its turn, or what users and
    tools said is.

    Every text of a conversation gets a word of its own, so that it can be looked for.
    """
    from tasks.chat.samples import samples

    wrong = 0
    for talk in samples(count, seed, (), chat.most_calls, chat.words_beside_calls):
        messages, theirs, own = _with_words(talk.messages)
        rows = chat.rows(tokenizer, [(talk.system, messages, talk.tools)])[0]
        trained = [_text(tokenizer, row, 1) for row in rows]
        read = [_text(tokenizer, row, 0) for row in rows]
        sound = all(word in "".join(trained) for word in own) and not any(word in text for word in theirs for text in trained)
        if len(rows) == 1:
            sound = sound and not any(word in read[0] for word in own)
        wrong += not (sound and all(word in "".join(read) for word in theirs))
    return wrong


def _text(tokenizer: PreTrainedTokenizerBase, row: Any, own: int) -> str:
    return str(tokenizer.decode([token for token, mine in zip(row.ids, row.mask, strict=True) if mine == own]))


def _with_words(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """(messages, the words that others said, those of the assistant); the last message's apart, which nobody reads."""
    marked, theirs, own = [], [], []
    for number, message in enumerate(messages):
        word = f"qz{number}w"
        calls = [
            {**call, "function": {"name": "get_order", "arguments": {"order_id": f"{word}c{index}"}}}
            for index, call in enumerate(message.get("tool_calls") or ())
        ]
        own += [f"{word}c{index}" for index in range(len(calls))]
        if message["content"] or message["role"] in ("user", "tool"):
            (own if message["role"] == "assistant" else theirs).append(f"{word}t")
            message = {**message, "content": f"{word}t {message['content']}".strip()}
        marked.append({**message, **({"tool_calls": calls} if calls else {})})
    return marked, theirs, own


def measure(name: str, template: str, count: int, seed: int) -> Line:
    """One template through the prober, the proof and the check of masks."""
    from trl.chat_template_utils import supports_tool_calling

    from tasks.chat.local.format import ChatRefused
    from tasks.chat.proof import find

    tokenizer = small_tokenizer(template)
    tools = supports_tool_calling(tokenizer)
    start, cpu = time.perf_counter(), time.process_time()
    reason, chat = "", None
    try:
        chat = find(tokenizer, "auto" if tools else "hermes", count=count, seed=seed)
    except ChatRefused as error:
        reason = str(error)
    spent, clock = time.process_time() - cpu, time.perf_counter() - start
    wrong = wrong_masks(tokenizer, chat, count, seed + 2) if chat else 0
    cost = float(chat.about["cost"]) if chat else 0.0
    return Line(name, tools, chat.form if chat else "", reason or (chat.name if chat else ""), wrong, cost, spent, clock)


def main() -> int:
    """Measure; 1 when a mask is wrong or fewer templates can be used than must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="conversations of a proof")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lines = []
    for name, template in originals().items():
        lines.append(measure(name, template, options.count, options.seed))
        one = lines[-1]
        kind = "tools" if one.tools else "hermes"
        print(f"{one.name:<24} {kind:<7} {one.form or 'refused':<8} x{one.cost:<5.3g} {one.cpu:5.1f} s  {one.reason[:110]}", flush=True)
    able = [line for line in lines if line.tools]
    used = [line for line in able if line.form]
    text = [line for line in lines if not line.tools]
    figures = [
        ("templates that write tools", float(len(able))),
        ("of them usable (must 24, aim 26)", float(len(used))),
        ("of them whole (must 22)", float(sum(line.form == "whole" for line in used))),
        ("templates without tools", float(len(text))),
        ("of them usable with tools as text", float(sum(bool(line.form) for line in text))),
        ("wrong masks (must 0)", float(sum(line.wrong for line in lines))),
        ("CPU seconds a tokenizer, median (must 5, aim 2)", statistics.median(line.cpu for line in lines if line.form)),
        ("CPU seconds a tokenizer, most", max(line.cpu for line in lines)),
        ("seconds on the clock, median", statistics.median(line.clock for line in lines if line.form)),
    ]
    publish("chat", figures, {"conversations": options.count, "seed": options.seed, "templates": len(lines)})
    return int(sum(line.wrong for line in lines) > 0 or len(used) < 24)


if __name__ == "__main__":
    sys.exit(main())
