"""A paper's graph: calls become a road and sections of params; what cannot be is refused by name."""

from __future__ import annotations

import pytest

from flows.claims.graph import Graph
from flows.claims.plans import settings_of
from tasks.contract.params import BadInput
from tests.conftest import ROOT


def two_arms(seed: int = 0, paper: str = "demo") -> Graph:
    """A world, a base, two trainings that share their noise, and what would measure them."""
    g = Graph(paper, seed)
    ground = g.call("ground", "worlds.freeze", modules=["tasks.worlds.library.retail:Retail"], size=10)
    rows = g.call("rows", "generate.apigen_mt", ground)
    start = g.call("start", "base.tiny_qwen3", ground, steps=2)
    for name in ("one", "other"):
        tuned = g.call(name, "sft.sft", ground, start, rows, like="tune", loop={"epochs": 2})
        g.arm(name, g.call(f"{name}_scores", "evaluate.pass_k", ground, rows, tuned))
    return g


def test_calls_become_a_road_and_sections() -> None:
    g = two_arms()
    assert g.road.names == ("ground", "rows", "start", "one", "one_scores", "other", "other_scores")
    assert g.road["one"].room == "sft" and g.road["one"].inputs == ("ground", "start", "rows")
    section = g.sections["one"]
    assert section["method"] == "sft" and section["loop"] == {"epochs": 2} and "sft" not in section
    assert g.sections["start"]["tiny_qwen3"] == {"steps": 2}
    played = g.sections["one_scores"]
    assert (played["agents"], played["engine"], played["as_served"]) == ({"method": "react"}, {"method": "own"}, {"method": "none"})
    assert [step.name for step in g.leading_to("other_scores")] == ["ground", "rows", "start", "other", "other_scores"]


def test_what_is_to_differ_in_one_thing_has_the_same_noise() -> None:
    g, again, next_seed, other = two_arms(), two_arms(), two_arms(1), two_arms(0, "other")
    seeds = {name: section["seed"] for name, section in g.sections.items()}
    assert seeds["one"] == seeds["other"] and len({*seeds.values()}) == len(seeds) - 1
    assert seeds == {name: section["seed"] for name, section in again.sections.items()}
    for more in (next_seed, other):
        assert not {*seeds.values()} & {section["seed"] for section in more.sections.values()}


def test_params_are_those_of_a_run() -> None:
    settings = settings_of(two_arms(), ROOT)
    assert settings.method("one") == "sft" and settings.seed("one") == settings.seed("other")
    assert settings.shared.prompt.tools == "none" and settings.room("start") == "base"


def test_sizes_of_a_quick_run() -> None:
    assert Graph("demo", 0, quick=True).pick(1, 100) == 1 and Graph("demo", 0).pick(1, 100) == 100


def test_bad_graphs_are_refused_by_name() -> None:
    g = Graph("demo", 0)
    ground = g.call("ground", "worlds.freeze")
    for call, message in (
        (lambda: g.call("ground", "worlds.freeze"), "two steps are named 'ground'"),
        (lambda: g.call("x", "base.tiny_qwen3", "grund"), "step 'x' reads 'grund', which is no step before it"),
        (lambda: g.call("x", "sft"), r"step 'x': method = 'sft': expected room.method, such as sft.sft"),
        (lambda: g.call("x", "sfd.sft", ground), r"Did you mean 'sft'\? Rooms: base, "),
        (lambda: g.call("x", "sft.otro", ground), "no method 'otro' in room 'sft'"),
        (lambda: g.arm("a", "scores"), "arm 'a' is measured by 'scores', which is no step"),
        (lambda: g.road, "its graph names no arm, so nothing would be measured"),
    ):
        with pytest.raises(BadInput, match=f"paper demo: .*{message}"):
            call()
    g.arm("a", ground)
    with pytest.raises(BadInput, match="two arms are named 'a'"):
        g.arm("a", ground)
