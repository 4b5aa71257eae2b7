"""The airline world: an API that does what it is told, and a policy that alone says what may be done."""

from __future__ import annotations

from pathlib import Path

from tasks.contract.scripts import Scripts
from tasks.worlds.api import conduct
from tasks.worlds.api.scripts.agent import VISIBLE
from tasks.worlds.api.scripts.human import human
from tasks.worlds.library.airline import data, problems, rules
from tasks.worlds.library.airline.api import Tools
from tasks.worlds.library.airline.teacher import AGENT, ERRORS
from tasks.worlds.library.airline.user_phrases import PHRASES


class Airline(Tools):
    """An airline's bookings, flights and travellers. `tasks.worlds.api.runtime` says what each name is for."""

    NAME = "airline"
    SEED = "tasks.worlds.airline:Airline"  # published figures are of these tables
    ABOUT = "The assistant is the desk of an airline; its user is a passenger."
    POLICY = Path(__file__).with_name("policy.md").read_text(encoding="utf-8")
    FAMILIES = problems.FAMILIES
    WRITE_FAMILIES = problems.WRITE_FAMILIES
    PERSONAS = problems.PERSONAS
    BLUEPRINT_PREDICATES = rules.POLICY.blueprint()
    TRAJECTORY_PREDICATES = rules.POLICY.trajectory()
    GUARDS = rules.GUARDS
    SCRIPTS = Scripts(human(PHRASES), AGENT, ERRORS, VISIBLE)
    tables = staticmethod(data.tables)
    context = staticmethod(problems.context)
    propose = staticmethod(problems.propose)
    tags = staticmethod(conduct.tagger(rules.HELD_OUT, rules.HELD_OUT_RULES))
