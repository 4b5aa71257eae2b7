"""The one way a job is carried out: under its key's lock, on a workbench, recorded when nothing changed meanwhile.

What changed while a stage ran is named, and nothing is recorded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.contract.params import StageFailed
from tasks.engine import sources, versions
from tasks.engine.artifact import Artifact
from tasks.engine.closure import check_closure
from tasks.engine.files import write_text
from tasks.engine.job import Changed, Job
from tasks.engine.key import Key
from tasks.engine.locks import lock

WHOSE = "key.json"
"""In a work folder: the parts of the key whose result is made there."""
Work = Callable[[Path, Path], Mapping[str, Any]]
"""work(out, scratch) leaves the artifact in `out` and returns figures."""


def produce(job: Job, work: Work) -> Artifact:
    """Carry a job out, once: other processes with the same key wait and then find the result.

    Raises Changed when code or inputs changed under it; whatever `work` raises passes through. In both cases nothing is recorded;
    after a failure `scratch` stays for the next attempt.
    """
    plan, key = job.plan, job.key
    with lock(plan.store.state, f"key-{key.digest[:32]}", lambda text: plan.watch(job.stage, "waiting", {"note": text})):
        if found := job.find():
            return found
        versions.check(plan.settings.project)
        check_closure(plan.settings, plan.stages[job.stage])
        if moved := job.moved_worlds():
            raise Changed(
                f"{', '.join(moved)} changed since this run started; stage {job.stage!r} was not run on older worlds. Run again."
            )
        plan.watch(job.stage, "started", {"key": key.digest, "method": job.method})
        start = time.monotonic()
        figures, identity = work_out(job, key, work)
        about = {"figures": figures, "seconds": round(time.monotonic() - start, 3), "method": job.method}
        done = plan.store.record(
            key, identity, {**about, "read": sorted(job.opened), "used": job.used, "profile": plan.settings.shared.profile}
        )
    plan.watch(job.stage, "done", {"identity": identity, "checkpoints": job.left(identity), "inputs": dict(job.inputs), **about})
    return done


def work_out(job: Job, key: Key, work: Work) -> tuple[dict[str, Any], str]:
    """Do a job's work (or, under a key of its own, a part of it) on a workbench; (figures, identity) of what it left.

    What the job opens is hashed before the work, and compared after it. See `produce`, whose caller holds the key's lock.
    """
    store = job.plan.store
    if job.refreshed:
        store.clear_workbench(key.digest)
    out, scratch = store.workbench(key.digest, filter(None, job.read_inputs.values()))
    write_text(out.parent / WHOSE, json.dumps(key.parts))
    _check_players(job)
    _check_source(job, trust=False)
    try:
        figures = dict(work(out, scratch))
    except Exception:
        job.check_unchanged(key.digest)  # it may have failed on bytes that were altered: then that is what has to be said
        raise
    job.check_unchanged(key.digest)
    _check_source(job, trust=True)
    identity = store.put(out)
    store.clear_workbench(key.digest)
    return figures, identity


def _check_source(job: Job, trust: bool) -> None:
    """What a method reads from outside is read by its place: its bytes must be those that the params name, before and after."""
    if source := sources.of_stage(job.plan.settings, job.stage):
        sources.check_read(source, job.plan.settings.project, job.plan.store, trust)


def _check_players(job: Job) -> None:
    """A checkpoint in this process that plays a role is read by name: its bytes must be those that the params name."""
    for _, said, role in job.plan.settings.shared.players():
        if role.backend == "local" and ".".join(said.partition("[")[0].split(".")[:2]) in job.plan.stages[job.stage].settings:
            path = job.plan.settings.project / role.path
            if (found := job.plan.store.hashes.path(path, trust=False)) != role.identity:
                raise StageFailed(f"{said}.identity = {role.identity!r}: the bytes in {role.path} are {found!r} now. Was it altered?")
