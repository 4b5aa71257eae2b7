"""The road, said once: its steps in order, the room that each enters, and the steps whose results it reads.

The Prefect flow, dvc.yaml (`make docs` writes its generated part), params, report and tracker follow from it. What belongs to a room
and not to a step (the code it uses, the settings and roles it reads, what it leaves) stands in the room's interface,
`tasks/<room>/__init__.py`. Imports nothing of ours, and no stage depends on this file: a new step changes no result of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Step:
    """One step of a road.

    name: of the step, of its section in the params, of its stage for DVC and of its folder in data/. room: the folder in tasks/ whose
    methods it may use; a room may be entered several times under different names. inputs: names of earlier steps whose results it
    reads. summary: one line for people. model: what the checkpoint that it leaves is called, where that is not its name.
    """

    name: str
    room: str
    inputs: tuple[str, ...]
    summary: str
    model: str = ""

    def checkpoint(self, unit: str = "") -> str:
        """The name of a checkpoint that it leaves: of `model/`, or of `<unit>/model`."""
        return f"{self.name}_{unit}" if unit else self.model or self.name


@dataclass(frozen=True)
class Road:
    """Steps in the order in which they run, and the one whose model may become champion.

    Raises ValueError when a name stands twice or is no name for a section and a folder, an input is no earlier step, or the candidate
    is no step.
    """

    steps: tuple[Step, ...]
    candidate: str

    def __post_init__(self) -> None:
        before: set[str] = set()
        for step in self.steps:
            if not (step.name.isascii() and step.name.isidentifier()):
                raise ValueError(f"step {step.name!r}: its name is a section of the params and a folder: letters, digits, underscores")
            if step.name in before:
                raise ValueError(f"the road has two steps named {step.name!r}")
            if unknown := [name for name in step.inputs if name not in before]:
                raise ValueError(f"step {step.name!r} reads {unknown[0]!r}, which is no step before it")
            before.add(step.name)
        if self.candidate not in before:
            raise ValueError(f"the candidate {self.candidate!r} is no step of the road")

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __getitem__(self, name: str) -> Step:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Step]:
        return {step.name: step for step in self.steps}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the steps, in order."""
        return tuple(self._by_name)

    def index(self, name: str) -> int:
        """The place of a step, from 0."""
        return self.names.index(name)

    def part(self, first: str, last: str) -> tuple[str, ...]:
        """The names of the steps from `first` to `last`, both included."""
        return self.names[self.index(first) : self.index(last) + 1]

    def after(self, name: str) -> frozenset[str]:
        """The names of the steps whose results hang on a step's, itself among them."""
        found = {name}
        for step in self.steps:
            found |= {step.name} if found & {*step.inputs} else set()
        return frozenset(found)

    def input(self, name: str, room: str) -> str:
        """Which of a step's inputs is the result of a step of this room, the first of them; "" where it reads none."""
        return next((one for one in self[name].inputs if self[one].room == room), "")

    def entering(self, room: str) -> tuple[str, ...]:
        """The names of the steps that enter a room."""
        return tuple(step.name for step in self.steps if step.room == room)

    @cached_property
    def held_out(self) -> frozenset[str]:
        """The steps of room generate that evaluations alone read: what they prove is never trained on, and no night makes it anew."""
        readers = {name: {step.room for step in self.steps if name in step.inputs} for name in self.entering("generate")}
        return frozenset(name for name, rooms in readers.items() if rooms == {"evaluate"})

    @cached_property
    def judged(self) -> str:
        """The step that evaluates the candidate; "" when there is none."""
        return next((name for name in self.entering("evaluate") if self.candidate in self[name].inputs), "")

    @cached_property
    def decision(self) -> str:
        """The step that decides about the candidate; "" when there is none."""
        return next((name for name in self.entering("decide") if self.candidate in self[name].inputs), "")

    @cached_property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that the road enters, in the order in which it first does."""
        return tuple(dict.fromkeys(step.room for step in self.steps))


ROAD = Road(
    (
        Step("worlds", "worlds", (), "freeze each world - tools, policy, tables, hash of its code"),
        Step("base", "base", ("worlds",), "build or fetch the checkpoint to start from"),
        Step(
            "generate",
            "generate",
            ("worlds",),
            "blueprints proven by execution, policy and committee; then conversations, verified",
        ),
        Step("reserve", "generate", ("worlds",), "test problems proven likewise for worlds that draw none, for evaluation and gates"),
        Step(
            "critique",
            "critique",
            ("worlds", "generate"),
            "several critics judge each conversation; judged units, one aggregate, preference pairs",
        ),
        Step("filter", "filter", ("worlds", "generate", "critique"), "mark each conversation - keep, score, reason, split by lineage"),
        Step("sft", "sft", ("worlds", "base", "filter"), "fine-tune the base on the kept conversations"),
        Step("rl", "rl", ("worlds", "generate", "sft"), "reinforce one specialist per world, playing with the simulated human"),
        Step("merge", "merge", ("sft", "rl"), "merge the specialists into one model", model="merged"),
        Step(
            "evaluate",
            "evaluate",
            ("worlds", "reserve", "base", "sft", "rl", "merge"),
            "play the test problems with every model, and fresh gate problems with candidate and champion",
        ),
        Step("decide", "decide", ("merge", "evaluate"), "may the merged model become champion - yes or no, and why"),
    ),
    candidate="merge",
)
"""Cairn's road. A step more is a line here, a section in the params, and `make docs`."""
