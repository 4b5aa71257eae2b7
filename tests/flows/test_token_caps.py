"""Token caps against typical conversations: what is measured, what is refused and with which value, and that both drivers ask first.

A base here is a tokenizer with a configuration: nothing but these is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import stage, token_caps
from flows.road import Walk
from tasks.checkpoints import folders, tiny
from tasks.contract.params import BadInput, Cap
from tasks.engine import methods
from tasks.engine.artifact import Artifact
from tasks.engine.dotted import overlay
from tasks.engine.job import job_of
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings, load
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.road import ROAD
from tasks.worlds.api.frozen import freeze_world, load_all
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.play import play
from tasks.worlds.api.runtime import World
from tasks.worlds.api.system_prompt import system_message, tools_of
from tests.chat.talks import render
from tests.conftest import ROOT

FULL, NONE = {"tools": "full", "policy": "full"}, {"tools": "none", "policy": "none"}
WRITTEN = ("max_length", "max_episode_tokens", "max_turn_tokens")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """worlds/ (retail) and base/model."""
    folder = tmp_path_factory.mktemp("caps")
    address = "tasks.worlds.library.retail:Retail"
    freeze_world(World.build(world_class(address), 40, 0, address), folder / "worlds" / "retail")
    world = load_all(folder / "worlds")["retail"]
    texts = [
        text
        for talk in token_caps.conversations(world, 1)[1]
        for text in tiny.language(system_message(world, FULL), talk, tools_of(world, FULL))
    ]
    tiny.build_tokenizer(texts, 900).save_pretrained(str(folder / "base" / "model"))
    positions(folder / "base" / "model", 4096)
    return folder


def positions(checkpoint: Path, count: int) -> None:
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "qwen3", "max_position_embeddings": count}))


def settings(prompt: dict[str, str] = FULL, **changes: Any) -> Settings:
    tree: Any = load(ROOT, "quickstart").tree
    for key, value in {"prompt": prompt, **{key.replace("__", "."): value for key, value in changes.items()}}.items():
        tree = overlay(tree, key, value)
    return Settings(ROOT, tree)


def typical(ground: Path, prompt: dict[str, str] = FULL) -> list[token_caps.Typical]:
    return token_caps.measure(ground / "worlds", ground / "base" / "model", prompt, 0)


def lines(found: list[token_caps.Typical], chosen: Settings, context: int = 4096) -> list[str]:
    return [line for one in ROAD.names for line in token_caps.refusals(chosen, one, found, context)]


def test_what_is_measured_is_what_sft_would_train_on(ground: Path) -> None:
    """The same conversations through the tokenizer as transformers loads it: rows end at their last trained token."""
    (found,) = typical(ground)
    world = load_all(ground / "worlds")["retail"]
    tokenizer, system, tools = folders.load_tokenizer(ground / "base" / "model"), system_message(world, FULL), tools_of(world, FULL)
    agent = ClientAgent(scripted.client("agent", world, {}, 0), NONE)
    jobs = [(problem, 0) for problem in token_caps._problems(world, 0)]
    played = play(world, jobs, agent, scripted.client("human", world, {}, 0), seed=0)
    rendered = [render(tokenizer, system, talk.messages, tools) for talk in played]
    assert [talk.trained for talk in found.talks] == [sum(one.mask) for one in rendered]
    assert [talk.whole for talk in found.talks] == [len(one.mask) - one.mask[::-1].index(1) for one in rendered]
    assert [talk.prompt for talk in found.talks] == [one.mask.index(1) for one in rendered]
    assert len(found.talks) == token_caps.PROBLEMS and all(0 < talk.turn <= talk.trained < talk.whole for talk in found.talks)


def test_a_full_prompt_is_refused_by_every_stage_it_would_empty_and_the_value_it_names_will_do(ground: Path) -> None:
    found = typical(ground)
    assert lines(typical(ground, NONE), settings(NONE)) == []
    refused = lines(found, settings(sft__loop__max_length=1024))
    where = ("sft.loop.max_length = 1024", "rl.loop.max_episode_tokens = 640", "evaluate.pass_k.max_episode_tokens = 640")
    assert len(refused) == len(where) and all(key in line for key, line in zip(where, refused, strict=True))
    assert all(f"the first prompt has {max(t.prompt for t in found[0].talks)} tokens" in line for line in refused)
    value = int(re.findall(r"(\d+) would do", refused[0])[0])
    mended = {"sft__loop__max_length": value, "rl__loop__max_episode_tokens": value, "evaluate__pass_k__max_episode_tokens": value}
    assert lines(found, settings(**mended)) == []


@pytest.mark.parametrize("of", ["row", "conversation", "turn"])
def test_the_share_is_the_caps_own(of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: sizes 10 to 100 in tens, one trained token in each ten. Half of the conversations fit 50, but their tokens are
    15 of 55: a row needs 0.27 of both. Nobody may ask for less than one conversation."""
    talks = tuple(token_caps.Talk(5, 10 * n, n, 10 * n) for n in range(1, 11))
    found = [token_caps.Typical("shop", "by hand", talks)]

    def refused(tokens: int, share: float) -> bool:
        monkeypatch.setattr(methods.interface("sft"), "caps", lambda params: (Cap("max_length", tokens, of, share),))
        return bool(list(token_caps.refusals(settings(), "sft", found, 0)))

    assert [refused(50, share) for share in (0.5, 0.51)] == [of == "row", True]
    assert [refused(50, share) for share in (0.27, 0.28)] == [False, of == "row"]
    assert (refused(9, 0.0), refused(10, 0.0)) == (True, False)


