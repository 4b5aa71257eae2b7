"""`params/champion.yaml`, the file by which both drivers know the champion: written with the ledger, and anew where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flows.ledger import Ledger, anchor, champion_of
from tasks.engine.champion import CHAMPION, Standing, read
from tasks.engine.files import write_text
from tasks.engine.locks import lock
from tasks.engine.origin import is_older
from tasks.engine.plan import Plan


def write_standing(path: Path, standing: Standing) -> None:
    """Rewrite the file of the champion below its comments."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    write_text(path, "\n".join([*comments, yaml.safe_dump(standing.tree(), sort_keys=False)]))


def standing_of(entries: Sequence[Mapping[str, Any]], standing: Standing) -> Standing:
    """What the file has to say by the ledger; `standing`: what it says now, whose history stays (a clone's ledger does not know it)."""
    if not entries or entries[-1]["event"] == "forget":
        return Standing() if entries else standing
    forgotten = max((number for number, one in enumerate(entries) if one["event"] == "forget"), default=-1)
    known = [one for one in entries[forgotten + 1 :] if "against" in one]
    opponents = {**standing.opponents, **{one["identity"]: one["against"] for one in known}}
    anchors = {**standing.anchors, **{one["identity"]: one["anchor"] for one in known if one.get("anchor")}}
    now, best = entries[-1]["identity"], anchor(entries)
    return Standing(now, opponents, None if best == now else best, anchors)


def settle(plan: Plan) -> str:
    """Before a run looks: let the file name the ledger's champion, unless this is an experiment or a commit from before its promotion.

    Promotions and rollbacks write it themselves; it differs after a kill, or when another branch's file was checked out. Returns a
    line for people, empty when there was nothing to do.
    """
    if plan.experiment:
        return ""
    project = plan.settings.project
    with lock(plan.store.state, "promote"):
        if not (difference := differs(plan)):
            return ""
        write_standing(project / CHAMPION, standing_of(Ledger.of(plan).entries(), read(project / CHAMPION)))
    return f"{difference}: it is written anew, so that this run meets the champion"


def differs(plan: Plan) -> str:
    """What the file of the champion says against the ledger; empty when they agree, or when the checkout is of an older commit, which
    decides as it did."""
    entries, project = Ledger.of(plan).entries(), plan.settings.project
    file = read(project / CHAMPION)
    if not entries:
        return ""
    now = champion_of(entries)
    there = now["identity"] if now else None
    if file.champion == there or (now and is_older(project, now.get("commit", ""))):
        return ""
    who = f"version {now['version']} ({there}) is" if now else "there is none"
    return f"{CHAMPION} names {file.champion or 'no'} champion, and {who} by the ledger"
