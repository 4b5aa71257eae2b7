"""A project of Cairn's that is deployed on a real Prefect server, with a worker that waits for runs."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import ROOT, Project, make_project
from tests.services.servers import prefect_server, running

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@dataclass(frozen=True)
class Services:
    """url: of the server's API. database: sqlite or postgres. patience: seconds that a run may take to its end on a busy machine."""

    project: Project
    url: str
    database: str
    patience: float

    def api(self) -> SyncPrefectClient:
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self.url)

    def start(self, api: Any, deployment: str, **parameters: Any) -> Any:
        """A new run of a deployment (FLOW/NAME): its id."""
        return api.create_flow_run_from_deployment(api.read_deployment_by_name(deployment).id, parameters=parameters).id

    def told(self) -> str:
        """The end of what the worker and the runs in it said."""
        return (self.project.folder.parent / "worker.log").read_text(errors="replace")[-3000:]

    def end_of(self, api: Any, run: Any) -> Any:
        """A run, once it has ended."""
        return self._once(api, run, lambda state: state.is_final())

    def suspended(self, api: Any, run: Any) -> Any:
        """A run, once it waits for a person."""
        return self._once(api, run, lambda state: state.name == "Suspended")

    def _once(self, api: Any, run: Any, reached: Callable[[Any], bool]) -> Any:
        begun = time.monotonic()
        while not reached((found := api.read_flow_run(run)).state):
            assert not found.state.is_final(), f"it ended: {found.state}: {self.told()}"
            assert time.monotonic() - begun < self.patience, f"it does not get there: {found.state}: {self.told()}"
            time.sleep(0.5)
        return found


@contextmanager
def deployed(folder: Path, profile: str = "smoke", database: str = "", patience: float = 300.0) -> Iterator[Services]:
    """Everything of `infra/prefect.yaml` and the automations, as `flows/README.md` says, while the block runs. database: the URL of a
    Postgres; "": SQLite."""
    project = make_project(folder / "project", profile)
    shutil.copytree(ROOT / "infra", project.folder / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    project.environment |= {"PREFECT_HOME": str(folder / "home"), "CAIRN_PROJECT": str(project.folder)}
    with ExitStack() as until_the_end:
        url = until_the_end.enter_context(prefect_server(folder / "home", project.environment, database))
        project.environment["PREFECT_API_URL"] = url
        prefect = (sys.executable, "-m", "prefect")
        project.run(*prefect, "work-pool", "create", "cairn", "--type", "process")
        project.run(*prefect, "work-queue", "create", "gpu", "--pool", "cairn", "--limit", "1")
        project.run(*prefect, "concurrency-limit", "create", "model-server 127.0.0.1:8000", "1")
        project.run(*prefect, "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--all")
        project.run(*prefect, "automation", "create", "--from-file", "infra/automations.yaml")
        worker = [*prefect, "worker", "start", "--pool", "cairn"]
        until_the_end.enter_context(running(worker, folder / "worker.log", signal.SIGTERM, cwd=project.folder, env=project.environment))
        yield Services(project, url, "postgres" if database else "sqlite", patience)


ALLOW = """
import json, shutil, sys, tempfile
from pathlib import Path
from flows.run import open_plan
from flows.survey import survey

plan = open_plan()
step = {one.stage: one for one in survey(plan)}["decide"]
with tempfile.TemporaryDirectory() as place:
    folder = Path(shutil.copytree(plan.store.view(step.artifact.identity), Path(place) / "decision"))
    said = json.loads((folder / "decision.json").read_text()) | {"decision": "promote", "reason": sys.argv[1]}
    (folder / "decision.json").write_text(json.dumps(said))
    print(plan.store.record(step.job.key, plan.store.put(folder), {}).identity)
"""
"""Bind the decision's key to one that says yes: the smoke road's candidate is too small to be let through."""


def allowed(project: Project, reason: str) -> str:
    """Let the workspace's decision be yes, for this reason; its identity."""
    return project.run(sys.executable, "-c", ALLOW, reason).stdout.strip().splitlines()[-1]


def present_decision(project: Project) -> str:
    """The identity of the workspace's decision as it is now."""
    script = (
        "from flows.approval import present_decision; from flows.run import open_plan; print(present_decision(open_plan())[0].identity)"
    )
    return project.run(sys.executable, "-c", script).stdout.strip().splitlines()[-1]
