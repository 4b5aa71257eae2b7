"""An alias that somebody moved in MLflow, past Cairn: seen by comparing the registry with the ledger, told, and then adopted or put
back, as `promote.moved_by_hand` says. MLflow keeps nobody's name for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows import server_checks
from flows.alias import PENDING, asking_registry, move
from flows.ledger import ALIAS, RECORD, Ledger, signed
from tasks.contract.params import BadInput, StageFailed
from tasks.engine.artifact import Store
from tasks.engine.champion import CHAMPION, read
from tasks.engine.locks import lock
from tasks.engine.origin import origin
from tasks.engine.plan import Plan
from tasks.engine.registry_alias import Alias, read_alias, registry_uri

UNKNOWN = f"whether the alias {ALIAS} was moved in the registry is not known"
REASON = "the alias was moved in MLflow, past Cairn"


@dataclass(frozen=True)
class Seen:
    """The registry's alias and the ledger side by side. expected: the version at which it points by the ledger, "" for none. last: the
    ledger's entry that put it there. moved: whether it points elsewhere."""

    model: str
    alias: Alias
    expected: str
    last: Mapping[str, Any] | None
    moved: bool

    def __str__(self) -> str:
        gone = "" if self.alias.expected_there or not self.expected else f" There is no version {self.expected} in it: {_GONE}."
        return (
            f"the alias {ALIAS} of {self.model} was moved past Cairn, by whom MLflow does not keep: by the ledger (`cairn promotions`) "
            f"it is at {_named(self.expected)}, in the registry at {_named(self.alias.version)}.{gone}"
        )


_GONE = "it was deleted, or MLFLOW_TRACKING_URI (`cairn status` says where it is set) names another registry than then"


def _named(version: str) -> str:
    return f"version {version}" if version else "no version"


def look(plan: Plan) -> Seen:
    """Compare them. NoRegistry when the registry cannot be asked, BadInput when the settings name none that can, StageFailed when the
    ledger is damaged, be it that records are missing at its end."""
    model, ledger = plan.settings.shared.promote.model, Ledger.of(plan)
    entries = ledger.entries()
    last = next((one for one in reversed(entries) if one.get("model") == model), None)
    expected = _left_at(entries, model)
    with asking_registry():
        server_checks.mlflow()
        alias = read_alias(registry_uri(), model, ALIAS, expected)
    ledger.check_end(alias.tags.get(RECORD, ""))
    known_by_file = not entries and alias.identity != "" and alias.identity == read(plan.settings.project / CHAMPION).champion
    under_way = (plan.store.state / PENDING).exists()
    return Seen(model, alias, expected, last, alias.version != expected and not known_by_file and not under_way)


def _left_at(entries: Sequence[Mapping[str, Any]], model: str) -> str:
    """The version at which the ledger's last entry left the alias; `cairn champion --none` leaves it where it is."""
    at = ""
    for entry in entries:
        if entry["event"] == "forget":
            at = entry.get("alias", at)
        elif entry["model"] == model:
            at = entry["version"]
    return at


def told_of_alias(plan: Plan) -> str:
    """What to tell of an alias that was moved past Cairn, or of a registry that cannot be asked; empty when all is well. It changes
    nothing."""
    try:
        seen = look(plan)
    except (StageFailed, BadInput) as error:
        return f"{UNKNOWN}: {error}"
    return f"{seen} The next `cairn run`, or `cairn champion --settle`, does what promote.moved_by_hand says." if seen.moved else ""


def settle_alias(plan: Plan) -> str:
    """Before a run looks: do with an alias that was moved past Cairn what the params say, and return what to tell of it. Empty when it
    is where the ledger says, and in an experiment, which promotes nothing. BadInput when the settings name no registry or ledger that
    can be used."""
    if plan.experiment:
        return ""
    try:
        seen = look(plan)
        if not seen.moved:
            return ""
        with lock(plan.store.state, "promote"):
            return f"{seen} {settled(plan, seen)}"
    except StageFailed as error:
        return f"{UNKNOWN}: {error}"


def settled(plan: Plan, seen: Seen) -> str:
    """Do with a moved alias what the params say; what was done, in words. For who holds the lock `promote`."""
    wish = plan.settings.shared.promote.moved_by_hand
    ever = f"{_named(seen.expected)} is not there" if seen.last else "by the ledger no version ever was champion"
    if wish == "adopt" and not (seen.alias.version and not seen.alias.identity):
        return _adopt(plan, seen)
    if wish == "restore" and seen.last and seen.alias.expected_there:
        return _restore(plan, seen)
    why = {
        "tell": "promote.moved_by_hand is tell",
        "adopt": f"It cannot be adopted: {_named(seen.alias.version)} was not registered by Cairn, so candidates could not meet it",
        "restore": f"It cannot be restored: {ever}",
    }[wish]
    return f"{why}. {remedy(seen)}"


def remedy(seen: Seen) -> str:
    """What a person can do about a moved alias."""
    by_name = "`cairn rollback --to VERSION --why ...` says which version is champion" if seen.last else "take the alias away in MLflow"
    return (
        f"Nothing is promoted until it is settled: {by_name}; the param promote.moved_by_hand settles it by itself: adopt (what MLflow "
        "says) or restore (what the ledger says)."
    )


def _adopt(plan: Plan, seen: Seen) -> str:
    """The ledger says what the registry says."""
    ledger, version = Ledger.of(plan), seen.alias.version
    if not version:
        ledger.append(signed({"event": "forget", "alias": "", "previous": seen.expected, "reason": REASON}))
        return "Adopted: decisions meet no champion."
    known = next((one for one in reversed(ledger.entries()) if one.get("version") == version and one.get("model") == seen.model), None)
    entry = known or {
        "model": seen.model,
        "version": version,
        "identity": seen.alias.identity,
        "against": _opponent(plan.store, seen.alias.tags.get("cairn.decision", ""), (seen.last or {}).get("identity")),
        "decision": seen.alias.tags.get("cairn.decision", ""),
        **origin(plan.settings.project),
    }
    ledger.append(signed({**entry, "event": "adopt", "previous": seen.expected or None, "reason": REASON, "approved": ""}))
    return f"Adopted: version {version} ({seen.alias.identity}) is the champion that decisions meet."


def _opponent(store: Store, decision: str, former: str | None) -> str | None:
    """Whom a version met when it was decided: as its decision says where that is at hand, else the champion before it."""
    file = store.view(decision) / "decision.json" if decision and store.has(decision) else None
    if file is None or not file.is_file():
        return former
    return (json.loads(file.read_text("utf-8")).get("champion") or {}).get("identity")


def _restore(plan: Plan, seen: Seen) -> str:
    """The registry says what the ledger says."""
    from tasks.engine.track import Tracker

    entry = {**(seen.last or {}), "event": "restore", "previous": seen.alias.version or None, "was": seen.alias.version}
    move(plan, Tracker.of(plan), {**entry, "reason": REASON, "approved": ""})
    return f"Restored: it is at version {seen.expected} again."
