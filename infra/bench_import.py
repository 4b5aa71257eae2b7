"""How fast recorded conversations come in (read, held against the retail world, replayed, masked and written), and in what memory.

The log is of conversations that the world's own people played, some 2 kB and five calls each, repeated to the size that is asked for.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.bench import publish
from tasks.contract.context import Context
from tasks.engine.shards import sharded
from tasks.generate import Inputs, imported
from tasks.players.client_agent import ClientAgent
from tasks.players.roles import maker
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World

RETAIL = "tasks.worlds.library.retail:Retail"
DIFFERENT = 200
PROMPT = {"tools": "none", "policy": "none"}
MUST = 1000.0


def main() -> int:
    """Print the figures; ends with 1 when the rate is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=100_000)
    count = parser.parse_args().conversations
    with TemporaryDirectory() as name:
        folder = Path(name)
        freeze_world(World.build(world_class(RETAIL), 400, 0), folder / "worlds" / "retail")
        log = _log(folder, count)
        half, whole = (_import(folder, log, part) for part in (count // 2, count))
    rate = count / whole[0]
    publish(
        "import",
        [
            (f"conversations imported a second (must {MUST:g})", rate),
            ("conversations imported a second of CPU time", count / whole[1]),
            ("peak memory after half of them, MiB", half[2]),
            ("peak memory after all of them, MiB", whole[2]),
        ],
        {"conversations": count},
    )
    return int(rate < MUST)


def _log(folder: Path, count: int) -> Path:
    world = load(folder / "worlds" / "retail")
    role = maker({name: {"backend": "scripted", "errors": {}} for name in ("agent", "human")}, folder / "worlds", 0)
    jobs = [(problem, 0) for problem in draw_problems(world, "train", DIFFERENT, 0)]
    played = play(world, jobs, ClientAgent(role("agent", "retail"), PROMPT), role("human", "retail"), seed=0)
    lines = [
        json.dumps({"messages": [one for one in talk.messages if one["role"] != "system"], "customer": talk.problem.lineage[0]})
        for talk in played
    ]
    with (folder / "log.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(f"{lines[number % DIFFERENT]}\n")
    return folder / "log.jsonl"


def _import(folder: Path, log: Path, count: int) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak memory of this process so far in MiB) for the first `count` conversations."""
    part, out, scratch = folder / f"{count}.jsonl", folder / f"out{count}", folder / f"scratch{count}"
    with log.open(encoding="utf-8") as file, part.open("w", encoding="utf-8") as first:
        for _ in range(count):
            first.write(next(file))
    out.mkdir()
    context = Context(seed=0, out=out, scratch=scratch, shards=sharded(scratch), prompt=PROMPT)
    wall, cpu = time.perf_counter(), time.process_time()
    figures = imported.run(Inputs(folder / "worlds", None, part), imported.Params(), context)
    assert figures["conversations"]["replayed"] == count
    return time.perf_counter() - wall, time.process_time() - cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
