"""What the answers of a server mean: what would lose every answer is said with its remedy and stops the run, what is odd is a note."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contract.params import nearest
from tasks.engine.preflight.questions import ROOM, UNPAID, Player, ServerAnswer, cut, unfit

PARSERS = {
    "vllm": "vLLM: --enable-auto-tool-choice --tool-call-parser NAME",
    "sglang": "SGLang: --tool-call-parser NAME",
    "llamacpp": "llama.cpp: --jinja",
}
"""What /v1/models says of its owner -> the server's setting that reads calls out of the model's text."""
AS_TEXT = re.compile(
    r"<\|?tool_?call|<function\b|<function=|\[TOOL_CALLS|<\|python_tag\|>|```tool_code|functools\["
    r'|[{\[(].*look_up_item|look_up_item\s*[({\[]|"name"\s*:.*"(?:arguments|parameters)"\s*:',
    re.DOTALL,
)
"""How families of models write a call where nobody reads it out of their text, and a call of our tool however it is written."""


@dataclass(frozen=True)
class ServerReport:
    """What is known of a player's server: the report for params/roles.lock (empty when the budget had nothing left to ask with), what
    stops a run ("" for nothing), what is odd."""

    report: Mapping[str, Any]
    stop: str = ""
    notes: tuple[str, ...] = ()


def report_of(player: Player, listed: ServerAnswer, answers: Mapping[str, ServerAnswer]) -> ServerReport:
    """The answers of one player's server, understood."""
    entries = _entries(listed)
    answered = next((str(one.body["model"]) for one in answers.values() if one.kept and one.body and one.body.get("model")), "")
    entry = _entry(entries, player.role.model)
    if unpaid := [one.words for one in answers.values() if one.status == UNPAID]:
        return ServerReport({}, notes=(unpaid[0],))
    notes: list[str] = []
    stop = "" if answers or listed.status else f"{player.url} {listed.words}. Is the server running, and is base_url right?"
    for name, one in answers.items():
        fault, odd = _judged(name, one, player, entry, [*entries])
        stop = stop or fault
        notes += [note for note in odd if note not in notes]
    if entries and not entry and not stop:
        notes.append(f"its list of models has no {player.role.model!r}, only {_some([*entries])}; it answers all the same")
    return ServerReport(_report(player.role.model, answered, entry), stop, tuple(notes))


def _entries(listed: ServerAnswer) -> dict[str, Mapping[str, Any]]:
    data = (listed.body or {}).get("data")
    found = data if listed.status == 200 and isinstance(data, list) else []
    return {str(one["id"]): one for one in found if isinstance(one, Mapping) and one.get("id")}


def _entry(entries: Mapping[str, Mapping[str, Any]], model: str) -> Mapping[str, Any]:
    """The model's line in the list; of a list of one that line, since servers with one model take any name for it."""
    return entries.get(model) or (next(iter(entries.values())) if len(entries) == 1 else {})


