"""Scripted blueprints: how many a second on one core, and that memory does not grow with their number.

Each size is a process of its own: the world is frozen, then the method of the quickstart's generate stage makes, proves and plays
`problems` blueprints of retail, one conversation each. Memory is the peak resident set of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.bench import ROOT, publish
from tasks.worlds.api.frozen import freeze_world

WORLD = "tasks.worlds.library.retail:Retail"
ERRORS = {"generator": {"cut_off": 0.02, "invented_id": 0.04, "other_customer": 0.04, "dropped_wish": 0.06, "wrong_output": 0.04}}
"""Some of the quickstart's."""


def one(problems: int) -> dict[str, Any]:
    """Blueprints a second, conversations, and MiB at the peak, of this process."""
    from tasks.contract.context import Context
    from tasks.engine.shards import sharded
    from tasks.generate import Inputs, apigen_mt
    from tasks.players import acting, roles
    from tasks.worlds.api.loading import world_class
    from tasks.worlds.api.runtime import World

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        freeze_world(World.build(world_class(WORLD), 2000, 0, WORLD), folder / "worlds" / "retail")
        (folder / "out").mkdir()
        wanted = {name: {"backend": "scripted", "errors": rates} for name, rates in ERRORS.items()}
        role = roles.maker(wanted, folder / "worlds", 0)
        agent = acting.acting(role, {"tools": "none", "policy": "none"})
        ctx = Context(seed=0, out=folder / "out", scratch=folder, role=role, agent=agent, shards=sharded(folder))
        start = time.perf_counter()
        figures = apigen_mt.run(Inputs(folder / "worlds"), apigen_mt.Params(problems=problems, attempts=1, user_best_of=1), ctx)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": problems / seconds, "conversations": figures["conversations"]["played"], "peak": peak}


def main() -> int:
    """Print and publish the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", default="2000,20000", help="numbers of blueprints, with commas (default: %(default)s)")
    options.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one)))
        return 0
    sizes = [int(text) for text in asked.sizes.split(",")]
    figures: list[tuple[str, float]] = []
    for size in sizes:
        command = [sys.executable, "-m", "infra.bench_scripted", "--one", str(size)]
        made = json.loads(subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        figures += [(f"{size:,} blueprints: a second", made["rate"]), (f"{size:,} blueprints: MiB at the peak", made["peak"])]
        figures.append((f"{size:,} blueprints: conversations", made["conversations"]))
    publish("scripted", figures, {"sizes": sizes})
    return 0


if __name__ == "__main__":
    sys.exit(main())
