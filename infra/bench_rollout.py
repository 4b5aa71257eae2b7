"""Episodes a second of the rollout engine: a cache kept across turns against reading the whole conversation again each turn.

All sides play the same problems with the same noise in one process, in alternation; medians are quoted. Run it after `make
run`, so that a trained checkpoint is there; without one, random weights whose turns end with probability 1/12 take its
place: the conversations are nonsense then, and the sizes say so.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.bench import ROOT, publish
from tasks.contract.agent import Agent
from tasks.contract.client import Client
from tasks.contract.problem import Problem
from tasks.players.local.generation import Engine, Generated, Sampling
from tasks.worlds.api.problem_making import draw_problems

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks.worlds.api.runtime import World

PROMPT = {"tools": "none", "policy": "none"}
END_SHARE = 1 / 12
"""Turns of the trained tiny model have about 12 tokens."""
USERS = 400
"""Enough for some hundred training problems of each family."""


class ReadAgain:
    """An engine without memory: each turn reads the whole conversation anew."""

    def __init__(self, inner: Engine) -> None:
        self.rows, self.most, self.elsewhere, self._inner = inner.rows, inner.most, inner.elsewhere, inner

    @property
    def counts(self) -> Mapping[str, int]:
        """The engine's own."""
        return self._inner.counts

    def submit(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> None:
        """As a conversation that has just begun."""
        self._inner.submit(conversation, ids, sampling)

    def poll(self) -> list[Generated]:
        """The finished turns; what was computed for them is forgotten."""
        made = self._inner.poll()
        for turn in made:
            self._inner.close(turn.conversation)
        return made

    def close(self, conversation: str) -> None:
        """It is forgotten already."""


def _checkpoint(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """(model, tokenizer, what it is)."""
    import torch

    from tasks.chat.local import qwen3_instruct
    from tasks.checkpoints import folders, tiny

    if (folder / "config.json").is_file():
        return *folders.load(folder), "trained"
    torch.manual_seed(0)
    tokenizer = tiny.build_tokenizer(["Hello, please cancel my order, my name is Ada Lovelace, zip 12345."] * 20, 2048)
    model = tiny.tiny_qwen3(tokenizer, layers=2, width=128, heads=4).eval()
    head = torch.nn.Linear(128, 2048, bias=True)  # 2,048: the trained tokenizer's size
    with torch.no_grad():
        head.weight.zero_()
        head.bias[len(tokenizer) :] = -1e9
        head.bias[: len(tokenizer)] = 0.0
        others = torch.tensor(len(tokenizer) - 1.0)
        head.bias[tokenizer.convert_tokens_to_ids(qwen3_instruct.END)] = torch.log(others * END_SHARE / (1 - END_SHARE))
    model.lm_head = head
    return model, tokenizer, "random weights"


def _problems(name: str, count: int) -> tuple[World, list[tuple[Problem, int]]]:
    from tasks.worlds.api.loading import BUILT_IN, world_class
    from tasks.worlds.api.runtime import World

    address = next(one for one in BUILT_IN if f".{name}:" in one)
    world = World.build(world_class(address), size=USERS, seed=0, address=address)
    return world, [(problem, 0) for problem in draw_problems(world, "train", count, seed=0)]


def _play(agent: Agent, world: World, jobs: Sequence[tuple[Problem, int]], human: Client, repeat: int) -> dict[str, float]:
    """One measured run."""
    from tasks.worlds.api.play import play

    start = time.perf_counter()
    played = play(world, jobs, agent, human, seed=repeat)
    seconds = time.perf_counter() - start
    tokens = sum(len(turn["ids"]) for talk in played for turn in talk.turns)
    read = sum(len(turn["prompt_ids"]) for talk in played for turn in talk.turns)
    return {
        "episodes/s": len(played) / seconds,
        "produced tokens/s": tokens / seconds,
        "produced tokens an episode": tokens / len(played),
        "read tokens an episode": read / len(played),
        "turns an episode": sum(len(talk.turns) for talk in played) / len(played),
        "solved": sum(talk.outcome.reward for talk in played if talk.outcome) / len(played),
    }


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "sft" / "model")
    parser.add_argument("--world", default="retail", choices=["retail", "airline"])
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=1.0)
    asked = parser.parse_args()
    import torch

    from tasks.players.checkpoint_agent import CheckpointAgent
    from tasks.players.local import own
    from tasks.players.scripted import client

    torch.set_num_threads(asked.threads)
    model, tokenizer, what = _checkpoint(asked.model)
    world, jobs = _problems(asked.world, asked.episodes)
    human = client("human", world, {}, 0)
    runs: dict[str, list[dict[str, float]]] = {}
    for repeat in range(asked.rounds):
        for rows in asked.rows:
            kept = CheckpointAgent(model, tokenizer, PROMPT, rows=rows, temperature=asked.temperature, engine=own.opened)
            again = CheckpointAgent(
                model,
                tokenizer,
                PROMPT,
                rows=rows,
                temperature=asked.temperature,
                engine=lambda *of, **sizes: ReadAgain(own.opened(*of, **sizes)),
            )
            sides: dict[str, Any] = {f"{rows} rows, cache kept": kept, f"{rows} rows, read again": again}
            for name, agent in sides.items():
                runs.setdefault(name, []).append(_play(agent, world, jobs, human, repeat))
    figures = [(f"{name}: {key}", statistics.median(run[key] for run in found)) for name, found in runs.items() for key in found[0]]
    rates = {name: statistics.median(run["episodes/s"] for run in found) for name, found in runs.items()}
    figures += [
        (f"{rows} rows: kept / read again", rates[f"{rows} rows, cache kept"] / rates[f"{rows} rows, read again"])
        for rows in asked.rows
    ]
    sizes = {key: value for key, value in vars(asked).items() if key != "model"}
    parameters = sum(weight.numel() for weight in model.parameters())
    publish("rollout", figures, {"parameters": parameters, "weights": what, **sizes})
    return 0


if __name__ == "__main__":
    sys.exit(main())
