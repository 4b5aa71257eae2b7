"""The evaluation as a whole, on a real world with a checkpoint that only babbles.

By hand: 2 models x 1 world x 7 problems x 2 trials are 28 test rows; candidate and reference play 7 fresh problems twice, 28 gate
rows; four players without a model play the 7 test problems once, 28 baseline rows: 84 in all. The babbler solves nothing, the
oracle everything.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.stub import running
from tasks.checkpoints import saving
from tasks.checkpoints.adapter_params import AdapterParams
from tasks.checkpoints.starting import begin
from tasks.contract import schemas, tables
from tasks.contract.client import BudgetSpent
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.planned import Planned
from tasks.contract.problem import PASSIVE, Problem
from tasks.engine.shards import sharded
from tasks.evaluate import Inputs
from tasks.evaluate.pass_k import BASELINES, Params, conversations, run
from tasks.evaluate.task import anchor
from tasks.players.acting import plain
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import own
from tasks.players.local.generation import Engine
from tasks.players.openai_compatible import Dialect, EndpointClient, Setting
from tasks.players.openai_compatible.cache import Cache
from tasks.players.roles import maker
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.library.library.world import Library
from tasks.worlds.library.retail import Retail
from tests.playing import checkpoint_agent, playing
from tests.rl.test_mismatch import Changed, at_one, other_template
from tests.rollout import tiny

SMALL = Params(problems=7, gate_problems=7, trials=2, max_steps=15, max_turn_tokens=6, rows=14, resamples=200)
ADDRESS = "tasks.worlds.library.retail:Retail"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen world and two checkpoints."""
    home = tmp_path_factory.mktemp("evaluate")
    freeze_world(World.build(Retail, 30, 0, ADDRESS), home / "worlds" / "retail")
    tiny.saved(home / "base", seed=0)
    tiny.saved(home / "sft", seed=1)
    return home


def context(home: Path, folder: Path, **more: Any) -> Context:
    """A context with roles and an empty out folder."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    role = maker({}, home / "worlds", 0)
    players = playing(role, more.pop("way", plain), more.pop("of_checkpoint", checkpoint_agent))
    return Context(seed=5, out=folder / "out", scratch=folder / "scratch", **players, **more)


def inputs(home: Path, **changed: Any) -> Inputs:
    """base and sft, sft the candidate."""
    return Inputs(
        **{
            "worlds": home / "worlds",
            "models": {"base": home / "base", "sft": home / "sft"},
            "candidate": "sft",
            "candidate_id": "abc.dir",
            **changed,
        }
    )


def digests(folder: Path) -> dict[str, str]:
    """File name -> sha256."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_plays_counts_and_reports(folders: Path, tmp_path: Path) -> None:
    ctx = context(folders, tmp_path)
    said = run(inputs(folders), SMALL, ctx)
    found = list(tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL))
    assert Counter((row["set"], row["model"]) for row in found) == {
        ("test", "base"): 14,
        ("test", "sft"): 14,
        ("gate", "sft"): 14,
        ("gate", "base"): 14,
        **{("baseline", name): 7 for name in BASELINES},
    }
    assert said["trials"] == len(found) == 84
    assert json.loads((ctx.out / "metrics.json").read_text()) == said
    baselines = said["baselines"]["retail"]
    assert {name: block["pass_1"]["mean"] for name, block in baselines.items()} == {
        "oracle": 1.0,
        "do_nothing": 0.0,
        "always_refuses": 0.0,
        "always_hands_over": 0.0,
    }
    sft = said["evaluate"]["sft"]["retail"]
    assert sft["pass_1"]["mean"] == 0.0 and sft["pass_1"]["high"] < 0.42 and sft["pass_4"] is None
    assert said["gate"]["reference"] == "base" and said["paired"]["sft-base"]["retail"]["pass_1"]["n"] == 7
    assert sorted(path.name for path in ctx.out.iterdir()) == [
        "families.csv",
        "headline.yaml",
        "metrics",
        "metrics.json",
        "models.csv",
        "problems.parquet",
        "trials.parquet",
    ]


