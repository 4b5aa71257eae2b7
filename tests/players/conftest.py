"""The stub server, one process for all tests of a worker, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.stub import Stub, running
from tasks.contract.client import Request
from tasks.players.openai_compatible import Dialect, EndpointClient, Pace, Setting, figures

SCORE: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}, "reason": {"type": "string"}},
    "required": ["score", "reason"],
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_order",
        "description": "Look an order up.",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
}
QUICK = Pace(max_in_flight=16, timeout=0.6, retries=5, pause=0.005, longest=0.05, failures=10, probes=3)
"""The pacing of real runs, with waits that suit a test."""

Make = Callable[..., EndpointClient]


@pytest.fixture(scope="session")
def server() -> Iterator[Stub]:
    with running() as found:
        yield found


@pytest.fixture
def stub(server: Stub) -> Stub:
    """The server with all knobs back in place and nothing counted."""
    plain = {"models": {}, "revision": "", "parser": True, "forms": True, "refused": []}
    server.turn(latency=0.0, faults={}, retry_after=1.0, capacity=0, key="", usage=True, **plain)
    figures.forget()
    return server


@pytest.fixture
def make(stub: Stub, tmp_path: Path) -> Make:
    """make(role, **more): a client of the stub whose cache lies in the test's folder; `name` gives it a cache of its own."""

    def client(role: str = "judge", name: str = "state", run: str = "run", limits: Any = None, dialect: Any = None, **more: Any) -> Any:
        setting = Setting(tmp_path / name, run, run, limits or {})
        return EndpointClient(role, stub.url, dialect or Dialect("some-model"), **{"pace": QUICK, "setting": setting, **more})

    return client


def questions(count: int, schema: dict[str, Any] | None = SCORE, start: int = 0, **more: Any) -> list[Request]:
    return [Request([{"role": "user", "content": f"Question {start + n}"}], schema=schema, seed=n, **more) for n in range(count)]
