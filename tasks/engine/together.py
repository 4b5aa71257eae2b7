"""What no section of the params can say alone: whether the steps of a road fit each other, before the first of them runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.checkpoints.adapter_params import AdapterParams, another, lasting
from tasks.contract.params import BadInput, Params
from tasks.contract.planned import Planned
from tasks.engine import methods

if TYPE_CHECKING:
    from tasks.engine.settings import Settings

MODEL, MODELS, ROWS, OTHERS = "model", "models", "rows", "others"
"""In an interface's INPUTS, beside names of rooms: one input that leaves checkpoints, one or more, one that leaves rows to train on,
and any further input."""
ROW_ROOMS = ("filter", "generate")
"""The rooms whose steps leave rows to train on: marked conversations, and rows of tokens."""


def check_together(settings: Settings, chosen: Mapping[str, Params]) -> None:
    """Raise BadInput where steps do not fit. A room's or a method's `check_road(step)` says what it alone knows."""
    for name, step in planned(settings, chosen).items():
        _check_inputs(step)
        _check_ground(settings, step)
        for _, module, _ in settings.parts(name):
            if hasattr(module, "check_road"):
                module.check_road(step)
        _check_adapter(settings, step)
        _check_engine(settings, step)
    _check_form(settings)


def _check_ground(settings: Settings, step: Planned) -> None:
    """Whether a method on environments is on a road of environments (any other says itself what it lacks), and whether a step of room
    generate that leaves rows to train on has a method that does."""
    method = settings.method(step.name)
    for one in step.inputs if ROWS in methods.interface(step.room).INPUTS else ():
        if one.room == "generate" and methods.ground("generate", rows := settings.method(one.name)) != methods.ENVIRONMENTS:
            raise BadInput(
                f"{settings.source}: {step.name} trains on what {one.name} leaves, and {one.name}.method: {rows} leaves conversations "
                "that nobody has marked. Put a step of room filter between them in tasks/road.py, or take a method on environments."
            )
    if methods.ground(step.room, method) != methods.ENVIRONMENTS or step.room == "worlds":
        return
    for one in (one for one in step.inputs if one.room == "worlds"):
        if methods.ground("worlds", frozen := settings.method(one.name)) != methods.ENVIRONMENTS:
            raise BadInput(
                f"{settings.source}: {step.name}.method: {method} works on environments, and {one.name}.method: {frozen} freezes none. "
                f"Write {one.name}.method: environments, or take another method."
            )


def _check_adapter(settings: Settings, step: Planned) -> None:
    """Whether its training can go on with what the step that it begins with leaves: an adapter becomes no other one."""
    start = next((one.name for one in step.inputs if one.checkpoints), "")
    own, there = (adapter_of(settings, name) if name else None for name in (step.name, start))
    if not own or not there or "none" in (own.kind, there.kind) or there.save != "adapter":
        return
    if lasting(own) != lasting(there):
        raise BadInput(f"{settings.source}: {step.name}, behind {start}: {another(lasting(there), lasting(own))}")


def adapter_of(settings: Settings, step: str) -> AdapterParams | None:
    """What a step's loop says of an adapter; None for a step that trains none."""
    return getattr(settings.loop(step), "adapter", None)


def _check_engine(settings: Settings, step: Planned) -> None:
    """Whether its engine takes what will play. Not known of a training without an adapter whose method prepares the model by itself: it
    may put one in."""
    chosen = settings.engine(step.name)
    if chosen is None or not hasattr(module := methods.engine_module(chosen["method"]), "check_forms"):
        return
    names = [step.name] if adapter_of(settings, step.name) else [one.name for one in step.inputs if one.checkpoints]
    whole: list[str] = []
    adapters: list[str] = []
    for name in names:
        adapter = adapter_of(settings, name)
        if not adapter or (adapter.kind == "none" and not methods.prepares(settings.room(name), settings.method(name))):
            whole.append(name)
        elif adapter.kind != "none":
            (whole if adapter.save == "full" and name != step.name else adapters).append(name)
    where = f"{settings.source}: {step.name}.engine.{chosen['method']}"
    module.check_forms(module.Params.model_validate(chosen["params"]), where, whole, adapters, settings.shared.device == "cpu")


def _check_form(settings: Settings) -> None:
    """Whether what may be promoted has the form in which it is to be registered."""
    candidate, form = settings.road.candidate, settings.shared.promote.form
    adapter = adapter_of(settings, candidate)
    if form == "adapter" and not (adapter and adapter.kind != "none" and adapter.save == form):
        raise BadInput(
            f"{settings.source}: promote.form: adapter, but step {candidate!r}, the candidate, leaves a whole checkpoint. "
            "Write form: full, or let a step that trains an adapter (adapter.save: adapter) be the road's candidate."
        )


def planned(settings: Settings, chosen: Mapping[str, Params] | None = None) -> dict[str, Planned]:
    """The steps of the road as the params plan them. chosen: step -> its method's params; without it those of the settings."""
    if chosen is None:
        chosen = {name: settings.params(name) for name in settings.road.names}
    found: dict[str, Planned] = {}
    for step in settings.road:
        params, inputs = chosen[step.name], [found[name] for name in step.inputs]
        (_, interface, shared), (_, method, _) = settings.parts(step.name)
        worlds = method.names(params) if step.room == "worlds" else inputs[0].worlds if inputs else ()
        proven: Sequence[str] = method.proven(params) if step.room == "worlds" else inputs[0].proven if inputs else ()
        unseen: Sequence[str] = method.unseen(params) if step.room == "worlds" else ()
        if methods.reads_unseen(step.room):
            unseen = next((one.unseen for one in inputs if one.room == "worlds"), ())
        units = interface.leaves(shared, worlds) if hasattr(interface, "leaves") else ()
        checkpoints = [step.checkpoint(unit) for unit in units]
        contender = settings.shared.contender and "contender" in getattr(interface, "ROLES", ())
        served = settings.as_served(step.name)
        problems = int(served["params"].get("problems", 0)) if served else None
        found[step.name] = Planned(step.name, step.room, params, worlds, inputs, checkpoints, contender, unseen, problems, proven)
    return found


def _check_inputs(step: Planned) -> None:
    """Whether its inputs are what its room reads: one of each room that the interface names, and checkpoints where it wants them."""
    wanted = methods.interface(step.room).INPUTS
    left = [one.name for one in step.inputs if one.checkpoints]
    rooms = {name: ROW_ROOMS if name == ROWS else (name,) for name in wanted if name not in (MODEL, MODELS, OTHERS)}
    read = {room for allowed in rooms.values() for room in allowed}
    wrong = [name for name, allowed in rooms.items() if sum(one.room in allowed for one in step.inputs) != 1]
    if MODEL in wanted and len(left) != 1:
        wrong.append("checkpoints")
    if MODELS in wanted and not left:
        wrong.append("checkpoints")
    idle = (
        []
        if OTHERS in wanted
        else [one.name for one in step.inputs if one.room not in read and not (one.checkpoints and {MODEL, MODELS} & {*wanted})]
    )
    if wrong or idle:
        why = f"nothing there reads {', '.join(idle)}" if idle else f"it has none, or several, of {', '.join(wrong)}"
        raise BadInput(
            f"step {step.name!r} of the road enters room {step.room!r}, which reads {', '.join(wanted) or 'nothing'} ({MODEL}: one "
            f"input with a checkpoint, {MODELS}: one or more, {ROWS}: one of room {' or '.join(ROW_ROOMS)}): {why}. Its inputs "
            "stand in tasks/road.py."
        )
