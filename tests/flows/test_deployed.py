"""What a scheduler runs beside the road: the night, the champion's evaluation, a promotion by hand; and what is refused before hours."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect import State
from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.states import Failed

from flows import deployed
from flows.approval_form import Answer
from flows.approval_request import no
from tasks.contract.client import CallFailed, NearlyAllLost
from tasks.contract.params import BadInput, StageFailed, read_yaml
from tasks.engine.artifact import Artifact, Store
from tasks.engine.cached import may_pass, server_tags
from tasks.engine.dvc_yaml import listed
from tasks.engine.settings import load
from tests.conftest import ROOT, make_project


def test_the_day_is_that_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is late, or tried again after midnight, is still that night's."""
    paris = datetime.timezone(datetime.timedelta(hours=2))
    monkeypatch.setattr(
        deployed, "flow_run", SimpleNamespace(scheduled_start_time=datetime.datetime(2026, 11, 30, 1, tzinfo=paris), parameters={})
    )
    assert deployed.day_of_run() == 20261129 and deployed._night_name() == "night 20261129"


def test_an_evaluation_of_the_champion_is_named_by_whom_it_plays_and_by_its_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(deployed, "PROJECT", tmp_path)
    monkeypatch.setattr(deployed, "flow_run", SimpleNamespace(parameters={"seed": 7}))
    (tmp_path / "params").mkdir()
    for text, who in (("{identity: 0123456789abcdef.dir}", "0123456789"), ("none", "none"), ("[]", "unknown")):
        (tmp_path / "params/champion.yaml").write_text(f"champion: {text}\n")
        assert deployed._champion_name() == f"champion {who}, seed 7"
    assert deployed.evaluate_champion.flow_run_name.__name__ == "kept", "unless a person named it"


def test_a_night_makes_new_conversations_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    file = tmp_path / "params/pipeline.yaml"
    shutil.copy2(ROOT / "params/profiles/quickstart.yaml", file)
    before = file.read_text()
    deployed.set_seed(file, 20261129)
    changed = [line for line in file.read_text().splitlines() if line not in before.splitlines()]
    assert changed == ["  seed: 20261129"], "one line more, all comments kept"
    settings = load(ROOT, "quickstart", [("generate.seed", 20261129)])
    assert (settings.seed("generate"), settings.seed("sft")) == (20261129, settings.shared.seed)


def test_a_night_that_could_not_be_kept_is_refused_before_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(BadInput, match="is no git repository with a commit"):
        deployed.check_night(tmp_path, push=False)
    project = make_project(tmp_path / "project").folder
    deployed.check_night(project, push=False)
    (project / ".dvc/config").write_text("[core]\n    analytics = false\n")
    with pytest.raises(BadInput, match="DVC has no default remote to push to"):
        deployed.check_night(project, push=True)


def test_a_night_is_saved_and_pushed_by_dvc(tmp_path: Path) -> None:
    """With DVC itself: an experiment on top of the commit, and the bytes at the remote; no branch has moved."""
    project = make_project(tmp_path / "project")
    (project.folder / "dvc.yaml").write_text("stages:\n  copy: {cmd: cp in out, deps: [in], outs: [out]}\n")
    for name in ("in", "out"):
        (project.folder / name).write_text("1")
    project.dvc("commit", "--force")
    project.dvc("remote", "add", "--default", "there", str(tmp_path / "remote"))
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "one stage")
    before = project.git("rev-parse", "HEAD").stdout
    deployed.check_night(project.folder, push=True)
    (project.folder / "in").write_text("2")
    (project.folder / "out").write_text("2")
    project.dvc("commit", "--force")
    deployed.save(project.folder, "night-20261129", push=True)
    assert "night-20261129" in project.git("for-each-ref", "refs/exps", "--format=%(refname:lstrip=-1)").stdout.split()
    assert project.git("rev-parse", "HEAD").stdout == before
    assert [path.read_text() for path in (tmp_path / "remote").rglob("*") if path.is_file()] == ["2"]


def test_a_night_that_dvc_cannot_keep_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []

    def dvc(project: Path, *call: str) -> subprocess.CompletedProcess[str]:
        calls.append(call)
        return subprocess.CompletedProcess(call, int(call == ("push",) and broken), "", "ERROR: the remote is full")

    monkeypatch.setattr(deployed, "dvc", dvc)
    broken = False
    assert deployed.save(ROOT, "night-1", push=True) == ["saved as DVC's experiment night-1", "pushed to DVC's default remote"]
    assert calls == [("exp", "save", "--force", "--name", "night-1"), ("push",)]
    broken = True
    assert len(deployed.save(ROOT, "night-1", push=False)) == 1
    with pytest.raises(StageFailed, match=r"results are kept, but `dvc push` fails: ERROR: the remote is full"):
        deployed.save(ROOT, "night-1", push=True)


