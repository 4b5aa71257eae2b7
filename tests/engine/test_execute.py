"""Shards that survive a kill, progress and curves through a child process, and settings on top of each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.contract.context import Context, in_order, seed_of
from tasks.contract.params import BadInput
from tasks.engine.execute import LOST, Plan, remember, sharded, why
from tasks.engine.settings import load, overlay, parse_override
from tests.conftest import ROOT


def test_shards_give_what_a_plain_loop_gives(tmp_path: Path) -> None:
    items = list(range(10))

    def work(shard: Sequence[int]) -> list[int]:
        return [item * item for item in shard]

    assert list(sharded(tmp_path)("squares", work, items, 3)) == list(in_order("squares", work, items, 3))


def test_a_killed_run_goes_on_with_the_next_shard(tmp_path: Path) -> None:
    """The third of five shards fails the first time; the second run asks for shards 3, 4 and 5 alone."""
    asked: list[list[int]] = []

    def work(shard: Sequence[int]) -> list[int]:
        asked.append(list(shard))
        if shard[0] == 4 and len(asked) <= 3:
            raise KeyboardInterrupt
        return list(shard)

    with pytest.raises(KeyboardInterrupt):
        list(sharded(tmp_path)("x", work, range(10), 2))
    asked_before = list(asked)
    assert asked_before == [[0, 1], [2, 3], [4, 5]]
    assert [item for shard in sharded(tmp_path)("x", work, range(10), 2) for item in shard] == list(range(10))
    assert asked[len(asked_before) :] == [[4, 5], [6, 7], [8, 9]]


def test_seeds_are_named_and_stable() -> None:
    """By hand: blake2b-64 of 'a<US>1', shifted right by one."""
    import hashlib

    assert seed_of("a", 1) == int.from_bytes(hashlib.blake2b(b"a\x1f1", digest_size=8).digest(), "big") >> 1
    assert seed_of("a", 1) != seed_of("a1") and 0 <= seed_of("x") < 2**63


def test_a_context_without_roles_says_so(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="asked for the model role 'judge'"):
        Context(0, tmp_path, tmp_path).role("judge")


def test_override_parsing() -> None:
    assert parse_override("a.b=0.001") == ("a.b", 0.001)
    assert parse_override("a.b=1e-3") == ("a.b", 0.001)
    assert load(ROOT, "quickstart", [parse_override("sft.loop.learning_rate=1e-3")]).loop("sft").learning_rate == 1e-3  # type: ignore[attr-defined]
    assert parse_override("a={x: [1, two]}") == ("a", {"x": [1, "two"]})
    assert overlay({"a": {"b": 1, "c": 2}}, "a.b", 3) == {"a": {"b": 3, "c": 2}}
    with pytest.raises(BadInput, match="expected key=value"):
        parse_override("a.b")


def test_a_method_value_comes_from_its_section_else_from_its_default() -> None:
    from tasks.merge.breadcrumbs import Params

    plain = load(ROOT, "smoke", [("merge.breadcrumbs.keep", 0.3)]).params("merge")
    assert (plain.keep, plain.trim_top) == (0.3, Params().trim_top)  # type: ignore[attr-defined]
    assert load(ROOT, "smoke", [("merge.breadcrumbs", {})]).params("merge") == Params()


def test_a_stage_that_ran_in_an_experiment_alone_is_not_said_to_have_never_run(tmp_path: Path) -> None:
    settings = load(ROOT, "smoke")
    other = load(ROOT, "smoke", (("worlds.freeze.size", 61),))
    workspace = Plan.open(settings, tmp_path)
    experiment = Plan.open(other, tmp_path, experiment=True)
    assert why(workspace, workspace.job("worlds", {})) == ["never ran here"]
    remember(experiment, experiment.job("worlds", {}))
    assert why(workspace, workspace.job("worlds", {})) == ["ran in an experiment alone, with params: size 61 -> 60"]
    remember(workspace, workspace.job("worlds", {}))
    assert why(workspace, workspace.job("worlds", {})) == [LOST], "the workspace's own last run is what counts then"
    assert why(experiment, experiment.job("worlds", {})) == [LOST]
