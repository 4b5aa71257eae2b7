"""Approval, promotion and rollback: the registry's alias moves here, outside DVC, once per decision.

MLflow keeps no history of an alias, so a ledger (`.cairn/promotions.jsonl`) says which version was champion before, who moved the
alias, when and why. `params/champion.yaml` is written with it, so that both drivers decide against the same champion. The whole act
stands under one lock, and is written down before it begins: what a kill left half done is finished by whoever comes next.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.contract.params import BadInput, StageFailed, shown
from tasks.engine.artifact import Artifact
from tasks.engine.champion import CHAMPION, Standing, read
from tasks.engine.files import write_text
from tasks.engine.locks import lock
from tasks.engine.origin import is_older, origin, origin_tags
from tasks.engine.plan import Plan

if TYPE_CHECKING:
    from flows.run import Run

ALIAS = "champion"
LEDGER = "promotions.jsonl"
PENDING = "promotion.json"
"""A move of the alias that has begun."""


class NoRegistry(StageFailed):
    """The registry cannot be reached or failed: nothing is lost, and what was begun is finished by the next run."""


# --- the ledger ------------------------------------------------------------------------------------------------------


def ledger(state: Path) -> list[dict[str, Any]]:
    """Everything that ever happened to the alias, oldest first. StageFailed for a damaged line: whom decisions meet hangs on it."""
    path, entries = state / LEDGER, []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else (), 1):
        if not line.strip():
            continue
        if not (entry := _entry(line)):
            raise StageFailed(
                f"{path}, line {number}, is no entry of the ledger of promotions: {shown(line)}. Nothing was changed. Put the file "
                "back from a backup, or delete that line; the registry's versions keep who was promoted, and from which artifact."
            )
        entries.append(entry)
    return entries


def _entry(text: str) -> dict[str, Any] | None:
    """An entry of the ledger, or of a move that has begun; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    wanted = ("event",) if found.get("event") == "forget" else ("event", "version", "identity", "model")
    return found if all(isinstance(found.get(name), str) for name in wanted) else None


def champion(state: Path) -> dict[str, Any] | None:
    """The ledger's last word on who is champion; None before the first promotion and after `cairn champion --none`."""
    entries = ledger(state)
    return entries[-1] if entries and entries[-1]["event"] != "forget" else None


