"""What a change costs in calls: answers are remembered by what was asked, as the cache of paid calls does it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.client import BudgetSpent, Client, Message, Request
from tasks.generate.parts.apigen_mt import committee
from tasks.generate.parts.apigen_mt.prompts import render
from tasks.players import roles
from tests.generate.conftest import ERRORS, Make

ROLES = ("generator", "judge", "feedback", "recombiner", "human", "human_critic", "agent")


@dataclass
class Memory:
    """Answers that were paid, role by role; asked: calls that had to be made in the present run. limit: calls that may be."""

    known: dict[str, Message] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    limit: int = 10**9


@dataclass
class Remembering:
    """A client that asks another one only what the memory does not hold."""

    role: str
    inner: Client
    memory: Memory

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def revision(self) -> str:
        return self.inner.revision

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        answers = []
        for request in requests:
            key = json.dumps([self.role, {**asdict(request), "labels": None}], sort_keys=True)
            if key not in self.memory.known:
                if sum(self.memory.asked.values()) >= self.memory.limit:
                    raise BudgetSpent("max_tokens is spent")
                self.memory.asked[self.role] += 1
                self.memory.known[key] = self.inner.complete([request])[0]
            answers.append(self.memory.known[key])
        return answers


@pytest.fixture
def clients(folder: Path) -> Any:
    """clients(memory): every role, scripted with errors, behind the memory."""
    made = roles.maker({name: {"backend": "scripted", "errors": rates} for name, rates in ERRORS.items()}, folder, 0)

    def behind(memory: Memory) -> dict[str, Client]:
        memory.asked.clear()
        return {role: Remembering(role, made(role, "retail"), memory) for role in ROLES}

    return behind


def test_more_problems_cost_what_they_add(make: Make, clients: Any) -> None:
    """Forty problems, then fifty: everything of the forty is as it was, and is not asked again."""
    memory = Memory()
    small = make(clients=clients(memory), problems=40, recombine=0.5)
    paid = dict(memory.asked)
    large = make(clients=clients(memory), problems=50, recombine=0.5)
    alone = sum(Counter(memory.asked).values())
    assert set(small.accepted) < set(large.accepted)
    assert 10 <= memory.asked["generator"] <= 10 * 4 < paid["generator"] and alone < 0.6 * sum(paid.values())
    before, after = ({row["traj_id"]: row for row in made.trajectories} for made in (small, large))
    assert all(after[name] == row for name, row in before.items())
    assert large.files == make(ERRORS, problems=50, recombine=0.5).files


def test_a_second_run_asks_nothing(make: Make, clients: Any) -> None:
    memory = Memory()
    first = make(clients=clients(memory), problems=20)
    assert make(clients=clients(memory), problems=20, shard_size=3).files == first.files and not memory.asked


def test_an_edited_judge_asks_judges_alone(make: Make, clients: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bank pinned, another wording of the judge's prompt is asked of every judged draft, and nothing else is asked again;
    where it changes a verdict, that item alone goes on from there."""
    memory = Memory()
    first = make(clients=clients(memory), problems=40)
    (tmp_path / "bank.json").write_bytes(first.files["bank.json"])
    assert make(clients=clients(memory), problems=40, pinned=tmp_path / "bank.json").files == first.files and not memory.asked

    def reworded(name: str, **values: Any) -> str:
        return render(name, **values) + ("\nBe strict." if name == "judge" else "")

    monkeypatch.setattr(committee, "render", reworded)
    again = make(clients=clients(memory), problems=40, pinned=tmp_path / "bank.json")
    judged = sum(len(row["judge_scores"]) for row in again.blueprints)
    assert set(memory.asked) == {"judge"} and memory.asked["judge"] == judged
    assert again.files["trajectories.parquet"] == first.files["trajectories.parquet"]

    victim = next(row for row in first.blueprints if row["status"] == "accepted" and not row["source_ids"])
    made = clients(memory)
    judge = made["judge"]

    @dataclass
    class Stricter:
        """Refuses one task, whatever is said about it."""

        name: str = judge.name
        revision: str = judge.revision

        def complete(self, requests: Sequence[Request]) -> list[Message]:
            found = judge.complete(requests)
            no = {name: {"score": 0, "reason": "no"} for name in committee.CRITERIA}
            return [
                {"role": "assistant", "content": json.dumps(no)} if victim["instruction"] in str(request.messages) else answer
                for request, answer in zip(requests, found, strict=True)
            ]

    changed = make(clients={**made, "judge": Stricter()}, problems=40, recombine=0, pinned=tmp_path / "bank.json")
    assert 1 <= memory.asked["generator"] == memory.asked["feedback"] <= 3, "further attempts at the one item"
    others = [[row for row in made.blueprints if row["seed"] != victim["seed"] and not row["source_ids"]] for made in (again, changed)]
    assert others[0] == others[1]


def test_a_spent_budget_leaves_a_dataset(make: Make, clients: Any) -> None:
    """What was made until then is whole: blueprints with their conversations; with more budget the same run goes on from there."""
    memory = Memory(limit=400)
    stopped = make(clients=clients(memory), problems=40)
    assert stopped.figures["stopped"] == "max_tokens is spent" and stopped.figures["conversations"]["won"] > 0
    assert len(stopped.accepted) > 0 and {row["problem_id"] for row in stopped.trajectories} <= set(stopped.accepted)
    memory.limit = 10**9
    whole = make(clients=clients(memory), problems=40)
    assert whole.figures["stopped"] == "" and whole.files == make(ERRORS, problems=40).files
    kept = {row["traj_id"]: row for row in whole.trajectories}
    assert all(kept[row["traj_id"]] == row for row in stopped.trajectories)
