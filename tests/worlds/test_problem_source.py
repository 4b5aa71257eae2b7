"""Problems that a world draws and problems that were proven for it, taken in the same ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tasks.contract import rows, schemas, tables
from tasks.contract.params import BadInput
from tasks.contract.problem import PASSIVE, Problem
from tasks.contract.proven import BLUEPRINTS, proven
from tasks.worlds.adapters import from_object
from tasks.worlds.api.problem_making import draw_problems, problem_of, split_of, user_context
from tasks.worlds.api.problem_source import Problems
from tasks.worlds.api.runtime import World
from tests.worlds.kiosk import Adapted, adapted
from tests.worlds.players import world


class Sums:
    """Keeps nothing."""

    def add(self, one: int, other: int) -> int:
        """Add two numbers."""
        return one + other


def written(folder: Path, problems: Sequence[Problem]) -> Path:
    """A folder as a step leaves it that has proven these, and refused each of them once before."""
    blank = dict.fromkeys(schemas.BLUEPRINT.names, "") | {"source_ids": [], "walk": [], "policy_ids": [], "judge_scores": []}
    blank |= {"seed": 0, "attempt": 0, "avg_score": None}
    attempts = [{**blank, **rows.problem_row(one), "status": status} for one in problems for status in ("failed_committee", "accepted")]
    tables.write_rows(folder / BLUEPRINTS, schemas.BLUEPRINT, attempts)
    return folder


def made(count: int, split: str = "test") -> tuple[World, list[Problem]]:
    """A world that draws none, and problems as a generator may have made them in it: every third one looks up."""
    here = World.build(adapted(users="_users"), 1, 0)
    assert not here.families
    user = here.shared.users[split][0]
    drafts = [
        {"instruction": f"wish {number}", "actions": [{"name": name, "arguments": {"order_id": "W1"}}], "outputs": ["11"]}
        for number in range(count)
        for name in ["cancel_order" if number % 3 else "get_order"]
    ]
    return here, [problem_of(here, draft, {"user_id": user, "split": split, "persona": "plain"}) for draft in drafts]


def test_a_world_that_draws_is_asked(tmp_path: Path) -> None:
    shop, source = world("retail"), Problems((), "")
    assert source.first(shop, "test", 9, 3) == draw_problems(shop, "test", 9, 3) == source.fresh(shop, "test", 9, 3)
    assert source.up_to(shop, "train", 9, 3) == draw_problems(shop, "train", 9, 3)
    first = source.first(shop, "test", 10, 1)
    again = source.fresh(shop, "test", 10, 1, {one.problem_id for one in first[:4]})
    assert again[:6] == first[4:] and len({one.problem_id for one in (*first, *again)}) == 14


def test_proven_problems_keep_their_order_when_more_are_made(tmp_path: Path) -> None:
    """The test problems are the first ones; the gate takes from the rest, by its seed, families in turn."""
    here, all_of_them = made(30)
    few, many = (Problems(proven(written(tmp_path / str(count), all_of_them[:count])), "Make more.") for count in (20, 30))
    assert few.first(here, "test", 8, 0) == many.first(here, "test", 8, 5) == all_of_them[:8]
    test = {one.problem_id for one in all_of_them[:8]}
    gate = few.fresh(here, "test", 8, 1, test)
    assert not test & {one.problem_id for one in gate} and gate == few.fresh(here, "test", 8, 1, test) != few.fresh(
        here, "test", 8, 2, test
    )
    assert [one.family for one in gate] == ["information", "one_write"] * 4, "although 2 of 3 write"


def test_too_few_are_told_with_numbers(tmp_path: Path) -> None:
    here, problems = made(6)
    source = Problems(proven(written(tmp_path, [*problems[:5], replace(problems[5], tags=(PASSIVE,))])), "Make more.")
    used = {one.problem_id for one in problems[:3]}
    says = (
        "world kiosk draws no problems of its own: 3 of split 'test' are wanted, and of the 6 that are proven 2 can be used. Make more."
    )
    with pytest.raises(BadInput, match=says):
        source.fresh(here, "test", 3, 0, used)
    with pytest.raises(BadInput, match="7 of split 'test' are wanted, and of the 6 that are proven 6 can be used"):
        source.first(here, "test", 7, 0)
    assert len(source.up_to(here, "test", 5, 0)) == 5 and len(source.up_to(here, "test", 2, 0)) == 2
    with pytest.raises(BadInput, match="1 of split 'train' are wanted, and of the 0 that are proven 0 can be used"):
        source.up_to(here, "train", 50, 0)


def test_a_world_without_users_has_lineages_all_the_same() -> None:
    """Each blueprint is one of its own; its split is a hash of its drawn number, so that no other split can draw it."""
    here = World.build(from_object(Sums, name="sums", policy="R1. Add."), 1, 0)
    assert not here.splits
    cases = {split: {user_context(here, Random(n), split)["user_id"] for n in range(40)} for split in ("train", "validation", "test")}
    assert all(len(found) == 40 for found in cases.values()) and len(set.union(*cases.values())) == 120
    assert user_context(here, Random(1), "test") == user_context(here, Random(1), "test")
    shares = [sum(split_of(f"{n}", 0) == split for n in range(5000)) / 5000 for split in cases]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)


def test_given_problems_are_drawn(tmp_path: Path) -> None:
    here = World.build(Adapted, 1, 0, "tests.worlds.kiosk:Adapted")
    source: Callable[..., list[Problem]] = Problems((), "").first
    assert source(here, "test", 2, 0) == draw_problems(here, "test", 2, 0)
