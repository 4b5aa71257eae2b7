"""The scorer by which `mlflow.genai.evaluate` grades stored traces as `cairn regrade` grades files:

import mlflow
from flows.trace_grading import grading
found = mlflow.search_traces(experiment_ids=[...])
mlflow.genai.evaluate(data=found, scorers=[grading("data/worlds")])
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.regrade import Worlds, graded, world_folders
from tasks.contract.params import BadInput
from tasks.contract.trajectory import GRADING
from tasks.engine.traces import conversation_of

if TYPE_CHECKING:
    from mlflow.genai.scorers import Scorer

PREFIX = "regrade."
"""Of the names of the feedback that a trace gets, beside what was stored under the parts' own names."""


def grading(worlds: str | Path) -> Scorer:
    """A scorer that plays the calls of a trace's conversation in its frozen world again and judges it by the present grading.

    It gives a trace feedback of the names of `GRADING` and reward, behind PREFIX. worlds: a frozen world, or a folder of them; BadInput
    when it is none, or a trace is of another world. Two traces are not graded at once: they share the worlds.
    """
    from mlflow.entities import AssessmentSource, Feedback, Trace
    from mlflow.genai.scorers import scorer

    home, alone = Worlds(world_folders(Path(worlds)), []), threading.Lock()

    @scorer(name="regrade")
    def regrade(trace: Trace) -> list[Feedback]:
        played = conversation_of(trace)
        with alone:
            world = home.get(played.problem.world)
            if world is None:
                raise BadInput(f"{worlds}: holds no frozen world {played.problem.world!r}, of which trace {trace.info.trace_id} is")
            outcome, _ = graded(played, world)
        source = AssessmentSource("CODE", "cairn")
        verdicts: dict[str, Any] = {part: getattr(outcome, part) for part in (*GRADING, "reward")}
        return [Feedback(name=f"{PREFIX}{part}", value=value, source=source) for part, value in verdicts.items()]

    return regrade
