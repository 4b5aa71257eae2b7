"""`python -m flows.worlds.fresh_process MODULE:CLASS SIZE SEED PROBLEMS`: a world's record in a process of its own, as a line of JSON.

The process that starts it has found the address allowed, and hands its import path over.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence

from flows.worlds.process_checks import record
from flows.worlds.sample import draw
from tasks.worlds.api.runtime import World


def main(arguments: Sequence[str]) -> None:
    """Print the record. What tools print goes to standard error: it would stand in the middle of it."""
    answer = os.dup(1)
    os.dup2(2, 1)
    address, size, seed, problems = arguments
    module, _, name = address.partition(":")
    world = World.build(getattr(importlib.import_module(module), name), int(size), int(seed), address)
    with os.fdopen(answer, "w") as out:
        print(json.dumps(record(draw(world, int(problems), int(seed)))), file=out)


if __name__ == "__main__":
    main(sys.argv[1:])
