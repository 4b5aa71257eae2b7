"""After a kill, or a server that was lost: what MLflow and Prefect show of runs that are over is set right.

Called before a run computes, when nothing is to do, and by `cairn doctor`. It looks at journals (`tasks.engine.journal`), so it
costs nothing when none was left; a run whose process lives is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.server import own_url
from flows.server_lost import impatient
from tasks.engine.journal import Left, left
from tasks.engine.mlflow_run import printable_uri
from tasks.engine.track import Tracker
from tasks.road import ROAD


def reconcile(state: Path) -> list[str]:
    """Tell MLflow what the journals of gone processes still hold, and end their runs there and on Prefect's server.

    Returns a line for people per run. What cannot be reached now stays for the next time.
    """
    return [line for one in left(state) for line in _of_one(state, one)]


def needs_own_server(state: Path) -> bool:
    """Whether something is to be told to Prefect that only a server of Cairn's own can take (its database is in the state root)."""
    return any((one.facts.get("prefect") or {}).get("own") for one in left(state))


def _of_one(state: Path, one: Left) -> Iterator[str]:
    facts, name = dict(one.facts), f"run {one.facts['run'][:10]}"
    if facts.get("uri"):
        status, error = _tell_mlflow(state, one)
        if error:
            yield f"{name}: MLflow at {printable_uri(facts['uri'])} cannot be told what is missing yet ({error})"
        else:
            yield f"{name} is over: MLflow has its figures, and shows it as {status}"
            facts["uri"] = ""
    if flow := facts.get("prefect"):
        said = _end(flow, _status(one) == "FINISHED")
        if said is not None:
            facts["prefect"] = {}
            if said:
                yield f"{name} is over: Prefect shows {said}"
    one.keep(facts if facts["uri"] or facts["prefect"] else {}, one.events)


def _tell_mlflow(state: Path, one: Left) -> tuple[str, str]:
    """(status of the run, "") or ("", why MLflow could not be told)."""
    status = _status(one)
    closing: list[Any] = [] if any(event == "closed" for _, event, _ in one.events) else [_closed(status)]
    tracker = Tracker(state, one.facts)
    try:
        for event in [*one.events, *closing]:
            tracker.handle(event)
    except Exception as error:  # whatever its client raises: this is no reason to end a run
        return "", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    return status, ""


def _status(one: Left) -> str:
    """How a run ended: as it said itself, or killed, unless only its last words are missing."""
    for _, event, about in one.events:
        if event == "closed":
            return str(about["status"])
    done = {stage for stage, event, _ in one.events if event == "done"}
    started = {stage for stage, event, _ in one.events if event == "started"}
    return "FINISHED" if ROAD.names[-1] in done and started <= done else "KILLED"


def _closed(status: str) -> tuple[str, str, dict[str, Any]]:
    return "", "closed", {"status": status, "linked": {}, "others": 1}


def _end(flow: dict[str, Any], well: bool) -> str | None:
    """End what still runs of a flow on Prefect's server.

    What became of it, empty when nothing was open; None when the server does not answer.
    """
    url = own_url() if flow.get("own") else flow["url"]
    if not url:
        return None
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.states import Completed, Crashed, State

    gone: State[Any] = Crashed(message="its process is gone")
    over: State[Any] = Completed(message="it ended while this server could not be reached") if well else gone
    try:
        with impatient(10.0, url), get_client(sync_client=True) as client:
            found = client.read_flow_run(flow["flow_run"])
            of_it = FlowRunFilter(id=FlowRunFilterId(any_=[found.id]))
            tasks = [one for one in client.read_task_runs(flow_run_filter=of_it) if not (one.state and one.state.is_final())]
            for task in tasks:
                client.set_task_run_state(task.id, over, force=True)
            open_flow = not (found.state and found.state.is_final())
            if open_flow:
                client.set_flow_run_state(found.id, over, force=True)
    except ObjectNotFound:
        return ""
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError):
        return None
    what = [*(["its flow run"] if open_flow else []), *([f"{len(tasks)} task runs"] if tasks else [])]
    return f"{' and '.join(what)} as {over.name}" if what else ""
