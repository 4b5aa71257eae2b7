"""Whether a server that the settings name can be used: asked once, before anything starts, and told within seconds.

A library that meets a dead server tries again for minutes, and one that meets a login page says something about JSON.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from flows.inherited import Setting, of_prefect, printable
from tasks.contract.params import BadInput
from tasks.engine.sqlite_files import path_of, unusable

OF_MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
"""Settings that name a server of MLflow's, or a database."""
PATIENCE = 6.0
"""Seconds that a server has to answer, looking up its name included."""


def prefect(named: Setting) -> str:
    """The version of the Prefect server at a URL ("" for one that does not say). Raises BadInput unless it is of our major version and
    lets us in."""
    without = "Start that server or mend the URL; without this setting a run starts a Prefect server of its own."
    url = named.value.rstrip("/")
    _check_url(named, url, ("http", "https"), without)
    headers, verify = as_client()
    cloud = str(urlsplit(url).hostname).endswith("prefect.cloud")  # of every version, and does not say which
    answer = _answer(named, without, lambda: _get(f"{url}/{'health' if cloud else 'admin/version'}", headers, verify))
    if answer.status_code in (401, 403):
        raise _refusal(named, f"it answers {answer.status_code}: set PREFECT_API_KEY or PREFECT_API_AUTH_STRING", without)
    theirs = _json(answer)
    if cloud and answer.status_code == 200:
        return ""
    if answer.status_code != 200 or not isinstance(theirs, str):
        raise _refusal(named, f"{_what(answer)}, not a Prefect server's version (does the URL end in /api?)", without)
    _same_major(named, "Prefect", theirs, version("prefect"), without)
    return theirs


def as_client() -> tuple[dict[str, str], bool]:
    """(headers, whether certificates are checked) with which Prefect's server is asked, by Prefect's settings."""
    headers: dict[str, str] = {}
    if key := of_prefect("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key.value}"
    elif auth := of_prefect("PREFECT_API_AUTH_STRING"):
        import base64

        headers["Authorization"] = f"Basic {base64.b64encode(auth.value.encode()).decode()}"
    insecure = of_prefect("PREFECT_API_TLS_INSECURE_SKIP_VERIFY")
    return headers, not (insecure and insecure.value.lower() in ("1", "true", "yes"))


def mlflow() -> None:
    """Raise BadInput when MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI is inherited and cannot be used, or when the database that takes
    their place cannot."""
    from flows.inherited import everything

    named = {one.name: one for one in everything() if one.name in OF_MLFLOW and one.value}
    for one in named.values():
        mlflow_at(one)
    own = None if OF_MLFLOW[0] in named else path_of(os.environ.get(OF_MLFLOW[0], ""))
    if own and own.exists() and (why := unusable(own, PATIENCE)):
        raise BadInput(f"MLflow's database cannot be used: {why}.")


def mlflow_at(named: Setting) -> str:
    """The version of the MLflow server at an address ("" for one that does not say, and for a database). Raises BadInput when it cannot
    be used."""
    without = f"Start that server or mend the URI; without it (`unset {named.name}`) everything is recorded in .cairn/mlflow.db."
    scheme = named.value.partition(":")[0] if ":" in named.value else ""
    kind = scheme.partition("+")[0]
    if kind in ("http", "https"):
        return _mlflow_server(named, named.value.rstrip("/"), without)
    if kind in _PORTS:
        _check_url(named, named.value, (scheme,), without)
        parts = urlsplit(named.value)
        _answer(named, without, lambda: _connect(str(parts.hostname), parts.port or _PORTS[kind]))
    elif kind == "sqlite":
        if (file := path_of(named.value)) is None:
            raise _refusal(named, "it names no file; expected sqlite:////folder/mlflow.db", without)
        if why := unusable(file, PATIENCE):
            raise _refusal(named, why, without)
    else:
        _answer(named, without, lambda: _by_client(named.value))  # Databricks, a plugin of MLflow's, a folder
    return ""


_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Kind of a database -> the port that it has by itself."""


def _by_client(uri: str) -> None:
    from mlflow import MlflowClient

    from tasks.engine.mlflow_run import EXPERIMENT

    MlflowClient(uri).get_experiment_by_name(EXPERIMENT)


def _mlflow_server(named: Setting, url: str, without: str) -> str:
    _check_url(named, url, ("http", "https"), without)
    headers, given = {}, os.environ
    if token := given.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    elif user := given.get("MLFLOW_TRACKING_USERNAME"):
        import base64

        both = f"{user}:{given.get('MLFLOW_TRACKING_PASSWORD', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
    insecure = given.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true"
    verify = given.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure
    question = f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=cairn"
    answer, theirs = _answer(named, without, lambda: (_get(question, headers, verify), _get(f"{url}/version", headers, verify)))
    if answer.status_code in (401, 403):
        login = "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        raise _refusal(named, f"it answers {answer.status_code}: set {login}", without)
    said = _json(answer)
    known = isinstance(said, dict) and (said.get("experiment") or said.get("error_code") == "RESOURCE_DOES_NOT_EXIST")
    if not known:
        raise _refusal(named, f"{_what(answer)}, not an MLflow server's answer", without)
    if theirs.status_code == 200 and theirs.text.strip()[:1].isdigit():  # servers behind a gateway may not say
        _same_major(named, "MLflow", theirs.text.strip(), version("mlflow"), without)
        return str(theirs.text.strip())
    return ""


def _check_url(named: Setting, url: str, schemes: tuple[str, ...], without: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise _refusal(named, f"this is no URL; expected {schemes[0]}://host:port/...", without)


def _same_major(named: Setting, product: str, theirs: str, own: str, without: str) -> None:
    if theirs.partition(".")[0] != own.partition(".")[0]:
        raise _refusal(named, f"it is {product} {theirs}, and this project speaks with {product} {own.partition('.')[0]}", without)


def _get(url: str, headers: dict[str, str], verify: Any) -> Any:
    import httpx

    return httpx.get(url, headers=headers, verify=verify, timeout=PATIENCE, follow_redirects=False)


def _connect(host: str, port: int) -> Any:
    import socket

    with socket.create_connection((host, port), timeout=PATIENCE):
        return None


def _answer(named: Setting, without: str, question: Callable[[], Any]) -> Any:
    """The answer to a question that may hang anywhere; BadInput when there is none in time."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(question())
        except Exception as error:
            answer.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if not answer:
        raise _refusal(named, f"no answer within {PATIENCE:.0f} s", without)
    if isinstance(answer[0], Exception):
        said = (str(answer[0]).splitlines() or [""])[0][:200] or type(answer[0]).__name__
        raise _refusal(named, f"nobody answers there ({said})", without)
    return answer[0]


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _what(answer: Any) -> str:
    kind = answer.headers.get("content-type", "").partition(";")[0] or "something"
    return f"it answers {answer.status_code} with {kind}"


def _refusal(named: Setting, why: str, without: str) -> BadInput:
    return BadInput(f"{named.name}={printable(named.name, named.value)} ({named.origin}): {why}. {without}")
