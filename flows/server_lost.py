"""Prefect's server is lost in the middle of a run: the run goes on without it, ends at once, and says so.

Prefect itself waits for its server: every request is tried again for minutes, and at the end of the process every event that was not
delivered costs seven seconds. What Cairn needs of Prefect by then (its tasks, their order) lies in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 5.0
"""Seconds in which a server has to answer when a run asks whether it is still there; ours."""


def is_lost(error: BaseException) -> bool:
    """Whether an error says that Prefect's server could not be reached (no other server's; theirs have no `/api/`)."""
    import httpx

    if not isinstance(error, httpx.TransportError):
        return False
    try:
        return error.request.url.path.startswith("/api/")
    except RuntimeError:  # no request is known
        return True


def answers() -> bool:
    """Whether the server of the flow that this is called in answers, whatever it says. True outside a flow."""
    import httpx
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None:
        return True
    try:
        httpx.get(f"{str(context.client.api_url).rstrip('/')}/health", timeout=PATIENCE)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def impatient(seconds: float, url: str = "") -> Iterator[None]:
    """While the block runs, Prefect's client tries a request once, and for so long. url: of the server; else that of the settings."""
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    quick: dict[Any, Any] = {PREFECT_API_REQUEST_TIMEOUT: seconds, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings({**quick, PREFECT_API_URL: url} if url else quick):
        yield


def let_go() -> None:
    """Stop waiting for the server: requests are tried once, and events that were not delivered are dropped."""
    from prefect.events.worker import EventsWorker
    from prefect.settings import get_current_settings

    get_current_settings().client.max_retries = 0
    setattr(EventsWorker, "_handle", _drop)  # noqa: B010  # there is no public way; mypy minds the plain assignment


def hush() -> None:
    """Let Prefect not dump every event that it could not deliver; that its server is lost is said in a line."""
    from prefect._internal.concurrency import logger

    for one in (logger, logging.getLogger("EventsWorker")):
        one.disabled = True


async def _drop(worker: Any, event: Any) -> None:
    return


@contextmanager
def without(done: Callable[[], bool]) -> Iterator[None]:
    """Let a flow end well although its server is lost at its end, if everything is done; StageFailed with words if not."""
    from tasks.contract.params import StageFailed

    try:
        yield
    except Exception as error:
        if not is_lost(error):
            raise
        let_go()
        if not done():
            raise StageFailed(
                f"Prefect's server does not answer any more ({error}), and the run could not go on. What was finished is kept; "
                "start the server (or unset PREFECT_API_URL) and run again."
            ) from None
