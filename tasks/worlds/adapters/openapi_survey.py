"""Which operations of a description can be tools, before a world is written: those that cannot are left out, each with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.contract.params import BadInput
from tasks.contract.problem import Kind
from tasks.worlds.adapters.adapted import MOST_TOOLS
from tasks.worlds.adapters.openapi_choice import Choosing, check_known, exactly, fits, is_dangerous, kind_of, too_many
from tasks.worlds.adapters.openapi_operations import Listed, listed, operation
from tasks.worlds.adapters.openapi_spec import Spec
from tasks.worlds.adapters.schemas import tool_of_schema

OPTION = "--operations"
"""Of `cairn init`, where a user chooses."""
CALLED = " Those that write are called once the service may be changed: point --url to a copy that may, and add --disposable."


@dataclass(frozen=True)
class Survey:
    """kinds: tool -> what it does by its verb. operations: the words that choose these tools and no others, None where the default
    does. left_out: "VERB /path" -> why, of operations that would break the world or that were chosen by a pattern and cannot be used.
    """

    kinds: Mapping[str, Kind]
    operations: tuple[str, ...] | None
    left_out: Mapping[str, str]


def survey(spec: Spec, operations: Iterable[str] | None, reads_only: bool) -> Survey:
    """operations: as of `from_openapi`, None for all. reads_only: writes are no tools.

    Raises BadInput for a word that stands for nothing, for an operation that is named and cannot be used, for more than 128 tools, and
    where nothing is left.
    """
    chosen = None if operations is None else tuple(operations)
    how = Choosing(spec.where, chosen, {}, (), (), (), (), ())
    known = listed(spec)
    check_known(how, OPTION, chosen or (), False, known)
    kept: dict[str, Listed] = {}
    left_out: dict[str, str] = {}
    breaking = False
    for one in known:
        if chosen is not None and not fits(how, one, chosen):
            continue
        is_named = exactly(how, one, chosen or ())
        writes = reads_only and kind_of(how, one) != "read"
        why = _off(one, how, writes) or _clash(one, kept) or _unusable(spec, one, kind_of(how, one))
        if why and is_named:
            raise BadInput(f"{OPTION} names {one.call}, which cannot be a tool: {why}.")
        if not why:
            kept[one.name] = one
        elif not writes:
            left_out[one.call] = why
            breaking = breaking or not _off(one, how, writes)
    if len(kept) > MOST_TOOLS:
        raise BadInput(too_many(how, list(kept.values()), f"{OPTION} a,b,c"))
    if not kept:
        told = "".join(f"\n{call}: {why}." for call, why in left_out.items())
        raise BadInput(
            f"{spec.where}: there is no operation {'that only reads' if reads_only else 'to offer'}.{CALLED * reads_only}{told}"
        )
    by_default = chosen is None and not breaking and not reads_only
    return Survey(
        {name: kind_of(how, one) for name, one in kept.items()},
        None if by_default else tuple(_word(how, one, known) for one in kept.values()),
        {} if by_default else left_out,  # what is off by default the world says itself
    )


def _off(one: Listed, how: Choosing, writes: bool) -> str:
    """Why an operation is off until somebody says otherwise; "" for one that is on."""
    if writes:
        return "it writes, and nobody said that the service may be changed (--disposable)"
    if is_dangerous(how, one):
        why = "DELETE" if one.verb == "DELETE" else "marked so"
        return f"it is dangerous ({why}); name it in operations and allow, in world.py, to offer it"
    return ""


def _clash(one: Listed, kept: Mapping[str, Listed]) -> str:
    return f"{kept[one.name].call} is called {one.name!r} as well" if one.name in kept else ""


def _unusable(spec: Spec, one: Listed, kind: Kind) -> str:
    """Why no tool can be made of an operation, "" when one can."""
    try:
        made = operation(spec, one, frozenset())
        tool_of_schema(one.name, made.description, made.parameters, kind, made.gives, one.call)
    except RecursionError:
        return "it is nested deeper than can be followed"
    except BadInput as error:
        return str(error).removeprefix(f"{spec.where}: ").removeprefix(f"{one.call}: ").rstrip(".")
    return f"nobody can call it: {made.unsendable}" if made.unsendable else ""


def _word(how: Choosing, one: Listed, known: list[Listed]) -> str:
    """What chooses an operation alone: its name, else its verb and path."""
    return one.name if [other for other in known if fits(how, other, [one.name])] == [one] else one.call
