"""Whatever command a README shows is run: here, on a copy of the smoke project after its run, or by the test that is named beside it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tasks.contract.params import parse_yaml
from tests.conftest import ROOT, Project, copied

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]  # on the worker that has made the road already

READMES = [ROOT / "README.md", *sorted(path for top in ("flows", "tasks", "infra") for path in (ROOT / top).rglob("README.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in READMES)
PROGRAMS = ("cairn", ".venv/bin/cairn", "make", "dvc", "prefect", "mlflow", "python")

HERE = (
    "cairn use",
    "cairn use smoke",
    "cairn methods",
    "cairn run --dry-run",
    "cairn run --profile smoke",
    "cairn run --estimate",
    "cairn forecast",
    "cairn status",
    "cairn doctor",
    "cairn gc",
    "cairn gc --yes",
    "cairn trace workspace",
    "cairn champion",
    "cairn champion --none",
    "cairn bank pin",
    "cairn calls",
    "cairn --help",
    "cairn run --help",
    "cairn run",
    "dvc repro",
    "dvc status",
    "dvc metrics show",
    "dvc plots show",
)
"""Run one after the other; each must end with 0."""

ELSEWHERE = {
    "cairn world export tasks.worlds.library.retail:Retail out/ --to verifiers": (
        "flows/test_world_export.py",
        '"world", "export", "tasks.worlds.library.retail:Retail"',
    ),
    "cairn import": ("flows/test_import.py", 'project.cairn("import", *names'),
    "cairn import logs.jsonl --dry-run": ("flows/test_import.py", '"import", *names, "--world", "retail", "--dry-run"'),
    "cairn import chats/*.jsonl --customer metadata.account --mask email,phone --mask-fields name,street": (
        "flows/test_import.py",
        'project.cairn("import", *names',
    ),
    "cairn import chats/*.jsonl --stage reserve": (
        "flows/test_reserve.py",
        "def test_recorded_conversations_are_a_reserve_as_large_as_they_are",
    ),
    "cairn use quickstart": ("flows/test_two_drivers.py", '"use", "quickstart"'),
    "cairn run --set merge.method=median": ("contract/test_examples.py", "def test_a_method_shown_runs_in_its_room"),
    "cairn run --set sft.loop.epochs=2": ("flows/test_two_drivers.py", '"--set", "filter.rejection_sampling.deduplicate=false"'),
    "cairn run --to filter": ("flows/test_two_drivers.py", '"run", "--to", "filter"'),
    "cairn run --refresh sft": ("flows/test_two_drivers.py", '"--refresh"'),
    "cairn run --refresh-models": ("flows/test_server_roles.py", '"--refresh-models"'),
    'cairn accept sft rl --why "only a comment"': ("flows/test_two_drivers.py", '"accept", "critique", "--why", "only a comment"'),
    'cairn rollback --why "..."': ("flows/test_promote.py", '"rollback", "--why"'),
    "cairn promotions": ("flows/test_promote.py", '"promotions", "--json"'),
    "cairn rollback --to VERSION --why ...": ("flows/test_promote.py", '"rollback", "--to", "1", "--why"'),
    "cairn promote": ("flows/test_bad_input.py", '("promote",)'),
    "cairn forecast --profile quickstart --json": ("flows/test_forecast.py", '"forecast", "--profile"'),
    "cairn use real_cpu --model SmolLM2.gguf": ("flows/test_forecast.py", '"use", "real_cpu", "--model"'),
    "cairn use gpu_24g --model CHECKPOINT": ("flows/test_forecast.py", "def test_a_profile_is_filled_in_for_a_model"),
    "cairn use gpu_80g --model CHECKPOINT": ("flows/test_forecast.py", "def test_a_profile_is_filled_in_for_a_model"),
    "cairn use gpu_8x --model CHECKPOINT": ("flows/test_forecast.py", "def test_a_profile_is_filled_in_for_a_model"),
    "cairn use endpoint_teacher --model CHECKPOINT": ("flows/test_forecast.py", "def test_a_profile_is_filled_in_for_a_model"),
    "cairn forecast --profile gpu_24g --model CHECKPOINT": ("flows/test_forecast.py", '"gpu_24g", "--model"'),
    "cairn forecast --compare": ("flows/test_forecast.py", '"forecast", "--compare"'),
    "cairn forecast --calibrate": ("flows/test_forecast.py", '"forecast", "--calibrate"'),
    "cairn preview generate -n 5": ("flows/test_preview.py", '"preview", "generate", "-n"'),
    "cairn preview generate": ("flows/test_preview.py", '"preview", "generate", "-n"'),
    "cairn export generate OUT": ("flows/test_export.py", '"export", "generate"'),
    "cairn regrade .cairn/served": ("flows/test_served_grading.py", 'main(["regrade"'),
    "cairn regrade FILE.parquet": ("flows/test_regrade.py", "regrade"),
    "cairn merge recipe.yaml merged/": ("flows/test_merging.py", '"merge"'),
    "cairn chat check FOLDER": ("chat/test_formats.py", '"chat", "check"'),
    "cairn serve": ("flows/test_serve.py", '"serve", str(tmp_path / "model")'),
    "cairn serve champion challenger": ("flows/test_serve_two.py", "def test_two_adapters_of_one_base"),
    "cairn serve --shadow": ("flows/test_serve_two.py", "def test_a_shadow_answers_for_the_log_alone"),
    "cairn serve --engine vllm": ("flows/test_serve_vllm.py", '"--engine", "vllm"'),
    "cairn serve --with-tools WORLD": ("flows/test_with_tools.py", "WithTools("),
    "cairn serve --with-tools retail": ("flows/test_with_tools.py", '["--with-tools", "library"'),
    "cairn evaluate URL --model NAME --world tau2_retail --human-model NAME --split all": (
        "tau2/test_tau2.py",
        "def test_any_endpoint_can_be_evaluated",
    ),
    "cairn evaluate champion --world airline": ("flows/test_evaluate_agent.py", '"evaluate", "champion", "--world"'),
    "cairn search": ("flows/test_search.py", '"search"'),
    "cairn calls --forget-answer ID": ("players/test_odd_answers.py", "forget_answer("),
    ".venv/bin/cairn init ../bookshop": ("flows/test_init.py", '"init"'),
    ".venv/bin/cairn init ../bank --from bank.py:Bank": ("flows/test_own_api.py", '"init", str(folder), "--from"'),
    "cairn init bookshop": ("flows/test_init.py", '"init"'),
    "cairn world check": ("flows/test_world_commands.py", '"world", "check"'),
    "cairn world play tasks.worlds.library.bookshop.world:Bookshop": ("flows/test_world_commands.py", '"world", "play"'),
    "cairn upgrade": ("flows/test_upgrade.py", "upgrade(project"),
    "cairn migrate": ("flows/test_migrate.py", "report(project"),
    "cairn world new another_shop": ("flows/test_world_commands.py", '"world", "new"'),
    "cairn world draft my_shop.world:Shop": ("worlds/test_draft.py", "def test_the_command_and_that_nothing_enters_unproven"),
    "cairn trace champion": ("flows/test_trace.py", 'find(known, "champion")'),
    "cairn trace ROW": ("flows/test_trace.py", "def test_rows_of_every_kind"),
    "cairn trace champion --html trail.html": ("flows/test_trace.py", '"--html"'),
    "cairn claims run SLUG": ("claims/test_claims_run.py", '"claims", "run", "seeing", "--seeds", "2"'),
    "cairn claims run SLUG --seeds 1 --quick": ("claims/test_claims_run.py", '"claims", "run", "epochs", "--seeds", "1", "--quick"'),
    "cairn claims show SLUG": ("claims/test_claims_run.py", '"claims", "show", "seeing"'),
    "cairn claims table SLUG": ("claims/test_claims_run.py", '"claims", "table", "seeing"'),
    "cairn claims status": ("claims/test_claims_run.py", '"claims", "status", "--json"'),
    "cairn claims check SLUG --seed 3": ("claims/test_claims_run.py", '"claims", "check", "seeing", "--seed", "0"'),
    "cairn compare champion workspace": ("flows/test_compare.py", 'main(["compare", "workspace"'),
    "cairn experiments": ("flows/test_dvc_views.py", '"experiments")'),
    "cairn experiments -c passed -c merged.pass_4 -c sft.loop.epochs": ("flows/test_dvc_views.py", '"experiments", "--json"'),
    "dvc metrics diff": ("flows/test_dvc_views.py", '"metrics", "diff"'),
    "dvc plots diff": ("flows/test_dvc_views.py", '"plots", "diff"'),
    "dvc exp show --drop . --keep 'Experiment|Created|passed|sft.loop.epochs'": (
        "flows/test_dvc_views.py",
        '"exp", "show", "--no-pager"',
    ),
    "dvc exp show": ("flows/test_dvc_views.py", '"exp", "show", "-n", "3", "--json"'),
    "dvc remote add --default shelf s3://BUCKET/FOLDER": ("flows/test_dvc_views.py", '"remote", "add"'),
    "dvc repro -f": ("flows/test_two_drivers.py", '"repro", "-f"'),
    "dvc exp save": ("flows/test_deployed.py", "def test_a_night_is_saved_and_pushed_by_dvc"),
    "dvc push": ("flows/test_deployed.py", "def test_a_night_is_saved_and_pushed_by_dvc"),
    "dvc pull": ("flows/test_two_drivers.py", '"pull"'),
    "dvc commit": ("flows/test_two_drivers.py", '"commit"'),
    "dvc config --local cache.dir $CAIRN_HOME/store": ("flows/test_dvc_command.py", "cache.dir"),
    "dvc exp run -S 'params/pipeline.yaml:merge.breadcrumbs.keep=0.5'": ("flows/test_two_drivers.py", '"exp", "run"'),
    "python -m flows.recipes apigen_mt --seed N": ("recipes/test_door.py", "flows.recipes"),
    "python -m infra.bench_worlds --db FILE": ("infra/test_bench_worlds.py", '"--db", str(own)'),
    "python -m infra.bench_gate": ("decide/test_gate_power.py", "collapse_caught(fall"),
    "python -m infra.bench_quickstart --seeds 0 1": ("infra/test_bench_quickstart.py", "travel(tmp_path"),
    "python -m infra.gpu_proof --tiny": ("infra/test_gpu_proof.py", "--tiny"),
    "mlflow ui --backend-store-uri sqlite:///.cairn/mlflow.db": ("flows/test_readme.py", "def test_the_registry_can_be_looked_at"),
    "prefect server start": ("conftest.py", '"server", "start"'),
    "prefect work-pool create cairn --type process": ("flows/test_readme.py", "def test_the_deployments_are_taken"),
    "prefect work-queue create gpu --pool cairn --limit 1": ("services/deployed.py", '"work-queue", "create"'),
    'prefect concurrency-limit create "model-server 127.0.0.1:8000" 1': ("services/deployed.py", '"concurrency-limit", "create"'),
    "prefect automation create --from-file infra/automations.yaml": ("services/deployed.py", '"automation", "create"'),
    "prefect deploy --prefect-file infra/prefect.yaml --all": ("flows/test_readme.py", "def test_the_deployments_are_taken"),
    "prefect worker start --pool cairn": ("flows/test_readme.py", "def test_the_deployments_are_taken"),
}
"""Command -> the test's file, and what shows in it that it is run (with other names and sizes)."""

