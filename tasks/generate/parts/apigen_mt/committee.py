"""A committee of judges: up to four criteria, 0 or 1 each, counted by majority and by the mean total (APIGen-MT, 4.1 and app. B).

The judges' answers are data: an answer that cannot be read is a vote of 0 on every criterion, and is counted. Noise that a study
wants on top (independent flips at rate eta, shared by the whole committee with probability rho) is added here, after the
answers are read, so that it means the same for every kind of judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tasks.chat.answers import read_json
from tasks.contract.client import Client, Request
from tasks.generate.parts.apigen_mt.prompts import render

CRITERIA = ("correctness", "completeness", "satisfaction", "creativity")
"""What a judge can be asked for; each has its text in prompts/judge.jinja, and its column in a blueprint's `judge_scores`."""
_CRITERION = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 1}, "reason": {"type": "string"}},
    "required": ["score", "reason"],
}


def schema(criteria: Sequence[str] = CRITERIA) -> dict[str, Any]:
    """Schema of a judge's answer on these criteria."""
    properties = {**dict.fromkeys(criteria, _CRITERION), "corrections": {"type": "string"}}
    return {"type": "object", "properties": properties, "required": list(criteria)}


@dataclass(frozen=True)
class Verdict:
    """What the committee said. votes: one entry of `judge_scores` in BLUEPRINT a judge. average: mean total, 0 to 4 however many
    criteria there are (with three, each weighs 4/3). majority: criterion -> 0 or 1. reasons: "criterion: reason" of each
    lost vote. unreadable: answers without a vote."""

    votes: tuple[dict[str, Any], ...]
    average: float
    majority: Mapping[str, int]
    reasons: tuple[str, ...]
    unreadable: int

    def accepts(self, threshold: float, every_criterion: bool) -> bool:
        """The final review: the mean total is above the threshold and, if wanted, no criterion lost its vote."""
        return self.average > threshold and (not every_criterion or all(self.majority.values()))


def flips(rng: Random, judges: int, eta: float, rho: float, criteria: Sequence[str] = CRITERIA) -> list[dict[str, bool]]:
    """For each judge, which criteria are flipped. Each flip has probability eta; two judges' flips of a criterion have
    correlation rho (with probability rho the whole committee draws one flip together)."""
    table: list[dict[str, bool]] = [{} for _ in range(judges)]
    for criterion in criteria:
        together = rng.random() < rho
        shared = rng.random() < eta
        for judge in table:
            own = rng.random() < eta
            judge[criterion] = shared if together else own
    return table


def ask(
    panel: Sequence[Client],
    questions: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    judges: int,
    eta: float,
    rho: float,
    criteria: Sequence[str] = CRITERIA,
) -> list[Verdict]:
    """One verdict per question (task, trace, diff, policies). panel: the models that judge in turn: judge n is model n of them, and
    begins anew after the last. Each model is asked everything that it judges as one batch."""
    requests = [
        Request(
            messages=[{"role": "user", "content": render("judge", number=number + 1, criteria=criteria, **question)}],
            schema=schema(criteria),
            seed=seed + number,
            temperature=1.0,
            max_tokens=512,
            labels={"role": "judge"},
        )
        for question, seed in zip(questions, seeds, strict=True)
        for number in range(judges)
    ]
    answers: list[tuple[dict[str, Any], str]] = [({}, "")] * len(requests)
    for turn, client in enumerate(panel):
        mine = [place for place in range(len(requests)) if place % judges % len(panel) == turn]
        for place, message in zip(mine, client.complete([requests[place] for place in mine]), strict=True):
            answers[place] = read_json(message, schema(criteria))
    names = [f"{panel[number % len(panel)].name}#{number + 1}" for number in range(judges)]
    verdicts = []
    for index, seed in enumerate(seeds):
        votes = answers[index * judges : (index + 1) * judges]
        verdicts.append(count(votes, flips(Random(seed), judges, eta, rho, criteria), names, criteria))
    return verdicts


def count(
    answers: Sequence[tuple[Mapping[str, Any], str]],
    flipped: Sequence[Mapping[str, bool]],
    names: Sequence[str],
    criteria: Sequence[str] = CRITERIA,
) -> Verdict:
    """Add up the votes of one question; answers are (value, error) as `read_json` gives them, one for each judge's name."""
    votes: list[dict[str, Any]] = []
    reasons: dict[str, None] = {}
    for name, (value, error), flip in zip(names, answers, flipped, strict=True):
        vote = {criterion: _score(value, error, criterion, flip) for criterion in criteria}
        lost = [f"{criterion}: {_reason(value, error, criterion)}" for criterion in criteria if not vote[criterion]]
        reasons.update(dict.fromkeys(lost))
        votes.append({"judge": name, **dict.fromkeys(CRITERIA), **vote, "reason": "; ".join(lost)})
    majority = {name: int(2 * sum(vote[name] for vote in votes) > len(votes)) for name in criteria}
    average = sum(vote[criterion] for vote in votes for criterion in criteria) / len(votes) * (len(CRITERIA) / len(criteria))
    return Verdict(tuple(votes), average, majority, tuple(reasons), sum(bool(error) for _, error in answers))


def _score(value: Mapping[str, Any], error: str, criterion: str, flip: Mapping[str, bool]) -> int:
    return 0 if error else int(value[criterion]["score"]) ^ int(flip[criterion])


def _reason(value: Mapping[str, Any], error: str, criterion: str) -> str:
    return f"unreadable vote ({error})" if error else value[criterion]["reason"] or "no reason given"
