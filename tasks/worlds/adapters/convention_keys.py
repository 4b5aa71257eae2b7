"""`conventions:` in the file of an adapted API, as `tasks.contract.conventions` explains each key."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tasks.contract.conventions import Conventions, Identification
from tasks.contract.params import Params


class IdentificationKeys(Params):
    """One way in which a person is identified."""

    tool: str = Field(min_length=1, description="the look-up that finds the person")
    fields: list[str] = Field([], description="its arguments that the person tells; only scripted people need them")
    answer: str = Field(description='dotted path of the id in the answer ("patient.id"), "" for the whole answer')


class ConventionKeys(Params):
    """What an API declares; what is left out is as in `tasks.contract.conventions.Conventions`."""

    identified_by: list[IdentificationKeys] | None = Field(None, description="ways in which a person is identified, [] for nobody")
    open_tools: list[str] = Field([], description="tools that may be called before anybody is identified")
    owner: str = Field("user_id", description="field of rows and answers that holds the id of the person whose they are")
    lineage: Literal["person", "other"] = Field("person", description="what `user` of a problem is: the person's id, or something else")
    hand_over: str = Field(Conventions.hand_over, description="the tool that hands over to a person, one of `ends`")
    look_ups: list[str] | None = Field(
        None, description="tools that need not be called twice; by default all that neither write nor end"
    )
    confirmed_by: Literal["user", "nobody"] = Field("user", description="who confirms writes")
    confirmed: list[str] | None = Field(None, description="writes that must be confirmed; by default all")

    def declared(self) -> Conventions:
        """The keys as a world's class declares them."""
        given: dict[str, Any] = self.model_dump(exclude={"identified_by"})
        if self.identified_by is not None:
            given["identified_by"] = [Identification(way.tool, tuple(way.fields), way.answer) for way in self.identified_by]
        settled: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return Conventions(**settled)