def test_a_refused_night_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "check_night", lambda project, push: None)
    monkeypatch.setattr(deployed, "set_seed", lambda path, seed: None)
    monkeypatch.setattr(deployed, "save", lambda *given: pytest.fail("it was saved"))
    monkeypatch.setattr(deployed.pipeline, "fn", lambda: Failed(name="Invalid", message="no"))
    ended = deployed.nightly.fn(day=1)
    assert isinstance(ended, State) and ended.message == "no"
    ended = deployed.nightly.fn(day="today")  # type: ignore[arg-type]
    assert isinstance(ended, State) and "day = 'today': a whole number" in str(ended.message)


@pytest.fixture
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Path]:
    """A store, and a project whose file of the champion can be written."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params/champion.yaml").write_text("champion: none\n")
    store = Store(tmp_path / "state")
    monkeypatch.setattr(deployed, "PROJECT", tmp_path)
    monkeypatch.setattr(deployed, "open_plan", lambda: SimpleNamespace(store=store))
    return store, tmp_path


def test_the_champion_is_evaluated_as_the_contender(standing: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store, project = standing
    ended = deployed.evaluate_champion.fn()
    assert isinstance(ended, State) and "there is no champion yet" in str(ended.message)
    (project / "params/champion.yaml").write_text(f"champion: {{identity: {'0' * 32}.dir}}\n")
    ended = deployed.evaluate_champion.fn()
    assert isinstance(ended, State) and "are not in the store; `dvc pull` may bring them" in str(ended.message)

    (project / "made/model").mkdir(parents=True)
    (project / "made/model/config.json").write_text("{}")
    identity = store.put(project / "made")
    (project / "params/champion.yaml").write_text(f"champion: {{identity: {identity}}}\n")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(deployed.pipeline, "fn", lambda **given: seen.update(given) or {})
    deployed.evaluate_champion.fn(seed=7)
    assert (seen["first"], seen["last"]) == ("evaluate", "evaluate")
    settings = load(ROOT, "quickstart", tuple(seen["overrides"].items()))
    assert settings.shared.contender and settings.seed("evaluate") == 7 and settings.seed("generate") == settings.shared.seed
    player = settings.shared.roles["contender"]
    assert Path(player.path, "config.json").is_file() and player.identity == store.hashes.path(Path(player.path))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The flow that asks, with the present decision `now`, and what it does outside noted; `answer` is what a person said."""
    noted: dict[str, Any] = {"done": [], "outcome": "promoted"}
    note = noted["done"].append
    monkeypatch.setattr(deployed, "open_plan", lambda: None)
    monkeypatch.setattr(deployed, "present_decision", lambda plan: (Artifact("decide", "-", "now"), None))
    monkeypatch.setattr(deployed, "evidence", lambda plan, decision: "**gates**")
    monkeypatch.setattr(deployed, "end_after", lambda run, hours: note(f"timer {hours}"))
    monkeypatch.setattr(deployed, "forget_end", lambda timer: note("timer gone"))
    monkeypatch.setattr(deployed, "ask", lambda project, decision, key: [f"a run asks about {decision}"])
    monkeypatch.setattr(deployed, "flow_run", SimpleNamespace(id="0" * 32, parameters={}))
    monkeypatch.setattr(deployed, "get_run_logger", lambda: SimpleNamespace(info=note))
    monkeypatch.setattr(deployed, "refuse", lambda decision, words: note(words))

    def suspend(wait_for_input: type[Answer], key: str) -> Answer:
        assert wait_for_input._description == "**gates**"
        return wait_for_input(**noted["answer"])

    def approve(why: str) -> tuple[dict[str, Any], list[str]]:
        note(why)
        return {"outcome": noted["outcome"], "reason": "as it is"}, ["DVC knows"]

    monkeypatch.setattr(deployed, "suspend_flow_run", suspend)
    monkeypatch.setattr(deployed, "approve", approve)
    yield noted


def test_an_approval_carries_the_decision_out_and_is_named_by_its_outcome(asked: dict[str, Any]) -> None:
    asked["answer"] = {"approve": True, "by": "Ada ", "why": " reviewed"}
    ended = deployed.promote.fn(decision="now", hours=2)
    assert asked["done"] == ["timer 2.0", "timer gone", "reviewed (Ada)", "DVC knows"]
    assert ended.is_completed() and (ended.name, ended.message) == ("Promoted", "as it is")
    asked["outcome"] = "refused"
    assert deployed.promote.fn(decision="now").name == "Refused"


