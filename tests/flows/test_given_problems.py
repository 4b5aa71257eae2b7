"""What a user may have left out around an API is told before anything is paid: problems enough for the coming stages, and a policy.

Worked by hand on `kiosk.jsonl`: six customers with a cancellation and a question each; train has 8 problems, validation and
test have 2. In `kiosk_passive.jsonl` test has 4 and a passive one, validation a passive one alone.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import ahead, given_problems
from flows.own_api.written import PLACEHOLDER
from flows.worlds.policy_checks import rules
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store
from tasks.engine.settings import load
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.problem_source import Problems
from tasks.worlds.api.runtime import World
from tests.conftest import ROOT
from tests.worlds.kiosk import HERE, Adapted, adapted


class Passive(adapted(problems_file=HERE / "kiosk_passive.jsonl")):  # type: ignore[misc]
    """With problems that doing nothing solves."""


class Unwritten(adapted(policy=PLACEHOLDER)):  # type: ignore[misc]
    """With the policy that `cairn init --from` writes where none is given."""


def plan_of(folder: Path, *worlds: type, **more: Any) -> Any:
    """As much of a plan as is looked at: smoke's params, of which `more` changes some, and frozen worlds."""
    for one in worlds:
        made = World.build(one, 1, 0, f"{one.__module__}:{one.__name__}")
        freeze_world(made, folder / "worlds" / made.name)
    modules = [f"{one.__module__}:{one.__name__}" for one in worlds]
    changes = [("worlds.freeze.modules", modules), *((key.replace("__", "."), value) for key, value in more.items())]
    store = Store(folder / "state")
    return SimpleNamespace(settings=load(ROOT, "smoke", changes), store=store, there={"worlds": store.put(folder / "worlds")})


def test_too_few_are_told_before_anything_is_paid(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Adapted)
    with pytest.raises(BadInput) as error:
        given_problems.check(plan, ["generate", "rl", "evaluate"], plan.there)
    said = str(error.value)
    assert "evaluate.pass_k: world kiosk: 8 problems of split 'test' (problems) and 6 fresh ones for the gate (gate_problems)" in said
    assert "kiosk.jsonl gives 2, 0 of them passive. Add lines, or ask for fewer." in said and len(said.splitlines()) == 1
    given_problems.check(plan, ["generate", "rl"], plan.there)
    given_problems.check(plan, ["generate", "rl", "evaluate"], {})


@pytest.mark.parametrize(("problems", "gate", "enough"), [(1, 1, True), (2, 0, True), (2, 1, False), (1, 2, False)])
def test_test_and_gate_problems_are_counted_together(problems: int, gate: int, enough: bool, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Adapted, evaluate__pass_k__problems=problems, evaluate__pass_k__gate_problems=gate)
    if enough:
        given_problems.check(plan, ["rl", "evaluate"], plan.there)
    else:
        with pytest.raises(BadInput, match=r"gives 2, 0 of them passive"):
            given_problems.check(plan, ["rl", "evaluate"], plan.there)


def test_passive_ones_are_no_gate_problems_and_teach_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Passive, evaluate__pass_k__problems=5, evaluate__pass_k__gate_problems=0)
    given_problems.check(plan, ["evaluate"], plan.there)
    with pytest.raises(
        BadInput, match=r"rl.loop: world kiosk: .*kiosk_passive.jsonl gives no problem of split 'validation' to choose a chec"
    ):
        given_problems.check(plan, ["rl"], plan.there)
    plan = plan_of(tmp_path, Passive, evaluate__pass_k__problems=3, evaluate__pass_k__gate_problems=3)
    with pytest.raises(BadInput, match=r"3 problems .* and 3 fresh ones .* gives 5, 1 of them passive"):
        given_problems.check(plan, ["evaluate"], plan.there)


def test_training_takes_as_many_as_there_are() -> None:
    """A file seldom has as many problems as a training would like to choose from."""
    here, source = World.build(Adapted, 1, 0, "tests.worlds.kiosk:Adapted"), Problems((), "")
    assert len(source.up_to(here, "train", 300, 0)) == 8 and len(source.up_to(here, "train", 5, 0)) == 5
    assert len(source.up_to(here, "validation", 96, 0)) == 2


def test_a_policy_that_nobody_wrote_is_told_before_anything_is_paid(tmp_path: Path) -> None:
    says = "its policy is still the text that `cairn init` put there"
    assert [step for step, line in ahead.unwritten(plan_of(tmp_path, Unwritten).settings) if says in line] == ["worlds"]
    assert [*ahead.unwritten(load(ROOT, "smoke"))] == []
    assert any(says in note for note in rules(Unwritten, "").notes) and not any(says in note for note in rules(Adapted, "").notes)
