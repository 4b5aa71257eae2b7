"""Merging against mergekit 0.1.5 and against a plain copy: wall time and memory of whole processes, and how they grow.

A base and three experts of random float32 weights, four shards each, below .cairn/tmp (deleted afterwards). One round: all inputs are
read once, so that the page cache holds them where memory suffices; then the copy, ours and mergekit take turns, in the other order
every second round; before each, earlier output is deleted and the disks are synced. Medians over the rounds are quoted, ratios are
those of medians, with the least and the largest of a round.

- ours: `cairn merge`, two threads. It ends when the output is on the disk (fsync).
- mergekit: `mergekit-yaml`, two threads, float32, its fastest settings (OPTIONS); it does not fsync.
- the copy: reads every input once and writes the base's bytes, in pieces of 8 MiB, then fsync; no process to start.

Memory is sampled every 20 ms over all of a command's processes: the sum of RssAnon (memory of its own) and of VmHWM (with pages of
mapped files, which the kernel takes back when others need room).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from threading import Event, Thread

from infra import checkpoints, peer
from infra.bench import ROOT
from infra.bench_quickstart import Bound, Figure, Line, show
from infra.oracle import Case
from tasks.engine import methods

THREADS = 2
SHARDS = 4
EXPERTS = 3
CASES = (
    Case("breadcrumbs", {"keep": 0.15, "trim_top": 0.006, "alpha": 0.4}),
    Case("ties", {"keep": 0.2, "alpha": 1.0}),
)
"""The defaults of both methods here."""
OPTIONS = ("--num-threads", str(THREADS), "--lazy-unpickle", "--async-write", "--write-threads", str(THREADS))
"""mergekit's fastest settings without a GPU; its output is sharded as the inputs are, which keeps its memory low."""
PERIOD = 0.02
"""Seconds between two looks at a command's memory."""
FAMILY = 10
"""Looks between two searches for a command's new processes."""
STATUS = re.compile(rb"^(RssAnon|VmHWM):\s+(\d+) kB$", re.M)
PIECE = 8 << 20
"""Bytes that the copy reads and writes at a time."""
UNITS = {"M": 10**6, "B": 10**9}
MIB = 1 << 20
STEADY = Bound("at most", 1.2)
"""Growth from the smallest to the largest size of what should not grow; a run's noise here is below 10 %."""


@dataclass(frozen=True)
class Run:
    """One command: wall seconds, CPU seconds of all its threads, peaks of anonymous and of all resident memory in bytes."""

    seconds: float
    cpu: float
    anonymous: int
    resident: int


class Watch(Thread):
    """Looks at the memory of a process and its descendants until it is told to end."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended = pid, Event()
        self.anonymous = self.resident = 0

    def run(self) -> None:
        """Look, every PERIOD; look for new processes at every FAMILY-th turn, which costs more."""
        pids = [self._pid]
        for turn in count():
            if turn % FAMILY == 0:
                pids = tree(self._pid)
            found = [memory(pid) for pid in pids]
            self.anonymous = max(self.anonymous, sum(anonymous for anonymous, _ in found))
            self.resident = max(self.resident, sum(resident for _, resident in found))
            if self._ended.wait(PERIOD):
                return

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join()


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children", "rb") as stream:
                    found += map(int, stream.read().split())
        except OSError:  # it has just ended
            continue
    return found


def memory(pid: int) -> tuple[int, int]:
    """(RssAnon, VmHWM) of a process in bytes; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as stream:
            said = dict(STATUS.findall(stream.read()))
    except OSError:
        return 0, 0
    return int(said.get(b"RssAnon", 0)) << 10, int(said.get(b"VmHWM", 0)) << 10


