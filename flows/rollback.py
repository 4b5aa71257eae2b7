"""What people do to the champion by hand: go back to one before, or decide as if there were none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.alias import finish_pending, move
from flows.champion_file import write_standing
from flows.ledger import Ledger, champions, signed
from tasks.contract.params import BadInput
from tasks.engine.champion import CHAMPION, Standing
from tasks.engine.locks import lock

if TYPE_CHECKING:
    from flows.run import Run
    from tasks.engine.plan import Plan


def forget(plan: Plan) -> None:
    """Decide from now on as if there were no champion; the alias stays where it is."""
    ledger = Ledger.of(plan)
    with lock(plan.store.state, "promote"):
        if ledger.champion():
            ledger.append(signed({"event": "forget", "reason": "cairn champion --none"}))
        write_standing(plan.settings.project / CHAMPION, Standing())


def rollback(run: Run, why: str, to: str = "") -> str:
    """Point the alias at the champion before this one (or at version `to`); returns the version that is champion now.

    It goes back along the champions: a version that was rolled back is not gone back to, except by name. After `champion --none` it
    goes back to the last one there was.
    """
    ledger = Ledger.of(run.plan)
    with lock(run.plan.store.state, "promote"):
        finish_pending(run)
        entries = ledger.entries()
        known = {entry["version"]: entry for entry in entries if entry["event"] in ("promote", "rollback")}
        now, stack = ledger.champion(), champions(entries)
        if not stack:
            raise BadInput("there is no champion yet, so there is nothing to roll back")
        if to and to not in known:
            raise BadInput(f"version {to!r} was never champion. Known: {', '.join(sorted(known, key=int))}.")
        if to and now and to == now["version"]:
            raise BadInput(f"version {to} is champion already; nothing is rolled back")
        if not to and now and len(stack) < 2:
            known_to = [version for version in sorted(known, key=int) if version != now["version"]]
            others = f" Rolled back before: {', '.join(known_to)}; `--to` names one of them." if known_to else ""
            raise BadInput(f"version {now['version']} is the first champion; there is none before it to roll back to.{others}")
        target = known[to] if to else known[stack[-2 if now else -1]["version"]]
        previous = now["version"] if now else None
        move(run, {**target, "event": "rollback", "previous": previous, "reason": why, "approved": ""})
    return str(target["version"])
