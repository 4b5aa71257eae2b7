"""From a name to its trail: which kind of name it is, told by its form, else by looking for it."""

from __future__ import annotations

import re
from dataclasses import replace

from flows.short_identities import BEGINNING, completed, whole
from flows.trace.beside_road import of_evaluation
from flows.trace.conversations import of_row
from flows.trace.registry import of_alias, of_version
from flows.trace.rows import Search, search
from flows.trace.runs import experiments, of_commit, of_key, of_run
from flows.trace.served import of_answer
from flows.trace.stages import Known, down
from flows.trace.trail import Trail
from tasks.contract.params import BadInput, nearest

_RESULT = re.compile(rf"(?:artifact:)?(?P<identity>{BEGINNING})(?:/.*)?")
_REGISTERED = re.compile(r"models:/(?P<model>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w.-]+))")
_VERSION = re.compile(r"\d{1,6}")
_PREFECT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEXADECIMAL = re.compile(r"[0-9a-f]{7,64}")
_REPORT = re.compile(r"(?:\./)?reports/runs/(?P<key>[0-9a-f]{10})(?:/.*)?")
_SERVED = re.compile(r"chatcmpl-[0-9a-f]+")
ALIASES = ("champion", "challenger")
"""Aliases that the registry is asked for before anything else has the name."""


def find(known: Known, name: str) -> Trail:
    """The trail of an alias, a version, a run, a result, a served answer, a row, a commit or an experiment. BadInput for any other."""
    return replace(_find(known, name), name=name)


def _find(known: Known, name: str) -> Trail:
    name = completed(name, known.project, known.store, known.records)
    if (found := _RESULT.fullmatch(name)) and (identity := whole(found["identity"], known.project, known.store, known.records)):
        return _of_result(known, identity)
    if found := _REGISTERED.fullmatch(name):
        model = found["model"]
        return of_version(known, model, found["version"]) if found["version"] else of_alias(known, model, found["alias"])
    if _VERSION.fullmatch(name) or name in ALIASES:
        model = known.promotion.model
        return of_alias(known, model, name) if name in ALIASES else of_version(known, model, name)
    if _SERVED.fullmatch(name):
        return of_answer(known, name)
    if found := _REPORT.fullmatch(name):
        name = found["key"]
    if trail := _of_run(known, name) or of_commit(known, name) or _of_other_alias(known, name):
        return trail
    looked = search(known, name)
    if not looked.found and (beside := of_evaluation(known, name)):
        return beside
    if not looked.found:
        raise BadInput(_nothing(known, name, looked))
    return of_row(known, name, looked.found)


def _of_run(known: Known, name: str) -> Trail | None:
    if _PREFECT.fullmatch(name):
        return of_run(known, f"tags.`prefect.flow_run` = '{name}'")
    if not _HEXADECIMAL.fullmatch(name):
        return None
    run = of_run(known, f"attributes.run_id = '{name}'") if len(name) == 32 else None
    if run is None and len(name) == 64 and (record := known.store.entry(name)):
        return _of_result(known, record["identity"])
    return run or of_key(known, name)


def _of_result(known: Known, identity: str) -> Trail:
    """The trail of a result by its identity. BadInput for one of which nothing is known here."""
    record = known.records.of(identity)
    stage = record["parts"]["stage"] if record else next((one for one, it in known.workspace.items() if it == identity), "")
    if not stage:
        raise BadInput(
            f"{identity}: none of the {len(known.records.all)} records of this store names it (.cairn/keys), nor does dvc.lock. Its "
            "trail is where it was computed; `cairn run` on the commit that has it in dvc.lock adopts it here."
        )
    sections, stages = down(known, {stage: identity})
    return Trail(sections, stages)


def _of_other_alias(known: Known, name: str) -> Trail | None:
    model = known.promotion.model
    return of_alias(known, model, name) if name in known.tracking.aliases(model) else None


def _nothing(known: Known, name: str, looked: Search) -> str:
    """Why a name has no trail: what was looked through."""
    model = known.promotion.model
    names = [*known.tracking.aliases(model), *ALIASES, *experiments(known.project), *known.road.names, *looked.near]
    absent = (
        f" {len(looked.absent)} results could not be looked into, as their bytes are not here (`dvc pull`)." if looked.absent else ""
    )
    return (
        f"{name!r}: nothing here has this name.{nearest(name, names)} Looked for: a result, a version or alias of {model}, a run of "
        f"MLflow, Cairn or Prefect, a branch, commit or experiment, and a row of {looked.results} results (blueprint, conversation, "
        f"critique, pair).{absent} Results are named by IDENTITY.dir or its beginning, versions by their number, runs by their id."
    )
