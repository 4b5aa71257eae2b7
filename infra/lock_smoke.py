"""Whether the versions in this Python's environment work together: `python infra/lock_smoke.py FOLDER [CHECK]`.

A Prefect server is started and a schedule has to create and run a run by itself; MLflow records, registers and moves an alias in SQLite
(and in Postgres, when CAIRN_SMOKE_POSTGRES is the URL of an empty database); DVC runs a stage once and not twice. `make lock` runs it
in the environment that it has just resolved, before it writes the locks: versions that install together need not work together.
Only libraries of the lock are imported, nothing of Cairn's. Ends with 0, or with 1 and a line that says what does not work.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START, SCHEDULE = 180.0, 120.0
"""Seconds a server may take to start on a busy machine, and the schedule to have run once."""
EVERY = 10
"""Seconds between two runs of the schedule: each is a process that starts."""
SERVED = f"""
from prefect import flow

@flow
def tick():
    return 1

if __name__ == "__main__":
    tick.serve(name="smoke", interval={EVERY}, limit=1)
"""


def prefect(folder: Path) -> str:
    """A schedule creates runs by itself, and a served flow runs one. Returns what was seen."""
    with _server(folder) as url:
        environment = os.environ | _surroundings(folder) | {"PREFECT_API_URL": url}
        (folder / "served.py").write_text(SERVED)
        said = (folder / "served.log").open("w")
        served = subprocess.Popen(
            [sys.executable, "served.py"], cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            os.environ["PREFECT_API_URL"] = url
            return _wait_for_a_run(folder)
        finally:
            os.killpg(served.pid, signal.SIGKILL)  # with the run that it may have started
            served.wait()
            said.close()


def _wait_for_a_run(folder: Path) -> str:
    from prefect import get_client

    begun, created = time.monotonic(), False
    with get_client(sync_client=True) as client:
        while time.monotonic() - begun < SCHEDULE:
            runs = [run for run in client.read_flow_runs() if run.auto_scheduled and run.state]
            created = created or bool(runs)
            if any(run.state and run.state.is_completed() for run in runs):
                return f"a schedule created a run, which was done after {time.monotonic() - begun:.0f} s"
            time.sleep(0.5)
    what = "no run of it was done" if created else "it created no run"
    raise SystemExit(
        f"Prefect: a schedule of every {EVERY} s: {what} within {SCHEDULE:.0f} s; see server.log and served.log in {folder}"
    )


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """`prefect server start` with all its services, whose loops are short."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scheduler = {"LOOP_SECONDS": "1", "RECENT_DEPLOYMENTS_LOOP_SECONDS": "1", "MIN_RUNS": "1", "MAX_RUNS": "2"}
    loops = {f"PREFECT_SERVER_SERVICES_SCHEDULER_{name}": value for name, value in scheduler.items()}
    with (folder / "server.log").open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | _surroundings(folder) | loops,
            stdout=said,
            stderr=said,
        )
    try:
        _wait_until_it_answers(server, f"http://127.0.0.1:{port}/api/health", folder)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_until_it_answers(server: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    direct, begun = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic()
    while server.poll() is None and time.monotonic() - begun < START:
        try:
            direct.open(url, timeout=2).read()
            return
        except OSError:
            time.sleep(0.25)
    lines = (folder / "server.log").read_text(errors="replace").strip().splitlines()
    raise SystemExit(f"Prefect: its server does not start: {lines[-1] if lines else 'it says nothing'}")


def _surroundings(folder: Path) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def mlflow(folder: Path) -> str:
    """Runs, metrics, versions and aliases, in SQLite, and in Postgres where one is at hand. Returns what was covered."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    _records(f"sqlite:///{folder / 'mlflow.db'}", folder)
    if postgres := os.environ.get("CAIRN_SMOKE_POSTGRES"):
        _records(postgres, folder)
        return "SQLite and Postgres"
    return "SQLite; Postgres is not covered (CAIRN_SMOKE_POSTGRES names no database)"


def _records(uri: str, folder: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.create_experiment("smoke", artifact_location=str(folder / "artifacts"))
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "m", 0.5)
    (folder / "model.txt").write_text("weights")
    client.log_artifact(run, str(folder / "model.txt"))
    client.create_registered_model("smoke")
    version = client.create_model_version("smoke", f"runs:/{run}", run).version
    client.set_registered_model_alias("smoke", "champion", version)
    client.set_terminated(run)
    if client.get_model_version_by_alias("smoke", "champion").run_id != run or client.get_run(run).data.metrics != {"m": 0.5}:
        raise SystemExit(f"MLflow: what was written into {uri.partition(':')[0]} is not what is read")


def dvc(folder: Path) -> str:
    """A stage runs once, is found done after it, and its lock is clean. Returns what was seen."""
    project = folder / "dvc"
    project.mkdir()
    (project / "in.txt").write_text("1")
    (project / "dvc.yaml").write_text("stages:\n  copy:\n    cmd: cp in.txt out.txt\n    deps: [in.txt]\n    outs: [out.txt]\n")
    environment = os.environ | {"DVC_SITE_CACHE_DIR": str(folder / "site"), "DVC_NO_ANALYTICS": "1"}

    def call(*arguments: str) -> str:
        answer = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, env=environment, capture_output=True, text=True)
        if answer.returncode:
            raise SystemExit(f"DVC: `dvc {' '.join(arguments)}` ends with {answer.returncode}: {answer.stderr.strip()[-300:]}")
        return answer.stdout

    call("init", "--no-scm", "--quiet")
    first, second = call("repro"), call("repro")
    if "Running stage 'copy'" not in first or "Running stage" in second or "up to date" not in call("status"):
        raise SystemExit(f"DVC: a stage is not run exactly once: {first} {second}")
    return "a stage ran once, and not twice"


CHECKS = {"prefect": prefect, "mlflow": mlflow, "dvc": dvc}


def main(folder: str, *checks: str) -> None:
    """Run the checks (default: all) in an empty folder."""
    for name in checks or CHECKS:
        place = Path(folder).resolve() / name
        place.mkdir(parents=True)
        print(f"{name}: {CHECKS[name](place)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
