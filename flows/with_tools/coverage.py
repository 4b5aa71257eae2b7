"""Which predicates guard which write tool of a world, as its author says in GUARDS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tasks.contract.params import BadInput, nearest
from tasks.worlds.api.runtime import World


def guards(world: World) -> dict[str, tuple[str, ...]]:
    """Write tool -> the predicates that judge it, () for none. BadInput for a GUARDS that names what there is not."""
    said: Mapping[str, tuple[str, ...]] = getattr(world.shared.cls, "GUARDS", {})
    writes = [name for name, tool in world.tools.items() if tool.kind == "write"]
    where = f"world {world.name}: GUARDS"
    for name, rules in said.items():
        if name not in writes:
            raise BadInput(f"{where} names {name!r}, which is no tool that writes.{nearest(name, writes)} Those: {', '.join(writes)}.")
        if isinstance(rules, str):
            raise BadInput(f"{where}[{name!r}] = {rules!r} is one text; write ({rules!r},).")
        for rule in rules:
            if rule not in world.trajectory_predicates:
                known = ", ".join(world.trajectory_predicates) or "none"
                raise BadInput(f"{where}[{name!r}] names {rule!r}, which is none of TRAJECTORY_PREDICATES: {known}.")
    return {name: tuple(said.get(name, ())) for name in writes}


def check(world: World, allow_unguarded: bool) -> None:
    """BadInput for a world with a write tool that no predicate guards, unless that is allowed."""
    open_ones = [name for name, rules in guards(world).items() if not rules]
    if open_ones and not allow_unguarded:
        raise BadInput(
            f"--with-tools {world.name}: nothing of the policy is checked before {', '.join(open_ones)} {_write(open_ones)}. Write "
            "predicates (TRAJECTORY_PREDICATES) and name them for each tool in the world's class: GUARDS = "
            f"{{{open_ones[0]!r}: ('R1', ...)}}. --allow-unguarded lets the agent write without."
        )


def _write(names: list[str]) -> str:
    return "writes" if len(names) == 1 else "write"


def described(world: World, where: str) -> Iterator[str]:
    """What the agent may do and what is checked, for who starts the server."""
    said = guards(world)
    yield f"The tools of {world.name} are called on {where}."
    for name, rules in said.items():
        yield f"  {name} WRITES, guarded by {', '.join(rules)}" if rules else f"  {name} WRITES, UNGUARDED"
    for kind, does in (("read", "read"), ("end", "hand over to a person")):
        if names := [name for name, tool in world.tools.items() if tool.kind == kind]:
            yield f"  {', '.join(names)} {does}{'s' if len(names) == 1 and kind == 'read' else ''}"
    yield f"Predicates that are asked before each write: {', '.join(world.trajectory_predicates) or 'none'}."