def timed(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Run a command to its end. SystemExit with what it said last when it fails."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
        watch = Watch(process.pid)
        watch.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # we are told to end: so is the command
            process.kill()
            raise
        seconds = time.perf_counter() - start
        watch.end()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command[:4])} ended with {process.returncode}:\n{said.read()[-2000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, watch.anonymous, watch.resident)


def copy(folder: Path, out: Path) -> float:
    """Seconds for reading every input once and writing the base's bytes to `out`, down to the disk."""
    start = time.perf_counter()
    out.mkdir()
    with ExitStack() as stack:
        written = []
        for source in sorted((folder / "base").glob("*.safetensors")):
            target = stack.enter_context((out / source.name).open("wb", buffering=0))
            written.append(target)
            for piece in pieces(source):
                target.write(piece)
        for source in sorted(folder.glob("expert_*/*.safetensors")):
            for _ in pieces(source):
                pass
        for target in written:  # last, so that most of it is on the disk by then
            os.fsync(target.fileno())
    return time.perf_counter() - start


def pieces(file: Path) -> Iterator[memoryview]:
    """A file's bytes; each piece is overwritten by the next."""
    buffer = memoryview(bytearray(PIECE))
    with file.open("rb", buffering=0) as stream:
        while length := stream.readinto(buffer):
            yield buffer[:length]


def warm(folder: Path) -> None:
    """Read every input once."""
    for file in sorted(folder.glob("*/*.safetensors")):
        for _ in pieces(file):
            pass


@dataclass(frozen=True)
class Size:
    """What was measured at one size. runs: by (method, side), sides "ours" and "mergekit"; copies: seconds of the plain copy; split:
    by method, seconds of both threads together by what was done, and `wall`."""

    label: str
    model: checkpoints.Model
    runs: Mapping[tuple[str, str], Sequence[Run]]
    copies: Sequence[float]
    split: Mapping[str, Mapping[str, float]]

    def median(self, method: str, side: str, what: Callable[[Run], float]) -> float:
        """Of one side's runs."""
        return statistics.median(what(run) for run in self.runs[method, side])


def measure(label: str, rounds: int, against: bool, home: Path) -> Size:
    """Make the checkpoints of one size, run all rounds, delete them. against: mergekit too."""
    model = checkpoints.of_size(parse(label))
    folder, out = home / label, home / "out"
    _check_room(home, model)
    print(f"{label}: {model.parameters:,} parameters are drawn, {1 + EXPERTS} times ({model.parameters * 16 / 1e9:.1f} GB)", flush=True)
    checkpoints.family(folder, model, EXPERTS, shards=SHARDS)
    runs: dict[tuple[str, str], list[Run]] = {}
    copies: list[float] = []
    sides = [(case, side) for case in CASES for side in ("ours", "mergekit") if against or side == "ours"]
    for number in range(rounds):
        warm(folder)
        for turn in _turned([None, *sides], number):
            _clear(out)
            if turn is None:
                copies.append(copy(folder, out))
                continue
            case, side = turn
            run = timed(*_command(case, side, folder, model, home, out))
            runs.setdefault((case.method, side), []).append(run)
            print(f"  round {number + 1}: {case.method}, {side}: {run.seconds:.1f} s, {run.anonymous / MIB:.0f} MiB", flush=True)
        print(f"  round {number + 1}: copy: {copies[-1]:.1f} s", flush=True)
    split = {case.method: _split(case, folder, home, out) for case in CASES}
    _clear(out)
    shutil.rmtree(folder)
    return Size(label, model, runs, copies, split)


def _turned(sides: Sequence[tuple[Case, str] | None], number: int) -> Sequence[tuple[Case, str] | None]:
    return sides[::-1] if number % 2 else sides


def _clear(out: Path) -> None:
    """No output, and nothing on its way to the disk that a run would have to wait for."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def _check_room(home: Path, model: checkpoints.Model) -> None:
    wanted = model.parameters * 4 * (1 + EXPERTS + 1) + (1 << 30)
    free = shutil.disk_usage(home).free
    if free < wanted:
        raise SystemExit(f"{wanted / 1e9:.0f} GB are needed below {home.relative_to(ROOT)}, {free / 1e9:.0f} GB are free")


def _command(case: Case, side: str, folder: Path, model: checkpoints.Model, home: Path, out: Path) -> tuple[list[str], dict[str, str]]:
    """(command line, environment) of one side."""
    file = home / f"{side}.yaml"
    if side == "mergekit":
        file.write_text(json.dumps(case.configuration(folder)), encoding="utf-8")
        return peer.command(file, out, [*OPTIONS, "--out-shard-size", str(model.parameters // SHARDS)]), peer.environment()
    experts = {name: str(folder / name) for name in case.experts}
    recipe = {"method": case.method, "base": str(folder / "base"), "experts": experts, "params": dict(case.params)}
    file.write_text(json.dumps(recipe), encoding="utf-8")
    return [sys.executable, "-m", "flows.cli", "merge", str(file), str(out), "--threads", str(THREADS)], dict(os.environ)


def _split(case: Case, folder: Path, home: Path, out: Path) -> dict[str, float]:
    """Where the time of both threads goes, from one more merge inside this process; `wall` is its own."""
    from tasks.merge.core.engine import merge
    from tasks.merge.core.plan import make_plan

    _clear(out)
    module = methods.load("merge", case.method)
    params = module.Params(**case.params)
    scratch = home / "scratch"
    scratch.mkdir()
    start = time.perf_counter()
    plan = make_plan(folder / "base", {name: folder / name for name in case.experts}, params)
    report = merge(plan, module.formula(params), out, params, scratch=scratch, metadata={}, workers=THREADS)
    seconds = time.perf_counter() - start
    shutil.rmtree(scratch)
    return {**report.seconds, "wall": seconds}


def parse(label: str) -> int:
    """125M -> 125,000,000."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MB])", label)
    if not found:
        raise SystemExit(f"size {label!r}: allowed are numbers of parameters such as 125M or 1B")
    return round(float(found[1]) * UNITS[found[2]])


