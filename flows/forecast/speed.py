"""How fast this machine trains, reads and produces, in FLOP a second of one process: measured once for a checkpoint's shape and the way
in which a road computes with it, kept below the state root, in no key; else a stated default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from flows.forecast.shape import Shape
from flows.this_machine import processor
from tasks.contract.params import StageFailed
from tasks.engine.files import read_json, write_text
from tasks.engine.start import kernels

FILE = "speeds.json"
DEFAULT = {
    "cpu": {"train": 42e9, "read": 68e9, "produce": 25e9},
    "cuda": {"train": 100e12, "read": 200e12, "produce": 5e12},
}
"""FLOP a second of one process, before `cairn forecast --calibrate`."""
ABOUT = {
    "cpu": "default: one thread in float32 with a model of 135 M parameters, as measured once elsewhere",
    "cuda": "default for a data-centre GPU in bfloat16; nobody has measured it",
}
BFLOAT16 = {"avx2": 0.22, "avx512_bf16": 2.0}
"""Instructions -> times as fast as float32 of matrix products of many rows in bfloat16, of the default on a CPU (measured)."""
THREAD = 0.7
"""What each further thread of a process adds to the default on a CPU; ours."""
MOST_SECONDS = 600
"""Until a measurement that does not end is given up."""


@dataclass(frozen=True)
class Lengths:
    """A conversation in tokens. shared: its system prompt; behind it are `turns` turns, of which each reads and produces so many."""

    shared: int
    turns: int
    read: int
    own: int

    @property
    def whole(self) -> int:
        """All of it."""
        return self.shared + self.turns * (self.read + self.own)


@dataclass(frozen=True)
class Trains:
    """A training. tokens: of one pass; packing: how rows lie in it."""

    tokens: int
    packing: str
    checkpointing: bool
    dropout: float


@dataclass(frozen=True)
class Plays:
    """Conversations. rows: of them at once, as the params say; active: as many as are under way in the mean. engine: that generates."""

    rows: int
    active: int
    engine: str


@dataclass(frozen=True)
class Way:
    """How a stage computes. threads, instructions: of one process; processes: side by side. adapter: rank, 0 for none. dtype: that it
    computes in."""

    work: Trains | Plays
    shape: Shape
    device: str
    threads: int
    instructions: str
    processes: int
    adapter: int
    dtype: str
    talk: Lengths

    def key(self) -> str:
        """Under which its speed is kept: the machine and what decides how fast a kernel is, not how long conversations are."""
        shape, about = self.shape, asdict(self.work)
        about.pop("active", None)
        sizes = [shape.layers, shape.width, shape.queries, shape.keys, shape.inner, shape.vocabulary]
        how = [self.device, self.threads, self.instructions, self.processes, self.adapter, self.dtype]
        return json.dumps([processor(), *how, sizes, about])


@dataclass
class Speeds:
    """Asked by stages. state: the state root. checkpoint: a folder that is measured with, None for random weights of the same sizes.
    calibrate: measure what is asked for. how: where the answers are from, in words."""

    state: Path
    project: Path
    checkpoint: Path | None = None
    calibrate: bool = False
    how: list[str] = field(default_factory=list)
    _fresh: set[str] = field(default_factory=set)

    def __call__(self, way: Way) -> Mapping[str, float]:
        """train, or read and produce: FLOP a second of one process. StageFailed when a measurement fails."""
        kept = (read_json(self.state / FILE) or {}).get(way.key())
        if self.calibrate and way.key() not in self._fresh:
            self._fresh.add(way.key())
            kept = self._measure(way)
        self._say(f"measured on this machine ({kept['how']})" if kept else ABOUT[way.device])
        if kept:
            return dict(kept["rates"])
        factor = BFLOAT16[way.instructions] if way.device == "cpu" and way.dtype == "bfloat16" else 1.0
        threads = 1 + THREAD * (way.threads - 1) if way.device == "cpu" else 1.0
        return {name: rate * threads * (factor if name != "produce" else 1.0) for name, rate in DEFAULT[way.device].items()}

    def _say(self, how: str) -> None:
        if how not in self.how:
            self.how.append(how)

    def _measure(self, way: Way) -> dict[str, Any]:
        """Measure in as many processes as compute side by side, each of which imports torch, and keep the mean."""
        spec = json.dumps({"way": asdict(way), "checkpoint": str(self.checkpoint or "")})
        command = [sys.executable, "-m", "flows.forecast.calibrate", spec]
        here = {**os.environ, **kernels(way.threads, way.instructions)}
        started = [
            subprocess.Popen(command, cwd=self.project, env=here, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(way.processes)
        ]
        try:
            found = [_answer(process) for process in started]
        finally:
            for process in started:
                with suppress(ProcessLookupError):
                    process.kill()
        names = found[0]
        rates = {name: fmean(one[name][0] for one in found) for name in names}
        tokens = {name: fmean(one[name][1] for one in found) for name in names}
        kept = {"rates": rates, "how": _in_words(way, tokens)}
        write_text(self.state / FILE, json.dumps({**(read_json(self.state / FILE) or {}), way.key(): kept}, indent=1))
        return kept


def _answer(process: subprocess.Popen[str]) -> Mapping[str, Sequence[float]]:
    """kind of work -> FLOP a second, tokens a second."""
    try:
        said, errors = process.communicate(timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        raise StageFailed(f"the measurement took more than {MOST_SECONDS} s and was ended; the default stays") from None
    if process.returncode:
        raise StageFailed(f"the measurement failed: {(errors.strip().splitlines() or ['it said nothing'])[-1]}")
    found: Mapping[str, Sequence[float]] = json.loads(said.splitlines()[-1])
    return found


def _in_words(way: Way, tokens: Mapping[str, float]) -> str:
    verbs = {"train": "trains", "read": "reads", "produce": "produces"}
    many = f"each of {way.processes} processes" if way.processes > 1 else "one process"
    speeds = ", ".join(f"{verbs[name]} {speed:,.0f}" for name, speed in tokens.items())
    return f"{many}, {way.threads} thread{'s' * (way.threads > 1)}, {way.dtype}: {speeds} tokens a second"
