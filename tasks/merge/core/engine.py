"""The merge engine: streams tensor by tensor and block by block, asks the method for its formula, writes the sum, keeps count.

For one tensor: the method looks at it as a whole (thresholds, angles); then for each block d_i = theta_i - theta_0 in float32, the
method's blend, theta = theta_0 + blend, rounded once to the stored dtype. Integer tensors are copied from the base. Tensors are
independent, so any number of threads gives the same bytes; memory is a few blocks a thread, whatever the model's size.

A killed merge goes on where it was: finished tensors stand in a journal beside the half-written folder, which takes its name when
all is done.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.contract.params import BadInput
from tasks.merge.core.headers import Array, Mapped, narrow, widen
from tasks.merge.core.params import MergeParams
from tasks.merge.core.plan import Plan
from tasks.merge.core.tally import Tally
from tasks.merge.core.tensors import BLOCK, Block, Tensor
from tasks.merge.core.vocabulary import is_table
from tasks.merge.core.write import Writer

VERSION = 2
"""Of the journal: raised when the engine would write other bytes for the same inputs."""
SLACK = 64 << 20
"""Room on the disk beside the weights, bytes: tokenizer, report, journal."""


@dataclass(frozen=True)
class Look:
    """What a method makes of one tensor. blend(block): the change to add to the block's base, float32 of its length; blocks come
    once each, in flat order. stats: one mapping per expert for the report, over and above the columns of `tally`; read after the last
    block."""

    blend: Callable[[Block], Array]
    stats: Sequence[Mapping[str, Any]] = ()


Formula = Callable[[Tensor], Look]
"""A method: how it looks at a tensor. Noise depends on the tensor's name, the expert's label and the flat index alone."""


@dataclass
class Report:
    """What was merged. rows: for the report. norms: per expert, L2 of its task vector over L2 of the base, matrices only.
    seconds: of all threads together, by what was done (not part of the artifact)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    tensors: int = 0
    copied: int = 0
    parameters: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """One finished tensor, as the journal keeps it."""

    name: str
    rows: list[dict[str, Any]]
    base_square: float
    squares: list[float]
    numel: int
    merged: bool
    seconds: dict[str, float] = field(default_factory=dict)


