"""`cairn serve --with-tools WORLD`: from the world's name to the endpoint that calls its tools."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flows.with_tools import backend, coverage
from flows.with_tools.answering import WithTools
from flows.with_tools.player import player_of
from tasks.contract.params import BadInput

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tasks.serving.endpoint.served import Served
    from tasks.worlds.api.runtime import World


@dataclass(frozen=True)
class Limits:
    """calls: for one line of the user's. seconds: for which a call is waited for."""

    calls: int
    seconds: float


def with_tools(
    engines: Sequence[Served], name: str, project: Path, state: Path, allow_unguarded: bool, limits: Limits
) -> tuple[list[str], Callable[[FastAPI], None]]:
    """(lines for who starts it, what adds the endpoint that calls the tools of a world on what is really behind it). BadInput for a
    world that is not frozen in the workspace, of which an agent knows nothing or other tools, with writes that nothing guards, whose
    backend cannot be opened, or whose tools another process calls. state: the state root, where that is noted."""
    from tasks.engine import methods, settings
    from tasks.engine.locks import lock
    from tasks.serving.endpoint.kept import FOLDER
    from tasks.worlds.api.frozen import load, place_of

    place = place_of(project / "data/worlds", name)
    if not place.is_dir():
        raise BadInput(f"--with-tools {name}: no frozen world in {place}. `cairn run --to worlds` freezes those of the params.")
    world = load(place)
    for served in engines:
        for model in served.names:
            _check(served, model, world)
    coverage.check(world, allow_unguarded)
    active = settings.load(project)
    way = methods.way(active.agents(active.road.judged))
    until_the_end = ExitStack()
    atexit.register(until_the_end.close)
    until_the_end.enter_context(lock(state / FOLDER, name, partial(_in_use, name)))
    calls = backend.Calls(lambda: backend.of(world), limits.seconds)
    until_the_end.callback(calls.close)
    loop = WithTools(world, calls, lambda request, about: player_of(engines, request, about), way, limits.calls)

    def add(app: FastAPI) -> None:
        from flows.with_tools import api

        api.add(app, engines, loop)

    told = f"At most {limits.calls} calls for one line of the user's; each is waited for at most {limits.seconds:g} s."
    return [*coverage.described(world, calls.backend.where), told], add


def _in_use(name: str, waits: str) -> None:
    """BadInput: between the check of a write and the write, another process could write."""
    by = waits.partition("held by ")[2]
    raise BadInput(f"--with-tools {name}: its tools are called by {by} already; one process does at a time. Ask that one, or end it.")


def _check(served: Served, model: str, world: World) -> None:
    """BadInput for an agent that was never told of the world as it is. A base that is no agent itself answers nobody."""
    if (chat := served.chat_of(model)) is None:
        if len(served.names) > 1:
            return
        raise BadInput(f"--with-tools {world.name}: {model} cannot chat: {served.no_chat}.")
    worlds = chat.prompting.card["worlds"]
    if world.name not in worlds:
        raise BadInput(f"--with-tools {world.name}: {model} was told of other worlds: {', '.join(worlds) or 'none'}.")
    if world.schemas() != worlds[world.name]["tools"]:
        raise BadInput(f"--with-tools {world.name}: {model} was told of other tools than the frozen world has.")
