"""Backend `none`: nobody plays the role. For the contender alone, which a run may do without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from tasks.contract.params import BadInput

if TYPE_CHECKING:
    from tasks.players.roles import Surroundings

KNOWS_WORLDS = False
"""There is nobody to know one."""


def player(name: str, config: Mapping[str, Any], surroundings: Surroundings) -> NoReturn:
    """BadInput: a method that asks this role has to look first whether somebody plays it."""
    raise BadInput(
        f"roles.{name}.backend = none: nobody plays this role, and it was asked. Allowed: scripted, local, openai_compatible."
    )
