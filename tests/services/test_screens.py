"""What a user sees, photographed in headless Chromium: Prefect's pages of deployments and runs, MLflow's of the champion, the report.

Each picture is of a page that shows what it is to show, which is what the test is about. They are written into a folder of the test's;
`make screens` keeps them in infra/screens, of a quickstart run, and takes half an hour.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.services.browser import NO_CHROMIUM, Page, browser, chromium
from tests.services.deployed import Services, allowed, deployed
from tests.services.servers import mlflow_server

KEEP = bool(os.environ.get("CAIRN_KEEP_SCREENS"))
PROFILE, PATIENCE = ("quickstart", 4000.0) if KEEP else ("smoke", 300.0)
MOST = 800_000
"""Bytes that all pictures may have together: they are in the repository."""

pytestmark = [pytest.mark.services, pytest.mark.timeout(3 * PATIENCE)]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Before anything is started: the browser, without which nothing can be photographed."""
    if chromium() is None:
        pytest.skip(NO_CHROMIUM)
    with deployed(tmp_path_factory.mktemp("screens"), PROFILE, patience=PATIENCE) as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ROOT / "infra/screens" if KEEP else tmp_path_factory.mktemp("pictures")
    folder.mkdir(exist_ok=True)
    return folder


def test_the_screens(services: Services, pictures: Path) -> None:
    """One story: an experiment that a gate refuses, a run whose candidate waits for a person, the person's yes."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    project = services.project
    project.replace("params/pipeline.yaml", "approval: auto", "approval: manual")
    with services.api() as api, browser() as page:
        refused = services.end_of(api, services.start(api, "cairn/smoke", profile="smoke"))
        assert refused.state.name == "Refused", (refused.state, services.told())
        done = services.end_of(api, services.start(api, "cairn/workspace"))
        if done.state.name == "Refused":  # as smoke's candidate, which is too small to be let through
            allowed(project, "All gates hold.")
            done = services.end_of(api, services.start(api, "cairn/workspace"))
        assert "promote.approval is manual" in str(done.state.message), (done.state, services.told())
        (asking,) = api.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["cairn-promote"])))
        services.suspended(api, asking.id)
        ui = services.url.removesuffix("/api")
        _deployments(page, ui, pictures)
        _runs(page, f"{ui}/runs", pictures)
        found = done if KEEP else refused  # the second of two smoke runs finds nothing new, and has no artifacts of its own
        _run(page, f"{ui}/runs/flow-run/{found.id}", pictures)
        _approval(page, f"{ui}/runs/flow-run/{asking.id}", pictures)
        ended = services.end_of(api, asking.id)
        assert ended.state.name == "Promoted", (ended.state, services.told())
        project.cairn("run")  # the champion in the workspace's report
        _report(page, (project.folder / "reports/report.html").as_uri(), pictures)
        with mlflow_server(pictures.parent / "mlflow", f"sqlite:///{project.folder}/.cairn/mlflow.db") as tracking:
            _mlflow(page, tracking, pictures)
    size = sum(path.stat().st_size for path in pictures.glob("*.png"))
    assert size < MOST, f"the pictures have {size:,} bytes"


def _deployments(page: Page, ui: str, pictures: Path) -> None:
    page.open(f"{ui}/deployments", "evaluate-champion")
    page.script("localStorage.setItem('deployment-list-limit', 25)")
    page.open(f"{ui}/deployments", "workspace", "nightly", "At 02:00 AM every day", height=1150)
    page.picture(pictures / "prefect-deployments.png")
    page.click("quickstart", "Concurrency Limit")
    address = str(page.script("location.pathname"))
    page.open(f"{ui}{address}/run", "profile (Optional)", "The default profile: the whole road", "sft.loop.epochs", height=1250)
    page.picture(pictures / "prefect-form.png")


def _runs(page: Page, address: str, pictures: Path) -> None:
    page.open(address, "Refused", "Suspended", height=1250)
    page.picture(pictures / "prefect-runs.png")


def _run(page: Page, address: str, pictures: Path) -> None:
    page.open(address, "Task Runs", height=1100)
    page.click("Task Runs", "evaluate: pass_k", "decide: paired_gate")
    page.picture(pictures / "prefect-run.png", settle=6)
    page.click("Logs", "Oldest to newest")
    page.picture(pictures / "prefect-logs.png", settle=4)
    _artifacts(page, address, pictures)


def _artifacts(page: Page, address: str, pictures: Path) -> None:
    page.open(address, "Artifacts", height=1250)
    page.click("Artifacts", *(f"cairn-agent-{key}" for key in ("pass-k", "gates", "conversations")))
    page.picture(pictures / "prefect-artifacts.png", settle=4)
    page.click("cairn-agent-pass-k", "95 %")
    page.picture(pictures / "prefect-pass-k.png", settle=4)


def _approval(page: Page, address: str, pictures: Path) -> None:
    """The form, and the answer by its means alone."""
    page.open(address, "Resume", height=1300)
    page.click("Resume", "Gates", "approve", "by", "why")
    page.switch("approve")
    page.fill("by", "Ada")
    page.fill("why", "I have read both conversations.")
    page.picture(pictures / "prefect-approval.png")
    page.click("Submit", "Flow run resumed")


def _report(page: Page, address: str, pictures: Path) -> None:
    for name, width, height in (("report-wide", 1400, 1500), ("report-narrow", 390, 1500)):
        page.open(address, "How good each model is", "Families", width=width, height=height)
        assert page.script("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
        page.picture(pictures / f"{name}.png", settle=0)


def _mlflow(page: Page, tracking: str, pictures: Path) -> None:
    page.open(f"{tracking}/#/models", "cairn-agent", "MLflow Assistant")
    page.click("Try it now")  # what greets who comes for the first time
    page.script("document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]').click()")
    page.script("localStorage.setItem('mlflow.detectIssues.guidanceDismissed', 'true')")
    page.open(f"{tracking}/#/models/cairn-agent", "cairn-agent", "champion", height=1100)
    page.picture(pictures / "mlflow-model.png")
    page.open(f"{tracking}/#/models/cairn-agent/versions/1", "Version 1", "champion", height=1300)
    page.picture(pictures / "mlflow-version.png")
    _trace(page, tracking, pictures)


def _trace(page: Page, tracking: str, pictures: Path) -> None:
    """A conversation of the champion, one that it won where there is one."""
    import mlflow

    client = mlflow.MlflowClient(tracking)
    place = client.search_experiments(filter_string="name = 'cairn'")[0].experiment_id
    found = client.search_traces(locations=[place], max_results=500, include_spans=False)
    found = [trace.info for trace in found if trace.info.trace_metadata["cairn.model"] == "merged"]
    won = [info for info in found if any(one.name == "reward" and one.feedback.value for one in info.assessments if one.feedback)]
    page.open(f"{tracking}/#/experiments/{place}/traces?selectedEvaluationId={(won or found)[0].trace_id}", "agent", height=1000)
    page.click("agent", "Outputs")
    page.picture(pictures / "mlflow-trace.png", settle=4)
