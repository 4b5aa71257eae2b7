"""`make test-services`: with a real Prefect server and worker a schedule starts a run by itself, people are asked, and what went wrong is
noticed; on SQLite and on Postgres."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flows.ledger_database import Database
from tasks.contract.params import read_yaml
from tests.conftest import ROOT
from tests.services.deployed import Services, allowed, deployed, present_decision
from tests.services.servers import NO_POSTGRES, postgres, postgres_programs, running

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]

SOON = 70.0
"""Seconds within which the worker has taken the first run of a schedule of every minute, on a machine that has nothing else to do."""
MEASURED = ROOT / ".cairn/bench/schedule.json"
"""Database -> seconds from the making of such a schedule until the worker took its first run, as measured here."""


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with ExitStack() as until_the_end:
        database = ""
        if request.param == "postgres":
            programs = postgres_programs()
            if programs is None:
                pytest.skip(NO_POSTGRES)
            database = f"postgresql+asyncpg://{until_the_end.enter_context(postgres(programs))}"
        yield until_the_end.enter_context(deployed(tmp_path_factory.mktemp("services"), database=database))


def test_a_schedule_starts_a_run_by_itself(services: Services) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    with services.api() as api:
        assert not [one for deployment in api.read_deployments() for one in deployment.schedules if one.active], "paused as they come"
        deployment, begun = api.read_deployment_by_name("cairn/smoke"), time.monotonic()
        every_minute = DeploymentScheduleCreate(
            schedule=CronSchedule(cron="* * * * *"), parameters={"last": "worlds"}, max_scheduled_runs=1
        )
        (made,) = api.create_deployment_schedules(deployment.id, [every_minute])
        taken = None
        while taken is None:
            assert time.monotonic() - begun < services.patience, (
                f"the worker took no run by itself within {services.patience:.0f} s: {services.told()}"
            )
            taken = next((run for run in api.read_flow_runs() if run.auto_scheduled and not run.state.is_scheduled()), None)
            time.sleep(0.5)
        after = time.monotonic() - begun
        busy = os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
        assert after <= SOON or busy, f"the worker took the first run after {after:.0f} s, more than {SOON:.0f}, on a machine at rest"
        api.update_deployment_schedule(deployment.id, made.id, active=False)
        ended = services.end_of(api, taken.id)
        assert ended.state.name == "Completed", services.told()
        late = (ended.start_time - ended.expected_start_time).total_seconds()
        _keep(services.database, after)
        print(f"taken by itself {after:.0f} s after its schedule was made; it began {late:.1f} s after its time")
        assert ended.parameters["last"] == "worlds" and ended.parameters["profile"] == "smoke"


def _keep(database: str, seconds: float) -> None:
    """Write a measured time down, for `make bench-daily`."""
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    MEASURED.write_text(json.dumps({**before, database: round(seconds, 1)}, indent=1))


def test_a_mistake_is_refused_with_its_message_alone(services: Services) -> None:
    """What Prefect can compare, when the run is created; the rest in the flow's first second, in a state of its own, without a traceback."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.exceptions import PrefectHTTPStatusError

    with services.api() as api:
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
    with services.api() as api:
        before = {one.id: one.updated for one in api.read_deployments()}
        command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--name", "smoke")
        answer = services.project.run(*command, check=False, CAIRN_PROJECT="")
        assert answer.returncode != 0 and "Set it to the checkout" in " ".join((answer.stdout + answer.stderr).split())
        assert {one.id: one.updated for one in api.read_deployments()} == before


ALIASES = "import mlflow; print(*mlflow.MlflowClient('sqlite:///.cairn/mlflow.db').get_registered_model('cairn-agent').aliases)"


