"""Analytical critique units: what a critic's answer must look like, how a unit is worth something, how units become text.

A unit names one flaw: where (message index), which criterion, how severe (1 to 4), what is wrong and what to do instead. A
meta-critic gives every unit one of seven quality classes (MultiCritique; names and weights are ours, the paper's are not
public): 1 correct and useful, 2 correct but minor, 3 correct at a wrong location, 4 correct with a wrong
severity or criterion, 5 right flaw with a wrong suggestion, 6 flaw not present, 7 duplicate, vague or off-topic. 0 stands
for a unit whose verdict could not be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tasks.chat.answers import data

SEVERITIES = 4
"""Severity goes from 1 (cosmetic) to 4 (harm done); four levels, as the paper's agreement study suggests (chance .25)."""

UNSUPPORTED, IDLE, UNJUDGED = 6, 7, 0
SOUND = (1, 2, 3, 4, 5)
"""Classes of units that name a real flaw; 3, 4 and 5 are repairable."""

WEIGHTS = (1.0, 0.6, 0.4, 0.4, 0.2, -1.0, 0.0)
"""Worth of classes 1 to 7: ours."""


@dataclass(frozen=True)
class Unit:
    """One analytical critique unit.

    location: message index. severity: 1 to 4. quality_class, weight, why: the meta-critic's verdict (0, 0.0, "" before it).
    fix: what the verdict corrects (location, criterion, severity, suggestion). source_ids: the units it was made from.
    """

    unit_id: str
    critic: str
    location: int
    criterion: str
    severity: int
    description: str
    suggestion: str
    quote: str = ""
    quality_class: int = UNJUDGED
    weight: float = 0.0
    why: str = ""
    source_ids: tuple[str, ...] = ()
    fix: Mapping[str, Any] = field(default_factory=dict)

    def repaired(self) -> Unit:
        """The unit with its corrections applied."""
        return replace(self, **self.fix, fix={})

    def remark(self) -> dict[str, Any]:
        """What the critic said, without who said it and what it was worth: anonymous, as other roles see it."""
        return {key: getattr(self, key) for key in SPOKEN}

    def row(self) -> dict[str, Any]:
        """The unit as a struct of `schemas.CRITIQUE`."""
        return {**{key: value for key, value in vars(self).items() if key != "fix"}, "source_ids": list(self.source_ids)}


SPOKEN = ("location", "criterion", "severity", "quote", "description", "suggestion")


def critic_schema(n_messages: int, criteria: Collection[str]) -> dict[str, Any]:
    """JSON schema of a critic's answer; an empty list of units is a valid answer."""
    unit = {
        "type": "object",
        "properties": {
            "location": {"type": "integer", "minimum": 0, "maximum": n_messages - 1},
            "criterion": {"type": "string", "enum": list(criteria)},
            "severity": {"type": "integer", "minimum": 1, "maximum": SEVERITIES},
            "quote": {"type": "string"},
            "description": {"type": "string"},
            "suggestion": {"type": "string"},
        },
        "required": list(SPOKEN),
    }
    return {"type": "object", "properties": {"units": {"type": "array", "items": unit}}, "required": ["units"]}


def meta_schema(n_messages: int, criteria: Collection[str]) -> dict[str, Any]:
    """JSON schema of a verdict on one unit; `fix` only for classes 3 to 5."""
    unit = critic_schema(n_messages, criteria)["properties"]["units"]["items"]["properties"]
    return {
        "type": "object",
        "properties": {
            "class": {"type": "integer", "minimum": 1, "maximum": len(WEIGHTS)},
            "why": {"type": "string"},
            "fix": {"type": "object", "properties": {key: unit[key] for key in REPAIRABLE}},
        },
        "required": ["class", "why"],
    }


REPAIRABLE = ("location", "criterion", "severity", "suggestion")


class Unreadable(ValueError):
    """An answer that is not what was asked for; the message says how, for the repair and for the count."""


class Verdict(NamedTuple):
    """A meta-critic's answer about one unit."""

    quality_class: int
    why: str
    fix: dict[str, Any]


def _answer(content: Any, key: str) -> dict[str, Any]:
    try:
        answer = data(content)
    except (TypeError, ValueError):
        raise Unreadable("the answer is not JSON") from None
    if not isinstance(answer, dict) or key not in answer:
        raise Unreadable(f"the answer is not a JSON object with the key {key!r}")
    return answer


