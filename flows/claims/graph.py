"""The graph of a paper's claim for one seed: calls of rooms, said as a road of its own.

    def graph(g: Graph) -> None:
        ground = g.call("ground", "worlds.environments", environments={"maps": {"tasks": 9}})
        rows = g.call("rows", "generate.expert_rows", ground, parts=[...])
        start = g.call("start", "base.closed_vocabulary", ground, width=64)
        for name in ("sft", "otr"):
            tuned = g.call(name, f"sft.{name}", ground, start, rows, like="tune", loop={"epochs": 1})
            g.arm(name, g.call(f"{name}_scores", "evaluate.row_scores", ground, rows, tuned))

Each call becomes a step of a `Road` and a section of the params, so the paper goes through the plan that the road goes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, brief, nearest
from tasks.engine import methods
from tasks.engine.methods import AGENTS, AS_SERVED, ENGINE, LOOP
from tasks.road import Road, Step

Size = TypeVar("Size")

SEEDS = 2**31
"""Seeds of a step's section are below it."""
CHOICES = {LOOP, AGENTS, ENGINE, AS_SERVED}
"""Sections of a step beside its method's."""


@dataclass(frozen=True)
class Arm:
    """step: the step of room evaluate that measured it. model: whose rows there are its own; "" where one model was measured."""

    step: str
    model: str = ""


@dataclass
class Graph:
    """A graph under construction. paper: its slug. seed: which of the claim's. quick: whether sizes are to be small (`pick`)."""

    paper: str
    seed: int
    quick: bool = False
    arms: dict[str, Arm] = field(default_factory=dict)
    _steps: list[Step] = field(default_factory=list)
    _sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    def call(self, name: str, method: str, *inputs: str, like: str = "", **params: Any) -> str:
        """Call a method of a room; returns the step's name, for `inputs` of later calls.

        method: "room.method". inputs: earlier steps, in the order in which the room wants them. like: the name under which its random
        streams are drawn (`name` by default): calls that are to differ in one thing alone have the same. params: the method's own;
        loop, agents, engine, as_served: the sections of these names (an engine, say, as {"method": "own"}).

        BadInput for a name that stands twice, an input that is no earlier step, and a method that is none.
        """
        where = f"paper {self.paper}: step {name!r}: method = {brief(method)}"
        room, _, own = method.partition(".")
        if room not in methods.rooms() or not own:
            raise BadInput(
                f"{where}: expected room.method, such as sft.sft.{nearest(room, methods.rooms())} Rooms: {', '.join(methods.rooms())}."
            )
        methods.check_name(room, own, where)
        before = {step.name for step in self._steps}
        if name in before:
            raise BadInput(f"paper {self.paper}: two steps are named {name!r}")
        if unknown := [one for one in inputs if one not in before]:
            raise BadInput(f"paper {self.paper}: step {name!r} reads {unknown[0]!r}, which is no step before it")
        self._steps.append(Step(name, room, inputs, f"{own} of room {room}"))
        chosen = {key: params.pop(key) for key in CHOICES & params.keys()}
        seed = seed_of(self.paper, self.seed, like or name) % SEEDS
        self._sections[name] = {"method": own, "seed": seed, **_played(room), **chosen, **({own: params} if params else {})}
        return name

    def arm(self, name: str, step: str, model: str = "") -> None:
        """Say which step measured an arm; model: whose rows there are the arm's, where several were measured."""
        if name in self.arms:
            raise BadInput(f"paper {self.paper}: two arms are named {name!r}")
        if step not in self._sections:
            raise BadInput(f"paper {self.paper}: arm {name!r} is measured by {step!r}, which is no step")
        self.arms[name] = Arm(step, model)

    def pick(self, quick: Size, full: Size) -> Size:
        """The first of two sizes for a quick run, else the second."""
        return quick if self.quick else full

    @property
    def road(self) -> Road:
        """The calls as a road. BadInput when no arm was named."""
        if not self.arms:
            raise BadInput(f"paper {self.paper}: its graph names no arm, so nothing would be measured")
        return Road(tuple(self._steps), candidate=next(reversed(self.arms.values())).step)

    @property
    def sections(self) -> Mapping[str, Mapping[str, Any]]:
        """Step -> its section of the params."""
        return self._sections

    def leading_to(self, step: str) -> list[Step]:
        """A step with all that it stands on, in order."""
        wanted = {step}
        for one in reversed(self._steps):
            wanted |= {*one.inputs} if one.name in wanted else set()
        return [one for one in self._steps if one.name in wanted]


def _played(room: str) -> dict[str, Any]:
    """The sections that a room where somebody acts needs, as plain as they come: asked once a turn, by our own engine, not served."""
    plays = methods.plays(room)
    return {
        **({AGENTS: {"method": "react"}} if plays else {}),
        **({ENGINE: {"method": "own"}} if plays == "checkpoints" else {}),
        **({AS_SERVED: {"method": "none"}} if methods.plays_as_served(room) else {}),
    }
