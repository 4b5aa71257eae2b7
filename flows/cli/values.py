"""Which values options take: checked with the nearest one named, and completed by the shell, without a heavy import."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Annotated, Any

import typer

from tasks.road import ROAD

Names = Callable[[], Iterable[str]]


def one_of(names: Iterable[str]) -> dict[str, Any]:
    """For an option or argument with a few values: completion, the values in the help, and BadInput for any other value."""
    known = tuple(names)

    def check(param: typer.CallbackParam, value: str) -> str:
        if value and value not in known:
            from tasks.contract.params import BadInput, nearest

            what = param.opts[0] if param.opts[0].startswith("-") else str(param.metavar).strip("[]")
            raise BadInput(f"{what} {value!r}: no such value.{nearest(value, known)} Allowed: {', '.join(known)}.")
        return value

    return {"callback": check, "autocompletion": completing(lambda: known)}


def completing(names: Names) -> Callable[[str], list[str]]:
    """Completion among names that are looked up when the shell asks."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def profiles() -> list[str]:
    """The names of the project's profiles."""
    from flows import PROJECT

    return sorted(path.stem for path in (PROJECT / "params/profiles").glob("*.yaml"))


def overrides() -> list[str]:
    """What --set is used for most: the method of each room."""
    from tasks.engine.methods import names

    return [f"{step.name}.method={name}" for step in ROAD for name in names(step.room)]


def worlds() -> list[str]:
    """The addresses of the worlds that the active params name; none where they cannot be read."""
    from flows import PROJECT
    from tasks.engine.settings import load

    with suppress(Exception):
        return [*load(PROJECT).params(ROAD.entering("worlds")[0]).model_dump().get("modules", ())]
    return []


def families(ctx: typer.Context, incomplete: str) -> list[str]:
    """The families of problems of the world that the command names before; none of a world that cannot be imported."""
    from tasks.worlds.api.loading import world_class

    typed = [ctx.params.get("address"), *ctx.args]  # before an option that still lacks its value, arguments are not told apart
    with suppress(Exception):
        world: Any = world_class(next(text for text in typed if text and ":" in text))
        return [name for name in world.FAMILIES if name.startswith(incomplete)]
    return []


stages = completing(lambda: ROAD.names)

Stage = Annotated[str, typer.Argument(metavar="STAGE", help=f"One of {', '.join(ROAD.names)}.", autocompletion=stages)]
Profile = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=completing(profiles),
        help="Use params/profiles/NAME.yaml instead of params/pipeline.yaml; the workspace stays as it is.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=completing(overrides),
        help="Override one param for this command alone; may be repeated. VALUE is YAML.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text, for scripts.")]


def parsed(overrides: list[str] | None) -> dict[str, Any]:
    """What was given with --set: param -> value. Raises BadInput for what is no key=value."""
    from tasks.engine.dotted import parse_override

    return dict(map(parse_override, overrides or ()))
