"""Phase 1 of APIGen-MT: an author drafts, checks and a committee validate, a plan says what to mend, the author drafts again.

Commissions (one per blueprint) go through the attempts side by side, so that every model is asked in batches; each keeps its own
context and seed, and what becomes of it does not depend on its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tasks.chat.answers import read_json
from tasks.contract.client import Client, Message, Request
from tasks.contract.context import seed_of
from tasks.contract.problem import ACCEPTED, Action
from tasks.contract.rows import problem_row
from tasks.generate.parts.apigen_mt import committee
from tasks.generate.parts.apigen_mt.checks import Checked, check, undone
from tasks.generate.parts.apigen_mt.prompts import render
from tasks.generate.parts.apigen_mt.samplers import Material
from tasks.generate.parts.apigen_mt.trivial_agents import gate

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

PLAN: dict[str, Any] = {
    "type": "object",
    "properties": {"thought": {"type": "string"}, "summary": {"type": "string"}},
    "required": ["summary"],
}
"""Schema of a feedback answer."""


@dataclass(frozen=True)
class Commission:
    """One blueprint to be made. opening: how the author is asked. finish: turns the author's answer (fits `schema`) into a
    draft (fits `checks.DRAFT`). lineage, source_ids, parts: the parents of a recombination and their calls, else empty."""

    material: Material
    seed: int
    opening: tuple[Message, ...]
    schema: Mapping[str, Any]
    finish: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    lineage: tuple[str, ...] = ()
    source_ids: tuple[str, ...] = ()
    parts: tuple[tuple[Action, ...], ...] = ()


@dataclass(frozen=True)
class Rules:
    """How strict the proof is: see the method's params of the same names."""

    attempts: int
    feedback: bool
    judges: int
    threshold: float
    every_criterion: bool
    criteria: tuple[str, ...]
    judge_noise: float
    judge_correlation: float


@dataclass
class _Open:
    """A commission in work: what was said to and by its author, and what became of each attempt."""

    commission: Commission
    talk: list[Message]
    rows: list[dict[str, Any]] = field(default_factory=list)
    checked: Checked = field(default_factory=Checked)
    draft: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    verdict: committee.Verdict | None = None
    gates: Mapping[str, int] = field(default_factory=dict)
    unreadable: bool = False

    @property
    def done(self) -> bool:
        return bool(self.rows) and self.rows[-1]["status"] == ACCEPTED


