"""The proof of a chat format on random conversations, and the choice among the formats that a tokenizer allows (`find`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.chat import families
from tasks.chat.cut_proof import prove_all_written
from tasks.chat.local.format import BY_TURN, WHOLE, ChatFormat, ChatRefused
from tasks.chat.local.parsing import read_turn
from tasks.chat.local.template_text import TemplateError
from tasks.chat.local.tokens import Rendered, decode, encode
from tasks.chat.probe import derive, template_of
from tasks.chat.samples import TOOLS, Sample, long_sample, samples
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = (
    "{% for message in messages %}{{ message.role + ':\n' + message.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
"""The chat template that `hermes` gives a tokenizer without one; ours, with no token but the tokenizer's own end of text."""
COUNT = 1000
"""Conversations of a proof."""
FIRST_LOOK = 40
"""Conversations on which a form is tried before the whole proof; ours."""


@dataclass
class Proof:
    """What was proven. turns, trained, tokens: of the rows. whole_tokens: of the conversations' longest rows. same_ids: the share of
    conversations whose last prompt, encoded anew as a server without memory would, has the ids of the row."""

    conversations: int = 0
    turns: int = 0
    trained: int = 0
    tokens: int = 0
    whole_tokens: int = 0
    same_ids: float = 0.0

    @property
    def cost(self) -> float:
        """Tokens of all rows over those of one row a conversation."""
        return self.tokens / max(1, self.whole_tokens)


def find(
    tokenizer: PreTrainedTokenizerBase, named: str = "auto", *, thinking: bool = False, count: int = COUNT, seed: int = 0
) -> ChatFormat:
    """The chat format of a tokenizer, proven on `count` conversations.

    named: `auto` (as the template writes tools) or `hermes` (as text, for templates without tools, and for a
    tokenizer without a template, which then gets PLAIN). thinking: prompts leave room for a
    thought where the template can do with and without. Tried in this order: the tokenizer's own template in form WHOLE; TRL's training
    variant of it, which then takes its place; the own template in form BY_TURN. Raises ChatRefused with the first reason of the own
    template.
    """
    if named == "hermes" and not tokenizer.chat_template and tokenizer.eos_token:
        tokenizer.chat_template = PLAIN
    reason: ChatRefused | None = None
    for candidate in _candidates(tokenizer, named, thinking):
        if isinstance(candidate, ChatRefused):
            reason = reason or candidate
            continue
        try:
            prove_all_written(candidate)
            prove(tokenizer, candidate, FIRST_LOOK, seed + 1, [long_sample()])
            proof = prove(tokenizer, candidate, count, seed)
            return candidate.with_form(candidate.form, **_about(proof))
        except ChatRefused as error:
            if error.failed == "cut":
                raise  # no other form of the template, and no variant of it, is what its author wrote
            if candidate.form == BY_TURN or reason is None:
                reason = error if reason is None or reason.failed == "prefix" else reason
    raise reason or ChatRefused("no chat format was found", "")


def _about(proof: Proof) -> dict[str, Any]:
    return {
        "conversations": proof.conversations,
        "turns": proof.turns,
        "trained_tokens": proof.trained,
        "cost": round(proof.cost, 3),
        "same_ids": round(proof.same_ids, 4),
    }


def _candidates(tokenizer: PreTrainedTokenizerBase, named: str, thinking: bool) -> Iterator[ChatFormat | ChatRefused]:
    """Formats to prove, the best first, or why one could not even be derived."""
    template = template_of(tokenizer)
    options: list[dict[str, Any]] = [{}]
    if "enable_thinking" in template:
        options = [{"enable_thinking": True}, {"enable_thinking": False}] if thinking else [{"enable_thinking": False}, {}]
    style = "hermes" if named == "hermes" else "template"
    own: list[ChatFormat] = []
    for option in options:
        try:
            own.append(derive(tokenizer, template, option, style, "own template"))
        except ChatRefused as error:
            yield error
            continue
        yield own[-1].with_form(WHOLE)
    for name, twin in families.training_variants(template, own[0]) if own else ():
        for option in options:
            try:
                yield derive(tokenizer, twin, option, style, name).with_form(WHOLE)
            except ChatRefused:
                continue
    yield from own


def prove(
    tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, count: int = COUNT, seed: int = 0, more: Sequence[Sample] = ()
) -> Proof:
    """Prove `chat` on `count` random conversations and on `more`.

    Raises ChatRefused naming the property that fails and the conversation: renders, prompt (what is trained stands behind what a server
    sends), end, prefix (form WHOLE: the past stays as it is), round trip (ids read as the text), mask (the trained ids read as what the
    template writes for the assistant, and hold one end, their last), parse (the turn reads back as the message).
    """
    proof = Proof()
    talks = [*samples(count, seed, chat.markers, chat.most_calls, chat.words_beside_calls), *more]
    for start in range(0, len(talks), 250):
        _prove_some(tokenizer, chat, talks[start : start + 250], proof)
    proof.same_ids /= max(1, len(talks))
    return proof


