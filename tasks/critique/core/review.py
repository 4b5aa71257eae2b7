"""Asking the roles about a shard of cases: batches per step, a repair budget, and every unreadable answer counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tasks.contract.client import Client, Message, Request
from tasks.contract.context import Context
from tasks.critique.core import prompts
from tasks.critique.core.aggregate import AGGREGATE, aggregate
from tasks.critique.core.prompts import Case
from tasks.critique.core.units import SOUND, Unit, Unreadable, Verdict, critic_schema, meta_schema, order, parse_units, parse_verdict

Read = TypeVar("Read")


@dataclass
class Question:
    """One question: its messages, the answer's schema, the seed of its noise."""

    messages: list[Message]
    schema: dict[str, Any]
    seed: int


@dataclass
class Reviewers:
    """Where the questions of one world and one shard are asked. counts: what happened, by name."""

    ctx: Context
    world: str
    max_tokens: int
    repairs: int
    counts: Counter[str] = field(default_factory=Counter)

    def ask(self, role: str, questions: Sequence[Question], read: Sequence[Callable[[Any], Read]]) -> list[Read | None]:
        """Ask all as one batch and read each answer; the unreadable are asked again up to `repairs` times, then None."""
        client = self.ctx.role(role, self.world)
        found: list[Read | None] = [None] * len(questions)
        talks = [question.messages for question in questions]
        open_ones = list(range(len(questions)))
        for attempt in range(self.repairs + 1):
            answers = self._complete(client, role, questions, talks, open_ones, attempt)
            failed = []
            for index, answer in zip(open_ones, answers, strict=True):
                try:
                    found[index] = read[index](answer.get("content"))
                except Unreadable as error:
                    if lost := answer.get("lost"):  # asked again, it would be refused again
                        self.counts[f"{role}_{lost}"] += 1
                        self.counts[f"{role}_unreadable"] += 1
                        continue
                    failed.append(index)
                    said = {"role": "assistant", "content": str(answer.get("content") or "")}
                    again = {"role": "user", "content": prompts.AGAIN.format(problem=error)}
                    talks[index] = [*talks[index], said, again]
            self.counts[f"{role}_malformed"] += len(failed)
            open_ones = failed
        self.counts[f"{role}_questions"] += len(questions)
        self.counts[f"{role}_unreadable"] += len(open_ones)
        return found

    def _complete(
        self,
        client: Client,
        role: str,
        questions: Sequence[Question],
        talks: Sequence[list[Message]],
        open_ones: Sequence[int],
        attempt: int,
    ) -> list[Message]:
        requests = [
            Request(
                messages=talks[index],
                schema=questions[index].schema,
                seed=questions[index].seed + attempt,
                max_tokens=self.max_tokens,
                labels={"role": role},
            )
            for index in open_ones
        ]
        return client.complete(requests) if requests else []


Critiques = dict[str, list[Unit]]
"""The readable critiques of one trajectory, by critic, names sorted."""


def criticise(reviewers: Reviewers, cases: Sequence[Case], critics: Sequence[str]) -> list[Critiques]:
    """Step 4: every critic reviews every case on its own. An unreadable critique is missing, which is not empty."""
    jobs = [(case, name) for case in cases for name in sorted(critics)]
    questions, readers = [], []
    for case, name in jobs:
        seed = reviewers.ctx.seed_for("critic", name, case.traj_id)
        schema = critic_schema(case.n_messages, case.criteria)
        questions.append(Question(prompts.critic_messages(case, name), schema, seed))
        readers.append(_unit_reader(reviewers, case, name))
    reviews: dict[str, Critiques] = {case.traj_id: {} for case in cases}
    for (case, name), units in zip(jobs, reviewers.ask("critic", questions, readers), strict=True):
        if units is not None:
            reviews[case.traj_id][name] = units
    return [reviews[case.traj_id] for case in cases]


def _unit_reader(reviewers: Reviewers, case: Case, name: str) -> Callable[[Any], list[Unit]]:
    def read(content: Any) -> list[Unit]:
        units, refused = parse_units(content, f"{case.traj_id}-{name}", name, case.n_messages, case.criteria)
        reviewers.counts["units_refused"] += len(refused)
        return units

    return read