def merge(
    plan: Plan,
    formula: Formula,
    folder: Path,
    params: MergeParams,
    *,
    scratch: Path,
    metadata: Mapping[str, str],
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Write the merged checkpoint to `folder` (which must not exist yet) and return the report.

    scratch: holds the half-written checkpoint and its journal; a later call with the same inputs goes on from there.
    Raises BadInput, naming the tensor, for NaN and infinities, naming the expert for a base that is not its base, and for a full
    disk; then nothing is left behind.
    """
    partial, journal = scratch / "merge" / "model", scratch / "merge" / "done.jsonl"
    done = _finished(journal, partial, _fingerprint(plan, params, metadata))
    if not done:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        _check_room(partial, sum(spec.nbytes for spec in plan.specs.values()))
        with (
            Writer(plan, partial, metadata, params.max_shard_bytes, goes_on=bool(done)) as writer,
            closing(_work(plan, formula, params, writer, workers, done)) as work,  # before the writer: its files stay open till then
        ):
            for one in work:
                done[one.name] = one
                with journal.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(one)) + "\n")
                if progress is not None:
                    progress(len(done), len(plan.specs), "tensors")
        report = _report(plan, done)
        _refuse_foreign(report.norms, params.max_relative_delta)
    except BadInput:
        shutil.rmtree(partial.parent)
        raise
    os.replace(partial, folder)
    shutil.rmtree(partial.parent)
    return report


def _fingerprint(plan: Plan, params: MergeParams, metadata: Mapping[str, str]) -> str:
    """Names the inputs of a merge for its journal; a restart of the machine makes it another, since pages may have been lost."""
    files = sorted(file for part in (plan.base, *plan.experts) for file in part.folder.iterdir() if file.is_file())
    boot = Path("/proc/sys/kernel/random/boot_id")
    said = {
        "version": VERSION,
        "boot": boot.read_text().strip() if boot.exists() else "",
        "params": params.model_dump(mode="json"),
        "metadata": dict(metadata),
        "files": [(str(file), (about := file.stat()).st_size, about.st_mtime_ns) for file in files],
    }
    return hashlib.md5(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _finished(journal: Path, partial: Path, fingerprint: str) -> dict[str, Done]:
    """What an earlier, killed call finished; a journal of other inputs, or one that outlived its folder, is started anew."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() and partial.exists() else []
    if not lines or lines[0] != fingerprint:
        shutil.rmtree(journal.parent, ignore_errors=True)
        journal.parent.mkdir(parents=True)
        journal.write_text(fingerprint + "\n", encoding="utf-8")
        return {}
    done = {}
    for line in lines[1:]:
        try:
            one = Done(**json.loads(line))
        except ValueError:
            break  # the line that was being written when it was killed
        done[one.name] = one
    kept = [fingerprint, *(json.dumps(asdict(one)) for one in done.values())]
    journal.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return done


def _check_room(partial: Path, needed: int) -> None:
    there = sum(file.stat().st_blocks * 512 for file in partial.iterdir())
    free = shutil.disk_usage(partial).free + there
    if needed + SLACK > free:
        raise BadInput(f"merge: the merged model needs {needed / 1e9:.2f} GB, {partial} has {free / 1e9:.2f} GB free. Make room.")


def _work(
    plan: Plan, formula: Formula, params: MergeParams, writer: Writer, workers: int, done: Mapping[str, Done]
) -> Generator[Done, None, None]:
    """Tensors as they get finished, the largest first; as many at a time as there are workers."""
    todo = sorted((name for name in plan.specs if name not in done), key=lambda name: (plan.specs[name].nbytes, name))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        running: set[Future[Done]] = set()
        try:
            while todo or running:
                while todo and len(running) < workers:
                    running.add(pool.submit(_one, plan, formula, params, writer, todo.pop()))
                    if todo:
                        _read_ahead(plan, todo[-1])
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


def _read_ahead(plan: Plan, name: str) -> None:
    plan.stored(name).ahead()
    for expert in plan.experts:
        if name in (tensors := getattr(expert, "tensors", {})):
            Mapped(tensors[name]).ahead()


def _one(plan: Plan, formula: Formula, params: MergeParams, writer: Writer, name: str) -> Done:
    """Merge and write one tensor."""
    spec = plan.specs[name]
    if not spec.is_float or params.excludes(name):
        _copy(plan, writer, name)
        return Done(name, [], 0.0, [0.0] * len(plan.experts), spec.numel, merged=False)
    clock = _Clock()
    tensor = plan.tensor(name, params)
    look = formula(tensor)
    clock.lap("select")
    tally = Tally(len(tensor.labels))
    for block in clock.each(tensor.blocks(), "read"):
        tally.before(block)
        clock.lap("report")
        change = look.blend(block)
        clock.lap("combine")
        tally.after(block)
        clock.lap("report")
        stored = narrow(np.add(block.base, change, out=change), spec.dtype)
        _finite(stored, spec.dtype, name)
        writer.put(name, block.start, stored)
        clock.lap("write")
    rows = tally.rows(tensor, look.stats)
    return Done(name, rows, *tally.moved(tensor), tensor.numel, merged=True, seconds=clock.seconds)


class _Clock:
    """Where one tensor's time goes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self._last
        self._last = now

    def each(self, blocks: Iterator[Block], what: str) -> Iterator[Block]:
        for block in blocks:
            self.lap(what)
            yield block


def _copy(plan: Plan, writer: Writer, name: str) -> None:
    """A tensor that is not merged, as the base has it; new rows of a table that is excluded are those of `tensors.Values`."""
    spec = plan.specs[name]
    if (plan.union is not None and is_table(name)) or spec.dtype != plan.base.tensors[name].dtype:
        for block in plan.tensor(name, MergeParams()).blocks():
            stored = narrow(block.base, spec.dtype)
            _finite(stored, spec.dtype, name)
            writer.put(name, block.start, stored)
        return
    whole = plan.stored(name).flat
    for start in range(0, spec.numel, BLOCK):
        writer.put(name, start, whole[start : start + BLOCK])


def _finite(stored: Array, dtype: str, name: str) -> None:
    values = widen(stored, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not np.isfinite(np.add.reduce(values, axis=None))
    if suspect and not np.isfinite(values).all():
        raise BadInput(f"the merged model: tensor {name!r} holds NaN or infinity: the sum leaves the range of {dtype}")


def _report(plan: Plan, done: Mapping[str, Done]) -> Report:
    report = Report()
    for one in sorted(done.values(), key=lambda one: one.name):
        report.rows += one.rows
        report.tensors += 1
        report.copied += not one.merged
        report.parameters += one.numel
        for what, seconds in one.seconds.items():
            report.seconds[what] = report.seconds.get(what, 0.0) + seconds
    base = math.fsum(one.base_square for one in done.values())
    for index, label in enumerate(plan.labels):
        moved = math.fsum(one.squares[index] for one in done.values())
        report.norms[label] = math.sqrt(moved / base) if base else 0.0
    return report


def _refuse_foreign(norms: Mapping[str, float], limit: float) -> None:
    for label, norm in norms.items():
        if norm > limit:
            raise BadInput(
                f"{label}: its weights differ from the base's by {norm:.3g} times the base's own norm (allowed: {limit:g}). "
                "An unrelated checkpoint of the same architecture looks like this: give the one that it was trained from, "
                "or raise max_relative_delta if it truly moved that far."
            )
