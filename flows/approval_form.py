"""The form by which Prefect's UI asks a person about a decision, and what it shows beside it: the gates' numbers, two conversations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from prefect.input import RunInput
from pydantic import Field

from flows.conversation_text import conversation_lines
from flows.markdown_text import cell, heading
from flows.report import talks
from flows.survey import survey
from tasks.engine.artifact import Artifact
from tasks.engine.plan import Plan

LINES, LETTERS = 24, 1500
"""Lines of a conversation that are shown, and characters of each message; ours, a page of a form."""


class Answer(RunInput):
    """What is asked. Prefect compares what comes back with it, and refuses to go on without who and why."""

    approve: bool = Field(
        title="approve", description="On: the candidate becomes champion. Off: it does not, and is not asked about again."
    )
    by: str = Field(title="by", min_length=1, pattern=r"\S", description="Who answers; Prefect's open-source server knows no users.")
    why: str = Field(title="why", min_length=1, pattern=r"\S", description="For the ledger of promotions, or for the version's tag.")


def evidence(plan: Plan, decision: Artifact) -> str:
    """What the decision rests on, in Markdown: its sentence, a line for each gate, a won and a lost conversation of the candidate."""
    verdict = json.loads((plan.store.view(decision.identity) / "decision.json").read_text(encoding="utf-8"))
    return "\n".join([*_gates(plan.settings.shared.promote.model, verdict), *_conversations(plan)])


def _gates(model: str, verdict: Mapping[str, Any]) -> Iterator[str]:
    against = (verdict.get("champion") or {}).get("identity")
    yield f"Shall the candidate become champion of **{cell(model)}**, {f'instead of {against}' if against else 'which has none yet'}?"
    yield ""
    yield cell(verdict["reason"])
    yield from heading("Gates")
    for gate in verdict["gates"]:  # no table: the form is so narrow that it would be cut off
        yield f"- **{cell(gate['name'])}** {'holds' if gate['passed'] else 'does not hold'}: {cell(gate['explanation'])}"


def _conversations(plan: Plan) -> Iterator[str]:
    """The first won and the first lost conversation of the candidate, of those that the report shows."""
    road = plan.settings.road
    folders = {step.stage: plan.store.view(step.artifact.identity) for step in survey(plan) if step.artifact}
    found = talks.conversations(folders, road[road.candidate].checkpoint(), road)
    for pile in (talks.WON, talks.LOST):
        yield from heading(f"A conversation that it {pile}")
        talk = next((one for one in found if one["pile"] == pile), None)
        yield from conversation_lines(talk, LINES, LETTERS) if talk else ["There is none."]
