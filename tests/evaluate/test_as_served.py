"""The candidate through the endpoint of `cairn serve`: the same tokens as evaluated, and a difference that is seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tasks.checkpoints.adapter_params import AdapterParams
from tasks.checkpoints.starting import begin
from tasks.contract import schemas, tables
from tasks.contract.context import Context
from tasks.engine import methods
from tasks.evaluate.core.as_served import AS_SERVED, digests
from tasks.evaluate.pass_k import Params, run
from tasks.players.acting import plain
from tasks.serving.endpoint.client import ChatClient
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.runtime import World
from tasks.worlds.library.retail import Retail
from tests.evaluate.test_pass_k import ADDRESS, context, inputs
from tests.playing import NO_PROMPT
from tests.rollout import tiny

SMALL = Params(problems=7, gate_problems=0, trials=2, max_steps=6, max_turn_tokens=24, max_episode_tokens=300, rows=14, resamples=200)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen world, and a checkpoint that babbles in turns that end."""
    home = tmp_path_factory.mktemp("as_served")
    freeze_world(World.build(Retail, 30, 0, ADDRESS), home / "worlds" / "retail")
    tiny.saved(home / "base", seed=0)
    tiny.saved(home / "sft", seed=3, end=3.0)
    return home


def served_context(home: Path, folder: Path, engine: str = "own", problems: int = 3, artifacts: Any = MappingProxyType({})) -> Context:
    """A context in which the candidate is also played through the endpoint."""
    chosen = {"method": "endpoint", "params": {"problems": problems}}
    about = methods.as_served(chosen, engine, home / "worlds", NO_PROMPT, plain, artifacts=artifacts, device="cpu")
    return context(home, folder, as_served=about, artifacts=artifacts)


def rows(ctx: Context) -> list[dict[str, Any]]:
    return list(tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL))


def test_what_is_served_is_what_was_evaluated(home: Path, tmp_path: Path) -> None:
    ctx = served_context(home, tmp_path)
    said = run(inputs(home), SMALL, ctx)[AS_SERVED]
    assert (said["conversations"], said["alike"], said["exact"], said["first"]) == (6, 6, True, None)
    assert said["difference"]["p_below"] == 1.0 and said["as_served"]["n"] == 3
    served = [row for row in rows(ctx) if row["set"] == AS_SERVED]
    assert {row["model"] for row in served} == {"sft"} and len(served) == 6
    assert any(len(row["turns"]) > 1 for row in served), "some conversations had more than one turn"


def test_each_request_holds_the_tools_and_what_was_said(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any client sends it: the system message is the server's."""
    sent, body = list[dict[str, Any]](), ChatClient._body
    monkeypatch.setattr(ChatClient, "_body", lambda self, request: sent.append(body(self, request)) or sent[-1])
    run(inputs(home), SMALL, served_context(home, tmp_path, problems=1))
    tools = json.loads((home / "worlds/retail/schemas.json").read_text())
    assert sent and all(one["tools"] == tools for one in sent)
    assert {message["role"] for one in sent for message in one["messages"]} <= {"user", "assistant", "tool"}


def test_an_adapter_is_played_on_its_base(home: Path, tmp_path: Path) -> None:
    import torch

    artifacts = {"b" * 32 + ".dir": home / "sft"}
    start = begin(home / "sft", AdapterParams(kind="lora", r=4, save="adapter"), artifacts)
    worn = start.wear(start.model)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in worn.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    start.keep(worn, tmp_path / "adapter", tmp_path / "beside")
    ctx = served_context(home, tmp_path, artifacts=artifacts)
    models = {"base": home / "base", "sft": tmp_path / "adapter"}
    said = run(inputs(home, models=models), SMALL.model_copy(update={"problems": 3}), ctx)[AS_SERVED]
    assert (said["conversations"], said["alike"]) == (6, 6)


def test_another_answer_is_seen(home: Path, tmp_path: Path) -> None:
    """The same endpoint over other weights: then nothing is alike, and the first difference has its place."""
    ctx = served_context(home, tmp_path, problems=1)
    about = ctx.as_served
    assert about

    @contextmanager
    def other(folder: Path, **limits: Any) -> Iterator[Any]:
        with about.agent(home / "base", **limits) as agent:
            yield agent

    said = run(inputs(home), SMALL, dataclasses.replace(ctx, as_served=dataclasses.replace(about, agent=other)))[AS_SERVED]
    assert said["alike"] == 0 and said["first"]["world"] == "retail" and said["first"]["trial"] == 0


def test_another_engine_is_not_held_to_the_same_tokens(home: Path, tmp_path: Path) -> None:
    assert not served_context(home, tmp_path, "transformers").as_served.exact  # type: ignore[union-attr]
    assert methods.as_served({"method": "none", "params": {}}, "own", home, NO_PROMPT, plain) is None


def test_a_turn_is_told_by_what_was_read_and_what_was_produced() -> None:
    one = {"turns": [{"prompt_ids": [1, 2], "ids": [3]}]}
    assert digests(one) == digests(one) != digests({"turns": [{"prompt_ids": [1], "ids": [2, 3]}]})
