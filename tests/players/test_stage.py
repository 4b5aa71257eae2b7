"""A whole stage whose roles are asked at a server: faults and a spent budget change nothing that was accepted; and what a run may cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.calls import forget, lines
from flows.estimate import PROBLEMS, Estimate, estimate
from flows.estimate import lines as estimated
from infra.stub import Stub
from tasks import rl
from tasks.contract.client import NearlyAllLost
from tasks.contract.context import Context, Losses
from tasks.contract.params import BadInput
from tasks.contract.schemas import CRITIQUE, TRAJECTORY
from tasks.contract.tables import read_rows
from tasks.critique import Inputs as CritiqueInputs
from tasks.critique import multicritique
from tasks.engine.settings import Settings
from tasks.engine.together import planned
from tasks.evaluate import pass_k
from tasks.generate import Inputs, apigen_mt
from tasks.players import roles
from tasks.players.openai_compatible import Dialect, EndpointClient, Prices, Setting, stats
from tasks.players.openai_compatible.cache import Cache
from tasks.road import ROAD
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.runtime import World
from tests.critique.played import play_into
from tests.players.conftest import QUICK, Make, questions
from tests.players.test_settings import GOOD, settings
from tests.playing import playing

FAULTS = {
    "429": 0.05,
    "429_after": 0.05,
    "500": 0.05,
    "reset": 0.04,
    "hang": 0.01,
    "garbage": 0.04,
    "malformed": 0.03,
    "truncated": 0.03,
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("worlds")
    freeze_world(World.build(world_class("tasks.worlds.library.retail:Retail"), 60, 0), place / "retail")
    return place


def generated(worlds: Path, out: Path, url: str, **limits: Any) -> tuple[dict[str, bytes], str]:
    """The files of a small run whose judges, plans and human's critic answer from the server, and why it stopped early; scripts play
    the rest."""
    out.mkdir()
    known = roles.maker({"generator": {"backend": "scripted", "errors": {"dropped_wish": 0.3}}}, worlds, 0)
    servers = {
        name: EndpointClient(
            name,
            url,
            Dialect("m"),
            pace=QUICK,
            prices=Prices(1, 1),
            setting=Setting(out.parent / f"{out.name}-calls", out.name, out.name, limits),
        )
        for name in ("judge", "feedback", "human_critic")
    }
    ctx = Context(0, out, out.parent, **playing(lambda name, world="": servers.get(name) or known(name, world)))
    params = apigen_mt.Params(problems=12, round_size=6, threshold=1.0, every_criterion=False, user_best_of=2, attempts=1, recombine=0)
    figures = apigen_mt.run(Inputs(worlds), params, ctx)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}, figures["stopped"]


def test_thirty_percent_faults_leave_the_same_bytes(worlds: Path, stub: Stub, tmp_path: Path) -> None:
    clean = generated(worlds, tmp_path / "clean", stub.url)
    assert stats("clean")["judge"]["calls"] > 20 and sum(FAULTS.values()) == pytest.approx(0.3)
    stub.turn(faults=FAULTS, retry_after=0.02)
    assert generated(worlds, tmp_path / "faulty", stub.url) == clean
    served = stub.counts()["served"]
    assert sum(served.get(name, 0) for name in FAULTS) > 20, served


def played(worlds: Path, out: Path, url: str, losses: Losses) -> dict[str, Any]:
    """The figures of a small run whose agent answers from the server; scripts play the rest."""
    out.mkdir()
    known = roles.maker({}, worlds, 0)
    agent = EndpointClient(
        "agent", url, Dialect("m"), pace=QUICK, setting=Setting(out.parent / "calls", out.name, out.name, {}, losses)
    )
    players = playing(lambda name, world="": agent if name == "agent" else known(name, world))
    ctx = Context(0, out, out.parent, losses=losses, **players)
    params = apigen_mt.Params(problems=12, round_size=6, user_best_of=1, attempts=3, recombine=0, max_steps=6)
    return apigen_mt.run(Inputs(worlds), params, ctx)


ODDITIES = {"context": 0.03, "filter_400": 0.03, "half": 0.1, "two_calls": 0.1, "no_arguments": 0.1, "empty": 0.03, "cut": 0.03}


def test_odd_answers_of_an_agent_lose_their_conversations_alone(worlds: Path, stub: Stub, tmp_path: Path) -> None:
    """The stage ends; each lost conversation is counted by its reason; the files are there, and once more the same from what is kept."""
    stub.turn(faults=ODDITIES)
    figures = played(worlds, tmp_path / "one", stub.url, Losses(share=1.0))
    stops = figures["stops"]
    assert {"context_length", "content_filter"} < stops.keys() and sum(stops.values()) == figures["conversations"]["played"]
    talks = list(read_rows(tmp_path / "one" / "trajectories.parquet", TRAJECTORY))
    called = [call for talk in talks for message in talk["messages"] for call in message["tool_calls"]]
    assert any("\ufffd" in call["name"] for call in called) and any("unreadable" in call["arguments_json"] for call in called)
    odd = stats("one")["agent"]["odd"]
    assert odd["context_length"] == stops["context_length"] and odd["bad_call"] > 0
    assert played(worlds, tmp_path / "two", stub.url, Losses(share=1.0)) == figures
    assert (tmp_path / "one" / "trajectories.parquet").read_bytes() == (tmp_path / "two" / "trajectories.parquet").read_bytes()


@pytest.mark.parametrize(
    ("fault", "message"), [("cut", "cut: .*roles.agent.max_tokens"), ("as_text", "calls_as_text: .*--tool-call-parser")]
)
def test_a_stage_that_loses_all_for_one_reason_stops_with_it(
    worlds: Path, stub: Stub, tmp_path: Path, fault: str, message: str
) -> None:
    stub.turn(faults={fault: 1.0})
    with pytest.raises(NearlyAllLost, match=message):
        played(worlds, tmp_path / "one", stub.url, Losses(least=5))


def test_a_stage_that_wins_nothing_stops(worlds: Path, stub: Stub, tmp_path: Path) -> None:
    """Every call is fine, and of no use: that is told with whose failure it was."""
    with pytest.raises(NearlyAllLost, match=r"conversations \(lost by: agent \d+.*none_won: not one conversation was won"):
        played(worlds, tmp_path / "one", stub.url, Losses(share=0.99, least=5))


def test_a_spent_budget_leaves_a_dataset_and_the_next_run_pays_for_the_rest(worlds: Path, stub: Stub, tmp_path: Path) -> None:
    clean = generated(worlds, tmp_path / "clean", stub.url)
    whole = stub.counts()["paid"]
    files, stopped = generated(worlds, tmp_path / "small", stub.url, max_tokens=20_000)
    assert "budget.max_tokens" in stopped and files.keys() == clean[0].keys() and files != clean[0] and not clean[1]
    first = stub.counts()["paid"] - whole
    (tmp_path / "small").rename(tmp_path / "stopped")
    assert 0 < first < whole
    (tmp_path / "larger-calls").symlink_to(tmp_path / "small-calls")
    assert generated(worlds, tmp_path / "larger", stub.url) == clean
    assert stub.counts()["paid"] == 2 * whole


def test_a_spent_budget_leaves_what_was_reviewed(stub: Stub, tmp_path: Path) -> None:
    """Critique, its critics behind the server: the first shards are there as they would be, the rest has no critique."""
    worlds, generate = play_into(tmp_path, count=12)
    known = roles.maker({}, worlds, 0)

    def reviewed(name: str, **limits: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        client = EndpointClient(
            "critic", stub.url, Dialect("m"), pace=QUICK, setting=Setting(tmp_path / "calls", name, name, limits), prices=Prices(1, 1)
        )
        (tmp_path / name).mkdir()
        role = lambda asked, world="": client if asked == "critic" else known(asked, world)  # noqa: E731
        ctx = Context(0, tmp_path / name, tmp_path / name, role=role)
        figures = multicritique.run(CritiqueInputs(worlds, generate), multicritique.Params(shard_size=4, min_pairs=0), ctx)
        return list(read_rows(tmp_path / name / "critiques.parquet", CRITIQUE)), figures

    some, figures = reviewed("small", max_tokens=40_000)
    assert "budget.max_tokens = 40000" in figures["stopped"] and 0 < figures["unreviewed"] < figures["trajectories"]
    everything, whole = reviewed("whole")
    assert everything[: len(some)] == some and len(some) < len(everything) and not whole["stopped"]


def test_an_estimate_counts_the_roles_at_servers(tmp_path: Path, make: Make) -> None:
    """Twice the problems are about twice the calls; real answers of the model replace the guess at its tokens."""
    judged = GOOD | {"price_in": 1.0, "price_out": 2.0}

    def of(problems: int) -> Any:
        found = estimate(sized(judged, problems), ["generate"], tmp_path / "state")
        assert [one.role for one in found] == ["judge"]
        return found[0]

    one, two = of(PROBLEMS), of(2 * PROBLEMS)
    assert one.calls >= 3 * 2 * PROBLEMS * 0.8 and two.calls == 2 * one.calls and not one.measured
    assert one.money == pytest.approx((one.tokens_in + 2 * one.tokens_out) / 1e6)
    make().complete(questions(20))
    measured = of(PROBLEMS)
    mean = Cache(tmp_path / "state").kept()[0]["tokens_in"] / 20
    assert measured.measured and measured.tokens_in == round(mean * measured.calls)
    text = "\n".join(estimated([one], replace(sized(judged, 20, budget={"max_tokens": 10}))))
    assert "An estimate" in text and "more than the budget" in text and f"{one.calls:,} calls" in text
    several = {one.role: one.calls for one in estimate(sized(judged | {"others": [judged, judged]}, PROBLEMS), ["generate"], tmp_path)}
    assert several.keys() == {"judge", "judge/2", "judge/3"} and len(set(several.values())) == 1 and 3 * several["judge"] == one.calls
    assert estimate(settings({"backend": "scripted"}), ["generate"], tmp_path) == []
    assert estimate(settings(GOOD), ["sft"], tmp_path) == []


def test_an_estimate_covers_the_whole_road(tmp_path: Path) -> None:
    """By hand for the smoke profile's sizes: what rl and evaluate play, each conversation with its human; a doubled evaluation doubles."""
    sizes: dict[str, Any] = {"rl.loop": {"screen_problems": 5, "screen_trials": 2, "steps": 3, "groups": 2, "group_size": 4}}
    sizes["rl.loop"] |= {"validate_every": 2, "validation_problems": 7}
    evaluated = {"problems": 10, "gate_problems": 5, "trials": 2}
    tree = settings({"backend": "scripted"}, **sizes, **{"roles.human": GOOD, "evaluate.pass_k": evaluated})
    for control, models in ((True, 6), (False, 5)):  # base, sft and its control, two specialists, merged
        tuned = replace(tree, tree={**tree.tree, "sft": {"method": "sft", "loop": {"control": control}}})
        foreseen = planned(tuned, {name: tuned.params(name) for name in ROAD.names})
        assert rl.conversations(rl.Loop(**sizes["rl.loop"]), foreseen["rl"]) == 2 * (5 * 2 + 3 * 2 * 4 + 3 * 7)
        assert pass_k.conversations(pass_k.Params(**evaluated), foreseen["evaluate"]) == 2 * (
            models * 10 * 2 + 2 * 5 * 2 + 4 * 10 + 2 * 2  # the last are two problems as they are served, twice
        )
    found = {one.stage: one for one in estimate(tree, ROAD.names, tmp_path)}
    assert [*found] == ["generate", "rl", "evaluate"] and {one.role for one in found.values()} == {"human"}
    per_talk = found["rl"].calls / 110
    assert 3 < per_talk < 12 and found["evaluate"].calls == pytest.approx(368 * per_talk, rel=0.01)
    assert found["rl"].tokens_in > found["rl"].calls * 50
    text = "\n".join(estimated([*found.values(), Estimate("rl", "human", "m", -1)], tree))
    assert "unknown: grpo has no function `conversations`" in text and f"{sum(one.calls for one in found.values()):,} calls" in text


