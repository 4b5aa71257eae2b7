"""A service that dies in the middle of a stage ends the stage in words, in whichever room; started again, the same stage goes on.

Worked by hand: a conversation that meets no service is nobody's failure, so no row says that it was lost. Limit: a service that is
started again while it is being asked for is not down.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from infra.bench import free_port
from tasks.contract.client import Message, Request
from tasks.contract.context import Context
from tasks.contract.params import StageFailed
from tasks.evaluate import Inputs as EvaluateInputs
from tasks.evaluate import pass_k
from tasks.generate import Inputs as GenerateInputs
from tasks.generate import apigen_mt
from tasks.players.stand_in import StandIn
from tasks.rl import Inputs as RlInputs
from tasks.rl.core.loop import run as reinforce
from tasks.rl.grpo import Params as GrpoParams
from tasks.worlds.adapters import from_openapi
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.play import TOOL_FAILURE
from tasks.worlds.api.runtime import World
from tests.playing import NO_PROMPT, playing
from tests.rl import micro
from tests.rollout import tiny
from tests.worlds.servers import order_service

PORT = free_port()
ROUND = {"round_size": 6, "recombine": 0.0, "attempts": 1, "problems": 6, "validation": 0.0}
SMALL = {"problems": 2, "gate_problems": 2, "trials": 1, "max_steps": 4, "max_turn_tokens": 6, "rows": 6, "resamples": 100}
TOLD = r"world orders: .*http://127\.0\.0\.1:.* Start the service, or mend base_url\. Then run again: what is done is kept\."


class Orders(  # type: ignore[misc]
    from_openapi(
        order_service.SPEC,
        f"http://127.0.0.1:{PORT}",
        name="orders",
        policy="R1. Cancel only what is pending.",
        state="GET /state",
        reset="POST /reset",
        disposable=True,
        users="users",
        problems_file=Path(order_service.__file__).with_name("orders.jsonl"),
    )
):
    """Orders behind HTTP."""


class Service:
    """The process, which can be killed and started again."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, order_service.__file__, str(PORT)])
        for _ in range(3000):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", PORT)):
                    return
            time.sleep(0.02)
        raise TimeoutError

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Killing(StandIn):
    """A stand-in for all roles that kills the service when it is asked for the `last` time."""

    def __init__(self, service: Service, last: int) -> None:
        self._service, self._left = service, last

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        self._left -= 1
        if not self._left:
            self._service.kill()
        return super().complete(requests)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.kill()


@pytest.fixture(scope="module")
def home(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen world and a checkpoint."""
    folder = tmp_path_factory.mktemp("down")
    freeze_world(World.build(Orders, 1, 0, f"{__name__}:Orders"), folder / "worlds" / "orders")
    tiny.saved(folder / "model" / "model", layers=1, end=6.0)
    return folder


def context(folder: Path, client: StandIn) -> Context:
    def player(role: str, world: str = "") -> StandIn:
        if "/" in role:
            raise LookupError(role)  # one judge, one critic of a kind
        return client

    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Context(seed=5, out=folder / "out", scratch=folder / "scratch", prompt=NO_PROMPT, **playing(player))


def generate(home: Path, ctx: Context) -> None:
    apigen_mt.run(GenerateInputs(home / "worlds"), apigen_mt.Params(**ROUND), ctx)


def evaluate(home: Path, ctx: Context) -> None:
    inputs = EvaluateInputs(home / "worlds", {"merged": home / "model/model"}, "merged", "a.dir")
    pass_k.run(inputs, pass_k.Params(**SMALL, max_episode_tokens=512), ctx)


def reinforced(home: Path, ctx: Context) -> None:
    loop = micro.SHORT.model_copy(update={"screen_problems": 2, "validation_problems": 2, "pool": 2, "min_trained": 0.0})
    reinforce(RlInputs(home / "worlds", home / "model", "orders"), loop, micro.Brief(params=GrpoParams()), ctx)


@pytest.mark.parametrize(("stage", "left"), [(generate, 4), (evaluate, 2), (reinforced, 2)])
def test_a_stage_stops_and_goes_on(stage: Callable[[Path, Context], None], left: int, home: Path, service: Service) -> None:
    folder = home / stage.__name__
    with pytest.raises(StageFailed, match=TOLD):
        stage(home, context(folder, Killing(service, left)))
    service.start()
    stage(home, context(folder, StandIn()))
    kept = [path for path in (folder / "out").rglob("*.parquet") if path.is_file()]
    assert kept or stage is reinforced
    assert all(TOOL_FAILURE.encode() not in path.read_bytes() for path in kept), "nothing was lost for it"
