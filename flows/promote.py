"""`cairn promote`, and what each run does with its decision: carried out here, outside DVC and once.

The whole act stands under one lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.alias import PENDING, Overtaken, asking_registry, finish_pending, move
from flows.ledger import Ledger, champion_of
from flows.ledger_database import NoLedger
from flows.moved_alias import look, settled
from flows.outcomes import Outcome, carried_out_before, not_carried_out, promoted, refused, stays, waits
from flows.records import Records
from tasks.contract.params import BadInput
from tasks.engine.artifact import Artifact
from tasks.engine.champion import CHAMPION, read
from tasks.engine.locks import lock
from tasks.engine.origin import is_older, origin, origin_tags
from tasks.engine.plan import Plan
from tasks.engine.registry_alias import NoRegistry

if TYPE_CHECKING:
    from flows.run import Run

MANUAL = "promote.approval is manual: `cairn promote` carries it out"
CHALLENGER = "challenger"
"""The registry's alias of the version that waits for a person."""
TURNED_DOWN = "cairn.turned_down"
"""The tag of a version to which a person said no: who, and why."""
AGAIN = "`cairn promote --why ...` makes it champion all the same"
"""What is said of such a version."""


def refusal(plan: Plan, stage: bool = False) -> str:
    """Why this run may not move the alias; empty when it may. stage: asked inside a stage of DVC's, which always has DVC_ROOT."""
    if plan.experiment:
        return "an experiment (profile or --set) promotes nothing"
    if os.environ.get("DVC_EXP_NAME") or (os.environ.get("DVC_ROOT") and not stage):
        return "a DVC experiment promotes nothing"
    last = Ledger.of(plan).champion()
    if last and is_older(plan.settings.project, last.get("commit", "")):
        return f"this checkout is older than the champion's commit {last['commit'][:10]}"
    return ""


def promote_candidate(run: Run, decision: Artifact | None, candidate: Artifact | None, approved: str = "") -> None:
    """Carry a decision out: register the candidate and move the alias, unless a gate failed or it was done before.

    approved: why a person approves, for `promote.approval: manual`. What happened is left in `run.promotion`: outcome, decision,
    reason, version, alias.
    """
    if decision is None or candidate is None:
        return
    verdict = json.loads((run.plan.store.view(decision.identity) / "decision.json").read_text())
    with lock(run.plan.store.state, "promote"):
        try:
            finish_pending(run.plan, run.tracker)
            outcome = _carried_out(run, decision, candidate, verdict, approved)
        except Overtaken as error:
            outcome = not_carried_out(f"{error}; `cairn run` decides anew", verdict["reason"])
        except (NoRegistry, NoLedger) as error:
            outcome = waits(f"{error}; `cairn run` carries it out when that is mended", verdict["reason"])
    run.promotion.update(outcome.summary())
    if outcome.decision != "refuse" or run.computed:
        run.plan.watch("promote", "note", {"note": f"{outcome.title}: {outcome.reason}"})


def _carried_out(run: Run, decision: Artifact, candidate: Artifact, verdict: Mapping[str, Any], approved: str) -> Outcome:
    """Judge, and act unless something says no; an alias that was moved past Cairn is settled first, or waited with."""

    def judged() -> Outcome | None:
        return _judge(run.plan, candidate.identity, decision, verdict, refusal(run.plan), approved)

    if outcome := judged():
        return outcome
    check_evidence(run.plan, decision, candidate)
    seen = look(run.plan)
    if seen.moved:
        told = f"{seen} {settled(run.plan, seen)}"
        run.note(told)
        if (seen := look(run.plan)).moved:
            return waits(told.rstrip("."), verdict["reason"])
        if outcome := judged():
            return outcome
    if approved or run.plan.settings.shared.promote.approval == "auto":
        return _promote(run, decision, candidate, verdict, approved, was=seen.alias.version)
    return _propose(run, decision, candidate, verdict)


