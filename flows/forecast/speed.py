"""How fast this machine trains, reads and produces: measured once for a shape and kept below the state root, else a stated default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.forecast.shape import Shape
from flows.forecast.work import Rates
from tasks.contract.params import StageFailed
from tasks.engine.files import read_json, write_text
from tasks.engine.start import kernels

FILE = "speeds.json"
DEFAULT = {
    "cpu": Rates(42e9, 68e9, 25e9, "default: one thread in float32 with a model of 135 M parameters, as measured once elsewhere"),
    "cuda": Rates(100e12, 200e12, 5e12, "default for a data-centre GPU in bfloat16; nobody has measured it"),
}
"""FLOP a second of one process, before `cairn forecast --calibrate`."""
BFLOAT16 = 1.55
"""Times as fast as float32, of the default on a CPU: training 1.55, reading 1.9, producing 0.85 (measured with the same model)."""
MOST_SECONDS = 300
"""Until a measurement that does not end is given up."""


@dataclass(frozen=True)
class Measured:
    """What a measurement computes. threads, instructions: of one process. adapter: rank, 0 for all weights. bfloat16:
    computed in it."""

    shape: Shape
    device: str
    threads: int
    instructions: str
    adapter: int
    bfloat16: bool
    context: int

    def key(self) -> str:
        """Under which it is kept: the machine, the widths that decide how fast a kernel is, and how it trains."""
        shape = self.shape
        widths = (shape.width, shape.queries, shape.keys, shape.inner)
        return json.dumps([_machine(), self.device, self.threads, self.instructions, *widths, self.adapter, self.bfloat16])


def rates(what: Measured, state: Path) -> Rates:
    """Measured on this machine, or the default."""
    kept = (read_json(state / FILE) or {}).get(what.key())
    if kept:
        return Rates(kept["train"], kept["read"], kept["produce"], "measured on this machine")
    default = DEFAULT[what.device]
    if what.device == "cpu" and what.bfloat16:
        return Rates(default.train * BFLOAT16, default.read, default.produce, default.how.replace("float32", "bfloat16"))
    return default


def measure(what: Measured, state: Path, project: Path) -> Rates:
    """Measure in a process of its own, which imports torch, and keep it. Raises StageFailed when it fails."""
    command = [sys.executable, "-m", "flows.forecast.calibrate", json.dumps(asdict(what))]
    here = {**os.environ, **kernels(what.threads, what.instructions)}
    try:
        done = subprocess.run(
            command,
            cwd=project,
            capture_output=True,
            text=True,
            env=here,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StageFailed(f"the measurement took more than {MOST_SECONDS} s and was ended; the default stays") from None
    if done.returncode:
        raise StageFailed(f"the measurement failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    write_text(state / FILE, json.dumps({**(read_json(state / FILE) or {}), what.key(): found}, indent=1))
    return rates(what, state)


def _machine() -> str:
    """The processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return sys.platform
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), sys.platform)
