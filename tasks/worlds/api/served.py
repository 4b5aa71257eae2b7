"""A world's class from its services: what `tasks.worlds.api.runtime` asks for beside tools, tables and policy.

    @served(SERVICES, identified="R1", confirmed="R3", one_call="R4", lean="R11", looked_up={"R9": "get_loan"})
    class Library:
        ...

An adapted API gets scripted people, problems and predicates likewise; its tables are those of its state, by dotted path.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tasks.contract.conventions import Conventions
from tasks.contract.problem import Action
from tasks.worlds.api import conduct
from tasks.worlds.api.scripts import service_file, service_problems
from tasks.worlds.api.scripts.services import Services

World = TypeVar("World", bound=type)


def served(services: Services, **rules: Any) -> Callable[[World], World]:
    """A decorator that gives a class CONVENTIONS, USERS, FAMILIES, WRITE_FAMILIES, both lists of predicates, GUARDS, SCRIPTS, context,
    propose and tags, where it does not say them itself. rules: which rule of the policy says what, as in `conduct.Policy`."""
    policy = conduct.Policy(services.check, services.rules, held_out=services.held_out, held_out_rules=services.held_out_rules, **rules)
    families = service_problems.families(services)
    given: dict[str, Any] = {
        "CONVENTIONS": services.conventions,
        "FAMILIES": families,
        "WRITE_FAMILIES": tuple(family for family in families if family.endswith(("_write", "_writes"))),
        "BLUEPRINT_PREDICATES": policy.blueprint(),
        "TRAJECTORY_PREDICATES": policy.trajectory(),
        "GUARDS": _guards(services, policy),
        "SCRIPTS": services.scripts(),
        "context": staticmethod(service_problems.context(services)),
        "propose": staticmethod(service_problems.propose(services)),
        "tags": staticmethod(conduct.tagger(services.held_out, services.held_out_rules)),
    }

    def decorate(cls: World) -> World:
        people = {} if hasattr(cls, "FOREIGN") else {"USERS": services.users}  # an adapted API says itself where its people are
        for name, value in {**given, **people}.items():
            if name not in vars(cls):
                setattr(cls, name, value)
        return cls

    return decorate


def served_from(path: Path) -> Callable[[World], World]:
    """The same from a file (`tasks.worlds.api.scripts.service_file`). Conventions that the class or its base declares hold; else those
    of the file. Raises BadInput for a file that cannot be used."""
    file = service_file.read(path)

    def decorate(cls: World) -> World:
        conventions: Conventions = getattr(cls, "CONVENTIONS", None) or file.conventions()
        return served(file.made(conventions), **file.policy())(cls)

    return decorate


def _guards(services: Services, policy: conduct.Policy) -> dict[str, tuple[str, ...]]:
    """Write tool -> the rules that judge it."""
    found = {}
    for act in dict.fromkeys(one.act for one in services.writes.values()):
        confirmed = policy.confirmed if services.conventions.needs_yes(Action(act, {}, "write")) else ""
        own = [rule.name for one in services.writes.values() if one.act == act for rule in one.rules]
        every = (policy.identified, services.own, confirmed, policy.one_call, *own)
        found[act] = tuple(dict.fromkeys(rule for rule in every if rule))
    return found
