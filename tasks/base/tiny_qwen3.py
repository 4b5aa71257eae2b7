"""Builds a tiny Qwen3 that speaks no language yet but has learned to look back: the base of an offline road.

A model from random weights does not learn to copy identifiers (order ids, prices, names) by fine-tuning in minutes. So it is
first trained on next-token loss over random token segments that recur, each cued by its first token: only attention to what
came before can predict them (induction heads, https://arxiv.org/abs/2209.11895). The initial weights decide whether that
takes seconds or minutes; they follow the idea of https://arxiv.org/abs/2305.09828, "Mimetic Initialization of Self-Attention
Layers": start with products of projections that trained models end in (value-output as a scaled orthogonal map, query-key as
a near-identity). The tokenizer is a byte-level BPE trained on conversations of the train split, played by the scripted
roles. A world without scripts (an API that was adapted) has nobody to play them: there it reads what every agent of the world
will read and write, the policy, the tools' schemas, calls of these tools, and rows of train users as the world shows them to a
generator; not how people talk, whose words are then cut into smaller pieces. No tool is called for it.

Departures:
1. The paper takes its products from trained models' statistics by singular value decomposition; here they are exact.
2. Half of the first layer's heads start as previous-token heads: all embedding rows share one direction (Qwen3 has no
   attention bias, so without it no head can attend by position alone), which queries and keys read, one position apart.
3. The first layer writes through a rotation of its own, and later layers' keys undo it: "the token before me" and "this
   token" do not mix. With these, the loss jumps within 40 steps; with random weights it takes about 450.
4. The MLPs and the other projections start as usual (normal, 0.02), and the training is ours: no step count is the papers'.

Cost: steps x batch x length tokens, forward and backward; about 37 s on one thread for the default.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tasks.base import Inputs
from tasks.base.core.looking_back import look_back
from tasks.chat import proof
from tasks.chat.local import kept, qwen3_instruct
from tasks.checkpoints import saving, tiny
from tasks.contract.client import Message
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.params import Params as Base
from tasks.players.client_agent import ClientAgent
from tasks.players.scripts import people
from tasks.worlds.api.frozen import load_all
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems, user_context
from tasks.worlds.api.system_prompt import system_message, tools_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tasks.worlds.api.runtime import World

TITLE = "Tiny Qwen3 that can look back"
PAPER = "https://arxiv.org/abs/2305.09828"
SLUG = ""

GROUPS = 3
"""How often the tokenizer sees each group of digits; ours: enough to become a token, after the words of the worlds."""
MAX_NORM = 1.0
"""Gradients are clipped to this norm, the usual value."""


class Params(Base):
    """What is built and how long it practises."""

    layers: int = Field(2, ge=2, le=16, description="transformer layers; looking back needs two; ours")
    width: int = Field(128, ge=32, le=1024, description="hidden size, a multiple of heads; ours")
    heads: int = Field(4, ge=2, le=32, description="attention heads; ours: 32 dimensions a head")
    vocab: int = Field(2304, ge=300, le=65536, description="tokens in the vocabulary at most; ours")
    corpus_dialogues: int = Field(400, ge=2, le=100_000, description="conversations a world that the tokenizer sees; ours")
    steps: int = Field(200, ge=1, le=100_000, description="optimiser steps; ours: the loss falls below 0.1")
    batch: int = Field(32, ge=1, le=4096, description="sequences a step; ours")
    length: int = Field(96, ge=16, le=tiny.CONTEXT, description="tokens a sequence; ours")
    segments: int = Field(6, ge=1, le=64, description="different segments in a sequence; ours")
    shortest: int = Field(2, ge=2, le=64, description="tokens of the shortest segment; ours")
    longest: int = Field(8, ge=2, le=64, description="tokens of the longest segment; ours")
    learning_rate: float = Field(3e-3, gt=0, le=0.1, description="AdamW's peak rate, falling linearly to 0; ours")
    warmup: int = Field(10, ge=0, le=10_000, description="steps of linear warm-up; ours")
    log_every: int = Field(10, ge=1, le=1000, description="steps between points of the curve")
    save_every: int = Field(50, ge=1, le=10_000, description="steps between resume states")


def check(params: Params) -> None:
    """Raise BadInput for shapes that make no model."""
    if params.width % (2 * params.heads):
        raise BadInput(
            f"width {params.width} is not a multiple of twice the heads ({params.heads}); rotary positions need heads of even width."
        )
    if params.longest < params.shortest or params.longest * 2 > params.length:
        raise BadInput(
            f"segments of {params.shortest} to {params.longest} tokens cannot recur in {params.length}; "
            "allowed: shortest <= longest <= length / 2."
        )


def config(params: Params) -> dict[str, Any]:
    """What config.json will say of the model's shape, at most; for a forecast, before it is built."""
    return {"model_type": "qwen3", **tiny.sizes(params.vocab, params.layers, params.width, params.heads)}


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Build the tokenizer, initialise, practise; leaves model/ and curves.csv (step, loss on recurring tokens, nats)."""
    import torch

    torch.set_num_threads(ctx.threads)
    texts, words = corpus(inputs.worlds, params.corpus_dialogues, ctx)
    tokenizer = tiny.build_tokenizer(texts, params.vocab, words)
    proof.prove(tokenizer, kept.QWEN3_INSTRUCT, proof.FIRST_LOOK)
    torch.manual_seed(ctx.seed_for("weights"))
    model = tiny.tiny_qwen3(tokenizer, params.layers, params.width, params.heads)
    with torch.no_grad():
        look_back(model)
    model.to(ctx.device)
    curve = _practise(model, params, ctx)
    saving.save(model, tokenizer, ctx.out / "model")
    with (ctx.out / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("step", "loss"), *curve])
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": len(tokenizer),
        "corpus_texts": len(texts),
        "data_words": len(words),
        "steps": params.steps,
        "first_loss": curve[0][1],
        "final_loss": curve[-1][1],
    }


def corpus(worlds: Path, dialogues: int, ctx: Context) -> tuple[list[str], set[str]]:
    """Texts of the worlds' language and the words of their data: train-split conversations between the scripted roles,
    without planted errors, or what is read and written in a world that has no scripts.

    And every group of two digits, so that an id that nobody has seen is cut like the seen ones.
    """
    groups = [f"{number:02d}" for number in range(100)]
    texts, words = [" ".join(groups)] * GROUPS, set[str]()
    for world in load_all(worlds).values():
        system, tools = system_message(world, ctx.prompt), tools_of(world, ctx.prompt)
        for messages in _played_by_scripts(world, dialogues, ctx) if world.scripts else _made_of_rows(world, dialogues, ctx):
            texts += tiny.language(system, messages, tools)
            words |= tiny.data_words(messages)
    return texts, words


def _played_by_scripts(world: World, dialogues: int, ctx: Context) -> Iterator[Sequence[Message]]:
    """Conversations between the world's scripted roles."""
    jobs = [(problem, 0) for problem in draw_problems(world, "train", dialogues, ctx.seed_for("corpus", world.name))]
    human = people.client("human", world, {}, ctx.seed)
    agent = ClientAgent(people.client("agent", world, {}, ctx.seed), ctx.prompt)
    for played in play(world, jobs, agent, human, seed=ctx.seed_for("corpus")):
        yield played.messages


