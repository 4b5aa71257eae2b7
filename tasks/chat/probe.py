"""What a tokenizer's chat template does, found out by rendering conversations whose words are known (`derive`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.chat.call_frames import FIRST, KEY, SECOND, VALUE, NoGrammar, call, grammar
from tasks.chat.local import hermes, template_text
from tasks.chat.local.format import BY_TURN, ChatFormat, ChatRefused
from tasks.chat.local.template_text import TemplateError
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM, USER, SAID, MORE, RESULT, THOUGHT = "qzsystem", "qzuser", "qzsaid", "qzagain", "qzresult", "qzthought"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "qzdescription",
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string", "description": "qzabout"} for key in (KEY, "qzother")},
                "required": [KEY],
            },
        },
    }
    for name in (FIRST, SECOND)
]
HEAD: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
_TAG = re.compile(r"</?[^\s<>]{2,40}[>=]")


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template for tools, or its only one. ChatRefused without any."""
    try:
        found = tokenizer.get_chat_template(tools=TOOLS)
    except ValueError as error:
        raise ChatRefused(
            "the tokenizer has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json). Base models have "
            "none: take the instruct version, or write one into the folder.",
            "no chat template",
        ) from error
    return str(found)


def derive(tokenizer: PreTrainedTokenizerBase, template: str, options: Mapping[str, Any], style: str, name: str) -> ChatFormat:
    """The format of a template with these options, in form BY_TURN, unproven. ChatRefused says what it lacks."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ChatRefused("the tokenizer has no tokenizer.json; Cairn reads fast tokenizers alone.", "tokenizer")
    special = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    found = ChatFormat(name, BY_TURN, template_text.without_clock(template), {**special, **options}, style)
    found = _reply(_contents(found), _added(tokenizer))
    found = _hermes(found) if style == "hermes" else _tools(found, _added(tokenizer))
    return replace(found, thought=_thought(found), markers=_markers(found, tokenizer))


def _added(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Added tokens with more than letters or blanks in them."""
    texts = (token.content for token in tokenizer.added_tokens_decoder.values())
    return [text for text in texts if len(text) > 2 and not text.isspace() and not text.isalnum()]


def _contents(found: ChatFormat) -> ChatFormat:
    """With contents as texts or as parts, whichever the template reads."""
    why = ""
    for parts in (False, True):
        tried = replace(found, parts=parts)
        try:
            text = tried.text(HEAD, prompt=True)
        except TemplateError as error:
            why = why or f"the template raises on a system and a user message: {error}"
            continue
        if SYSTEM in text and USER in text:
            return tried
        why = why or f"the template drops the {'system' if USER in text else 'user'} message"
    raise ChatRefused(why, "renders")


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _calls(calls: Sequence[Message], words: str = "") -> Message:
    return {"role": "assistant", "content": words, "tool_calls": list(calls)}


