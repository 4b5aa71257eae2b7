"""Freeze environments, small worlds that are no conversation, into one artifact: params, words and the hash of the code of each.

Beside them each is frozen as a world in which one talks with the environment itself (`tasks/environments/as_world.py`).

All later steps load environments from this artifact, so that a change of their code or params is a change of their input. The words of
all of them together are the vocabulary of the models that are built over it (`base.method: closed_vocabulary`).
Cost: none to speak of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.environments import Environment, as_world, frozen, tokens
from tasks.worlds import UNSEEN

TITLE = "Freeze environments"
PAPER = ""
SLUG = ""
GROUND = "environments"
CODE = ("tasks/environments",)
"""Folders that count whole beside what it imports: params name the environments."""


@dataclass(frozen=True)
class Inputs:
    """The worlds stage is the first; it has no inputs."""


class Params(base.Params):
    """Which environments, and which variation of each."""

    environments: dict[str, dict[str, Any]] = Field(
        {"maps": {}},
        min_length=1,
        description="name -> params; the name is a module of tasks/environments, or `environment: MODULE` among the params says which",
    )


def check(params: Params) -> None:
    """Raise BadInput for an environment that there is not, params that it does not have, and a name that is no folder's."""
    made(params)


def made(params: Params) -> dict[str, Environment]:
    """The environments by the names that the params give them, sorted."""
    for name in params.environments:
        if not name.isidentifier() or name == UNSEEN:
            raise BadInput(f"environments: the name {name!r} must be a word of letters, digits and underscores, and not {UNSEEN!r}.")
    return {name: frozen.make(name, params.environments[name]) for name in sorted(params.environments)}


def modules(params: Params) -> list[str]:
    """The modules of the environments that the params name."""
    return [f"tasks.environments.{settings.get(frozen.KIND, name)}" for name, settings in params.environments.items()]


def names(params: Params) -> list[str]:
    """The names of the environments."""
    return sorted(params.environments)


def unseen(params: Params) -> list[str]:
    """None is for evaluations alone: an environment's own splits keep starts apart."""
    return []


def proven(params: Params) -> list[str]:
    """None needs problems that are proven: a seed is one."""
    return []


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Write one folder per environment into ctx.out; returns words, actions, steps and families of each, and words of all."""
    environments = made(params)
    for name, environment in environments.items():
        as_world.freeze(environment, ctx.out / name)
    figures = {
        name: {"words": len(one.words), "actions": one.actions, "steps": one.limit, "families": len(one.families)}
        for name, one in environments.items()
    }
    return {"environments": figures, "words": len(tokens.vocabulary(environments).words)}