def lines(size: Size) -> list[Line]:
    """The table of one size."""
    found = []
    for case in CASES:
        method = case.method
        if (method, "mergekit") in size.runs:
            found += _against_mergekit(size, method)
        found += [_against_copy(size, method), *_time(size, method)]
    return found


def _seconds(run: Run) -> float:
    return run.seconds


def _ratio(size: Size, method: str, over: str, under: str, what: Callable[[Run], float]) -> Figure:
    """One side's median over the other's; spread: over the rounds."""
    rounds = [what(a) / what(b) for a, b in zip(size.runs[method, over], size.runs[method, under], strict=True)]
    mean = size.median(method, over, what) / size.median(method, under, what)
    return Figure(mean, spread=(min(rounds), max(rounds)) if len(rounds) > 1 else None)


def _against_mergekit(size: Size, method: str) -> list[Line]:
    def both(what: Callable[[Run], float], form: str) -> str:
        return ", ".join(f"{side} {form.format(size.median(method, side, what))}" for side in ("mergekit", "ours"))

    wall = _ratio(size, method, "mergekit", "ours", _seconds)
    anonymous = _ratio(size, method, "ours", "mergekit", lambda run: run.anonymous)
    resident = _ratio(size, method, "ours", "mergekit", lambda run: run.resident)
    in_mib = {
        "anonymous": both(lambda run: run.anonymous / MIB, "{:.0f} MiB"),
        "resident": both(lambda run: run.resident / MIB, "{:.0f} MiB"),
    }
    return [
        Line(
            f"{method}: wall time, mergekit / ours",
            replace(wall, note=both(_seconds, "{:.2f} s")),
            Bound("at least", 5),
            Bound("at least", 10),
        ),
        Line(
            f"{method}: peak anonymous memory, ours / mergekit",
            replace(anonymous, note=in_mib["anonymous"]),
            Bound("at most", 0.5),
            Bound("at most", 0.25),
        ),
        Line(f"{method}: peak RSS with mapped files, ours / mergekit", replace(resident, note=in_mib["resident"])),
    ]


def _against_copy(size: Size, method: str) -> Line:
    rounds = [run.seconds / copied for run, copied in zip(size.runs[method, "ours"], size.copies, strict=True)]
    copied, ours = statistics.median(size.copies), size.median(method, "ours", _seconds)
    gigabytes = size.model.parameters * 4 * (1 + EXPERTS + 1) / 1e9
    note = f"ours {ours:.2f} s, {gigabytes / ours:.2f} GB/s read and written; copy {copied:.2f} s, {gigabytes / copied:.2f} GB/s"
    figure = Figure(ours / copied, note=note, spread=(min(rounds), max(rounds)) if len(rounds) > 1 else None)
    return Line(f"{method}: wall time, ours / plain copy", figure, Bound("at most", 4), Bound("at most", 2))