def _turn(found: ChatFormat, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """What the template writes for the last message behind its prompt, uncut."""
    served, whole = found.text(messages[:-1], tools, prompt=True), found.text(messages, tools, prompt=False)
    if not whole.startswith(served):
        raise ChatRefused(
            f"the prompt that a server sends is no beginning of the rendered turn: it ends in {served[-40:]!r}, the conversation goes "
            f"on with {whole[len(served[:-40]) :][:60]!r}",
            "prompt",
        )
    return whole[len(served) :]


def _last(text: str, added: Sequence[str]) -> str:
    """The added token that ends a text, blanks behind it apart."""
    return max((token for token in added if text.rstrip().endswith(token)), key=len, default="")


def _first(text: str, added: Sequence[str]) -> str:
    return max((token for token in added if text.startswith(token)), key=len, default="")


def _reply(found: ChatFormat, added: Sequence[str]) -> ChatFormat:
    """With what stands before a reply and what ends it."""
    talk = [*HEAD, _assistant(SAID)]
    try:
        turn = _turn(found, talk)
        following = found.text([*talk, {"role": "user", "content": MORE}], prompt=True)
    except TemplateError as error:
        raise ChatRefused(f"the template raises on a reply: {error}", "renders") from None
    if SAID not in turn:
        raise ChatRefused(f"the template drops the assistant's words: {turn[:80]!r}", "renders")
    opening, _, tail = turn.partition(SAID)
    found = replace(found, openings=(opening,) if opening else ())
    whole = found.text(talk, prompt=False)
    if end := _reply_end(tail, whole[: len(whole) - len(tail)], following, added):
        return replace(found, ends=(end,), closing=tail[: tail.rfind(end)])
    if following.startswith(whole) and (end := _first(following[len(whole) :], added)):
        return replace(found, ends=(end,), reply_end=end)
    raise ChatRefused(
        f"no token of the tokenizer ends a turn: the template goes on with {tail or following[len(whole) :][:40]!r}, which holds "
        "none of its added tokens",
        "end",
    )


def _reply_end(tail: str, before: str, following: str, added: Sequence[str]) -> str:
    """The last added token behind a reply, rather one that stays there when the conversation goes on."""
    tokens = sorted((token for token in added if token in tail), key=lambda token: tail.rfind(token) + len(token), reverse=True)
    stays = (token for token in tokens if following.startswith(before + tail[: tail.rfind(token) + len(token)]))
    return next(stays, next(iter(tokens), ""))


def _hermes(found: ChatFormat) -> ChatFormat:
    talk = [*HEAD, _calls([call(FIRST, **{KEY: VALUE})]), {"role": "tool", "content": RESULT, "name": FIRST}]
    try:
        found.text(talk, TOOLS, prompt=True)
    except TemplateError as error:
        raise ChatRefused(f"the template raises on calls as text: {error}", "renders") from None
    return replace(found, calls=hermes.GRAMMAR, joint="\n", calls_end=found.reply_end)


def _tools(found: ChatFormat, added: Sequence[str]) -> ChatFormat:
    """With how the template writes tools, calls and results, and how many calls a turn may hold. ChatRefused when it drops any."""
    one = [*HEAD, _calls([call(FIRST, **{KEY: VALUE})])]
    answered = [*one, {"role": "tool", "tool_call_id": "call_0", "name": FIRST, "content": RESULT}]
    why = ""
    for text_arguments in (False, True):
        tried = replace(found, text_arguments=text_arguments)
        try:
            text = tried.text(answered, TOOLS, prompt=True)
            break
        except TemplateError as error:
            why = why or f"the template raises on a tool call and its result: {error}"
    else:
        raise ChatRefused(why, "renders")
    anywhere = {
        "the tools": "qzdescription",
        "tools behind the first": SECOND if "qzdescription" in text else "",
        "the system message beside tools": SYSTEM,
    }
    kept = {**anywhere, "tool calls": FIRST, "the arguments of tool calls": VALUE, "the results of tools": RESULT}
    body = text[text.rfind(USER) :] if text.rfind(FIRST, text.find(USER)) > 0 else text
    if lost := [what for what, sign in kept.items() if sign not in (text if what in anywhere else body)]:
        raise ChatRefused(
            f"the template drops {' and '.join(lost)}; the format hermes (`--format hermes`) teaches them as text by fine-tuning",
            "drops tool calls",
        )
    single = _turn(tried, one, TOOLS)
    several = _several(tried, added)
    end = _last(single, added)
    if not end or (several and several.count(end) > 1) or end not in single[single.rfind(VALUE) :]:
        end = _first(text[len(tried.text(one, TOOLS, prompt=False)) :], added)
        if not end or not text.startswith(tried.text(one, TOOLS, prompt=False)):
            raise ChatRefused(f"no token ends a turn of calls: {single[-60:]!r}", "end")
        tried = replace(tried, calls_end=end)
    tried = replace(tried, ends=tuple(dict.fromkeys((*tried.ends, end))), most_calls=0 if several else 1)
    tried = replace(tried, words_beside_calls=_beside(tried), openings=_openings(tried, answered))
    try:
        tried = replace(tried, calls=grammar(lambda calls: _bare(tried, calls), bool(several)))
    except NoGrammar as error:
        raise ChatRefused(f"calls cannot be read back: {error}", "parse") from None
    opened = _call_text(tried, one[-1]["tool_calls"])
    tried = replace(tried, lead=opened[: len(opened) - len(opened.lstrip())])
    return replace(tried, joint=_joint(tried)) if tried.words_beside_calls else tried


def _joint(found: ChatFormat) -> str:
    """What stands between words and the first call."""
    turn = _turn(found, [*HEAD, _calls([call(FIRST, **{KEY: VALUE})], SAID)], TOOLS)
    words, _ = found.calls.split(turn) if found.calls else ("", None)
    return words.partition(SAID)[2]


def _several(found: ChatFormat, added: Sequence[str]) -> str:
    """The turn of two calls, "" when the template does not hold two."""
    calls = [call(FIRST, **{KEY: VALUE}), {**call(SECOND, qzother="qzmore"), "id": "call_1"}]
    results = [{"role": "tool", "tool_call_id": one["id"], "name": one["function"]["name"], "content": RESULT} for one in calls]
    try:
        turn = _turn(found, [*HEAD, _calls(calls)], TOOLS)
        found.text([*HEAD, _calls(calls), *results], TOOLS, prompt=True)
    except TemplateError:
        return ""
    end = _last(_turn(found, [*HEAD, _calls(calls[:1])], TOOLS), added)
    starts_anew = turn.count(found.ends[0]) > 1 or (end in found.ends and turn.count(end) > 1)
    return turn if FIRST in turn and SECOND in turn and "qzmore" in turn and not starts_anew else ""


def _beside(found: ChatFormat) -> bool:
    """Whether a turn holds words and a call, the words first, and goes on doing so behind a result and a reply."""
    talk = [*HEAD, _calls([call(FIRST, **{KEY: VALUE})], SAID)]
    result = {"role": "tool", "tool_call_id": "call_0", "name": FIRST, "content": RESULT}
    try:
        turn = _turn(found, talk, TOOLS)
        _turn(found, [*talk, result, _assistant(MORE)], TOOLS)
    except (TemplateError, ChatRefused):
        return False
    inner = sum(turn.count(end) for end in found.ends)
    return 0 <= turn.find(SAID) < turn.find(FIRST) and inner <= (0 if found.calls_end else 1)


def _openings(found: ChatFormat, answered: Sequence[Message]) -> tuple[str, ...]:
    after = _turn(found, [*answered, _assistant(SAID)], TOOLS).partition(SAID)[0]
    return tuple(sorted({*found.openings, after} - {""}, key=len, reverse=True))


def _bare(found: ChatFormat, calls: list[Message]) -> str:
    """The text of calls alone: no opening and no blanks before it, no end behind it."""
    return _call_text(found, calls).lstrip()


def _call_text(found: ChatFormat, calls: Sequence[Message]) -> str:
    talk = [*HEAD, _calls(calls)]
    turn = found.turn(talk, TOOLS, found.text(talk[:-1], TOOLS, prompt=True))
    for end in found.ends:
        turn = turn.removesuffix(end)
    for opening in found.openings:
        turn = turn.removeprefix(opening)
    return turn


def _thought(found: ChatFormat) -> tuple[str, str]:
    """What stands around a thought, ("", "") when the template writes none or the prompt has opened it."""
    try:
        turn = _turn(found, [*HEAD, {**_assistant(SAID), "reasoning_content": THOUGHT, "thinking": THOUGHT}])
    except (TemplateError, ChatRefused):
        return "", ""
    start, thought, rest = turn.partition(THOUGHT)
    return (start, rest.partition(SAID)[0]) if thought and start.strip() and SAID in rest else ("", "")


def _markers(found: ChatFormat, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that data must not hold: the added tokens that the template can write, and the tags around calls and results."""
    calls = [call(FIRST, **{KEY: VALUE})] if found.calls else []
    talk = [*HEAD, *([_calls(calls), {"role": "tool", "content": RESULT, "name": FIRST}] if calls else []), _assistant(SAID)]
    without = found.text(talk[: len(HEAD)], TOOLS if calls else (), prompt=True)
    text = found.text(talk, TOOLS if calls else (), prompt=False)[len(without) :]
    tags = {tag for tag in _TAG.findall(text) if not any(sign in tag for sign in (FIRST, KEY, VALUE, RESULT, SAID))}
    named = set(found.variables.values()) if all(isinstance(value, str) for value in found.variables.values()) else set()
    added = {token for token in _added(tokenizer) if token in found.template or token in text or token in without or token in named}
    own = set(hermes.MARKERS) if found.style == "hermes" else set()
    return tuple(sorted({*tags, *added, *found.ends, *own} - {""}))
