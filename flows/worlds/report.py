"""What `cairn world check` says: the tools as a model sees them, one line a check, and for each fault its place and a remedy."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.worlds.api.arguments import arguments_of
from tasks.worlds.api.tools import Tool

WIDTH = 130
"""Characters of a line; ours."""
MOST_FAULTS = 12
"""Faults of one check that are printed; the others are counted."""

REMEDIES = {
    "clock": "Keep the date in a table, as a row that tables() writes, and read it from there.",
    "random": "Derive the value from the arguments (tasks.contract.context.seed_of), or draw it in tables(size, seed).",
    "order": "Do not let the order of a set, or hash(), reach an answer or a row; sort first.",
    "differs": "Let a tool depend on its arguments and on self.db alone.",
    "shared": "Conversations run side by side and would see each other. Keep it in a table (self.db.put, self.db.update).",
    "in place": "Rows are shared by all conversations and snapshots. Use self.db.update(table, key, field=value) or self.db.put.",
}

OF_OBJECTS = {
    "clock": "What only stamps rows goes into leave_out=; let the object take the date that counts from an attribute of its own.",
    "random": "Ids: let the object that keeps the rows count them up (f'T{len(self.tickets) + 1}') and hand them to the classes of the "
    "rows, or draw them from an attribute of its own: self.chance = random.Random(0), uuid.UUID(int=self.chance.getrandbits(128)). A "
    "class whose rows name themselves takes the id as an argument. What shows in no answer and is no key goes into leave_out=.",
    "order": REMEDIES["order"],
    "differs": "Let a tool depend on its arguments and the object's state alone; what does not count in it goes into leave_out=.",
}
"""The same for an API that exists, which has no tables of Cairn's."""


RESTLESS = "It is not the same twice alone either: begin with what `determinism` says."


def remedy(what: str, adapted: bool) -> str:
    """What to do about a fault of this kind."""
    return OF_OBJECTS.get(what, REMEDIES[what]) if adapted else REMEDIES[what]


@dataclass(frozen=True)
class Finding:
    """One fault. where: file:line, or "" when it has none. what: what is wrong, naming the tool. remedy: what to do."""

    where: str
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One check. summary: what was looked at, in figures. notes: what is worth knowing and no fault."""

    name: str
    summary: str
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


@dataclass(frozen=True)
class Report:
    """All checks of one world. tools: empty when they could not be read."""

    title: str
    tools: Sequence[Tool]
    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def findings(self) -> list[Finding]:
        """Every fault, in the order of the checks."""
        return [finding for check in self.checks for finding in check.findings]

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def text(self) -> str:
        """The report as it is printed."""
        lines = [self.title, ""]
        for tool in self.tools:
            lines += tool_lines(tool)
        lines += [""] if self.tools else []
        for check in self.checks:
            lines += _check(check)
        wrong = [check.name for check in self.checks if not check.ok]
        lines += ["", f"{len(wrong)} of {len(self.checks)} checks failed: {', '.join(wrong)}." if wrong else "Every check holds."]
        return "\n".join(lines)


def as_document(report: Report) -> dict[str, Any]:
    """A report for scripts: title, ok, tools (name, kind), checks (name, ok, said, findings of where, what, remedy; notes)."""
    return {
        "title": report.title,
        "ok": report.ok,
        "tools": [{"name": tool.name, "kind": tool.kind} for tool in report.tools],
        "checks": [{**asdict(check), "ok": check.ok} for check in report.checks],
    }


def first_of_each(pairs: Iterable[tuple[str, Finding]]) -> tuple[Finding, ...]:
    """One finding a tool: the first."""
    found: dict[str, Finding] = {}
    for tool, finding in pairs:
        found.setdefault(tool, finding)
    return tuple(found.values())


def short(text: str) -> str:
    """The beginning of an answer."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check(check: Check) -> Iterable[str]:
    yield f"{'ok' if check.ok else 'wrong':<6} {check.name:<14} {check.summary}".rstrip()
    for finding in check.findings[:MOST_FAULTS]:
        yield from _wrapped(f"{finding.where}  {finding.what}" if finding.where else finding.what, "       - ", "         ")
        yield from _wrapped(finding.remedy, "         > ", "           ")
    if len(check.findings) > MOST_FAULTS:
        yield f"       - and {len(check.findings) - MOST_FAULTS} more"
    for note in check.notes:
        yield from _wrapped(note, "       . ", "         ")


def _wrapped(text: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False)


def tool_lines(tool: Tool) -> Iterable[str]:
    """A tool as a model sees it: its signature, what it does, what each argument means. Optional arguments stand in brackets."""
    properties = arguments_of(tool.parameters)
    required = tool.parameters.get("required", ())
    arguments = [f"{name}: {kind_of(schema)}" for name, schema in properties.items()]
    shown = [text if name in required else f"[{text}]" for name, text in zip(properties, arguments, strict=True)]
    yield f"{tool.kind:<6} {tool.name}({', '.join(shown)})"
    yield from _wrapped(tool.description, "       ", "       ")
    width = max(map(len, properties), default=0)
    for name, schema in properties.items():
        yield from _wrapped(f"{name:<{width}}  {schema.get('description', '')}", "         ", " " * (11 + width))


def kind_of(schema: Mapping[str, Any]) -> str:
    """A JSON schema's type in words: string, "north" or "south", list of integer, string or null."""
    if "enum" in schema:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(kind_of(one) for one in schema[key])
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    named = schema.get("type", "any")
    return " or ".join(named) if isinstance(named, list) else str(named)
