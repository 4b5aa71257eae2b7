"""Scripted critics, meta-critic and aggregator: deterministic readers of conversations, with a declared catalogue of errors.

They see what a model would see: the question's messages (conversation, criteria and tools as JSON) and the answer's schema.
Neither the blueprint nor the outcome is in there. Detectors (`tasks.players.critics.scripted.detectors`) look for what words, calls and
answers show;
a critic reports what they find, minus its misses, plus inventions. Each persona is blind to three of the twelve kinds; blind
spots are complementary, since critics that miss at random would be averaged out. The meta-critic looks with the same
detectors and errs on its own.
Cost: about 0.1 ms a question; a conversation is parsed and searched once for all questions about it.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Message, Request
from tasks.contract.context import seed_of
from tasks.players.critics.scripted.detectors import read
from tasks.players.critics.scripted.flaws import KINDS, Flaw, Talk, flaw_of

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

CATALOGUE: dict[str, dict[str, float]] = {
    "critic": {
        "miss": 0.15,
        "blind": 0.95,
        "invent": 0.15,
        "misplace": 0.1,
        "misjudge": 0.2,
        "misadvise": 0.1,
        "vague": 0.05,
        "malformed": 0.01,
    },
    "meta_critic": {"misjudge": 0.1, "malformed": 0.01},
    "aggregator": {"forget": 0.05, "malformed": 0.01},
}
"""Role -> error -> a rate to play with (ours). critic: miss a flaw it can see, or (blind)
one in its blind spot; invent a flaw (per conversation); misplace by one message; misjudge the severity by one; misadvise,
with another flaw's advice; be vague (per conversation). meta_critic: misjudge, one of the six other classes (per unit).
aggregator: forget a flaw. All: malformed, an answer that is no JSON."""

BLIND_SPOTS: dict[str, tuple[str, ...]] = {
    "guard": ("ungrounded_number", "not_cheapest", "unserved_request"),
    "auditor": ("unconfirmed_write", "unexplained_refusal", "needless_handover"),
    "advocate": ("foreign_id", "unannounced_id", "repeated_read"),
    "controller": ("unidentified_customer", "foreign_account", "ignored_refusal"),
}
"""Persona -> the kinds of flaw it hardly ever sees: disjoint, and together all kinds. Other personas see everything."""


def blocks(text: str) -> dict[str, Any]:
    """The parts of a question: each a name and a colon on a line, then one line of JSON."""
    lines = text.split("\n")
    named = itertools.pairwise(lines)
    return {line[:-1]: json.loads(value) for line, value in named if line.endswith(":") and value[:1] in ("{", "[")}


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
    """The script of one of these roles. All it reads is in the question, whatever the world."""
    return ScriptedCritic(f"scripted-{role}", "1", _ANSWERS[role], dict(errors), seed)


def _criticise(request: Request, rng: random.Random, errors: Mapping[str, float]) -> dict[str, Any]:
    talk, flaws = read(_case_line(request))
    found = re.search(r"^Reviewer: (\w+)", request.messages[0]["content"], re.MULTILINE)
    blind = BLIND_SPOTS.get(found[1], ()) if found else ()
    rate = {name: errors.get(name, 0.0) for name in CATALOGUE["critic"]}
    seen = [flaw for flaw in flaws if rng.random() >= rate["blind" if flaw.kind in blind else "miss"]]
    units = [_blurred(flaw, talk, rng, rate).remark() for flaw in seen]
    if rng.random() < rate["invent"]:
        units.append(_invented(talk, flaws, rng).remark())
    if rng.random() < rate["vague"]:
        units.append({**_invented(talk, (), rng).remark(), "description": "Could be better.", "suggestion": ""})
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
    return flaw_of(rng.choice(absent or list(KINDS)), rng.choice(own or [0]), "this", talk)


def _judge(request: Request, rng: random.Random, errors: Mapping[str, float]) -> dict[str, Any]:
    _, flaws = read(_case_line(request))
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