def champions(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The champions that a rollback can go back along, the present one (or the last one there was) at the end.

    A version that was rolled back is gone from it: going back twice goes back two champions. `--none` takes nothing away.
    """
    stack: list[Mapping[str, Any]] = []
    for entry in entries:
        if entry["event"] == "rollback":
            known = [number for number, one in enumerate(stack) if one["version"] == entry["version"]]
            stack = [*(stack[: known[-1]] if known else stack), entry]
        elif entry["event"] == "promote":
            stack = [*(one for one in stack if one["version"] != entry["version"]), entry]
    return stack


def _write(state: Path, entry: Mapping[str, Any]) -> None:
    path = state / LEDGER
    old = path.read_text() if path.exists() else ""
    write_text(path, old + json.dumps(entry) + "\n")


def _signed(entry: Mapping[str, Any]) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**entry, "who": _who(), "when": now, "id": uuid.uuid4().hex[:12]}


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


# --- the file that both drivers read ---------------------------------------------------------------------------------


def write_standing(path: Path, standing: Standing) -> None:
    """Rewrite the file of the champion below its comments."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    write_text(path, "\n".join([*comments, yaml.safe_dump(standing.tree(), sort_keys=False)]))


def _standing(entries: Sequence[Mapping[str, Any]], standing: Standing) -> Standing:
    """What the file has to say by the ledger; `standing`: what it says now, whose history stays (a clone's ledger does not know it)."""
    if not entries or entries[-1]["event"] == "forget":
        return Standing() if entries else standing
    forgotten = max((number for number, one in enumerate(entries) if one["event"] == "forget"), default=-1)
    known = [one for one in entries[forgotten + 1 :] if "against" in one]
    met = {**standing.met, **{one["identity"]: one["against"] for one in known}}
    return Standing(entries[-1]["identity"], met)


def settle(plan: Plan) -> str:
    """Before a run looks: let the file name the ledger's champion, unless this is an experiment or a commit from before its promotion.

    Promotions and rollbacks write it themselves; it differs after a kill, or when another branch's file was checked out. Returns a
    line for people, empty when there was nothing to do.
    """
    if plan.experiment:
        return ""
    state, project = plan.store.state, plan.settings.project
    with lock(state, "promote"):
        if not (said := differs(state, project)):
            return ""
        entries = ledger(state)
        write_standing(project / CHAMPION, _standing(entries, read(project / CHAMPION)))
    return f"{said}: it is written anew, so that this run meets the champion"


def differs(state: Path, project: Path) -> str:
    """What the file of the champion says against the ledger; empty when they agree, or when the checkout is of an older commit, which
    decides as it did."""
    entries, said = ledger(state), read(project / CHAMPION)
    if not entries:
        return ""
    now = champion(state)
    there = now["identity"] if now else None
    if said.champion == there or (now and is_older(project, now.get("commit", ""))):
        return ""
    who = f"version {now['version']} ({there}) is" if now else "there is none"
    return f"{CHAMPION} names {said.champion or 'no'} champion, and {who} by the ledger"


# --- what a run does -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a decision, in words. done: whether the candidate is champion now. decision: promote, waiting or refuse."""

    title: str
    decision: str
    reason: str
    version: str | None = None
    done: bool = False

    def told(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        return {
            "outcome": self.title,
            "decision": self.decision,
            "reason": self.reason,
            "version": self.version,
            "alias": ALIAS if self.done else None,
        }


def promoted(version: str, model: str, text: str) -> Outcome:
    """The alias was moved. text: the gates' reason."""
    return Outcome("promoted", "promote", f"version {version} of {model} is champion now. {text}", version, True)


def refused(text: str) -> Outcome:
    """A gate says no."""
    return Outcome("refused", "refuse", text)


def stays(version: str, verdict: str, text: str) -> Outcome:
    """The candidate is the champion, whatever the gates say now."""
    who = f"version {version} is"
    also = f" The gates would refuse it under the present params: {text}" if verdict != "promote" else ""
    return Outcome("unchanged", "promote", f"{who} already champion, and it is this very model.{also}", version, True)


def not_carried_out(why: str, text: str, version: str | None = None) -> Outcome:
    """The gates say yes and something else says no."""
    return Outcome("not promoted", "refuse", f"{why}. The gates would allow it: {text}", version)


def carried_out_before(version: str) -> Outcome:
    """The decision moved the alias already, and somebody moved it on since."""
    reason = (
        f"this decision was carried out before, as version {version}, and a decision moves the alias once; "
        f"`cairn rollback --to {version} --why ...` makes it champion again."
    )
    return Outcome("not promoted again", "refuse", reason, version)


def waits(how: str, text: str) -> Outcome:
    """The gates say yes; a person, or another command, has to do it."""
    return Outcome("waiting", "waiting", f"{how}. {text}")


def refusal(plan: Plan, stage: bool = False) -> str:
    """Why this run may not move the alias; empty when it may. stage: asked inside a stage of DVC's, which always has DVC_ROOT."""
    if plan.experiment:
        return "an experiment (profile or --set) promotes nothing"
    if os.environ.get("DVC_EXP_NAME") or (os.environ.get("DVC_ROOT") and not stage):
        return "a DVC experiment promotes nothing"
    last = champion(plan.store.state)
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
            finish_pending(run)
            outcome = _judge(run.plan, candidate.identity, decision, verdict, refusal(run.plan), approved)
            outcome = outcome or _promote(run, decision, candidate, verdict, approved)
        except NoRegistry as error:
            outcome = waits(f"{error}; `cairn run` carries it out when the registry answers", verdict["reason"])
    run.promotion.update(outcome.told())
    if outcome.decision != "refuse" or run.computed:
        run.plan.watch("promote", "note", {"note": f"{outcome.title}: {outcome.reason}"})


def foreseen(plan: Plan, decision: Artifact, candidate: Artifact) -> Outcome:
    """What is to be said of a decision by who does not carry it out: `dvc repro`, and a run in which nothing is to do."""
    verdict = json.loads((plan.store.view(decision.identity) / "decision.json").read_text())
    pending = (plan.store.state / PENDING).exists()
    outcome = None if pending else _judge(plan, candidate.identity, decision, verdict, refusal(plan, stage=True), "")
    return outcome or waits("`dvc repro` moves no alias, `cairn run` does", verdict["reason"])


def _judge(plan: Plan, candidate: str, decision: Artifact, verdict: Mapping[str, Any], forbidden: str, approved: str) -> Outcome | None:
    """Why a decision is not carried out now; None when it is to be carried out. candidate: identity. forbidden: see `refusal`."""
    state, said = plan.store.state, verdict["reason"]
    entries, file = ledger(state), read(plan.settings.project / CHAMPION)
    now = champion(state)
    there = now["identity"] if now else None if entries else file.champion
    if now and there == candidate:
        return stays(now["version"], verdict["decision"], said)
    if verdict["decision"] != "promote":
        return refused(said)
    if forbidden:
        return not_carried_out(forbidden, said)
    if done := [entry for entry in entries if entry.get("decision") == decision.identity]:
        return carried_out_before(str(done[-1]["version"]))
    met, former = (verdict.get("champion") or {}).get("identity"), candidate in file.met and candidate != there
    if former and not approved:
        why = "this model was champion before and another took its place; `cairn promote --why ...` makes it champion again"
        return not_carried_out(why, said)
    if met != there and candidate not in file.met:
        why = f"it was decided against {met or 'no champion'}, and the champion is {there or 'none'} now; `cairn run` decides anew"
        return not_carried_out(why, said)
    if plan.settings.shared.promote.approval == "manual" and not approved:
        return waits("promote.approval is manual: `cairn promote` carries it out", said)
    return None


def _promote(run: Run, decision: Artifact, candidate: Artifact, verdict: Mapping[str, Any], approved: str) -> Outcome:
    from tasks.engine import track

    plan, store, name = run.plan, run.plan.store, run.plan.settings.shared.promote.model
    if not store.has(candidate.identity, verify=True):
        raise BadInput(f"the candidate {candidate.identity} is damaged in the store; run again to make or fetch it anew")
    folder, came, now = store.view(candidate.identity) / "model", origin(plan.settings.project), champion(store.state)
    evidence = {
        "cairn.artifact": candidate.identity,
        "cairn.key": candidate.key,
        "cairn.decision": decision.identity,
        "cairn.sha256": sha256(folder),
        "cairn.run": plan.run_key,
        **origin_tags(came),
    }
    # A kill between here and the ledger leaves a version that carries the decision: it is found, not registered twice.
    with registry():
        version = track.version_with(run.tracker, name, "cairn.decision", decision.identity) or track.register(
            run.tracker, name, folder, evidence, verdict["reason"]
        )
    entry = {
        "event": "promote",
        "model": name,
        "version": version,
        "previous": now["version"] if now else None,
        "approved": approved,
        "identity": candidate.identity,
        "against": (verdict.get("champion") or {}).get("identity"),
        "decision": decision.identity,
        "reason": verdict["reason"],
        **came,
        "evidence": {"gates": [{"name": gate["name"], "passed": gate["passed"]} for gate in verdict["gates"]]},
    }
    _move(run, entry)
    return promoted(version, name, verdict["reason"])


def _move(run: Run, entry: Mapping[str, Any]) -> None:
    """Move the alias and write it down: the intent first, then alias, ledger and file."""
    write_text(run.plan.store.state / PENDING, json.dumps(_signed(entry)))
    finish_pending(run)


@contextmanager
def registry() -> Iterator[None]:
    """While the block talks to MLflow's registry: NoRegistry when it cannot be reached or fails."""
    try:
        yield
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        if not isinstance(error, (MlflowException, RequestException)):
            raise
        said = (str(error).splitlines() or [""])[0][:200]
        raise NoRegistry(f"MLflow's registry failed ({type(error).__name__}: {said})") from None


def finish_pending(run: Run) -> None:
    """Finish a move of the alias that was begun (by this process, or by one that was killed). For who holds the lock."""
    state, project = run.plan.store.state, run.plan.settings.project
    path = state / PENDING
    if not path.exists():
        return
    from tasks.engine import track

    entry = _entry(path.read_text(encoding="utf-8", errors="replace"))
    if entry is None or not entry.get("id"):
        raise StageFailed(
            f"{path} is to say which move of the alias has begun, and is damaged. Nothing was changed. Delete it, and run again: "
            "a decision that was not carried out is carried out then."
        )
    with registry():
        track.move_alias(run.tracker, entry["model"], ALIAS, entry["version"])
    if all(one.get("id") != entry["id"] for one in ledger(state)):
        _write(state, entry)
    write_standing(project / CHAMPION, _standing(ledger(state), read(project / CHAMPION)))
    path.unlink()


def sha256(folder: Path) -> str:
    """sha256 over the sorted (path, sha256) listing of a folder: what md5 names, this proves."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# --- by hand ---------------------------------------------------------------------------------------------------------


def forget(state: Path, path: Path) -> None:
    """Decide from now on as if there were no champion; the alias stays where it is."""
    with lock(state, "promote"):
        if champion(state):
            _write(state, _signed({"event": "forget", "reason": "cairn champion --none"}))
        write_standing(path, Standing())


def rollback(run: Run, why: str, to: str = "") -> str:
    """Point the alias at the champion before this one (or at version `to`); returns the version that is champion now.

    It goes back along the champions: a version that was rolled back is not gone back to, except by name. After `champion --none` it
    goes back to the last one there was.
    """
    state = run.plan.store.state
    with lock(state, "promote"):
        finish_pending(run)
        entries = ledger(state)
        known = {entry["version"]: entry for entry in entries if entry["event"] in ("promote", "rollback")}
        now, stack = champion(state), champions(entries)
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
        target = known[to] if to else known[stack[-2 if now else -1]["version"]]
        previous = now["version"] if now else None
        _move(run, {**target, "event": "rollback", "previous": previous, "reason": why, "approved": ""})
    return str(target["version"])
