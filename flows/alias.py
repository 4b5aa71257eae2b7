"""The registry's alias moves here, and nowhere else: written down before it begins, then alias, ledger and `params/champion.yaml`.

What a kill left half done is finished by whoever comes next. All of it is for who holds the lock `promote`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.champion_file import standing_of, write_standing
from flows.ledger import ALIAS, RECORD, Ledger, signed
from flows.ledger_database import read_entry
from tasks.contract.params import StageFailed
from tasks.engine.champion import CHAMPION, read
from tasks.engine.files import write_text
from tasks.engine.plan import Plan
from tasks.engine.registry_alias import NoRegistry

if TYPE_CHECKING:
    from tasks.engine.track import Tracker

PENDING = "promotion.json"
"""A move of the alias that has begun."""


class Overtaken(StageFailed):
    """Somebody else moved the alias first, or deleted the version: this move is given up, and nothing was changed."""


def move(plan: Plan, tracker: Tracker, entry: Mapping[str, Any]) -> None:
    """Move the alias and write it down: the intent first, then alias, ledger and file.

    entry: of the ledger; `was`: the version at which the alias was when the move was decided on ("" for none). Raises Overtaken when it
    is elsewhere by now.
    """
    write_text(plan.store.state / PENDING, json.dumps(signed(entry)))
    finish_pending(plan, tracker)


@contextmanager
def asking_registry() -> Iterator[None]:
    """While the block talks to MLflow's registry: NoRegistry when it cannot be reached or fails."""
    try:
        yield
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        if not isinstance(error, (MlflowException, RequestException)):
            raise
        message = (str(error).splitlines() or [""])[0][:200]
        raise NoRegistry(f"MLflow's registry failed ({type(error).__name__}: {message})") from None


def finish_pending(plan: Plan, tracker: Tracker) -> None:
    """Finish a move of the alias that was begun (by this process, or by one that was killed). For who holds the lock.

    The lock is this project's. Against others who share the registry, the alias is looked at and moved while nobody else moves it.
    """
    ledger, project = Ledger.of(plan), plan.settings.project
    path = plan.store.state / PENDING
    if not path.exists():
        return
    from tasks.engine import registry

    entry = read_entry(path.read_text(encoding="utf-8", errors="replace"))
    if entry is None or not entry.get("id"):
        raise StageFailed(
            f"{path} is to say which move of the alias has begun, and is damaged. Nothing was changed. Delete it, and run again: "
            "a decision that was not carried out is carried out then."
        )
    with asking_registry(), registry.alone(tracker, entry["model"]):
        if why := _overtaken(tracker, entry):
            path.unlink()
            raise Overtaken(why)
        registry.move_alias(tracker, entry["model"], ALIAS, entry["version"])
    if all(one.get("id") != entry["id"] for one in ledger.entries()):
        ledger.append(entry)
    with asking_registry():
        registry.set_tag(tracker, entry["model"], entry["version"], RECORD, ledger.last_record())
    write_standing(project / CHAMPION, standing_of(ledger.entries(), read(project / CHAMPION)))
    path.unlink()


def _overtaken(tracker: Tracker, entry: Mapping[str, Any]) -> str:
    """Why a move is given up; empty when it can be made, or was made already by a process that was killed afterwards."""
    from tasks.engine import registry

    model, version = entry["model"], entry["version"]
    if not registry.has_version(tracker, model, version):
        return f"version {version} of {model} was deleted in the registry; the alias {ALIAS} stays where it is"
    now, before = registry.alias_at(tracker, model, ALIAS), entry.get("was")
    if before is None or now in (before, version):
        return ""
    where = f"at version {now}" if now else "taken away"
    return f"somebody else was first: the alias {ALIAS} of {model} is {where} now, and was at {before or 'no version'} a moment ago"
