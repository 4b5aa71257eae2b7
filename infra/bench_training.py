"""Tokens a second of LoRA fine-tuning: the sft room's loop against a bare PEFT loop on the same rows, padded and in packs.

The model has SmolLM2-135M's shape and random weights, the rows a common system prompt and own tokens behind it, half of which train.
The bare loop is what PEFT's documentation shows: a padded batch, the model's own loss, AdamW. Tokens are those of the rows, however
they are passed, so that a pack's rate says what computing the prompt once is worth. Sides take turns; medians of the steps after the
first.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.bench import publish
from infra.checkpoints import SMOLLM2
from tasks.contract.context import Context
from tasks.engine.start import kernels
from tasks.sft.core.data import IGNORED, Row, collate
from tasks.sft.core.hooks import Hooks, Phase, Training
from tasks.sft.core.params import Loop
from tasks.training import fitting

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def model(shape: dict[str, Any], dtype: fitting.Dtype) -> PreTrainedModel:
    """Random weights as coarse as bfloat16, with a LoRA of rank 16 on every linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**shape)).bfloat16().float()
    made: PreTrainedModel = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    fitting.narrow(made, dtype)
    return made


def rows_of(count: int, prompt: int, own: int, vocab: int) -> list[Row]:
    """Rows of one prompt, with up to a fifth more or less behind it than `own` tokens."""
    rng = random.Random(0)
    first = [rng.randrange(vocab) for _ in range(prompt)]
    made = []
    for index in range(count):
        rest = [rng.randrange(vocab) for _ in range(rng.randint(own * 4 // 5, own * 6 // 5))]
        labels = [IGNORED] * (prompt + 8) + [token if at % 20 >= 10 else IGNORED for at, token in enumerate(rest[8:-1])] + rest[-1:]
        made.append(Row(f"r{index}", first + rest, labels, 1.0))
    return made


def bare(rows: Sequence[Row], steps: int, shape: dict[str, Any], dtype: fitting.Dtype, rate: float) -> list[float]:
    """Seconds of each step of a loop as PEFT's documentation shows it."""
    import torch

    trained = model(shape, dtype).train()
    optimizer = torch.optim.AdamW((weight for weight in trained.parameters() if weight.requires_grad), lr=rate)
    batch = collate(rows, 0)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        with fitting.autocast("cpu", dtype):
            loss = trained(input_ids=batch["input_ids"], labels=batch["labels"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds


def ours(rows: Sequence[Row], steps: int, shape: dict[str, Any], loop: Loop, folder: Path) -> list[float]:
    """Seconds of each step of the room's loop."""
    from tasks.checkpoints.tiny import build_tokenizer
    from tasks.sft.core.scoring import prepare_scoring
    from tasks.sft.core.trainer import Place, fit

    ends: list[float] = []
    ctx = Context(seed=0, out=folder, scratch=folder, log=lambda name, value, step: ends.append(time.perf_counter()))
    trained = prepare_scoring(model(shape, loop.dtype).train())
    training = Training(loop, list(rows), 0, ctx)
    phase = Phase("", [[list(range(len(rows)))]] * steps)
    fit(trained, build_tokenizer(["a b c"] * 20, 300), phase, training, [], Hooks(), None, Place(folder, 0, steps))
    return [later - before for before, later in itertools.pairwise(ends)]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="conversations a step")
    parser.add_argument("--prompt", type=int, default=304, help="tokens of the system prompt (a real one in full: 1670)")
    parser.add_argument("--own", type=int, default=96, help="tokens behind it (real: 530)")
    parser.add_argument("--steps", type=int, default=3, help="steps of a side and round; the first is not counted")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--instructions", choices=["avx2", "avx512_bf16"], default="avx2")
    asked = parser.parse_args()
    os.environ.update(kernels(asked.threads, asked.instructions))  # before torch loads
    import torch

    torch.set_num_threads(asked.threads)
    shape = {**SMOLLM2, "num_hidden_layers": asked.layers}
    rows = rows_of(asked.rows, asked.prompt, asked.own, SMOLLM2["vocab_size"])
    tokens = sum(len(row.ids) for row in rows)
    plain: dict[str, Any] = {"dtype": asked.dtype, "log_every": 1, "save_every": 1_000_000, "warmup": 0, "learning_rate": 1e-4}
    loops = {
        "ours, padded": Loop(**plain),
        "ours, shared prompt": Loop(**plain, pass_tokens=asked.prompt + 2 * asked.rows * asked.own, packing="shared_prompt"),
    }
    seconds: dict[str, list[float]] = {}
    for _ in range(asked.rounds):
        seconds.setdefault("bare PEFT loop", []).extend(bare(rows, asked.steps, shape, asked.dtype, 1e-4)[1:])
        for name, loop in loops.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds.setdefault(name, []).extend(ours(rows, asked.steps, shape, loop, Path(folder)))
    rates = {name: tokens / statistics.median(found) for name, found in seconds.items()}
    figures = [(f"{name}: tokens/s", rate) for name, rate in rates.items()]
    figures += [(f"{name} / bare", rates[name] / rates["bare PEFT loop"]) for name in loops]
    publish("training", figures, {**vars(asked), "tokens a step": tokens})
    return 0


if __name__ == "__main__":
    sys.exit(main())
