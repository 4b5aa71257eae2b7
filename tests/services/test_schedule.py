"""`make test-services`: with a real Prefect server and worker a schedule starts a run by itself, on SQLite and on Postgres."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from flows.ledger_database import Database
from tests.conftest import ROOT, Project, make_project
from tests.services.servers import postgres, postgres_programs, prefect_server, running

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

SOON = 70.0
"""Seconds within which the worker has taken the first run of a schedule of every minute, on a machine that has nothing else to do."""
PATIENCE = 300.0
"""Seconds that a short run may take to its end on a busy machine."""


@dataclass
class Services:
    """A project that is deployed on a Prefect server, with a worker that waits for runs."""

    project: Project
    url: str

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
            assert time.monotonic() - begun < PATIENCE, f"it does not get there: {found.state}: {self.told()}"
            time.sleep(0.5)
        return found


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    project = make_project(folder / "project")
    shutil.copytree(ROOT / "infra", project.folder / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    project.environment |= {"PREFECT_HOME": str(folder / "home"), "CAIRN_PROJECT": str(project.folder)}
    with ExitStack() as until_the_end:
        database = ""
        if request.param == "postgres":
            programs = postgres_programs()
            if programs is None:
                pytest.skip(
                    "NOT TESTED ON POSTGRES: it is not installed (apt-get install postgresql); neither PATH nor "
                    "/usr/lib/postgresql has initdb and postgres"
                )
            database = f"postgresql+asyncpg://{until_the_end.enter_context(postgres(programs))}"
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
        yield Services(project, url)


def client(services: Services) -> Any:
    from prefect.client.orchestration import SyncPrefectClient

    return SyncPrefectClient(services.url)


def test_a_schedule_starts_a_run_by_itself(services: Services) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    with client(services) as api:
        assert not [one for deployment in api.read_deployments() for one in deployment.schedules if one.active], "paused as they come"
        deployment, begun = api.read_deployment_by_name("cairn/smoke"), time.monotonic()
        every_minute = DeploymentScheduleCreate(
            schedule=CronSchedule(cron="* * * * *"), parameters={"last": "worlds"}, max_scheduled_runs=1
        )
        (made,) = api.create_deployment_schedules(deployment.id, [every_minute])
        taken = None
        while taken is None:
            assert time.monotonic() - begun < PATIENCE, f"the worker took no run by itself within {PATIENCE:.0f} s: {services.told()}"
            taken = next((run for run in api.read_flow_runs() if run.auto_scheduled and not run.state.is_scheduled()), None)
            time.sleep(0.5)
        after = time.monotonic() - begun
        busy = os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
        assert after <= SOON or busy, f"the worker took the first run after {after:.0f} s, more than {SOON:.0f}, on a machine at rest"
        api.update_deployment_schedule(deployment.id, made.id, active=False)
        ended = services.end_of(api, taken.id)
        assert ended.state.name == "Completed", services.told()
        late = (ended.start_time - ended.expected_start_time).total_seconds()
        print(f"taken by itself {after:.0f} s after its schedule was made; it began {late:.1f} s after its time")
        assert ended.parameters["last"] == "worlds" and ended.parameters["profile"] == "smoke"


def test_a_mistake_is_refused_with_its_message_alone(services: Services) -> None:
    """What Prefect can compare, when the run is created; the rest in the flow's first second, in a state of its own, without a traceback."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.exceptions import PrefectHTTPStatusError

    with client(services) as api:
        deployment = api.read_deployment_by_name("cairn/smoke")
        with pytest.raises(PrefectHTTPStatusError, match="'banana' is not one of"):
            api.create_flow_run_from_deployment(deployment.id, parameters={"refresh": ["banana"]})
        wrong = api.create_flow_run_from_deployment(deployment.id, parameters={"first": "rl", "last": "sft"})
        ended = services.end_of(api, wrong.id)
        assert (ended.state.name, ended.state.message) == ("Invalid", "first rl lies after last sft") and ended.state.is_failed()
        told = [log.message for log in api.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[wrong.id])))]
        assert not [line for line in told if "Traceback" in line], told
        assert ended.total_run_time.total_seconds() < 10, "it was not in its first seconds"


