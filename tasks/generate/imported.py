"""Conversations that were recorded elsewhere: logs of an agent in use, exports of other tools, runs of a benchmark.

What it leaves has the files of any method of the room, so that critics, filter, fine-tuning and evaluation take its rows like any
other. Read are JSON lines, JSON, Parquet, folders of the `datasets` library and what `cairn serve` keeps; the shapes are in
`parts/imported/formats.py`. Each conversation is held against the world's tools and replayed where the state can be rebuilt
(`parts/imported/checked.py`); personal data is masked after that, before anything is written. Splits are by customer.

Departures: No departure; this is no paper's method.

Cost: reading, masking and writing some 0.5 ms a conversation, and its calls; one piece of a file is in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.contract.values import whole_text
from tasks.generate import Inputs
from tasks.generate.parts.imported import files, formats, kept
from tasks.generate.parts.imported.checked import STATUSES, Checker, Refused, Taken
from tasks.generate.parts.imported.masking import PATTERNS, Masks
from tasks.generate.parts.imported.record import Record, Unreadable
from tasks.worlds.api.frozen import load_all
from tasks.worlds.api.system_prompt import system_message

TITLE = "Recorded conversations"
PAPER = ""
SLUG = ""

STRANGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of what stands in a log that fits a shape at first sight: such a conversation is left out, and ends nothing."""
SHOWN = 5
"""Reasons in a message; ours."""
LOOKED_AT = 200
"""Conversations that are looked at before a run; ours."""


class Params(base.Params):
    """Which logs, whose they are, and what is masked."""

    PLACE: ClassVar[str] = "source"
    PLACE_HOLDS: ClassVar[str] = "files"

    source: str = Field("", description="a file of logs, or a folder of them; `cairn import FILE...` fills it in")
    identity: str = Field("", description="its bytes, which a key holds instead of the place; Cairn says it when it is missing")
    shape: Literal["", "openai", "sharegpt", "xlam", "tau2", "mlflow", "served", "cairn"] = Field(
        "", description="how a conversation is written; empty: found out for each"
    )
    world: str = Field("", description="the world that they are about; empty: the one that has their tools")
    rename: dict[str, str] = Field({}, description="name of a tool in the logs -> its name in the world")
    customer: str = Field(
        "customer", description="dotted field of a line that says whom it is about, which splits go by; without one who was identified"
    )
    mask: tuple[str, ...] = Field(tuple(PATTERNS), description=f"personal data that is masked, of {', '.join(PATTERNS)}")
    mask_fields: tuple[str, ...] = Field((), description="names of arguments and of keys in answers whose values are masked everywhere")
    longest_message: int = Field(
        200_000, ge=1, description="characters of a message; a conversation with a longer one is left out; ours"
    )
    max_left_out: float = Field(
        0.2, ge=0, le=1, description="stop when a larger share of the conversations cannot be read, or is about no world; ours"
    )
    shard_size: int = Field(1, ge=1, le=1024, description="pieces of files per unit of caching and retry; changes no result")


class TooManyLeftOut(StageFailed):
    """More than max_left_out cannot be taken. figures: what became of all of them."""

    figures: Mapping[str, Any] = MappingProxyType({})


def check(params: Params) -> None:
    """Raise BadInput for kinds of personal data that nobody knows."""
    for kind in params.mask:
        if kind not in PATTERNS:
            raise BadInput(f"mask: no kind of personal data is called {kind!r}.{nearest(kind, PATTERNS)} Known: {', '.join(PATTERNS)}.")


def preflight(inputs: Inputs, params: Params, prompt: Mapping[str, str]) -> None:
    """Look at the first piece, before anything is paid. BadInput when nothing in it can be taken."""
    assert inputs.source is not None
    checker, found = _checker(inputs, params, 0, prompt), _Counts()
    if (first := next(files.pieces(inputs.source, params.shape), None)) is not None:
        for _ in islice(_taken(checker, inputs.source, first, params, found), LOOKED_AT):
            pass
    if not found.kept:
        raise BadInput(f"no conversation can be taken from its beginning: {found.why()}")


