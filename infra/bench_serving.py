"""`cairn serve` against its own engine called directly: first token and tokens a second, for one client and for eight at once.

Both sides get the same prompts at temperature 0 and must say the same tokens; they take turns, and medians are quoted. The server is a
process of its own, asked over HTTP by a client that reads the stream; the engine's side reads token ids and writes token ids.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.bench import copy, environment, publish
from tasks.engine.start import kernels

CLIENTS = (1, 8)
SYSTEM = (
    "You are the agent of a shop. You look up orders, change what may still be changed, and you say what you did in a sentence. " * 12
)
QUESTIONS = [
    f"What became of order #W{number}, which I placed {number} days ago, and who brings it to me?" for number in range(3, 3 + 8)
]


@dataclass(frozen=True)
class Answers:
    """Of prompts asked at once. first: seconds to the first token of each; seconds: until all had ended; ids: what each said."""

    first: list[float]
    seconds: float
    ids: list[list[int]]


# --- the engine, called directly -------------------------------------------------------------------------------------------------


def _engine(connection: Any, checkpoint: Path, tokens: int, ends: Sequence[int]) -> None:
    """In a process of its own: takes lists of prompts, gives Answers."""
    from tasks.checkpoints import source
    from tasks.contract.generation import Sampling
    from tasks.players.local import own

    source.check_folder(checkpoint, str(checkpoint))
    engine = own.opened(checkpoint, rows=64, most=8192, device="cpu", dtype=None)
    while prompts := connection.recv():
        start, first, said = time.perf_counter(), {}, dict[str, list[int]]()
        for number, ids in enumerate(prompts):
            engine.submit(str(number), ids, Sampling(0, 0.0, tokens, tuple(ends)))
        while len(said) < len(prompts):
            made = engine.poll() if len(first) == len(prompts) else engine.step()
            for turn in made:
                said[turn.conversation] = list(turn.ids)
            now = time.perf_counter() - start
            first |= {
                name: now for name in map(str, range(len(prompts))) if name not in first and (name in said or engine.so_far(name).ids)
            }
        seconds = time.perf_counter() - start
        for name in said:
            engine.close(name)
        order = [str(number) for number in range(len(prompts))]
        connection.send(Answers([first[name] for name in order], seconds, [said[name] for name in order]))


# --- the server ------------------------------------------------------------------------------------------------------------------


@contextmanager
def _serving(checkpoint: Path, project: Path) -> Iterator[int]:
    """The port of `cairn serve`, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "serve", str(checkpoint), "--name", "agent", "--port", str(port)]
    with (project / "serve.log").open("w") as log:
        server = subprocess.Popen(command, cwd=project, env=environment(), stdout=log, stderr=log)
    try:
        for _ in range(1200):
            if server.poll() is not None:
                raise SystemExit(f"cairn serve ended: {(project / 'serve.log').read_text()[-2000:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


async def _stream(port: int, question: str, tokens: int) -> tuple[float, str]:
    """(seconds to the first words, the answer's id). The client does as little as a client can: it shares the processors."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body = {"model": "agent", "messages": messages, "temperature": 0, "max_tokens": tokens, "tool_choice": "none", "stream": True}
    data = json.dumps(body).encode()
    about = {"Host": "x", "Connection": "close", "Content-Type": "application/json", "Content-Length": len(data)}
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *(f"{name}: {value}" for name, value in about.items()), "", ""])
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + data)
    first, name = 0.0, ""
    while line := await reader.readline():
        if not name and line.startswith(b"data: {"):
            name = json.loads(line[6:])["id"]
        if not first and b'"content": "' in line and b'"content": ""' not in line:
            first = time.perf_counter() - start
    writer.close()
    if not name:
        raise SystemExit(f"cairn serve gave no stream for {question!r}")
    return first or time.perf_counter() - start, name


def _ask(port: int, questions: Sequence[str], tokens: int) -> tuple[list[float], float, list[str]]:
    async def together() -> list[tuple[float, str]]:
        return await asyncio.gather(*(_stream(port, question, tokens) for question in questions))

    start = time.perf_counter()
    found = asyncio.run(together())
    return [first for first, _ in found], time.perf_counter() - start, [name for _, name in found]


def _kept(project: Path) -> dict[str, dict[str, Any]]:
    """id -> what the server kept of an answer: its prompt's and its own tokens among it."""
    files = (project / ".cairn/served").glob("*.jsonl")
    return {one["id"]: one for file in files for one in map(json.loads, file.read_text("utf-8").splitlines())}


# --- both ------------------------------------------------------------------------------------------------------------------------


def figures(checkpoint: Path, project: Path, rounds: int = 5, tokens: int = 48) -> list[tuple[str, float]]:
    """(label, figure) of both sides and their ratios, where 1 is as fast as the engine. project: a Cairn project, without worlds in its
    data, so that a prompt is what is sent."""
    from tasks.checkpoints import folders

    os.environ.update(kernels(1))  # as `cairn serve` sets them
    ends = sorted({folders.load_tokenizer(checkpoint).eos_token_id})
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with _serving(checkpoint, project) as port:
        _, _, names = _ask(port, QUESTIONS, tokens)
        kept = _kept(project)
        prompts = [kept[name]["prompt_ids"] for name in names]
        bare = multiprocessing.get_context("spawn").Process(target=_engine, args=(theirs, checkpoint, tokens, ends), daemon=True)
        bare.start()
        ours.send(prompts)
        ours.recv()  # both sides are warm now
        direct: dict[int, list[Answers]] = {count: [] for count in CLIENTS}
        served: dict[int, list[tuple[list[float], float, list[str]]]] = {count: [] for count in CLIENTS}
        for number in range(rounds):
            for count in CLIENTS:
                chosen = [(number + place) % len(QUESTIONS) for place in range(count)]
                ours.send([prompts[place] for place in chosen])
                direct[count].append(ours.recv())
                served[count].append(_ask(port, [QUESTIONS[place] for place in chosen], tokens))
        ours.send([])
    kept = _kept(project)
    found = [("tokens of a prompt", statistics.mean(map(len, prompts)))]
    for count in CLIENTS:
        said = [[kept[name]["ids"] for name in names] for *_, names in served[count]]
        if said != [one.ids for one in direct[count]]:
            raise SystemExit(f"cairn serve and its engine said different things to {count} at once: {said} and {direct[count]}")
        made = [sum(map(len, ids)) for ids in said]
        first = [
            statistics.median(value for one in side for value in one)
            for side in ([one.first for one in direct[count]], [one[0] for one in served[count]])
        ]
        rate = [
            statistics.median(tokens / seconds for tokens, seconds in zip(made, side, strict=True))
            for side in ([one.seconds for one in direct[count]], [one[1] for one in served[count]])
        ]
        label = "1 client" if count == 1 else f"{count} clients"
        found += [(f"{label}: first token, engine, ms", first[0] * 1e3), (f"{label}: first token, served, ms", first[1] * 1e3)]
        found += [(f"{label}: tokens/s, engine", rate[0]), (f"{label}: tokens/s, served", rate[1])]
        found += [(f"{label}: first token, served / engine (must 1.1)", first[1] / first[0])]
        found += [(f"{label}: tokens/s, engine / served (must 1.1)", rate[0] / rate[1])]
    return found


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48, help="the most of an answer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder), "smoke")
        publish(
            "serving",
            figures(given.checkpoint.resolve(), Path(folder), given.rounds, given.tokens),
            {"rounds": given.rounds, "checkpoint": given.checkpoint.name},
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
