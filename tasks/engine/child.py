"""What runs in a training's own process: `python -m tasks.engine.child SCRATCH PARENT`, started by `tasks.engine.process`."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.engine import disk, usage
from tasks.engine.forked import Forks, at_once
from tasks.engine.process import die_with_parent
from tasks.engine.running import call, calls_reported, context
from tasks.engine.shards import sharded
from tasks.training import distributed


def main(scratch: Path, parent: int) -> int:
    """Run the spec in `scratch`; what happens is told on stdout, the figures are left in a file."""
    start = time.monotonic()
    die_with_parent(parent)
    spec = json.loads((scratch / "spec.json").read_text())
    if distributed.processes(spec.get("loop")) > 1 and "RANK" not in os.environ:
        return _together(scratch, distributed.processes(spec["loop"]))
    if number := int(os.environ.get("RANK", 0)):
        spec |= {name: str(scratch / f"process-{number}" / name) for name in ("out", "scratch")}
        for name in ("out", "scratch"):
            Path(spec[name]).mkdir(parents=True, exist_ok=True)
    if "RANK" in os.environ and spec["device"] != "cpu":
        distributed.take_gpu(os.environ)
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the output file, not between our lines

    def say(*parts: Any) -> None:
        if not number or parts[0] == "error":
            lines.write(json.dumps(parts) + "\n")

    limit = at_once(spec["threads"], spec["device"])
    ctx = context(
        spec,
        log=lambda name, value, step: say("log", name, float(value), int(step)),
        progress=lambda done, total, note="": say("progress", done, total, note),
        shards=sharded(scratch, Forks(scratch / "forks", limit), 2 * limit) if limit > 1 else sharded(scratch),
    )
    try:
        with calls_reported(spec, lambda _, event, details: say(event, details), ctx.progress) as counted:
            figures = call(spec, replace(ctx, progress=counted))
    except Exception as error:
        say("error", type(error).__name__, disk.in_words(error) or str(error))
        raise
    say("used", usage.used(time.monotonic() - start))
    if number:
        return 0
    temporary = scratch / "figures.json.new"
    temporary.write_text(json.dumps(figures))
    temporary.replace(scratch / "figures.json")
    return 0


def _together(scratch: Path, count: int) -> int:
    """Run the spec on several processes, each of which is this module again, started and watched by torchrun in this process."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        torchrun(["--standalone", f"--nproc-per-node={count}", "-m", "tasks.engine.child", str(scratch), str(os.getpid())])
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
