"""The APIGen-MT recipe at toy size: equal rows in every arm, the pool is what the generator wrote, matching by writes and turns.

By hand: wanted rows with (writes, agent turns) (1, 7), (2, 9), (0, 4); pool (2, 9), (1, 8), (1, 3), (0, 4). The second and third have
an equal; for the first, with as many writes, 8 turns are nearer than 3. Two of three agree exactly.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows import recipes
from flows.recipes import apigen_mt as recipe
from tasks.contract.params import BadInput
from tests.recipes.toys import check_left, measure, quiet, same

TOY = {
    "customers": 60, "problems": 40, "rows": 20, "probe": 20, "base_steps": 2, "width": 64, "vocab": 600, "epochs": 1, "max_steps": 2,
    "test_problems": 6, "rate": 0.5, "sweep": [0.0],
}  # fmt: skip

Run = tuple[Path, recipes.Measured, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One seed of the toy: folder, what was returned, rows."""
    out = tmp_path_factory.mktemp("apigen_mt")
    return out, *measure("apigen_mt", 5, TOY, out)


def test_it_leaves_all_arms_and_complete_rows(run: Run) -> None:
    check_left("apigen_mt", 5, *run)
    _, measured, rows = run
    assert set(measured.arms) == {"verified", "unfiltered", "unfiltered_matched", *recipe.PLAYERS, "feedback", "redraws", "single"}
    assert {row["part"] for row in rows} == {"trained", "blueprints"}
    assert {row["subset"] for row in rows if row["part"] == "trained"} == {"rate 0.5", "rate 0"}
    assert set(measured.figures["by_rate"]) == {"0.5", "0"} and "unfiltered_matched" not in measured.figures["by_rate"]["0"]
    assert measured.arms["oracle"]["pass_1"] == 1.0 and measured.arms["do_nothing"]["pass_1"] == 0.0


def test_every_arm_has_as_many_rows_and_only_the_unfiltered_ones_are_bad(run: Run) -> None:
    figures = run[1].figures
    for rate, arms in (("0.5", ("verified", "unfiltered", "unfiltered_matched")), ("0", ("verified", "unfiltered"))):
        assert {figures["training"][f"{arm}_{rate}"]["rows"] for arm in arms} == {20}
        bad = figures["data"][rate]["bad"]
        assert set(bad) == set(arms) and bad["verified"] == {"refused": 0.0, "lost": 0.0} and bad["unfiltered"]["refused"] > 0
    assert figures["data"]["0.5"]["bad"]["unfiltered"]["lost"] > 0 == figures["data"]["0"]["bad"]["unfiltered"]["lost"]


def test_yields_are_accepted_per_call(run: Run) -> None:
    _, measured, _ = run
    for arm in ("feedback", "redraws", "single"):
        count, values = measured.figures["blueprints"][arm], measured.arms[arm]
        assert values["yield"] == count["accepted"] / count["attempts"] and values["success"] == count["accepted"] / 20
        assert values["yield_all_calls"] == count["accepted"] / (count["attempts"] + count["feedback_calls"])
    told = measured.figures["blueprints"]
    assert told["single"]["attempts"] == 20 and told["redraws"]["feedback_calls"] == 0
    assert told["feedback"]["feedback_calls"] == told["feedback"]["attempts"] - 20 > 0
    once = measured.arms["single"]["success"]
    assert told["independent_draws"] == {"draws": 4, "success": pytest.approx(1 - (1 - once) ** 4)}


def test_the_same_seed_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    measure("apigen_mt", 5, TOY, tmp_path)
    assert same(run[0], tmp_path)


def row(name: str, writes: int, turns: int, words: str = "") -> dict[str, Any]:
    calls = [{"kind": "write", "ok": True}] * writes + [{"kind": "write", "ok": False}, {"kind": "read", "ok": True}]
    return {"problem_id": name, "trial": 0, "messages": words or name, "calls": calls, "n_agent_steps": turns}


def test_matching_by_hand() -> None:
    wanted = [row("a", 1, 7), row("b", 2, 9), row("c", 0, 4)]
    pool = [row("w", 2, 9), row("x", 1, 8), row("y", 1, 3), row("z", 0, 4)]
    chosen, exact = recipe.match(wanted, pool, random.Random(0))
    assert [one["problem_id"] for one in chosen] == ["x", "w", "z"] and exact == pytest.approx(2 / 3)
    assert [one["problem_id"] for one in pool] == ["w", "x", "y", "z"], "the pool itself stays"


def test_equal_conversations_count_once() -> None:
    found = recipe.distinct([row("b", 1, 7, "same"), row("a", 1, 7, "same"), row("c", 1, 7)])
    assert [one["problem_id"] for one in found] == ["a", "c"]


def test_the_pool_holds_refused_drafts_and_lost_conversations(tmp_path: Path) -> None:
    """Every first draft that is a task is in it, the refused ones too, each played `attempts` times; nothing of later attempts is."""
    params = recipe.Params(**{**TOY, "draft_rate": 0.08, "rate": 0.3})
    lab = recipe.Lab(0, params, tmp_path, quiet)
    lab._generate("made", 40, params.draft_rate, params.rate, params.attempts, {"max_reflections": 3})
    pool = lab._pool("made", params.rate)
    blueprints = pq.read_table(tmp_path / "made/blueprints.parquet").to_pylist()
    first = {one["problem_id"]: one["status"] for one in blueprints if one["attempt"] == 0 and one["problem_id"]}
    assert {one["problem_id"] for one in pool} == set(first) and len(pool) > len(first)
    assert {"failed_exec", "failed_committee"} & set(first.values())
    assert all((one["bad"] == "refused") == (first[one["problem_id"]] != "accepted") for one in pool)
    good = [one for one in pool if first[one["problem_id"]] == "accepted"]
    assert all(one["bad"] == ("" if one["reward"] else "lost") for one in good) and {one["bad"] for one in good} == {"", "lost"}
    verified = lab._verified("made")
    assert verified and all(one["reward"] for one in verified)
    json.dumps([one["messages"] for one in verified])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 2000, "problems": 700}, "rows = 2000, but 700 problems with 2 attempts give at most 1400 conversations"),
        ({"sweep": [0.2, 1.2]}, "sweep holds 1.2. Allowed: 0 to 1"),
        ({"width": 100}, "width = 100 is not a multiple of 32"),
        ({"trials": 3}, "recipe apigen_mt: trials = 3: .* Allowed: whole number >= 4"),
        ({"world": "tasks.worlds.library.retail:Shop"}, "Shop"),
    ],
)
def test_bad_params_are_refused_before_anything_is_written(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        recipes.measure("apigen_mt", 0, values, tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()
