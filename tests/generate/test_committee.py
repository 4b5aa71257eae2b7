"""The committee: majority per criterion, mean total against the threshold, flips with a given correlation."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from tasks.contract.client import Message, Request
from tasks.contract.params import BadInput
from tasks.contract.problem import Setting
from tasks.generate import apigen_mt
from tasks.generate.parts.apigen_mt.committee import CRITERIA, Verdict, ask, count, flips


def _answer(*lost: str) -> tuple[dict[str, Any], str]:
    return {name: {"score": int(name not in lost), "reason": f"no {name}" if name in lost else ""} for name in CRITERIA}, ""


QUIET = [dict.fromkeys(CRITERIA, False)] * 3
JUDGES = ("a#1", "a#2", "b#3")


def test_hand_worked_votes() -> None:
    """Judges give 4, 3 (no creativity), 2 (no creativity, no satisfaction): the mean is (4 + 3 + 2) / 3 = 3.0. Creativity has one
    vote of three and loses; satisfaction has two of three and holds. 3.0 is not above 3.0."""
    verdict = count([_answer(), _answer("creativity"), _answer("creativity", "satisfaction")], QUIET, JUDGES)
    assert verdict.average == pytest.approx(3.0)
    assert verdict.majority == {"correctness": 1, "completeness": 1, "satisfaction": 1, "creativity": 0}
    assert not verdict.accepts(3.0, every_criterion=False)
    assert verdict.accepts(2.9, every_criterion=False) and not verdict.accepts(2.9, every_criterion=True)
    assert verdict.reasons == ("creativity: no creativity", "satisfaction: no satisfaction")
    assert [vote["judge"] for vote in verdict.votes] == list(JUDGES)


def test_one_judge_without_noise_is_the_judge() -> None:
    """The limit of a committee of one: its verdict is the answer itself."""
    verdict = count([_answer("completeness")], QUIET[:1], JUDGES[:1])
    assert verdict.average == 3.0 and verdict.majority == {name: int(name != "completeness") for name in CRITERIA}


def test_an_unreadable_vote_counts_as_refusal_and_is_counted() -> None:
    verdict = count([_answer(), _answer(), ({}, "the answer is empty")], QUIET, JUDGES)
    assert verdict.unreadable == 1 and verdict.average == pytest.approx(8 / 3)
    assert all(verdict.majority.values()) and "unreadable vote" in verdict.votes[2]["reason"]


def _wrong_majorities(rho: float) -> float:
    tables = [flips(Random(seed), 3, 0.2, rho) for seed in range(4000)]
    return sum(sum(judge["correctness"] for judge in table) >= 2 for table in tables) / len(tables)


def test_majority_helps_against_independent_noise_only() -> None:
    """With flips at rate 0.2, a majority of three is wrong with 3 * 0.04 * 0.8 + 0.008 = 0.104; when the flips are the same for all
    judges it is wrong as often as one judge is, 0.2."""
    assert _wrong_majorities(0.0) == pytest.approx(0.104, abs=0.015)
    assert _wrong_majorities(1.0) == pytest.approx(0.2, abs=0.02)


def test_flips_have_the_rate_and_the_correlation() -> None:
    tables = [flips(Random(seed), 2, 0.3, 0.5) for seed in range(6000)]
    first, second = ([table[judge]["correctness"] for table in tables] for judge in (0, 1))
    both = sum(a and b for a, b in zip(first, second, strict=True)) / len(tables)
    rate = sum(first) / len(tables)
    assert rate == pytest.approx(0.3, abs=0.02)
    assert (both - rate * sum(second) / len(tables)) / (0.3 * 0.7) == pytest.approx(0.5, abs=0.05)
    assert flips(Random(1), 3, 0.0, 0.5) == QUIET


class _Echo:
    """A judge that is no script: it refuses whatever holds the word 'bad'."""

    revision = "1"

    def __init__(self, name: str = "echo") -> None:
        self.name, self.batches = name, list[int]()

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        self.batches.append(len(requests))
        return [
            {"content": json.dumps(_answer("correctness" if "bad" in request.messages[0]["content"] else "")[0])}
            for request in requests
        ]


def test_questions_are_asked_in_one_batch_and_answers_go_to_their_question() -> None:
    questions = [
        {"task": {"instruction": text}, "trace": [], "diff": "", "policies": {}, "setting": Setting()}
        for text in ("good", "bad", "good")
    ]
    verdicts: list[Verdict] = ask([_Echo()], questions, [1, 2, 3], judges=3, eta=0.0, rho=0.0)
    assert [verdict.average for verdict in verdicts] == [4.0, 3.0, 4.0]


def test_several_models_judge_in_turn() -> None:
    """Five judges of two models: the first model is judges 1, 3 and 5; each is asked once, and the votes name who gave them."""
    one, other = _Echo("one"), _Echo("other")
    questions = [
        {"task": {"instruction": text}, "trace": [], "diff": "", "policies": {}, "setting": Setting()} for text in ("good", "bad")
    ]
    verdicts = ask([one, other], questions, [1, 2], judges=5, eta=0.0, rho=0.0)
    assert [vote["judge"] for vote in verdicts[0].votes] == ["one#1", "other#2", "one#3", "other#4", "one#5"]
    assert (one.batches, other.batches) == ([6], [4]) and [verdict.average for verdict in verdicts] == [4.0, 3.0]


def test_a_criterion_can_be_dropped() -> None:
    """Form, prompt and score know three criteria: a task that lacks creativity alone is then worth all four points, and noise on what is
    left is as it was. The mean total still counts to 4, so that a threshold means the same."""
    three = CRITERIA[:3]
    question = {"task": {"instruction": "x"}, "trace": [], "diff": "", "policies": {}, "setting": Setting()}
    asked: list[Request] = []

    class Strict(_Echo):
        def complete(self, requests: Sequence[Request]) -> list[Message]:
            asked.extend(requests)
            kept = [{name: _answer("creativity")[0][name] for name in request.schema["required"]} for request in requests]  # type: ignore[index]
            return [{"content": json.dumps(answer)} for answer in kept]

    (full,) = ask([Strict()], [question], [1], judges=3, eta=0.0, rho=0.0)
    (fewer,) = ask([Strict()], [question], [1], judges=3, eta=0.0, rho=0.0, criteria=three)
    assert (full.average, full.accepts(3.0, True)) == (3.0, False) and (fewer.average, fewer.accepts(3.0, True)) == (4.0, True)
    assert fewer.majority == dict.fromkeys(three, 1) and not fewer.reasons
    assert [vote["creativity"] for vote in fewer.votes] == [None] * 3, "nobody was asked"
    before, after = (request.messages[0]["content"] for request in (asked[0], asked[3]))
    assert before.count("creativity") == 2 and "creativity" not in after and "satisfaction" in after
    assert asked[3].schema and asked[3].schema["required"] == list(three) and "creativity" not in asked[3].schema["properties"]
    lost = count([_answer("correctness"), _answer(), _answer()], QUIET, JUDGES, three)
    assert lost.average == pytest.approx(4 * 8 / 9)
    assert flips(Random(3), 3, 0.5, 0.5, three) != flips(Random(4), 3, 0.5, 0.5, three)


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        (("correctness", "creativty"), "no criterion 'creativty'. Did you mean 'creativity'?"),
        (("correctness", "correctness"), "named twice"),
    ],
)
def test_unknown_criteria_are_refused(criteria: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        apigen_mt.check(apigen_mt.Params(criteria=criteria))