@dataclass
class _Counts:
    """Conversations by what became of them; `left_out` adds up by reason."""

    status: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    differs: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    cut_off: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    ratings: Counter[str] = field(default_factory=Counter)
    blueprints: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Conversations that are taken."""
        return sum(self.status.values())

    @property
    def read(self) -> int:
        """All that were met."""
        return self.kept + sum(self.left_out.values())

    def take(self, taken: Taken) -> None:
        """Count a conversation that is taken."""
        self.status[taken.status] += 1
        if taken.differs:
            self.differs[taken.differs] += 1
        if taken.cut_off:
            self.cut_off[taken.cut_off] += 1
        self.masked.update(taken.masked)
        self.splits[taken.row["split"]] += 1
        self.ratings.update(row["kind"] for row in taken.feedback)

    def leave_out(self, where: str, why: str) -> None:
        """Count one that is not."""
        self.left_out[why.partition(":")[0]] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{where}: {why}")

    def add(self, piece: Mapping[str, Any]) -> None:
        """Add the counts of a piece, as JSON."""
        for name in ("status", "left_out", "differs", "cut_off", "masked", "splits", "ratings"):
            getattr(self, name).update(piece[name])
        self.examples += piece["examples"][: SHOWN - len(self.examples)]

    def why(self) -> str:
        """Reasons for which conversations were left out, with examples."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common(SHOWN)) or "it holds none"
        return f"{reasons}{'; such as ' + '; '.join(self.examples) if self.examples else ''}"

    def figures(self) -> dict[str, Any]:
        """Everything as JSON; status and left_out add up to read."""
        return {
            "conversations": {"read": self.read, "kept": self.kept, **{name: self.status[name] for name in STATUSES}},
            "left_out": dict(sorted(self.left_out.items())),
            "answered_otherwise": {name: count for name, count in sorted(self.differs.items()) if count},
            "unfinished": dict(sorted(self.cut_off.items())),
            "problems": dict(sorted(self.blueprints.items())),
            "splits": dict(sorted(self.splits.items())),
            "masked": dict(sorted(self.masked.items())),
            "feedback": dict(sorted(self.ratings.items())),
            "stopped": "",
        }


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Leave trajectories.parquet, blueprints.parquet, feedback.parquet and left_out.parquet; returns counts, which add up.

    Raises StageFailed when more than max_left_out of the conversations cannot be taken.
    """
    assert inputs.source is not None
    pieces = list(files.pieces(inputs.source, params.shape))
    work, counts, folders = _work(inputs, params, ctx), _Counts(), list[Path]()
    for done, results in enumerate(ctx.shards("logs", work, [*enumerate(pieces)], params.shard_size), 1):
        for number, said in results:
            folders.append(_folder(ctx, number))
            counts.add(said)
        ctx.progress(min(done * params.shard_size, len(pieces)), len(pieces), f"{counts.kept:,} conversations taken")
    counts.blueprints = kept.put_together(folders, ctx.out)
    if not counts.read:
        raise StageFailed(f"generate: no conversation lies in {inputs.source.name}")
    if not counts.kept or counts.read - counts.kept > params.max_left_out * counts.read:
        failed = TooManyLeftOut(
            f"generate: {counts.read - counts.kept:,} of {counts.read:,} recorded conversations cannot be taken, more than "
            f"max_left_out = {params.max_left_out:g}: {counts.why()}. Under generate.imported in params/pipeline.yaml `rename` maps "
            "tools of other names, `shape` says how lines are written, and `max_left_out` which share may be left out."
        )
        failed.figures = {**counts.figures(), "stopped": str(failed)}
        raise failed
    return counts.figures()


def _folder(ctx: Context, number: int) -> Path:
    return ctx.scratch / "pieces" / f"{number:06d}"


def _work(inputs: Inputs, params: Params, ctx: Context) -> Any:
    """The work of a shard: (number, piece) of files -> (number, counts of what became of its conversations). Their rows are left in the
    piece's folder: a million of them never are in memory at once."""
    checker = _checker(inputs, params, ctx.seed, ctx.prompt)
    source = inputs.source
    assert source is not None

    def work(pieces: Sequence[tuple[int, files.Piece]]) -> list[tuple[int, dict[str, Any]]]:
        made = []
        for number, piece in pieces:
            counts = _Counts()
            kept.write(_folder(ctx, number), _taken(checker, source, files.Piece(*piece), params, counts))
            made.append((number, vars(counts)))
        return made

    return work


def _checker(inputs: Inputs, params: Params, seed: int, prompt: Mapping[str, str]) -> Checker:
    worlds = load_all(inputs.worlds)
    if params.world and params.world not in worlds:
        raise BadInput(
            f"world = {params.world!r}: is not among the worlds.{nearest(params.world, worlds)} They are {', '.join(worlds)}."
        )
    system = {name: system_message(world, prompt) for name, world in worlds.items()}
    masks = Masks(params.mask, params.mask_fields)
    return Checker(worlds, params.world, params.rename, masks, params.customer, system, seed)


def _taken(checker: Checker, source: Path, piece: files.Piece, params: Params, counts: _Counts) -> Iterator[Taken | tuple[str, str]]:
    """What is taken of a piece, and (where, why) of what is not; both are counted."""
    for where, record in _records(source, piece, params):
        why = record if isinstance(record, str) else ""
        try:
            if isinstance(record, Record):
                found = checker.take(record, where)
        except Refused as error:
            why = str(error)
        except STRANGE as error:
            why = f"unreadable: {type(error).__name__} {error}"
        if why:
            why = checker.masks.of().text(whole_text(why))
            counts.leave_out(where, why)
            yield where, why
        else:
            counts.take(found)
            yield found


def _records(source: Path, piece: files.Piece, params: Params) -> Iterator[tuple[str, Record | str]]:
    """(where, conversation, or why there is none)."""
    for line in files.lines(source, piece, params.shape):
        if line.wrong:
            yield line.where, f"unreadable: {line.wrong}"
            continue
        try:
            for number, record in enumerate(formats.records(line.value, params.longest_message, params.shape)):
                yield f"{line.where}/{number}" if number else line.where, record
        except STRANGE as error:
            said = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__} {error}"
            yield line.where, f"unreadable: {said}"
