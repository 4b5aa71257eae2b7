"""JSON Schema as a server means it: in the dialect that it names, with what cannot be checked here left to the server.

The dialect is the draft that `$schema` names at the root (03 to 2020-12), 2020-12 without it. A schema that is none by that draft and
is one by another is read by the other: servers whose tools come from OpenAPI 3.0 write draft 04 without saying so.

Departures from the jsonschema library, whose validators do the work: multiples are counted in decimals, so that 0.3 is a multiple of
0.1; and patterns are regular expressions of ECMA-262, which Python's `re` knows in part. One that it knows takes what either takes.
One that it does not know is not checked, and whatever depends on it is loosened, never tightened, so that no call is refused here
which the server would take.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tasks.worlds.adapters.schema_keywords import below, changed

DRAFTS = {
    "2020-12": "Draft202012Validator",
    "2019-09": "Draft201909Validator",
    "07": "Draft7Validator",
    "06": "Draft6Validator",
    "04": "Draft4Validator",
    "03": "Draft3Validator",
}
"""Draft -> its validator in jsonschema; the first is meant where none is named (Model Context Protocol), then in this order."""
OLD = ("07", "06", "04", "03")
"""Drafts in which nothing that stands beside a `$ref` counts."""
_NAMES = re.compile(r"https?://json-schema\.org/draft(?:-|/)(\d\d(?:\d\d-\d\d)?)/(?:hyper-)?schema/?#?")
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null", "any"})
_LEFT = "it is written in a part of ECMA-262 that Python does not know, and is left to the server"
_POINTERS = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "extends", "disallow", "type", "not", "if", "then", "else")
"""Keywords whose schemas are asked about the same value."""


class Unreadable(ValueError):
    """A schema by which nothing can be checked. The message says why."""


@dataclass(frozen=True)
class Read:
    """A schema that was read. schema: as it is checked. validator: of jsonschema, for one value after the other, in any thread.
    notes: what is not checked as it is written, and why."""

    schema: dict[str, Any]
    draft: str
    validator: Any
    notes: tuple[str, ...]

    def resolver(self) -> Any:
        """Where references in the schema begin."""
        return _resolver(self.schema, self.draft)

    def in_place(self) -> list[Mapping[str, Any]]:
        """Every schema that is asked about the whole value: the schema itself, those that it combines, and those it refers to."""
        found: dict[int, Mapping[str, Any]] = {}
        todo: list[tuple[Any, Any]] = [(self.schema, self.resolver())]
        while todo:
            one, resolver = todo.pop(0)
            if isinstance(one, Mapping) and id(one) not in found:
                found[id(one)] = one
                todo += [step for pointer in pointers(one, self.draft) if (step := followed(pointer, resolver)) is not None]
                todo += [(part, resolver) for part in _combined(one, self.draft)]
        return list(found.values())


def read(schema: Mapping[str, Any]) -> Read:
    """A schema, ready to check values. Raises Unreadable for what is no schema in any draft, and for references that lead nowhere:
    nothing is ever fetched.
    """
    try:
        draft, notes = _draft(schema)
        plain, more = _checkable(_undeclared(schema))
        unknown = sorted(dict.fromkeys(_nowhere(plain, draft)))
    except RecursionError:
        raise Unreadable("it is nested deeper than can be followed") from None
    if unknown:
        raise Unreadable(f"it refers to {', '.join(unknown)}, which is not in it (nothing is fetched)")
    if endless := _endless(plain, draft):
        raise Unreadable(f"it refers to itself without end ({endless})")
    elsewhere = {pattern for one, _ in _reached(plain, draft) for pattern in _patterns(one) if not known_pattern(pattern)}
    more = (*more, *(f"the pattern {shortened(pattern, 100)!r} is not checked; {_LEFT}" for pattern in sorted(elsewhere)))
    return Read(plain, draft, _validators()[draft](plain, registry=_known()), (*notes, *more))


# --- the dialect ---


@functools.cache
def _validators() -> dict[str, Any]:
    import jsonschema

    ours = {"multipleOf": _multiple, "divisibleBy": _multiple, "pattern": _pattern}
    found: dict[str, Any] = {}
    for draft, name in DRAFTS.items():
        theirs = getattr(jsonschema, name)
        found[draft] = jsonschema.validators.extend(theirs, {key: one for key, one in ours.items() if key in theirs.VALIDATORS})
    return found


def _multiple(validator: Any, step: Any, value: Any, schema: Any) -> Iterator[Any]:
    """In decimals as they are written: by floats, 0.3 / 0.1 is no whole number."""
    from jsonschema import ValidationError

    if validator.is_type(value, "number") and step and (_exact(value) / _exact(step)).denominator != 1:
        yield ValidationError(f"{value!r} is not a multiple of {step!r}")


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    """As Python has it or as ECMA-262 has it: there \\w, \\d and \\b know ASCII alone, so that \\W and \\D fit more."""
    from jsonschema import ValidationError

    if not validator.is_type(value, "string") or re.search(pattern, value):
        return
    if value.isascii() or not re.search(pattern, value, re.ASCII):  # of ASCII alone both say the same
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _exact(number: Any) -> Fraction:
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _draft(schema: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The draft by which it is a schema, and a note when that is not the one it names."""
    said, notes = schema.get("$schema"), []
    named = _NAMES.fullmatch(said) if isinstance(said, str) else None
    wanted = named[1] if named and named[1] in DRAFTS else next(iter(DRAFTS))
    if said is not None and not (named and named[1] in DRAFTS):
        notes.append(f"the dialect {said!r} is not known; it is read as draft {wanted}")
    plain = _undeclared(schema)
    first = _mistake(plain, wanted)
    if not first:
        return wanted, tuple(notes)
    for other in DRAFTS:
        if not _mistake(plain, other) and not (other == "03" and _strange(plain)):
            return other, (*notes, f"it is no schema of draft {wanted} ({first}); it is read as draft {other}")
    raise Unreadable(f"it is no JSON schema: {first}")


