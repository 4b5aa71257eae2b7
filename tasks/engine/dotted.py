"""Values of nested params by their dotted keys, such as sft.loop.epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.contract.params import BadInput, brief, parse_yaml


def dig(tree: Any, dotted: str) -> Any:
    """The value at a dotted key; KeyError when there is none."""
    for part in dotted.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            raise KeyError(dotted)
        tree = tree[part]
    return tree


def leaves(tree: Mapping[str, Any], before: str = "", empty: bool = False) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a tree that is no section; a list is one value. before: a key that all of them get in front.
    empty: a section without anything in it is a value too."""
    for key, value in tree.items():
        name = f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping) and (value or not empty):
            yield from leaves(value, name, empty)
        else:
            yield name, value


def overlay(tree: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of `tree` with one value replaced or added."""
    head, _, rest = dotted.partition(".")
    found = tree.get(head)
    below = found if isinstance(found, Mapping) else {}
    return {**tree, head: overlay(below, rest, value) if rest else value}


def parse_override(text: str, where: str = "--set ") -> tuple[str, Any]:
    """'sft.loop.epochs=2' as (key, value); the value is read as YAML. where: what stands before such a text, for messages."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise BadInput(f"{where}{brief(text)}: expected key=value, for example {where}sft.loop.epochs=2")
    return key.strip(), parse_yaml(value, f"{where}{brief(text)}", lenient=True)