def test_the_checkpoints_own_positions_are_a_cap_too(ground: Path) -> None:
    found = typical(ground)
    wide = settings(sft__loop__max_length=8192, rl__loop__max_episode_tokens=8192, evaluate__pass_k__max_episode_tokens=8192)
    assert lines(found, wide, 8192) == [] == lines(found, wide, 0)
    refused = lines(found, wide, 512)
    assert len(refused) == 3 and all("0 of 24 stay within the checkpoint's 512 positions" in line for line in refused)
    assert all("a base with more" in line and "would do" not in line for line in refused)


def test_a_world_without_scripts_is_measured_by_its_ground_truths_and_one_without_problems_by_its_prompt(ground: Path) -> None:
    world = load_all(ground / "worlds")["retail"]
    world.scripts = None
    tokenizer = token_caps._tokenizer(ground / "base" / "model")
    truths = token_caps._typical(world, tokenizer, FULL, 0)
    assert f"24 ground truths and {token_caps.ALLOWANCE} tokens" in truths.how and min(talk.trained for talk in truths.talks) > 0
    world.families = ()
    alone = token_caps._typical(world, tokenizer, FULL, 0)
    assert alone.how == f"the prompt and {token_caps.ALLOWANCE} tokens for a conversation"
    (talk,) = alone.talks
    assert talk.whole == talk.prompt + token_caps.ALLOWANCE and (talk.trained, talk.turn) == (0, 0)
    assert len(lines([alone], settings(sft__loop__max_length=1024))) == 3
    assert lines([alone], settings(NONE, **{f"{at}": 4096 for at in ("sft__loop__max_length",)}))[0].startswith(
        "params/pipeline.yaml: rl."
    )


@pytest.mark.parametrize(
    ("room", "name"),
    [
        (one.room, one.name)
        for one in methods.everything()
        if one.room in ("sft", "rl", "evaluate")
        and methods.ground(one.room, one.name) == methods.WORLDS  # an episode's length is known
    ],
)
def test_every_method_declares_the_caps_it_has(room: str, name: str) -> None:
    """The method of its own params, the room of its training loop's."""
    chosen = Settings(ROOT, overlay(load(ROOT, "quickstart").tree, f"{room}.method", name))
    declared = {(where, cap.param): cap.tokens for where, cap in token_caps._declared(chosen, room)}
    parts = [(where, params) for where, _, params in chosen.parts(room)]
    assert declared == {(where, key): getattr(params, key) for where, params in parts for key in WRITTEN if hasattr(params, key)} != {}


# --- the drivers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(ground: Path, tmp_path: Path) -> Iterator[Plan]:
    """A plan with a full prompt in whose store worlds and base lie already."""
    made = Plan.open(settings(sft__loop__max_length=1024), tmp_path / "state", experiment=True)
    worlds = made.store.record(job_of(made, "worlds", {}).key, made.store.put(ground / "worlds"), {"figures": {}})
    base = job_of(made, "base", {"worlds": worlds.identity})
    made.store.record(base.key, made.store.put(ground / "base"), {"figures": {}})
    yield made