@dataclass(frozen=True)
class Prover:
    """Proves blueprints of one world. author: generator or recombiner; judges: the models of the
    committee, in turn; feedback as the paper has it."""

    world: World
    author: Client
    judges: Sequence[Client]
    feedback: Client
    rules: Rules

    def prove(self, commissions: Sequence[Commission]) -> list[list[dict[str, Any]]]:
        """For each commission one row of BLUEPRINT per attempt, with the fields `unreadable`, `gates` and `data` besides. The
        last attempt may be accepted, those before it are not."""
        everyone = [_Open(commission, list(commission.opening)) for commission in commissions]
        for attempt in range(self.rules.attempts):
            left = [work for work in everyone if not work.done]
            if attempt:
                self._plan(left)
            self._draft(left, attempt)
            self._vote([work for work in left if not work.checked.status], attempt)
            for work in left:
                work.rows.append(self._row(work, attempt))
        return [work.rows for work in everyone]

    def _draft(self, left: Sequence[_Open], attempt: int) -> None:
        """Ask the author, and run stage 1 on what comes back."""
        requests = [
            Request(
                messages=work.talk,
                schema=dict(work.commission.schema),
                seed=self._seed(work, attempt),
                temperature=1.0,
                max_tokens=2048,
                labels={"role": "author", "blueprint": str(work.commission.seed)},
            )
            for work in left
        ]
        for work, message in zip(left, self.author.complete(requests), strict=True):
            work.talk = [*work.talk, {"role": "assistant", "content": str(message.get("content") or "")}]
            answer, error = read_json(message, work.commission.schema)
            work.draft, work.verdict, work.gates, work.unreadable = {}, None, {}, bool(error)
            if error:
                work.checked = Checked(status="failed_format", why=f"format: {error}")
            else:
                work.draft = work.commission.finish(answer)
                work.checked = check(self.world, work.draft, work.commission.material.data, work.commission.lineage)
                if not work.checked.status and (why := undone(self.world, work.commission.parts)):
                    work.checked = replace(work.checked, status="failed_exec", why=f"recombination: {why}")
            work.failures = (work.checked.why,) if work.checked.why else ()

    def _seed(self, work: _Open, attempt: int) -> int:
        """With feedback the author goes on from its own noise (what it said stands in the talk); without, it draws anew."""
        return work.commission.seed if self.rules.feedback else seed_of(work.commission.seed, "redraw", attempt)

    def _vote(self, left: Sequence[_Open], attempt: int) -> None:
        """Stage 2 and the final review, then the gate."""
        rules = self.rules
        questions = [self._question(work) for work in left]
        seeds = [seed_of(work.commission.seed, "judge", attempt) for work in left]
        noise = (rules.judge_noise, rules.judge_correlation)
        verdicts = committee.ask(self.judges, questions, seeds, rules.judges, *noise, rules.criteria)
        for work, verdict in zip(left, verdicts, strict=True):
            work.verdict = verdict
            if not verdict.accepts(rules.threshold, rules.every_criterion):
                work.failures = verdict.reasons or (f"the mean score {verdict.average:.2f} is not above {rules.threshold}",)
        passed = [work for work in left if not work.failures]
        problems = [work.checked.problem for work in passed if work.checked.problem is not None]
        for work, (why, gates) in zip(passed, gate(self.world, problems), strict=True):
            work.gates = gates
            work.failures = (f"gate: {why}",) if why else ()

    def _question(self, work: _Open) -> dict[str, Any]:
        row = {key: work.draft.get(key, default) for key, default in _TASK.items()}
        problem = work.checked.problem
        assert problem is not None  # stage 1 held
        row.update(family=problem.family, persona=problem.persona, required=_calls(problem.required))
        told = {"setting": self.world.setting, "policies": dict(self.world.rules)}
        return {"task": row, "trace": list(work.checked.trace), "diff": work.checked.diff, **told}

    def _plan(self, left: Sequence[_Open]) -> None:
        """Turn the reasons for the last refusal into a plan and tell the author; or, without feedback, start afresh."""
        if not self.rules.feedback:
            for work in left:
                work.talk = list(work.commission.opening)
            return
        requests = [
            Request(
                messages=[{"role": "user", "content": self._feedback_prompt(work)}],
                schema=PLAN,
                seed=seed_of(work.commission.seed, "feedback", len(work.rows)),
                max_tokens=512,
                labels={"role": "feedback"},
            )
            for work in left
        ]
        for work, message in zip(left, self.feedback.complete(requests), strict=True):
            value, error = read_json(message, PLAN)
            plan = "; ".join(work.failures) if error else value["summary"]
            work.rows[-1]["feedback"] = plan
            work.rows[-1]["unreadable"]["plans"] = int(bool(error))
            work.talk = [*work.talk, {"role": "user", "content": render("revise", feedback=plan)}]

    def _feedback_prompt(self, work: _Open) -> str:
        return render("feedback", setting=self.world.setting, task=dict(work.draft), failures=list(work.failures))

    def _row(self, work: _Open, attempt: int) -> dict[str, Any]:
        """The attempt as a row of BLUEPRINT, with a few counters that the method takes off again."""
        commission, checked, verdict = work.commission, work.checked, work.verdict
        status = checked.status or (ACCEPTED if not work.failures else "failed_gate" if work.gates else "failed_committee")
        known = problem_row(checked.problem) if checked.problem else self._nameless(work)
        return {
            **known,
            "seed": commission.seed,
            "attempt": attempt,
            "walk": list(commission.material.walk),
            "policy_ids": list(commission.material.policies),
            "context_hash": commission.material.hash,
            "source_ids": list(commission.source_ids),
            "diff_patch": checked.diff,
            "gt_state_hash": checked.state_hash,
            "status": status,
            "fail_reason": "; ".join(work.failures),
            "judge_scores": list(verdict.votes) if verdict else [],
            "avg_score": verdict.average if verdict else None,
            "feedback": "",
            "generator": f"{self.author.name}@{self.author.revision}",
            "unreadable": {"drafts": int(work.unreadable), "votes": verdict.unreadable if verdict else 0, "plans": 0},
            "gates": dict(work.gates),
            "data": dict(commission.material.data) if status == ACCEPTED else {},
        }

    def _nameless(self, work: _Open) -> dict[str, Any]:
        """What is known of an attempt that is no problem: it has no id; its words are kept as they came."""
        material = work.commission.material
        return {
            "problem_id": "",
            "world": material.world,
            "split": material.split,
            "family": "",
            "lineage": list(work.commission.lineage),
            "persona": material.persona,
            "instruction": str(work.talk[-1]["content"]),
            "intent_json": "{}",
            "actions": [],
            "outputs": [],
            "required": [],
            "tags": [],
            "n_writes": 0,
        }


_TASK: dict[str, Any] = {"instruction": "", "intent": {}, "actions": [], "outputs": []}


def _calls(actions: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"name": action.name, "arguments": json.loads(json.dumps(action.arguments))} for action in actions]
