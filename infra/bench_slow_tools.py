"""What a slow tool costs those who do not wait for it: 64 conversations of 8 turns whose tools answer after 20 ms in the median and
2 s at the 99th percentile. The model is a stub that takes a fixed time for a turn.

ideal: the slowest conversation on its own. TRL: the loop of its GRPOTrainer (`_tool_call_loop`), with the same stub and the same tools.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from infra.bench import publish
from tasks.contract.agent import Turn
from tasks.contract.client import Message, Request
from tasks.contract.problem import Problem, Setting, ToolResult
from tasks.contract.scripts import STOP

SPREAD = math.log(100) / 2.3263
"""Of a log-normal waiting time whose 99th percentile is 100 times its median."""


def waits(sizes: argparse.Namespace) -> list[list[float]]:
    """Seconds that each call of each conversation takes."""
    drawn = random.Random(sizes.seed)
    return [[sizes.median * math.exp(drawn.gauss(0, SPREAD)) for _ in range(sizes.turns)] for _ in range(sizes.conversations)]


class Stub:
    """An agent that calls a tool in every turn but the last; each turn takes `seconds`, whoever else is served."""

    name = "stub"

    def __init__(self, plan: Sequence[Sequence[float]], seconds: float) -> None:
        self.capacity, self._plan, self._seconds = len(plan), plan, seconds
        self._turns: dict[str, int] = {}
        self._ready: dict[str, float] = {}

    def send(self, conversation: str, messages: Sequence[Message], world: Any, seed: int) -> None:
        """The turn is ready after a while."""
        self._ready[conversation] = time.perf_counter() + self._seconds

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing is kept."""

    def poll(self) -> list[tuple[str, Turn]]:
        """All turns that are ready; sleeps until there is one."""
        time.sleep(max(0.0, min(self._ready.values()) - time.perf_counter()))
        now = time.perf_counter()
        ready = [name for name, at in self._ready.items() if at <= now]
        return [(name, self._turn(name)) for name in ready]

    def close(self, conversation: str) -> None:
        """Nothing is kept."""

    def _turn(self, name: str) -> Turn:
        del self._ready[name]
        number = self._turns[name] = self._turns.get(name, -1) + 1
        if number == len(self._plan[0]):
            return Turn({"role": "assistant", "content": "Done."})
        function = {"name": "look", "arguments": {"seconds": self._plan[int(name)][number]}}
        return Turn(
            {"role": "assistant", "content": "", "tool_calls": [{"id": f"call_{number}", "type": "function", "function": function}]}
        )


class SlowWorld:
    """What play asks of a world; its one tool waits."""

    name, waits, tools = "slow", True, {"look": SimpleNamespace(kind="read")}
    setting = Setting("slow")

    def fork(self) -> SlowWorld:
        """It has no state."""
        return self

    def call(self, name: str, arguments: dict[str, float]) -> ToolResult:
        """Wait."""
        time.sleep(arguments["seconds"])
        return ToolResult(True, "{}")

    def grade(self, played: Any, final: Any) -> None:
        """Nothing is graded."""


class Caller:
    """A human that asks once."""

    name = revision = "caller"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """A question, then the end."""
        return [{"role": "user", "content": "Go on." if len(request.messages) == 1 else STOP} for request in requests]


def ours(plan: Sequence[Sequence[float]], seconds: float) -> float:
    """Seconds until all are played."""
    from tasks.worlds.api.play import play

    jobs = [(Problem(str(number), "slow", "train", "", (), "", "", {}, ()), 0) for number in range(len(plan))]
    start = time.perf_counter()
    played = play(SlowWorld(), jobs, Stub(plan, seconds), Caller(), seed=0, max_steps=len(plan[0]) + 2)  # type: ignore[arg-type]
    took = time.perf_counter() - start
    assert all(len(talk.calls) == len(plan[0]) for talk in played)
    return took


def trl(plan: Sequence[Sequence[float]], seconds: float) -> float:
    """Seconds that TRL's own loop takes, its model and tokenizer replaced by the stub."""
    from trl import GRPOTrainer

    turns = len(plan[0])

    def turn(row: int, number: int) -> Message:
        if number == turns:
            return {"role": "assistant", "content": "Done."}
        function = {"name": "look", "arguments": {"seconds": plan[row][number]}}
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}

    def generate(ids: Sequence[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        time.sleep(seconds)
        return [[one[2], (len(one) - 2) // 2] for one in ids], None

    def look(seconds: float) -> str:
        time.sleep(seconds)
        return "{}"

    rows = range(len(plan))
    trainer = SimpleNamespace(
        max_tool_calling_iterations=turns + 1,
        _sync_tool_dicts=[{"look": look} for _ in rows],
        _async_tool_dicts=[{} for _ in rows],
        _get_tool_suffix_ids=lambda messages: [],
        use_vllm=False,
        model=SimpleNamespace(config=SimpleNamespace(max_position_embeddings=1 << 30)),
        _is_vlm=False,
        max_completion_length=1 << 30,
        tools=None,
        environment_factories=None,
        _tokenizer=None,
        _generate_single_turn=generate,
    )
    read = mock.patch("trl.trainer.grpo_trainer.parse_response", lambda tokenizer, ids, **_: turn(*ids))
    start = time.perf_counter()
    time.sleep(seconds)
    with read:
        found = GRPOTrainer._tool_call_loop(
            trainer,
            [[] for _ in rows],
            [[0, 0] for _ in rows],
            [[row, 0] for row in rows],
            [[turn(row, 0)] for row in rows],
            None,
            None,
            {},
        )
    assert found[4] == len(plan) * turns, "TRL's loop made another number of calls"
    return time.perf_counter() - start


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--median", type=float, default=0.02, help="seconds of a tool's answer")
    parser.add_argument("--seconds", type=float, default=0.05, help="of a turn of the stub model")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    sizes = parser.parse_args()
    plan = waits(sizes)
    ideal = max(sum(calls) for calls in plan) + (sizes.turns + 1) * sizes.seconds
    took = sorted(ours(plan, sizes.seconds) for _ in range(sizes.rounds))[sizes.rounds // 2]
    theirs = trl(plan, sizes.seconds)
    figures = [
        ("ideal, s", ideal),
        ("ours, s", took),
        ("TRL's loop, s", theirs),
        ("ideal / ours", ideal / took),
        ("ideal / TRL", ideal / theirs),
    ]
    publish("slow_tools", figures, json.loads(json.dumps(vars(sizes))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
