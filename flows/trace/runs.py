"""Runs: of MLflow, of Cairn (reports/runs/<id>, or the workspace's last one), of Prefect; and what git knows by dvc.lock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.trace.stages import Known, down
from flows.trace.trail import Section, Trail, utc
from tasks.contract.params import BadInput, parse_yaml
from tasks.engine.dvc_yaml import DATA
from tasks.engine.files import read_json
from tasks.engine.origin import git

SHORT = 10
"""Characters of a run's key by which its folder is named."""
_MADE, _CACHED = "cairn.artifact.", "cairn.cached."
"""Beginnings of a run's tags that name results: those that it computed, and those that it found."""


def of_run(known: Known, query: str) -> Trail | None:
    """The trail of a run of MLflow's that a filter finds; None when there is none."""
    found = known.tracking.runs(query)
    return _of_mlflow(known, found[0]) if found else None


def of_key(known: Known, key: str) -> Trail | None:
    """The trail of a run by the beginning of its key: as MLflow has it, else as its report has it. BadInput when several begin so."""
    runs = known.tracking.runs(f"tags.`cairn.run` LIKE '{key}%'")
    if len({one.data.tags["cairn.run"] for one in runs}) > 1:
        raise BadInput(f"{key}: several runs begin so; more of its key tells them apart")
    if runs:
        return _of_mlflow(known, runs[0])
    for place in (known.project / "reports", known.project / "reports" / "runs" / key[:SHORT]):
        summary = read_json(place / "summary.json")
        if summary and key.startswith(str(summary.get("run"))):
            return _of_summary(known, summary, place)
    return None


def _of_mlflow(known: Known, run: Any) -> Trail:
    tags: Mapping[str, str] = run.data.tags
    computed = {name.removeprefix(_MADE): value for name, value in tags.items() if name.startswith(_MADE)}
    cached = {name.removeprefix(_CACHED): value for name, value in tags.items() if name.startswith(_CACHED)}
    own = {tags["cairn.stage"]: tags["cairn.artifact"]} if {"cairn.stage", "cairn.artifact"} <= {*tags} else {}
    results = {**cached, **computed, **own}
    part_of = tags.get("mlflow.parentRunId", "")
    key = tags.get("cairn.run", "")
    summary = read_json(known.project / "reports" / "runs" / key[:SHORT] / "summary.json") or {}
    facts = {
        "name": run.info.run_name or "",
        "status": f"{run.info.status}, {_time(run.info.start_time)} to {_time(run.info.end_time)}",
        "part of": f"MLflow run {part_of}" if part_of else "",
        "cairn run": key,
        "profile": tags.get("cairn.profile", ""),
        "commit": tags.get("cairn.commit", "") + (f", with changes in {tags['cairn.dirty']}" if "cairn.dirty" in tags else ""),
        "prefect": tags.get("prefect.flow_run", ""),
        "computed": ", ".join(one for one in known.road.names if one in {**computed, **own}),
        "cached": ", ".join(one for one in known.road.names if one in cached),
        **_promotion(summary),
    }
    missing = [] if results else ["it names no result: it ended before a stage was done, or was no run of Cairn's"]
    sections, stages = down(known, results)
    params = {"params": dict(run.data.params)} if run.data.params else {}
    return Trail([Section("run", run.info.run_id, facts, missing, params), *sections], stages)


def _of_summary(known: Known, summary: Mapping[str, Any], place: Path) -> Trail:
    results = {stage: one["artifact"] for stage, one in (summary.get("stages") or {}).items()}
    facts = {
        "report": str(place.relative_to(known.project) / "report.html"),
        "profile": str(summary.get("profile", "")),
        "seed": str(summary.get("seed", "")),
        **_promotion(summary),
    }
    missing = ["commit, times and Prefect's run: no run of this MLflow has its key, and a report does not say them"]
    sections, stages = down(known, results)
    return Trail([Section("run", str(summary["run"]), facts, missing), *sections], stages)


def _promotion(summary: Mapping[str, Any]) -> dict[str, str]:
    found = summary.get("promotion") or {}
    return {"outcome": f"{found['outcome']}: {found['reason']}"} if found.get("outcome") else {}


def _time(milliseconds: int | None) -> str:
    return utc(milliseconds / 1000) if milliseconds else "now"


# --- what git knows --------------------------------------------------------------------------------------------------


def experiments(project: Path) -> dict[str, str]:
    """Name -> commit of DVC's experiments that lie in this repository."""
    said = git(project, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
    lines = (line.split(" ", 1) for line in said.splitlines())
    return {ref.rpartition("/")[2]: commit for commit, ref in lines if ref.startswith("refs/exps/") and ref.count("/") == 4}


def of_commit(known: Known, name: str) -> Trail | None:
    """The trail of what dvc.lock names: in the checkout ("workspace"), a commit, a branch, a tag or an experiment of DVC's. None for a
    name that git does not know."""
    if name == "workspace":
        results, facts = known.workspace, {"from": "dvc.lock of the checkout"}
    else:
        commit = experiments(known.project).get(name, name)
        if not re.fullmatch(r"[\w./~^@{}-]+", commit) or commit.startswith("-"):
            return None
        whole = (git(known.project, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") or "").strip()
        if not whole:
            return None
        text = git(known.project, "show", f"{whole}:./dvc.lock")
        if text is None:
            raise BadInput(f"{name}: commit {whole[:SHORT]} has no dvc.lock, so it names no results")
        results, facts = dict(_outs(text)), {"from": f"dvc.lock of commit {whole}"}
    if not results:
        raise BadInput(f"{name}: dvc.lock names no result of a stage; `cairn run` writes it")
    sections, stages = down(known, results)
    return Trail([Section("commit", name, facts), *sections], stages)


def _outs(text: str) -> Iterator[tuple[str, str]]:
    for stage, entry in (parse_yaml(text, "dvc.lock").get("stages") or {}).items():
        for out in entry.get("outs") or ():
            if out["path"] == f"{DATA}{stage}":
                yield stage, str(out["md5"])
