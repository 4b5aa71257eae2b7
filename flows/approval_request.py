"""Prefect's server asks a person about a decision, in a flow run of its own: for days, without a process or a place in a queue.

That run is suspended, so what ends it when nobody answers cannot be in its process: it is a scheduled run of another deployment, which
stands in the server's database and outlives every process and machine. (Prefect's own time-out would end the run as Failed.)
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows import inherited
from flows.server import own_url
from flows.server_lost import impatient
from tasks.contract.params import BadInput

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

APPROVAL, TIMEOUT = "cairn-promote/promote", "cairn-promote-timeout/promote-timeout"
"""Names of the deployments: the one that asks, and the one that answers for who does not."""
DEPLOY = "`prefect deploy --prefect-file infra/prefect.yaml --all`"
ASKS = "at {} asks who approves, and why"
"""What is told of a run that asks. {}: the address of its server."""
PATIENCE = 10.0
"""Seconds that a request to the server may take; ours."""


def ask(project: Path, decision: str, key: str = "") -> list[str]:
    """Have a run of the deployment `promote` ask about a decision, once for each `key`; those that ask about another decision of this
    project end. Returns where it asks, or why it does not, in a sentence for people; nothing where no Prefect server is named."""
    named = inherited.of_prefect("PREFECT_API_URL")
    if named is None or named.value == own_url():
        return []
    import httpx
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    try:
        with _client(named.value) as client:
            deployment = client.read_deployment_by_name(APPROVAL)
            if str(project) not in str(deployment.pull_steps):
                return [f"Prefect's deployment {APPROVAL} at {named.value} is another project's, so nobody is asked there"]
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters={"decision": decision}, idempotency_key=f"approval of {key or decision}"
            )
            _end_older(client, deployment, decision)
    except ObjectNotFound:
        return [f"Prefect's server at {named.value} has no deployment {APPROVAL}, so nobody is asked there: {DEPLOY}"]
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        return [f"Prefect's server at {named.value} could not be asked to ask ({type(error).__name__})"]
    return [f"flow run {run.name!r} ({run.id}) {ASKS.format(named.value)}"]


def is_asked(reason: str) -> bool:
    """Whether the server that is named now asks already, by what was reported of the decision; True where none is named."""
    named = inherited.of_prefect("PREFECT_API_URL")
    return named is None or named.value == own_url() or ASKS.format(named.value) in reason


def _end_older(client: SyncPrefectClient, deployment: DeploymentResponse, decision: str) -> None:
    """Answer for the suspended runs that ask about former decisions: what they ask about cannot be carried out any more."""
    from prefect.client.schemas import filters as by
    from prefect.client.schemas.objects import StateType

    waiting = client.read_flow_runs(
        deployment_filter=by.DeploymentFilter(id=by.DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=by.FlowRunFilter(state=by.FlowRunFilterState(type=by.FlowRunFilterStateType(any_=[StateType.PAUSED]))),
    )
    for run in waiting:
        if run.parameters.get("decision") != decision:
            client.resume_flow_run(run.id, run_input=no("cairn", "another decision took the place of this one"))


def no(by: str, why: str) -> dict[str, Any]:
    """The form, filled in by who is no person."""
    return {"approve": False, "by": by, "why": why}


def end_after(flow_run: UUID, hours: float) -> UUID:
    """Schedule the run that answers no for a suspended run when `hours` are over; the same one when called again. Its id. BadInput
    when its deployment is not there."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Scheduled

    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(TIMEOUT)
        except ObjectNotFound:
            raise BadInput(f"there is no deployment {TIMEOUT}, which ends this run when nobody answers: {DEPLOY}") from None
        when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
        timer = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"flow_run": str(flow_run), "hours": hours},
            state=Scheduled(scheduled_time=when),
            idempotency_key=f"end of {flow_run}",
        )
    return timer.id


def forget_end(timer: UUID) -> None:
    """Delete the run that would answer no, unless it has begun."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(timer).state
        if state and state.is_scheduled():
            client.delete_flow_run(timer)


@contextmanager
def _client(url: str) -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import get_client

    with impatient(PATIENCE, url), get_client(sync_client=True) as client:
        yield client
