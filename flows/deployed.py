"""What a scheduler runs beside the road itself: the night's run, an evaluation of the champion, a promotion by a person.

`infra/prefect.yaml` has a deployment of each.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from prefect import State, flow, get_client, get_run_logger
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import WithJsonSchema

from flows import PROJECT, form
from flows.approval import approve, present_decision, refuse
from flows.approval_form import Answer, evidence
from flows.approval_request import ask, end_after, forget_end, no
from flows.dvc_command import busy, dvc
from flows.flow_ends import in_words, refused
from flows.flow_run_name import unless_named
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
Hours = Annotated[
    float,
    WithJsonSchema(
        {"type": "number", "exclusiveMinimum": 0, "description": "Hours until the run answers no by itself: `by: time-out`."}
    ),
]


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


@flow(name="cairn-nightly", flow_run_name=unless_named(_night_name), validate_parameters=False)
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
    """Write the seed of the stages that make conversations to learn from into the active params, comments kept."""
    from flows.model_fill import written_into

    old = path.read_text(encoding="utf-8")
    new = written_into(old, [(f"{stage}.seed", seed) for stage in ROAD.entering("generate") if stage not in ROAD.held_out])
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


def _champion_name() -> str:
    try:
        champion = (read(PROJECT / CHAMPION).champion or "none")[:10]
    except BadInput:  # which the run is about to say
        champion = "unknown"
    return f"champion {champion}, seed {brief(flow_run.parameters.get('seed') or day_of_run())}"


@flow(name="cairn-evaluate-champion", flow_run_name=unless_named(_champion_name), validate_parameters=False)
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


# --- a promotion -----------------------------------------------------------------------------------------------------


def _approval_name() -> str:
    return f"approval of decision {str(flow_run.parameters.get('decision') or 'at present')[:12]}"


@flow(name="cairn-promote", flow_run_name=unless_named(_approval_name), validate_parameters=False)
@in_words
def promote(decision: str = "", hours: Hours = 168.0) -> State[Any]:
    """Ask a person whether the workspace's decision is carried out, where `promote.approval` is manual. `cairn run` starts it.

    The run is suspended while it waits, and holds nothing. Press Resume: the form shows the gates and two conversations. Approved, the
    run ends in a state of the outcome's name (Promoted, Unchanged, Not promoted, Waiting), otherwise in Refused.

    Args:
        decision: The identity of the decision. Empty: the present one, about which another run then asks.
    """
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not hours > 0:
        raise BadInput(f"hours = {brief(hours)}: a number above 0, the hours until the run answers no by itself.")
    plan = open_plan()
    found, _ = present_decision(plan)
    if not decision:
        return Completed(
            name="Asked", message="; ".join(ask(PROJECT, found.identity, str(flow_run.id))) or "no Prefect server is named"
        )
    if decision != found.identity:
        return refused(f"decision {decision} is not the workspace's any more, which is {found.identity} now", None)
    timer = end_after(UUID(str(flow_run.id)), float(hours))
    form_of_decision = Answer.with_initial_data(description=evidence(plan, found))
    answer = suspend_flow_run(wait_for_input=form_of_decision, key="approval")  # from here on in another process, after the answer
    forget_end(timer)
    by, why = answer.by.strip(), answer.why.strip()
    if not answer.approve:
        refuse(found, f"turned down by {by}: {why}")
        return refused(f"{by}: {why}", None)
    promotion, lines = approve(f"{why} ({by})")
    for line in lines:
        get_run_logger().info(line)
    if promotion["outcome"] == "refused":
        return refused(promotion["reason"], None)
    return Completed(name=promotion["outcome"].capitalize(), message=promotion["reason"])


@flow(name="cairn-promote-timeout", flow_run_name="end of an approval", validate_parameters=False)
def approval_timeout(flow_run: str, hours: float) -> State[Any]:
    """Answer no for the run that asks for an approval, when its hours are over; the run that asks schedules it.

    Args:
        flow_run: The id of the run that asks.
        hours: How long it asked.
    """
    with get_client(sync_client=True) as client:
        while (state := client.read_flow_run(UUID(flow_run)).state) and state.is_running():  # it is about to be suspended, or to end
            time.sleep(5)
        if not state or not state.is_paused():
            return Completed(message="it was answered before")
    resume_flow_run(UUID(flow_run), run_input=no("time-out", f"nobody answered within {hours:g} hours"))
    return Completed(message=f"answered no for {flow_run}")


def check_project(project: str) -> None:
    """A step of `prefect deploy`: BadInput unless the folder in which the worker is to run is a project of Cairn's."""
    if not project or project.startswith("{{") or not (Path(project) / PIPELINE).is_file():
        raise BadInput(
            f"CAIRN_PROJECT = {project!r}: no project of Cairn's ({PIPELINE} is not there). Set it to the checkout in which the worker "
            f"shall run, such as CAIRN_PROJECT=$PWD."
        )
