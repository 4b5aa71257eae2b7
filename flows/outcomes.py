"""What can become of a decision, each in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.ledger import ALIAS


@dataclass(frozen=True)
class Outcome:
    """What became of a decision, in words. done: whether the candidate is champion now. decision: promote, waiting or refuse."""

    title: str
    decision: str
    reason: str
    version: str | None = None
    done: bool = False

    def summary(self) -> dict[str, Any]:
        """The entry `promotion` of summary.json: outcome, decision, reason, version, and the alias when it was moved."""
        return {
            "outcome": self.title,
            "decision": self.decision,
            "reason": self.reason,
            "version": self.version,
            "alias": ALIAS if self.done else None,
        }


def promoted(version: str, model: str, text: str) -> Outcome:
    """The alias was moved. text: the gates' reason."""
    return Outcome("promoted", "promote", f"version {version} of {model} is champion now. {text}", version, True)


def refused(text: str) -> Outcome:
    """A gate says no."""
    return Outcome("refused", "refuse", text)


def stays(version: str, verdict: str, text: str) -> Outcome:
    """The candidate is the champion, whatever the gates say now."""
    who = f"version {version} is"
    also = f" The gates would refuse it under the present params: {text}" if verdict != "promote" else ""
    return Outcome("unchanged", "promote", f"{who} already champion, and it is this very model.{also}", version, True)


def not_carried_out(why: str, text: str, version: str | None = None) -> Outcome:
    """The gates say yes and something else says no."""
    return Outcome("not promoted", "refuse", f"{why}. The gates would allow it: {text}", version)


def carried_out_before(version: str) -> Outcome:
    """The decision moved the alias already, and somebody moved it on since."""
    reason = (
        f"this decision was carried out before, as version {version}, and a decision moves the alias once; "
        f"`cairn rollback --to {version} --why ...` makes it champion again."
    )
    return Outcome("not promoted again", "refuse", reason, version)


def waits(how: str, text: str, version: str | None = None) -> Outcome:
    """The gates say yes; a person, or another command, has to do it. version: the one that stands as challenger meanwhile."""
    return Outcome("waiting", "waiting", f"{how}. {text}", version)
