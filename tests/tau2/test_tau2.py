"""tau2-bench's retail and airline as worlds: all that the packages' own databases say of solutions and of changed ones, grading says too."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.evaluate_agent import Wish, evaluate
from flows.evaluation_text import document
from infra.stub import running
from tasks.contract.problem import Action, Problem
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.engine import process
from tasks.worlds.api.frozen import freeze_world, load
from tests.conftest import ROOT
from tests.flows.in_process import in_process
from tests.tau2.package import Calls, mutants, package, problems, world

pytestmark = pytest.mark.tau2
DOMAINS = ("retail", "airline")
CALLS = {"retail": (550, 18), "airline": (142, 0)}
"""Calls of all solutions, and how many of them are refused on purpose."""
PASSIVE = {"retail": 7, "airline": 23}
"""Tasks that doing nothing solves: nothing is to be written or said."""
MUTANTS = {"retail": 2000, "airline": 1000}
MOST = {"call": 5.0, "reset": 1.0, "hash": 1.0}
"""Milliseconds that each may take, in the median."""


def outcome(domain: str, problem: Problem, calls: Calls) -> Outcome:
    """How a conversation is graded that makes these calls and says what is to be said."""
    final, trajectory = world(domain).fork(), Trajectory(problem, 0)
    trajectory.messages = [{"role": "assistant", "content": ". ".join(problem.outputs) or "Anything else?"}]
    for name, arguments in calls:
        tool = final.tools[name]
        trajectory.calls.append((Action(name, arguments, tool.kind), final.call(name, arguments)))
    return world(domain).grade(trajectory, final)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_call_of_every_solution_is_answered_as_the_package_answers_it(domain: str) -> None:
    count = Counter[bool]()
    for task, problem in zip(package(domain).tasks, problems(domain), strict=True):
        replay = world(domain).replay(problem.actions)
        assert [(action.name, action.arguments) for action in problem.actions] == task.calls
        for result, (ok, answer) in zip(replay.results, package(domain).played(task.calls)[1], strict=True):
            count[result.ok] += 1
            assert result.ok is ok and result.content == (answer if ok else json.dumps({"error": answer})), task.task_id
    assert (count.total(), count[False]) == CALLS[domain]
    print(f"\n{domain}: {count.total()} calls of {len(problems(domain))} solutions answered alike, {count[False]} refusals on purpose")


@pytest.mark.parametrize("domain", DOMAINS)
def test_solutions_win_doing_nothing_loses_and_passive_tasks_stand_apart(domain: str) -> None:
    passive = 0
    for task, problem in zip(package(domain).tasks, problems(domain), strict=True):
        assert outcome(domain, problem, task.calls).reward == 1, task.task_id
        nothing = Trajectory(problem, 0, messages=[{"role": "assistant", "content": "Anything else?"}])
        reward = world(domain).grade(nothing, world(domain).fork()).reward
        assert reward == problem.passive, task.task_id
        assert not (problem.passive and problem.n_writes), task.task_id
        passive += problem.passive
    assert passive == PASSIVE[domain]
    print(f"\n{domain}: {len(problems(domain))} solutions graded 1; doing nothing 0 on all but {passive} passive tasks")


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_are_the_packages_own(domain: str) -> None:
    splits = package(domain).splits
    found = {task.task_id: problem.split for task, problem in zip(package(domain).tasks, problems(domain), strict=True)}
    for split in ("train", "test"):
        assert sorted(splits[split]) == sorted(task for task, own in found.items() if own == split)
    assert sorted(splits["base"]) == sorted(found), "and base is all of them"


@pytest.mark.parametrize("domain", DOMAINS)
def test_changed_solutions_are_judged_as_the_packages_databases_say(domain: str) -> None:
    truths: dict[int, Any] = {}
    count = Counter[str]()
    wrong = []
    tasks = package(domain).tasks
    for place, kind, calls in mutants(tasks, MUTANTS[domain], 0):
        if place not in truths:
            truths[place] = package(domain).played(tasks[place].calls)[0]
        same = package(domain).played(calls)[0] == truths[place]
        count[f"{kind}: {'same' if same else 'other'} database"] += 1
        if outcome(domain, problems(domain)[place], calls).reward != same:
            wrong.append((tasks[place].task_id, kind, calls))
    print(f"\n{domain}: {count.total() - len(wrong)} of {count.total()} changed solutions judged alike; {dict(sorted(count.items()))}")
    assert not wrong, wrong[:3]


@pytest.mark.parametrize("domain", DOMAINS)
def test_calls_resets_and_hashes_take_no_time_on_the_whole_database(domain: str) -> None:
    took: dict[str, list[float]] = {name: [] for name in MOST}
    fork = world(domain).fork()
    for problem in problems(domain):
        for action in problem.actions:
            took["call"].append(timed(lambda one=action: fork.call(one.name, one.arguments)))
            took["hash"].append(timed(fork.state_hash))
        took["reset"].append(timed(fork.reset))
    medians = {name: statistics.median(times) for name, times in took.items()}
    slowest = max(took["call"])
    print(f"\n{domain}: {', '.join(f'{name} {ms:.3f} ms' for name, ms in medians.items())} (medians); slowest call {slowest:.1f} ms")
    assert all(medians[name] <= most for name, most in MOST.items())


def timed(work: Any) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_frozen_world_is_the_same_world(domain: str, tmp_path: Any) -> None:
    freeze_world(world(domain), tmp_path / domain)
    found = load(tmp_path / domain)
    assert (found.state_hash(), found.splits, found.schemas()) == (
        world(domain).state_hash(),
        world(domain).splits,
        world(domain).schemas(),
    )
    problem = next(one for one in problems(domain) if one.n_writes)
    assert found.replay(problem.actions).state_hash == world(domain).replay(problem.actions).state_hash


@pytest.mark.parametrize("domain", DOMAINS)
def test_any_endpoint_can_be_evaluated(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server that talks at random: what counts is that everything is played, graded and counted."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    monkeypatch.setattr(process, "run", in_process)
    few = {"evaluate.pass_k.max_lost": 1.0, "evaluate.pass_k.resamples": 100}
    with running() as stub:
        wish = Wish(
            stub.url, f"tau2_{domain}", "some-model", human_model="some-human", problems=30, trials=1, split="all", overrides=few
        )
        found = evaluate(wish, tmp_path, tmp_path / ".cairn", lambda *_: None, lambda _: None, lambda _: pytest.fail("no checkpoint"))
    said = document(found, "evaluate")
    assert said["passive"]["1"]["n"] == 30 - said["problems"] > 0
    assert said["baselines"]["oracle"]["mean"] == 1.0 and said["baselines"]["do_nothing"]["mean"] == 0.0
    print(f"\n{domain}: cairn evaluate played {said['problems']} tasks and {30 - said['problems']} passive ones")