def stored(plan: Plan) -> tuple[Artifact, Artifact]:
    worlds = job_of(plan, "worlds", {}).find()
    assert worlds is not None
    base = job_of(plan, "base", {"worlds": worlds.identity}).find()
    assert base is not None
    return worlds, base


def test_the_flow_refuses_before_generate_runs(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.engine.cached.take", lambda job, after: (job.find() or pytest.fail(f"{job.stage} ran"), None))
    walk = Walk(plan, ROAD.names[0], ROAD.names[-1])
    walk.take(ROAD["worlds"])
    walk.take(ROAD["base"])
    with pytest.raises(BadInput, match=r"sft\.loop\.max_length = 1024: (.|\n)*evaluate\.pass_k\.max_episode_tokens = 640"):
        walk.take(ROAD["generate"])


def test_a_stage_of_dvcs_refuses_for_itself_and_all_later_ones(plan: Plan) -> None:
    worlds, base = stored(plan)
    with pytest.raises(BadInput, match=r"sft\.loop\.max_length") as generate:
        stage.check_caps(plan, "generate", {"worlds": worlds.identity})
    assert len(str(generate.value).splitlines()) == 3
    with pytest.raises(BadInput, match=r"^params/pipeline.yaml: evaluate\.") as late:
        stage.check_caps(plan, "evaluate", {"worlds": worlds.identity, "base": base.identity})
    assert len(str(late.value).splitlines()) == 1
    stage.check_caps(plan, "base", {"worlds": worlds.identity})  # what it would be measured with is only to be built
    stage.check_caps(plan, "decide", {})


def test_it_is_measured_once_for_all_processes_and_never_when_nothing_is_to_do(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, base = stored(plan)
    with pytest.raises(BadInput) as first:
        token_caps.Caps(plan).check(ROAD.names, {"worlds": worlds, "base": base})
    monkeypatch.setattr(token_caps, "measure", lambda *_: pytest.fail("measured again"))
    with pytest.raises(BadInput) as second:
        token_caps.Caps(plan).check(ROAD.names, {"worlds": worlds, "base": base})
    assert str(first.value) == str(second.value)
    (plan.store.state / "typical.json").write_text("{")
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        token_caps.Caps(plan).check(ROAD.names, {"worlds": worlds, "base": base})
    monkeypatch.setattr("tasks.engine.cached.take", lambda job, after: (job.find(), None))
    walk = Walk(plan, "worlds", "base")
    walk.take(ROAD["worlds"])
    walk.take(ROAD["base"])
    assert walk.done == {"worlds": worlds, "base": base} and "caps" not in walk.__dict__


def test_a_local_role_needs_the_positions_for_what_it_is_asked(plan: Plan, ground: Path, tmp_path: Path) -> None:
    """All roles scripted, on a few problems: a judge of 256 positions cannot read one draft, one of 8,192 reads all."""
    folder = tmp_path / "judge"
    folders.load_tokenizer(ground / "base" / "model").save_pretrained(str(folder))
    worlds, _ = stored(plan)
    role = {"backend": "local", "path": str(folder), "identity": "x"}
    chosen = replace(plan, settings=Settings(ROOT, overlay(plan.settings.tree, "roles.judge", role)))
    positions(folder, 8192)
    token_caps.Caps(chosen).check(["generate"], {"worlds": worlds})
    thinks = replace(plan, settings=Settings(ROOT, overlay(chosen.settings.tree, "roles.judge.thinking", 9000)))
    with pytest.raises(BadInput, match=r"roles\.judge\.path = .* 0 of \d+ questions"):
        token_caps.Caps(thinks).check(["generate"], {"worlds": worlds})
    positions(folder, 256)
    token_caps.Caps(chosen).check(["sft", "rl"], {"worlds": worlds})  # nobody asks a judge there
    said = r"roles\.judge\.path = .*the checkpoint has 256 positions, and 0 of \d+ questions of its role fit"
    with pytest.raises(BadInput, match=said):
        token_caps.Caps(chosen).check(["generate"], {"worlds": worlds})
