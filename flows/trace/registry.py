"""Aliases and versions of the registered model, with what the ledger of promotions says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.ledger import ALIAS
from flows.trace.stages import Known, down
from flows.trace.tracking import plain
from flows.trace.trail import Section, Trail, utc
from tasks.contract.params import BadInput, nearest

EVIDENCE = ("cairn.artifact", "cairn.decision", "cairn.run", "cairn.key", "cairn.commit", "cairn.dirty", "cairn.sha256", "cairn.base")
"""Tags of a version that promotion writes; the rest is for people."""


def of_alias(known: Known, model: str, alias: str) -> Trail:
    """The trail of the version at which an alias points. BadInput when it points at none, or at one that was deleted."""
    aliases, versions = known.tracking.aliases(plain(model)), known.tracking.versions(plain(model))
    now = known.ledger.champion() if alias == ALIAS else None
    if alias not in aliases:
        raise BadInput(_no_alias(alias, model, aliases, versions, now))
    version = aliases[alias]
    if version not in versions:
        raise BadInput(f"{alias} points at version {version} of {model}, which is deleted. {_kept(known, version)}")
    agrees = "" if alias != ALIAS or (now and now["version"] == version) else f"version {now['version']}" if now else "nobody"
    facts = {"points at": f"version {version} of {model}", "by the ledger": f"{agrees} is champion" if agrees else ""}
    rest = of_version(known, model, version)
    return Trail([Section("alias", alias, facts), *rest.sections], rest.stages)


def _no_alias(alias: str, model: str, aliases: Mapping[str, str], versions: Mapping[str, Any], now: Mapping[str, Any] | None) -> str:
    if now is not None:
        gone = "is deleted from the registry" if now["version"] not in versions else f"is there: `cairn trace {now['version']}`"
        return (
            f"the alias {alias} of {model} points at no version. By the ledger version {now['version']} was made champion on "
            f"{now['when']}; it {gone}. Its model: `cairn trace {now['identity']}`."
        )
    if alias == ALIAS:
        return f"there is no champion yet: no version of {model} has that alias. `cairn run` makes one when all gates hold."
    there = ", ".join(f"{name} (version {version})" for name, version in aliases.items()) or "none"
    return f"{model} has no alias {alias!r}.{nearest(alias, aliases)} Its aliases: {there}."


def _kept(known: Known, version: str) -> str:
    """What the ledger still knows of a version."""
    entries = [one for one in known.ledger.entries() if one.get("version") == version]
    if not entries:
        return "The ledger of promotions does not know it either."
    return f"The ledger knows its model: `cairn trace {entries[-1]['identity']}`."


def of_version(known: Known, model: str, version: str) -> Trail:
    """The trail of a registered version: its evidence, its decision, and all that it was made of. BadInput for an unknown one."""
    versions = known.tracking.versions(plain(model))
    if version not in versions:
        there = f"there: {', '.join(versions)}" if versions else "no version is registered"
        raise BadInput(f"version {version} of {model} is not in the registry ({there}). {_kept(known, version)}")
    found = versions[version]
    tags = {name: found.tags[name] for name in EVIDENCE if name in found.tags}
    results = {
        stage: tags[tag] for stage, tag in ((known.road.decision, EVIDENCE[1]), (known.road.candidate, EVIDENCE[0])) if tag in tags
    }
    missing = [] if results else [f"it has no tag {EVIDENCE[0]}: it was not registered by Cairn, so nothing says what it was made of"]
    facts = {
        "of": model,
        "aliases": ", ".join(alias for alias, one in known.tracking.aliases(model).items() if one == version) or "none",
        "registered": utc(found.creation_timestamp / 1000),
        **{name.removeprefix("cairn."): value for name, value in tags.items()},
        "history": [_event(one) for one in known.ledger.entries() if one.get("version") == version],
    }
    sections, stages = down(known, results)
    people = {name: value for name, value in found.tags.items() if name not in EVIDENCE}
    return Trail([Section("version", version, facts, missing, {"tags": people}), *sections], stages)


def _event(entry: Mapping[str, Any]) -> str:
    """A line of the ledger."""
    why = entry.get("approved") or entry.get("reason") or ""
    met = f"; it met {entry['against']}" if entry.get("against") else ""
    return f"{entry.get('when', '')} {entry['event']} by {entry.get('who', 'unknown')}: {why}{met}".strip()
