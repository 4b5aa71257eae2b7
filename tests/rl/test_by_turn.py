"""Chat formats by turn in the room's loop: each turn is a sequence behind the prompt that was served, a conversation counts once.

By hand: turns that read 1 2 and say 3, then read 1 2 9 4 and say 5 6, are the row 1 2 | 3 | 1 2 9 4 | 5 6 of two sequences; with the
first turn's tokens unchanged in the second prompt (1 2 3 4) the same conversation is one sequence 1 2 3 4 5 6, and nothing differs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from infra.chat_tokenizers import small_tokenizer
from tasks.chat.local import kept
from tasks.chat.local.format import BY_TURN
from tasks.chat.proof import find
from tasks.checkpoints import saving
from tasks.checkpoints import tiny as models
from tasks.contract.params import StageFailed
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import own
from tasks.players.local.generation import Engine, Sampling
from tasks.rl import Inputs, Loop
from tasks.rl.core.batch import Batch, Row, Scored, collate, per_row
from tasks.rl.core.hooks import Hooks, Played
from tasks.rl.core.loop import run
from tasks.rl.core.scoring import PADDED, Lines, score, slices
from tasks.rl.grpo import Grpo, Params
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.system_prompt import system_message
from tests.playing import NO_PROMPT
from tests.rl.micro import SHORT, Brief, context, frozen, world
from tests.rollout import tiny

THINKS = (
    "{% for m in messages %}{{ '<|u|>' if m.role == 'user' else '<|s|>' if m.role == 'system' else '<|a|>' }}"
    "{{ '<think></think>' if m.role == 'assistant' and loop.last }}{{ m.content }}<|e|>{% endfor %}"
    "{% if add_generation_prompt %}<|a|><think></think>{% endif %}"
)
"""As Qwen3 without a thought: the prompt holds an empty one, which the past has lost."""


@cache
def thinking() -> Any:
    tokenizer = small_tokenizer(THINKS)
    kept.keep(tokenizer, find(tokenizer, "hermes", count=30))
    return tokenizer


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """The room's inputs, with a start checkpoint whose chat format holds by turn."""
    import torch

    root = tmp_path_factory.mktemp("by_turn")
    freeze_world(world(), root / "worlds" / "retail")
    torch.manual_seed(2)
    model = models.tiny_qwen3(thinking(), layers=1, width=32, heads=2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(4.0)
        model.get_input_embeddings().weight[thinking().convert_tokens_to_ids("<|e|>")] *= 16.0
    saving.save(model, thinking(), root / "sft" / "model")
    return Inputs(root / "worlds", root / "sft", "retail")


class Watched:
    """An engine of which it is written down what every conversation read."""

    elsewhere = False

    def __init__(self, seen: dict[Any, list[list[int]]], model: Any, change: Any = None, **sizes: Any) -> None:
        self.engine, self.seen, self.change = own.opened(model, **sizes), seen, change
        self.rows, self.most = self.engine.rows, self.engine.most

    def submit(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> None:
        self.seen.setdefault((id(self), conversation), []).append(list(ids))
        self.engine.submit(conversation, self.change(ids) if self.change else ids, sampling)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def test_a_row_by_hand() -> None:
    turns = [
        {"prompt_ids": [1, 2], "ids": [3], "logprobs": [-0.5], "first": True},
        {"prompt_ids": [1, 2, 9, 4], "ids": [5, 6], "logprobs": [-1.0, -2.0], "first": True},
    ]
    batch = collate([Row(turns, 1.0), Row(turns[:1], 0.0)], 0, 0, 1, ())
    assert batch.ids.tolist() == [[1, 2, 3, 1, 2, 9, 4, 5, 6], [1, 2, 3, 0, 0, 0, 0, 0, 0]]
    assert batch.sequences.tolist() == [[1, 1, 1, 2, 2, 2, 2, 2, 2], [1, 1, 1, 0, 0, 0, 0, 0, 0]]
    assert batch.mask.tolist() == [[1, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0]]
    assert batch.turns.tolist() == [[0, -1, -1, -1, -1, 1, 1], [0, -1, -1, -1, -1, -1, -1]]
    begun = batch.rows[0].after(7)
    assert [turn["prompt_ids"] for turn in begun.turns] == [[7, 1, 2], [7, 1, 2, 9, 4]]


def test_each_turn_is_scored_behind_its_own_prompt_and_nothing_else() -> None:
    import torch

    model = tiny.model(loudness=1.0)
    turns = [
        {"prompt_ids": [11, 12, 13], "ids": [14, 15], "logprobs": [0.0] * 2, "first": True},
        {"prompt_ids": [11, 12, 13, 99, 20], "ids": [21], "logprobs": [0.0], "first": True},
        {"prompt_ids": [22, 23], "ids": [24, 25], "logprobs": [0.0] * 2},  # goes on from the turn before
    ]
    batch = collate([Row(turns, 1.0), Row(turns[1:2], 1.0)], 0, 0, 1, ())
    found = score(model, batch.ids, batch.sequences, batch.mask, 1.0)[0]
    for row, columns, ids, places in (
        (0, [0, 1], [11, 12, 13, 14, 15], [3, 4]),
        (0, [7, 10, 11], [11, 12, 13, 99, 20, 21, 22, 23, 24, 25], [5, 8, 9]),
        (1, [0], [11, 12, 13, 99, 20, 21], [5]),
    ):
        full = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
        wanted = torch.stack([full[place - 1, ids[place]] for place in places])
        assert torch.allclose(found[row, columns], wanted, atol=1e-5)
    assert int((found != 0).sum()) == 6


def conversations(whole: bool) -> list[Row]:
    """Seven conversations of 1 to 4 turns in two groups, as one sequence each or with every turn behind its whole prompt."""
    rng = random.Random(0)
    rows = []
    for index in range(7):
        before: list[int] = []
        turns: list[dict[str, Any]] = []
        for number in range(1 + index % 4):
            read = [rng.randint(5, 300) for _ in range(6 if not number else rng.randint(1, 4))]
            own = [rng.randint(5, 300) for _ in range(rng.randint(1, 5))]
            prompt = read if whole else [*before, *read]
            logprobs = [-rng.uniform(4.5, 7.0) for _ in own]
            turns.append({"prompt_ids": prompt, "ids": own, "logprobs": logprobs, "first": not whole or not number})
            before += [*read, *own]
        rows.append(Row(turns, rng.random(), group=index // 4, trains=index != 4))
    return rows


class PerRow(Grpo):
    """DeepSeekMath's mean of means: a conversation counts the same whatever its length."""

    def divisor(self, batch: Batch) -> Any:
        return per_row(batch)


def learned(rows: Sequence[Row], hooks: Hooks, lines: Lines) -> tuple[float, Any, int]:
    """(loss, gradient, passes) of one optimiser step, made as the loop makes it."""
    import torch

    model = tiny.model(loudness=1.0)
    batch = collate(rows, 0, 0, 1, ())
    advantages = torch.zeros(len(rows), 1)
    trains = torch.tensor([index for index, row in enumerate(rows) if row.trains])
    advantages[trains] = hooks.advantages(batch.take(trains))[:, None]
    batch = replace(batch, advantages=advantages)
    batch = replace(batch, divisor=hooks.divisor(batch).clamp(min=1))
    loss, passes = 0.0, 0
    for part in slices(torch.arange(len(rows)).split(1), batch, lines):
        logp, entropy = score(model, part.ids, part.sequences, part.mask, 1.0, lines=lines)
        one = part.mean(hooks.token_loss(Scored(logp, entropy), part))
        one.backward()
        loss, passes = loss + float(one), passes + 1
    return loss, torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]), passes


@pytest.mark.parametrize("method", [Grpo, PerRow])
@pytest.mark.parametrize("lines", [PADDED, Lines("none", 24), Lines("rows", 40), Lines("shared_prompt", 24)])
def test_by_turn_a_conversation_teaches_what_it_teaches_as_one_row(method: type[Grpo], lines: Lines) -> None:
    """Where the past stays as it is, turns behind their whole prompts have the loss and the gradient of the whole row: under a mean over
    tokens and under one over conversations, with the turns of one conversation in one pass or in several."""
    import torch

    hooks = method(params=Params())
    whole, gradient, _ = learned(conversations(whole=True), hooks, PADDED)
    loss, found, passes = learned(conversations(whole=False), hooks, lines)
    assert loss == pytest.approx(whole, abs=1e-6) and abs(whole) > 1e-3
    assert torch.allclose(found, gradient, atol=1e-6) and float(gradient.abs().max()) > 1e-3
    assert passes == 1 if lines == PADDED else passes > 2


def test_a_conversation_that_is_larger_than_a_pass_is_passed_by_its_turns() -> None:
    """By hand: the sequences have 7, 10 and 13 tokens; 20 hold two of them padded to 10. A method of whole conversations keeps them."""
    import torch

    turns = [{"prompt_ids": [9] * size, "ids": [5], "logprobs": [0.0], "first": True} for size in (6, 9, 12)]
    batch = collate([Row(turns, 1.0)], 0, 0, 1, ())
    unit = [torch.tensor([0])]
    parts = list(slices(unit, batch, Lines("none", 20)))
    assert [part.turns[part.mask > 0].tolist() for part in parts] == [[0, 1], [2]]
    assert (sum(part.mask for part in parts) == batch.mask).all()
    with pytest.raises(StageFailed, match=r"holds some of the turns of one .pass_tokens.*whole_rows"):
        parts[0].per_row(parts[0].engine_logp)
    for how in ({"lines": Lines("none", 20), "whole_rows": True}, {"lines": PADDED}, {"lines": Lines("none", 39)}):
        (one,) = slices(unit, batch, **how)  # type: ignore[arg-type]
        assert one.whole and one.mask.equal(batch.mask)


class WholePrompts:
    """A way of acting whose player goes on from what was said, told as if every turn had read all of it anew."""

    def __init__(self, player: Any) -> None:
        self.player, self.name, self.capacity = player, player.name, player.capacity
        self.before: dict[str, list[int]] = {}
        self.send = player.send

    def poll(self) -> list[tuple[str, Any]]:
        found = []
        for name, turn in self.player.poll():
            prompt = [*self.before.get(name, ()), *turn.prompt_ids]
            self.before[name] = [*prompt, *turn.ids]
            found.append((name, replace(turn, prompt_ids=prompt, first=True)))
        return found

    def close(self, conversation: str) -> None:
        self.before.pop(conversation, None)
        self.player.close(conversation)


def test_a_run_by_turn_is_the_run_in_whole_rows(tmp_path: Path) -> None:
    """Two steps of the loop over conversations that are played alike: the same figures, and the same weights up to rounding."""
    import torch
    from safetensors.torch import load_file

    start = frozen(tmp_path)
    loop = SHORT.model_copy(update={"max_episode_tokens": 200})
    found = []
    for name, more in (("whole", {}), ("turns", {"way": WholePrompts})):
        told: dict[str, list[float]] = {}
        ctx = context(tmp_path / name, log=lambda key, value, _, told=told: told.setdefault(key, []).append(value), **more)
        figures = run(start, loop, Brief(params=Params()), ctx)
        found.append((figures, told, load_file(tmp_path / name / "out/model/model.safetensors")))
    (whole, lines, weights), (turns, others, moved) = found
    assert turns["tokens_trained"] == whole["tokens_trained"] > 0 and turns["reward_last"] == whole["reward_last"]
    assert max(others["rl/mismatch_mean"]) < 1e-5 and max(others["rl/mismatch_turn"]) < 1e-5
    assert others["rl/entropy"] == pytest.approx(lines["rl/entropy"], rel=1e-4)
    assert all(torch.allclose(weights[name], moved[name], atol=1e-4) for name in weights)


def test_two_steps_by_turn_keep_what_the_engine_saw(inputs: Inputs, tmp_path: Path) -> None:
    """Each turn's prompt is the whole conversation as the template writes it now, the ids are those that the engine read, the mask holds
    what it said, and the cache is used where a prompt begins as the one before."""
    seen: dict[Any, list[list[int]]] = {}
    engines: list[Watched] = []
    batches: list[Batch] = []
    played: list[Played] = []

    class Sees(Brief):
        def converse(self, *arguments: Any) -> list[Played]:
            found = super().converse(*arguments)
            played.extend(found)
            return found

        def advantages(self, batch: Batch) -> Any:
            batches.append(batch)
            return super().advantages(batch)

    def engine(model: Any, **sizes: Any) -> Engine:
        engines.append(Watched(seen, model, **sizes))
        return engines[-1]  # type: ignore[return-value]

    told: dict[str, list[float]] = {}
    ctx = context(
        tmp_path,
        of_checkpoint=partial(CheckpointAgent, engine=engine),
        log=lambda name, value, _: told.setdefault(name, []).append(value),
    )
    loop = Loop(**{**SHORT.model_dump(), "max_episode_tokens": 300, "pass_tokens": 400, "packing": "shared_prompt"})
    figures = run(inputs, loop, Sees(params=Params()), ctx)
    assert figures["steps"] == 2 and figures["tokens_trained"] > 0 and len(batches) == 2
    assert 0 < max(told["rl/mismatch_turn"]) < 1e-4
    assert (tmp_path / "out/model/model.safetensors").read_bytes() != (inputs.sft / "model/model.safetensors").read_bytes()

    chat, tokenizer = kept.chat_of(thinking()), thinking()
    assert chat.form == BY_TURN
    system = system_message(world(), NO_PROMPT)
    submitted = [tuple(ids) for turns in seen.values() for ids in turns]
    several = [one.talk for one in played if len(one.talk.turns) > 1]
    assert len(several) > 3
    for talk in several:
        spoke = [place for place, message in enumerate(talk.messages) if message["role"] == "assistant"]
        for place, turn in zip(spoke, talk.turns, strict=False):
            assert turn["first"] and turn["prompt_ids"] == chat.prompt_ids(tokenizer, system, talk.messages[:place])
            assert tuple(turn["prompt_ids"]) in submitted
        assert tokenizer.decode(talk.turns[1]["prompt_ids"]).count("<think></think>") == 1, "the past has lost its thought"
    for batch in batches:
        for number, row in enumerate(batch.rows):
            own = batch.mask[number] > 0
            assert batch.ids[number, -batch.mask.shape[1] :][own].tolist() == [token for turn in row.turns for token in turn["ids"]]
            assert batch.sequences[number].max() == len(row.turns)
    read = sum(one.engine.counts["read"] for one in engines)
    assert read < 0.8 * sum(map(len, submitted)), "what two prompts begin with is read once"


def test_a_stored_conversation_must_say_which_prompts_are_whole(inputs: Inputs, tmp_path: Path) -> None:
    class Stored(Brief):
        def stored_rows(self, *_: Any) -> Sequence[Row]:
            turn = {"prompt_ids": [1, 2], "ids": [3], "logprobs": [-1.0]}
            return [Row([turn, turn], 1.0)]

    with pytest.raises(StageFailed, match=r"holds by turn, and a stored row .* `first` in each turn"):
        run(inputs, SHORT, Stored(params=Params(), plays=False), context(tmp_path))


def test_an_engine_that_reads_another_past_is_found_in_the_later_turns(inputs: Inputs, tmp_path: Path) -> None:
    """The first prompt is right; in later ones the engine keeps the thought that the template drops."""
    mark = thinking().convert_tokens_to_ids("<|a|>")
    thought = thinking()("<think></think>", add_special_tokens=False)["input_ids"]

    def remembers(ids: Sequence[int]) -> list[int]:
        places = [place for place, token in enumerate(ids) if token == mark]
        if len(places) < 2:
            return list(ids)
        return [*ids[: places[0] + 1], *thought, *ids[places[0] + 1 :]]

    ctx = context(tmp_path, of_checkpoint=partial(CheckpointAgent, engine=partial(Watched, {}, change=remembers)))
    loop = SHORT.model_copy(update={"max_episode_tokens": 300})
    with pytest.raises(StageFailed, match=r"are not the trainer's.* in the mean \d\.?\d*e-\d+ in turn 1, \d\.\d+ in turn 2"):
        run(inputs, loop, Brief(params=Params()), ctx)