def check_evidence(plan: Plan, decision: Artifact, candidate: Artifact) -> None:
    """BadInput when a decision was taken on an evaluation of another model, or in other worlds than the candidate was made in. What the
    store has no record of is not compared."""
    road, records = plan.settings.road, Records(plan.store, plan.settings.road)
    made = {road.candidate: candidate.identity}
    for record in records.behind(candidate.identity, road.candidate).values():
        made |= {name: one for name, one in record["parts"]["inputs"].items() if name in road.entering("worlds")}
    evaluations = {one["parts"]["inputs"].get(road.judged, "") for one in records.each(decision.identity, road.decision)}
    played = [one["parts"]["inputs"] for evaluation in evaluations for one in records.each(evaluation, road.judged)]
    others = [{name: one for name, one in inputs.items() if made.get(name, one) != one} for inputs in played]
    if others and all(others):
        name, identity = next(iter(others[0].items()))
        raise BadInput(
            f"decision {decision.identity} is no evidence about this candidate: its evaluation had {identity} of stage {name!r}, "
            f"and the candidate has {made[name]}. Nothing was changed; `cairn run` evaluates and decides anew."
        )


def foreseen(plan: Plan, decision: Artifact, candidate: Artifact) -> Outcome:
    """What is to be reason of a decision by who does not carry it out: `dvc repro`, and a run in which nothing is to do."""
    verdict = json.loads((plan.store.view(decision.identity) / "decision.json").read_text())
    pending = (plan.store.state / PENDING).exists()
    outcome = None if pending else _judge(plan, candidate.identity, decision, verdict, refusal(plan, stage=True), "")
    manual = plan.settings.shared.promote.approval == "manual"
    return outcome or waits(MANUAL if manual else "`dvc repro` moves no alias, `cairn run` does", verdict["reason"])


def _judge(plan: Plan, candidate: str, decision: Artifact, verdict: Mapping[str, Any], forbidden: str, approved: str) -> Outcome | None:
    """Why a decision is not carried out now; None when it is to be carried out. candidate: identity. forbidden: see `refusal`."""
    entries, file, reason = Ledger.of(plan).entries(), read(plan.settings.project / CHAMPION), verdict["reason"]
    now = champion_of(entries)
    there = now["identity"] if now else None if entries else file.champion
    if now and there == candidate:
        return stays(now["version"], verdict["decision"], reason)
    if verdict["decision"] != "promote":
        return refused(reason)
    if forbidden:
        return not_carried_out(forbidden, reason)
    if done := [entry for entry in entries if entry.get("decision") == decision.identity]:
        return carried_out_before(str(done[-1]["version"]))
    opponent, former = (verdict.get("champion") or {}).get("identity"), candidate in file.opponents and candidate != there
    if former and not approved:
        why = "this model was champion before and another took its place; `cairn promote --why ...` makes it champion again"
        return not_carried_out(why, reason)
    if opponent != there and candidate not in file.opponents:
        why = f"it was decided against {opponent or 'no champion'}, and the champion is {there or 'none'} now; `cairn run` decides anew"
        return not_carried_out(why, reason)
    return None


def _promote(run: Run, decision: Artifact, candidate: Artifact, verdict: Mapping[str, Any], approved: str, was: str) -> Outcome:
    """Make the candidate champion. was: the version at which the alias is."""
    name, came, now = run.plan.settings.shared.promote.model, origin(run.plan.settings.project), Ledger.of(run.plan).champion()
    version = _registered(run, decision, candidate, verdict)
    entry = {
        "event": "promote",
        "model": name,
        "version": version,
        "previous": now["version"] if now else None,
        "was": was,
        "approved": approved,
        "identity": candidate.identity,
        "against": (verdict.get("champion") or {}).get("identity"),
        "best": verdict.get("best", True),
        **({"anchor": verdict["anchor"]["identity"]} if verdict.get("anchor") else {}),
        "decision": decision.identity,
        "reason": verdict["reason"],
        **came,
        "evidence": {"gates": [{"name": gate["name"], "passed": gate["passed"]} for gate in verdict["gates"]]},
    }
    stands_no_more(run, version)
    move(run.plan, run.tracker, entry)
    return promoted(version, name, verdict["reason"])