def test_who_says_no_or_nothing_ends_it_as_refused(asked: dict[str, Any]) -> None:
    asked["answer"] = no("time-out", "nobody answered within 2 hours")
    ended = deployed.promote.fn(decision="now", hours=2)
    assert ended.is_completed() and (ended.name, ended.message) == ("Refused", "time-out: nobody answered within 2 hours")
    assert asked["done"][-1] == "turned down by time-out: nobody answered within 2 hours"


def test_no_person_is_asked_about_what_is_not_the_present_decision(asked: dict[str, Any]) -> None:
    ended = deployed.promote.fn(decision="former")
    assert (ended.name, ended.message) == ("Refused", "decision former is not the workspace's any more, which is now now")
    ended = deployed.promote.fn()
    assert (ended.name, ended.message) == ("Asked", "a run asks about now")
    for hours in (0, True, "a week"):
        ended = deployed.promote.fn(decision="now", hours=hours)  # type: ignore[arg-type]
        assert ended.name == "Invalid" and "a number above 0" in str(ended.message)
    assert not asked["done"]


def test_the_form_asks_who_and_why() -> None:
    """By the schema that Prefect's server compares an answer with."""
    from prefect.utilities.schema_tools.validation import is_valid

    schema = Answer.model_json_schema()
    assert schema["required"] == ["approve", "by", "why"] and set(schema["properties"]) == {"approve", "by", "why"}
    good = {"approve": True, "by": "Ada", "why": "reviewed"}
    assert is_valid(good, schema) and is_valid(no("time-out", "late"), schema)
    for wrong in ({"by": ""}, {"why": "  "}, {"approve": "perhaps"}, {"more": 1}):
        assert not is_valid({**good, **wrong}, schema), wrong


def test_a_deployment_without_its_project_is_refused_when_it_is_deployed(tmp_path: Path) -> None:
    deployed.check_project(str(ROOT))
    for given in ("", "{{ $CAIRN_PROJECT }}", str(tmp_path)):
        with pytest.raises(BadInput, match=r"no project of Cairn's .* Set it to the checkout"):
            deployed.check_project(given)


@pytest.mark.parametrize(
    ("error", "again"),
    [(CallFailed("no answer"), True), (NearlyAllLost("all"), False), (StageFailed("mine"), False), (OSError(), False)],
)
def test_only_a_server_that_gave_no_answer_is_worth_another_try(error: Exception, again: bool) -> None:
    assert may_pass(None, TaskRun(task_key="k", dynamic_key="0"), Failed(data=error)) is again  # type: ignore[arg-type]


def test_a_specialist_is_not_tried_by_itself() -> None:
    """Its stage is, whose own tries would be multiplied."""
    within = TaskRun(task_key="k", dynamic_key="0", task_inputs={"__parents__": [TaskRunResult(id=uuid4())]})
    assert may_pass(None, within, Failed(data=CallFailed("no answer"))) is False  # type: ignore[arg-type]


def test_stages_that_ask_a_model_server_carry_its_tag() -> None:
    """One for each server, whatever the path; scripted roles, and those that the stage does not ask, give none. A server that plays
    the checkpoints of a stage is one."""
    urls = {"human": "http://127.0.0.1:8000/v1", "judge": "http://127.0.0.1:8000/v2", "critic": "http://127.0.0.1:9000/v1", "agent": ""}
    shared = SimpleNamespace(roles={name: SimpleNamespace(base_url=url) for name, url in urls.items()})
    stages = {"generate": SimpleNamespace(roles=("human", "judge", "agent", "feedback")), "sft": SimpleNamespace(roles=())}
    plan = SimpleNamespace(settings=SimpleNamespace(shared=shared, engine=lambda stage: None), stages=stages)
    tags = {stage: server_tags(SimpleNamespace(plan=plan, stage=stage)) for stage in stages}  # type: ignore[arg-type]
    assert tags == {"generate": ["model-server 127.0.0.1:8000"], "sft": []}
    settings = load(ROOT, "gpu_80g")
    plan = SimpleNamespace(settings=settings, stages=listed(settings))
    tags = {stage: server_tags(SimpleNamespace(plan=plan, stage=stage)) for stage in plan.stages}  # type: ignore[arg-type]
    assert {stage: found for stage, found in tags.items() if found} == {"rl": ["model-server 127.0.0.1:8000"]}


def test_every_deployment_tries_again_and_gives_signs_of_life() -> None:
    """Any of them may have a model server in its params."""
    for one in read_yaml(ROOT / "infra/prefect.yaml")["deployments"]:
        variables = one["work_pool"]["job_variables"]["env"]
        assert int(variables["PREFECT_TASKS_DEFAULT_RETRIES"]) == 3 and variables["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"], one["name"]
