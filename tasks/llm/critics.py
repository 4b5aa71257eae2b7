"""Scripted critics, meta-critic and aggregator: deterministic readers of conversations, with a declared catalogue of errors.

They see what a model would see: the question's messages (conversation, criteria and tools as JSON) and the answer's schema.
Neither the blueprint nor the outcome is in there. Eight detectors look for flaws that words, calls and answers show; a
critic reports what they find, minus its misses, plus inventions. Each persona is blind to two kinds of flaw (complementary:
critics that miss at random would be averaged out). The meta-critic looks with the same detectors and errs on its own. Cost:
about 0.3 ms a question; a conversation is parsed and searched once for all questions about it.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.context import seed_of
from tasks.llm import Message, Request

if TYPE_CHECKING:
    from tasks.worlds.runtime import World

CATALOGUE: dict[str, dict[str, float]] = {
    "critic": {
        "miss": 0.15,
        "blind": 0.95,
        "invent": 0.25,
        "misplace": 0.1,
        "misjudge": 0.2,
        "misadvise": 0.1,
        "vague": 0.05,
        "malformed": 0.01,
    },
    "meta_critic": {"misjudge": 0.1, "malformed": 0.01},
    "aggregator": {"forget": 0.05, "malformed": 0.01},
}
"""Role -> error -> a rate to play with (near methods/multicritique, `flaw_lab`). critic: miss a flaw it can see, or (blind)
one in its blind spot; invent a flaw (per conversation); misplace by one message; misjudge the severity by one; misadvise,
with another flaw's advice; be vague (per conversation). meta_critic: misjudge, one of the six other classes (per unit).
aggregator: forget a flaw. All: malformed, an answer that is no JSON."""

BLIND_SPOTS: dict[str, tuple[str, str]] = {
    "guard": ("ungrounded_number", "unserved_request"),
    "auditor": ("unconfirmed_write", "needless_handover"),
    "advocate": ("foreign_id", "repeated_read"),
    "controller": ("unidentified_customer", "ignored_refusal"),
}
"""Persona -> the kinds of flaw it hardly ever sees: disjoint, and together all eight. Other personas see everything."""


@dataclass(frozen=True)
class Kind:
    """A kind of flaw. about: what a policy rule that covers it says (regular expression, none if empty); conduct: the rule
    of conduct that covers it where no policy rule does."""

    severity: int
    about: str
    conduct: str
    description: str
    suggestion: str


KINDS: dict[str, Kind] = {
    "unidentified_customer": Kind(
        3, r"authenticat|identif|verif|who the (user|customer)", "procedure",
        "{what} is called before the customer is identified.", "Identify the customer first.",
    ),
    "unconfirmed_write": Kind(
        3, r"confirm|explicit|\byes\b", "procedure",
        "{what} changes something without a yes right before it.", "Say what will change and wait for a yes.",
    ),
    "ignored_refusal": Kind(
        3, "", "recovery",
        "{what} was refused, and the customer is told otherwise.", "Say that it was refused, and why.",
    ),
    "unserved_request": Kind(
        4, "", "completeness",
        "The customer asked to {what}, and nothing was done about it.", "Do it, or say why it cannot be done.",
    ),
    "ungrounded_number": Kind(
        3, "", "grounding",
        "{what} stands in no tool answer and in no word of the customer.", "Say only what a tool answered.",
    ),
    "foreign_id": Kind(
        3, "", "grounding",
        "{what} was mentioned by nobody.", "Use an id that the customer or a tool gave.",
    ),
    "repeated_read": Kind(
        1, "", "economy",
        "{what} repeats a call whose answer is known.", "Use the answer that is there.",
    ),
    "needless_handover": Kind(
        2, r"transfer|hand.?over|human agent", "completeness",
        "{what} hands over before anything was looked up.", "Look into the request first.",
    ),
}  # fmt: skip
"""What the detectors look for: five visible in calls, three in words."""


@dataclass(frozen=True)
class Flaw:
    """A unit as a critic says it. kind is not said."""

    kind: str
    location: int
    criterion: str
    severity: int
    quote: str
    description: str
    suggestion: str

    def said(self) -> dict[str, Any]:
        """The unit without its kind."""
        return {key: value for key, value in asdict(self).items() if key != "kind"}


def blocks(text: str) -> dict[str, Any]:
    """The parts of a question: each a name and a colon on a line, then one line of JSON."""
    lines = text.split("\n")
    named = itertools.pairwise(lines)
    return {line[:-1]: json.loads(value) for line, value in named if line.endswith(":") and value[:1] in ("{", "[")}


@dataclass(frozen=True)
class Talk:
    """A conversation as a critic reads it. messages: numbered; tools: name -> kind; criteria: tier -> name -> text."""

    messages: list[dict[str, Any]]
    tools: dict[str, str]
    criteria: dict[str, dict[str, str]]

    def calls(self) -> Iterator[tuple[int, dict[str, Any], dict[str, Any] | None]]:
        """(message number, call, the tool's answer or None) in order."""
        for at, message in enumerate(self.messages):
            for offset, call in enumerate(message.get("calls", ())):
                answer = at + 1 + offset
                found = self.messages[answer] if answer < len(self.messages) else None
                yield at, call, found if found and found["role"] == "tool" else None

    def said(self, role: str) -> str:
        """Everything that a role said, in lower case."""
        return " ".join(message.get("content", "") for message in self.messages if message["role"] == role).lower()


Spot = tuple[int, str]
"""Where a flaw lies (message number) and what its description names."""

_IDENTIFIES = re.compile(r"(find|identify|authenticate|verify|log_?in|get).*(user|customer|passenger|member)")
_YES = re.compile(
    r"\b(yes|yeah|yep|sure|ok|okay|go ahead|confirm(ed)?|please do|do it|that'?s (right|fine|correct)|correct)\b"
)
_NUMBER = re.compile(r"(?<![\w.#])\$?(\d[\d,]*(?:\.\d+)?)(?![\w])")
_ID = re.compile(r"#?\b(?=\w*\d)(?=\w*[A-Za-z_])\w{4,}\b|#?\b\d{5,}\b")
_REFUSES = re.compile(r"\b(sorry|cannot|can't|unable|not|no|refused|unfortunately|only)\b|n't\b")


def _unidentified(talk: Talk) -> Iterator[Spot]:
    if not any(_IDENTIFIES.match(name) for name in talk.tools):
        return
    for at, call, answer in talk.calls():
        if _IDENTIFIES.match(call["name"]):
            if answer and answer["ok"]:
                return
        elif talk.tools.get(call["name"]) in ("read", "write"):
            yield at, call["name"]
            return


def _unconfirmed(talk: Talk) -> Iterator[Spot]:
    for at, call, _ in talk.calls():
        if talk.tools.get(call["name"]) == "write":
            heard = next((m["content"].lower() for m in reversed(talk.messages[:at]) if m["role"] == "user"), "")
            if not _YES.search(heard):
                yield at, call["name"]


def _ignored_refusal(talk: Talk) -> Iterator[Spot]:
    for at, call, answer in talk.calls():
        if answer is None or answer["ok"]:
            continue
        later = [m for m in talk.messages[at + 1 :] if m["role"] == "assistant"]
        if later and not later[0].get("calls") and not _REFUSES.search(later[0].get("content", "").lower()):
            yield later[0]["n"], call["name"]


def _unserved(talk: Talk) -> Iterator[Spot]:
    """A change that the customer asked for by a tool's own verb; no such call, no refusal and no hand-over came of it."""
    wanted, replied = talk.said("user"), talk.said("assistant")
    tried = {call["name"].split("_")[0] for _, call, _ in talk.calls()}
    ended = any(talk.tools.get(call["name"]) == "end" for _, call, _ in talk.calls())
    if ended or _REFUSES.search(replied):
        return
    for verb in sorted({name.split("_")[0] for name, kind in talk.tools.items() if kind == "write"} - tried):
        if re.search(rf"\b{verb}\b", wanted):
            yield len(talk.messages) - 1, verb


def _values(text: str) -> set[float]:
    return {float(found[1].replace(",", "")) for found in _NUMBER.finditer(text)}


def _ungrounded(talk: Talk) -> Iterator[Spot]:
    known: set[float] = set()
    for message in talk.messages:
        text = message.get("content", "")
        if message["role"] == "assistant":
            if foreign := sorted(value for value in _values(text) - known if value >= 10):  # small numbers are often counts
                yield message["n"], f"{foreign[0]:g}"
        else:
            known |= _values(text) | {float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", text)}


def _foreign_id(talk: Talk) -> Iterator[Spot]:
    known: set[str] = set()
    for message in talk.messages:
        for call in message.get("calls", ()):
            for value in _ID.findall(json.dumps(call["arguments"])):
                if value.lstrip("#").lower() not in known:
                    yield message["n"], value
        if message["role"] != "assistant":
            known |= {value.lstrip("#").lower() for value in _ID.findall(message.get("content", ""))}


def _repeated(talk: Talk) -> Iterator[Spot]:
    seen: set[str] = set()
    for at, call, _ in talk.calls():
        kind = talk.tools.get(call["name"])
        key = json.dumps(call, sort_keys=True)
        if kind == "write":
            seen.clear()
        elif kind == "read" and key in seen:
            yield at, call["name"]
        seen.add(key)


def _needless_handover(talk: Talk) -> Iterator[Spot]:
    looked = False
    for at, call, _ in talk.calls():
        if talk.tools.get(call["name"]) == "end" and not looked:
            yield at, call["name"]
        looked = looked or not _IDENTIFIES.match(call["name"])


_DETECTORS: dict[str, Callable[[Talk], Iterator[Spot]]] = {
    "unidentified_customer": _unidentified,
    "unconfirmed_write": _unconfirmed,
    "ignored_refusal": _ignored_refusal,
    "unserved_request": _unserved,
    "ungrounded_number": _ungrounded,
    "foreign_id": _foreign_id,
    "repeated_read": _repeated,
    "needless_handover": _needless_handover,
}


@lru_cache(maxsize=2048)
def _read(text: str) -> tuple[Talk, tuple[Flaw, ...]]:
    """A case's line of JSON, parsed, and every flaw the detectors find in it, ordered by place."""
    case = json.loads(text)
    talk = Talk(case["conversation"], case["tools"], case["criteria"])
    flaws = [_flaw(kind, at, what, talk) for kind, detect in _DETECTORS.items() for at, what in detect(talk)]
    unique = {(flaw.location, flaw.criterion): flaw for flaw in reversed(flaws)}
    return talk, tuple(unique[place] for place in sorted(unique))


def _flaw(kind: str, at: int, what: str, talk: Talk) -> Flaw:
    known = KINDS[kind]
    rules = (name for name, text in talk.criteria["policy"].items() if known.about and re.search(known.about, text.lower()))
    criterion = next(rules, known.conduct)
    quote = talk.messages[at].get("content", "")[:80]
    return Flaw(kind, at, criterion, known.severity, quote, known.description.format(what=what), known.suggestion)


def _case_line(request: Request) -> str:
    """The case is the second line of the question, under its name."""
    question: str = request.messages[1]["content"]
    return question.split("\n", 2)[1]


@dataclass(frozen=True)
class ScriptedCritic:
    """One scripted role. errors: rate of each error of the role's catalogue (0 where not named)."""

    name: str
    revision: str
    answer: Callable[[Request, random.Random, Mapping[str, float]], dict[str, Any]]
    errors: Mapping[str, float]
    seed: int

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message of JSON per request, in order; each depends on its own request alone."""
        return [{"role": "assistant", "content": self._content(request)} for request in requests]

    def _content(self, request: Request) -> str:
        rng = random.Random(seed_of(self.seed, self.name, request.seed))
        if rng.random() < self.errors.get("malformed", 0.0):
            return "I would say that it went rather well."
        return json.dumps(self.answer(request, rng, self.errors), ensure_ascii=False)


def client(role: str, world: World | None, errors: Mapping[str, float], seed: int) -> ScriptedCritic:
    """The scripted critic, meta_critic or aggregator; LookupError for any other role. All they read is in the question."""
    if role not in _ANSWERS:
        raise LookupError(f"no scripted critic plays the role {role!r}; known: {', '.join(_ANSWERS)}")
    return ScriptedCritic(f"scripted-{role}", "1", _ANSWERS[role], dict(errors), seed)


def _criticise(request: Request, rng: random.Random, errors: Mapping[str, float]) -> dict[str, Any]:
    talk, flaws = _read(_case_line(request))
    found = re.search(r"^Reviewer: (\w+)", request.messages[0]["content"], re.MULTILINE)
    blind = BLIND_SPOTS.get(found[1], ()) if found else ()
    rate = {name: errors.get(name, 0.0) for name in CATALOGUE["critic"]}
    seen = [flaw for flaw in flaws if rng.random() >= rate["blind" if flaw.kind in blind else "miss"]]
    units = [_blurred(flaw, talk, rng, rate).said() for flaw in seen]
    if rng.random() < rate["invent"]:
        units.append(_invented(talk, flaws, rng).said())
    if rng.random() < rate["vague"]:
        units.append({**_invented(talk, (), rng).said(), "description": "Could be better.", "suggestion": ""})
    return {"units": units}


def _blurred(flaw: Flaw, talk: Talk, rng: random.Random, rate: Mapping[str, float]) -> Flaw:
    """The flaw with the small errors: a message off, a severity off, another flaw's advice."""
    said = asdict(flaw)
    if rng.random() < rate["misplace"]:
        said["location"] = _moved(flaw.location, 0, len(talk.messages) - 1, rng)
    if rng.random() < rate["misjudge"]:
        said["severity"] = _moved(flaw.severity, 1, 4, rng)
    if rng.random() < rate["misadvise"]:
        said["suggestion"] = KINDS[rng.choice([kind for kind in KINDS if kind != flaw.kind])].suggestion
    return Flaw(**said)


def _moved(value: int, low: int, high: int, rng: random.Random) -> int:
    """One up or down, inside the range; where only one direction is open, that one."""
    return rng.choice([near for near in (value - 1, value + 1) if low <= near <= high] or [value])


def _invented(talk: Talk, flaws: Sequence[Flaw], rng: random.Random) -> Flaw:
    """A flaw that is not there: a kind that the conversation does not have, at one of the agent's messages."""
    absent = [kind for kind in KINDS if kind not in {flaw.kind for flaw in flaws}]
    own = [message["n"] for message in talk.messages if message["role"] == "assistant"]
    return _flaw(rng.choice(absent or list(KINDS)), rng.choice(own or [0]), "this", talk)


def _judge(request: Request, rng: random.Random, errors: Mapping[str, float]) -> dict[str, Any]:
    _, flaws = _read(_case_line(request))
    verdict = _verdict(blocks(request.messages[1]["content"])["Unit"], flaws)
    if rng.random() < errors.get("misjudge", 0.0):
        wrong = rng.choice([number for number in range(1, 8) if number != verdict["class"]])
        return {"class": wrong, "why": "So it seems to me."}
    return verdict


def _verdict(unit: Mapping[str, Any], flaws: Sequence[Flaw]) -> dict[str, Any]:
    """The class of a unit, compared with what the detectors find; the comparison goes from the best class down."""
    if not unit["suggestion"] or len(unit["description"].split()) < 4:
        return {"class": 7, "why": "Too vague to act on."}
    for flaw in flaws:
        if (flaw.location, flaw.criterion) == (unit["location"], unit["criterion"]):
            return _details(unit, flaw)
    for flaw in flaws:
        if flaw.criterion == unit["criterion"] and abs(flaw.location - unit["location"]) == 1:
            return {"class": 3, "why": "Right, but at another message.", "fix": {"location": flaw.location}}
    for flaw in flaws:
        if flaw.location == unit["location"] and flaw.suggestion == unit["suggestion"]:
            return {"class": 4, "why": "Right, but another criterion.", "fix": {"criterion": flaw.criterion}}
    return {"class": 6, "why": "The conversation does not show this."}


def _details(unit: Mapping[str, Any], flaw: Flaw) -> dict[str, Any]:
    if unit["suggestion"] != flaw.suggestion:
        return {"class": 5, "why": "Right, but this would not mend it.", "fix": {"suggestion": flaw.suggestion}}
    if unit["severity"] != flaw.severity:
        return {"class": 4, "why": "Right, but not this severe.", "fix": {"severity": flaw.severity}}
    if flaw.severity == 1:
        return {"class": 2, "why": "Right, but cosmetic."}
    return {"class": 1, "why": "The conversation shows it."}


def _merge(request: Request, rng: random.Random, errors: Mapping[str, float]) -> dict[str, Any]:
    """The best sound remark of each place and criterion, corrected."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for unit in blocks(request.messages[1]["content"])["Units"]:
        if unit["class"] in (1, 2, 3, 4, 5):
            fixed = {**unit, **unit["fix"]}
            groups.setdefault((fixed["location"], fixed["criterion"]), []).append(fixed)
    units = []
    for _, group in sorted(groups.items()):
        if rng.random() >= errors.get("forget", 0.0):
            best = max(group, key=lambda unit: unit["weight"])
            spoken = {key: best[key] for key in ("location", "criterion", "severity", "quote", "description", "suggestion")}
            units.append({**spoken, "source_ids": [unit["id"] for unit in group]})
    return {"units": units}


_ANSWERS: dict[str, Callable[[Request, random.Random, Mapping[str, float]], dict[str, Any]]] = {
    "critic": _criticise,
    "meta_critic": _judge,
    "aggregator": _merge,
}