def _mistake(schema: Mapping[str, Any], draft: str) -> str:
    """What is wrong with a schema by its draft, without a look at formats: patterns are no Python."""
    import jsonschema

    theirs = getattr(jsonschema, DRAFTS[draft])
    try:
        theirs.check_schema(schema, format_checker=jsonschema.FormatChecker(formats=()))
    except jsonschema.SchemaError as error:
        place = "/".join(map(str, error.absolute_path))
        return f"{shortened(error.message)}{f' at {place}' if place else ''}"
    return ""


def _strange(schema: Mapping[str, Any]) -> bool:
    """Whether it names types that no draft knows; draft 03 takes any name for one, so that a slip would go unseen."""
    types = (one.get("type") for one, _ in below(schema))
    names = [name for said in types for name in (said if isinstance(said, list) else [said]) if isinstance(name, str)]
    return not _TYPES.issuperset(names)


def _undeclared(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Without `$schema`: with it, jsonschema goes back to its own validator whenever a reference leads to the root."""
    return changed({key: value for key, value in schema.items() if key != "$schema"}, _undeclared)


def shortened(text: str, most: int = 300) -> str:
    """The beginning of a text, for messages."""
    return text if len(text) <= most else f"{text[:most]} ..."


# --- patterns ---


def _checkable(schema: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema without the patterns that Python does not know, and a note for each. It takes all that the schema takes, and more."""
    unknown: dict[str, str] = {}
    for one, place in below(schema):
        for pattern in _patterns(one):
            if not known_pattern(pattern):
                unknown.setdefault(pattern, place or "/")
    if not unknown:
        return schema, ()
    return _loose(schema), tuple(
        f"the pattern {shortened(pattern, 100)!r} of {place} is not checked; {_LEFT}" for pattern, place in unknown.items()
    )


def _patterns(schema: Mapping[str, Any]) -> Iterator[str]:
    own, names = schema.get("pattern"), schema.get("patternProperties")
    yield from [own] if isinstance(own, str) else []
    yield from names if isinstance(names, Mapping) else ()


@functools.lru_cache(maxsize=4096)
def known_pattern(pattern: str) -> bool:
    """Whether Python reads the pattern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Python may read differently one day
        try:
            re.compile(pattern)
            re.compile(pattern, re.ASCII)
        except (ValueError, re.error, RecursionError, OverflowError):
            return False
    return True


def _loose(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with unknown patterns left out, and with them all that would refuse more without them."""
    kept = dict(schema)
    if isinstance(kept.get("pattern"), str) and not known_pattern(kept["pattern"]):
        del kept["pattern"]
    if isinstance(names := kept.get("patternProperties"), Mapping) and not all(map(known_pattern, names)):
        # Any name may be one that the pattern is about: none is held for an additional one.
        kept["patternProperties"] = {**{name: part for name, part in names.items() if known_pattern(name)}, "^": {}}
    if _depends(kept.get("if")):
        kept = {key: value for key, value in kept.items() if key not in ("if", "then", "else")}
    for key in ("not", "disallow"):
        if _depends(kept.get(key)):
            del kept[key]
    if _depends(kept.get("oneOf")):  # with looser choices two may fit
        kept["allOf"] = [*kept.get("allOf", ()), {"anyOf": kept.pop("oneOf")}]
    if _depends(kept.get("contains")):
        kept.pop("maxContains", None)
    for key in ("unevaluatedProperties", "unevaluatedItems"):  # what was looked at before depends on all of the above
        kept.pop(key, None)
    return changed(kept, _loose)


def _depends(part: Any) -> bool:
    """Whether a verdict on these schemas may depend on an unknown pattern. References are not followed: any may."""
    parts = [one for one in (part if isinstance(part, list) else [part]) if isinstance(one, Mapping)]
    inside = (one for whole in parts for one, _ in below(whole))
    return any(not set(_POINTERS).isdisjoint(one) or not all(map(known_pattern, _patterns(one))) for one in inside)


# --- references ---


@functools.cache
def _known() -> Any:
    """The drafts' own schemas, to which a tool that takes a schema refers; nothing else is known, and nothing is fetched."""
    import jsonschema_specifications

    return jsonschema_specifications.REGISTRY


def _specification(draft: str) -> Any:
    from referencing.jsonschema import specification_with

    base = f"http://json-schema.org/draft-{draft}/schema#"
    return specification_with(base if draft in OLD else f"https://json-schema.org/draft/{draft}/schema")


def _resolver(schema: Mapping[str, Any], draft: str) -> Any:
    return _known().resolver_with_root(_specification(draft).create_resource(schema))


def pointers(schema: Mapping[str, Any], draft: str) -> Iterator[Any]:
    """The references that stand in a schema itself."""
    yield from (schema[key] for key in _POINTERS if key in schema and (key == "$ref" or draft not in OLD))


def _reached(schema: Mapping[str, Any], draft: str) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Every schema that a check may come to, with the resolver of its references."""
    specification = _specification(draft)
    todo, seen = [(schema, _resolver(schema, draft))], set()
    while todo:
        one, resolver = todo.pop()
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one, resolver
        for pointer in pointers(one, draft):
            if (found := followed(pointer, resolver)) is not None:
                todo.append(found)
        if not ("$ref" in one and draft in OLD):
            for part in specification.create_resource(one).subresources():
                if isinstance(part.contents, Mapping):
                    todo.append((part.contents, resolver.in_subresource(part)))
        if draft == "03":  # of which referencing does not know all
            todo += [(part, resolver) for part in _combined(one, draft)]


def _combined(schema: Mapping[str, Any], draft: str) -> Iterator[Mapping[str, Any]]:
    """The schemas inside a schema that are asked about the same value."""
    if "$ref" in schema and draft in OLD:
        return
    parts: list[Any] = []
    for key in _IN_PLACE:
        said = schema.get(key)
        parts += said if isinstance(said, list) else [said]
    for key in ("dependentSchemas", "dependencies"):
        parts += schema[key].values() if isinstance(schema.get(key), Mapping) else []
    yield from (part for part in parts if isinstance(part, Mapping))


def followed(pointer: Any, resolver: Any) -> tuple[Any, Any] | None:
    """(schema, its resolver) behind a reference; None when it leads nowhere."""
    try:
        found = resolver.lookup(pointer)
    except Exception:  # of many kinds: an author may write anything there
        return None
    return (found.contents, found.resolver) if isinstance(found.contents, Mapping | bool) else None


def _nowhere(schema: Mapping[str, Any], draft: str) -> Iterator[str]:
    """References that lead nowhere."""
    for one, resolver in _reached(schema, draft):
        yield from (repr(pointer) for pointer in pointers(one, draft) if followed(pointer, resolver) is None)


def _endless(schema: Mapping[str, Any], draft: str) -> str:
    """A reference that leads back to itself while it looks at one and the same value; "" for none."""
    onward: dict[int, list[tuple[int, str]]] = {}
    for one, resolver in _reached(schema, draft):
        steps = onward[id(one)] = []
        if "$ref" in one and (found := followed(one["$ref"], resolver)) is not None:
            steps.append((id(found[0]), str(one["$ref"])))
        steps += [(id(part), "") for part in _combined(one, draft)]
    done: set[int] = set()
    for start in onward:
        trail: list[tuple[int, Iterator[tuple[int, str]], str]] = [(start, iter(onward[start]), "")] if start not in done else []
        above = {start}
        while trail:
            here, steps_left, _ = trail[-1]
            following = next(steps_left, None)
            if following is None:
                trail.pop()
                above.discard(here)
                done.add(here)
            elif following[0] in above:
                return following[1] or next((said for _, _, said in reversed(trail) if said), "")
            elif following[0] in onward and following[0] not in done:
                above.add(following[0])
                trail.append((following[0], iter(onward[following[0]]), following[1]))
    return ""
