"""How fast and how safely models behind servers are asked: our client, the ideal, bare client loops, a peer; faults; kills.

Two dependent calls a row against a stub that answers after 100 ms, on the same machine. Ours goes in shards of 64 rows on four threads,
with its cache on disk and every answer checked against a schema. The bare loops are as many coroutines as calls may be in flight,
over one httpx client and one openai client as they come, and keep nothing. The peer is NeMo Data Designer 0.9.6, where its
environment was made (`make bench-generate PEER=1`): two text columns, timed at the server from its first call to its last answer.

With faults, the two slips of a model (malformed, truncated) strike the first answer in a conversation alone, as the one second round
that a call gets could otherwise fail as well; all other faults strike any try.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from infra.bench import ROOT, publish
from infra.stub import Stub, running
from tasks.contract.client import Message, Request
from tasks.players.openai_compatible import Dialect, EndpointClient, Pace, Setting, stats
from tasks.players.openai_compatible.rate_limit import FIRST

LATENCY = 0.1
QUICK = 0.02
"""Seconds an answer takes in the run with faults: what is shown there is the set, not the speed."""
SHARD = 64
THREADS = 4
KILLS = 20
FAULTS = {
    "429": 0.045,
    "429_after": 0.045,
    "500": 0.05,
    "reset": 0.05,
    "hang": 0.01,
    "garbage": 0.05,
    "malformed": 0.025,
    "truncated": 0.025,
}
"""30 % in all: each try of each call draws one of these or none."""
SCORE: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}, "reason": {"type": "string"}},
    "required": ["score", "reason"],
}
PEER = ROOT / ".cairn" / "designer"
TEXT = "Write one order that a customer of a shop could have placed, with items and prices, for row {row}. " * 6


def first(row: int) -> Request:
    """A row's draft."""
    return Request([{"role": "user", "content": TEXT.format(row=row)}], schema=SCORE, seed=row, temperature=1.0)


def second(row: int, draft: str) -> Request:
    """The question that needs the draft's answer."""
    return Request([{"role": "user", "content": f"Judge this draft of row {row}: {draft}"}], schema=SCORE, seed=row)


