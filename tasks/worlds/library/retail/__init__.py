"""The retail world: a small shop whose API enforces status gates, and whose policy wants an explicit yes before every write."""

from __future__ import annotations

from pathlib import Path

from tasks.contract.scripts import Scripts
from tasks.worlds.api import conduct
from tasks.worlds.api.scripts.agent import VISIBLE
from tasks.worlds.api.scripts.human import human
from tasks.worlds.library.retail import data, problems, rules
from tasks.worlds.library.retail.api import Tools
from tasks.worlds.library.retail.teacher import AGENT, ERRORS
from tasks.worlds.library.retail.user_phrases import PHRASES


class Retail(Tools):
    """A shop's orders, products and customers. `tasks.worlds.api.runtime` says what each name is for."""

    NAME = "retail"
    SEED = "tasks.worlds.retail:Retail"  # published figures are of these tables
    ABOUT = "The assistant is the desk of an online shop; its user is a customer of the shop."
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

    @staticmethod
    def may_follow(first: str, second: str) -> bool:
        """R5 and R6 ask for the order's status first, so the list of a customer's orders leads to no gate that needs it."""
        return first != "get_user" or second in ("get_order", "change_payment", "return_item")
