"""A detector for each kind of flaw in an agent's conversation.

The reader has the messages, the tools' answers, each tool's kind and the criteria; neither the blueprint nor the outcome. A
detector says where (message number) and what; it would rather miss a flaw than invent one. What needs the policy's meaning
or arithmetic is not seen here: that is the verifier's part.
Cost: about 0.1 ms a conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from tasks.players.critics.scripted.flaws import Call, Flaw, Talk, flaw_of

Spot = tuple[int, str]
"""Where a flaw lies (message number) and what its description names."""

_YES = re.compile(r"\b(yes|yeah|yep|sure|ok|okay|go ahead|confirm(ed)?|please do|do it|correct|proceed)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.#-])\$?(\d[\d,]*(?:\.\d+)?)(?![\w-])")
_ID = re.compile(r"\b(?=[A-Za-z_]*\d)(?=\d*[A-Za-z_])\w{3,}\b")
_REFUSES = re.compile(r"\b(sorry|cannot|unable|not|refused|failed|unfortunately)\b|n't\b", re.IGNORECASE)
_BARE_REFUSAL = re.compile(r"\b(cannot|can't|can not|unable to) (do|help with) (that|this|it)\b(?! because)", re.IGNORECASE)
_OFFER = re.compile(r"(anything|something|what) else[^?]*\?|any other[^?]*\?", re.IGNORECASE)
_CHEAPEST = re.compile(r"\b(cheapest|lowest|least expensive)\b", re.IGNORECASE)
_GONE = re.compile(r"\b(sold out|out of stock|full|unavailable)\b", re.IGNORECASE)
_ALSO = re.compile(r"\b(?:also|and then|besides)\b,?", re.IGNORECASE)
_NO_STATEMENT = re.compile(r"(done|it is done|completed|please|hello|hi|thanks|thank you)\b", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9]+")


def _unidentified(talk: Talk) -> Iterator[Spot]:
    identifying = talk.conventions.identifying
    if not any(name in talk.tools for name in identifying):
        return
    for call in talk.calls:
        if call.name in identifying:
            if call.ok:
                return
        elif call.kind in ("read", "write") and call.name not in talk.conventions.open_tools:
            yield call.at, call.name
            return


def _foreign_account(talk: Talk) -> Iterator[Spot]:
    """A change of something whose answer named another owner than the one that was identified."""
    identified, foreign = "", set[str]()
    ways = {way.tool: way for way in talk.conventions.identified_by}
    for call in talk.calls:
        way = ways.get(call.name)
        answered = str(call.answer.get("content", "")) if call.ok and call.answer else ""
        owner = way.person(answered) if way else _field(call, talk.conventions.owner)
        if owner and way:
            identified = owner
        elif owner and identified and owner != identified:
            foreign |= _ids(json.dumps(call.arguments))
        if call.kind == "write" and call.ok and _ids(json.dumps(call.arguments)) & foreign:
            yield call.at, call.name


def _field(call: Call, name: str) -> str:
    answer = _answer(call)
    return str(answer.get(name, "")) if isinstance(answer, dict) else ""


def _answer(call: Call) -> Any:
    if not call.ok or call.answer is None:
        return None
    try:
        return json.loads(call.answer.get("content", ""))
    except ValueError:
        return None


def _ids(text: str) -> set[str]:
    return {found.lower() for found in _ID.findall(text)}


def _unconfirmed(talk: Talk) -> Iterator[Spot]:
    for call in talk.calls:
        if talk.conventions.needs_yes(call.action) and not _YES.search(talk.last("user", call.at)):
            yield call.at, call.name


def _unannounced(talk: Talk) -> Iterator[Spot]:
    """After a yes: an id that the announcement neither names nor describes, though a tool answer described it."""
    described: dict[str, set[str]] = {}
    for call in talk.calls:
        if call.kind == "write" and _YES.search(talk.last("user", call.at)):
            told = talk.last("assistant", call.at).lower()
            for value in sorted(_ids(json.dumps(call.arguments))):
                if value not in told and value in described and not described[value] & set(_WORD.findall(told)):
                    yield call.at, value.upper()
                    break
        for value, words in _descriptions(call).items():
            described.setdefault(value, set()).update(words)


def _descriptions(call: Call) -> dict[str, set[str]]:
    """Id -> words, for every id that a look-up's answer lists with a description."""
    answer = _answer(call)
    found: dict[str, set[str]] = {}
    if isinstance(answer, dict):
        for part in (answer, *(value for value in answer.values() if isinstance(value, dict))):
            for key, value in part.items():
                if isinstance(value, str) and _ID.fullmatch(key):
                    found[key.lower()] = set(_WORD.findall(value.lower()))
    return found


def _foreign_id(talk: Talk) -> Iterator[Spot]:
    known: set[str] = set()
    for message in talk.messages:
        for call in message.get("calls", ()):
            for value in sorted(_ids(json.dumps(list(call["arguments"].values()))) - known):
                yield message["n"], value.upper()
        if message["role"] != "assistant":
            known |= _ids(message.get("content", ""))


def _values(text: str) -> set[float]:
    return {float(found[1].replace(",", "")) for found in _NUMBER.finditer(text)}


def _ungrounded(talk: Talk) -> Iterator[Spot]:
    """A number in a reply that stands in no rule and was not heard before; small numbers are often counts and left alone."""
    known = _digits(" ".join(talk.criteria["policy"].values()))
    for message in talk.messages:
        text = message.get("content", "")
        if message["role"] == "assistant":
            if foreign := sorted(value for value in _values(text) - known if value >= 10):
                yield message["n"], f"{foreign[0]:g}"
        else:
            known |= _digits(text)


