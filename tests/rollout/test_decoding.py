"""Generation with a cache that lives across turns says what the plain forward pass says, whatever rows are shared or
moved."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.contract.agent import Turn
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local.sampling import choose, uniforms
from tests.playing import checkpoint_agent
from tests.rollout import tiny

PROMPT = {"tools": "none", "policy": "none"}
WORLD: Any = SimpleNamespace(name="retail", policy="", tools={})


def talk(agent: CheckpointAgent, jobs: int) -> dict[str, list[Turn]]:
    """Conversations of 1 to 5 turns whose lengths depend on their number alone; rows are refilled as they fall free."""
    said: dict[str, list[Turn]] = {}
    texts: dict[str, list[dict[str, Any]]] = {}
    todo = list(range(jobs))
    while todo or texts:
        while todo and len(texts) < agent.capacity:
            key = str(todo.pop(0))
            said[key] = []
            texts[key] = [{"role": "user", "content": "Hello " + "order " * random.Random(key).randint(0, 9)}]
            agent.send(key, texts[key], WORLD, int(key) + 7)
        for key, turn in agent.poll():
            said[key].append(turn)
            texts[key].append(turn.message)
            if len(said[key]) > random.Random(f"turns {key}").randint(0, 4) or not turn.ids:
                agent.close(key)
                del texts[key]
            else:
                words = random.Random(f"{key} {len(said[key])}").randint(1, 12)
                texts[key].append({"role": "user", "content": "please " * words})
                agent.send(key, texts[key], WORLD, 100 * int(key) + len(said[key]))
    return said


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logits_equal_the_plain_forward_for_all_rows_after_refills(temperature: float) -> None:
    """40 conversations share 6 rows, so that each row is refilled about six times.

    By hand: a conversation that read (a, b), said (c, d), read (e) and said (f) is the sequence a b c d e f; the
    log-probabilities recorded for c, d and f must be those which one pass over the sequence gives at the positions of b, c
    and e.
    """
    import torch

    model = tiny.model()
    agent = checkpoint_agent(model, tiny.tokenizer(), PROMPT, rows=6, temperature=temperature, max_turn_tokens=7)
    for turns in talk(agent, 40).values():
        ids: list[int] = []
        places: list[int] = []
        for turn in turns:
            ids += turn.prompt_ids
            places += range(len(ids), len(ids) + len(turn.ids))
            ids += turn.ids
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        logp = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
        found = [value for turn in turns for value in turn.logprobs]
        assert [float(logp[at - 1, ids[at]]) for at in places] == pytest.approx(found, abs=1e-4)
        if not temperature:
            assert [int(logits[at - 1].argmax()) for at in places] == [ids[at] for at in places]


def test_the_noise_does_not_depend_on_who_finished_first() -> None:
    few = checkpoint_agent(tiny.model(), tiny.tokenizer(), PROMPT, rows=3, temperature=1.0, max_turn_tokens=9)
    many = checkpoint_agent(tiny.model(), tiny.tokenizer(), PROMPT, rows=24, temperature=1.0, max_turn_tokens=9)
    one, other = talk(few, 24), talk(many, 24)
    assert {key: [list(turn.ids) for turn in turns] for key, turns in one.items()} == {
        key: [list(turn.ids) for turn in turns] for key, turns in other.items()
    }


def test_caps_end_a_conversation_as_max_tokens() -> None:
    agent = checkpoint_agent(tiny.model(), tiny.tokenizer(), PROMPT, rows=2, max_turn_tokens=5, max_episode_tokens=64)
    agent.send("long", [{"role": "user", "content": "order " * 200}], WORLD, 1)
    agent.send("short", [{"role": "user", "content": "Hello"}], WORLD, 2)
    turns = dict(agent.poll())
    while "short" not in turns:
        turns |= dict(agent.poll())
    assert turns["long"].error == "max_tokens" and not turns["long"].ids
    assert turns["short"].error == "max_tokens" and len(turns["short"].ids) == 5


def test_choose_inverts_the_cdf() -> None:
    """By hand: probabilities (0.5, 0.25, 0.25) cumulate to 0.5, 0.75, 1; the uniforms 0.49, 0.51, 0.76 choose 0, 1, 2. At
    temperature 0 the largest logit is chosen whatever the uniform, with its log-probability at temperature 1, log 0.5."""
    import torch

    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]] * 4))
    ids, logp = choose(logits, np.array([1, 1, 1, 0], dtype=np.float32), np.array([0.49, 0.51, 0.76, 0.99]))
    assert ids.tolist() == [0, 1, 2, 0]
    assert logp.tolist() == pytest.approx(np.log([0.5, 0.25, 0.25, 0.5]).tolist())


def test_choose_never_takes_a_token_of_probability_zero() -> None:
    import torch

    logits = torch.tensor([[0.0, 0.0, -float("inf")]] * 2)
    ids, _ = choose(logits, np.ones(2, dtype=np.float32), np.array([1 - 2.0**-53, 0.0]))
    assert ids.tolist() == [1, 0]


def test_uniforms_are_uniform_and_keyed() -> None:
    """The first output of SplitMix64 with seed 0 is 0xE220A8397B1DCDAF (the reference implementation's); as a number:
    0.8833..."""
    zero = np.zeros(1, dtype=np.uint64)
    assert uniforms(zero, zero)[0] == (0xE220A8397B1DCDAF >> 11) * 2.0**-53
    many = uniforms(np.full(20_000, 5, dtype=np.uint64), np.arange(20_000, dtype=np.uint64))
    assert abs(many.mean() - 0.5) < 0.01 and abs(np.corrcoef(many[1:], many[:-1])[0, 1]) < 0.03
