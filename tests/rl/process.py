"""One process of a training, for `test_processes.py`: `torchrun -m tests.rl.process ROOT NAME LOOP STOP`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tasks.rl import Inputs
from tasks.rl.core.loop import run
from tasks.rl.grpo import Params
from tests.rl.micro import SHORT, Brief, context, killed_at


def main(root: Path, name: str, loop: str, stop: int) -> None:
    """Train with the inputs in `root`; stop: the step at which the first process is interrupted, 0 for none."""
    number = int(os.environ.get("RANK", 0))
    folder = root / name / f"process-{number}" if number else root / name
    ctx = context(folder, threads=1, log=killed_at(stop))
    hooks = Brief(params=Params(), reference=True)
    figures = run(
        Inputs(root / "worlds", root / "sft", "retail"), SHORT.model_validate({**SHORT.model_dump(), **json.loads(loop)}), hooks, ctx
    )
    if not number:
        (folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
