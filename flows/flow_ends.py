"""How a flow ends that Prefect runs: a user's mistake is a failed run with the message alone, without a traceback."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from prefect.states import Failed, State

from tasks.contract.params import BadInput

INVALID = "Invalid"
"""The name of the state in which a run ends whose parameters, or the project's params, are wrong."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_words(body: Callable[Arguments, Result]) -> Callable[Arguments, Result | State[BadInput]]:
    """Decorator of a flow's function: a BadInput becomes a state that says it, which whoever called the flow gets as the BadInput that
    it was. Prefect would log a traceback of what is raised."""

    @wraps(body)
    def ended(*positional: Arguments.args, **named: Arguments.kwargs) -> Result | State[BadInput]:
        try:
            return body(*positional, **named)
        except BadInput as mistake:
            return Failed(name=INVALID, message=str(mistake), data=mistake)

    return ended
