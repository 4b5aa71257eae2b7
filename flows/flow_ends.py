"""How a flow ends that Prefect runs: a user's mistake is a failed run with the message alone, without a traceback; a model that is not
promoted is a run that did its work, in a state that a list of runs shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect.states import Completed, Failed, State

from tasks.contract.params import BadInput

INVALID = "Invalid"
"""The name of the state in which a run ends whose parameters, or the project's params, are wrong."""
REFUSED = "Refused"
"""The name of the state in which a run ends whose candidate a gate, or a person, did not let through."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def refused(why: str, result: Result) -> State[Result]:
    """What a flow returns whose candidate is not promoted: it is of type COMPLETED, for the work was done, and a list of runs shows its
    name instead of Completed. why: the state's message. result: what a caller of the flow gets."""
    return Completed(name=REFUSED, message=why, data=result)


def decided(promotion: Mapping[str, Any], result: Result) -> State[Result]:
    """What a flow returns that carried a decision out, or came to none: its state says what became of it and why. promotion: as in
    summary.json."""
    outcome, reason = promotion.get("outcome"), promotion.get("reason")
    if outcome == "refused":
        return refused(str(reason), result)
    return Completed(message=f"{outcome}: {reason}" if outcome else None, data=result)


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