def test_a_deployment_without_its_project_is_refused_when_it_is_deployed(services: Services) -> None:
    with client(services) as api:
        before = {one.id: one.updated for one in api.read_deployments()}
        command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--name", "smoke")
        answer = services.project.run(*command, check=False, CAIRN_PROJECT="")
        assert answer.returncode != 0 and "Set it to the checkout" in " ".join((answer.stdout + answer.stderr).split())
        assert {one.id: one.updated for one in api.read_deployments()} == before


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
ALIASES = "import mlflow; print(*mlflow.MlflowClient('sqlite:///.cairn/mlflow.db').get_registered_model('cairn-agent').aliases)"


def test_a_night_and_an_approval_by_a_person_from_end_to_end(services: Services) -> None:
    """The night runs the road and keeps it; its decision is asked about in a suspended run; approved, the alias moves; the champion is
    evaluated; where nobody answers, the run ends as Refused."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    project = services.project
    python = (sys.executable, "-c")

    def aliases() -> str:
        return project.run(*python, ALIASES).stdout.strip().splitlines()[-1]

    with client(services) as api:

        def start(name: str, **parameters: Any) -> Any:
            return api.create_flow_run_from_deployment(api.read_deployment_by_name(name).id, parameters=parameters).id

        project.replace("params/pipeline.yaml", "approval: auto", "approval: manual")
        night = services.end_of(api, start("cairn-nightly/nightly", push=False, day=20261129))
        assert night.state.is_completed(), (night.state, services.told())
        kept = project.git("for-each-ref", "refs/exps", "--format=%(refname:lstrip=-1)").stdout.split()
        assert "night-20261129" in kept and "  seed: 20261129" in (project.folder / "params/pipeline.yaml").read_text()

        decision = project.run(*python, ALLOW, "all gates hold").stdout.strip().splitlines()[-1]
        waiting = services.end_of(api, start("cairn/workspace"))
        assert "promote.approval is manual" in str(waiting.state.message), (waiting.state, services.told())
        (asked,) = api.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["cairn-promote"])))
        services.suspended(api, asked.id)
        assert asked.parameters["decision"] == decision and aliases() == "challenger"
        shown = api.read_flow_run_input(asked.id, "suspended-approval-description")
        assert "## Gates" in shown and "all gates hold" in shown and "A conversation that it lost" in shown
        for lacking in ({"approve": True}, {"approve": True, "by": "Ada", "why": " "}):
            assert api.resume_flow_run(asked.id, run_input=lacking).status.value == "REJECT"
        api.resume_flow_run(asked.id, run_input={"approve": True, "by": "Ada", "why": "reviewed"})
        ended = services.end_of(api, asked.id)
        assert (ended.state.name, ended.state.is_completed()) == ("Promoted", True), (ended.state, services.told())
        assert aliases() == "champion"
        (entry,) = [record.entry for record in Database(project.folder / ".cairn/promotions.db").read()]
        assert (entry["approved"], entry["decision"]) == ("reviewed (Ada)", decision)
        left = api.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["cairn-promote-timeout"])))
        assert not left, "who was answered needs no end"

        champion = services.end_of(api, start("cairn-evaluate-champion/evaluate-champion", seed=7))
        assert champion.state.is_completed(), (champion.state, services.told())

        late = services.end_of(api, start("cairn-promote/promote", decision=_decision(project), hours=0.01))
        assert (late.state.name, late.state.is_completed()) == ("Refused", True), (late.state, services.told())
        assert late.state.message == "time-out: nobody answered within 0.01 hours"


def _decision(project: Project) -> str:
    """The workspace's decision as it is now."""
    script = (
        "from flows.approval import present_decision; from flows.run import open_plan; print(present_decision(open_plan())[0].identity)"
    )
    return project.run(sys.executable, "-c", script).stdout.strip().splitlines()[-1]
