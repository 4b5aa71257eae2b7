"""What people do to the champion by hand: go back to one before, or decide as if there were none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.alias import asking_registry, finish_pending, move
from flows.champion_file import write_standing
from flows.ledger import Ledger, champion_of, champions, signed
from flows.moved_alias import look, remedy
from tasks.contract.params import BadInput
from tasks.engine.champion import CHAMPION, Standing
from tasks.engine.locks import lock

if TYPE_CHECKING:
    from flows.run import Run
    from tasks.engine.plan import Plan


NO_OTHER = " No other one that was champion is there; `cairn champion --none` decides from now on as if there were no champion."


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
    goes back to the last one there was. An alias that was moved past Cairn is put where `to` says, be it the ledger's own champion.
    """
    with lock(run.plan.store.state, "promote"):
        finish_pending(run.plan, run.tracker)
        seen, entries = look(run.plan), Ledger.of(run.plan).entries()
        now = champion_of(entries)
        known = {entry["version"]: entry for entry in entries if entry["event"] in ("promote", "rollback", "adopt")}
        if seen.moved and not seen.last:
            raise BadInput(f"{seen} No version was champion before. {remedy(seen)}")
        if seen.moved and not to:
            raise BadInput(f"{seen} `--to` names the version that is to be champion.")
        target = _target(known, champions(entries), None if seen.moved else now, to)
        if not _there(run, target):
            others = [version for version in sorted(known, key=int) if _there(run, known[version])]
            hint = f" `--to` names another one: {', '.join(others)}." if others else NO_OTHER
            raise BadInput(f"version {target['version']} was deleted in the registry, so the alias cannot go back to it.{hint}")
        was = {"was": seen.alias.version} if target["model"] == seen.model else {}
        previous = now["version"] if now else None
        move(run.plan, run.tracker, {**target, "event": "rollback", "previous": previous, "reason": why, "approved": "", **was})
    return str(target["version"])


def _target(
    known: Mapping[str, Mapping[str, Any]], stack: Sequence[Mapping[str, Any]], now: Mapping[str, Any] | None, to: str
) -> Mapping[str, Any]:
    """The entry that is gone back to. known: version -> its last entry. stack: of `champions`. now: the champion, None where the alias
    may go to any. BadInput when there is nothing to go back to."""
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
    return known[to] if to else known[stack[-2 if now else -1]["version"]]


def _there(run: Run, entry: Mapping[str, Any]) -> bool:
    from tasks.engine import registry

    with asking_registry():
        return registry.has_version(run.tracker, entry["model"], entry["version"])
