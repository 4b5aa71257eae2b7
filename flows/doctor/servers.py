"""The servers that settings and params name: there within seconds, of the right kind and version, with the model that was noted."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows import inherited, server_checks
from flows.doctor.finding import Finding, Place, error, good, note, warning
from tasks.contract.params import BadInput
from tasks.engine import methods, roles_lock, server_keys
from tasks.engine.param_files import PIPELINE
from tasks.engine.shared_params import SERVER, Role

PATIENCE = 5.0
"""Seconds that a model server has for its list of models."""


def prefect(place: Place) -> Iterator[Finding]:
    """The Prefect server that is named, wherever it is named."""
    named = inherited.of_prefect("PREFECT_API_URL")
    if named is None:
        yield good("servers", "Prefect: no server is named; a run starts one of its own")
        return
    try:
        version = server_checks.prefect(named)
        yield good("servers", f"Prefect {version or '(it does not say its version)'} answers at {named.value} ({named.origin})")
    except BadInput as wrong:
        yield error("servers", str(wrong), "prefect server start   # or take the setting away, where the message says it stands")


def deployments(place: Place) -> Iterator[Finding]:
    """The deployments of Cairn at the Prefect server that is named: each was deployed with CAIRN_PROJECT, and works in its folder."""
    import httpx

    named = inherited.of_prefect("PREFECT_API_URL")
    headers, verify = server_checks.as_client()
    try:
        answer = named and httpx.post(
            f"{named.value.rstrip('/')}/deployments/filter", json={}, headers=headers, verify=verify, timeout=PATIENCE
        )
        found = answer.json() if answer and answer.status_code == 200 else []
    except (httpx.HTTPError, ValueError):  # what answers there is said by `prefect`
        return
    deploy = f"CAIRN_PROJECT={shlex.quote(str(place.project))} prefect deploy --prefect-file infra/prefect.yaml --all"
    mine = 0
    for one in found if isinstance(found, list) else []:
        if str(one.get("entrypoint", "")).startswith("flows."):
            folder = _folder_of(one)
            mine += folder == str(place.project)
            if not folder or not (Path(folder) / PIPELINE).is_file():
                where = f"in {folder}, which is no project here" if folder else "in no folder: CAIRN_PROJECT was not set"
                yield warning("servers", f"Prefect's deployment {one['name']} runs {where}", deploy)
    if mine and not os.environ.get("CAIRN_PROJECT"):
        yield note("servers", f"{mine} deployments at Prefect run in this project; to deploy them again takes CAIRN_PROJECT", deploy)


def _folder_of(deployment: Mapping[str, Any]) -> str:
    """Where a deployment's runs work, as it was deployed; "" where CAIRN_PROJECT was not set then."""
    steps = [step for one in deployment.get("pull_steps") or () for step in one.values() if isinstance(step, Mapping)]
    folder = next((str(step["directory"]) for step in steps if step.get("directory")), "")
    return "" if "{{" in folder else folder


def mlflow(place: Place) -> Iterator[Finding]:
    """The tracking and registry servers that are named."""
    named = [one for one in inherited.everything() if one.name in server_checks.OF_MLFLOW]
    for one in named:
        try:
            version = server_checks.mlflow_at(one)
            yield good(
                "servers",
                f"MLflow {f'{version} ' if version else ''}answers at {inherited.printable(one.name, one.value)} ({one.origin})",
            )
        except BadInput as wrong:
            yield error("servers", str(wrong), f"unset {one.name}   # or start that server")
    if not named:
        yield good("servers", f"MLflow: no server is named; runs and models are recorded in {place.state / 'mlflow.db'}")


def of_roles(place: Place) -> Iterator[Finding]:
    """Each model server that plays a role: asked for its list of models, which costs nothing."""
    settings = place.checked.settings
    noted = roles_lock.in_force(settings)
    served = [one for one in settings.shared.players() if one[2].backend == SERVER]
    for name, where, role in served:
        report = (noted[name.partition("/")[0]] or {}).get(name)
        yield _model_server(name, f"{settings.source}: {where}", role, report)
    if not served:
        yield good("servers", "no model behind a server plays a role")


def _model_server(name: str, where: str, role: Role, noted: Mapping[str, Any] | None) -> Finding:
    import httpx

    url = role.base_url.rstrip("/")
    who = f"{where}: {role.model} at {url}"
    start = f"curl --max-time 5 {url}/models   # start that server, or mend {where}.base_url"
    if role.key_block:
        return note("servers", f"{who}: its key is in a Prefect block, so it is asked when a run begins", "cairn run")
    try:
        secret = server_keys.of(role.model_dump())
    except BadInput as wrong:
        return error("servers", str(wrong), f"export {role.key_env}=...")
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    try:
        answer = httpx.get(f"{url}/models", headers=headers, timeout=PATIENCE)
    except httpx.HTTPError as wrong:
        return error("servers", f"{who}: nobody answers there ({str(wrong) or type(wrong).__name__})", start)
    if answer.status_code in (401, 403):
        return error(
            "servers",
            f"{who}: it answers {answer.status_code}: its key is wrong or missing",
            f"export {role.key_env or 'KEY'}=...   # named by {where}.key_env",
        )
    models = _listed(answer)
    if models is None:
        return error("servers", f"{who}: it answers {answer.status_code}, and not with a list of models", start)
    if role.model not in models:
        return error(
            "servers",
            f"{who}: it has no such model; it has: {', '.join(models) or 'none'}",
            f"cairn use PROFILE   # or write one of these as {where}.model",
        )
    root = str(models[role.model].get("root") or "")
    if noted and noted.get("root") and root and noted["root"] != root:
        text = f"{who}: it has {json.dumps(root)} behind that name now, and {roles_lock.ROLES_LOCK} has {json.dumps(noted['root'])}"
        return error("servers", text, "cairn run --refresh-models   # or start the old one again")
    return good("servers", f"{who} answers" + ("" if noted else "; it was not asked yet who it is"))


def _listed(answer: Any) -> dict[str, Mapping[str, Any]] | None:
    """Model -> its entry; None when the answer is no list of models."""
    try:
        entries = answer.json()["data"]
        return {str(one["id"]): one for one in entries} if answer.status_code == 200 else None
    except (ValueError, LookupError, TypeError):
        return None


def of_engines(place: Place) -> Iterator[Finding]:
    """Each server with which checkpoints of a stage generate."""
    settings, met = place.checked.settings, set()
    for stage in settings.road.names:
        chosen = settings.engine(stage)
        if not chosen or str(chosen) in met or not hasattr(methods.engine_module(chosen["method"]), "meet"):
            continue
        met.add(str(chosen))
        module, where = methods.engine_module(chosen["method"]), f"{settings.source}: {stage}.engine.{chosen['method']}"
        try:
            module.meet(module.Params.model_validate(chosen["params"]), server_keys.of(chosen["params"]))
            yield good("servers", f"{where} answers")
        except BadInput as wrong:
            yield error("servers", f"{where}: {wrong}", f"start that server, or choose another engine: {stage}.engine.method = own")