def test_a_night_and_an_approval_by_a_person_from_end_to_end(services: Services) -> None:
    """The night runs the road and keeps it; its decision is asked about in a suspended run; a no ends it as Refused; asked again and
    approved, the alias moves; the champion is evaluated; where nobody answers, the run ends as Refused."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    project = services.project
    python = (sys.executable, "-c")

    def aliases() -> str:
        return project.run(*python, ALIASES).stdout.splitlines()[-1].strip()

    with services.api() as api:
        project.replace("params/pipeline.yaml", "approval: auto", "approval: manual")
        night = services.end_of(api, services.start(api, "cairn-nightly/nightly", push=False, day=20261129))
        assert night.state.is_completed(), (night.state, services.told())
        kept = project.git("for-each-ref", "refs/exps", "--format=%(refname:lstrip=-1)").stdout.split()
        assert "night-20261129" in kept and "  seed: 20261129" in (project.folder / "params/pipeline.yaml").read_text()

        decision = allowed(project, "all gates hold")
        waiting = services.end_of(api, services.start(api, "cairn/workspace"))
        assert "promote.approval is manual" in str(waiting.state.message), (waiting.state, services.told())
        (asked,) = api.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["cairn-promote"])))
        services.suspended(api, asked.id)
        assert asked.parameters["decision"] == decision and aliases() == "challenger"
        shown = api.read_flow_run_input(asked.id, "suspended-approval-description")
        assert "## Gates" in shown and "all gates hold" in shown and "There is none" not in shown.split("it lost")[1]
        for lacking in ({"approve": True}, {"approve": True, "by": "Ada", "why": " "}):
            assert api.resume_flow_run(asked.id, run_input=lacking).status.value == "REJECT"
        api.resume_flow_run(asked.id, run_input={"approve": False, "by": "Grace", "why": "rude"})
        ended = services.end_of(api, asked.id)
        assert (ended.state.name, ended.state.message) == ("Refused", "Grace: rude"), (ended.state, services.told())
        assert aliases() == "", "turned down, it stands as challenger no more"
        again = services.start(api, "cairn-promote/promote", decision=decision)
        asked = services.suspended(api, again)
        api.resume_flow_run(asked.id, run_input={"approve": True, "by": "Ada", "why": "reviewed"})
        ended = services.end_of(api, asked.id)
        assert (ended.state.name, ended.state.is_completed()) == ("Promoted", True), (ended.state, services.told())
        assert aliases() == "champion"
        (entry,) = [record.entry for record in Database(project.folder / ".cairn/promotions.db").read()]
        assert (entry["approved"], entry["decision"]) == ("reviewed (Ada)", decision)
        left = api.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["cairn-promote-timeout"])))
        assert not left, "who was answered needs no end"

        champion = services.end_of(api, services.start(api, "cairn-evaluate-champion/evaluate-champion", seed=7))
        assert champion.state.is_completed(), (champion.state, services.told())

        late = services.end_of(api, services.start(api, "cairn-promote/promote", decision=present_decision(project), hours=0.01))
        assert (late.state.name, late.state.is_completed()) == ("Refused", True), (late.state, services.told())
        assert late.state.message == "time-out: nobody answered within 0.01 hours"


def test_the_night_pauses_after_three_bad_ones(services: Services) -> None:
    with services.api() as api:
        for _ in range(3):  # this project has no remote to push to
            ended = services.end_of(api, services.start(api, "cairn-nightly/nightly", push=True))
            assert ended.state.name == "Invalid" and "no default remote" in str(ended.state.message), (ended.state, services.told())
        _within(60, lambda: api.read_deployment_by_name("cairn-nightly/nightly").paused)
        assert not api.read_deployment_by_name("cairn/smoke").paused
        api.resume_deployment(api.read_deployment_by_name("cairn-nightly/nightly").id)


LASTS = "import time; from prefect import flow; flow(name='lasts')(lambda: time.sleep(600))()"
SIGNS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


def test_a_run_whose_process_is_gone_ends_as_crashed(services: Services, tmp_path: Path) -> None:
    """The automation as it is, but for its ten minutes, on a run that gives signs of life and is killed."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    project = services.project
    (stuck, *_) = read_yaml(ROOT / "infra/automations.yaml")["automations"]
    stuck["trigger"]["within"] = 45
    (tmp_path / "soon.yaml").write_text(json.dumps({"automations": [stuck]}))
    project.run(sys.executable, "-m", "prefect", "automation", "create", "--from-file", str(tmp_path / "soon.yaml"))
    lasting = [sys.executable, "-c", LASTS]
    with services.api() as api:

        def run() -> Any:
            return next(iter(api.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["lasts"])))), None)

        with running(lasting, tmp_path / "log", signal.SIGKILL, cwd=project.folder, env={**project.environment, **SIGNS}):
            _within(services.patience, lambda: (found := run()) and found.state.is_running())
            time.sleep(50)
            assert run().state.is_running(), "it gives signs of life"
        _within(services.patience, lambda: run().state.is_crashed())
        assert run().state.message.startswith("no sign of life")


def _within(seconds: float, reached: Callable[[], Any]) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        time.sleep(0.5)