def _made_of_rows(world: World, dialogues: int, ctx: Context) -> Iterator[list[Message]]:
    """What stands in for conversations: the policy and each tool's schema once, then one call a dialogue, whose arguments and answer
    are values of what a generator is shown of a train user."""
    yield [{"role": "user", "content": text} for text in (world.policy, *(json.dumps(one) for one in world.schemas()))]
    tools = list(world.tools.values())
    for place in range(dialogues):
        rng = ctx.rng("corpus", world.name, place)
        data = {key: value for key, value in user_context(world, rng, "train").items() if key not in ("world", "split", "given")}
        tool, values = tools[place % len(tools)], list(_leaves(data))
        function = {"name": tool.name, "arguments": {name: rng.choice(values) for name in tool.parameters.get("properties", {})}}
        yield [
            {"role": "user", "content": str(data["persona"])},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "call_0", "name": tool.name, "content": json.dumps(data, ensure_ascii=False)},
        ]


def _leaves(value: Any) -> Iterator[Any]:
    """The single values in nested JSON; the keys of objects, which often are ids, among them."""
    if isinstance(value, dict):
        yield from value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _leaves(part)
    if not isinstance(value, dict | list):
        yield value


def recurring(params: Params, vocab: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch of recurring segments: ids (b, t) and predictable (b, t), true where a segment seen before in its row goes
    on.

    Each row has `segments` random segments of one random length, in random order, each as often as chance has it.
    """
    import torch

    b, t = params.batch, params.length
    lengths = torch.randint(params.shortest, params.longest + 1, (b, 1), generator=generator)
    pool = torch.randint(len(qwen3_instruct.SPECIALS), vocab, (b, params.segments, params.longest), generator=generator)
    order = torch.randint(0, params.segments, (b, t), generator=generator)
    position = torch.arange(t).expand(b, t)
    slot, offset = position // lengths, position % lengths
    ids = pool[torch.arange(b)[:, None], order.gather(1, slot), offset]
    seen = (order[:, :, None] == order[:, None, :]).tril(-1).any(-1)
    return ids, seen.gather(1, slot) & (offset > 0)


def _loss(model: PreTrainedModel, ids: torch.Tensor, predictable: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss (nats) over the predictable tokens; logits are computed only there."""
    import torch

    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = predictable[:, 1:]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), ids[:, 1:][wanted])