ROOMS = (
    "cairn",
    "cairn accept",
    "cairn bank",
    "cairn calls",
    "cairn chat check",
    "cairn evaluate",
    "cairn export",
    "cairn init",
    "cairn init --from",
    "cairn merge",
    "cairn compare A B",
    "cairn regrade",
    "cairn reserve",
    "cairn reserve grow",
    "cairn trace",
    "cairn world new",
    "dvc config --local",
)
"""Commands that are only named, as part of others that are run."""


def shown() -> set[str]:
    """Every command in a code block or in backquotes, without comments and variables before it."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|^((?:    [^\n]*\n)+)", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in "".join(block).splitlines()]
    lines += re.findall(r"`([^`\n]+)`", TEXT)
    found = set()
    for line in lines:
        for part in re.split(r";|&&", re.sub(r"\s+#.*", "", line)):
            command = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part.strip())
            if re.match(rf"({'|'.join(map(re.escape, PROGRAMS))}) [^ ]", command):
                found.add(command)
    return found


def test_each_command_is_run_somewhere() -> None:
    known = {*HERE, *ELSEWHERE, *ROOMS}
    made = {command for command in shown() if command.startswith("make ")}
    assert sorted(shown() - known - made) == [], "a command that no test runs"
    for command, (file, sign) in ELSEWHERE.items():
        assert sign in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{command}: tests/{file} does not run it"


def test_each_target_of_make_is_there() -> None:
    targets = {re.sub(r"^make | [A-Z]+=.*", "", command) for command in shown() if command.startswith("make ")}
    for target in sorted(targets):
        answer = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr


def test_yaml_in_the_readmes_is_yaml() -> None:
    for block in re.findall(r"((?:    .*\n)+)", TEXT):
        text = "".join(line[4:] + "\n" for line in block.splitlines())
        if re.match(r"(# recipe.yaml|roles:|prompt:)", text):
            assert isinstance(parse_yaml(text, "README.md", lenient="recipe" in text), dict)


@pytest.fixture(scope="module")
def copy(road: Project, tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Project:
    """The smoke project after its run, which began without a server."""
    project = copied(road, tmp_path_factory.mktemp("readme") / "project")
    project.environment["PREFECT_API_URL"] = prefect_server
    shutil.copytree(ROOT / "infra", project.folder / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    return project


def test_the_commands_end_well(copy: Project) -> None:
    for command in HERE:
        program, *arguments = command.split()
        answer = (copy.cairn if program == "cairn" else copy.dvc)(*arguments, check=False)
        assert answer.returncode == 0, f"{command}: {answer.returncode}\n{answer.stdout}\n{answer.stderr}"


def test_the_registry_can_be_looked_at(copy: Project) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["mlflow", "ui", "--backend-store-uri", "sqlite:///.cairn/mlflow.db", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=copy.folder,
        env={**copy.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight processes beside it
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert _answers(f"http://127.0.0.1:{port}/health", server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            return bool(urllib.request.urlopen(url, timeout=2).status == 200)
        except OSError:
            time.sleep(0.5)
    return False


def test_the_deployments_are_taken(copy: Project) -> None:
    own = {"CAIRN_PROJECT": str(copy.folder), "PREFECT_HOME": str(copy.folder / ".cairn/prefect")}
    prefect = (sys.executable, "-m", "prefect")
    copy.run(*prefect, "work-pool", "create", "cairn", "--type", "process", **own)
    said = copy.run(*prefect, "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--all", **own).stdout
    assert "workspace" in said
    copy.run(*prefect, "worker", "start", "--pool", "cairn", "--run-once", **own)
