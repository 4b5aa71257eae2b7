"""A step of the road as the params plan it: what its room or its method may look at before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Planned:
    """What `check_road` and `conversations` get of a step, in its room's interface or its method.

    name: of the step. room: whose methods it may use. params: of its chosen method. worlds: names of the worlds that it is about.
    inputs: the steps whose results it reads, in order. checkpoints: names of those that it will leave, in order.
    proven: names of those of its worlds that draw no problems of their own: those that steps of room generate have proven are played.
    contender: whether somebody plays the role of that name, for a step that asks it. unseen: names of the worlds that it evaluates and
    that no training sees. as_served: test problems of each world that its candidate also plays as it is served; None for a step
    that never does.
    """

    name: str
    room: str
    params: Any
    worlds: Sequence[str]
    inputs: Sequence[Planned]
    checkpoints: Sequence[str]
    contender: bool = False
    unseen: Sequence[str] = ()
    as_served: int | None = None
    proven: Sequence[str] = ()

    def reading(self, room: str) -> Planned | None:
        """Its first input that a step of a room leaves."""
        return next((one for one in self.inputs if one.room == room), None)

    def parent(self) -> str:
        """The checkpoint that it goes on from: the last that its first input with checkpoints leaves; "" when it reads none."""
        return next((names[-1] for names in self.models()), "")

    def models(self) -> list[list[str]]:
        """The checkpoints that its inputs will leave: one list for each input that leaves some."""
        return [list(one.checkpoints) for one in self.inputs if one.checkpoints]
