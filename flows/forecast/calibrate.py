"""The measurement behind `cairn forecast --calibrate`, a process of its own: random weights of the checkpoint's widths, two layers.

python -m flows.forecast.calibrate SPEC    # of `speed.Measured`; prints one line of JSON, FLOP a second by kind of work
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

from flows.forecast import work
from flows.forecast.shape import Shape
from flows.forecast.speed import Measured

LAYERS, VOCABULARY = 2, 4096
"""Enough to see a layer's speed; a real vocabulary would hide it."""
ROWS, PRODUCED = 16, 24
"""Conversations at once, and tokens of each."""
TIMES = 3
"""Measurements of each kind, of which the median counts; one before them is not counted."""


def model_of(shape: Shape) -> Any:
    """A Llama of these widths with random weights, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.size,
            intermediate_size=shape.inner,
            vocab_size=shape.vocabulary,
            tie_word_embeddings=True,
            max_position_embeddings=4096,
        )
    )


def seconds(once: Callable[[], None]) -> float:
    """The median time of one call."""
    once()
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        once()
        found.append(time.perf_counter() - began)
    return median(found)


def train(what: Measured, ids: Any) -> float:
    """FLOP a second of a forward and a backward pass."""
    import torch

    from tasks.training import fitting

    model = model_of(what.shape).to(what.device)
    if what.adapter:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=what.adapter, target_modules="all-linear", task_type="CAUSAL_LM"))
    dtype: fitting.Dtype = "bfloat16" if what.bfloat16 else "float32"
    fitting.narrow(model, dtype)

    def once() -> None:
        with fitting.autocast(what.device, dtype):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        model.zero_grad()
        float(loss)  # waits for a GPU

    torch.manual_seed(0)
    flop = work.training(what.shape, ids.numel(), ids.shape[1], ids.numel(), bool(what.adapter), False)
    return flop / seconds(once)


def play(what: Measured, ids: Any) -> tuple[float, float]:
    """FLOP a second of reading prompts and of producing tokens, by the engine `own`."""
    from tasks.contract.generation import Sampling
    from tasks.players.local import own

    model = model_of(what.shape).to(what.device).eval()
    prompts = ids.tolist() * (ROWS // len(ids) + 1)

    def turns(produced: int) -> Callable[[], None]:
        def once() -> None:
            engine = own.opened(model, rows=ROWS, most=ids.shape[1] + PRODUCED + 1)
            for row in range(ROWS):
                engine.submit(str(row), [row, *prompts[row][1:]], Sampling(row, 1.0, produced, ()))
            done = 0
            while done < ROWS:
                done += len(engine.poll())

        return once

    shape, length = what.shape, ids.shape[1]
    reading = seconds(turns(1))
    producing = max(1e-9, seconds(turns(PRODUCED)) - reading)
    read = work.forward(shape, ROWS * length, length, ROWS)
    return read / reading, work.producing(shape, ROWS * (PRODUCED - 1), length) / producing


def main(spec: str) -> None:
    """Measure and print."""
    said = json.loads(spec)
    shape = replace(Shape(**said["shape"]), layers=LAYERS, vocabulary=VOCABULARY, tied=True)
    what = Measured(**{**said, "shape": shape})
    import torch

    torch.set_num_threads(what.threads)
    ids = torch.randint(1, VOCABULARY, (2, what.context), device=what.device)
    read, produce = play(what, ids)
    print(json.dumps({"train": train(what, ids), "read": read, "produce": produce}))


if __name__ == "__main__":
    main(sys.argv[1])