def _rate(params: Params, step: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then linear to 0."""
    return params.learning_rate * min(1.0, (step + 1) / (params.warmup + 1)) * (1 - step / params.steps)


def _practise(model: PreTrainedModel, params: Params, ctx: Context) -> list[tuple[int, float]]:
    """Train in place; a killed run goes on from the last state in ctx.scratch. Returns (step, loss) points."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, weight_decay=0.0, fused=True)
    done, curve = _resume(ctx.scratch / "practice.pt", model, optimizer)
    model.train()
    for step in range(done, params.steps):
        generator = torch.Generator().manual_seed(ctx.seed_for("segments", step))
        ids, predictable = recurring(params, model.config.vocab_size, generator)
        loss = _loss(model, ids.to(ctx.device), predictable.to(ctx.device))
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            raise StageFailed(
                f"base: step {step + 1} of {params.steps}: the loss is {loss.item():g}, the gradient's norm {norm.item():g}. "
                f"Lower learning_rate ({params.learning_rate:g})."
            )
        for group in optimizer.param_groups:
            group["lr"] = _rate(params, step)
        optimizer.step()
        if (step + 1) % params.log_every == 0 or step in (0, params.steps - 1):
            curve.append((step + 1, round(loss.item(), 6)))
            ctx.log("loss", curve[-1][1], step + 1)
            ctx.progress(step + 1, params.steps, f"loss {loss.item():.3f}")
        if (step + 1) % params.save_every == 0:
            _keep(ctx.scratch / "practice.pt", model, optimizer, step + 1, curve)
    return curve


def _keep(path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, step: int, curve: list[tuple[int, float]]) -> None:
    """Write the resume state beside `path`, then rename: a kill leaves the old one or the new one, never half of one."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "curve": curve}
    torch.save(state, path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def _resume(path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> tuple[int, list[tuple[int, float]]]:
    """The steps already done and their curve, with model and optimiser set to that state; (0, []) for a fresh start."""
    import torch

    if not path.is_file():
        return 0, []
    state = torch.load(path, map_location=model.device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], [(step, loss) for step, loss in state["curve"]]
