"""What `cairn chat check` does and shows: a checkpoint's chat format, proven, with the tokens of one conversation."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import PROJECT, STATE
from flows.short_identities import completed
from tasks.chat.call_frames import call
from tasks.chat.local.format import BY_TURN, ChatFormat, ChatRefused
from tasks.chat.local.template_text import DAY, reads_clock
from tasks.contract.client import Message
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store
from tasks.engine.checkpoint_names import FORMS, checkpoint, is_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TALK: list[Message] = [
    {"role": "user", "content": "Where is order W12?"},
    {"role": "assistant", "content": "", "tool_calls": [call("get_order", order_id="W12")]},
    {"role": "tool", "tool_call_id": "call_0", "content": '{"status": "sent"}'},
    {"role": "assistant", "content": "It was sent."},
    {"role": "user", "content": "Thanks!"},
    {"role": "assistant", "content": "You are welcome."},
]
"""The conversation that is printed."""


@dataclass(frozen=True)
class Checked:
    """A folder's tokenizer and the format that was proven on it. seconds: of finding and proving it. own_template: the folder's."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    seconds: float
    own_template: str


def check_folder(folder: str, named: str, thinking: bool, count: int) -> Checked:
    """Find and prove the format of a checkpoint's tokenizer. folder: a folder, a GGUF file, or a name of a
    checkpoint (`checkpoint_names.FORMS`). BadInput (ChatRefused) says which property fails, and where."""
    if count < 1:
        raise BadInput(f"-n {count}: conversations of the proof, 1 or more.")
    place = (
        Path(folder).expanduser() if is_path(folder) else checkpoint(completed(folder, PROJECT, Store(STATE)), PROJECT, Store(STATE))
    )
    from tasks.chat import proof
    from tasks.checkpoints import gguf_file, source

    try:
        if gguf_file.is_gguf(place):
            config, tokenizer = gguf_file.config_and_tokenizer(place)
            rows = int(config.get_text_config().vocab_size)
        elif place.is_dir():
            tokenizer, rows = source.read_tokenizer(place), _embedding_rows(place)
        else:
            raise BadInput(f"not a folder. Allowed: a GGUF file, {FORMS}.")
    except BadInput as error:
        raise BadInput(f"{folder}: {error}") from None
    own = str(tokenizer.chat_template)
    started = time.perf_counter()
    if rows:
        proof.check_vocabulary(tokenizer, rows)
    try:
        chat = proof.find(tokenizer, named, thinking=thinking, count=count)
    except ChatRefused as error:
        if error.failed != "no chat template":
            raise
        raise BadInput(f"{folder}: {error} Or --format hermes: it gets a plain one, which fine-tuning teaches.") from None
    return Checked(place, tokenizer, chat, time.perf_counter() - started, own)


def _embedding_rows(folder: Path) -> int:
    """Of the model in the folder, 0 when there is none."""
    if not (folder / "config.json").is_file():
        return 0
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return int(config.get("vocab_size") or config.get("text_config", {}).get("vocab_size") or 0)


def check_writable(folder: str) -> None:
    """Raise BadInput for a GGUF file, and a checkpoint that is named by what it holds: its files stay as they are."""
    if not is_path(folder) or Path(folder).expanduser().is_file():
        raise BadInput(f"--write: {folder} is no folder of yours, its files stay as they are. Copy it, and give the copy's folder.")


def write_into(found: Checked) -> None:
    """Write the format into the folder, and its template in place of the tokenizer's own when that is another one."""
    from tasks.chat.local import kept

    if found.own_template != found.chat.template:
        kept.keep(found.tokenizer, found.chat)
        found.tokenizer.save_pretrained(str(found.folder))
    kept.write(found.chat, found.folder)


def as_document(found: Checked) -> dict[str, Any]:
    """The format and what was proven, as JSON."""
    from dataclasses import asdict

    return {**{key: value for key, value in asdict(found.chat).items() if key != "template"}, "seconds": round(found.seconds, 2)}


def print_check(found: Checked, written: bool) -> None:
    """Print what holds, its cost, and one conversation: colours on a terminal, brackets around what is trained elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in _lines(found):
        console.print(line, markup=False)
    for number, pieces in enumerate(_tokens(found), 1):
        text = Text(f"\nrow {number}:\n")
        for tokens, own in pieces:
            if not console.is_terminal:
                text.append("[[" + "".join(tokens) + "]]" if own else "".join(tokens))
                continue
            for index, token in enumerate(tokens):
                text.append(token, style=("black on green", "black on bright_green")[index % 2] if own else ("", "dim")[index % 2])
        console.print(text)
    if written:
        console.print(f"\nwritten: {found.folder / 'chat_format.json'}", markup=False)


def _lines(found: Checked) -> list[str]:
    chat, about = found.chat, found.chat.about
    way = "each turn is a row of its own behind its whole prompt" if chat.form == BY_TURN else "a conversation is one row"
    calls = f"written as {chat.calls.kind}, {'any number' if not chat.most_calls else chat.most_calls} a turn" if chat.calls else "none"
    rows = f"{about['turns'] / about['conversations']:.1f} rows" if chat.form == BY_TURN else "1 row"
    beside = "with words" if chat.words_beside_calls else "never with words (such rows are left out)"
    return [
        f"{found.folder}: {chat.form}, by {'text in messages (hermes)' if chat.style == 'hermes' else chat.name}: {way}",
        f"  proven   {about['conversations']} conversations, {about['turns']} turns, {about['trained_tokens']} trained tokens, "
        f"{found.seconds:.1f} s",
        f"  cost     {rows} a conversation; sft and rl compute {about['cost']:g} times its tokens",
        f"  as text  a server that encodes a whole prompt from text reads the same ids in {about['same_ids']:.1%} of conversations",
        f"  ends     {' '.join(chat.ends)}{f'; the date in prompts is fixed at {DAY}' if reads_clock(found.own_template) else ''}",
        f"  calls    {calls}, {beside}",
        f"  thoughts {'opened by the prompt' if chat.opens_thought else 'written by the model' if chat.thought[0] else 'none'}",
    ]


def _tokens(found: Checked) -> list[list[tuple[list[str], bool]]]:
    """The rows of TALK as texts of tokens, trained or not, by spans."""
    from itertools import groupby

    from tasks.chat.local.tokens import decode
    from tasks.chat.samples import TOOLS

    rows = found.chat.rows(found.tokenizer, [("You help.", TALK, TOOLS[:1])])[0]
    spans = []
    for row in rows:
        texts = decode(found.tokenizer, [[token] for token in row.ids])
        pairs = list(zip(texts, row.mask, strict=True))
        spans.append([([text for text, _ in group], bool(own)) for own, group in groupby(pairs, key=lambda pair: pair[1])])
    return spans