def _propose(run: Run, decision: Artifact, candidate: Artifact, verdict: Mapping[str, Any]) -> Outcome:
    """Let the candidate stand as challenger in the registry until a person has decided; Prefect's server asks, if there is one."""
    from flows.approval_request import ask
    from tasks.engine import registry

    name, version = run.plan.settings.shared.promote.model, _registered(run, decision, candidate, verdict)
    with asking_registry():
        if turned_down := registry.tag(run.tracker, name, version, TURNED_DOWN):
            why = f"{turned_down}; {AGAIN}"
            return not_carried_out(why, verdict["reason"], version)
        registry.move_alias(run.tracker, name, CHALLENGER, version)
    return waits("; ".join([MANUAL, *ask(run.plan.settings.project, decision.identity)]), verdict["reason"], version)


def turn_down(run: Run, decision: Artifact, who_and_why: str) -> None:
    """A person says no: the version keeps who and why in a tag, and is challenger no more; no run asks about the decision again."""
    from tasks.engine import registry

    name = run.plan.settings.shared.promote.model
    with lock(run.plan.store.state, "promote"), asking_registry():
        if version := registry.version_with(run.tracker, name, "cairn.decision", decision.identity):
            registry.set_tag(run.tracker, name, version, TURNED_DOWN, who_and_why)
            stands_no_more(run, version)


def stands_no_more(run: Run, version: str) -> None:
    """Take the alias `challenger` from a version that has it."""
    from tasks.engine import registry

    with asking_registry():
        registry.drop_alias(run.tracker, run.plan.settings.shared.promote.model, CHALLENGER, version)


def _registered(run: Run, decision: Artifact, candidate: Artifact, verdict: Mapping[str, Any]) -> str:
    """The version of the registry that holds the candidate as this decision found it; made unless it is there."""
    from flows import model_card
    from tasks.checkpoints import adapters
    from tasks.engine import registry

    plan, store, name = run.plan, run.plan.store, run.plan.settings.shared.promote.model
    if not store.has(candidate.identity, verify=True):
        raise BadInput(f"the candidate {candidate.identity} is damaged in the store; run again to make or fetch it anew")
    folder = store.view(candidate.identity) / "model"
    evidence = {
        "cairn.artifact": candidate.identity,
        "cairn.key": candidate.key,
        "cairn.decision": decision.identity,
        "cairn.sha256": sha256(folder),
        "cairn.run": plan.run_key,
        **({"cairn.base": str(adapters.base_of(folder))} if adapters.is_adapter(folder) else {}),
        **origin_tags(origin(plan.settings.project)),
    }
    # A kill between here and the ledger leaves a version that carries the decision: it is found, not registered twice.
    with asking_registry():
        version = registry.version_with(run.tracker, name, "cairn.decision", decision.identity)
        if version is None:
            with in_form(plan, folder) as registered:
                about = model_card.about_version(plan, decision, candidate, verdict, evidence)
                version = registry.register(run.tracker, name, registered, about)
    return version


@contextmanager
def in_form(plan: Plan, folder: Path) -> Iterator[Path]:
    """A candidate's checkpoint as `promote.form` has it: an adapter is merged into its base where a whole one is wanted. BadInput when
    its base is gone."""
    from tasks.checkpoints import adapters, saving

    base = adapters.base_of(folder) if adapters.is_adapter(folder) else None
    if base is None or plan.settings.shared.promote.form == "adapter":
        yield folder
        return
    try:
        artifacts = {base.artifact: plan.store.read(base.artifact)}
    except LookupError:
        raise BadInput(f"the candidate is an adapter, and its base ({base}) is not in the store; `dvc pull` may bring it.") from None
    with tempfile.TemporaryDirectory() as place:
        yield saving.merged(folder, artifacts, Path(place) / "model")


def sha256(folder: Path) -> str:
    """sha256 over the sorted (path, sha256) listing of a folder: what md5 names, this proves."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
