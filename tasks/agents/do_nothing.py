"""`DoNothing`: answers every line without a call and without content. Each problem must fail with it."""

from __future__ import annotations

from tasks.agents.constant import Constant

LINE = "Anything else?"


def do_nothing() -> Constant:
    """The agent that changes, looks up and tells nothing; it closes, so that the human has no reason to go on."""
    return Constant("do_nothing", line=LINE)
