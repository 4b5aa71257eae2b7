"""What a run that is over leaves in Prefect's UI: artifacts with keys that stay the same, so that Prefect keeps a version of each for
each run that found something else. A key begins with the name of the registered model: projects may share a server.

A view, like the report: a server that is slow or lost holds no run up and ends none, and what could not be shown is told by name. The
server that a run starts for itself has no UI: it gets none.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext

from flows import artifact_texts as texts
from flows.late_sender import PATIENCE, LateSender
from flows.server import own_url
from flows.server_lost import impatient
from tasks.engine.artifact import Artifact

if TYPE_CHECKING:
    from flows.run import Run

SAME = "as in the last version"
"""What became of an artifact whose content is that of its last version."""
SENT = "sent"


def show(run: Run, done: Mapping[str, Artifact], report: texts.Report) -> None:
    """Create the artifacts of the flow run that this is called in, and say which there are. done: stage -> its artifact, of a run that
    has come to its end. report: what its page shows."""
    if own_url():
        return
    made, became = _made(run, done, report)
    became |= sent(made, run.plan.settings.shared.promote.model)
    groups: dict[str, list[str]] = {}
    for key, how in became.items():
        groups.setdefault(how, []).append(key)
    new, same = (", ".join(groups.pop(how, ())) for how in (SENT, SAME))
    for line in (
        f"artifacts  {new}" if new else "",
        f"artifacts  no new version of {same}: the content is that of the last one" if same else "",
        *(f"artifacts  MISSING {', '.join(keys)}: {why}" for why, keys in groups.items()),
    ):
        if line:
            run.plan.watch("prefect", "note", {"note": line})


def _made(run: Run, done: Mapping[str, Artifact], report: texts.Report) -> tuple[dict[str, texts.Text], dict[str, str]]:
    """(key -> artifact, of those that the run has something for; key -> why it could not be made)."""
    decision = run.plan.settings.road.decision
    makers: dict[str, Callable[[], texts.Text | None]] = {
        "pass-k": lambda: texts.pass_k(report),
        "gates": lambda: texts.gates(report, run.plan.settings.params(decision).model_dump() if decision in done else {}),
        "conversations": lambda: texts.conversations(report),
        "curves": lambda: texts.curves(report),
        "links": lambda: texts.links(report, places(run, done)) if run.computed else None,
    }
    made, failed = {}, {}
    for key, make in makers.items():
        try:
            if text := make():
                made[key] = text
        except Exception as error:  # a view of what is done and kept must not end the run
            failed[key] = _words(error)
    return made, failed


def places(run: Run, done: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """(what, where) of the report, the run in MLflow, and each stage's data."""
    plan, mlflow = run.plan, run.tracker.lost or run.tracker.mlflow.address()
    candidate = plan.settings.road.candidate
    folders = {
        stage: plan.store.view(one.identity) if plan.experiment else plan.settings.project / plan.stages[stage].out
        for stage, one in done.items()
    }
    return [
        ("report", str(Path(run.folder) / "report.html")),
        ("figures", str(Path(run.folder) / "summary.json")),
        *([("run in MLflow", mlflow)] if mlflow else []),
        *((f"data of {stage}", str(folder)) for stage, folder in folders.items()),
        *([("where the candidate comes from", f"cairn trace {done[candidate].identity}")] if candidate in done else []),
    ]


def sent(made: Mapping[str, texts.Text], model: str) -> dict[str, str]:
    """Send artifacts to the server of the flow run that this is called in, and wait PATIENCE for them at most. model: whose they are,
    by its name in the registry. Returns key (without the model) -> what became of it: SENT, SAME, or why it is missing."""
    whose = re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")
    became: dict[str, str] = {}
    context, too_late = copy_context(), threading.Event()

    def send(waiting: dict[str, texts.Text]) -> None:
        try:
            with impatient(PATIENCE), get_client(sync_client=True) as client:
                for key, text in waiting.items():
                    if not too_late.is_set():
                        became[key] = _sent(client, f"{whose}-{key}", text)
        except Exception as error:  # the same would come of the others
            became.update({key: _words(error) for key in waiting if key not in became})

    sender = LateSender[str, texts.Text]("artifacts for Prefect", lambda waiting: context.copy().run(send, waiting))
    for key, text in made.items():
        sender.put(key, text)
    sender.close()
    too_late.set()
    return {key: became.get(key, f"Prefect's server took more than {PATIENCE:.0f} s") for key in made}


def _sent(client: SyncPrefectClient, key: str, text: texts.Text) -> str:
    flow, versions = FlowRunContext.get(), ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    last = client.read_artifacts(artifact_filter=versions, sort=ArtifactSort.CREATED_DESC, limit=1)
    if last and last[0].data == text.data:
        return SAME
    run: Any = flow.flow_run.id if flow and flow.flow_run else None
    client.create_artifact(ArtifactCreate(key=key, type=text.kind, description=text.about, data=text.data, flow_run_id=run))
    return SENT


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}".rstrip(": ")