def _digits(text: str) -> set[float]:
    return {float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", text)}


def _not_cheapest(talk: Talk) -> Iterator[Spot]:
    """The customer wanted the cheapest, and the agent names or takes another entry of the list that it has just read."""
    wanted = False
    listed: dict[str, tuple[str, float]] = {}
    answers = {call.at + 1: call for call in talk.calls}
    offered = False
    for message in talk.messages:
        text = message.get("content", "")
        if message["role"] == "user":
            wanted = bool(_CHEAPEST.search(text)) or (wanted and not offered)
        elif message["role"] == "tool":
            listed = _variants(answers[message["n"]]) if message["n"] in answers else {}
        else:
            offered = bool(_OFFER.search(text))
            picked = _picked(message, listed)
            if wanted and picked and min(price for _, price in listed.values()) not in picked:
                yield message["n"], f"{min(picked):g}"
                wanted = False


def _variants(call: Call) -> dict[str, tuple[str, float]]:
    """Id -> (first word, last number) of the entries of a list that can be had; {} when the answer is no such list."""
    answer = _answer(call)
    if call.kind != "read" or not isinstance(answer, dict) or len(answer) < 2:
        return {}
    found = {}
    for key, text in answer.items():
        if not isinstance(text, str) or not (numbers := _NUMBER.findall(text)):
            return {}
        if not _GONE.search(text):
            found[key.lower()] = (text.split()[0].lower(), float(numbers[-1].replace(",", "")))
    return found


def _picked(message: dict[str, Any], listed: dict[str, tuple[str, float]]) -> set[float]:
    """Prices of the entries that a turn takes by id, or else names by price, or else by first word."""
    text = message.get("content", "")
    used = _ids(json.dumps([call["arguments"] for call in message.get("calls", ())]))
    words = set(_WORD.findall(text.lower()))
    by_id = {price for key, (_, price) in listed.items() if key in used}
    by_price = _values(text) & {price for _, price in listed.values()}
    return by_id or by_price or {price for word, price in listed.values() if word in words}


def _unserved(talk: Talk) -> Iterator[Spot]:
    """A line that asks for several things at once, and fewer changes and statements come of it."""
    if any(call.kind == "end" for call in talk.calls):
        return
    for message in talk.messages:
        asked = 1 + len(_ALSO.findall(message.get("content", ""))) if message["role"] == "user" else 1
        if asked < 2:
            continue
        changes = sum(call.kind == "write" for call in talk.calls if call.at > message["n"])
        reports = [(at, text) for at, text in talk.replies(message["n"]) if "?" not in _OFFER.sub("", text)]
        if reports and changes + sum(_statements(text) for _, text in reports) < asked:
            yield reports[-1][0], "several things at once"


def _statements(text: str) -> int:
    """Sentences that tell something: neither that a change was made, nor a question, a request or a courtesy."""
    sentences = (part.strip() for part in re.split(r"[.!](?:\s|$)", _OFFER.sub("", text)))
    return sum(bool(part) and not _NO_STATEMENT.match(part) for part in sentences)


def _ignored_refusal(talk: Talk) -> Iterator[Spot]:
    for call in talk.calls:
        if call.answer is None or call.ok:
            continue
        following = next((m for m in talk.messages[call.at + 1 :] if m["role"] == "assistant"), None)
        if following is None or following.get("calls"):
            continue
        text = following.get("content", "")
        if not _REFUSES.search(text) and "?" not in _OFFER.sub("", text):
            yield following["n"], call.name


def _unexplained(talk: Talk) -> Iterator[Spot]:
    for at, text in talk.replies():
        if _BARE_REFUSAL.search(text):
            yield at, ""


def _repeated(talk: Talk) -> Iterator[Spot]:
    seen: set[str] = set()
    for call in talk.calls:
        key = call.name + json.dumps(call.arguments, sort_keys=True)
        if call.kind == "write":
            seen.clear()
        elif talk.conventions.looks_up(call.action) and key in seen:
            yield call.at, call.name
        seen.add(key)


def _needless_handover(talk: Talk) -> Iterator[Spot]:
    looked, ends = False, [name for name, kind in talk.tools.items() if kind == "end"]
    hand_over = talk.conventions.hand_over if talk.conventions.hand_over in ends else next(iter(ends), "")
    for call in talk.calls:
        if call.name == hand_over and not looked:
            yield call.at, call.name
        looked = looked or call.name not in talk.conventions.identifying


_DETECTORS: dict[str, Callable[[Talk], Iterator[Spot]]] = {
    "unidentified_customer": _unidentified,
    "foreign_account": _foreign_account,
    "unconfirmed_write": _unconfirmed,
    "unannounced_id": _unannounced,
    "foreign_id": _foreign_id,
    "ungrounded_number": _ungrounded,
    "not_cheapest": _not_cheapest,
    "unserved_request": _unserved,
    "ignored_refusal": _ignored_refusal,
    "unexplained_refusal": _unexplained,
    "repeated_read": _repeated,
    "needless_handover": _needless_handover,
}


@lru_cache(maxsize=2048)
def read(line: str) -> tuple[Talk, tuple[Flaw, ...]]:
    """A case's line of JSON, parsed, and every flaw found in it, ordered by place; one per place and criterion."""
    talk = Talk(json.loads(line))
    flaws = [flaw_of(kind, at, what, talk) for kind, detect in _DETECTORS.items() for at, what in detect(talk)]
    unique = {(flaw.location, flaw.criterion): flaw for flaw in reversed(flaws)}
    return talk, tuple(unique[place] for place in sorted(unique))
