"""React: asked once a turn; the calls of the answer are made and their results shown, until the answer calls nothing.

Paper: ReAct, https://arxiv.org/abs/2210.03629, section 2: thoughts and actions alternate in one conversation. It is what the field
means by a tool-calling agent, and the line that every other way of acting is measured against.

Departures:
1. Thoughts are asked for in no words of ours: what a model writes beside its calls stays in the conversation, and a script or the
   quickstart's small model writes nothing there.
2. Several calls may stand in one turn; they are made in order.

Cost: one answer of the player a turn.
"""

from __future__ import annotations

from tasks.contract import params as base
from tasks.contract.agent import Agent

TITLE = "React"
PAPER = "https://arxiv.org/abs/2210.03629"
SLUG = "react"


class Params(base.Params):
    """Nothing can be set: one answer is asked for a turn."""


def agent(player: Agent, params: Params) -> Agent:
    """The player itself: the rollout engine makes its calls and shows it the results."""
    return player
