"""Which operations of a service become tools, under which names, and what each does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Kind
from tasks.worlds.adapters.adapted import MOST_TOOLS
from tasks.worlds.adapters.openapi_operations import Listed, named

SHOWN = 12
"""Tags and names that a message lists; ours."""


@dataclass(frozen=True)
class Choosing:
    """What a user says of operations. Each entry is a tool's name, an operationId, "VERB /path" or "tag:NAME", and may be a pattern
    (`get_*`); `allow` and the keys of `names` are no patterns. operations: None for all. names: operation -> the tool's name."""

    where: str
    operations: tuple[str, ...] | None
    names: Mapping[str, str]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    ends: tuple[str, ...]
    allow: tuple[str, ...]
    dangerous: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """tools: name -> (operation, kind). off: names of dangerous operations that would be tools if they were allowed."""

    tools: Mapping[str, tuple[Listed, Kind]]
    off: tuple[str, ...]


def choose(listed: list[Listed], how: Choosing) -> Chosen:
    """The operations that become tools. BadInput for names that stand for nothing, names that stand twice, and too many tools."""
    for word, entries, exact in (
        ("operations", how.operations or (), False),
        ("names", tuple(how.names), True),
        ("reads", how.reads, False),
        ("writes", how.writes, False),
        ("ends", how.ends, False),
        ("allow", how.allow, True),
        ("dangerous", how.dangerous, False),
    ):
        check_known(how, word, entries, exact, listed)
    _check_dangerous_names(how, listed)
    wanted = [one for one in listed if how.operations is None or fits(how, one, how.operations)]
    off = tuple(_name(how, one) for one in wanted if is_dangerous(how, one) and not exactly(how, one, how.allow))
    offered = [one for one in wanted if not is_dangerous(how, one) or exactly(how, one, how.allow)]
    if not offered:
        raise BadInput(f"{how.where}: there is no operation to offer. Dangerous ones must be named in allow: {_some(off) or 'none'}.")
    if len(offered) > MOST_TOOLS:
        raise BadInput(too_many(how, offered, "operations=(...)"))
    tools: dict[str, tuple[Listed, Kind]] = {}
    for one in offered:
        name = _name(how, one)
        if name in tools:
            raise BadInput(
                f"{how.where}: {tools[name][0].call} and {one.call} would both be called {name!r}. Name one of them: "
                f"names={{{one.call!r}: ...}}."
            )
        tools[name] = one, kind_of(how, one)
    return Chosen(tools, off)


def _name(how: Choosing, one: Listed) -> str:
    """The tool's name of an operation: as `names` has it, or its own."""
    return next((how.names[word] for word in (one.call, one.id, one.name) if word in how.names), one.name)


def _words(how: Choosing, one: Listed) -> tuple[str, ...]:
    return (_name(how, one), *one.words())


def fits(how: Choosing, one: Listed, entries: Iterable[str]) -> bool:
    """Whether an entry stands for an operation, by its name or as a pattern."""
    return any(fnmatchcase(word, entry) for entry in entries for word in _words(how, one))


def exactly(how: Choosing, one: Listed, entries: Iterable[str]) -> bool:
    """Whether an operation is named, and not only fitted by a pattern or a tag."""
    return any(entry in _words(how, one) and not entry.startswith("tag:") for entry in entries)


def is_dangerous(how: Choosing, one: Listed) -> bool:
    """Whether an operation is off until it is allowed by its name."""
    return one.verb == "DELETE" or one.marked or fits(how, one, how.dangerous)


def kind_of(how: Choosing, one: Listed) -> Kind:
    """What an operation does: as it was declared, else by its verb."""
    declared: dict[Kind, tuple[str, ...]] = {"read": how.reads, "write": how.writes, "end": how.ends}
    said = [kind for kind, entries in declared.items() if fits(how, one, entries)]
    if len(said) > 1:
        raise BadInput(
            f"{how.where}: {_name(how, one)!r} is declared to be {' and '.join(said)} at once. Keep one of reads, writes, ends."
        )
    return said[0] if said else "read" if one.verb in ("GET", "HEAD") else "write"


def check_known(how: Choosing, word: str, entries: Iterable[str], exact: bool, listed: list[Listed]) -> None:
    """Raise BadInput for an entry that stands for no operation. exact: patterns stand for none."""
    for entry in entries:
        if not any(exactly(how, one, [entry]) if exact else fits(how, one, [entry]) for one in listed):
            known = list(dict.fromkeys(other for one in listed for other in _words(how, one)))
            also = " It must be a name, not a pattern." if exact and any(sign in entry for sign in "*?[") else ""
            raise BadInput(
                f"{how.where}: {word}: {entry!r} stands for no operation.{also}{nearest(entry, known)} Operations: {_some(known)}."
            )
    if word == "names":
        for entry, name in how.names.items():
            if not isinstance(name, str) or named(name) != name:
                raise BadInput(
                    f"{how.where}: names[{entry!r}] = {name!r}: a tool's name has up to 64 letters, digits, '_' and '-', such as "
                    f"{named(str(name))!r}."
                )


def _check_dangerous_names(how: Choosing, listed: list[Listed]) -> None:
    """One that is asked for by its name must be allowed by it too; a pattern may fit dangerous ones, which then stay off."""
    for one in listed:
        if is_dangerous(how, one) and exactly(how, one, how.operations or ()) and not exactly(how, one, how.allow):
            why = "DELETE" if one.verb == "DELETE" else "marked as dangerous"
            raise BadInput(
                f"{how.where}: operations names {_name(how, one)!r}, which is dangerous ({why}) and off until it is allowed by name: "
                f"allow=({_name(how, one)!r},)."
            )


def too_many(how: Choosing, offered: list[Listed], option: str) -> str:
    """What is said of more operations than a world can have. option: where some of them are chosen."""
    tags: dict[str, int] = {}
    for one in offered:
        for tag in one.tags:
            tags[tag] = tags.get(tag, 0) + 1
    most = sorted(tags, key=lambda tag: (-tags[tag], tag))
    told = f" Its tags: {_some([f'tag:{tag} ({tags[tag]})' for tag in most])}." if tags else ""
    return (
        f"{how.where}: {len(offered)} operations would be tools, and {MOST_TOOLS} are the most. Choose some with {option}: by "
        f"name, operationId, 'GET /path', tag or pattern.{told} Names: {_some([_name(how, one) for one in offered])}."
    )


def _some(words: Iterable[str]) -> str:
    words = list(words)
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
