"""The loop as a whole, with a micro model in the real retail world: it resumes to the same bytes, and leaves out what is not the agent's.

Random weights never solve a problem, so these tests reward short conversations, through the hooks that any method fills.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.checkpoints.adapter_params import AdapterParams
from tasks.contract.client import Message, Request
from tasks.contract.params import BadInput, StageFailed
from tasks.rl import Inputs
from tasks.rl.core import models
from tasks.rl.core.loop import run
from tasks.rl.grpo import Grpo, Params
from tasks.worlds.api.problem_making import draw_problems
from tests.rl.micro import LOOP, Brief, context, digest, frozen, killed_at


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return frozen(tmp_path_factory.mktemp("rl"))


def test_a_killed_run_continues_to_the_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    babbles = LOOP.model_copy(update={"max_lost": 1.0})  # every conversation of the validation ends at the cap
    figures = run(inputs, babbles, Brief(params=Params()), context(whole))
    with pytest.raises(KeyboardInterrupt):
        run(inputs, babbles, Brief(params=Params()), context(cut, log=killed_at(3)))
    assert [path.name for path in (cut / "scratch" / "steps").iterdir()] == ["2"] and not list((cut / "out").iterdir())
    assert run(inputs, babbles, Brief(params=Params()), context(cut)) == figures
    assert digest(cut / "out") == digest(whole / "out")
    weights = [root / "scratch" / "steps" / "4" / "learners.pt" for root in (whole, cut)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (whole / "out/model/model.safetensors").read_bytes() != (inputs.sft / "model/model.safetensors").read_bytes()
    assert figures["steps"] == 4 and figures["tokens_trained"] > 0 and figures["groups_played"] == 8
    assert set(digest(whole / "out")) >= {"curves.csv", "model/model.safetensors", "model/chat_template.jinja"}
    lines = list(csv.DictReader((whole / "out" / "curves.csv").open()))
    assert [line["step"] for line in lines] == ["0", "1", "2", "3", "4"]
    assert all(float(line["term_brief"]) < 0 for line in lines[1:])
    assert [bool(line["validation"]) for line in lines] == [True, False, True, False, True]


def test_groups_without_spread_and_broken_humans_train_nothing(inputs: Inputs, tmp_path: Path) -> None:
    """GRPO proper: no outcome differs, so every group is dropped and the weights stay; half of the humans hang up at once."""

    class Broken:
        name, revision = "broken", "1"

        def complete(self, requests: Sequence[Request]) -> list[Message]:
            return [{"role": "assistant", "content": "Hello." if request.seed % 2 else ""} for request in requests]

    ctx = context(tmp_path, role=lambda name, world_name="": Broken())
    two = LOOP.model_copy(update={"steps": 2, "min_trained": 0.0})
    figures = run(inputs, two, Grpo(params=Params()), ctx)
    assert figures["groups_dropped"] == figures["groups_played"] == 4 and figures["tokens_trained"] == 0
    assert 0 < figures["conversations_left_out"] < 16
    assert figures["conversations_lost_by"]["human"] == figures["conversations_left_out"]
    best = tmp_path / "scratch" / "best" / "2" / "model" / "model.safetensors"
    assert best.read_bytes() == (inputs.sft / "model" / "model.safetensors").read_bytes()


def test_a_run_whose_groups_all_agree_stops_as_soon_as_too_few_steps_can_train(inputs: Inputs, tmp_path: Path) -> None:
    """By hand: of four steps half must train; after the third without a gradient at most one can, and the fourth is not played."""
    lines: list[int] = []
    ctx = context(tmp_path, log=lambda name, value, step: lines.append(step) if name == "rl/tokens" else None)
    with pytest.raises(StageFailed, match=r"in 3 of the first 3 steps no group trained.* min_trained = 0.5 .*mostly unsolved"):
        run(inputs, LOOP.model_copy(update={"min_trained": 0.5}), Grpo(params=Params()), ctx)
    assert lines == [1, 2] and not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"max_episode_tokens": 32},
            "12 of 12 conversations ended before their time: the prompt alone fills max_episode_tokens. Raise it",
        ),
        ({"max_turn_tokens": 4, "max_lost": 0.5}, r"screening in retail: \d+ of 12 .* cut at max_turn_tokens"),
    ],
)
def test_a_cap_that_ends_nearly_all_conversations_stops_the_run_at_the_screening(
    inputs: Inputs, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(StageFailed, match=message):
        run(inputs, LOOP.model_copy(update=how), Grpo(params=Params()), context(tmp_path))


def test_humans_that_all_hang_up_stop_the_run(inputs: Inputs, tmp_path: Path) -> None:
    class Silent:
        name, revision = "silent", "1"

        def complete(self, requests: Sequence[Request]) -> list[Message]:
            return [{"role": "assistant", "content": ""} for _ in requests]

    silent = context(tmp_path, role=lambda name, world_name="": Silent())
    with pytest.raises(StageFailed, match=r"12 of 12 conversations .* the simulated human said nothing"):
        run(inputs, LOOP, Grpo(params=Params()), silent)
    with pytest.raises(StageFailed, match="no validation conversation in retail says anything about the agent"):
        run(inputs, LOOP.model_copy(update={"max_lost": 1.0}), Grpo(params=Params()), silent)


def test_a_world_without_training_problems_leaves_no_pool(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tasks.worlds.api.problem_source.Problems.up_to",
        lambda self, world, split, *more: [] if split == "train" else draw_problems(world, split, *more),
    )
    with pytest.raises(StageFailed, match="world retail gave no training problem"):
        run(inputs, LOOP, Grpo(params=Params()), context(tmp_path))


def test_a_policy_of_which_nothing_trains_is_refused_before_it_plays(inputs: Inputs, tmp_path: Path) -> None:
    class Frozen(Grpo):
        def prepare(self, model: Any) -> Any:
            return model.requires_grad_(False)

    with pytest.raises(StageFailed, match="nothing would train"):
        run(inputs, LOOP, Frozen(params=Params()), context(tmp_path))


def test_an_unknown_world_is_named(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no world 'retial'. Did you mean 'retail'"):
        run(Inputs(inputs.worlds, inputs.sft, "retial"), LOOP, Grpo(params=Params()), context(tmp_path))


def test_an_adapter_over_a_base_in_bfloat16_plays_learns_and_is_merged_in_float32(inputs: Inputs, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from tasks.checkpoints import folders, saving

    model, words = folders.load(inputs.sft / "model")
    saving.save(model.bfloat16().float(), words, tmp_path / "coarse" / "model")
    coarse = replace(inputs, sft=tmp_path / "coarse")
    adapter = AdapterParams(kind="lora", r=2, targets=["q_proj", "v_proj"], save="full")
    more = {"dtype": "bfloat16", "pass_tokens": 300, "packing": "shared_prompt", "checkpointing": True, "adapter": adapter}
    figures = run(coarse, LOOP.model_copy(update={"max_lost": 1.0, **more}), Brief(params=Params()), context(tmp_path))
    assert figures["tokens_trained"] > 0
    merged, start = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "out", tmp_path / "coarse"))
    moved = {name for name in start if not start[name].equal(merged[name])}
    assert {value.dtype for value in merged.values()} == {torch.float32}
    assert moved and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in moved)


def test_out_of_memory_names_the_params_to_lower(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(models, "score", full)
    with pytest.raises(
        StageFailed, match=r"rl: out of memory. Of the params of its loop, .*now 0, so that 8 conversations \(groups x group_size\)"
    ):
        run(inputs, LOOP.model_copy(update={"max_lost": 1.0}), Brief(params=Params()), context(tmp_path))
