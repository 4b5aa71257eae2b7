"""The gate of every accepted problem: an oracle must pass it, and agents that do nothing, or always hand over, must fail.

Without it a benchmark pays for doing nothing: 20 of the 50 gold sequences of tau-bench airline leave the data unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.agents.constant import Constant
from tasks.agents.do_nothing import DoNothing
from tasks.agents.oracle import Oracle
from tasks.rollout import play
from tasks.worlds import Problem

if TYPE_CHECKING:
    from tasks.worlds.runtime import World