def judge(reviewers: Reviewers, cases: Sequence[Case], reviews: Sequence[Critiques], weights: Sequence[float]) -> list[Critiques]:
    """Step 5: the meta-critic classifies each unit, one at a time, with the others' units as shuffled, anonymous context."""
    jobs = [(case, review, unit) for case, review in zip(cases, reviews, strict=True) for unit in _units(review)]
    questions, readers = [], []
    for case, review, unit in jobs:
        others = sorted((other for other in _units(review) if other.critic != unit.critic), key=order)
        reviewers.ctx.rng("context", unit.unit_id).shuffle(others)
        seed = reviewers.ctx.seed_for("meta_critic", unit.unit_id)
        schema = meta_schema(case.n_messages, case.criteria)
        questions.append(Question(prompts.meta_messages(case, unit, others), schema, seed))
        readers.append(_verdict_reader(case))
    judged: list[Critiques] = [{name: [] for name in review} for review in reviews]
    at = {case.traj_id: index for index, case in enumerate(cases)}
    for (case, _, unit), verdict in zip(jobs, reviewers.ask("meta_critic", questions, readers), strict=True):
        judged[at[case.traj_id]][unit.critic].append(_with(unit, verdict, weights))
    return judged


def _units(review: Critiques) -> Iterator[Unit]:
    return (unit for units in review.values() for unit in units)


def _verdict_reader(case: Case) -> Callable[[Any], Verdict]:
    return lambda content: parse_verdict(content, case.n_messages, case.criteria)


def _with(unit: Unit, verdict: Verdict | None, weights: Sequence[float]) -> Unit:
    if verdict is None:
        return unit  # stays unjudged: class 0, weight 0
    weight = weights[verdict.quality_class - 1]
    return replace(unit, quality_class=verdict.quality_class, weight=weight, why=verdict.why, fix=verdict.fix)


def merge(reviewers: Reviewers, cases: Sequence[Case], reviews: Sequence[Critiques], by_role: bool) -> list[list[Unit]]:
    """Step 6: one critique per case, by the rule or by the role; the rule stands in for the role's unreadable answers."""
    merged = [aggregate(f"{case.traj_id}-{AGGREGATE}", _units(review)) for case, review in zip(cases, reviews, strict=True)]
    if not by_role:
        return merged
    questions, readers, asked = [], [], []
    for index, (case, review) in enumerate(zip(cases, reviews, strict=True)):
        known = {f"u{n}": unit for n, unit in enumerate(sorted(_units(review), key=order))}
        if known:
            seed = reviewers.ctx.seed_for("aggregator", case.traj_id)
            schema = critic_schema(case.n_messages, case.criteria)
            questions.append(Question(prompts.aggregator_messages(case, known), _with_sources(schema, known), seed))
            readers.append(_merged_reader(case, known))
            asked.append(index)
    for index, units in zip(asked, reviewers.ask("aggregator", questions, readers), strict=True):
        if units is not None:
            merged[index] = units
    return merged


def _with_sources(schema: dict[str, Any], known: Mapping[str, Unit]) -> dict[str, Any]:
    item = schema["properties"]["units"]["items"]
    sources = {"type": "array", "items": {"type": "string", "enum": list(known)}, "minItems": 1}
    item["properties"]["source_ids"] = sources
    item["required"] = [*item["required"], "source_ids"]
    return schema


def _merged_reader(case: Case, known: Mapping[str, Unit]) -> Callable[[Any], list[Unit]]:
    """Reads an aggregate; each unit takes class and weight of its best source, and must name at least one sound one."""

    def read(content: Any) -> list[Unit]:
        owner = f"{case.traj_id}-{AGGREGATE}"
        units, refused = parse_units(content, owner, AGGREGATE, case.n_messages, case.criteria, sourced=True)
        if refused:
            raise Unreadable(refused[0])
        return [_sourced(unit, known) for unit in units]

    return read


def _sourced(unit: Unit, known: Mapping[str, Unit]) -> Unit:
    sources = [known[key] for key in unit.source_ids if key in known]
    sound = [source for source in sources if source.quality_class in SOUND]
    if not sound or len(sources) < len(unit.source_ids):
        raise Unreadable("a unit's source_ids are not ids of the given remarks, or none of them is sound")
    best = min(sound, key=lambda source: (-source.weight, source.unit_id))
    return replace(
        unit,
        quality_class=best.quality_class,
        weight=best.weight,
        why=best.why,
        source_ids=tuple(sorted(source.unit_id for source in sources)),
    )
