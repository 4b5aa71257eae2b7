"""A room's training loop has one section of params, which all its methods share."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tasks.contract.context import Context
from tasks.contract.params import BadInput, Params
from tasks.engine import layout, methods
from tasks.engine.dotted import overlay
from tasks.engine.settings import Settings, load
from tasks.road import ROAD, Road
from tests.conftest import ROOT


def settings(**changes: Any) -> Settings:
    tree: Any = load(ROOT, "quickstart").tree
    for key, value in changes.items():
        tree = overlay(tree, key.replace("__", "."), value)
    return Settings(ROOT, tree, "params/pipeline.yaml")


def test_the_room_says_what_its_loop_takes_and_a_method_only_its_own() -> None:
    chosen = settings()
    assert chosen.loop("merge") is None and methods.loop("merge") is None
    loop: Any = chosen.loop("sft")
    assert (loop.optimizer, loop.control) == ("muon", True) and chosen.params("sft").model_dump() == {}
    assert [where for where, _, _ in chosen.parts("sft")] == ["sft.loop", "sft.sft"]
    assert chosen.values("sft") == loop.model_dump()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sft__sft__epochs": 2}, "params/pipeline.yaml: sft.sft.epochs has another place now: sft.loop.epochs"),
        ({"sft__sft__epochs": 2}, "`cairn migrate` moves it in the files of params/"),
        ({"sft__loop__epoch": 2}, "sft.loop: unknown key 'epoch'. Did you mean 'epochs'?"),
        ({"sft__loop": [1]}, "sft.loop: expected a mapping of params, got [1]"),
        ({"sft__loop__save_every": 30}, "params/pipeline.yaml: sft.loop: save_every 30 is not a multiple of log_every 25"),
        ({"merge__loop": {"keep": 1}}, "merge.loop: this room has no training loop. Remove the section."),
        ({"sft__epochs": 2}, "sft: unknown key 'epochs'. It belongs to the training loop: sft.loop.epochs."),
    ],
)
def test_a_param_of_the_loop_in_a_wrong_place_is_told_the_right_one(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        settings(**changes).check()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("room", "section", "values", "message"),
    [
        ("worlds", "freeze", {"modules": ["nowhere"]}, "world 'nowhere'"),
        ("base", "tiny_qwen3", {"width": 33}, "width 33 is not a multiple"),
        ("generate", "apigen_mt", {"criteria": ["taste"]}, "criteria: judges know no criterion 'taste'."),
        ("critique", "multicritique", {"critics": ["mother"]}, "critics: no critic 'mother'."),
        ("sft", "loop", {"save_every": 30}, "save_every 30 is not a multiple of log_every 25"),
        ("rl", "loop", {"max_turn_tokens": 900}, "max_turn_tokens = 900 leaves no room"),
        ("rl", "grpo", {"clip_high": 0.1, "clip_low": 0.2}, "clip_high = 0.1 is below"),
        ("merge", "breadcrumbs", {"keep": 1.0, "trim_top": 0.0}, "keep = 1 with trim_top = 0 removes nothing"),
        ("merge", "slerp", {"t": 0.0}, "t = 0 everywhere"),
        ("merge", "linear", {"overrides": [{"match": "w", "params": {"x": 1}}]}, "overrides[0] ('w'): unknown key 'x'"),
    ],
)
def test_what_a_module_refuses_names_the_steps_own_section_once(room: str, section: str, values: Any, message: str) -> None:
    """The same room may be entered by steps of any name: a module does not know in which section its params stand."""
    steps = tuple(replace(step, name=f"own_{step.name}", inputs=tuple(f"own_{name}" for name in step.inputs)) for step in ROAD)
    tree = {name if name not in ROAD.names else f"own_{name}": value for name, value in load(ROOT, "quickstart").tree.items()}
    tree = dict(overlay(tree, f"own_{room}.{section}", values))
    told = list(Settings(ROOT, tree, "params/pipeline.yaml", road=Road(steps, f"own_{ROAD.candidate}")).mistakes())
    assert len(told) == 1 and told[0].startswith(f"params/pipeline.yaml: own_{room}.{section}: {message}"), told


def test_a_loops_param_under_a_method_is_refused_whatever_the_table_of_moves_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOVES", ())
    with pytest.raises(BadInput, match=r"sft\.sft\.epochs: .*all methods of sft share\. It stands at sft\.loop\.epochs"):
        settings(sft__sft__epochs=2).check()


def test_an_override_of_an_old_place_is_refused_with_the_new_one() -> None:
    with pytest.raises(BadInput, match=r"--set 'sft\.sft\.epochs': sft\.sft\.epochs has another place now: sft\.loop\.epochs"):
        load(ROOT, "quickstart", [("sft.sft.epochs", 2)])


@pytest.fixture
def sibling(monkeypatch: pytest.MonkeyPatch) -> str:
    """A second method of sft, with one param of its own and hooks that tell them."""

    class Own(Params):
        share: float = 0.5

    module = ModuleType("tasks.sft.halves")
    module.Params, module.hooks = Own, lambda params, ctx: ("hooks of halves", params.share)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tasks.sft.halves", module)
    known = methods.names
    monkeypatch.setattr(methods, "names", lambda stage: (*known(stage), *(["halves"] if stage == "sft" else [])))
    return "halves"


def test_a_swapped_method_swaps_nothing_else(sibling: str) -> None:
    """Muon and the control stay; the old method's own params and the new one's live side by side."""
    before, after = settings(), settings(sft__method=sibling, sft__halves={"share": 0.25})
    assert after.loop("sft") == before.loop("sft") and after.values("sft") == {**before.values("sft"), "share": 0.25}
    assert [where for where, _, _ in after.parts("sft")] == ["sft.loop", "sft.halves"]
    with pytest.raises(BadInput, match=r"sft\.halves: unknown key 'epochz'"):
        settings(sft__method=sibling, sft__halves={"epochz": 1}).params("sft")


def test_the_rooms_loop_runs_with_the_methods_hooks(sibling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.sft.core import loop as training

    given: list[Any] = []
    monkeypatch.setattr(training, "run", lambda *what: given.extend(what) or {"steps": 1})
    chosen = settings(sft__method=sibling)
    ctx, places = Context(0, Path(), Path()), {name: Path(name) for name in ("worlds", "base", "rows")}
    assert methods.run("sft", sibling, places, chosen.params("sft"), chosen.loop("sft"), ctx) == {"steps": 1}
    inputs, loop, hooks, _ = given
    assert (inputs.base, loop.optimizer, hooks) == (Path("base"), "muon", ("hooks of halves", 0.5))


def test_another_method_of_rl_leaves_the_loop_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method of the test's own is chosen by `--set rl.method=own`: its rate, groups, temperature, pool and caps are the profile's."""
    own = ModuleType("tasks.rl.own")
    vars(own).update(TITLE="Own", PAPER="", SLUG="", Params=type("Params", (Params,), {"__module__": "tasks.rl.own"}), hooks=None)
    monkeypatch.setitem(sys.modules, "tasks.rl.own", own)
    monkeypatch.setattr(methods, "names", lambda stage, real=methods.names: (*real(stage), *(["own"] if stage == "rl" else [])))
    chosen, other = load(ROOT, "quickstart"), load(ROOT, "quickstart", [("rl.method", "own")])
    assert other.method("rl") == "own" and chosen.params("rl").model_dump().keys() == {"scale", "clip_low", "clip_high"}
    assert other.params("rl").model_dump() == {}
    loop: Any = other.loop("rl")
    assert loop == chosen.loop("rl")
    assert (loop.lr, loop.groups, loop.group_size, loop.temperature, loop.pool, loop.max_episode_tokens) == (3e-4, 12, 8, 1.2, 280, 640)
    assert [where for where, module, _ in other.parts("rl") if hasattr(module, "caps")] == ["rl.loop"]


def test_an_old_profile_of_rl_says_where_its_params_stand_now() -> None:
    with pytest.raises(BadInput, match=r"rl\.grpo\.lr has another place now: rl\.loop\.lr"):
        settings(rl__grpo__lr=0.1).check()
    moved = {move.new.removeprefix("rl.loop.") for move in layout.MOVES if move.new.startswith("rl.loop.")}
    assert moved <= methods.loop("rl").model_fields.keys()  # type: ignore[union-attr]


def test_an_adapter_is_registered_alone_only_where_the_candidate_is_one() -> None:
    with pytest.raises(BadInput, match=r"promote\.form: adapter, but step 'merge', the candidate, leaves a whole checkpoint"):
        settings(promote__form="adapter").check()
    lora = {"sft.loop.adapter.kind": "lora", "promote.form": "adapter"}
    chosen = settings(**{key.replace(".", "__"): value for key, value in lora.items()})
    replace(chosen, road=Road(ROAD.steps, "sft")).check()
    with pytest.raises(BadInput, match=r"sft\.loop: adapter.targets is empty"):
        settings(sft__loop__adapter={"kind": "lora", "targets": []}).check()
