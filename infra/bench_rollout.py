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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.bench import ROOT, publish
from tasks.contract.agent import Agent, Turn
from tasks.contract.client import Client, Message
from tasks.contract.problem import Problem
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
    """An agent without memory: each turn reads the whole conversation anew, in its own tokens (nothing is rendered
    twice)."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int, temperature: float, most: int = 448
    ) -> None:
        from tasks.chat.template import END
        from tasks.players.local.decoding import Decoder, Row

        self.name, self.capacity = "read again", rows
        self._tokenizer, self._temperature = tokenizer, temperature
        self._decoder = Decoder(model, int(tokenizer.convert_tokens_to_ids(END)), rows, most)
        self._ids: dict[str, list[int]] = {}
        self._read: dict[str, int] = {}
        self._names: dict[Row, tuple[str, list[int]]] = {}
        self._full: list[str] = []

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Take a fresh row and read everything."""
        from tasks.chat.rendering import prompt_ids, suffix_ids
        from tasks.worlds.api.system_prompt import system_message

        if conversation in self._ids:
            new = suffix_ids(self._tokenizer, messages[self._read[conversation] :])
        else:
            new = prompt_ids(self._tokenizer, system_message(world, PROMPT), messages)
        ids = self._ids[conversation] = [*self._ids.get(conversation, ()), *new]
        self._read[conversation] = len(messages) + 1
        row = self._decoder.open()
        self._names[row] = (conversation, new)
        if not self._decoder.ask(row, ids, seed=seed, temperature=self._temperature, limit=96):
            self._full.append(conversation)

    def poll(self) -> list[tuple[str, Turn]]:
        """The finished turns; their rows are free again."""
        from tasks.chat.parsing import parse_turn

        full, self._full = self._full, []
        turns = [(name, Turn({"role": "assistant", "content": ""}, error="max_tokens")) for name in full]
        for row in self._decoder.run():
            name, new = self._names.pop(row)
            self._decoder.close(row)
            self._ids[name] += row.ids
            message, error = parse_turn(self._tokenizer, row.ids)
            turns.append((name, Turn(message, new, row.ids, row.logprobs, error)))
        return turns

    def close(self, conversation: str) -> None:
        """Forget it."""
        for row, (name, _) in list(self._names.items()):
            if name == conversation:
                del self._names[row]
                self._decoder.close(row)
        del self._ids[conversation]


def _checkpoint(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """(model, tokenizer, what it is)."""
    import torch

    from tasks.chat import template
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
        head.bias[tokenizer.convert_tokens_to_ids(template.END)] = torch.log(others * END_SHARE / (1 - END_SHARE))
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
    from tasks.players.scripted import client

    torch.set_num_threads(asked.threads)
    model, tokenizer, what = _checkpoint(asked.model)
    world, jobs = _problems(asked.world, asked.episodes)
    human = client("human", world, {}, 0)
    runs: dict[str, list[dict[str, float]]] = {}
    for repeat in range(asked.rounds):
        for rows in asked.rows:
            kept = CheckpointAgent(model, tokenizer, PROMPT, rows=rows, temperature=asked.temperature)
            again = ReadAgain(model, tokenizer, rows, asked.temperature)
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
