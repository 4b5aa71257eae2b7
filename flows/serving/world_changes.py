"""Whether the worlds of an agent's card are still those of the project: an agent whose tools or policy have changed since acts by what
was true then."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows import OUTSIDE
from flows.serving.source import Named, card_of
from tasks.contract.params import BadInput


def changes(card: Mapping[str, Any]) -> list[str]:
    """What differs, a line each ("shop: the policy, the tool cancel_order"); worlds that either side does not have are not compared.
    A world of the project that cannot be loaded is a line too."""
    from flows.worlds.command import active, allowed
    from tasks.worlds.api.loading import world_class

    found: list[str] = []
    for address in () if OUTSIDE or not card["worlds"] else active():
        try:
            cls: Any = world_class(address, allowed())
            if about := card["worlds"].get(cls.NAME):
                found += [f"{cls.NAME}: {', '.join(parts)}"] if (parts := list(_of_world(about, cls))) else []
        except (BadInput, OSError, ImportError) as error:
            found.append(f"{address} cannot be loaded to be compared ({error})")
    return found


def card_for_now(found: Named, anyway: bool) -> Mapping[str, Any]:
    """The card of what is to be served. BadInput where its worlds are others than the project has now, unless it is to be served
    anyway; then they are told on the error stream."""
    card = card_of(found)
    if differ := changes(card):
        told = f"{found.name} was evaluated with other worlds than the project has now: {'; '.join(differ)}."
        if not anyway:
            raise BadInput(f"{told} `cairn run` makes a model for those of now; --changed-worlds yes serves this one as it is.")
        print(f"cairn: {told} It is served with the system message and the tools of then.", file=sys.stderr)
    return card


def _of_world(about: Mapping[str, Any], cls: Any) -> Iterator[str]:
    from tasks.serving.endpoint.card import policy_hash
    from tasks.worlds.api.tools import tools_of

    if about.get("policy_sha256") != policy_hash(cls.POLICY):
        yield "the policy" if "policy_sha256" in about else "the policy, of which its card, of an earlier Cairn, has no hash"
    then, now = _by_name(about["tools"]), _by_name([tool.schema() for tool in tools_of(cls).values()])
    if gone := [name for name in then if name not in now]:
        yield f"without {', '.join(gone)} now"
    if new := [name for name in now if name not in then]:
        yield f"with {', '.join(new)} now"
    if other := [name for name in then if now.get(name, then[name]) != then[name]]:
        yield f"other arguments or words of {', '.join(other)}"


def _by_name(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {tool["function"]["name"]: tool for tool in tools}