def _prove_some(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, talks: Sequence[Sample], proof: Proof) -> None:
    segments = [_named(talk, lambda talk=talk: chat.segments(talk.system, talk.messages, talk.tools)) for talk in talks]
    texts = [_named(talk, lambda one=one: chat.joined(one)) for talk, one in zip(talks, segments, strict=True)]
    if chat.by_hand:
        for talk, rows in zip(talks, texts, strict=True):
            if chat.pieces(talk.system, talk.messages, talk.tools) != rows:
                raise _failed("by hand", talk, f"what is written by hand is not what the template writes: {rows}")
    flat = [text for rows in texts for row in rows for text in row]
    ids = encode(tokenizer, flat)
    for text, back in zip(flat, decode(tokenizer, ids), strict=True):
        if back != text:
            raise _failed("round trip", talks[0], f"the tokenizer reads {text[-60:]!r} and writes {back[-60:]!r}")
    waiting = iter(ids)
    rows = [[Rendered.of([next(waiting) for _ in row]) for row in rows] for rows in texts]
    again = encode(tokenizer, [pairs[-1][0] for pairs in segments])
    ends = set(chat.end_ids(tokenizer))
    for talk, pairs, conversation, served in zip(talks, segments, rows, again, strict=True):
        _prove_masks(tokenizer, talk, pairs, conversation, ends)
        _prove_parsing(chat, talk, pairs)
        last = conversation[-1]
        prompt = last.ids[: len(last.ids) - _tail(last.mask)]
        proof.same_ids += prompt == served
        proof.conversations += 1
        proof.turns += len(pairs)
        proof.trained += sum(sum(row.mask) for row in conversation)
        proof.tokens += sum(len(row.ids) for row in conversation)
        proof.whole_tokens += len(last.ids)


def _tail(mask: Sequence[int]) -> int:
    """How many tokens the last trained span has."""
    return next((index for index, own in enumerate(reversed(mask)) if not own), len(mask))


def _named(talk: Sample, work: Any) -> Any:
    """What `work` returns; a refusal names the conversation."""
    try:
        return work()
    except ChatRefused as error:
        raise _failed(error.failed, talk, str(error)) from None
    except TemplateError as error:
        raise _failed("renders", talk, f"the template raises: {error}") from None


def _failed(failed: str, talk: Sample, why: str) -> ChatRefused:
    shown = json.dumps(talk.messages, ensure_ascii=False)
    return ChatRefused(f"{failed}: {why}. In {talk.name}: {shown[:300]}{'...' if len(shown) > 300 else ''}", failed)


def _prove_masks(
    tokenizer: PreTrainedTokenizerBase, talk: Sample, pairs: Sequence[tuple[str, str]], rows: Sequence[Rendered], ends: set[int]
) -> None:
    spans = [span for row in rows for span in _spans(row)]
    if len(spans) != len(pairs):
        raise _failed("mask", talk, f"{len(spans)} trained spans for {len(pairs)} turns")
    for span, (_, turn), text in zip(spans, pairs, decode(tokenizer, spans), strict=True):
        if text != turn:
            raise _failed("mask", talk, f"the trained tokens read {text!r}, the assistant's turn is {turn!r}")
        if span[-1] not in ends or any(token in ends for token in span[:-1]):
            raise _failed("end", talk, f"the turn {turn!r} holds no end, or one before its last token")


def _spans(row: Rendered) -> list[list[int]]:
    spans: list[list[int]] = []
    for index, (token, own) in enumerate(zip(row.ids, row.mask, strict=True)):
        if own and (index == 0 or not row.mask[index - 1]):
            spans.append([])
        if own:
            spans[-1].append(token)
    return spans


def _meaning(message: Message) -> tuple[str, list[tuple[str, Any]]]:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return (message.get("content") or "").strip(), calls


def _prove_parsing(chat: ChatFormat, talk: Sample, pairs: Sequence[tuple[str, str]]) -> None:
    own = [message for message in chat.readable(talk.messages) if message["role"] == "assistant"]
    for message, (_, turn) in zip(own, pairs, strict=True):
        end = next(end for end in chat.ends if turn.endswith(end))
        try:
            found = read_turn(chat, turn.removesuffix(end), 0, TOOLS, chat.opens_thought)
        except (ValueError, RecursionError) as error:
            raise _failed("parse", talk, f"{turn!r} cannot be read back: {error}") from None
        if _meaning(found) != _meaning(message) or repr(_meaning(found)[1]) != repr(_meaning(message)[1]):
            raise _failed("parse", talk, f"{turn!r} reads back as {_meaning(found)}, not as {_meaning(message)}")


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """ChatRefused when a token has no row among the embedding's `rows`; more rows than tokens are padding, as in many models."""
    last = max(tokenizer.get_vocab().values(), default=-1)
    if last >= rows:
        raise ChatRefused(
            f"the tokenizer has token {last}, and the model's embedding has only {rows} rows: they are not of one checkpoint. Take the "
            "tokenizer that came with the weights, or resize the embedding and save both.",
            "vocabulary",
        )