def field_problem(key: str, value: Any, n_messages: int, criteria: Collection[str]) -> str:
    """What is wrong with one field of a unit, or an empty string."""
    if key == "location":
        return "" if _whole(value, 0, n_messages - 1) else f"location is not a message number from 0 to {n_messages - 1}"
    if key == "severity":
        return "" if _whole(value, 1, SEVERITIES) else f"severity is not a whole number from 1 to {SEVERITIES}"
    if not isinstance(value, str):
        return f"{key} is not text"
    if key == "criterion":
        return "" if value in criteria else "criterion is not one of the given ones"
    return "description is empty" if key == "description" and not value.strip() else ""


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def parse_units(
    content: Any, owner: str, critic: str, n_messages: int, criteria: Collection[str], sourced: bool = False
) -> tuple[list[Unit], list[str]]:
    """A critic's or (`sourced`) an aggregator's answer as (units, what was wrong with each refused unit).

    owner: prefix of the unit ids. Raises Unreadable when the answer as a whole is not a list of units.
    """
    items = _answer(content, "units")["units"]
    if not isinstance(items, list):
        raise Unreadable("units is not a list")
    units, refused = [], []
    for index, item in enumerate(items):
        problem = _unit_problem(item, n_messages, criteria) or (_source_problem(item) if sourced else "")
        if problem:
            refused.append(problem)
            continue
        sources = tuple(item["source_ids"]) if sourced else ()
        spoken = {key: item[key] for key in SPOKEN}
        units.append(Unit(unit_id=f"{owner}-{index}", critic=critic, source_ids=sources, **spoken))
    return units, refused


def _unit_problem(item: Any, n_messages: int, criteria: Collection[str]) -> str:
    if not isinstance(item, dict):
        return "not an object"
    for key in SPOKEN:
        if key not in item:
            return f"{key} is missing"
        if problem := field_problem(key, item[key], n_messages, criteria):
            return problem
    return ""


def _source_problem(item: Mapping[str, Any]) -> str:
    ids = item.get("source_ids")
    good = isinstance(ids, list) and ids and all(isinstance(key, str) for key in ids)
    return "" if good else "source_ids is not a list of ids"


def parse_verdict(content: Any, n_messages: int, criteria: Collection[str]) -> Verdict:
    """A meta-critic's answer; Unreadable when its class or one of its corrections is not what was asked for."""
    answer = _answer(content, "class")
    fix, why = answer.get("fix") or {}, answer.get("why", "")
    if not _whole(answer["class"], 1, len(WEIGHTS)):
        raise Unreadable(f"class is not a whole number from 1 to {len(WEIGHTS)}")
    if not isinstance(why, str) or not isinstance(fix, dict):
        raise Unreadable("why is not text or fix is not an object")
    for key, value in fix.items():
        problem = field_problem(key, value, n_messages, criteria) if key in REPAIRABLE else f"{key} cannot be corrected"
        if problem:
            raise Unreadable(f"fix: {problem}")
    return Verdict(answer["class"], why, fix if answer["class"] in (3, 4, 5) else {})


def quality(units: Iterable[Unit]) -> float:
    """Q(c) = sum over units of w[class] (1 + severity) (ours; a sum, so n_units is recorded beside it). Empty: 0."""
    return float(sum(unit.weight * (1 + unit.severity) for unit in units))


def score(units: Iterable[Unit]) -> float:
    """The trajectory's grade in [0, 1]: product over units of 1 - max(w, 0) severity / (SEVERITIES + 1) (ours).

    1 when there is nothing to criticise; one certain flaw of severity 4 gives 0.2, and every further flaw still counts.
    """
    grade = 1.0
    for unit in units:
        grade *= 1 - min(max(unit.weight, 0.0), 1.0) * unit.severity / (SEVERITIES + 1)
    return grade


def order(unit: Unit) -> tuple[Any, ...]:
    """Sorting key by place and content: the same for any order of critics."""
    return (unit.location, unit.criterion, -unit.weight, unit.severity, unit.description, unit.suggestion, unit.unit_id)


def render(units: Sequence[Unit]) -> str:
    """A critique as text: one template for all sources, so that style does not tell them apart."""
    if not units:
        return "No flaw found."
    return "\n".join(
        f"[{unit.location}] {unit.criterion}, severity {unit.severity}: {unit.description} Instead: {unit.suggestion}"
        for unit in sorted(units, key=lambda unit: (unit.location, unit.criterion, unit.description, unit.suggestion))
    )