def rows(client: EndpointClient, count: int, done: Callable[[], None] = lambda: None) -> list[tuple[Message, Message]]:
    """Every row's two answers, in order."""

    def work(shard: Sequence[int]) -> list[tuple[Message, Message]]:
        drafts = client.complete([first(row) for row in shard])
        votes = client.complete([second(row, draft["content"]) for row, draft in zip(shard, drafts, strict=True)])
        done()
        return list(zip(drafts, votes, strict=True))

    shards = [range(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]
    with ThreadPoolExecutor(THREADS) as threads:
        return [row for found in threads.map(work, shards) for row in found]


def accepted(answers: Sequence[tuple[Message, Message]]) -> str:
    """Names the set of rows whose vote is above the middle, with all they hold."""
    kept = [(row, pair) for row, pair in enumerate(answers) if json.loads(pair[1]["content"])["score"] > 5]
    return sha256(json.dumps(kept).encode()).hexdigest()[:16]


def client(url: str, folder: Path, flight: int, **more: Any) -> EndpointClient:
    """Ours, with a cache in `folder`."""
    return EndpointClient("judge", url, Dialect("stub"), pace=Pace(flight, **more), setting=Setting(folder, folder.name))


def ours(stub: Stub, count: int, flight: int) -> tuple[float, str]:
    """Calls a second, and the set of accepted rows."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        answers = rows(client(stub.url, Path(folder), flight), count)
        return 2 * count / (time.perf_counter() - start), accepted(answers)


def loop(ask: Callable[[Request], Awaitable[str]], count: int, flight: int) -> Callable[[], Awaitable[float]]:
    """A bare loop: `flight` coroutines take row after row; returns calls a second."""

    async def go() -> float:
        todo = iter(range(count))

        async def worker() -> None:
            for row in todo:
                await ask(second(row, await ask(first(row))))

        start = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(flight)))
        return 2 * count / (time.perf_counter() - start)

    return go


def bare_httpx(stub: Stub, count: int, flight: int) -> float:
    """One httpx client."""
    import httpx

    from tasks.players.openai_compatible.wire import body

    async def go() -> float:
        async with httpx.AsyncClient(timeout=60) as http:  # its default limits: it is five times slower when it keeps all connections

            async def ask(request: Request) -> str:
                answer = await http.post(f"{stub.url}/chat/completions", content=body(Dialect("stub"), request))
                return str(answer.json()["choices"][0]["message"]["content"])

            return await loop(ask, count, flight)()

    return asyncio.run(go())


def bare_openai(stub: Stub, count: int, flight: int) -> float:
    """One openai client."""
    from openai import AsyncOpenAI

    async def go() -> float:
        async with AsyncOpenAI(base_url=stub.url, api_key="none", max_retries=0) as openai:

            async def ask(request: Request) -> str:
                form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCORE}}
                answer = await openai.chat.completions.create(
                    model="stub", messages=list(request.messages), seed=request.seed, max_tokens=256, response_format=form
                )  # type: ignore[call-overload]
                return str(answer.choices[0].message.content)

            return await loop(ask, count, flight)()

    return asyncio.run(go())


def peer(stub: Stub, count: int, flight: int) -> float | None:
    """Data Designer in its own environment, from its first call to its last answer (it also profiles the columns, which is not
    counted against it); None where the environment was not made."""
    python = PEER / "bin" / "python"
    if not python.exists():
        return None
    stub.turn()
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(ROOT / "infra" / "designer.py"), stub.url, str(count), str(flight), folder]
        environment = {**os.environ, "HOME": folder, "DATA_DESIGNER_HOME": folder, "NEMO_TELEMETRY_ENABLED": "false"}
        said = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if said.returncode:
        raise SystemExit(f"Data Designer ended with {said.returncode}:\n{said.stdout[-1000:]}\n{said.stderr[-2000:]}")
    times = stub.counts()["times"]
    return len(times) / (max(times) - min(times) + LATENCY)


def speeds(stub: Stub, count: int, rounds: int) -> tuple[list[tuple[str, float]], str]:
    """Medians over rounds in which the sides take turns, at 16 and at 64 in flight."""
    figures, clean = [], ""
    ours(stub, 10, 16)  # imports and the thread of our loop, as the bare loops find httpx and openai imported
    asyncio.run(_imported())
    for flight in (16, 64):
        sides = {"ours": [], "bare httpx loop": [], "bare openai loop": []}  # type: dict[str, list[float]]
        for _ in range(rounds):
            rate, clean = ours(stub, count, flight)
            sides["ours"].append(rate)
            sides["bare httpx loop"].append(bare_httpx(stub, count, flight))
            sides["bare openai loop"].append(bare_openai(stub, count, flight))
            if (rate_of_peer := peer(stub, count, flight)) is not None:
                sides.setdefault("Data Designer 0.9.6", []).append(rate_of_peer)
        middle = {name: sorted(found)[len(found) // 2] for name, found in sides.items()}
        ideal = flight / LATENCY
        figures.append((f"{flight} in flight: ideal calls/s", ideal))
        figures += [(f"{flight} in flight: {name}, calls/s", rate) for name, rate in middle.items()]
        figures.append((f"{flight} in flight: ours over ideal{' (must 0.9)' if flight == 16 else ''}", middle["ours"] / ideal))
        over = middle["ours"] / max(middle["bare httpx loop"], middle["bare openai loop"])
        figures.append((f"{flight} in flight: ours over the faster bare loop{' (must 0.85)' if flight == 64 else ''}", over))
    return figures, clean


async def _imported() -> None:
    import httpx
    import openai

    async with httpx.AsyncClient(), openai.AsyncOpenAI(api_key="none"):
        pass


def faults(stub: Stub, count: int, clean: str) -> list[tuple[str, float]]:
    """The same rows with 30 % faults: is the accepted set the same?"""
    stub.turn(faults=FAULTS, retry_after=0.1, latency=QUICK)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        same = accepted(rows(client(stub.url, Path(folder), 64, timeout=1.0, pause=0.05), count)) == clean
        seconds, found = time.perf_counter() - start, stats(Path(folder).name)["judge"]
    served = stub.counts()["served"]
    stub.turn(faults={}, latency=LATENCY)
    print(f"faults served: {', '.join(f'{name} {served.get(name, 0)}' for name in FAULTS)}")
    tries = sum(served.values())
    return [
        ("30 % faults: share of tries that were faults", sum(served.get(name, 0) for name in FAULTS) / tries),
        ("30 % faults: the same accepted set (must 1)", float(same)),
        (f"30 % faults: calls/s ({1000 * QUICK:g} ms an answer, time-out 1 s, Retry-After 0.1 s)", 2 * count / seconds),
        ("30 % faults: second rounds, all of use", found["repaired"] if found["repaired"] == found["repairs"] else -1),
    ]


def kills(stub: Stub, count: int, seed: int, clean: str) -> list[tuple[str, float]]:
    """One run, killed 20 times at random moments and gone on with."""
    flight, rng = 64, random.Random(seed)
    stub.turn(faults={})
    bound = happened = 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "infra.bench_generate", "--work", stub.url, folder, str(count), str(flight)]
        while happened < KILLS:
            worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            assert worker.stdout is not None
            worker.stdout.readline()
            while not stub.counts()["open"] and worker.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 2 * count / (flight / LATENCY) / KILLS))
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            bound += stub.counts()["open"]  # the server answers them all the same
            worker.communicate()
            happened += 1
        last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    counts = stub.counts()
    return [
        (f"{KILLS} kills: the same accepted set (must 1)", float(last.stdout.split()[-1] == clean)),
        (f"{KILLS} kills: calls answered twice (must be at most {KILLS * flight})", counts["twice"]),
        (f"{KILLS} kills: calls open at the server at the kills (answers on their way are not among them)", bound),
        (f"{KILLS} kills: answers paid in all, of {2 * count}", counts["paid"]),
    ]


def work(url: str, folder: str, count: str, flight: str) -> None:
    """What is killed: the rows, in a process of its own."""
    print("asking", flush=True)
    print(accepted(rows(client(url, Path(folder), int(flight)), int(count))))


def main() -> None:
    """Print and write down all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        return work(*asked.work)
    with running(latency=LATENCY) as stub:
        figures, clean = speeds(stub, asked.rows, asked.rounds)
        figures += faults(stub, asked.rows, clean)
        figures += kills(stub, asked.rows, asked.seed, clean)
    sizes = {"rows": asked.rows, "rounds": asked.rounds, "latency": LATENCY, "shard": SHARD, "threads": THREADS, "first_limit": FIRST}
    return publish("generate", figures, sizes)


if __name__ == "__main__":
    main()