def test_an_estimate_counts_the_contenders_own_conversations(tmp_path: Path) -> None:
    """By hand: 2 worlds x 10 problems x 2 trials are 40 conversations more, in which the human is asked too; no stage but evaluate
    asks a contender."""
    evaluated = {"problems": 10, "gate_problems": 5, "trials": 2}
    tree = settings({"backend": "scripted"}, **{"roles.human": GOOD, "roles.contender": GOOD, "evaluate.pass_k": evaluated})
    found = {(one.stage, one.role): one for one in estimate(tree, ["rl", "evaluate"], tmp_path)}
    assert found.keys() == {("rl", "human"), ("evaluate", "human"), ("evaluate", "contender")}
    alone = settings({"backend": "scripted"}, **{"roles.human": GOOD, "evaluate.pass_k": evaluated})
    (human,) = estimate(alone, ["evaluate"], tmp_path)
    models = pass_k.conversations(
        pass_k.Params(**evaluated), planned(tree, {name: tree.params(name) for name in ROAD.names})["evaluate"]
    )
    per_talk = human.calls / (models - 40)
    assert found["evaluate", "human"].calls == pytest.approx(models * per_talk, rel=0.01)
    mine = found["evaluate", "contender"]
    assert 40 * 3 < mine.calls < 40 * 20 and mine.tokens_in > mine.calls * 50


def sized(role: dict[str, Any], problems: int, **more: Any) -> Settings:
    return settings(role, **{"generate.apigen_mt": {"problems": problems}, **more})


def test_what_is_kept_is_shown_and_forgotten(make: Make, stub: Stub, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert lines(state) == ["no model server was ever asked here"]
    make(prices=Prices(1e6, 0)).complete(questions(7))
    make("human", dialect=Dialect("another")).complete(questions(2, schema=None))
    text = "\n".join(lines(state))
    assert "calls.sqlite: 0." in text and "paid to another: unknown (no prices)" in text
    assert json.dumps(stats()["judge"]["tokens_in"]) in text and f"paid to some-model: {stats()['judge']['money']:.4f}" in text
    with pytest.raises(BadInput, match=r"--forget 'some-modle': no answers .* Did you mean 'some-model'\? Kept: another, some-model"):
        forget(state, "some-modle")
    assert forget(state, "some-model") == 7
    before = stub.counts()["paid"]
    make().complete(questions(7))
    make("human", dialect=Dialect("another")).complete(questions(2, schema=None))
    assert stub.counts()["paid"] == before + 7
