"""Who names a stored result, and what that was made of.

The name is taken wherever it stands in what names it, by its form: 32 hexadecimal digits, and `.dir` for a folder. So a text that only
looks like naming a result keeps one too much, never one too little. Who cannot be asked is told, and does not count as naming nothing.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import server_checks
from flows.alias import PENDING, asking_registry
from flows.gc import history
from flows.ledger import LINES, OWN, Ledger
from flows.ledger_database import Database
from flows.moved_alias import look
from flows.survey import Outlook
from tasks.checkpoints.adapters import BASE
from tasks.contract.params import StageFailed
from tasks.engine import journal
from tasks.engine.artifact import Store
from tasks.engine.explain import last
from tasks.engine.files import read_json
from tasks.engine.job import identities
from tasks.engine.plan import Plan
from tasks.engine.produce import WHOSE
from tasks.engine.registry_alias import registry_uri
from tasks.engine.sqlite_files import path_of
from tasks.engine.start import database
from tasks.serving.endpoint.kept import FOLDER as SERVED_IN

RECENT = 3600.0
"""Seconds for which nothing goes, whoever names it: who made it (another machine, DVC) may be about to name it; ours."""
NOW, YOUNG, LAST, VERSIONS, LEDGER, LOCKS, RUNS, UNFINISHED, SERVED = (
    *(
        "the present params",
        "having been made within the last hour",
        "being the last result of a stage",
        "registered versions",
        "the ledger of promotions",
    ),
    *("dvc.lock, .dvc files and params, here and in git's history", "runs in MLflow and reports/", "what interrupted runs go on from"),
    "answers that cairn serve kept",
)
DAY = 86_400
_NAME = re.compile(r"(?<![0-9a-fA-F])[0-9a-f]{32}(?:\.dir)?(?![0-9a-fA-F])")
Named = tuple[str, str]
"""(name of a stored file or folder, who names it)."""


@dataclass(frozen=True)
class Wish:
    """What a person lets go. unfinished: what interrupted runs would go on from. unrecorded: stored files that no result of this store
    has. runs: days after which a run in MLflow or reports/ names nothing any more, None for never. also: other checkouts whose state is
    here."""

    unfinished: bool = False
    unrecorded: bool = False
    runs: int | None = None
    also: Sequence[Path] = ()


def everything(plan: Plan, steps: Sequence[Outlook], wish: Wish) -> dict[str, str]:
    """Name -> who names it first, of all that is to be kept. steps: the survey. BadInput or StageFailed where somebody who may name a
    result cannot be asked."""
    named: dict[str, str] = {}
    for name, who in _directly(plan, steps, wish):
        named.setdefault(name, who)
    return _with_origins(plan.store, named)


def _directly(plan: Plan, steps: Sequence[Outlook], wish: Wish) -> Iterator[Named]:
    state = plan.store.state
    yield from of_stages(steps)
    yield from _of_records(plan.store, steps)
    yield from _all(LAST, _last_results(plan))
    yield from of_mlflow(state, wish.runs)
    yield from _all(LEDGER, _promotions(plan))
    for project in (plan.settings.project, *wish.also):
        yield from _all(LOCKS, history.texts(project))
        since = time.time() - wish.runs * DAY if wish.runs is not None else 0.0
        reports = (path for path in (project / "reports").glob("**/summary.json") if path.stat().st_mtime >= since)
        yield from _all(RUNS, map(_text, reports))
    yield from _all(RUNS, map(_text, (state / journal.FOLDER).glob("*.jsonl")))  # what MLflow is still to be told
    yield from _all(SERVED, (line for path in (state / SERVED_IN).glob("*.jsonl") for line in _lines(path)))
    yield from _all(LOCKS, map(_text, (path for folder in ("filled", "replaced") for path in (state / folder).glob("*.yaml"))))
    if not wish.unfinished:
        yield from _all(UNFINISHED, _interrupted(plan.store))


def _all(who: str, texts: Iterable[str]) -> Iterator[Named]:
    yield from ((name, who) for text in texts for name in in_text(text))


def in_text(text: str) -> set[str]:
    """The names in a text."""
    return set(_NAME.findall(text))


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace")


def _lines(path: Path) -> Iterator[str]:
    """Of a file that may be larger than memory."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from file


# --- who names what --------------------------------------------------------------------------------------------------


def of_stages(steps: Sequence[Outlook]) -> Iterator[Named]:
    """The results that the present params find, and the inputs of what they would compute."""
    for step in steps:
        if step.artifact:
            yield step.artifact.identity, NOW
        if step.job:
            yield from ((name, NOW) for name in {*step.job.inputs.values(), *step.job.read_inputs.values()} if name)


def _of_records(store: Store, steps: Sequence[Outlook]) -> Iterator[Named]:
    """Results that were just made, and parts (one world's specialist) of what the present params compute."""
    kinds = {kind_of(step.job.key.parts) for step in steps if step.job}
    for path in (store.state / "keys").glob("*.json"):
        entry = store.entry(path.stem)
        if entry and "unit" in entry["parts"] and kind_of(entry["parts"]) in kinds:
            yield entry["identity"], NOW
        elif entry and is_young(path):
            yield entry["identity"], YOUNG


def is_young(path: Path) -> bool:
    """Whether something was made, or got another name or another place, a short while ago; also if it was just taken away."""
    try:
        return time.time() - path.lstat().st_ctime < RECENT
    except FileNotFoundError:
        return True