def test_what_doing_nothing_solves_is_counted_apart(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the seven test problems are marked as passive, as is every family that they are of: 5 are left, and no gate problem is one."""

    def marked(*about: Any) -> list[Problem]:
        drawn = draw_problems(*about)
        return [replace(one, tags=(*one.tags, PASSIVE)) if one.family in drawn_first else one for one in drawn]

    drawn_first = [one.family for one in draw_problems(World.build(Retail, 30, 0, ADDRESS), "test", 2, 0)]
    monkeypatch.setattr("tasks.worlds.api.problem_source.draw_problems", marked)
    ctx = context(folders, tmp_path)
    said = run(inputs(folders), SMALL, ctx)
    found = list(tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL))
    sets = Counter((row["set"], PASSIVE in row["tags"]) for row in found)
    assert sets == {("test", False): 20, ("baseline", False): 20, ("gate", False): 28, (PASSIVE, True): 8 + 8}
    assert said["overall"]["sft"]["pass_1"]["n"] == 5 and said[PASSIVE]["overall"]["sft"]["pass_1"]["n"] == 2
    assert said[PASSIVE]["overall"]["do_nothing"]["pass_1"]["n"] == 2, "as they are played with nothing, too"


def test_an_adapter_is_measured_as_the_model_that_it_is_merged_into(folders: Path, tmp_path: Path) -> None:
    """On its base, of which no other copy is written; the base beside it is measured as if it were alone."""
    import torch

    artifacts = {"b" * 32 + ".dir": folders / "base"}
    torch.manual_seed(3)
    start = begin(folders / "base", AdapterParams(kind="lora", r=4, save="adapter"), artifacts)
    worn = start.wear(start.model)
    with torch.no_grad():
        for name, weight in worn.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    start.keep(worn, tmp_path / "adapter", tmp_path / "beside")
    merged = saving.merged(tmp_path / "adapter", artifacts, tmp_path / "merged")
    small, said = SMALL.model_copy(update={"problems": 3, "gate_problems": 0}), []
    for name, model in (("on its base", tmp_path / "adapter"), ("merged", merged)):
        ctx = context(folders, tmp_path / name, artifacts=artifacts)
        run(inputs(folders, models={"base": folders / "base", "sft": model}), small, ctx)
        said.append([(row["model"], row["messages"]) for row in tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL)])
    assert said[0] == said[1]
    talks = {model: [messages for name, messages in said[0] if name == model] for model in ("base", "sft")}
    assert talks["base"] != talks["sft"] and not list((tmp_path / "adapter").glob("model*.safetensors"))


def as_it_is(model: Any, **sizes: Any) -> Engine:
    return Changed(own.opened(model, **sizes), lambda ids, sampling: (ids, sampling))  # type: ignore[return-value]


def of_others(model: Any, **sizes: Any) -> Engine:
    """With the weights of another checkpoint."""
    return as_it_is(tiny.model(seed=7), **sizes)


def in_half(model: Any, **sizes: Any) -> Engine:
    import torch

    return as_it_is(copy.deepcopy(model).to(torch.bfloat16), **sizes)


@pytest.mark.parametrize(
    ("engine", "cause"),
    [
        (of_others, "none of the usual causes explains it: the engine has other weights"),
        (other_template, "reads other tokens .a chat template that is rendered anew"),
        (in_half, "of the size of bfloat16's rounding"),
        (at_one, "at temperature 1 and not at 0.7"),
    ],
)
def test_another_model_at_a_server_is_named_after_a_few_turns(folders: Path, tmp_path: Path, engine: Any, cause: str) -> None:
    ctx = context(folders, tmp_path, of_checkpoint=partial(CheckpointAgent, engine=engine))
    with pytest.raises(
        StageFailed, match=rf"evaluate: base in retail \(test\): .*are not the checkpoint's.*{cause}.*raise max_mismatch"
    ):
        run(inputs(folders), SMALL, ctx)


def test_the_right_model_at_a_server_is_measured_and_few_tokens_are_judged_at_the_end(folders: Path, tmp_path: Path) -> None:
    """The same rows as in this process; at most 2 x 2 conversations x 2 turns x 6 ids, fewer than are judged on the way."""
    small = SMALL.model_copy(update={"problems": 2, "gate_problems": 0, "max_steps": 2})
    made = {}
    for name, engine in (("here", own.opened), ("there", as_it_is)):
        ctx = context(folders, tmp_path / name, of_checkpoint=partial(CheckpointAgent, engine=engine))
        run(inputs(folders), small, ctx)
        made[name] = digests(ctx.out)
    assert made["here"] == made["there"]
    ctx = context(folders, tmp_path / "wrong", of_checkpoint=partial(CheckpointAgent, engine=of_others))
    with pytest.raises(StageFailed, match=r"evaluate: base in retail \(test\): .*No trial of it was kept"):
        run(inputs(folders), small, ctx)


def test_an_unseen_world_is_measured_apart(folders: Path, tmp_path: Path) -> None:
    """2 models x 7 problems x 2 trials and four players without a model: 56 rows more. Every other figure stays what it is without the
    world, and the decision with them; the validation split plays none."""
    worlds = tmp_path / "worlds"
    shutil.copytree(folders / "worlds", worlds)
    freeze_world(World.build(Library, 30, 0, "tasks.worlds.library.library.world:Library"), worlds / "unseen/library")
    plain = run(inputs(folders), SMALL, context(folders, tmp_path / "plain"))
    ctx = context(tmp_path, tmp_path / "more")
    said = run(inputs(folders, worlds=worlds), SMALL, ctx)
    found = [row for row in tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL) if row["world"] == "library"]
    assert {row["set"] for row in found} == {"unseen"} and {row["split"] for row in found} == {"test"}
    assert Counter(row["model"] for row in found) == {"base": 14, "sft": 14, **dict.fromkeys(BASELINES, 7)}
    apart = said.pop("unseen")
    assert said == {**plain, "trials": plain["trials"] + 56}
    assert apart["evaluate"]["sft"]["library"]["pass_1"]["n"] == apart["paired"]["sft-base"]["library"]["pass_1"]["n"] == 7
    assert apart["baselines"]["library"]["oracle"]["pass_1"]["mean"] == 1 and apart["overall"]["do_nothing"]["pass_1"]["mean"] == 0
    assert "gate" not in apart and "library" not in json.dumps(said)
    assert "sft,library,all,7,2,0.0" in (ctx.out / "unseen.csv").read_text()
    for name in ("models.csv", "families.csv"):
        assert (ctx.out / name).read_bytes() == (tmp_path / "plain/out" / name).read_bytes()
    validation = SMALL.model_copy(update={"split": "validation", "problems": 2, "gate_problems": 0})
    assert "unseen" not in run(inputs(folders, worlds=worlds), validation, context(tmp_path, tmp_path / "validation"))


def test_conversations_are_counted_with_those_in_unseen_worlds() -> None:
    """By hand: in each of 2 + 1 worlds 2 models play 7 x 2 and four baselines 7; the gate plays 2 x 7 x 2 in two of them."""
    before = Planned("base", "base", None, ["a", "b"], [], ["base", "sft"])
    step = Planned("evaluate", "evaluate", SMALL, ["a", "b"], [before], [], unseen=["c"])
    assert conversations(SMALL, step) == 3 * (28 + 28) + 2 * 28
    assert conversations(SMALL.model_copy(update={"split": "validation"}), step) == 2 * 28 + 2 * 28


@pytest.mark.parametrize("cap", [32, 46])
def test_trials_that_end_at_the_cap_before_the_first_answer_stop_it(folders: Path, tmp_path: Path, cap: int) -> None:
    """No room at all, or for a few tokens of a first turn: what is measured then is the cap, not the model."""
    small = SMALL.model_copy(update={"max_episode_tokens": cap, "max_turn_tokens": 90})
    with pytest.raises(StageFailed, match=r"evaluate: base in retail \(test\): 14 of 14 conversations .* max_episode_tokens"):
        run(inputs(folders), small, context(folders, tmp_path))


def test_a_model_that_only_babbles_is_measured_and_one_nobody_talks_to_is_not(folders: Path, tmp_path: Path) -> None:
    """Turns cut at their own limit are the model's fault and count as failures (`test_it_plays_counts_and_reports`); a silent human
    is not."""

    class Silent:
        name, revision = "silent", "1"

        def complete(self, requests: Sequence[Any]) -> list[dict[str, Any]]:
            return [{"role": "assistant", "content": ""} for _ in requests]

    ctx = replace(context(folders, tmp_path), role=lambda name, world="": Silent())
    with pytest.raises(StageFailed, match=r"14 of 14 conversations .* the simulated human said nothing"):
        run(inputs(folders), SMALL, ctx)


def test_gate_problems_are_fresh_and_follow_the_candidate(folders: Path, tmp_path: Path) -> None:
    played = {}
    for identity in ("abc.dir", "def.dir"):
        ctx = context(folders, tmp_path / identity)
        run(inputs(folders, candidate_id=identity, models={"sft": folders / "sft"}), SMALL, ctx)
        found = list(tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL))
        played[identity] = [{row["problem_id"] for row in found if row["set"] == which} for which in ("test", "gate")]
    (test_one, gate_one), (test_two, gate_two) = played.values()
    assert test_one == test_two and gate_one != gate_two
    assert not test_one & gate_one and not test_two & gate_two


def test_the_champion_plays_the_gate(folders: Path, tmp_path: Path) -> None:
    ctx = context(folders, tmp_path)
    said = run(inputs(folders, champion=folders / "sft"), SMALL, ctx)
    assert said["gate"]["reference"] == "champion"
    gap = said["gate"]["overall"]["paired"]["pass_1"]
    assert gap["mean"] == 0.0, "the champion is the candidate here: same weights, same noise, same conversations"
    trials = [row for row in tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL) if row["set"] == "gate"]
    ours, theirs = ([row["messages"] for row in trials if row["model"] == model] for model in ("sft", "champion"))
    assert ours == theirs


def test_a_killed_evaluation_resumes_and_ends_in_the_same_bytes(folders: Path, tmp_path: Path) -> None:
    whole = context(folders, tmp_path / "whole")
    run(inputs(folders), SMALL, whole)

    done: list[Any] = []

    def dies(name: str, work: Callable[..., Any], items: Sequence[Any], size: int) -> Iterator[Any]:
        for place, result in enumerate(sharded(tmp_path / "killed" / "scratch")(name, work, items, size)):
            if place == 3 and not done:
                raise KeyboardInterrupt
            yield result

    killed = context(folders, tmp_path / "killed", shards=dies)
    with pytest.raises(KeyboardInterrupt):
        run(inputs(folders), SMALL, killed)
    finished = sorted((tmp_path / "killed" / "scratch" / "shards" / "evaluate").iterdir())
    before = [path.stat().st_mtime_ns for path in finished]
    assert len(finished) == 4
    done.append(True)
    run(inputs(folders), SMALL, killed)
    assert [path.stat().st_mtime_ns for path in finished] == before, "finished units are not played again"
    assert digests(killed.out) == digests(whole.out)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"candidate": "merged"}, r"the candidate 'merged' is not among the models: base, sft"),
        ({"models": {"champion": Path("x"), "sft": Path("y")}}, r"no model may be called 'champion'"),
        ({"models": {"oracle": Path("x"), "sft": Path("y")}}, r"no model may be called 'oracle'"),
        ({"worlds": Path("/nowhere")}, r"holds no frozen world"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(folders: Path, tmp_path: Path, changed: dict[str, Any], text: str) -> None:
    ctx = context(folders, tmp_path)
    with pytest.raises(BadInput, match=text):
        run(inputs(folders, **changed), SMALL, ctx)
    assert not list(ctx.out.iterdir())


def test_a_world_without_enough_problems_says_so(folders: Path, tmp_path: Path) -> None:
    freeze_world(World.build(Retail, 3, 0, ADDRESS), tmp_path / "worlds" / "retail")
    with pytest.raises(BadInput, match="no further problem"):
        run(inputs(folders, worlds=tmp_path / "worlds"), Params(problems=9000), context(folders, tmp_path))


def test_a_spent_budget_stops_and_a_larger_one_goes_on_to_the_same_bytes(folders: Path, tmp_path: Path) -> None:
    """Its human at a server: nothing partial is left, and what was answered is not paid for again."""
    small = SMALL.model_copy(update={"problems": 6, "gate_problems": 0, "trials": 1, "max_steps": 4, "split": "validation"})
    with running() as stub:

        def evaluated(name: str, state: str, **limits: float) -> dict[str, str]:
            human = EndpointClient("human", stub.url, Dialect("m"), setting=Setting(tmp_path / state, name, "ledger", limits))
            ctx = context(folders, tmp_path / name, shards=sharded(tmp_path / name / "scratch"))
            run(inputs(folders), small, replace(ctx, role=lambda role, world: human))
            return digests(ctx.out)

        whole = evaluated("whole", "one")
        paid, less = stub.counts()["paid"], Cache(tmp_path / "one").spent("ledger")[0] - 1
        with pytest.raises(BudgetSpent, match=rf"budget\.max_tokens = {less}, .*raise the budget and run again"):
            evaluated("cut", "two", max_tokens=less)
        assert 0 < stub.counts()["paid"] - paid < paid
        assert not (tmp_path / "cut/out/metrics.json").exists()
        assert evaluated("cut", "two") == whole and stub.counts()["paid"] == 2 * paid


def test_the_best_champion_so_far_plays_the_gate_problems_too(folders: Path, tmp_path: Path) -> None:
    """Where it is another than the champion; else nothing is played twice."""
    small = SMALL.model_copy(update={"problems": 1})
    ctx = context(folders, tmp_path)
    said = run(inputs(folders, champion=folders / "base", anchor=folders / "sft"), small, ctx)["gate"]["overall"]
    found = [row for row in tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL) if row["set"] == "gate"]
    assert Counter(row["model"] for row in found) == {"sft": 14, "champion": 14, "anchor": 14}
    assert said["anchored"]["pass_1"]["mean"] == 0 and said["anchored"]["pass_1"]["p_above"] == 1, "it meets itself"
    assert set(said["paired"]["pass_1"]) == set(said["anchored"]["pass_1"])


@pytest.mark.parametrize(("chosen", "said"), [("best", "`dvc pull` may bring them; evaluate.pass_k.anchor: none"), ("none", "")])
def test_an_anchor_that_is_gone_is_told_with_what_to_do(chosen: str, said: str) -> None:
    def gone(identity: str) -> Path:
        raise LookupError(identity)

    key = SimpleNamespace(parts={"anchor": "a.dir"})
    job: Any = SimpleNamespace(key=key, params=Params(anchor=chosen), read=gone, stage="evaluate", method="pass_k")
    if not said:
        assert anchor(job) is None
        return
    with pytest.raises(StageFailed, match=re.escape(said)):
        anchor(job)