def _report(model: str, answered: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is written down; see tasks/engine/roles_lock.py for what is left out and why."""
    meta = entry.get("meta")
    sizes = (
        {name: meta[name] for name in ("n_params", "n_vocab", "size") if isinstance(meta.get(name), int)}
        if isinstance(meta, dict)
        else {}
    )
    said = {"asked": model, "answered": answered, "root": entry.get("root"), "parent": entry.get("parent"), "meta": sizes}
    return {name: value if isinstance(value, dict) else _plain(value) for name, value in said.items() if value}


def _plain(value: Any) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:200])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _judged(name: str, answer: ServerAnswer, player: Player, entry: Mapping[str, Any], models: Sequence[str]) -> tuple[str, list[str]]:
    """(what would lose every such answer, what is odd) in the answer to a question."""
    role = player.role
    if answer.status == 0:
        return f"{role.base_url} {answer.words}. Is the server running, and is base_url right?", []
    if answer.status != 200 or answer.kept is None:
        return _refused(name, answer, player, entry, models), []
    reply, raw = answer.reply, answer.kept["message"]
    text = raw.get("content") if isinstance(raw.get("content"), str) else ""
    odd = []
    if None in answer.kept["tokens"]:
        odd.append("it does not count tokens: budgets go by an estimate")
    if "</think>" in text or "<think>" in text:
        odd.append("its thoughts stand in its answers; Cairn leaves them out" + ("" if role.thinking else f". {_ROOM}"))
    most = player.dialect.most(player.question(name))
    if cut(answer):
        return f"{role.model!r} says nothing within {most} tokens, nor with {ROOM} times as many: it thinks first. {_ROOM}", odd
    if answer.words == "with room":
        odd.append(f"it says nothing within {most} tokens, only with {ROOM} times as many, so each answer is paid for twice. {_ROOM}")
    if reply.refused:
        odd.append(f"the model, or a filter in front of it, declines one small question ({_short(reply.message['content'])})")
    elif name == "call" and reply.bad:
        odd.append(
            f"its tool calls cannot be read ({_short(json.dumps(raw['tool_calls']))}). See the server's tools ({_parsers(entry)})"
        )
    elif name == "call" and not raw.get("tool_calls"):
        if reply.message.get("tool_calls"):
            odd.append(f"it leaves tool calls as text, which Cairn reads; better is the server's own setting ({_parsers(entry)})")
        elif AS_TEXT.search(text):
            return f"the server leaves tool calls as text ({_short(text)}). Start it with its tool parser: {_parsers(entry)}.", odd
        else:
            odd.append(
                f"asked to call a tool it called none ({_short(text)}). If that goes on, see the server's tools ({_parsers(entry)})"
            )
    if name == "form" and not reply.refused:
        if answer.words == "in words":
            told = f"ignores structured: {role.structured} ({_short(text)}), but does as told in words"
            return f"the server {told}. Write structured: prompt.", odd
        if answer.words == "repaired":
            odd.append(f"it keeps to a form only when asked twice ({_short(text)}); structured: prompt may spare the second time")
        elif unfit(answer):
            odd.append(f"asked for a form it gave none, however it was asked ({unfit(answer)})")
    return "", odd


_ROOM = "thinking: 4000 in its role gives it room for that"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _parsers(entry: Mapping[str, Any]) -> str:
    return PARSERS.get(str(entry.get("owned_by")), "; ".join(PARSERS.values()))


def _refused(name: str, answer: ServerAnswer, player: Player, entry: Mapping[str, Any], models: Sequence[str]) -> str:
    """A question that the server does not answer, with the remedy as far as its words tell."""
    role, words = player.role, answer.words.lower()
    said = f"status {answer.status}{f': {answer.words}' if answer.words else ''}"
    if 300 <= answer.status < 400:
        return f"base_url leads elsewhere ({said}). Name the place itself: a key is not sent on."
    if answer.status in (401, 403):
        given = (
            f"the key in {role.key_env or role.key_block}"
            if role.key_env or role.key_block
            else "calls without a key; name one by key_env"
        )
        return f"the server refuses {given} ({said})"
    if name in ("call", "after a call") and re.search(r"tool|jinja|function", words):
        return f"the server takes no tools ({said}). Start it with its tool parser: {_parsers(entry)}."
    if answer.status == 200 and "not a chat completion" in answer.words:
        return f"{player.url} gives no chat completion ({answer.words}). Does base_url end where such an API begins, often /v1?"
    if answer.status in (402, 408, 409, 425, 429, 503, 529) or answer.status >= 500:
        return f"the server does not answer one small question ({said}). Run again when it does."
    if name == "after a call" and re.search(r"content|empty|null|none", words) and not re.search("context", words):
        others = " or ".join(way for way in ("null", "absent", "empty") if way != role.content_beside_calls)
        return f"the server refuses a message that only calls tools ({said}). Write content_beside_calls: {others}."
    for pattern, remedy in _remedies(player):
        if re.search(pattern, words):
            return f"the server refuses what is asked with every question ({said}). {remedy}"
    if answer.status == 404 or re.search(r"model.*(not|n't|no such|unknown|invalid)|unknown model", words):
        known = f"{nearest(role.model, models)} It has {_some(models)}." if models else " It does not say which it has."
        return f"the server has no model {role.model!r} ({said}).{known}" + (
            "" if models else " Does base_url end where the API begins, often /v1?"
        )
    return f"the server refuses {_KINDS[name]} ({said}), so every conversation of this role would be lost"


_KINDS = {
    "call": "a question with a tool",
    "after a call": "a conversation with a tool call beside which nothing is said, and its result",
    "form": "a question with a schema",
    "opening": "a conversation that begins with a system message alone",
    "talk": "a conversation in which the model speaks first",
}


def _remedies(player: Player) -> list[tuple[str, str]]:
    role, most = player.role, player.dialect.most(player.question("form"))
    other = "max_completion_tokens" if role.limit_field == "max_tokens" else "max_tokens"
    return [
        (r"max_tokens|max_completion_tokens", f"Write limit_field: {other}."),
        (
            r"context|too long|n_ctx",
            f"It has no room for {most} tokens of an answer: lower max_tokens and thinking, or give the server more.",
        ),
        (r"\bseed\b", "Write send_seed: false."),
        (r"temperature", "Write temperature: 1, or what the server takes."),
        (
            r"response_format|json_schema|json_object|guided|grammar|structured",
            f"Write structured: {'json_object or ' if role.structured == 'json_schema' else ''}prompt.",
        ),
    ]
