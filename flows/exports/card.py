"""The card of an exported data set: README.md with a YAML head that hubs read, then what the artifact's rows and record say.

Every number is counted from the rows that lie there, or stands in the record of the run that made them; what neither knows is said to
be unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from flows.exports.sources import PARTS, Source
from flows.markdown_text import cell, heading, table
from tasks.engine import roles_lock

SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
"""The size categories of the Hugging Face hub, by their upper limits."""
DATA_ROLES = ("generator", "judge", "feedback", "recombiner", "human", "human_critic", "agent")
"""Roles that shape the rows, in the order in which they come up."""

OWN = {"scripted", "local"}
"""Backends that cost nothing: they run in this process."""


@dataclass
class Counts:
    """What an export counted on its way. played: conversations by won or lost; lost: by failing part; written: (split, world) -> rows;
    families: (world, family) -> rows written; stops: of all conversations; dropped: reason -> conversations that a filter left out."""

    played: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    written: Counter[tuple[str, str]] = field(default_factory=Counter)
    families: Counter[tuple[str, str]] = field(default_factory=Counter)
    players: dict[str, Counter[str]] = field(default_factory=lambda: {"agent": Counter(), "human": Counter()})
    beside: int = 0
    """Turns written that speak and call at once: in the ShareGPT-like shape the words stand in `about` alone."""
    shared: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """(world, entry of a lineage or problem) -> splits in which it was written."""

    def see(self, row: Mapping[str, Any], room: str) -> None:
        """Count one conversation of the source."""
        self.played["won" if row["reward"] else "lost"] += 1
        self.stops[row["stop"]] += 1
        self.lost.update(part for part in PARTS if not row[part])
        if room == "filter" and not row["accepted"]:
            self.dropped[row["reason"]] += 1

    def write(self, row: Mapping[str, Any]) -> None:
        """Count one conversation that is exported."""
        self.written[row["split"], row["world"]] += 1
        self.families[row["world"], row["family"]] += 1
        for role, names in self.players.items():
            names[row[role]] += 1
        for entry in (row["problem_id"], *row["lineage"]):
            self.shared.setdefault((row["world"], entry), set()).add(row["split"])
        self.beside += sum(bool(message["content"] and message["tool_calls"]) for message in row["messages"])


@dataclass(frozen=True)
class Details:
    """What the card is told besides the source and the counts. files: split -> path inside the data set."""

    files: Mapping[str, str]
    format: str
    license: str
    accepted_only: bool


def card(source: Source, counts: Counts, details: Details) -> str:
    """The text of README.md."""
    parts = [_head(counts, details), *_what(source, counts, details), *_funnel(source, counts), *_roles(source, counts), *_made(source)]
    return "\n".join(parts).rstrip() + "\n"


def _head(counts: Counts, details: Details) -> str:
    total = sum(counts.written.values())
    size = next((name for limit, name in SIZES if total < limit), "10M<n<100M")
    files = [{"split": split, "path": path} for split, path in details.files.items()]
    head = {
        "license": details.license,
        "tags": ["cairn", "synthetic", "function-calling"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _what(source: Source, counts: Counts, details: Details) -> Iterator[str]:
    worlds = sorted({world for _, world in counts.written})
    which = {"generate": "won", "filter": "kept"}[source.room] if details.accepted_only else "all"
    yield f"# Conversations of an agent with tools: {', '.join(worlds)}"
    yield ""
    shape = {"messages": "`messages` and `tools` in the OpenAI shape", "sharegpt": "ShareGPT-like `conversations`, `system`, `tools`"}
    yield f"{sum(counts.written.values())} conversations ({which}) of a simulated user with an agent that has tools and a policy, as"
    yield f"{shape[details.format]}. `id` names a conversation, `problem_id` what it was about, `lineage` what it shares with others"
    both = sum(len(splits) > 1 for splits in counts.shared.values())
    yield f"(a customer, the tasks that it was made of). {both} problems or entries of a lineage are in more than one split."
    if details.format == "sharegpt" and counts.beside:
        yield ""
        yield f"In {counts.beside} turns the agent speaks and calls at once; this shape keeps the words in the turn's `about` alone."
    splits = list(details.files)
    yield from _table(
        ["world", *splits], [[world, *(str(counts.written[split, world]) for split in splits)] for world in worlds], "Conversations"
    )
    families = [[world, family or "(none)", str(n)] for (world, family), n in sorted(counts.families.items())]
    yield from _table(["world", "family", "conversations"], families, "Families")


def _funnel(source: Source, counts: Counts) -> Iterator[str]:
    yield from heading("Yield of each stage")
    lines: list[list[str]] = []
    if source.generate is not None:
        lines += _blueprints(source)
    played = counts.played.total()
    stops = ", ".join(f"{name} {n}" for name, n in sorted(counts.stops.items()))
    lost = ", ".join(f"{name} {n}" for name, n in sorted(counts.lost.items()))
    lines.append(["conversations played", str(played), f"stops: {stops}"])
    lines.append(["conversations won", _share(counts.played["won"], played), f"failed parts of the lost: {lost or 'none'}"])
    if source.room == "filter":
        kept = played - counts.dropped.total()
        dropped = ", ".join(f"{name} {n}" for name, n in sorted(counts.dropped.items()))
        lines.append(["conversations kept by the filter", _share(kept, played), f"dropped: {dropped or 'none'}"])
    lines.append(["conversations in this data set", _share(sum(counts.written.values()), played), ""])
    yield from table(["", "count", "detail"], lines)
    if source.generate is None:
        yield ""
        yield "The blueprints behind these conversations are not at hand; their yield is unknown."


def _blueprints(source: Source) -> list[list[str]]:
    """Attempts and acceptances, of blueprints from scratch and of recombinations."""
    import pyarrow as pa

    from tasks.contract import schemas, tables

    assert source.generate is not None
    schema = pa.schema([schemas.BLUEPRINT.field(name) for name in ("status", "source_ids", "attempt")])
    found: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    started: Counter[bool] = Counter()
    for row in tables.read_rows(source.generate / "blueprints.parquet", schema):
        joined = bool(row["source_ids"])
        found[joined][row["status"]] += 1
        started[joined] += row["attempt"] == 0
    lines = []
    for joined, name in ((False, "blueprints"), (True, "recombined blueprints")):
        count = found[joined]
        refused = ", ".join(f"{reason} {n}" for reason, n in sorted(count.items()) if reason != "accepted")
        lines.append([f"{name} started", str(started[joined]), f"{count.total()} attempts, each one call of the author"])
        lines.append([f"{name} accepted", _share(count["accepted"], started[joined]), f"attempts refused: {refused or 'none'}"])
    return lines


def _roles(source: Source, counts: Counts) -> Iterator[str]:
    yield from heading("Who played which role")
    for role, names in counts.players.items():
        yield f"- {role} of these conversations: {', '.join(sorted(map(cell, names)))}"
    record = source.made
    if record is None:
        yield "- the record of the run that made them is not at hand: backends, revisions and error rates are unknown"
        return
    lines = []
    settings = record["parts"]["settings"]
    for role in DATA_ROLES:
        told = settings.get(f"roles.{role}")
        if told is not None:
            report = ((record["parts"].get("servers") or {}).get(role) or {}).get(role) or {}
            revision = told.get("identity") or roles_lock.revision(report) or ("unpinned" if told["backend"] not in OWN else "")
            errors = ", ".join(f"{name} {rate:g}" for name, rate in sorted(told.get("errors", {}).items()))
            lines.append([role, told["backend"], told.get("model") or "", revision, errors or "none"])
    yield ""
    yield from table(["role", "backend", "model", "revision", "planted errors and their rates"], lines)
    if any(line[1] == "scripted" for line in lines):
        yield ""
        yield "Scripted roles are *simulated*: programs that make exactly the listed errors at the listed rates."
    yield from _price(record["figures"].get("spent") or {}, [line[1] for line in lines])


def _price(spent: Mapping[str, Mapping[str, Any]], backends: Sequence[str]) -> Iterator[str]:
    """spent: role -> calls, tokens_in, tokens_out, money, and by (what the server says answered -> answers), as the generate stage
    records it where a role is an endpoint."""
    yield from heading("Price")
    if spent:
        names = ("calls", "tokens_in", "tokens_out", "money")
        lines = [[role, *(f"{figures.get(name, 0):g}" for name in names)] for role, figures in spent.items()]
        yield from table(["role", *names], lines)
        for role, figures in spent.items():
            served = ", ".join(f"{cell(name)} ({n})" for name, n in sorted(figures.get("by", {}).items()))
            yield from ("", f"{role} was answered by {served}.") if served else ()
    elif set(backends) <= OWN:
        yield "Nothing: no role was played by an endpoint."
    else:
        yield "Not recorded."


def _made(source: Source) -> Iterator[str]:
    yield from heading("How it was made")
    for stage, record in source.records.items():
        parts = record["parts"]
        yield f"**{stage}**: method `{parts['method']}`, artifact `{record['identity']}`, seed {parts['settings'].get('seed')}"
        yield ""
        yield f"```yaml\n{yaml.safe_dump(parts['params'], sort_keys=False, allow_unicode=True)}```"
        yield ""
    if not source.records:
        yield "The record of the run is not at hand."


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f} %)" if total else str(count)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]], title: str) -> Iterator[str]:
    yield from heading(title)
    yield from table(heads, lines)
