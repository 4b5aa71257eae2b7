"""The measurement behind `cairn forecast --calibrate`, a process of its own: the checkpoint, or random weights of its sizes, trains and
plays as a stage does, in conversations of the road's lengths.

python -m flows.forecast.calibrate SPEC    # of `speed.Speeds`; prints one line of JSON, FLOP and tokens a second by kind of work
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.forecast import work
from flows.forecast.shape import Shape
from flows.forecast.speed import Lengths, Plays, Trains, Way

MOST_PARAMETERS = 1_000_000_000
"""Of random weights: of larger models as many layers as this allows, since a layer's speed is seen in a few."""
LEARNED = 0.5
"""Share of the tokens behind the prompt that train, where a pass is measured; their logits are few beside the layers."""

Speed = tuple[float, float]
"""FLOP a second, tokens a second."""


def sized(shape: Shape) -> Shape:
    """Of a very large model as many layers as are measured."""
    layer = shape.matrices // shape.layers
    return replace(shape, layers=max(1, min(shape.layers, (MOST_PARAMETERS - shape.table) // layer)))


def model_of(way: Way, checkpoint: Path | None) -> Any:
    """The checkpoint, or a Llama of these sizes with random weights; in float32, with a LoRA adapter where one trains or plays."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tasks.checkpoints import folders

    shape = way.shape
    if checkpoint:
        model: Any = folders.load_model(checkpoint, way.device)
    else:
        config = LlamaConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.size,
            intermediate_size=shape.inner,
            vocab_size=shape.vocabulary,
            tie_word_embeddings=shape.tied,
            max_position_embeddings=max(shape.context, way.talk.whole + 1),
        )
        torch.manual_seed(0)
        with torch.device(way.device):
            model = LlamaForCausalLM(config)
        model = model.bfloat16().float() if shape.stored == 2 else model
    if way.adapter:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=way.adapter, lora_dropout=getattr(way.work, "dropout", 0.0), target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, config)
    return model


def train(way: Way, how: Trains, checkpoint: Path | None = None) -> dict[str, Speed]:
    """Forward and backward passes over as many rows as the loop passes at once, twice; the second counts."""
    from tasks.contract.computed import TOKENS
    from tasks.sft.core.data import IGNORED, Row, collate
    from tasks.sft.core.params import Loop
    from tasks.sft.core.passes import parts
    from tasks.sft.core.scoring import prepare_scoring, tokens_of
    from tasks.training import fitting, packs

    model = prepare_scoring(model_of(way, checkpoint)).train()
    loop = Loop(dtype=way.dtype, pass_tokens=how.tokens, packing=how.packing, batch_tokens=max(16, how.tokens))
    fitting.narrow(model, loop.dtype)
    if how.checkpointing:
        fitting.checkpoint(model, "sft")
    if how.packing != "none":
        packs.prepare_model(model, way.talk.whole, "sft")
    rng, talk, rest = random.Random(0), way.talk, way.talk.whole - way.talk.shared
    shared = talk.shared if how.packing == "shared_prompt" else 0
    prompt = [rng.randrange(1, way.shape.vocabulary) for _ in range(talk.shared)]
    rows = []
    for number in range(max(1, (how.tokens - shared) // (talk.whole - shared))):
        own = [rng.randrange(1, way.shape.vocabulary) for _ in range(rest)]
        learned = [token if at >= LEARNED * rest else IGNORED for at, token in enumerate(own)]
        rows.append(Row(f"{number}", prompt + own, [IGNORED] * talk.shared + learned, 1.0))
    batch = {name: value.to(way.device) for name, value in collate(rows, 0).items()}
    passes = parts(batch, loop)

    def once() -> None:
        TOKENS.clear()
        for one in passes:
            with fitting.autocast(way.device, loop.dtype):
                loss = tokens_of(model, one).nll.sum()
            loss.backward()
            float(loss)  # waits for a GPU

    once()
    seconds = timed(once)
    tokens = TOKENS["trained"]
    seen = work.seen(talk.whole, talk.shared, how.packing)
    scored = len(rows) * LEARNED * rest
    return {"train": (work.training(way.shape, tokens, seen, scored, bool(way.adapter), how.checkpointing) / seconds, tokens / seconds)}


def play(way: Way, how: Plays, checkpoint: Path | None = None) -> dict[str, Speed]:
    """Conversations as the road has them, turn by turn: a prompt that all share is read, then each reads and produces. Lengths of turns
    differ, so that rows end at different times. What it takes to read between turns is in the speed of producing."""
    import torch

    from tasks.checkpoints.adapters import active_adapter
    from tasks.engine import methods
    from tasks.players.local.generation import Sampling

    model = model_of(way, checkpoint).eval()
    if not way.adapter:
        model = model.to(getattr(torch, way.dtype))
    elif way.dtype == "bfloat16":
        from tasks.training import fitting

        fitting.narrow(model, "bfloat16")
    opened, worn = methods.engine_module(how.engine).opened, active_adapter(model)
    rng, talk = random.Random(0), way.talk

    def some(count: int) -> list[int]:
        return [rng.randrange(1, way.shape.vocabulary) for _ in range(count)]

    def lasting(most: int) -> int:
        return rng.randint(max(1, most // 2), max(1, most + most // 2))

    prompt = some(talk.shared)

    def conversations(turns: int, own: int) -> tuple[float, Any]:
        """Seconds, and the engine's counts."""
        engine = opened(model, rows=how.active, most=talk.shared + 2 * (talk.whole - talk.shared) + 16)
        ids = {str(row): prompt + some(talk.read) for row in range(how.active)}
        left = dict.fromkeys(ids, turns)

        def submit(name: str) -> None:
            engine.submit(name, ids[name], Sampling(int(name), 1.0, lasting(own) if own > 1 else 1, (), worn))

        def run() -> None:
            for name in ids:
                submit(name)
            while any(left.values()):
                for made in engine.poll():
                    name = made.conversation
                    left[name] -= 1
                    ids[name] = [*ids[name], *made.ids, *some(talk.read)]
                    if left[name]:
                        submit(name)

        return timed(run), dict(engine.counts)

    prompt, whole = prompt[: 64 + 1], prompt
    conversations(1, 2)  # the first kernels of a process are slow
    prompt = whole
    seconds, counts = conversations(1, 1)
    flop = work.forward(way.shape, counts["read"], 2 * talk.whole, how.active)
    reading = flop / seconds
    more, total = conversations(talk.turns, talk.own)
    read = work.forward(way.shape, total["read"], 2 * talk.whole, how.active * talk.turns)
    producing = max(1e-9, more - read / reading)
    flop = work.producing(way.shape, total["produced"], talk.whole)
    return {"read": (reading, counts["read"] / seconds), "produce": (flop / producing, total["produced"] / producing)}


def timed(run: Callable[[], None]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main(text: str) -> None:
    """Measure and print."""
    spec = json.loads(text)
    about, checkpoint = spec["way"], Path(spec["checkpoint"]) if spec["checkpoint"] else None
    shape, talk = Shape(**about["shape"]), Lengths(**about["talk"])
    how = Plays(**about["work"]) if "rows" in about["work"] else Trains(**about["work"])
    way = Way(**{**about, "shape": shape if checkpoint else sized(shape), "talk": talk, "work": how})
    import torch

    torch.set_num_threads(way.threads)
    found = play(way, how, checkpoint) if isinstance(how, Plays) else train(way, how, checkpoint)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
