"""A stranger's checkpoint down the road, room by room, in this process: Llama with a template without tools, Qwen3 with TRL's template of
Qwen2.5, and that of gpt-oss, which writes the past anew (one row a turn)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tasks.base import Inputs, checkpoint
from tasks.chat import proof
from tasks.chat.local.kept import chat_of
from tasks.checkpoints import folders
from tasks.contract import schemas, tables
from tasks.contract.client import Message
from tasks.contract.context import Context
from tasks.evaluate import Inputs as EvaluateInputs
from tasks.evaluate import pass_k
from tasks.merge import Inputs as MergeInputs
from tasks.merge import linear
from tasks.rl import Inputs as RlInputs
from tasks.rl.core.hooks import Played
from tasks.rl.core.loop import run as reinforce
from tasks.rl.core.pool import Group, spread
from tasks.rl.core.reward_model import RewardModel
from tasks.rl.grpo import Grpo, Params
from tasks.sft import Inputs as SftInputs
from tasks.sft import sft
from tasks.sft.core import loop
from tasks.sft.core.params import Loop
from tests.base import outside
from tests.chat import talks
from tests.chat.talks import talk
from tests.rl import micro


class Odd(Grpo):
    """GRPO that is paid for some tokens and not for others, so that conversations of random weights differ in what they earn."""

    def reward_terms(self, played: Sequence[Played], model: RewardModel | None) -> list[Mapping[str, float]]:
        return [{"odd": float(sum(token for turn in one.talk.turns for token in turn["ids"]) % 2)} for one in played]

    def keep(self, group: Group) -> bool:
        return spread(group.rewards)


def single_calls(seed: int) -> list[Message]:
    """A conversation for a template that holds one call in a turn, and no words beside it."""
    messages = talk(seed)
    del messages[3], messages[1]["tool_calls"][1]
    return [{**message, "content": ""} if message.get("tool_calls") else message for message in messages]


def context(folder: Path, **more: Any) -> Context:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Context(seed=5, out=folder / "out", scratch=folder / "scratch", **more)


@pytest.mark.parametrize(
    ("family", "template", "chat_format", "form"),
    [
        ("Llama", "llama3", "hermes", "whole"),
        ("Qwen3", "qwen2_5", "auto", "whole"),
        ("Llama", "gptoss", "auto", "by turn"),
    ],
)
def test_every_room_works_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, template: str, chat_format: str, form: str
) -> None:
    monkeypatch.setattr(proof, "find", partial(proof.find, count=30))
    brought = outside.checkpoint(tmp_path / "brought", template, family)
    start = micro.frozen(tmp_path)
    prompt = {"tools": "none", "policy": "none"}

    base = context(tmp_path / "base", prompt=prompt)
    params = checkpoint.Params(source=str(brought), chat_format=chat_format)
    assert checkpoint.run(Inputs(start.worlds, brought), params, base)["chat_form"] == form
    assert chat_of(folders.load_tokenizer(base.out / "model")).form == form

    tuned = context(tmp_path / "sft", prompt=prompt)
    few = Loop(batch_tokens=2048, max_length=4096, max_steps=2, log_every=1, learning_rate=1e-2)
    if form == "by turn":
        monkeypatch.setattr(talks, "talk", single_calls)
    rows = talks.dataset(tmp_path, 10)
    figures = loop.run(SftInputs(start.worlds, base.out, rows), few, sft.hooks(sft.Params(), tuned), tuned)
    assert (figures["rows"], figures["dropped_rows"]) == ((8, 0) if form == "whole" else (24, 0))
    assert figures["proven_turns"] == 30

    paid = micro.SHORT.model_copy(update={"max_episode_tokens": 512, "steps": 1})
    expert = micro.context(tmp_path / "rl")
    played = reinforce(RlInputs(start.worlds, tuned.out, "retail"), paid, Odd(params=Params()), expert)
    assert played["steps"] == 1 and played["tokens_trained"] > 0
    models = [folder / "model/model.safetensors" for folder in (base.out, tuned.out, expert.out)]
    assert len({path.read_bytes() for path in models}) == 3, "each room has moved the weights"

    merged = context(tmp_path / "merge")
    linear.run(MergeInputs(tuned.out / "model", {"rl_retail": expert.out / "model"}), linear.Params(), merged)
    assert chat_of(folders.load_tokenizer(merged.out / "model")).form == form
    evaluate(tmp_path, start.worlds, base.out / "model", merged.out / "model")


def evaluate(folder: Path, worlds: Path, base: Path, candidate: Path) -> None:
    """Both play three test problems each."""
    ctx = micro.context(folder / "evaluate")
    small = {"problems": 3, "gate_problems": 3, "trials": 1, "max_steps": 4, "max_turn_tokens": 6, "rows": 6, "resamples": 100}
    inputs = EvaluateInputs(worlds=worlds, models={"base": base, "tuned": candidate}, candidate="tuned", candidate_id="a.dir")
    pass_k.run(inputs, pass_k.Params(**small, max_episode_tokens=512), ctx)
    trials = list(tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL))
    assert {(row["model"], row["set"]) for row in trials} >= {("base", "test"), ("tuned", "test"), ("tuned", "gate")}
    assert sum(row["model"] == "tuned" and row["set"] == "test" for row in trials) == 3