def _last_results(plan: Plan) -> Iterator[str]:
    """Of the workspace and of experiments: what a run is compared with, and `cairn accept` takes."""
    for folder in (last(plan, "x").parent, last(plan, "x", experiment=True).parent):
        for noted in sorted(folder.glob("*.json")):
            if entry := plan.store.entry(str((read_json(noted) or {}).get("key"))):
                yield str(entry["identity"])


def _promotions(plan: Plan) -> Iterator[str]:
    """Every champion so far, whom it met, and the decision that made it so; also of a move that has begun, and of a ledger that was
    moved to another database. StageFailed when a ledger cannot be read, or when the registry that is asked does not have the ledger's
    champion: then it is another one, whose versions say nothing of this project's."""
    yield json.dumps(Ledger.of(plan).entries())
    begun = plan.store.state / PENDING
    yield _text(begun) if begun.is_file() else ""
    yield from map(_text, plan.store.state.glob(f"{LINES}.moved"))
    for path in plan.store.state.glob(f"{OWN}.moved"):
        yield json.dumps([record.entry for record in Database(path).read()])
    seen = look(plan)
    if seen.expected and not seen.alias.expected_there:
        raise StageFailed(f"{seen} So what its versions name cannot be known, and nothing is deleted; settle that first.")


def of_mlflow(state: Path, days: int | None) -> Iterator[Named]:
    """What registered versions and runs have in their tags: of the servers or databases that the settings name, and of the project's
    own database, which a server may have followed. StageFailed when one cannot be read, BadInput when a server is none. days: see
    `Wish.runs`."""
    server_checks.mlflow()
    addresses = dict.fromkeys((os.environ["MLFLOW_TRACKING_URI"], registry_uri(), database("sqlite", state / "mlflow.db")))
    for address in addresses:
        file = path_of(address)
        if file is None or (file.exists() and file.stat().st_size):
            with asking_registry():
                yield from _of_versions(address)
                yield from _of_runs(address, 0.0 if days is None else time.time() - days * DAY)


def _of_versions(address: str) -> Iterator[Named]:
    """Every version of every model, whatever its aliases: its result, decision and base."""
    from mlflow import MlflowClient

    client, token = MlflowClient(address, address), None
    while True:
        page = client.search_model_versions(max_results=1000, page_token=token)
        yield from _all(VERSIONS, (str(value) for version in page for value in version.tags.values()))
        if not (token := page.token):
            return


def _of_runs(address: str, since: float) -> Iterator[Named]:
    """Every run that was not deleted, of whatever experiment. since: seconds; those that ended earlier are left out."""
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client, token = MlflowClient(address, address), None
    experiments = [one.experiment_id for one in client.search_experiments(ViewType.ALL)]
    while True:
        page = client.search_runs(experiments, max_results=1000, page_token=token)
        counts = [run for run in page if not run.info.end_time or run.info.end_time / 1000 >= since]
        yield from _all(RUNS, (str(value) for run in counts for value in run.data.tags.values()))
        if not (token := page.token):
            return


def _interrupted(store: Store) -> Iterator[str]:
    """What unfinished work reads, and parts of results (a world's specialist, a search's scores) of which no whole was recorded."""
    records = list(store.entries())
    done = {path.stem[:32] for path in (store.state / "keys").glob("*.json")}
    for folder in (store.state / "work").glob("*"):
        if folder.name not in done:
            yield json.dumps(read_json(folder / WHOSE) or {})
    wholes = [one["parts"] for one in records if "unit" not in one["parts"]]
    for one in records:
        if "unit" in one["parts"] and not any(is_part(one["parts"], whole) for whole in wholes):
            yield str(one["identity"])


def is_part(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether a part's key belongs to a stage's: the same in all but one input, of which it has its own share."""
    inputs, others = part["inputs"], whole.get("inputs") or {}
    return kind_of(part) == kind_of(whole) and sum(others.get(name) != one for name, one in inputs.items()) <= 1


def kind_of(parts: Mapping[str, Any]) -> str:
    """What a key says without its inputs, as text: a part of a result (one world's specialist) has that of the whole."""
    return json.dumps(
        {k: v for k, v in parts.items() if k not in ("inputs", "unit", "threads", "opponent", "anchor", "used")}, sort_keys=True
    )


# --- what it was made of ---------------------------------------------------------------------------------------------


def _with_origins(store: Store, named: Mapping[str, str]) -> dict[str, str]:
    """The same with what each of them was made of, by the records of results, and the bases of adapters."""
    made_by: dict[str, list[Mapping[str, Any]]] = {}
    for entry in store.entries():
        for identity in identities(store, entry):  # a stage that may not see all of its input names a part of it
            made_by.setdefault(identity, []).append(entry)
    found, todo = dict(named), list(named)
    while todo:
        name = todo.pop()
        for other in {*_origins(made_by.get(name, ())), *_bases(store, name)}:
            if other not in found:
                found[other] = found[name]
                todo.append(other)
    return found


def _origins(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield entry["identity"]
        yield from in_text(json.dumps([entry["parts"], entry.get("read")]))  # whom it met, and what a later version may add, too


def _bases(store: Store, name: str) -> Iterator[str]:
    files = (store.files(name) or {}) if name.endswith(".dir") else {}
    for path, md5 in files.items():
        if path.rpartition("/")[2] == BASE:
            yield from in_text(store.text(md5))
