"""The contender: an agent of another kind than the road's checkpoints is measured beside them, on the same problems.

By hand: 1 world x 5 problems x 2 trials are 10 test rows of the contender, as of each checkpoint; it plays no gate problem.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infra.stub import running
from tasks.contract import schemas, tables
from tasks.contract.context import Context, Losses
from tasks.contract.params import BadInput, StageFailed
from tasks.evaluate import Inputs
from tasks.evaluate.pass_k import Params, run
from tasks.players.openai_compatible import Setting
from tasks.players.roles import maker
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.runtime import World
from tasks.worlds.library.retail import Retail
from tests.agents import longer
from tests.playing import playing
from tests.rollout import tiny

SMALL = Params(problems=5, gate_problems=2, trials=2, max_steps=20, max_turn_tokens=6, rows=10, resamples=200)
SERVED: dict[str, Any] = {
    **{"backend": "openai_compatible", "model": "some-model", "price_in": 0.0, "price_out": 0.0, "identity": "", "others": []},
    **{"max_in_flight": 16, "timeout_seconds": 5.0, "retries": 2, "structured": "json_schema", "send_seed": True, "thinking": 0},
    **{"temperature": None, "max_tokens": None, "content_beside_calls": "null", "limit_field": "max_tokens", "images": False},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen world and a checkpoint that babbles."""
    found = tmp_path_factory.mktemp("contender")
    freeze_world(World.build(Retail, 30, 0, "tasks.worlds.library.retail:Retail"), found / "worlds" / "retail")
    tiny.saved(found / "sft", seed=1)
    return found


def evaluated(home: Path, out: Path, player: dict[str, Any] | None, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """metrics.json and the rows of an evaluation with this contender, or with none."""
    out.mkdir(parents=True)
    setting = Setting(out.with_name(f"{out.name}-calls"), losses=Losses(least=0))
    role = maker({"contender": player} if player else {}, home / "worlds", 0, setting=setting)
    ctx = Context(seed=5, out=out, scratch=out.with_name(f"{out.name}-scratch"), **playing(role, **more))
    said = run(Inputs(home / "worlds", {"sft": home / "sft"}, "sft", "abc.dir", contender=player is not None), SMALL, ctx)
    return said, list(tables.read_rows(out / "trials.parquet", schemas.TRIAL))


def test_a_served_agent_is_measured_beside_the_checkpoints(home: Path, tmp_path: Path) -> None:
    with running() as stub:
        said, rows = evaluated(home, tmp_path / "with", {**SERVED, "base_url": stub.url})
        paid = stub.counts()["paid"]
    mine = [row for row in rows if row["model"] == "contender"]
    turns = sum(message["role"] == "assistant" for row in mine for message in row["messages"])
    assert Counter(row["set"] for row in mine) == {"test": 10} and {row["agent"] for row in mine} == {"some-model"}
    assert 0 < paid <= turns and any("tool_calls" in one for row in mine for one in row["messages"]), (
        "it called tools; a question that comes twice is asked once"
    )
    assert not any(row["n_tokens"] for row in mine), "an answer in text has neither token ids nor log-probabilities"
    assert said["evaluate"]["contender"]["retail"]["pass_1"]["n"] == 5 and said["overall"]["contender"]["pass_1"]["trials"] == 2
    assert said["paired"]["sft-contender"]["retail"]["pass_1"]["n"] == 5 and said["gate"]["candidate"] == "sft"
    assert said["gate"]["reference"] is None, "nothing is decided by it"
    for name in ("models.csv", "families.csv"):
        with (tmp_path / "with" / name).open() as stream:
            assert any(line["model"] == "contender" for line in csv.DictReader(stream)), name


def test_all_else_is_as_it_was_without_one_and_a_script_plays_it_as_well(home: Path, tmp_path: Path) -> None:
    without, before = evaluated(home, tmp_path / "without", None)
    said, rows = evaluated(home, tmp_path / "with", {"backend": "scripted", "errors": {}})
    assert [row for row in rows if row["model"] != "contender"] == before
    assert {name: block for name, block in said["overall"].items() if name != "contender"} == without["overall"]
    assert said["overall"]["contender"]["pass_1"]["mean"] > 0.8 and said["paired"]["sft-contender"]["retail"]["pass_1"]["mean"] < -0.8
    assert {row["agent"] for row in rows if row["model"] == "contender"} == {"scripted-agent"}
    flawed, _ = evaluated(home, tmp_path / "flawed", {"backend": "scripted", "errors": {"skips_authentication": 1.0}})
    assert flawed["evaluate"]["contender"]["retail"]["policy"]["mean"] < said["evaluate"]["contender"]["retail"]["policy"]["mean"]


def test_it_acts_in_the_way_that_the_params_choose(home: Path, tmp_path: Path) -> None:
    params = longer.Params()
    with running() as stub:
        player = {**SERVED, "base_url": stub.url}
        _, plain = evaluated(home, tmp_path / "plain", player)
        once = stub.counts()["paid"]
        _, other = evaluated(home, tmp_path / "longer", player, way=lambda agent: longer.agent(agent, params))
        assert stub.counts()["paid"] > 2 * once, "it is asked for several tries of a turn"
    assert plain and other


@pytest.mark.parametrize(
    ("fault", "words"),
    [("cut", r"turns are cut at their most tokens\. Raise roles\.contender\.max_tokens"), ("context", r"longer than the model reads")],
)
def test_one_of_whom_nothing_is_heard_stops_it(home: Path, tmp_path: Path, fault: str, words: str) -> None:
    with running(faults={fault: 1.0}) as stub, pytest.raises(StageFailed, match=rf"contender in retail \(test\): 10 of 10 .*{words}"):
        evaluated(home, tmp_path / "out", {**SERVED, "base_url": stub.url})


def test_its_name_is_taken_and_nobody_is_never_asked(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model may be called 'contender'"):
        run(Inputs(home / "worlds", {"contender": home / "sft"}, "contender", "abc"), SMALL, Context(0, tmp_path, tmp_path))
    with pytest.raises(BadInput, match=r"roles\.contender\.backend = none: nobody plays this role"):
        maker({"contender": {"backend": "none"}}, home / "worlds", 0)("contender", "retail")
