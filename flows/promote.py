"""Approval, promotion and rollback: the registry's alias moves here, outside DVC, once per decision.

MLflow keeps no history of an alias, so a ledger (`.cairn/promotions.jsonl`) says which version was champion before, who moved the
alias, when and why. The whole act stands under one lock.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.artifact import Artifact, Store, lock, write_text
from tasks.champion import CHAMPION, read
from tasks.execute import Plan, seen_anew
from tasks.params import BadInput

if TYPE_CHECKING:
    from flows.run import Run

ALIAS = "champion"
LEDGER = "promotions.jsonl"


def ledger(state: Path) -> list[dict[str, Any]]:
    """Everything that ever happened to the alias, oldest first."""
    path = state / LEDGER
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def champion(state: Path) -> dict[str, Any] | None:
    """The ledger's last word on who is champion; None before the first promotion and after `cairn champion --none`."""
    entries = ledger(state)
    return entries[-1] if entries and entries[-1]["event"] != "forget" else None


def _write(state: Path, entry: Mapping[str, Any]) -> None:
    path = state / LEDGER
    old = path.read_text() if path.exists() else ""
    write_text(path, old + json.dumps({**entry, "who": _who(), "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}) + "\n")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


# --- what a run does -------------------------------------------------------------------------------------------------


def refusal(plan: Plan) -> str:
    """Why this run may not move the alias; empty when it may."""
    if plan.experiment:
        return "an experiment (profile or --set) promotes nothing"
    if os.environ.get("DVC_EXP_NAME") or os.environ.get("DVC_ROOT"):
        return "a DVC experiment promotes nothing"
    last = champion(plan.store.state)
    if last and _is_older(plan.settings.project, last.get("commit", "")):
        return f"this checkout is older than the champion's commit {last['commit'][:10]}"
    return ""


def _is_older(project: Path, commit: str) -> bool:
    head = _commit(project)
    if not commit or not head or head == commit:
        return False
    answer = subprocess.run(["git", "merge-base", "--is-ancestor", head, commit], cwd=project, capture_output=True, check=False)
    return answer.returncode == 0


def _commit(project: Path) -> str:
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def promote_candidate(run: Run, decision: Artifact | None, candidate: Artifact | None, approved: str = "") -> None:
    """Carry a decision out: register the candidate and move the alias, unless a gate failed or it was done before.

    approved: why a person approves, for `promote.approval: manual`. What happened is left in `run.promotion`: decision, reason,
    version, alias.
    """
    if decision is None or candidate is None:
        return
    plan, store = run.plan, run.plan.store
    verdict = json.loads((store.view(decision.identity) / "decision.json").read_text())
    run.promotion.update(decision=verdict["decision"], reason=verdict["reason"])
    with lock(store.state, "promote"):
        earlier = [entry for entry in ledger(store.state) if entry.get("decision") == decision.identity]
        now = champion(store.state)
        if now and now["identity"] == candidate.identity:
            run.promotion.update(version=now["version"], alias=ALIAS, reason=f"already champion (version {now['version']})")
        elif verdict["decision"] != "promote":
            pass
        elif why := refusal(plan):
            run.promotion.update(decision="refuse", reason=f"{verdict['reason']}; not carried out: {why}")
        elif earlier:
            done = earlier[-1]
            run.promotion.update(version=done["version"], reason=f"this decision was carried out before, as version {done['version']}")
        elif (met := (verdict.get("champion") or {}).get("identity")) != (now["identity"] if now else None):
            reason = f"it was decided against {met or 'no champion'}, and the champion is another one now; `cairn run` decides anew"
            run.promotion.update(decision="refuse", reason=f"{verdict['reason']}; not carried out: {reason}")
        elif plan.settings.shared.promote.approval == "manual" and not approved:
            run.promotion.update(decision="waiting", reason=f"{verdict['reason']}; `cairn promote` carries it out")
        else:
            _promote(run, decision, candidate, verdict, now, approved)
    if run.promotion["decision"] != "refuse" or run.computed:
        plan.watch("promote", "note", {"note": f"{run.promotion['decision']}: {run.promotion['reason']}"})


def _promote(
    run: Run, decision: Artifact, candidate: Artifact, verdict: Mapping[str, Any], now: Mapping[str, Any] | None, approved: str
) -> None:
    from tasks import track

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
    }
    # A kill between here and the ledger leaves a version that carries the decision: it is found, not registered twice.
    version = track.version_with(run.tracker, name, "cairn.decision", decision.identity) or track.register(
        run.tracker, name, folder, evidence, verdict["reason"]
    )
    track.move_alias(run.tracker, name, ALIAS, version)
    _write(
        store.state,
        {
            "event": "promote",
            "model": name,
            "version": version,
            "previous": now["version"] if now else None,
            "approved": approved,
            "identity": candidate.identity,
            "decision": decision.identity,
            "reason": verdict["reason"],
            "commit": _commit(plan.settings.project),
            "evidence": _evidence(verdict),
        },
    )
    run.promotion.update(version=version, alias=ALIAS)


def _evidence(verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {"gates": [{"name": gate["name"], "passed": gate["passed"]} for gate in verdict["gates"]]}


def sha256(folder: Path) -> str:
    """sha256 over the sorted (path, sha256) listing of a folder: what md5 names, this proves."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# --- the champion's evidence as an input file ------------------------------------------------------------------------


def refresh_evidence(project: Path, store: Store, candidate: str | None) -> bool:
    """Before a run that will meet a new candidate, let the evidence file name the current champion; says whether it changed.

    candidate: identity of the merged model if it is known before the run. When it is the champion itself nothing is touched, so
    that a promotion does not make its own decision stale.
    """
    now = champion(store.state)
    if now is None or now["identity"] == candidate:
        return False
    path = project / CHAMPION
    known = read(path)
    if known and known["identity"] == now["identity"]:
        return False
    seen_anew(path)
    write_evidence(path, {"identity": now["identity"], "model": now["model"], "version": now["version"], **now["evidence"]})
    return True


def forget(state: Path, path: Path) -> None:
    """Decide from now on as if there were no champion; the alias stays where it is."""
    with lock(state, "promote"):
        if champion(state):
            _write(state, {"event": "forget", "reason": "cairn champion --none"})
        write_evidence(path, "none")


def write_evidence(path: Path, evidence: Mapping[str, Any] | str) -> None:
    """Rewrite the evidence file below its comments."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    write_text(path, "\n".join(comments) + "\n" + yaml.safe_dump({"champion": evidence}, sort_keys=True))


# --- by hand ---------------------------------------------------------------------------------------------------------


def rollback(run: Run, why: str, to: str = "") -> str:
    """Point the alias at the champion before this one (or at version `to`); returns the version that is champion now."""
    from tasks import track

    state, name = run.plan.store.state, run.plan.settings.shared.promote.model
    with lock(state, "promote"):
        moves = [entry for entry in ledger(state) if entry["event"] in ("promote", "rollback")]
        if not moves:
            raise BadInput("there is no champion yet, so there is nothing to roll back")
        now = moves[-1]
        known = {entry["version"]: entry for entry in moves}
        target = to or now["previous"]
        if target is None:
            raise BadInput(f"version {now['version']} is the first champion; there is none before it to roll back to")
        if target not in known:
            raise BadInput(f"version {target!r} was never champion. Known: {', '.join(sorted(known))}.")
        track.move_alias(run.tracker, name, ALIAS, target)
        _write(state, {**known[target], "event": "rollback", "previous": now["version"], "reason": why})
    return str(target)
