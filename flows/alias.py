"""The registry's alias moves here, and nowhere else: written down before it begins, then alias, ledger and `params/champion.yaml`.

What a kill left half done is finished by whoever comes next. All of it is for who holds the lock `promote`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.champion_file import standing_of, write_standing
from flows.ledger import ALIAS, Ledger, signed
from flows.ledger_database import read_entry
from tasks.contract.params import StageFailed
from tasks.engine.champion import CHAMPION, read
from tasks.engine.files import write_text

if TYPE_CHECKING:
    from flows.run import Run

PENDING = "promotion.json"
"""A move of the alias that has begun."""


class NoRegistry(StageFailed):
    """The registry cannot be reached or failed: nothing is lost, and what was begun is finished by the next run."""


def move(run: Run, entry: Mapping[str, Any]) -> None:
    """Move the alias and write it down: the intent first, then alias, ledger and file."""
    write_text(run.plan.store.state / PENDING, json.dumps(signed(entry)))
    finish_pending(run)


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


def finish_pending(run: Run) -> None:
    """Finish a move of the alias that was begun (by this process, or by one that was killed). For who holds the lock."""
    ledger, project = Ledger.of(run.plan), run.plan.settings.project
    path = run.plan.store.state / PENDING
    if not path.exists():
        return
    from tasks.engine import registry

    entry = read_entry(path.read_text(encoding="utf-8", errors="replace"))
    if entry is None or not entry.get("id"):
        raise StageFailed(
            f"{path} is to say which move of the alias has begun, and is damaged. Nothing was changed. Delete it, and run again: "
            "a decision that was not carried out is carried out then."
        )
    with asking_registry():
        registry.move_alias(run.tracker, entry["model"], ALIAS, entry["version"])
    if all(one.get("id") != entry["id"] for one in ledger.entries()):
        ledger.append(entry)
    write_standing(project / CHAMPION, standing_of(ledger.entries(), read(project / CHAMPION)))
    path.unlink()
