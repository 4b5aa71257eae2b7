"""What a scheduler runs beside the road itself: the night's run, an evaluation of the champion, a promotion by hand.

`infra/prefect.yaml` has a deployment of each.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import WithJsonSchema

from flows import PROJECT, form
from flows.approval import approve
from flows.dvc_command import busy, dvc
from flows.flow_ends import in_words
from flows.pipeline import pipeline
from flows.repository import Repository
from flows.run import open_plan
from tasks.contract.params import BadInput, StageFailed, brief
from tasks.engine.champion import CHAMPION, read
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE
from tasks.road import ROAD

Day = Annotated[
    int,
    WithJsonSchema(
        {
            "type": "integer",
            "minimum": 0,
            "maximum": 2**31 - 1,
            "description": "The seed of what is made anew. 0: the day for which the run was scheduled, as YYYYMMDD.",
        }
    ),
]
Text = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1})]


def day_of_run() -> int:
    """The day for which the run was scheduled, in UTC, as YYYYMMDD: a run that is late or tried again has the same one."""
    begun: datetime.datetime = flow_run.scheduled_start_time or datetime.datetime.now(datetime.UTC)
    return int(begun.astimezone(datetime.UTC).strftime("%Y%m%d"))


def _seed(value: object, name: str) -> int:
    """The seed that was given, or the day. BadInput for what is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise BadInput(f"{name} = {brief(value)}: a whole number from 0 to {2**31 - 1}; 0 is the day, as YYYYMMDD.")
    return value or day_of_run()


# --- the night -------------------------------------------------------------------------------------------------------


def _night_name() -> str:
    return f"night {flow_run.parameters.get('day') or day_of_run()}"


@flow(name="cairn-nightly", flow_run_name=_night_name, validate_parameters=False)
@in_words
def nightly(day: Day = 0, push: bool = True) -> dict[str, str] | State[Any]:
    """Run the workspace's road on new conversations, save the result as an experiment of DVC's, and push it.

    The active params get the day as the seed of `generate` (else nothing would be to do), and stay so. A candidate that passes the
    gates is promoted. Nothing is committed to a branch.

    Args:
        push: Send the results to DVC's default remote, so that another machine can pull them.
    """
    day = _seed(day, "day")
    check_night(PROJECT, push)
    set_seed(PROJECT / PIPELINE, day)
    ended: dict[str, str] | State[Any] = pipeline.fn()
    if not isinstance(ended, State) or ended.is_completed():
        for line in save(PROJECT, f"night-{day}", push):
            get_run_logger().info(line)
    return ended


def check_night(project: Path, push: bool) -> None:
    """Before hours of work: BadInput when its result could not be saved as an experiment, or not be pushed."""
    if not Repository(project).commit_of("HEAD"):
        raise BadInput(f"{project} is no git repository with a commit, and DVC saves an experiment on top of one: `git init`, commit.")
    if push and not dvc(project, "config", "core.remote").stdout.strip():
        raise BadInput("DVC has no default remote to push to: `dvc remote add --default NAME URL`, or run the night with push: false.")


def set_seed(path: Path, seed: int) -> None:
    """Write the seed of the stages that make conversations into the active params, comments kept."""
    from flows.model_fill import written_into

    old = path.read_text(encoding="utf-8")
    new = written_into(old, [(f"{stage}.seed", seed) for stage in ROAD.entering("generate")])
    if new != old:
        write_text(path, new)


def save(project: Path, name: str, push: bool) -> list[str]:
    """`dvc exp save`, then `dvc push`; returns a line for each. StageFailed when DVC cannot."""
    calls = [("exp", "save", "--force", "--name", name), *([("push",)] if push else [])]
    for call in calls:
        answer = dvc(project, *call)
        if answer.returncode:
            why = busy(project, answer.stderr or answer.stdout)
            raise StageFailed(f"the run is done and its results are kept, but `dvc {' '.join(call)}` fails: {why}")
    return [f"saved as DVC's experiment {name}", *(["pushed to DVC's default remote"] if push else [])]


# --- the champion ----------------------------------------------------------------------------------------------------


@flow(name="cairn-evaluate-champion", validate_parameters=False)
@in_words
def evaluate_champion(seed: Day = 0, more_overrides: form.Lines = "") -> dict[str, str] | State[Any]:
    """Play problems that nobody has seen with the champion, beside the models of the workspace's last run.

    The champion stands in the report as the contender: an experiment, which promotes nothing. The workspace's run must be there: the
    stages before the evaluation are not computed.
    """
    asked = {**champion_overrides(), f"{ROAD.judged}.seed": _seed(seed, "seed")}
    return pipeline.fn(first=ROAD.judged, last=ROAD.judged, overrides=asked, more_overrides=more_overrides)


def champion_overrides() -> Mapping[str, Any]:
    """The params with which the champion is the contender. BadInput without a champion, or without its bytes."""
    standing = read(PROJECT / CHAMPION)
    if not standing.champion:
        raise BadInput(f"there is no champion yet ({CHAMPION} says none): `cairn run` promotes the first candidate that passes")
    store = open_plan().store
    if not store.has(standing.champion):
        raise BadInput(f"the bytes of the champion {standing.champion} are not in the store; `dvc pull` may bring them")
    folder = store.view(standing.champion) / "model"
    return {"roles.contender": {"backend": "local", "path": str(folder), "identity": store.hashes.path(folder)}}


@flow(name="cairn-promote", validate_parameters=False)
@in_words
def promote(by: Text, why: Text) -> State[Any]:
    """Approve the present decision of the workspace, where `promote.approval` is manual: the candidate becomes champion, if its gates
    allow it. The run ends in a state of the outcome's name: Promoted, Refused, Unchanged, Not promoted or Waiting.

    Args:
        by: Who approves; open-source Prefect knows no users.
        why: For the ledger of promotions.
    """
    for name, text in (("by", by), ("why", why)):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{name} is empty. The ledger keeps who approved a promotion and why.")
    promotion, lines = approve(f"{why.strip()} ({by.strip()})")
    for line in lines:
        get_run_logger().info(line)
    return Completed(name=promotion["outcome"].capitalize(), message=promotion["reason"])


def check_project(project: str) -> None:
    """A step of `prefect deploy`: BadInput unless the folder in which the worker is to run is a project of Cairn's."""
    if not project or project.startswith("{{") or not (Path(project) / PIPELINE).is_file():
        raise BadInput(
            f"CAIRN_PROJECT = {project!r}: no project of Cairn's ({PIPELINE} is not there). Set it to the checkout in which the worker "
            f"shall run, such as CAIRN_PROJECT=$PWD."
        )