def _time(size: Size, method: str) -> list[Line]:
    """How our time splits: seconds of both threads together, and their shares."""
    split = size.split[method]
    whole = THREADS * split["wall"]
    parts = {name: seconds for name, seconds in split.items() if name != "wall"}
    parts["rest (waits, fsync)"] = whole - sum(parts.values())
    around = size.median(method, "ours", _seconds) - split["wall"]
    busy = size.median(method, "ours", lambda run: run.cpu / run.seconds)
    found = [
        Line(f"{method}: cores busy, of {THREADS}", Figure(busy)),
        Line("  start and end of the process, s", Figure(around)),
    ]
    return found + [
        Line(f"  {name}, thread seconds", Figure(seconds, note=f"{seconds / whole:.0%}")) for name, seconds in parts.items()
    ]


def growth(sizes: Sequence[Size]) -> list[Line]:
    """Ours from the smallest size to the largest: the time an entry takes, and memory, should not grow."""
    found = []
    for case in CASES:
        rate = [size.median(case.method, "ours", _seconds) / size.model.parameters * 1e9 for size in sizes]
        memory = [size.median(case.method, "ours", lambda run: run.anonymous) / MIB for size in sizes]
        for size, each, peak in zip(sizes, rate, memory, strict=True):
            seconds = each * size.model.parameters / 1e9
            note = f"{seconds:.2f} s, {each:.1f} ns a parameter; largest tensor {size.model.largest * 4 / MIB:.0f} MiB"
            found.append(Line(f"{case.method}, {size.label}: peak anonymous memory, MiB", Figure(peak, note=note)))
        ends = f"{sizes[-1].label} / {sizes[0].label}"
        found += [
            Line(f"{case.method}: seconds a parameter, {ends}", Figure(rate[-1] / rate[0]), STEADY),
            Line(f"{case.method}: peak anonymous memory, {ends}", Figure(memory[-1] / memory[0]), STEADY),
        ]
    return found


def write(target: Path, tables: Mapping[str, Sequence[Line]], rounds: int) -> None:
    """Write the tables down."""

    def plain(table: Sequence[Line]) -> list[dict[str, object]]:
        return [
            {**asdict(line), "required": str(line.required or ""), "aim": str(line.aim or ""), "verdict": line.verdict}
            for line in table
        ]

    record = {
        "bench": "merge",
        "rounds": rounds,
        "cores": os.cpu_count(),
        "threads": THREADS,
        "memory_gb": round(_available("MemTotal") / 1e9, 1),
        "mergekit": ["mergekit-yaml", *peer.QUIET, *OPTIONS],
        "tables": {title: plain(table) for title, table in tables.items()},
        "python": platform.python_version(),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _available(what: str) -> int:
    """A line of /proc/meminfo in bytes."""
    return int(re.findall(rf"^{what}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)[0]) << 10


def _title(size: Size, rounds: int) -> str:
    held = size.model.parameters * 4 * (1 + EXPERTS + 1) < _available("MemAvailable")
    cache = "inputs warm" if held else "inputs and output exceed the page cache"
    return f"{size.label}: {size.model.parameters / 1e6:.0f} M parameters, 1 + {EXPERTS} models, {cache}; median of {rounds} (min..max)"


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="125M", metavar="N,N", help="against mergekit, e.g. 125M,500M")
    parser.add_argument("--growth", default="", metavar="N,N", help="ours alone, for the growth table, e.g. 250M,1B")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    against = [label for label in asked.sizes.split(",") if label]
    alone = [label for label in asked.growth.split(",") if label and label not in against]
    labels = sorted({*against, *alone}, key=parse)
    home = ROOT / ".cairn" / "tmp"
    home.mkdir(parents=True, exist_ok=True)
    target = ROOT / "reports" / "bench" / "merge.json"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the checkpoints are deleted then, too
    if against:
        subprocess.run(peer.command(Path("--help"), Path("--help")), env=peer.environment(), check=True, stdout=subprocess.DEVNULL)
    sizes: list[Size] = []
    tables: dict[str, list[Line]] = {}
    with tempfile.TemporaryDirectory(dir=home) as folder:
        for label in labels:
            size = measure(label, asked.rounds, label in against, Path(folder))
            sizes.append(size)
            tables[_title(size, asked.rounds)] = lines(size)
            if len(sizes) > 1:
                tables["growth"] = growth(sizes)
            write(target, tables, asked.rounds)
    for title, table in tables.items():
        show(title, table)
    print(f"also in {target.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
