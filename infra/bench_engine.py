"""Tokens a second of the engine `own` against `generate` of transformers: a model of SmolLM2-135M's shape with random weights, 16 rows.

`one turn`: prompts that have nothing in common. `conversations`: a system prompt in common, then turns between which something is read;
`generate` keeps nothing between two calls, so each turn reads the whole conversation. Both produce the same number of tokens, greedily.
The sides take turns; medians are quoted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from infra.bench import publish
from infra.checkpoints import SMOLLM2
from tasks.engine.start import kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def own_engine(model: PreTrainedModel, turns: Sequence[Sequence[list[int]]], tokens: int) -> dict[str, float]:
    """turns[t][row]: what a row reads before its turn t."""
    from tasks.players.local import own
    from tasks.players.local.generation import Sampling

    engine = own.opened(model, rows=len(turns[0]), most=8192)
    ids: dict[str, list[int]] = {str(row): [] for row in range(len(turns[0]))}
    for reads in turns:
        for row, new in enumerate(reads):
            ids[str(row)] += new
            engine.submit(str(row), ids[str(row)], Sampling(0, 0.0, tokens, ()))
        while made := engine.poll():
            for turn in made:
                ids[turn.conversation] += turn.ids
    return {key: float(value) for key, value in engine.counts.items()}


def generate(model: PreTrainedModel, turns: Sequence[Sequence[list[int]]], tokens: int) -> dict[str, float]:
    """The same by transformers; the rows of a turn are equally long, so that nothing is padded."""
    import torch

    ids = torch.empty(len(turns[0]), 0, dtype=torch.long)
    read = 0
    for reads in turns:
        ids = torch.cat([ids, torch.tensor(reads)], dim=1)
        read += ids.numel()
        ids = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
    return {"read": float(read)}


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=600, help="tokens of the system prompt in common; a world's full one has 1,670")
    parser.add_argument("--own", type=int, default=64, help="tokens that a row reads before each turn")
    parser.add_argument("--tokens", type=int, default=24, help="tokens of a turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--instructions", choices=["avx2", "avx512_bf16"], default="avx2")
    sizes = parser.parse_args()
    os.environ.update(kernels(sizes.threads, sizes.instructions))  # before torch loads
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.set_num_threads(sizes.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMOLLM2)).to(getattr(torch, sizes.dtype)).eval()
    model.generation_config.eos_token_id = None

    def words(count: int) -> list[int]:
        return torch.randint(0, SMOLLM2["vocab_size"], (count,)).tolist()  # type: ignore[call-overload, no-any-return]

    common = words(sizes.prompt)
    loads: dict[str, list[list[list[int]]]] = {
        "one turn": [[words(sizes.own) for _ in range(sizes.rows)]],
        "conversations": [
            [[*(common if not turn else ()), *words(sizes.own)] for _ in range(sizes.rows)] for turn in range(sizes.turns)
        ],
    }
    sides: dict[str, Callable[..., dict[str, float]]] = {"own": own_engine, "generate": generate}
    seconds: dict[tuple[str, str], list[float]] = {}
    figures: list[tuple[str, float]] = []
    counts: dict[tuple[str, str], Any] = {}
    for _ in range(sizes.rounds):
        for load, turns in loads.items():
            for side, run in sides.items():
                start = time.perf_counter()
                counts[load, side] = run(model, turns, sizes.tokens)
                seconds.setdefault((load, side), []).append(time.perf_counter() - start)
    for load, turns in loads.items():
        made = len(turns) * sizes.rows * sizes.tokens
        rates = {side: made / statistics.median(seconds[load, side]) for side in sides}
        figures += [(f"{load}: {side}, produced tokens/s", rate) for side, rate in rates.items()]
        figures.append((f"{load}: own / generate", rates["own"] / rates["generate"]))
        kept = sum(len(new) for reads in turns for new in reads) + made
        figures += [(f"{load}: {side}, tokens read / tokens of the conversations", counts[load, side]["read"] / kept) for side in sides]
    publish("engine", figures, vars(sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
