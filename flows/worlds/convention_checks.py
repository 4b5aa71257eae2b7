"""Checks of what a world declares of its conventions: the tools are there, and an id is in their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.worlds.report import Check, Finding, short
from flows.worlds.sample import Sample
from tasks.contract.conventions import Conventions, conventions_of
from tasks.contract.params import BadInput
from tasks.worlds.api.tools import Tool

TOLD = "tasks/contract/conventions.py says what a world declares"


def declared(cls: Any, tools: Mapping[str, Tool], where: str) -> Check:
    """Every tool that is named is there, and of the kind that is meant; in words what holds."""
    try:
        found = conventions_of(cls, tools)
    except BadInput as error:
        return Check("conventions", "", (Finding(where, str(error), TOLD),))
    return Check("conventions", _in_words(found, tools))


def identified(sample: Sample) -> Check:
    """The id stands in every answer of a tool by which ground truths identify somebody."""
    ways = {way.tool: way for way in sample.world.conventions.identified_by}
    findings, count = {}, 0
    for problem in sample.everything:
        for action, result in zip(problem.actions, sample.world.replay(problem.actions).results, strict=True):
            if action.name in ways and result.ok:
                count += 1
                way = ways[action.name]
                if not way.person(result.content):
                    what = f"the answer of {way.tool} has no id at {way.answer!r}: {short(result.content)}"
                    findings[way.tool] = Finding(sample.place(way.tool), what, "correct `answer` of the Identification, a dotted path")
    unused = [name for name in ways if not any(action.name == name for one in sample.everything for action in one.actions)]
    notes = (f"no problem identifies anybody by {', '.join(unused)}",) if unused else ()
    return Check("identification", f"{count} people identified in ground truths", tuple(findings.values()), notes)


def _in_words(found: Conventions, tools: Mapping[str, Tool]) -> str:
    ways = " or ".join(f"{way.tool}({', '.join(way.fields)})" for way in found.identified_by)
    writes = [tool.name for tool in tools.values() if tool.kind == "write"]
    needing = [name for name in writes if found.confirmed is None or name in found.confirmed]
    who = found.confirmed_by if isinstance(found.confirmed_by, str) else "a rule"
    which = "every write" if needing == writes else ", ".join(needing) or "no write"
    confirms = (
        "nobody confirms a write" if who == "nobody" or not writes else f"{'the user' if who == 'user' else who} confirms {which}"
    )
    hands = f"{found.hand_over} hands over" if found.hand_over else "nothing hands over"
    return f"{f'people are identified by {ways}' if ways else 'nobody is identified'}; {hands}; {confirms}"
